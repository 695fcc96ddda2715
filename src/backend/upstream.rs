//! The one way to ask a server: a request goes out under a named retry policy, and the head of its
//! reply comes back with what arrived behind it.
//!
//! | state of the attempt | on a pooled connection | on a fresh one |
//! |---|---|---|
//! | no byte of the request was sent ([`Unsent`]) | once more, on a fresh connection | failed |
//! | sent whole, no byte of a reply ([`Broken`]) | once more under [`RetryPolicy::Unanswered`] | failed |
//! | a part of the body was streamed, or a byte of the reply came, or time is up ([`Broken`]) | failed | failed |
//!
//! `RetryPolicy::allows` is this table. ARCHITECTURE.md has its reasons.

use std::rc::Rc;
use std::time::Duration;

use super::connector::ConnectError;
use super::pool::ConnectionPool;
use crate::metrics::{BackendShard, Counter, RequestOutcome};
use crate::net::{
    Buffer, BufferPool, Conn, Deadline, IoError, MIN_PROGRESS_BYTES, Moment, TimeSpent,
};
use crate::wire::{Operation, Parsed, ResponseHead, Unfit, WireError};

/// Sessions this large evict each other from the cache, so their buffer is freed once they are sent.
const LARGE_BYTES: usize = 8 * 1024;

/// When a request may be sent a second time, on a fresh connection where a pooled one was dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// If no byte of it can have reached the server. For what takes a lock, stores or removes.
    Unsent,
    /// Also if it was sent whole and no byte of a reply came. For what harms nobody when it is done
    /// twice.
    Unanswered,
}

impl RetryPolicy {
    /// The policy for a client's own request (protocol 8).
    pub fn of(operation: Operation) -> Self {
        Self::of_own(operation.is_repeatable())
    }

    /// The policy for a request of the proxy's own. `is_harmless` says whether it harms nobody when it
    /// is done twice.
    pub fn of_own(is_harmless: bool) -> Self {
        match is_harmless {
            true => Self::Unanswered,
            false => Self::Unsent,
        }
    }

    /// Whether what failed on a pooled connection may be tried on a fresh one.
    fn allows(self, failed: &AskFailed) -> bool {
        match failed {
            AskFailed::Unsent(_) => true,
            AskFailed::Broken(broken) => broken.is_unanswered && self == Self::Unanswered,
        }
    }
}

/// The way to one server, for one request.
#[derive(Debug)]
pub struct Upstream<'a> {
    /// Its connections.
    pub pool: &'a ConnectionPool,
    /// What is counted of it.
    pub shard: &'a BackendShard,
    /// Memory for the reply.
    pub buffers: &'a Rc<BufferPool>,
    /// The time limit of whoever asks.
    pub deadline: &'a Deadline,
    /// Limits of one request.
    pub limits: AskLimits,
    /// When the reply is due, of the deadline's clock.
    pub due_ms: u64,
    /// Grows by the time that is spent waiting for the server.
    pub waited: &'a TimeSpent,
}

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct AskLimits {
    /// For one connection attempt.
    pub connect: Duration,
    /// For the reply to a streamed body, from its last byte on.
    pub answer: Duration,
    /// Longest head of a reply in bytes.
    pub max_head_bytes: usize,
}

/// A request, ready to go out.
#[derive(Debug)]
pub struct Outgoing<'r> {
    /// What it asks for.
    pub operation: Operation,
    /// Head and body.
    pub content: RequestContent<'r>,
    /// Length of its body.
    pub body_bytes: u64,
    /// When it may go out twice.
    pub retry: RetryPolicy,
}

/// The bytes of a request.
#[derive(Debug)]
pub enum RequestContent<'r> {
    /// All of it.
    Whole(&'r [u8]),
    /// All of it at the start of the buffer that it was received in. If it is large and never sent
    /// again, its memory is given back while the reply is awaited.
    Received {
        /// Holds what came behind the request, too.
        buffer: &'r mut Buffer,
        /// Length of the request.
        bytes: usize,
    },
    /// What has been received of it, and the connection that brings the rest of its body.
    Streamed {
        /// Holds nothing else. Afterwards it holds what came behind the request.
        buffer: &'r mut Buffer,
        /// The rest.
        body: BodyStream<'r>,
    },
}

