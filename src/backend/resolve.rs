//! From a backend's host to socket addresses.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use super::ConnectError;
use crate::config::{BackendAddress, BackendHost};
use crate::net::Deadline;

/// How long an answer of the name service is used: short, so that a backend may move behind its
/// name, long enough that a burst of connections asks once.
const FRESH_MS: u64 = 5_000;

/// Resolves the host of one backend for one worker.
///
/// At most one lookup is under way: a name service that hangs would otherwise pile up one blocked
/// thread or queued lookup per request.
#[derive(Debug)]
pub(super) struct Resolver {
    address: BackendAddress,
    state: Rc<RefCell<State>>,
    done: Rc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    is_looking_up: bool,
    /// The last answer, and until when it is used.
    answer: Option<Result<Vec<SocketAddr>, io::ErrorKind>>,
    fresh_until_ms: u64,
}

impl Resolver {
    pub(super) fn new(address: BackendAddress) -> Self {
        Self {
            address,
            state: Rc::default(),
            done: Rc::default(),
        }
    }

    /// The addresses to try, in order.
    pub(super) async fn addresses(
        &self,
        deadline: &Deadline,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let name = match self.address.host() {
            BackendHost::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.address.port())]),
            BackendHost::Name(name) => name,
        };
        if let Some(addresses) = self.fresh(deadline.now_ms()) {
            return Ok(addresses);
        }
        let done = self.done.notified();
        if !std::mem::replace(&mut self.state.borrow_mut().is_looking_up, true) {
            self.look_up(name.clone(), deadline.now_ms());
        }
        deadline
            .guard(done)
            .await
            .map_err(|_expired| ConnectError::TimedOut)?;
        match &self.state.borrow().answer {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(kind)) => Err(ConnectError::Unresolved((*kind).into())),
            None => Err(ConnectError::TimedOut),
        }
    }

    /// Tries this address last from now on: it kept a connection attempt waiting in vain.
    pub(super) fn put_last(&self, address: SocketAddr) {
        if let Some(Ok(addresses)) = &mut self.state.borrow_mut().answer {
            addresses.sort_by_key(|known| *known == address);
        }
    }

    fn fresh(&self, now_ms: u64) -> Option<Vec<SocketAddr>> {
        let state = self.state.borrow();
        let answer = state
            .answer
            .as_ref()
            .filter(|_| now_ms < state.fresh_until_ms);
        answer?.as_ref().ok().cloned()
    }

    /// In a task of its own: a request that gives up waiting does not end it.
    fn look_up(&self, name: String, now_ms: u64) {
        let (state, done) = (Rc::clone(&self.state), Rc::clone(&self.done));
        let port = self.address.port();
        tokio::task::spawn_local(async move {
            let found = tokio::net::lookup_host((name, port)).await;
            let mut state = state.borrow_mut();
            state.answer = Some(found.map(Iterator::collect).map_err(|error| error.kind()));
            state.fresh_until_ms = now_ms + FRESH_MS;
            state.is_looking_up = false;
            done.notify_waiters();
        });
    }
}
