//! Asks a backend whether it answers as a state server does.

use std::time::Duration;

use tokio::time::Instant;

use super::dial::{AskError, Dialer, ask};
use crate::config::BackendAddress;
use crate::health::Failure;
use crate::wire::{Operation, Request, encode_request};

/// A key that no session has, in stock spelling (protocol 2, 7): a web server that has taken the
/// address refuses a target without a slash, where a state server finds nothing.
const TARGET: &[u8] = b"%2fstaterouter-probe(AAAAAAAAAAAAAAAAAAAAAAAAAAA%3d)%2fprobe";

/// A probe that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An answer that a state server does not give to a HEAD.
    #[error("status {0} instead of 200 or 404")]
    Status(u16),
}

/// The probes of one backend.
///
/// Each goes over a connection of its own. It takes none from the requests, and it meets what the
/// next request without a pooled connection would meet.
#[derive(Debug)]
pub struct Prober {
    dialer: Dialer,
    timeout: Duration,
    request: Vec<u8>,
}

impl Prober {
    /// For the backend at `address`; a probe takes `timeout` at most, connecting included.
    pub fn new(address: BackendAddress, timeout: Duration) -> Self {
        let mut request = Vec::new();
        encode_request(
            &mut request,
            &Request {
                operation: Operation::Touch,
                target: TARGET,
                lock_cookie: 0,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        Self {
            dialer: Dialer::new(address),
            timeout,
            request,
        }
    }

    /// Asks once. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`ProbeError`], unless the backend answers in time and as a state server does.
    pub async fn probe(&mut self) -> Result<(), ProbeError> {
        let due = Instant::now() + self.timeout;
        let mut stream = self.dialer.connect(due).await.map_err(AskError::Connect)?;
        let (answer, _) = ask(&mut stream, &self.request, due, true).await?;
        match answer.status {
            200 | 404 => Ok(()),
            other => Err(ProbeError::Status(other)),
        }
    }
}

impl ProbeError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Ask(error) => error.failure(),
            Self::Status(_) => Failure::Garbage,
        }
    }
}