/// The part of a body that has not been received yet. It is passed on a buffer at a time.
#[derive(Debug)]
pub struct BodyStream<'r> {
    /// Where it comes from.
    pub from: &'r mut Conn,
    /// How many bytes.
    pub rest: u64,
    /// How long [`MIN_PROGRESS_BYTES`] of it may take.
    pub stall: Duration,
    /// Counts them.
    pub received_bytes: &'r Counter,
}

/// The head of a reply, what came with it, and the connection that brings the rest.
#[derive(Debug)]
pub struct Reply {
    /// The connection.
    pub conn: Conn,
    /// Begins with the head.
    pub bytes: Buffer,
    /// The head.
    pub head: ResponseHead,
    /// Its connection may serve another request once the reply is read whole.
    pub keeps_connection: bool,
    /// Whether the request has left its buffer: it was streamed, or large.
    pub is_request_gone: bool,
    /// When the rest is due: later than the head if the body was streamed.
    pub due_ms: u64,
}

/// No reply.
#[derive(Debug)]
pub enum AskFailed {
    /// No byte of the request can have reached the server.
    Unsent(Unsent),
    /// The request was under way: it may have been executed.
    Broken(Broken),
}

/// No byte of the request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection took nothing.
    #[error("while the request was sent: {0}")]
    Send(#[source] IoError),
}

/// A request that broke while it was under way.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub reason: BrokenReason,
    /// What an acquire may have left behind.
    pub left: Option<Left>,
    /// What came instead of a reply that can be used, if anything did.
    pub came: Option<Buffer>,
    /// It was sent whole, and the connection ended before a byte of a reply came.
    pub is_unanswered: bool,
}

