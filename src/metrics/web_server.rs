//! What is counted per web server: the addresses that client connections come from.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counter::Counter;
use super::shards::Shards;

/// Web servers that are told apart. What comes from further ones counts together.
pub const MAX_WEB_SERVERS: usize = 256;

/// All web servers that have connected lately.
#[derive(Debug, Default)]
pub struct WebServers {
    known: Mutex<HashMap<IpAddr, Arc<WebServerMetrics>>>,
    others: Arc<WebServerMetrics>,
}

/// What is counted of one web server, or of all those that are not told apart.
#[derive(Debug, Default)]
pub struct WebServerMetrics {
    /// Its address; `None` for all others together.
    pub address: Option<IpAddr>,
    /// Its open connections.
    connections: AtomicUsize,
    /// Its requests that wait for a lock.
    waiting: AtomicUsize,
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
}

/// One open connection of a web server.
#[derive(Debug)]
pub struct WebServerConnection {
    web_server: Arc<WebServerMetrics>,
    shard: Arc<WebServerShard>,
    is_abandoned: Cell<bool>,
}

/// One request of a web server that waits for a lock.
#[derive(Debug)]
pub struct WaitingOfWebServer(Arc<WebServerMetrics>);

impl WebServers {
    /// The one with this address. To be asked for when a connection is opened, and not per request.
    pub fn at(&self, address: IpAddr) -> Arc<WebServerMetrics> {
        let address = address.to_canonical();
        let mut known = self.lock();
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
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<WebServerMetrics>>> {
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
    pub fn connected(self: Arc<Self>, worker: usize) -> WebServerConnection {
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

    /// A number over all workers.
    pub(super) fn sum(&self, number: impl Fn(&WebServerShard) -> u64) -> u64 {
        self.shards.all().iter().map(|shard| number(shard)).sum()
    }
}

impl WebServerConnection {
    /// One more request of this web server that waits for a lock; `None` if there are so many already
    /// that its threads might lack for other pages.
    ///
    /// A web server opens a connection for each request that it makes at a time, on a thread each. So one
    /// in `one_in` of its connections may wait, and one always.
    pub fn wait(&self, one_in: usize) -> Option<WaitingOfWebServer> {
        let web_server = &self.web_server;
        let most = (web_server.connections() / one_in.max(1)).max(1);
        let waiting = web_server.waiting.fetch_add(1, Ordering::Relaxed);
        // Counts itself down when it is dropped.
        let one = WaitingOfWebServer(Arc::clone(web_server));
        (waiting < most).then_some(one)
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
        self.web_server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for WaitingOfWebServer {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
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
        let connection = web_servers.at(address(7)).connected(1);
        web_servers.forget(address(7));
        assert_eq!(web_servers.at(address(7)).requests(), 2, "it is connected");
        drop(connection);
        web_servers.forget(address(7));
        assert_eq!(web_servers.at(address(7)).requests(), 0);
    }

    #[test]
    fn a_third_of_the_connections_may_wait_and_one_always() {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let connected = |worker| Arc::clone(&web_server).connected(worker);
        let one = connected(0);
        let first = one.wait(3);
        assert!(first.is_some() && one.wait(3).is_none());
        let more = [1, 0, 1, 0, 1, 0].map(connected);
        let second = one.wait(3);
        assert!(second.is_some() && one.wait(3).is_none());
        drop(first);
        assert!(one.wait(3).is_some(), "one has left");
        drop(more);
        assert!(one.wait(3).is_none(), "they are closed");
    }

    #[test]
    fn a_client_leaves_once() {
        let web_server = WebServers::default().at(IpAddr::from([10, 0, 0, 1]));
        let [one, other] = [0, 1].map(|worker| Arc::clone(&web_server).connected(worker));
        assert!(one.is_left() && !one.is_left() && other.is_left());
        assert_eq!(web_server.sum(|shard| shard.abandoned.get()), 2);
    }
}
