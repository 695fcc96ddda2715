//! From a backend's host to socket addresses.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{ConnectError, dial};
use crate::config::{BackendAddress, BackendHost};
use crate::net::Deadline;

/// How long an answer of the name service is used: short, so that a backend may move behind its
/// name, long enough that a burst of connections asks once.
const FRESH_MS: u64 = 5_000;

/// How long the next answer is waited for where there is an earlier one: a name service that hangs
/// must not cost what it does not have to.
pub(super) const SLOW_LOOKUP: Duration = Duration::from_millis(500);

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
    /// Until when the lookup under way is waited for, if there is an earlier answer.
    looking_up_until_ms: Option<u64>,
    /// The last good answer, and until when it is used without another one. One that is older is
    /// still better than none.
    known: Vec<SocketAddr>,
    fresh_until_ms: u64,
    /// Why the last lookup gave no answer.
    failed: Option<io::ErrorKind>,
    /// Kept the last connection attempt waiting in vain; it is tried last.
    hanging: Option<SocketAddr>,
}

impl Resolver {
    pub(super) fn new(address: BackendAddress) -> Self {
        Self {
            address,
            state: Rc::default(),
            done: Rc::default(),
        }
    }

    /// The addresses to try before `deadline` passes, in order.
    pub(super) async fn addresses(
        &self,
        deadline: &Deadline,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let name = match self.address.host() {
            BackendHost::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.address.port())]),
            BackendHost::Name(name) => name,
        };
        if let Some(addresses) = self.state.borrow().fresh(deadline.now_ms()) {
            return Ok(addresses);
        }
        let done = self.done.notified();
        let under_way = self.state.borrow().looking_up_until_ms;
        let until_ms = under_way.unwrap_or_else(|| {
            self.look_up(dial::look_up(name.clone(), self.address.port()), deadline)
        });
        let due_ms = deadline.due_ms();
        if !self.state.borrow().known.is_empty() {
            deadline.arm_at(until_ms.min(due_ms));
        }
        let has_come = deadline.guard(done).await.is_ok();
        deadline.arm_at(due_ms);
        self.state.borrow().addresses(has_come)
    }

    /// Tries this address last from now on: it kept a connection attempt waiting in vain.
    pub(super) fn put_last(&self, address: SocketAddr) {
        let mut state = self.state.borrow_mut();
        state.hanging = Some(address);
        state.sort();
    }

    /// Begins a lookup; until when it is waited for, see [`State`]. In a task of its own: a request
    /// that gives up waiting does not end it.
    fn look_up(
        &self,
        lookup: impl Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
        deadline: &Deadline,
    ) -> u64 {
        let until_ms = deadline.after_ms(SLOW_LOOKUP);
        self.state.borrow_mut().looking_up_until_ms = Some(until_ms);
        let (state, done) = (Rc::clone(&self.state), Rc::clone(&self.done));
        let clock = deadline.another();
        tokio::task::spawn_local(async move {
            let found = lookup.await;
            state.borrow_mut().came(found, clock.now_ms());
            done.notify_waiters();
        });
        until_ms
    }
}

impl State {
    fn fresh(&self, now_ms: u64) -> Option<Vec<SocketAddr>> {
        (now_ms < self.fresh_until_ms).then(|| self.known.clone())
    }

    /// What there is after waiting for a lookup.
    fn addresses(&self, has_come: bool) -> Result<Vec<SocketAddr>, ConnectError> {
        match self.failed {
            _ if !self.known.is_empty() => Ok(self.known.clone()),
            Some(kind) if has_come => Err(ConnectError::Unresolved(kind.into())),
            _ => Err(ConnectError::TimedOut),
        }
    }

    /// A lookup has ended.
    fn came(&mut self, found: io::Result<Vec<SocketAddr>>, now_ms: u64) {
        self.looking_up_until_ms = None;
        match found {
            Ok(addresses) => {
                self.known = addresses;
                self.sort();
                self.failed = None;
                self.fresh_until_ms = now_ms + FRESH_MS;
            }
            Err(error) => self.failed = Some(error.kind()),
        }
    }