/// Why a request broke.
#[derive(Debug, thiserror::Error)]
pub enum BrokenReason {
    /// Whoever sends the body left or stalled.
    #[error("client: {0}")]
    Client(#[source] IoError),
    /// The server did not take the whole request.
    #[error("while the request was sent: {0}")]
    Send(#[source] IoError),
    /// The server did not give a whole head.
    #[error("while the answer was awaited: {0}")]
    Answer(#[source] IoError),
    /// The reply cannot be framed.
    #[error("garbage instead of an answer: {0}")]
    Garbage(#[source] WireError),
    /// No state server gives this reply to the request.
    #[error("{0}")]
    Unfit(#[source] Unfit),
}

/// What an acquire without a usable reply may have left behind: a lock that nobody knows of.
#[derive(Debug)]
pub enum Left {
    /// The reply that names it may still come here.
    Late(Conn),
    /// This one.
    Lock(u32),
}

impl Upstream<'_> {
    /// Sends a request and reads the head of its reply. A retry takes a fresh connection.
    ///
    /// One function and not several: every layer of futures would be paid for by every request.
    ///
    /// # Errors
    /// [`AskFailed`].
    pub async fn ask(&self, request: &mut Outgoing<'_>) -> Result<Reply, AskFailed> {
        let mut asked = Moment::now();
        self.shard.begun.increment();
        let mut pooled = self.pool.take();
        let failed = loop {
            let may_retry = pooled.is_some();
            let mut conn = match pooled.take() {
                Some(conn) => conn,
                // The state of the connection attempt is large and rarely needed: it lives on the
                // heap, as that of a body that is streamed does.
                None => match Box::pin(self.connect()).await {
                    Ok(conn) => conn,
                    Err(error) => break AskFailed::Unsent(error.into()),
                },
            };
            self.pool.arm(self.deadline, self.due_ms);
            let mut sent_bytes = 0;
            let at_hand = request.content.at_hand();
            let sending = conn.write_all(at_hand, &mut sent_bytes, self.deadline);
            if let Err(error) = sending.await {
                let failed = request.content.not_sent(error, sent_bytes);
                if may_retry && request.retry.allows(&failed) {
                    self.shard.retries.increment();
                    continue;
                }
                break failed;
            }
            self.shard.sent_bytes.add(sent_bytes);
            let mut due_ms = self.due_ms;
            if let RequestContent::Streamed { buffer, body } = &mut request.content {
                if let Err(failed) = Box::pin(self.stream(&mut conn, buffer, body)).await {
                    if failed.is_of_client() {
                        conn.reset();
                    }
                    break failed;
                }
                // The reply is awaited from now on only: the client was still sending.
                asked = self.wait_anew(asked);
                due_ms = self.deadline.after_ms(self.limits.answer);
                self.pool.arm(self.deadline, due_ms);
            } else {
                request.release_if_large();
            }
            let first = conn.read_first(self.buffers, self.deadline, || false);
            let mut bytes = match first.await {
                Ok(bytes) => bytes,
                Err(error) => {
                    let failed = not_answered(error, conn, request);
                    if may_retry && request.retry.allows(&failed) {
                        self.shard.retries.increment();
                        continue;
                    }
                    break failed;
                }
            };
            loop {
                match self.judge(&bytes, request.operation) {
                    Ok(Parsed::Complete(head)) => {
                        self.answered(&head, &bytes, request.operation, asked);
                        return Ok(request.replied(conn, bytes, head, due_ms));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(reason) => {
                        return Err(self.refuse(reason, conn, bytes, request, asked));
                    }
                }
                if let Err(error) = conn.read_more(&mut bytes, self.deadline).await {
                    return Err(self.failed(BrokenReason::Answer(error).into(), request, asked));
                }
            }
        };
        Err(self.failed(failed, request, asked))
    }

    async fn connect(&self) -> Result<Conn, ConnectError> {
        let connect_ms = self.deadline.after_ms(self.limits.connect);
        self.pool.arm(self.deadline, connect_ms.min(self.due_ms));
        let connected = self.pool.connect(self.deadline).await;
        match &connected {
            Ok(_) => self.shard.connects.increment(),
            Err(error) => {
                self.shard.failed_connects.increment();
                if matches!(error, ConnectError::Shortage(_)) {
                    self.shard.shortages.increment();
                }
            }
        }
        connected
    }

    /// Passes on the part of the body that has not been received yet, a buffer at a time.
    async fn stream(
        &self,
        conn: &mut Conn,
        buffer: &mut Buffer,
        body: &mut BodyStream<'_>,
    ) -> Result<(), AskFailed> {
        buffer.clear();
        let mut due_ms = self.deadline.after_ms(body.stall);
        let mut since_armed = 0;
        loop {
            self.pool.arm(self.deadline, due_ms);
            let more = body.from.read_more(buffer, self.deadline).await;
            more.map_err(BrokenReason::Client)?;
            let part = body.rest.min(buffer.len() as u64);
            let written_from_ms = self.deadline.now_ms();
            let answer_ms = self.deadline.after_ms(self.limits.answer);
            self.pool.arm(self.deadline, answer_ms);
            let bytes = &buffer.filled()[..part as usize];
            let written = conn.write_all(bytes, &mut 0, self.deadline).await;
            written.map_err(BrokenReason::Send)?;
            body.received_bytes.add(part);
            self.shard.sent_bytes.add(part);
            buffer.consume(part as usize);
            body.rest -= part;
            if body.rest == 0 {
                if buffer.is_empty() {
                    buffer.release();
                }
                return Ok(());
            }
            buffer.clear();
            since_armed += part;
            if since_armed >= MIN_PROGRESS_BYTES {
                since_armed = 0;
                due_ms = self.deadline.after_ms(body.stall);
            } else {
                // The client's time does not run while the server is the slow one.
                due_ms += self.deadline.now_ms() - written_from_ms;
            }
        }
    }

    #[cold]
    fn wait_anew(&self, asked: Moment) -> Moment {
        let now = Moment::now();
        self.waited.add_ns(now.since_ns(asked));
        now
    }

    /// The head at the start of `bytes`, if it can be the reply to the operation, alone.
    #[inline]
    fn judge(
        &self,
        bytes: &Buffer,
        operation: Operation,
    ) -> Result<Parsed<ResponseHead>, BrokenReason> {
        let (bytes, to_head) = (bytes.filled(), operation == Operation::Touch);
        let parsed = ResponseHead::parse(bytes, self.limits.max_head_bytes, to_head);
        let parsed = parsed.map_err(BrokenReason::Garbage)?;
        if let Parsed::Complete(head) = &parsed {
            head.fits(operation).map_err(BrokenReason::Unfit)?;
            if head.is_one_of_two(bytes) {
                return Err(BrokenReason::Unfit(Unfit::Two));
            }
        }
        Ok(parsed)
    }

    #[inline]
    fn answered(&self, head: &ResponseHead, bytes: &Buffer, operation: Operation, asked: Moment) {
        let took_ns = asked.elapsed_ns();
        self.waited.add_ns(took_ns);
        self.shard.duration.observe_ns(took_ns);
        self.shard.received_bytes.add(bytes.len() as u64);
        let outcome = RequestOutcome::of_status(head.status);
        self.shard.exchanges.count(operation, outcome);
    }

    /// What came is no reply to pass on. If the request was an acquire, the true one may still be on
    /// its way behind it, with the lock.
    #[cold]
    fn refuse(
        &self,
        reason: BrokenReason,
        conn: Conn,
        bytes: Buffer,
        request: &Outgoing<'_>,
        asked: Moment,
    ) -> AskFailed {
        let mut left = None;
        if let BrokenReason::Unfit(unfit) = &reason {
            self.note_unfit(*unfit);
            if request.may_leave_lock() {
                left = left_behind(conn, bytes.filled(), self.limits.max_head_bytes);
            }
        }
        let failed = AskFailed::Broken(Broken {
            reason,
            left,
            came: Some(bytes),
            is_unanswered: false,
        });
        self.failed(failed, request, asked)
    }

    /// Counts a request without a reply.
    #[cold]
    fn failed(&self, failed: AskFailed, request: &Outgoing<'_>, asked: Moment) -> AskFailed {
        self.waited.add_ns(asked.elapsed_ns());
        if failed.is_of_client() {
            self.shard.broken_off.increment();
        } else {
            let exchanges = &self.shard.exchanges;
            exchanges.count(request.operation, RequestOutcome::Failed);
        }
        failed
    }

    /// Counts a reply that does not fit, and has the server distrusted if it may belong to another
    /// request.
    pub fn note_unfit(&self, unfit: Unfit) {
        self.shard.unfit.increment();
        if unfit.belongs_elsewhere() {
            self.pool.distrust(self.deadline.now_ms());
        }
    }
}

impl Reply {
    /// Whether all of it is in its buffer, and nothing else.
    pub fn is_whole(&self) -> bool {
        let whole = self
            .head
            .body_bytes
            .checked_add(self.head.head_bytes as u64);
        whole == Some(self.bytes.len() as u64)
    }
}

impl Outgoing<'_> {
    /// The reply to it.
    #[inline]
    fn replied(&self, conn: Conn, bytes: Buffer, head: ResponseHead, due_ms: u64) -> Reply {
        Reply {
            keeps_connection: leaves_nothing_behind(self.operation, self.body_bytes, &head),
            is_request_gone: self.is_streamed() || self.is_large(),
            conn,
            bytes,
            head,
            due_ms,
        }
    }

    /// Whether it may have taken a lock. An acquire with a body is none that a web server sends, and
    /// its target is gone.
    fn may_leave_lock(&self) -> bool {
        self.operation == Operation::Acquire && !self.is_streamed()
    }

    fn is_streamed(&self) -> bool {
        matches!(self.content, RequestContent::Streamed { .. })
    }

    /// What was written is never sent again, and needs no memory while its reply is awaited.
    fn release_if_large(&mut self) {
        let is_large = self.is_large();
        if let RequestContent::Received { buffer, .. } = &mut self.content
            && is_large
        {
            buffer.release();
        }
    }

    /// Whether its buffer is given back once it is sent.
    fn is_large(&self) -> bool {
        match &self.content {
            RequestContent::Received { buffer, bytes } => {
                let is_alone = buffer.is_empty() || buffer.len() == *bytes;
                *bytes >= LARGE_BYTES && is_alone && self.operation == Operation::Put
            }
            RequestContent::Whole(_) | RequestContent::Streamed { .. } => false,
        }
    }
}

impl RequestContent<'_> {
    /// What goes out first.
    fn at_hand(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Received { buffer, bytes } => &buffer.filled()[..*bytes],
            Self::Streamed { buffer, .. } => buffer.filled(),
        }
    }

    #[cold]
    fn not_sent(&self, error: IoError, sent_bytes: u64) -> AskFailed {
        let is_broken = matches!(error, IoError::Broken(_));
        if is_broken && sent_bytes == 0 {
            return AskFailed::Unsent(Unsent::Send(error));
        }
        AskFailed::Broken(Broken {
            reason: BrokenReason::Send(error),
            left: None,
            came: None,
            is_unanswered: is_broken && !matches!(self, Self::Streamed { .. }),
        })
    }
}

/// No byte of a reply came.
#[cold]
fn not_answered(error: IoError, conn: Conn, request: &Outgoing<'_>) -> AskFailed {
    let is_late = matches!(error, IoError::TimedOut);
    let is_ended = matches!(error, IoError::Closed | IoError::Broken(_));
    AskFailed::Broken(Broken {
        reason: BrokenReason::Answer(error),
        left: (is_late && request.may_leave_lock()).then_some(Left::Late(conn)),
        came: None,
        is_unanswered: is_ended && !request.is_streamed(),
    })
}

/// What an acquire has left behind whose reply is `bytes`, which do not fit.
fn left_behind(conn: Conn, bytes: &[u8], max_head_bytes: usize) -> Option<Left> {
    let Ok(Parsed::Complete(head)) = ResponseHead::parse(bytes, max_head_bytes, false) else {
        return None;
    };
    match head.lock_taken(bytes) {
        Some(lock) => Some(Left::Lock(lock)),
        // One reply from end to end: another one may follow.
        None => is_whole(&head, bytes).then_some(Left::Late(conn)),
    }
}

/// Whether a server has certainly read the whole request and sent all it will send once the reply is
/// read, so that nothing of this exchange can pass for the reply to the next one. Every connection
/// that is to serve another request has to pass this, whoever asked.
///
/// Stock servers always do. One that overlooks a body where the protocol has none would take it for
/// a request; one that sends a body after a HEAD sends it late.
fn leaves_nothing_behind(
    operation: Operation,
    request_body_bytes: u64,
    reply: &ResponseHead,
) -> bool {
    let stored_or_locked = matches!(reply.status, 200 | 423);
    let is_read = request_body_bytes == 0 || operation == Operation::Put && stored_or_locked;
    is_read && reply.announced_bytes == reply.body_bytes
}

fn is_whole(head: &ResponseHead, bytes: &[u8]) -> bool {
    let whole = head.body_bytes.checked_add(head.head_bytes as u64);
    whole == Some(bytes.len() as u64)
}

impl AskFailed {
    /// Whether the client broke off what it was sending.
    fn is_of_client(&self) -> bool {
        matches!(self, Self::Broken(broken) if matches!(broken.reason, BrokenReason::Client(_)))
    }
}

impl From<BrokenReason> for AskFailed {
    fn from(reason: BrokenReason) -> Self {
        Self::Broken(Broken {
            reason,
            left: None,
            came: None,
            is_unanswered: false,
        })
    }
}
