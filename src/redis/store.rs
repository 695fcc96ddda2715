//! The store: every command as one script, sent again only where that does no harm.
//!
//! What became of a command whose answer is lost nobody knows. So each carries what makes a second
//! copy harmless:
//!
//! | command | sent again after a lost answer |
//! |---|---|
//! | shared read, touch | as it is; the nonce shows that the uninitialised flag was taken by itself |
//! | acquire | the nonce shows that the lock is its own |
//! | release | as it is: its cookie opens no later lock, and the nonce shows that it was carried out |
//! | store | with "sent again": not carried out if somebody has had the lock since; the nonce as there |
//! | remove | with "sent again": not carried out if somebody has had the lock since |
//!
//! A second copy that finds its work done writes something all the same. It may go over a new
//! connection, and WAIT there speaks of no write of the old one: servers from Redis 7.2 on answer at
//! once to a connection that has written nothing, and count replicas that do not have the change.
//!
//! Each that takes a lock, stores or removes also carries the time after which nobody waits for it.
//! A copy that is late does nothing. An acquire that was given up without an answer has its lock given
//! back by its nonce, once the engine answers again.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::spawn_local;

use super::client::Command;
use super::engine::{Engine, EngineOptions, ScriptAttempt};
use super::error::{EngineError, Sequel};
use super::key::{item_key, slot_of};
use super::node::EngineNode;
use super::reply::EngineReply;
use super::script::Script;
use super::trial;
use crate::log::LogLimit;
use crate::store::{
    BadHeader, Body, LockCookie, Now, SessionCommand, SessionStore, StoreDanger, StoreOutcome,
    StoreRefusal, StoreSurvey,
};

/// Before a command that was not carried out is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// So often a command may be sent at once. A slot that moves, a lost answer and a full server take two or
/// three; servers that send it to each other never come to an end.
const ATTEMPTS_AT_ONCE: u32 = 4;

/// Bodies that are longer are fetched without a script, which would copy them once more.
const MAX_SCRIPT_BODY_BYTES: i64 = 64 * 1024;

/// An acquire raises the counter by 1 to this.
const MAX_STEP: u64 = 63;

/// The lock of whoever has the nonce, instead of a cookie.
const OWN_LOCK: i64 = -3;

/// How long it is tried to give back a lock that nobody knows of: after the takeover age it is of no
/// use any more.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(100);

/// Between two attempts at that.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(500);

/// Locks that are given back at a time; those beyond wait for their takeover.
const MAX_GIVING_BACK: usize = 1000;

/// Ticks of `LockDate` in a millisecond.
const TICKS_PER_MS: u64 = 10_000;

/// The largest lock age told (protocol 4).
const MAX_LOCK_AGE_S: u64 = 31_535_999;

/// The sessions of one engine, for one thread.
#[derive(Debug, Clone)]
pub struct RedisStore(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    /// The engine has run the scripts as it must.
    tried: OnceCell<()>,
    answer: Duration,
    wait_replicas: u8,
    steps: Option<RandomState>,
    step_number: Cell<u64>,
    /// Locks that are being given back.
    giving_back: Cell<usize>,
    log_limit: LogLimit,
}

/// A command with all that its copies share.
struct Call {
    key: String,
    slot: u16,
    nonce: String,
    command: SessionCommand,
    step: i64,
    now: Now,
}

/// What earlier attempts have shown.
#[derive(Default)]
struct Course {
    /// One of them may have been carried out.
    again: bool,
    /// The server is full.
    live_only: bool,
    /// Where the key is on its way to.
    redirect: Option<EngineNode>,
}

impl RedisStore {
    /// The sessions of `engine`.
    pub fn new(engine: Engine, options: &EngineOptions) -> Self {
        Self(Rc::new(Inner {
            engine,
            tried: OnceCell::new(),
            answer: options.answer,
            wait_replicas: options.spec.wait_replicas,
            steps: (!options.steps_of_one).then(RandomState::new),
            step_number: Cell::new(0),
            giving_back: Cell::new(0),
            log_limit: LogLimit::default(),
        }))
    }
}

