//! Requests to one server outside of the workers, one at a time: probes, and removals that were
//! missed. They go the way of all requests, under a clock of their own.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::connector::{ConnectError, Connector};
use super::pool::{ConnectionPool, PoolLimits};
use super::upstream::{
    AskFailed, AskLimits, Broken, BrokenReason, Outgoing, Reply, Unsent, Upstream,
};
use crate::health::Failure;
use crate::metrics::BackendShard;
use crate::net::deadline::TICK_MS;
use crate::net::{self, BufferPool, Deadlines, IoError, TimeSpent};
use crate::wire::{Unfit, WireError};

/// A stock answer without an item has some 200 bytes.
pub(super) const MAX_HEAD_BYTES: usize = 4096;

/// Nothing that is idle here waits for long.
const MAX_IDLE_MS: u64 = u64::MAX;

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The backend took the connection and closed it without a byte.
    #[error(
        "the backend took the connection and closed it without an answer, as a state server does \
         that does not take connections from here (of aspnet_state.exe the registry value \
         AllowRemoteConnection, of staterouter --allow)"
    )]
    ClosedAtOnce,
    /// The state server of this process has closed the connection: its engine has not answered.
    #[error("its Redis did not answer in time, or the answer is lost")]
    EngineSilent,
    /// The connection ended, broke or was too slow before the answer was whole.
    #[error("before the answer was whole: {0}")]
    Io(#[source] IoError),
    /// The backend took the connection and then did not trust this proxy.
    #[error("TLS: {0}")]
    Untrusted(#[source] IoError),
    /// What came cannot be an answer.
    #[error("garbage instead of an answer: {0}")]
    Garbage(#[source] WireError),
    /// What came is HTTP, and cannot be the answer of a state server.
    #[error("a web server answered: {0}")]
    WebServer(#[source] WireError),
    /// What came is no answer to what was asked.
    #[error("{0}")]
    Unfit(#[from] Unfit),
}

/// Asks one server.
#[derive(Debug)]
pub(super) struct Asker {
    pool: ConnectionPool,
    /// Nobody reads it: control counts what it asks by itself.
    shard: BackendShard,
    timeout: Duration,
    /// Whether the server is a part of this process, with an engine behind it.
    is_local: bool,
}

impl Asker {
    /// Keeps `max_idle` connections between requests. Each takes `timeout` at most, connecting
    /// included.
    pub(super) fn new(server: Connector, timeout: Duration, max_idle: usize) -> Self {
        let limits = PoolLimits {
            max_idle,
            max_idle_ms: MAX_IDLE_MS,
        };
        Self {
            is_local: server.is_local(),
            pool: ConnectionPool::new(server, limits),
            shard: BackendShard::default(),
            timeout,
        }
    }

    /// Asks once. Needs a runtime with timers and sockets, on the thread where it stays.
    pub(super) async fn ask(&self, mut request: Outgoing<'_>) -> Result<Reply, AskFailed> {
        let clock = Deadlines::new();
        let deadline = clock.register();
        let upstream = Upstream {
            pool: &self.pool,
            shard: &self.shard,
            buffers: &BufferPool::new(MAX_HEAD_BYTES),
            deadline: &deadline,
            limits: AskLimits {
                connect: self.timeout,
                answer: self.timeout,
                max_head_bytes: MAX_HEAD_BYTES,
            },
            due_ms: deadline.after_ms(self.timeout),
            waited: &TimeSpent::default(),
        };
        tokio::select! {
            reply = upstream.ask(&mut request) => reply,
            never = drive(&clock) => match never {},
        }
    }

    /// What a request without a reply says.
    pub(super) fn error(&self, failed: AskFailed) -> AskError {
        match AskError::from(failed) {
            AskError::ClosedAtOnce if self.is_local => AskError::EngineSilent,
            error => error,
        }
    }

    /// Keeps the connection of a reply that was read for the next request, if it can serve one.
    pub(super) fn keep(&self, reply: Reply) {
        if reply.keeps_connection && reply.is_whole() {
            self.pool.put(reply.conn, 0);
        }
    }
}

/// Lets the time of `clock` pass.
async fn drive(clock: &Deadlines) -> Infallible {
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = ticks.tick().await;
    loop {
        let now = ticks.tick().await;
        clock.advance(now.duration_since(begun).as_millis() as u64);
    }
}

impl AskError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect(error) => error.failure(),
            Self::ClosedAtOnce => Failure::ClosedAtOnce,
            Self::EngineSilent => Failure::Engine,
            Self::Untrusted(_) => Failure::Untrusted,
            Self::Io(IoError::TimedOut) => Failure::Late,
            Self::Io(IoError::Broken(error)) if net::is_shortage(error) => Failure::Shortage,
            Self::Io(_) => Failure::Broken,
            Self::Garbage(_) => Failure::Garbage,
            Self::WebServer(_) => Failure::WebServer,
            Self::Unfit(unfit) => unfit_failure(*unfit),
        }
    }
}

impl From<AskFailed> for AskError {
    fn from(failed: AskFailed) -> Self {
        let broken = match failed {
            AskFailed::Unsent(Unsent::Connect(error)) => return Self::Connect(error),
            AskFailed::Unsent(Unsent::Send(_)) => return Self::ClosedAtOnce,
            AskFailed::Broken(broken) => broken,
        };
        let is_http = broken
            .came
            .as_ref()
            .is_some_and(|came| came.filled().starts_with(b"HTTP/"));
        let Broken {
            reason,
            is_unanswered,
            ..
        } = broken;
        match reason {
            BrokenReason::Answer(IoError::Broken(error))
            | BrokenReason::Send(IoError::Broken(error))
                if net::is_tls_error(&error) =>
            {
                Self::Untrusted(IoError::Broken(error))
            }
            // Closing with a request that was not read resets the connection.
            BrokenReason::Answer(_) | BrokenReason::Send(_) if is_unanswered => Self::ClosedAtOnce,
            BrokenReason::Client(error)
            | BrokenReason::Send(error)
            | BrokenReason::Answer(error) => Self::Io(error),
            BrokenReason::Garbage(error) if is_http => Self::WebServer(error),
            BrokenReason::Garbage(error) => Self::Garbage(error),
            BrokenReason::Unfit(unfit) => Self::Unfit(unfit),
        }
    }
}

/// What an answer of no state server says about the backend.
pub fn unfit_failure(unfit: Unfit) -> Failure {
    match unfit {
        Unfit::Status(_) => Failure::OtherStatus,
        Unfit::Unversioned => Failure::NoVersion,
        Unfit::NoLock | Unfit::Lock | Unfit::NoItem | Unfit::Body | Unfit::Two => Failure::Unfit,
    }
}