    fn sort(&mut self) {
        let hanging = self.hanging;
        self.known.sort_by_key(|address| Some(*address) == hanging);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;
    use crate::net::Deadlines;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 42424))
    }

    fn failed() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    /// A backend with a name, and the clock of its worker.
    struct Scene {
        resolver: Resolver,
        clock: Rc<Deadlines>,
        deadline: Deadline,
    }

    type Found = oneshot::Sender<io::Result<Vec<SocketAddr>>>;

    impl Scene {
        fn new() -> Self {
            let address = BackendAddress::parse("state-a.invalid:42424").unwrap();
            let clock = Deadlines::new();
            Self {
                resolver: Resolver::new(address),
                deadline: clock.register(),
                clock,
            }
        }

        /// Begins a lookup that ends when it is told what it has found.
        fn look_up(&self) -> Found {
            let (found, lookup) = oneshot::channel();
            let lookup = async { lookup.await.unwrap() };
            self.resolver.look_up(lookup, &self.deadline);
            found
        }

        /// The addresses, within two seconds.
        async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
            self.deadline.arm(Duration::from_secs(2));
            self.resolver.addresses(&self.deadline).await
        }

        /// The same when the lookup under way ends like this.
        async fn addresses_if(
            &self,
            lookup: Found,
            found: io::Result<Vec<SocketAddr>>,
        ) -> Result<Vec<SocketAddr>, ConnectError> {
            let telling = async { lookup.send(found).unwrap() };
            tokio::join!(self.addresses(), telling).0
        }

        /// The same when it does not end; the clock goes on by `ms`.
        async fn addresses_after(&self, ms: u64) -> Result<Vec<SocketAddr>, ConnectError> {
            let passing = async { self.clock.advance(self.clock.now_ms() + ms) };
            tokio::join!(self.addresses(), passing).0
        }
    }

    #[tokio::test]
    async fn an_address_that_hangs_stays_last_when_the_name_is_looked_up_again() {
        let (hanging, good) = (address(1), address(2));
        let scene = Scene::new();
        let test = async {
            for expected in [[hanging, good], [good, hanging]] {
                let found = Ok(vec![hanging, good]);
                let addresses = scene.addresses_if(scene.look_up(), found).await;
                assert_eq!(addresses.unwrap(), expected);
                scene.resolver.put_last(hanging);
                scene.clock.advance(scene.clock.now_ms() + FRESH_MS);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn an_answer_is_fresh_from_when_it_came() {
        let scene = Scene::new();
        let test = async {
            let lookup = scene.look_up();
            let gave_up = scene.addresses_after(10 * FRESH_MS).await;
            assert!(matches!(gave_up, Err(ConnectError::TimedOut)));
            lookup.send(Ok(vec![address(1)])).unwrap();
            tokio::task::yield_now().await;
            let now_ms = scene.clock.now_ms();
            let fresh = |now_ms| scene.resolver.state.borrow().fresh(now_ms);
            assert_eq!(fresh(now_ms + FRESH_MS - 1), Some(vec![address(1)]));
            assert_eq!(fresh(now_ms + FRESH_MS), None);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn the_last_good_answer_outlives_a_name_service_that_fails_or_hangs() {
        let scene = Scene::new();
        let test = async {
            let nothing = scene.addresses_if(scene.look_up(), Err(failed())).await;
            assert!(matches!(nothing, Err(ConnectError::Unresolved(_))));
            let good = Ok(vec![address(1)]);
            scene.addresses_if(scene.look_up(), good).await.unwrap();

            scene.clock.advance(10 * FRESH_MS);
            let failing = scene.addresses_if(scene.look_up(), Err(failed())).await;
            assert_eq!(failing.unwrap(), [address(1)]);
            let _hanging = scene.look_up();
            let slow_ms = SLOW_LOOKUP.as_millis() as u64 + 100;
            assert_eq!(scene.addresses_after(slow_ms).await.unwrap(), [address(1)]);
            // Whoever comes later does not wait, and has all of its time left to connect.
            assert_eq!(scene.addresses().await.unwrap(), [address(1)]);
            let due_ms = scene.deadline.after_ms(Duration::from_secs(2));
            assert_eq!(scene.deadline.due_ms(), due_ms);
        };
        LocalSet::new().run_until(test).await;
    }
}