impl SessionStore for RedisStore {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        let inner = &self.0;
        let key = item_key(inner.engine.prefix(), key);
        let call = Call {
            slot: slot_of(&key),
            key,
            nonce: inner.engine.nonce(),
            command,
            step: inner.step(),
            now,
        };
        async move {
            let (outcome, lock) = inner.carry_out(call).await;
            if let Some(lock) = lock {
                inner.give_back(lock);
            }
            outcome
        }
    }

    async fn survey(&self) -> StoreSurvey {
        let mut found = self.0.engine.survey().await;
        if !matches!(found.dangers[..], [StoreDanger::Unusable { .. }, ..])
            && let Err(reason) = self.ready().await
        {
            found.dangers.insert(0, StoreDanger::Unusable { reason });
        }
        found
    }

    async fn ready(&self) -> Result<(), String> {
        let ready = async {
            self.0.engine.ready().await?;
            self.0.try_scripts().await
        };
        ready.await.map_err(|error: EngineError| error.to_string())
    }
}

impl Inner {
    /// How far the next acquire raises the counter. After a failover that lost an acquire, the next
    /// one hardly gets the cookie that the lost one had.
    fn step(&self) -> i64 {
        let Some(random) = &self.steps else {
            return 1;
        };
        let number = self.step_number.get();
        self.step_number.set(number.wrapping_add(1));
        let step = random.hash_one(number) % MAX_STEP + 1;
        i64::try_from(step).unwrap_or(1)
    }

    /// No session is trusted to an engine that has not shown that it runs the scripts as it must.
    async fn try_scripts(&self) -> Result<(), EngineError> {
        let tried = self.tried.get_or_try_init(|| trial::run(&self.engine));
        tried.await.map(|_tried| ())
    }

    /// What became of a command. An acquire that nobody can answer for comes back: it may have taken
    /// the lock.
    async fn carry_out(&self, call: Call) -> (StoreOutcome, Option<Call>) {
        let mut course = Course::default();
        let outcome = self.try_until_due(&call, &mut course).await;
        let is_acquire = matches!(call.command, SessionCommand::Acquire);
        let is_unclear = course.again && matches!(outcome, StoreOutcome::Unknown);
        (outcome, (is_acquire && is_unclear).then_some(call))
    }

    /// Gives the lock of an acquire back whose cookie nobody knows, in the background: every page of
    /// its user would wait for the takeover otherwise.
    fn give_back(self: &Rc<Self>, lock: Call) {
        if self.giving_back.get() >= MAX_GIVING_BACK {
            return;
        }
        self.giving_back.set(self.giving_back.get() + 1);
        let inner = Rc::clone(self);
        spawn_local(async move {
            inner.try_to_give_back(&lock).await;
            inner.giving_back.set(inner.giving_back.get() - 1);
        });
    }

    async fn try_to_give_back(&self, lock: &Call) {
        let due_ms = self.engine.now_ms() + GIVE_BACK_WITHIN.as_millis() as u64;
        let answer_ms = self.answer.as_millis() as u64;
        let script = &self.engine.scripts().release;
        let mut redirect = None;
        while self.engine.now_ms() < due_ms {
            let asked = ScriptAttempt {
                slot: lock.slot,
                redirect: redirect.as_ref(),
                due_ms: None,
                until_ms: self.engine.now_ms() + answer_ms,
                replicas: 0,
            };
            let command = |_: &str| {
                let command = Command::script(script, &lock.key, &lock.nonce, 0);
                command.number(OWN_LOCK)
            };
            let Err(error) = self.engine.run(script, &asked, command).await else {
                return;
            };
            redirect = None;
            match error.sequel() {
                Sequel::Moved(slot, node) => self.engine.moved(slot, node),
                Sequel::Ask(node) => redirect = Some(node),
                Sequel::Refused => return,
                _ => self.engine.look_anew(),
            }
            self.engine.clock().sleep(GIVE_BACK_PAUSE).await;
        }
    }

