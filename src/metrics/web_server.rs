//! What is counted per web server: the addresses that client connections come from.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::busy_threads::{BusyThreads, WebServerLoad};
use super::counter::Counter;
use super::lock_waiters::{LockWaiter, LockWaiters};
use super::shards::Shards;

/// Web servers that are told apart. What comes from further ones counts together.
pub const MAX_WEB_SERVERS: usize = 256;

/// So many of eight connections of a web server may wait for a lock, and one always. It opens a
/// connection for each request that it makes at a time, so it has the threads of the others besides. More
/// than half of them: of pages that want one session at once, most are in line then.
const WAITING_OF_EIGHT: usize = 5;

/// All web servers that have connected lately.
#[derive(Debug, Default)]
pub struct WebServers {
    known: Mutex<KnownWebServers>,
    others: Arc<WebServerMetrics>,
}

type KnownWebServers = HashMap<IpAddr, Arc<WebServerMetrics>>;

/// What is counted of one web server, or of all those that are not told apart.
#[derive(Debug, Default)]
pub struct WebServerMetrics {
    /// Its address; `None` for all others together.
    pub address: Option<IpAddr>,
    /// Its open connections.
    connections: AtomicUsize,
    /// Its requests that wait for a lock: all that a request reads while none does.
    waiting: AtomicUsize,
    /// Its threads, for requests that find their sessions locked.
    threads: Mutex<WebServerThreads>,
    shards: Shards<WebServerShard>,
}

/// The part of one worker. No other thread writes here.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WebServerShard {
    /// Requests whose head has come.
    pub requests: Counter,
    /// Those of them whose answer it did not wait for.
    pub(super) abandoned: Counter,
    /// Locks that its pages were given.
    locks_taken: Counter,
    /// Locks that they have given up, or lost.
    pub locks_given_up: Counter,
}

/// One open connection of a web server.
#[derive(Debug)]
pub struct WebServerConnection {
    web_server: Arc<WebServerMetrics>,
    shard: Arc<WebServerShard>,
    is_abandoned: Cell<bool>,
}

/// What its threads do.
#[derive(Debug, Default)]
struct WebServerThreads {
    busy: BusyThreads,
    waiters: LockWaiters,
}

/// One request of a web server that waits for a lock.
#[derive(Debug)]
pub struct WaitingOfWebServer {
    web_server: Arc<WebServerMetrics>,
    waiter: Arc<LockWaiter>,
}

impl WebServers {
    /// A connection from this address that the worker with this number has taken.
    pub fn connected(&self, address: IpAddr, worker: usize) -> WebServerConnection {
        let mut known = self.lock();
        // It counts before the lock is free. Forgotten in between, it would count nowhere.
        self.find(&mut known, address).connected(worker)
    }

    /// The one with this address.
    pub fn at(&self, address: IpAddr) -> Arc<WebServerMetrics> {
        self.find(&mut self.lock(), address)
    }

    fn find(&self, known: &mut KnownWebServers, address: IpAddr) -> Arc<WebServerMetrics> {
        let address = address.to_canonical();
        if let Some(known) = known.get(&address) {
            return Arc::clone(known);
        }
        if known.len() >= MAX_WEB_SERVERS {
            return Arc::clone(&self.others);
        }
        let web_server = Arc::new(WebServerMetrics {
            address: Some(address),
            ..WebServerMetrics::default()
        });
        known.insert(address, Arc::clone(&web_server));
        web_server
    }

