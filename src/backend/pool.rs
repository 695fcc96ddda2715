//! Idle connections of one worker to one backend.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::net::Conn;

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept at most; one more is closed.
    pub max_idle: usize,
    /// How long one may sit unused; must lie below the state server's own limit.
    pub max_idle_ms: u64,
}

/// The idle connections, oldest first. The newest is taken first: it is warm, and the others can
/// grow old and be closed.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    limits: Cell<PoolLimits>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since_ms: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            idle: RefCell::new(VecDeque::new()),
            limits: Cell::new(limits),
        }
    }

    /// Changes the bounds of a pool in use.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.limits.set(limits);
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