    async fn try_until_due(&self, call: &Call, course: &mut Course) -> StoreOutcome {
        let due_ms = self.engine.now_ms() + self.answer.as_millis() as u64;
        let mut at_once = ATTEMPTS_AT_ONCE;
        loop {
            at_once = at_once.saturating_sub(1);
            let error = match self.attempt(call, course, due_ms).await {
                Ok(Answer::Outcome(outcome)) => return outcome,
                // The server's clock has been set, or the item has changed: nothing ran.
                Ok(Answer::TooLate | Answer::Again) => None,
                Err(error) => Some(error),
            };
            let mut pause = Duration::ZERO;
            if let Some(error) = &error {
                match self.prepare(call, course, error) {
                    Next::At(after) => pause = after,
                    Next::Never => return self.give_up(call, course, &error.to_string()),
                    Next::Outcome(outcome) => return outcome,
                }
            }
            if at_once == 0 {
                pause = PAUSE;
            }
            if self.engine.now_ms() + pause.as_millis() as u64 >= due_ms {
                let reason = error.map_or("its time is over".to_owned(), |error| error.to_string());
                return self.give_up(call, course, &reason);
            }
            if !pause.is_zero() {
                self.engine.clock().sleep(pause).await;
            }
        }
    }

    /// What to do after `error`.
    fn prepare(&self, call: &Call, course: &mut Course, error: &EngineError) -> Next {
        course.redirect = None;
        match error.sequel() {
            Sequel::Unclear => {
                course.again = true;
                self.engine.look_anew();
                Next::At(Duration::ZERO)
            }
            Sequel::Later => {
                self.engine.look_anew();
                Next::At(PAUSE)
            }
            Sequel::Moved(slot, node) => {
                self.engine.moved(slot, node);
                Next::At(Duration::ZERO)
            }
            Sequel::Ask(node) => {
                course.redirect = Some(node);
                Next::At(Duration::ZERO)
            }
            // It was loaded, and lost again at once.
            Sequel::LoadScript => Next::At(PAUSE),
            Sequel::Full => match &call.command {
                SessionCommand::Put { .. } if !course.live_only => {
                    course.live_only = true;
                    Next::At(Duration::ZERO)
                }
                SessionCommand::Put { .. } => {
                    Next::Outcome(StoreOutcome::Refused(StoreRefusal::MemoryFull))
                }
                _ => Next::Never,
            },
            Sequel::Refused => Next::Never,
        }
    }

    /// No answer will come. A write that certainly was not carried out is refused; whatever else
    /// would be answered would claim to know.
    fn give_up(&self, call: &Call, course: &Course, reason: &str) -> StoreOutcome {
        if let Some(suppressed) = self.log_limit.allow(self.engine.clock().now_ms()) {
            let what = call.name();
            tracing::warn!(suppressed, "redis: {what} has failed: {reason}");
        }
        match call.command.is_write() && !course.again {
            true => StoreOutcome::Refused(StoreRefusal::NotWritable),
            false => StoreOutcome::Unknown,
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        course: &Course,
        due_ms: u64,
    ) -> Result<Answer, EngineError> {
        let changes = !matches!(call.command, SessionCommand::Get | SessionCommand::Touch);
        let may_be_late = changes && !matches!(call.command, SessionCommand::Release { .. });
        let asked = ScriptAttempt {
            slot: call.slot,
            redirect: course.redirect.as_ref(),
            due_ms: may_be_late.then_some(due_ms),
            until_ms: due_ms,
            replicas: if changes { self.wait_replicas } else { 0 },
        };
        if !self.tried.initialized() {
            let tried = Box::pin(self.try_scripts());
            self.engine.until(due_ms, tried).await?;
        }
        let script = self.script(&call.command, course);
        let command = |deadline: &str| call.command(script, course, deadline);
        let (node, reply) = self.engine.run(script, &asked, command).await?;
        match call.read(&reply, course) {
            Some(Read::Answer(answer)) => {
                if matches!(answer, Answer::TooLate) {
                    self.engine.time_is_wrong(&node);
                }
                Ok(answer)
            }
            Some(Read::LongBody(found)) => {
                let body = self.engine.fetch(&asked, &call.key, &call.nonce);
                match Box::pin(body).await? {
                    EngineReply::Bytes(body) => {
                        Ok(Answer::Outcome(found.outcome(Body::from(body))))
                    }
                    // It was removed in between, as the script will say.
                    _ => Ok(Answer::Again),
                }
            }
            None => {
                self.engine.distrust(&node);
                Err(EngineError::Garbage {
                    node: EngineNode::clone(&node),
                })
            }
        }
    }

    fn script(&self, command: &SessionCommand, course: &Course) -> &Script {
        let scripts = self.engine.scripts();
        match command {
            SessionCommand::Get | SessionCommand::Acquire => &scripts.read,
            SessionCommand::Release { .. } => &scripts.release,
            SessionCommand::Put { .. } if course.live_only => &scripts.put_live,
            SessionCommand::Put { .. } => &scripts.put,
            SessionCommand::Remove { .. } => &scripts.delete,
            SessionCommand::Touch => &scripts.touch,
        }
    }
}

enum Next {
    /// Another attempt, after a pause.
    At(Duration),
    Never,
    Outcome(StoreOutcome),
}

enum Answer {
    Outcome(StoreOutcome),
    /// The server's clock was past the time after which nobody waits.
    TooLate,
    /// Ask once more: the item has changed in between.
    Again,
}

enum Read {
    Answer(Answer),
    /// The body is to be fetched.
    LongBody(Found),
}

/// An item without its body.
struct Found {
    timeout_minutes: u32,
    cookie: Option<u32>,
    action_flags: bool,
}

impl Found {
    fn outcome(self, body: Body) -> StoreOutcome {
        StoreOutcome::Found {
            body,
            timeout_minutes: self.timeout_minutes,
            cookie: self.cookie,
            action_flags: self.action_flags,
        }
    }
}

impl From<StoreOutcome> for Read {
    fn from(outcome: StoreOutcome) -> Self {
        Self::Answer(Answer::Outcome(outcome))
    }
}

impl Call {
    /// For the log.
    fn name(&self) -> &'static str {
        match &self.command {
            SessionCommand::Get => "a shared read",
            SessionCommand::Acquire => "a read with a lock",
            SessionCommand::Release { .. } => "a release",
            SessionCommand::Put { .. } => "a write",
            SessionCommand::Remove { .. } => "a removal",
            SessionCommand::Touch => "a touch",
        }
    }