    /// Those that are told apart, in the order of their addresses.
    pub fn told_apart(&self) -> Vec<Arc<WebServerMetrics>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|web_server| web_server.address);
        all
    }

    /// All of them, the last of which stands for those that are not told apart.
    pub fn all(&self) -> Vec<Arc<WebServerMetrics>> {
        let mut all = self.told_apart();
        all.push(Arc::clone(&self.others));
        all
    }

    /// Forgets the one with this address, unless it has connections.
    pub fn forget(&self, address: IpAddr) {
        let mut known = self.lock();
        if known
            .get(&address)
            .is_some_and(|known| known.connections() == 0)
        {
            known.remove(&address);
        }
    }

    /// What a panicking thread left is whole: nothing in here panics half-way.
    fn lock(&self) -> MutexGuard<'_, KnownWebServers> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebServerMetrics {
    /// The part of the worker with this number. To be asked for when a connection is opened.
    pub fn shard(&self, worker: usize) -> Arc<WebServerShard> {
        self.shards.of_worker(worker)
    }

    /// Its requests since it was met first.
    pub fn requests(&self) -> u64 {
        self.sum(|shard| shard.requests.get())
    }

    /// A connection that the worker with this number has taken.
    fn connected(self: Arc<Self>, worker: usize) -> WebServerConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        WebServerConnection {
            shard: self.shard(worker),
            web_server: self,
            is_abandoned: Cell::new(false),
        }
    }

    /// Its open connections.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Locks that its pages have taken, and these less those that they have given up. Those are looked
    /// at first: each of them was taken before.
    fn locks(&self) -> (u64, i64) {
        let given_up = self.sum(|shard| shard.locks_given_up.get());
        let taken = self.sum(|shard| shard.locks_taken.get());
        (taken, taken.wrapping_sub(given_up).cast_signed())
    }

    fn load(&self, waiters: &LockWaiters) -> WebServerLoad {
        let (taken, locks) = self.locks();
        WebServerLoad {
            taken,
            locks,
            waiting: waiters.len(),
            connections: self.connections(),
        }
    }

    /// Some of those that wait are called off, if their threads may lack for other pages.
    #[cold]
    fn call_off_surplus(&self, now_ms: u64) {
        let mut threads = self.threads();
        let WebServerThreads { busy, waiters } = &mut *threads;
        let surplus = busy.too_many_waiting(self.load(waiters), now_ms);
        waiters.call_off(surplus);
        self.waiting.store(waiters.len(), Ordering::Relaxed);
    }

    /// What a panicking thread left is whole: nothing in there panics half-way.
    fn threads(&self) -> MutexGuard<'_, WebServerThreads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number over all workers.
    pub(super) fn sum(&self, number: impl Fn(&WebServerShard) -> u64) -> u64 {
        self.shards.sum(number)
    }
}

impl WebServerConnection {
    /// One more request of this web server that waits for a lock; `None` if its threads might lack for
    /// other pages.
    pub fn wait(&self, now_ms: u64) -> Option<WaitingOfWebServer> {
        let web_server = &self.web_server;
        let mut threads = web_server.threads();
        let WebServerThreads { busy, waiters } = &mut *threads;
        let load = web_server.load(waiters);
        let is_one_idle = busy.may_one_more_wait(load, now_ms);
        let most = (load.connections * WAITING_OF_EIGHT / 8).max(1);
        (is_one_idle && load.waiting < most).then(|| {
            let waiter = waiters.add();
            web_server.waiting.store(waiters.len(), Ordering::Relaxed);
            WaitingOfWebServer {
                web_server: Arc::clone(web_server),
                waiter,
            }
        })
    }

    /// One of its pages is given a lock, and keeps its thread while it has it. If too few are idle then,
    /// requests that wait give theirs back.
    #[inline]
    pub fn takes_lock(&self, now_ms: u64) {
        self.shard.locks_taken.increment();
        if self.web_server.waiting.load(Ordering::Relaxed) > 0 {
            self.web_server.call_off_surplus(now_ms);
        }
    }

    /// One of its pages is told that its session is locked, and will poll.
    #[cold]
    pub fn polls(&self, now_ms: u64) {
        let (taken, _) = self.web_server.locks();
        self.web_server.threads().busy.polls(taken, now_ms);
    }

    /// Its client has left before it had its answer: the last request of this connection, however often
    /// that shows. False if it has shown before.
    pub fn is_left(&self) -> bool {
        let is_new = !self.is_abandoned.replace(true);
        if is_new {
            self.shard.abandoned.increment();
        }
        is_new
    }
}

impl Deref for WebServerConnection {
    type Target = WebServerShard;

    fn deref(&self) -> &WebServerShard {
        &self.shard
    }
}

impl Drop for WebServerConnection {
    fn drop(&mut self) {
        let web_server = &self.web_server;
        if web_server.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            let (_, locks) = web_server.locks();
            web_server.threads().busy.hold_nothing(locks);
        }
    }
}

impl WaitingOfWebServer {
    /// Completes once its web server needs the thread that waits.
    pub async fn is_called_off(&self) {
        self.waiter.is_called_off().await;
    }

