//! Idle connections of one worker to one backend.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::connector::{ConnectError, Connector};
use crate::net::{Conn, Deadline, Deadlines, Party, Quiet};

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept at most; one more is closed.
    pub max_idle: usize,
    /// How long one may sit unused; must lie below the state server's own limit.
    pub max_idle_ms: u64,
}

/// How long a backend is distrusted that has sent an answer nobody has asked for, or one that does
/// not fit, since it last did.
const DISTRUST_MS: u64 = 60_000;

/// How long a connection to such a backend stays unused after an answer, so that a second one shows.
const QUARANTINE_MS: u64 = 300;

/// The way to one server. Idle connections are kept oldest first and taken newest first: that one
/// is warm, and the others can grow old and be closed.
///
/// A backend, or something before it, that answers twice would have the second answer taken for the
/// one to the next request on that connection. Once it was seen to, its connections rest after each
/// answer before they are used again.
#[derive(Debug)]
pub struct ConnectionPool {
    server: Connector,
    idle: RefCell<VecDeque<Idle>>,
    /// Those that rest, the oldest first.
    resting: RefCell<VecDeque<Idle>>,
    distrusted_until_ms: Cell<u64>,
    /// Idle connections on which something came that nobody has asked for, not yet asked for.
    unasked: Cell<u64>,
    limits: Cell<PoolLimits>,
    /// Whoever waits for the server waits for this one.
    party: Party,
    /// When it was found to be down, of the worker's clock; `None` while it is up.
    down_since_ms: Cell<Option<u64>>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since_ms: u64,
}

impl ConnectionPool {
    /// An empty pool for one server, for as long as the pool lives.
    pub fn new(server: Connector, limits: PoolLimits) -> Self {
        Self {
            server,
            idle: RefCell::default(),
            resting: RefCell::default(),
            distrusted_until_ms: Cell::new(0),
            unasked: Cell::new(0),
            limits: Cell::new(limits),
            party: Party::new(),
            down_since_ms: Cell::new(None),
        }
    }

