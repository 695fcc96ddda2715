//! One simulated web request: what ASP.NET asks the state server for, page by page (protocol 6).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::body;
use super::checker::{
    Begun, CheckedOutcome, Create, Holder, Leave, SeenContents, SessionEvents, SessionLedger,
    Violation, Writing,
};
use super::connection::AnswerBuffer;
use super::random::Random;
use super::report::FarmFailure;
use super::session::{Session, Visitor};
use super::web_server::WebServer;
use crate::wire::decimal;
use crate::wire::{Operation, Request, ResponseHead, encode_request};

/// One of the web requests that run at the same time; it runs page after page.
pub(crate) struct WebRequest {
    server: Rc<WebServer>,
    random: Random,
    request: Vec<u8>,
    body: Vec<u8>,
    answer: AnswerBuffer,
    violations: Vec<Violation>,
    /// The thread that its page runs on.
    thread: Option<OwnedSemaphorePermit>,
    was_contended: bool,
}

/// Why a page ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an error for the user.
    Failed,
    /// The run was stopped while the page waited for a lock.
    Unfinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Change,
    Keep,
    Read,
    Touch,
    Abandon,
}

enum Acquired {
    Locked {
        holder: Holder,
        /// Whether the page could read the body.
        is_readable: bool,
    },
    Absent,
}

/// How often a page starts a session that others remove under its hands before it gives up.
const MAX_CREATES: usize = 8;
/// Ages from here on count as 0: the server reports them while it replaces an item (protocol 4).
const ABSURD_AGE_S: u64 = 31_536_000;
/// How often the final sweep tries to free a session that nobody can be using any more.
const SWEEP_TRIES: usize = 3;

impl WebRequest {
    pub(crate) fn new(server: Rc<WebServer>, random: Random) -> Self {
        Self {
            server,
            random,
            request: Vec::new(),
            body: Vec::new(),
            answer: AnswerBuffer::new(),
            violations: Vec::new(),
            thread: None,
            was_contended: false,
        }
    }

    /// Whether its last page wanted a lock that another one held.
    pub(crate) fn was_contended(&self) -> bool {
        self.was_contended
    }

    /// Serves the page with this number to one user.
    pub(crate) async fn run_page(&mut self, ticket: u64) -> Result<(), Ended> {
        self.was_contended = false;
        self.thread = self.server.take_thread().await;
        let ended = self.serve_page(ticket).await;
        self.thread = None;
        ended
    }

    async fn serve_page(&mut self, ticket: u64) -> Result<(), Ended> {
        let page = self.pick_page();
        let server = Rc::clone(&self.server);
        let visitor = match server.options().burst as u64 {
            0 | 1 => server.population().next_visitor(&mut self.random),
            burst => server.population().next_of_burst(ticket / burst),
        };
        match visitor {
            Visitor::WithoutCookie(place) => self.first_page(place).await,
            Visitor::WithCookie(place, session) => match page {
                Page::Read => self.read_only(&session).await,
                Page::Touch => self.touch(&session).await,
                Page::Change => self.read_write(&session, Leave::Write).await,
                Page::Keep => self.read_write(&session, Leave::Release).await,
                Page::Abandon => {
                    let abandoned = self.read_write(&session, Leave::Remove).await;
                    let percent = server.options().mix.cookieless_return_percent;
                    if abandoned.is_ok() && self.random.below(100) < u64::from(percent) {
                        server.population().forget(place, &session);
                    }
                    abandoned
                }
            },
        }
    }

    /// Reads one session at the end of a run; returns whether it could be read.
    pub(crate) async fn sweep(&mut self, session: &Arc<Session>) -> bool {
        for _ in 0..SWEEP_TRIES {
            let begun = session.ledger().begin(self.server.now_ns());
            let reply = self.exchange(Operation::Get, session, 0, None).await;
            let seen = self.item(session, &reply);
            self.judge_read(session, begun, seen);
            match reply {
                Err(_) => return false,
                Ok(head) if head.status != 423 => return true,
                // Nobody is left who could hold it: the lock of a page that failed.
                Ok(head) => self.take_over(session, self.lock_cookie(&head)).await,
            }
        }
        false
    }