    /// It has what it waited for.
    pub fn waits_no_more(&self) {
        let web_server = &self.web_server;
        let mut threads = web_server.threads();
        threads.waiters.remove(&self.waiter);
        let waiting = threads.waiters.len();
        web_server.waiting.store(waiting, Ordering::Relaxed);
    }
}

impl Drop for WaitingOfWebServer {
    fn drop(&mut self) {
        self.waits_no_more();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn web_servers_are_told_apart_up_to_a_bound_and_an_address_has_one_spelling() {
        let web_servers = WebServers::default();
        let address = |number: usize| IpAddr::from([10, 0, (number / 256) as u8, number as u8]);
        for number in 0..MAX_WEB_SERVERS + 2 {
            let shard = web_servers.at(address(number)).shard(number % 2);
            shard.requests.increment();
        }
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        web_servers.at(mapped).shard(0).requests.increment();
        let counted = web_servers.all();
        assert_eq!(counted.len(), MAX_WEB_SERVERS + 1);
        assert_eq!(
            (counted[7].address, counted[7].requests()),
            (Some(address(7)), 2)
        );
        let others = counted.last().unwrap();
        assert_eq!((others.address, others.requests()), (None, 2));
        let connection = web_servers.connected(address(7), 1);
        web_servers.forget(address(7));
        assert_eq!(web_servers.at(address(7)).requests(), 2, "it is connected");
        drop(connection);
        web_servers.forget(address(7));
        assert_eq!(web_servers.at(address(7)).requests(), 0);
    }

    #[test]
    fn five_of_eight_connections_may_wait_and_one_always() {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let connected = |worker| Arc::clone(&web_server).connected(worker);
        let one = connected(0);
        let first = one.wait(0);
        assert!(first.is_some() && one.wait(0).is_none());
        let more = [1, 0, 1].map(connected);
        let second = one.wait(0);
        assert!(second.is_some() && one.wait(0).is_none());
        drop(first);
        let third = one.wait(0);
        assert!(third.is_some(), "one has left");
        second.unwrap().waits_no_more();
        assert!(one.wait(0).is_some(), "one has its lock");
        drop(more);
        assert!(one.wait(0).is_none(), "they are closed");
        drop(third);
        let _seven_more = [0; 7].map(connected);
        let waiting: Vec<_> = std::iter::from_fn(|| one.wait(0)).collect();
        assert_eq!(waiting.len(), 5);
    }

    #[test]
    fn locks_that_pages_hold_keep_requests_from_waiting_on_all_workers_until_all_connections_are_closed()
     {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let connected = |worker| Arc::clone(&web_server).connected(worker);
        let [one, other] = [0, 1].map(connected);
        one.takes_lock(0);
        one.takes_lock(0);
        other.takes_lock(0);
        assert!(one.wait(0).is_none(), "three of four threads are busy");
        other.locks_given_up.increment();
        assert!(one.wait(0).is_some());
        one.takes_lock(0);
        drop(one);
        assert!(other.wait(0).is_none());
        drop(other);
        assert!(connected(0).wait(0).is_some(), "its process has ended");
    }

    #[test]
    fn a_request_that_waits_is_called_off_when_a_page_takes_the_last_idle_thread() {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let connections = [0, 1, 0, 1].map(|worker| Arc::clone(&web_server).connected(worker));
        let [one, other, ..] = &connections;
        let waiting = [one.wait(0), other.wait(0)].map(Option::unwrap);
        let called_off = || {
            let mut context = Context::from_waker(Waker::noop());
            let is_ready = |waiting: &WaitingOfWebServer| {
                pin!(waiting.is_called_off()).poll(&mut context).is_ready()
            };
            waiting.iter().map(is_ready).collect::<Vec<_>>()
        };
        other.takes_lock(0);
        assert_eq!(called_off(), [false, false], "one of four is idle");
        one.takes_lock(0);
        assert_eq!(called_off(), [false, true]);
        other.takes_lock(0);
        assert_eq!(called_off(), [true, true]);
        drop(waiting);
        one.locks_given_up.add(2);
        assert!(one.wait(0).is_some());
    }

    #[test]
    fn a_client_leaves_once() {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let [one, other] = [0, 1].map(|worker| Arc::clone(&web_server).connected(worker));
        assert!(one.is_left() && !one.is_left() && other.is_left());
        assert_eq!(web_server.sum(|shard| shard.abandoned.get()), 2);
    }
}