    /// Opens a connection before `deadline` passes.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, deadline: &Deadline) -> Result<Conn, ConnectError> {
        self.server.connect(deadline).await
    }

    /// Changes the bounds of a pool in use.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// The server is down: nothing is sent to it any more, what is under way there is broken off,
    /// and no connection is kept. A stopped server must not find requests in its buffers when it
    /// goes on, and nobody may be told what it answers once others stand in for it.
    pub fn break_off(&self, waiting: &Deadlines) {
        if self.down_since_ms.get().is_none() {
            self.down_since_ms.set(Some(waiting.now_ms()));
        }
        self.idle.borrow_mut().clear();
        self.resting.borrow_mut().clear();
        waiting.give_up(self.party);
    }

    /// The server is up.
    pub fn resume(&self) {
        self.down_since_ms.set(None);
    }

    /// Since when the server is down, of the worker's clock; `None` while it is up.
    pub fn down_since_ms(&self) -> Option<u64> {
        self.down_since_ms.get()
    }

    /// Whether the server is down.
    pub fn is_down(&self) -> bool {
        self.down_since_ms.get().is_some()
    }

    /// Limits a step of an exchange with the server to `due_ms` of the deadline's clock. It is over
    /// as soon as the server is down.
    #[inline]
    pub fn arm(&self, deadline: &Deadline, due_ms: u64) {
        let due_ms = if self.is_down() { 0 } else { due_ms };
        deadline.arm_for(self.party, due_ms);
    }

    /// The newest connection that is still good; dead ones found on the way are closed.
    pub fn take(&self) -> Option<Conn> {
        loop {
            let Idle { mut conn, .. } = self.idle.borrow_mut().pop_back()?;
            match conn.quiet() {
                Quiet::Yes => return Some(conn),
                Quiet::Ended => {}
                Quiet::Unasked => self.unasked.set(self.unasked.get() + 1),
            }
        }
    }

    /// Keeps a connection for the next request. It must have been answered completely.
    pub fn put(&self, conn: Conn, now_ms: u64) {
        let queue = match now_ms < self.distrusted_until_ms.get() {
            false => &self.idle,
            true => &self.resting,
        };
        let mut queue = queue.borrow_mut();
        if queue.len() < self.limits.get().max_idle {
            queue.push_back(Idle {
                conn,
                since_ms: now_ms,
            });
        }
    }

    /// The backend has sent an answer that nobody has asked for, or one that does not fit: from now
    /// on each of its connections rests after an answer, those that are idle now as well.
    pub fn distrust(&self, now_ms: u64) {
        self.distrusted_until_ms.set(now_ms + DISTRUST_MS);
        let mut resting = self.resting.borrow_mut();
        let idle = self.idle.take().into_iter();
        resting.extend(idle.map(|idle| Idle {
            since_ms: now_ms,
            ..idle
        }));
    }

    /// Closes what has been idle too long, and lets connections that have rested long enough be used
    /// again. Returns on how many something came since the last time that nobody has asked for.
    pub fn sweep(&self, now_ms: u64) -> u64 {
        self.end_rest(now_ms);
        if now_ms < self.distrusted_until_ms.get() {
            self.idle.borrow_mut().retain_mut(|idle| {
                let quiet = idle.conn.quiet();
                if quiet == Quiet::Unasked {
                    self.unasked.set(self.unasked.get() + 1);
                }
                quiet == Quiet::Yes
            });
        }
        let unasked = self.unasked.take();
        if unasked > 0 {
            self.distrust(now_ms);
        }
        let mut idle = self.idle.borrow_mut();
        let max_idle_ms = self.limits.get().max_idle_ms;
        let too_old = |idle: &Idle| now_ms.saturating_sub(idle.since_ms) >= max_idle_ms;
        while idle.front().is_some_and(too_old) {
            idle.pop_front();
        }
        unasked
    }

    fn end_rest(&self, now_ms: u64) {
        let mut resting = self.resting.borrow_mut();
        let mut idle = self.idle.borrow_mut();
        while resting
            .front()
            .is_some_and(|rests| now_ms.saturating_sub(rests.since_ms) >= QUARANTINE_MS)
        {
            let Some(mut rested) = resting.pop_front() else {
                return;
            };
            match rested.conn.quiet() {
                Quiet::Yes if idle.len() < self.limits.get().max_idle => idle.push_back(rested),
                Quiet::Yes | Quiet::Ended => {}
                Quiet::Unasked => self.unasked.set(self.unasked.get() + 1),
            }
        }
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.idle.borrow().len() + self.resting.borrow().len()
    }

    /// Whether no connection is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use tokio::net::TcpStream;

    use super::*;

    /// An idle connection, and its other end.
    async fn connected() -> (Conn, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        (Conn::new(stream.unwrap()), listener.accept().unwrap().0)
    }

    fn pool() -> ConnectionPool {
        let limits = PoolLimits {
            max_idle: 2,
            max_idle_ms: 3_600_000,
        };
        ConnectionPool::new(Connector::Nowhere, limits)
    }

    #[tokio::test]
    async fn connections_of_a_distrusted_backend_rest_before_they_are_used_again() {
        let pool = pool();
        let (before, _other) = connected().await;
        pool.put(before, 0);
        pool.distrust(100);
        assert!(pool.take().is_none(), "used although it was idle already");
        let (after, _another) = connected().await;
        pool.put(after, 200);
        assert_eq!(pool.sweep(100 + QUARANTINE_MS - 1), 0);
        assert!(pool.take().is_none());
        pool.sweep(100 + QUARANTINE_MS);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none(), "the second has not rested yet");
        pool.sweep(200 + QUARANTINE_MS);
        assert!(pool.take().is_some());

        let (trusted, _last) = connected().await;
        pool.put(trusted, 100 + DISTRUST_MS);
        assert!(pool.take().is_some(), "distrusted for ever");
    }

    #[tokio::test]
    async fn a_stray_answer_ends_its_connection_and_the_trust_in_the_others() {
        let pool = pool();
        let (mut stray, mut other) = connected().await;
        other.write_all(b"200 OK").unwrap();
        while stray.quiet() == Quiet::Yes {
            tokio::task::yield_now().await;
        }
        let (good, _another) = connected().await;
        pool.put(good, 0);
        pool.put(stray, 0);
        assert!(pool.take().is_some(), "the good one lies below");
        assert_eq!(pool.sweep(100), 1);
        assert_eq!(pool.sweep(200), 0);
        let (next, _last) = connected().await;
        pool.put(next, 200);
        assert!(pool.take().is_none());
    }
}