    fn pick_page(&mut self) -> Page {
        let mix = self.server.options().mix;
        let shares = [
            (Page::Change, mix.change),
            (Page::Keep, mix.keep),
            (Page::Read, mix.read),
            (Page::Touch, mix.touch),
            (Page::Abandon, mix.abandon),
        ];
        let total = shares.iter().map(|&(_, share)| u64::from(share)).sum();
        let mut drawn = self.random.below(total);
        for (page, share) in shares {
            match drawn.checked_sub(u64::from(share)) {
                Some(rest) => drawn = rest,
                None => return page,
            }
        }
        Page::Change
    }
}

// The pages.
impl WebRequest {
    /// No session cookie: nothing at the start, one PUT at the end.
    async fn first_page(&mut self, place: usize) -> Result<(), Ended> {
        let server = Rc::clone(&self.server);
        let session = server.population().new_session();
        let stored = self.create(&session, Create::Plain).await;
        // Session_Start runs in the page itself, before anything is stored.
        server.met(SessionEvents {
            session_start: true,
            new_session: true,
        });
        server.population().settle(place, session);
        stored
    }

    async fn read_write(&mut self, session: &Arc<Session>, leave: Leave) -> Result<(), Ended> {
        let mut leave = leave;
        let mut contender = session.contend();
        self.was_contended = contender.meets_another;
        let asked_at_ns = self.server.now_ns();
        for _ in 0..MAX_CREATES {
            match self.acquire(session).await? {
                Acquired::Locked {
                    holder,
                    is_readable: true,
                } => {
                    let locked_at_ns = self.server.now_ns();
                    let waited_ns = locked_at_ns - asked_at_ns;
                    contender.holds();
                    self.server.pause(self.server.options().hold).await;
                    let left = self.leave(session, holder, leave).await;
                    let held_ns = self.server.now_ns() - locked_at_ns;
                    let ahead = contender.meets_another.then_some(contender.ahead);
                    self.server.tally().lock(waited_ns, ahead, held_ns);
                    return left;
                }
                Acquired::Locked { holder, .. } => {
                    self.leave(session, holder, Leave::Release).await?;
                    return Err(Ended::Failed);
                }
                Acquired::Absent => self.create(session, Create::Insert).await?,
            }
            if leave == Leave::Release {
                // A new session is stored, whatever the page does with it.
                leave = Leave::Write;
            }
        }
        Err(Ended::Failed)
    }

    async fn read_only(&mut self, session: &Arc<Session>) -> Result<(), Ended> {
        let waiting_since = Instant::now();
        loop {
            let begun = session.ledger().begin(self.server.now_ns());
            let reply = self.exchange(Operation::Get, session, 0, None).await;
            let seen = self.item(session, &reply);
            self.judge_read(session, begun, seen);
            let head = reply.map_err(|_| Ended::Failed)?;
            match seen {
                SeenContents::Exists => self.wait_for_lock(session, &head, waiting_since).await?,
                SeenContents::Corrupt(_) => return Err(Ended::Failed),
                _ => return Ok(()),
            }
        }
    }

    async fn touch(&mut self, session: &Arc<Session>) -> Result<(), Ended> {
        let begun = session.ledger().begin(self.server.now_ns());
        let reply = self.exchange(Operation::Touch, session, 0, None).await;
        let seen = existence(&reply);
        self.judge_read(session, begun, seen);
        reply.map(|_| ()).map_err(|_| Ended::Failed)
    }
}

