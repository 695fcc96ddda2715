//! Why a request was not answered.

use crate::backend::ConnectError;
use crate::net::{IoError, RequestError};
use crate::route::KeyError;
use crate::wire::WireError;

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
}

impl ProxyError {
    /// Whether the client deserves a 400 before its connection is closed.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::Request(RequestError::Malformed(_)) | Self::BadTarget(_)
        )
    }
}
