//! Idle connections of one worker to one backend.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;

use tokio::net::TcpStream;

use super::resolve::Resolver;
use crate::config::BackendAddress;
use crate::health::Failure;
use crate::net::{Conn, Deadline};

/// The backend could not be reached. No byte of a request has been sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name service gave no address.
    #[error("cannot resolve its host name: {0}")]
    Unresolved(#[source] io::Error),
    /// The system or the backend refused.
    #[error("cannot connect: {0}")]
    Refused(#[source] io::Error),
    /// Nobody answered in time.
    #[error("cannot connect in time")]
    TimedOut,
}

impl ConnectError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unresolved(_) => Failure::Unresolved,
            Self::Refused(_) => Failure::Refused,
            Self::TimedOut => Failure::ConnectTimedOut,
        }
    }
}

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept at most; one more is closed.
    pub max_idle: usize,
    /// How long one may sit unused; must lie below the state server's own limit.
    pub max_idle_ms: u64,
}

/// The way to one backend. Idle connections are kept oldest first and taken newest first: that one
/// is warm, and the others can grow old and be closed.
#[derive(Debug)]
pub struct Pool {
    resolver: Resolver,
    idle: RefCell<VecDeque<Idle>>,
    limits: Cell<PoolLimits>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since_ms: u64,
}

impl Pool {
    /// An empty pool for the backend at `address`.
    pub fn new(address: BackendAddress, limits: PoolLimits) -> Self {
        Self {
            resolver: Resolver::new(address),
            idle: RefCell::new(VecDeque::new()),
            limits: Cell::new(limits),
        }
    }

    /// Opens a connection before `deadline` passes, to whichever of the backend's addresses
    /// answers first in their order.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, deadline: &Deadline) -> Result<Conn, ConnectError> {
        let mut refused = io::ErrorKind::AddrNotAvailable.into();
        for address in self.resolver.addresses(deadline).await? {
            match deadline.guard(TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Conn::new(stream)),
                Ok(Err(error)) => refused = error,
                Err(_expired) => {
                    self.resolver.put_last(address);
                    return Err(ConnectError::TimedOut);
                }
            }
        }
        Err(ConnectError::Refused(refused))
    }

    /// Changes the bounds of a pool in use.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// The newest connection that is still good; dead ones found on the way are closed.
    pub fn take(&self) -> Option<Conn> {
        loop {
            let Idle { conn, .. } = self.idle.borrow_mut().pop_back()?;
            if conn.is_quiet() {
                return Some(conn);
            }
        }
    }

    /// Keeps a connection for the next request. It must have been answered completely.
    pub fn put(&self, conn: Conn, now_ms: u64) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.limits.get().max_idle {
            idle.push_back(Idle {
                conn,
                since_ms: now_ms,
            });
        }
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self, now_ms: u64) {
        let mut idle = self.idle.borrow_mut();
        let max_idle_ms = self.limits.get().max_idle_ms;
        let too_old = |idle: &Idle| now_ms.saturating_sub(idle.since_ms) >= max_idle_ms;
        while idle.front().is_some_and(too_old) {
            idle.pop_front();
        }
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Whether no connection is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