// The steps of the pages.
impl WebRequest {
    async fn acquire(&mut self, session: &Arc<Session>) -> Result<Acquired, Ended> {
        let waiting_since = Instant::now();
        loop {
            let begun = session.ledger().begin(self.server.now_ns());
            let asking = session.ask();
            let reply = self.exchange(Operation::Acquire, session, 0, None).await;
            drop(asking);
            let mut seen = self.item(session, &reply);
            let mut cookie = None;
            if let (SeenContents::Body { .. } | SeenContents::Corrupt(_), Ok(head)) = (seen, &reply)
            {
                cookie = self.lock_cookie(head);
                if cookie.is_none() {
                    self.server.fail(FarmFailure::Unparsable);
                    seen = SeenContents::Nothing;
                }
            }
            let (verdict, holder) = self.judge(session, |ledger, now, found| {
                ledger.end_acquire(begun, now, seen, cookie, found)
            });
            self.server.met(verdict);
            let head = reply.map_err(|_| Ended::Failed)?;
            match (seen, holder) {
                (_, Some(holder)) => {
                    let is_readable = matches!(seen, SeenContents::Body { .. });
                    return Ok(Acquired::Locked {
                        holder,
                        is_readable,
                    });
                }
                (SeenContents::Exists, _) => {
                    self.wait_for_lock(session, &head, waiting_since).await?
                }
                (SeenContents::Absent(_), _) => return Ok(Acquired::Absent),
                _ => return Err(Ended::Failed),
            }
        }
    }

    /// 423: break the lock when it is too old, then wait for the next poll.
    async fn wait_for_lock(
        &mut self,
        session: &Arc<Session>,
        head: &ResponseHead,
        waiting_since: Instant,
    ) -> Result<(), Ended> {
        let server = Rc::clone(&self.server);
        server.tally().lock_waits += 1;
        let execution_timeout = server.options().execution_timeout;
        if self.lock_age(head) >= execution_timeout {
            self.take_over(session, self.lock_cookie(head)).await;
        } else if waiting_since.elapsed() > 2 * execution_timeout {
            server.fail(FarmFailure::LockWait);
            return Err(Ended::Failed);
        }
        if server.is_stopped() {
            return Err(Ended::Unfinished);
        }
        self.thread = None;
        server.pause(server.options().poll_interval).await;
        self.thread = server.take_thread().await;
        Ok(())
    }

    /// Release with the cookie of somebody else's lock; what the answer says is ignored.
    async fn take_over(&mut self, session: &Arc<Session>, cookie: Option<u32>) {
        let Some(cookie) = cookie else { return };
        self.server.tally().takeovers += 1;
        let begun = session
            .ledger()
            .begin_takeover(self.server.now_ns(), cookie);
        let reply = self
            .exchange(Operation::Release, session, cookie, None)
            .await;
        let seen = existence(&reply);
        let flag = reply.is_ok_and(|head| head.is_uninitialised(self.answer.head(&head)));
        self.judge(session, |ledger, now, found| {
            ledger.end_takeover(begun, now, seen, flag, found)
        });
    }

    async fn create(&mut self, session: &Arc<Session>, create: Create) -> Result<(), Ended> {
        let writing = session.ledger().begin_create(self.server.now_ns(), create);
        let version = writing.version;
        let extra_flags = u32::from(create == Create::Insert);
        let put = Some((version, extra_flags));
        let reply = self.exchange(Operation::Put, session, 0, put).await;
        self.end_write(session, writing, reply)
    }

    async fn leave(
        &mut self,
        session: &Arc<Session>,
        holder: Holder,
        leave: Leave,
    ) -> Result<(), Ended> {
        let writing = session
            .ledger()
            .begin_leave(self.server.now_ns(), &holder, leave);
        let (operation, put) = match leave {
            Leave::Write => (Operation::Put, Some((writing.version, 0))),
            Leave::Remove => (Operation::Remove, None),
            Leave::Release => (Operation::Release, None),
        };
        let reply = self.exchange(operation, session, holder.cookie, put).await;
        self.end_write(session, writing, reply)
    }

    fn end_write(
        &mut self,
        session: &Arc<Session>,
        writing: Writing,
        reply: Result<ResponseHead, FarmFailure>,
    ) -> Result<(), Ended> {
        let outcome = match reply {
            Ok(head) => match head.status {
                200 => CheckedOutcome::Done,
                404 => CheckedOutcome::Absent,
                status => CheckedOutcome::Refused(status),
            },
            Err(FarmFailure::Connect) => CheckedOutcome::NotSent,
            Err(_) => CheckedOutcome::Unknown,
        };
        self.judge(session, |ledger, now, found| {
            ledger.end_write(writing, now, outcome, found);
        });
        reply.map(|_| ()).map_err(|_| Ended::Failed)
    }
}