    /// The command for `script`; `deadline` is in the server's time.
    fn command(&self, script: &Script, course: &Course, deadline: &str) -> Command {
        let new = |argument_bytes| Command::script(script, &self.key, &self.nonce, argument_bytes);
        let read = |step| {
            let command = new(0).number(step).text(deadline);
            command.number(MAX_SCRIPT_BODY_BYTES)
        };
        match &self.command {
            SessionCommand::Get => read(0),
            SessionCommand::Acquire => read(self.step),
            SessionCommand::Release { cookie } => new(0).number(number(*cookie)),
            SessionCommand::Put {
                timeout,
                insert_only,
                cookie,
                body,
            } => new(body.len())
                .number(i64::from(timeout.minutes))
                .number(number(*cookie))
                .flag(*insert_only)
                .flag(course.again)
                .flag(course.live_only)
                .text(deadline)
                .bytes(body),
            SessionCommand::Remove { cookie } => new(0)
                .number(number(*cookie))
                .flag(course.again)
                .text(deadline),
            SessionCommand::Touch => new(0),
        }
    }

    /// What the script's answer means; `None` for one that it never gives.
    fn read(&self, reply: &EngineReply, course: &Course) -> Option<Read> {
        let reply = reply.answer_to(&self.nonce)?;
        let (status, rest) = reply.split_first()?;
        Some(match (status.number()?, rest) {
            (200, [minutes, counter, first]) if self.is_read() => {
                Read::LongBody(self.found(minutes, counter, first)?)
            }
            (200, [minutes, counter, first, EngineReply::Bytes(body)]) if self.is_read() => {
                let found = self.found(minutes, counter, first)?;
                found.outcome(Body::from(body.as_slice())).into()
            }
            (200, rest) if !self.is_read() => {
                let zero_timeout = match &self.command {
                    SessionCommand::Put { timeout, .. } => timeout.was_zero,
                    _ => false,
                };
                let action_flags = matches!(rest, [EngineReply::Number(1)]);
                StoreOutcome::Done {
                    action_flags,
                    zero_timeout,
                }
                .into()
            }
            (400, []) => StoreOutcome::Invalid(self.bad_header()?).into(),
            (404, []) => StoreOutcome::Absent.into(),
            (408, []) => Read::Answer(Answer::TooLate),
            // Whoever has the lock now got it after the first copy was carried out, or the cookie
            // never was that of the lock.
            (423, _) if course.again && self.command.is_write() => StoreOutcome::Unknown.into(),
            (423, [counter, age_ms]) => {
                let age_ms = u64::try_from(age_ms.number()?).ok()?;
                let age_s = (age_ms / 1000).min(MAX_LOCK_AGE_S);
                StoreOutcome::Locked {
                    lock_date_ticks: self
                        .now
                        .local_ticks
                        .saturating_sub(age_ms.saturating_mul(TICKS_PER_MS)),
                    lock_age_s: u32::try_from(age_s).ok()?,
                    cookie: u32::try_from(counter.number()?).ok()?,
                }
                .into()
            }
            (507, []) => StoreOutcome::Refused(StoreRefusal::MemoryFull).into(),
            _ => return None,
        })
    }

