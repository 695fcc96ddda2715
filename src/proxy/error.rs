//! Why a request was not answered.

use crate::backend::{AskFailed, BrokenReason, ConnectError, Left, Unsent};
use crate::handover::{CounterTooLarge, Refusal};
use crate::metrics::FailureReason;
use crate::net::{self, IoError, RequestError};
use crate::route::{BackendIndex, KeyError};
use crate::wire::{Unfit, WireError};

/// Why a request was not answered, and by that what becomes of the client's connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// No whole request came: 400 if it cannot be framed, then close.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The target names no session: 400, then close.
    #[error("bad request: {0}")]
    BadTarget(#[from] KeyError),
    /// The client left, stalled or broke: close.
    #[error("client: {0}")]
    Client(#[source] IoError),
    /// The backend is known to be down: close.
    #[error("backend: down")]
    Down,
    /// The backend was not reached: close.
    #[error("backend: {0}")]
    Connect(#[from] ConnectError),
    /// The backend did not take the whole request: close.
    #[error("backend, while the request was sent: {0}")]
    Send(#[source] IoError),
    /// The backend did not give a whole answer: close.
    #[error("backend, while its answer was awaited: {0}")]
    Answer(#[source] IoError),
    /// The backend's answer cannot be framed: close.
    #[error("backend, garbage instead of an answer: {0}")]
    Garbage(#[source] WireError),
    /// What answered is no state server, or its answer belongs to another request: close.
    #[error("backend: {0}")]
    Unfit(#[from] Unfit),
    /// The backend's lock cookie leaves no room for its tag: close.
    #[error("backend: {0}")]
    Counter(#[from] CounterTooLarge),
    /// The rules of the handover allow no answer: close.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A request that has to be sent more than once, because its slot is in a handover, announces
    /// a body that has not come with its head: close.
    #[error("client: a body where the protocol has none, while the session may have to be moved")]
    Unrepeatable,
    /// Other sessions that are being moved take all memory there is for that: close.
    #[error("too many large sessions are being moved at a time")]
    Crowded,
}

/// A request that was not answered, and the backend that was asked last.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: ProxyError,
    pub(super) backend: BackendIndex,
    /// It has changed nothing anywhere and may begin anew.
    pub(super) may_repeat: bool,
}

impl Unanswered {
    /// What may have happened to the request cannot be told, or time will not change it.
    pub(super) fn new(error: ProxyError, backend: BackendIndex) -> Self {
        Self {
            error,
            backend,
            may_repeat: false,
        }
    }

    pub(super) fn refused(reason: Refusal, backend: BackendIndex) -> Self {
        Self::new(reason.into(), backend)
    }
}

impl ProxyError {
    /// Why a backend gave no answer, and what an acquire may have left behind. `is_down` says whether
    /// time was up because the backend is down.
    pub(super) fn of(failed: AskFailed, is_down: bool) -> (Self, Option<Left>) {
        match failed {
            AskFailed::Unsent(Unsent::Connect(ConnectError::TimedOut)) if is_down => {
                (Self::Down, None)
            }
            AskFailed::Unsent(Unsent::Connect(error)) => (Self::Connect(error), None),
            AskFailed::Unsent(Unsent::Send(error)) => (Self::Send(error), None),
            AskFailed::Broken(broken) => {
                let error = match broken.reason {
                    BrokenReason::Client(IoError::TimedOut)
                    | BrokenReason::Send(IoError::TimedOut)
                    | BrokenReason::Answer(IoError::TimedOut)
                        if is_down =>
                    {
                        Self::Down
                    }
                    BrokenReason::Client(error) => Self::Client(error),
                    BrokenReason::Send(error) => Self::Send(error),
                    BrokenReason::Answer(error) => Self::Answer(error),
                    BrokenReason::Garbage(error) => Self::Garbage(error),
                    BrokenReason::Unfit(unfit) => Self::Unfit(unfit),
                };
                (error, broken.left)
            }
        }
    }

    /// Whether the client deserves a 400 before its connection is closed.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::Request(RequestError::Malformed(_)) | Self::BadTarget(_)
        )
    }

    /// Whether nothing has been asked, because of what is known already.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Down)
    }

    /// Whether only another snapshot can change it. Peers are heard without one.
    pub(super) fn waits_for_change(&self) -> bool {
        self.is_refusal() && !matches!(self, Self::Refused(Refusal::Unheard))
    }

    /// Whether a backend could not be reached, or broke, which time may change.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Down | Self::Connect(_) | Self::Send(_) | Self::Answer(_) => {
                self.reason() != FailureReason::Shortage
            }
            _ => false,
        }
    }

    /// Whether it says something about the backend that was asked, or was to be.
    pub(crate) fn has_backend(&self) -> bool {
        !matches!(
            self,
            Self::Request(_)
                | Self::BadTarget(_)
                | Self::Refused(_)
                | Self::Unrepeatable
                | Self::Crowded
        )
    }

    /// What it counts as.
    pub(crate) fn reason(&self) -> FailureReason {
        use FailureReason as Reason;
        match self {
            Self::Request(RequestError::Malformed(WireError::BodyTooLarge { .. })) => {
                Reason::TooLarge
            }
            Self::Request(RequestError::Malformed(_)) => Reason::Malformed,
            Self::BadTarget(_) => Reason::BadTarget,
            Self::Client(error) | Self::Request(RequestError::Io(error)) => match error {
                IoError::TimedOut => Reason::ClientStalled,
                IoError::Closed | IoError::Broken(_) | IoError::Stopping => Reason::ClientLeft,
            },
            Self::Unrepeatable => Reason::Unrepeatable,
            Self::Crowded => Reason::Crowded,
            Self::Down => Reason::BackendDown,
            Self::Connect(ConnectError::Shortage(_)) => Reason::Shortage,
            Self::Send(IoError::Broken(error)) if net::is_shortage(error) => Reason::Shortage,
            Self::Connect(_) => Reason::Connect,
            Self::Send(IoError::TimedOut) | Self::Answer(IoError::TimedOut) => Reason::Late,
            Self::Send(_) => Reason::Send,
            Self::Answer(_) => Reason::Broken,
            Self::Garbage(_) | Self::Counter(_) => Reason::Garbage,
            Self::Unfit(_) => Reason::Unfit,
            Self::Refused(refusal) => Reason::Refused(*refusal),
        }
    }

    /// How far the request came, for the log.
    pub(crate) fn phase(&self) -> &'static str {
        match self {
            Self::Request(_) | Self::BadTarget(_) => "request",
            Self::Down | Self::Refused(_) | Self::Unrepeatable | Self::Crowded => "route",
            Self::Connect(_) => "connect",
            Self::Send(_) => "send",
            Self::Answer(_) | Self::Garbage(_) | Self::Unfit(_) | Self::Counter(_) => "answer",
            Self::Client(_) => "client",
        }
    }
}