// Requests and answers.
impl WebRequest {
    /// Sends one request to one of the targets. `put` is the version and the `ExtraFlags` of a PUT.
    async fn exchange(
        &mut self,
        operation: Operation,
        session: &Session,
        lock_cookie: u32,
        put: Option<(u64, u32)>,
    ) -> Result<ResponseHead, FarmFailure> {
        let server = Rc::clone(&self.server);
        let timeout_minutes = server.options().timeout_minutes;
        self.body.clear();
        if let Some((version, _)) = put {
            let size = server.options().body;
            let spread = u64::from(size.max_bytes.saturating_sub(size.min_bytes)) + 1;
            let body_bytes = size.min_bytes + self.random.below(spread) as u32;
            body::build(
                &mut self.body,
                &session.id,
                version,
                timeout_minutes,
                body_bytes,
            );
        }
        self.request.clear();
        let request = Request {
            operation,
            target: &session.target,
            lock_cookie,
            timeout_minutes,
            extra_flags: put.map_or(0, |(_, extra_flags)| extra_flags),
            body: &self.body,
        };
        encode_request(&mut self.request, &request);
        let pool = server.pick_pool(&mut self.random);
        let to_head = operation == Operation::Touch;
        let sent_at_ns = server.now_ns();
        let reply = pool
            .exchange(&self.request, to_head, &mut self.answer)
            .await;
        match reply {
            Ok(_) => server.answered(operation, server.now_ns() - sent_at_ns),
            Err(failure) => server.fail(failure),
        }
        reply
    }

    /// Reads the answer to a GET or an acquire as ASP.NET does: whatever is neither an item nor
    /// "locked" means "no such session" (protocol 6).
    fn item(&self, session: &Session, reply: &Result<ResponseHead, FarmFailure>) -> SeenContents {
        let head = match reply {
            Ok(head) => head,
            Err(FarmFailure::Connect) => return SeenContents::NotSent,
            Err(_) => return SeenContents::Nothing,
        };
        match head.status {
            200 if head.body_bytes > 0 => match body::verify(self.answer.body(head), &session.id) {
                Ok(version) => SeenContents::Body {
                    version,
                    flag: head.is_uninitialised(self.answer.head(head)),
                },
                Err(reason) => SeenContents::Corrupt(reason),
            },
            423 => SeenContents::Exists,
            status => SeenContents::Absent(status),
        }
    }

    fn lock_cookie(&self, head: &ResponseHead) -> Option<u32> {
        let cookie = decimal(head.lock_cookie?.of(self.answer.head(head)))?;
        u32::try_from(cookie).ok()
    }

    fn lock_age(&self, head: &ResponseHead) -> Duration {
        let age = head.lock_age.map(|age| age.of(self.answer.head(head)));
        match age.and_then(decimal) {
            Some(seconds) if seconds < ABSURD_AGE_S => Duration::from_secs(seconds),
            _ => Duration::ZERO,
        }
    }
}

// Reporting to the ledger.
impl WebRequest {
    fn judge_read(&mut self, session: &Session, begun: Begun, seen: SeenContents) {
        let verdict = self.judge(session, |ledger, now, found| {
            ledger.end_read(begun, now, seen, found)
        });
        self.server.met(verdict);
    }

    fn judge<T>(
        &mut self,
        session: &Session,
        tell: impl FnOnce(&mut SessionLedger, u64, &mut Vec<Violation>) -> T,
    ) -> T {
        let mut ledger = session.ledger();
        // Under the lock, so that the ledger hears of ends in the order of their times.
        let now = self.server.now_ns();
        let told = tell(&mut ledger, now, &mut self.violations);
        drop(ledger);
        for violation in self.violations.drain(..) {
            self.server.violation(session, violation);
        }
        told
    }
}

/// What the answer to a HEAD or a takeover says.
fn existence(reply: &Result<ResponseHead, FarmFailure>) -> SeenContents {
    match reply {
        Ok(head) => match head.status {
            200 | 423 => SeenContents::Exists,
            404 => SeenContents::Absent(404),
            // Ignored by ASP.NET, and no statement about the session.
            _ => SeenContents::Nothing,
        },
        Err(FarmFailure::Connect) => SeenContents::NotSent,
        Err(_) => SeenContents::Nothing,
    }
}