    fn is_read(&self) -> bool {
        matches!(self.command, SessionCommand::Get | SessionCommand::Acquire)
    }

    fn found(
        &self,
        minutes: &EngineReply,
        counter: &EngineReply,
        first: &EngineReply,
    ) -> Option<Found> {
        let counter = u32::try_from(counter.number()?).ok()?;
        let is_acquire = matches!(self.command, SessionCommand::Acquire);
        Some(Found {
            timeout_minutes: u32::try_from(minutes.number()?).ok()?,
            cookie: is_acquire.then_some(counter),
            action_flags: first.number()? == 1,
        })
    }

    fn bad_header(&self) -> Option<BadHeader> {
        match &self.command {
            SessionCommand::Release { cookie }
            | SessionCommand::Put { cookie, .. }
            | SessionCommand::Remove { cookie } => match cookie {
                LockCookie::Missing => Some(BadHeader::LockCookieMissing),
                LockCookie::Unusable => Some(BadHeader::LockCookie),
                LockCookie::Number(_) => None,
            },
            _ => None,
        }
    }
}

/// A cookie as the scripts read it.
fn number(cookie: LockCookie) -> i64 {
    match cookie {
        LockCookie::Missing => -1,
        LockCookie::Unusable => -2,
        LockCookie::Number(number) => i64::from(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RedisSpec, RedisUrl};
    use crate::net::Deadlines;

    /// The answer to a shared read that says this.
    fn outcome(answer: [i64; 3]) -> Option<StoreOutcome> {
        let call = Call {
            key: String::new(),
            slot: 0,
            nonce: String::new(),
            command: SessionCommand::Get,
            step: 1,
            now: Now {
                unix_ms: 1_000_000,
                local_ticks: 638_000_000_000_000_000,
            },
        };
        let nonce = EngineReply::Bytes(Vec::new());
        let answer = [&answer.map(EngineReply::Number)[..], &[nonce]].concat();
        let reply = EngineReply::List(answer);
        match call.read(&reply, &Course::default())? {
            Read::Answer(Answer::Outcome(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// It is moved and kept for every request: what takes room is what happens seldom.
    #[test]
    fn a_command_waits_in_little_memory() {
        const MAX_BYTES: usize = 2560;
        let url = RedisUrl {
            is_tls: false,
            host: "redis.example".to_owned(),
            port: 6379,
            database: 0,
        };
        let options = EngineOptions {
            spec: RedisSpec::new(url),
            answer: Duration::from_secs(1),
            steps_of_one: false,
        };
        let store = RedisStore::new(Engine::new(&options, Deadlines::new()), &options);
        let now = Now {
            unix_ms: 0,
            local_ticks: 0,
        };
        let command = store.apply(b"/app(hash)/id", SessionCommand::Acquire, now);
        let bytes = size_of_val(&command);
        assert!(bytes <= MAX_BYTES, "{bytes}");
    }

    #[test]
    fn a_lock_may_be_as_old_as_a_server_says() {
        for (age_ms, lock_date_ticks, lock_age_s) in [
            (0, 638_000_000_000_000_000, 0),
            (1_500, 637_999_999_985_000_000, 1),
            (i64::MAX, 0, MAX_LOCK_AGE_S as u32),
        ] {
            let locked = StoreOutcome::Locked {
                lock_date_ticks,
                lock_age_s,
                cookie: 2,
            };
            assert_eq!(outcome([423, 2, age_ms]), Some(locked), "{age_ms}");
        }
        assert_eq!(outcome([423, 2, -1]), None);
        assert_eq!(outcome([423, -2, 1]), None);
    }
}
