//! Proxy and state server in one thread, joined by memory: no socket, no clock, no process.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use staterouter::backend::{Connector, LocalServer};
use staterouter::config::{Config, PartitionMap};
use staterouter::control::pool_state::PoolState;
use staterouter::metrics::Metrics;
use staterouter::net::{Buffer, Conn, Deadline, Deadlines, IoError, Service, UnixClock, Worker};
use staterouter::proxy::{self, ProxyService, WorkersShared};
use staterouter::state_server::LocalStateServer;
use staterouter::store::{MemoryStore, StoreOptions, StoreSurvey};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use crate::support::answers::{DONE, item, locked_item};
use crate::support::backend::ABSENT;
use crate::support::client::{acquire, delete, get, head, put, release};
use crate::support::tags::tag;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const BUFFER_BYTES: usize = 64 * 1024;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Nothing here is ever late: nobody lets the time pass.
const LONG: Duration = Duration::from_secs(3600);

/// A state server in this process.
fn state_server() -> Connector {
    let store = Arc::new(MemoryStore::new(&StoreOptions::new([7; 16])));
    let make_store = move |_: &Rc<Deadlines>| Arc::clone(&store);
    Connector::Local(Arc::new(LocalStateServer::new(LONG, make_store).unwrap()))
}

/// One that is out of reach.
#[derive(Debug)]
struct Gone;

impl LocalServer for Gone {
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<Conn>>>> {
        Box::pin(ready(Err(io::Error::other("nobody is there"))))
    }

    fn survey(&self) -> Pin<Box<dyn Future<Output = StoreSurvey>>> {
        Box::pin(ready(StoreSurvey::default()))
    }
}

/// A proxy over the one server that `server` leads to.
fn proxy_over(server: Connector) -> Rc<ProxyService> {
    let map = "version: 1\nbackends: [{name: state-1, id: 1, address: '192.0.2.1:42424'}]\n";
    let map = PartitionMap::parse(map, "map.yaml").unwrap();
    let mut config = Config::new(PathBuf::from("map.yaml"));
    // Nobody would ever end a wait.
    config.handover.hold = Duration::ZERO;
    config.locks.wait = Duration::ZERO;
    let engine = PoolState::new(config, map, 1_800_000_000_000).unwrap();
    let mut snapshot = engine.snapshot();
    snapshot.backends[0].server = server;
    snapshot.backends[0].up = true;
    let (shared, _reports, _contents) = WorkersShared::channel(UnixClock::start());
    let worker = Worker::new(0, BUFFER_BYTES);
    let snapshot = proxy::share(snapshot);
    let metrics = Metrics::default();
    Rc::new(ProxyService::new(worker, &snapshot, shared, &metrics))
}

/// A web server's end of a connection to the proxy.
struct Client {
    conn: Conn,
    worker: Rc<Worker>,
    deadline: Deadline,
}

impl Client {
    fn connect(proxy: &Rc<ProxyService>) -> Self {
        let (conn, other) = Conn::pair(BUFFER_BYTES);
        spawn_local(Rc::clone(proxy).serve(other, PEER));
        let worker = Worker::new(1, BUFFER_BYTES);
        let deadline = worker.deadlines.register();
        Self {
            conn,
            worker,
            deadline,
        }
    }

    /// Sends a request; the answer, which has `count` bytes.
    async fn ask(&mut self, request: &[u8], count: usize) -> String {
        let mut buffer = self.first_of_answer(request).await.unwrap();
        let mut answer = buffer.filled().to_vec();
        while answer.len() < count {
            buffer.clear();
            let more = self.conn.read_more(&mut buffer, &self.deadline);
            more.await.unwrap();
            answer.extend_from_slice(buffer.filled());
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn first_of_answer(&mut self, request: &[u8]) -> Result<Buffer, IoError> {
        let mut sent_bytes = 0;
        let sent = self
            .conn
            .write_all(request, &mut sent_bytes, &self.deadline);
        sent.await?;
        let buffers = &self.worker.buffers;
        self.conn
            .read_first(buffers, &self.deadline, || false)
            .await
    }

    async fn expect(&mut self, request: &[u8], answer: &[u8]) {
        let got = self.ask(request, answer.len()).await;
        assert_eq!(got, String::from_utf8_lossy(answer));
    }
}

/// In a runtime that has neither sockets nor timers.
fn run(scene: impl Future<Output = ()>) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.build_local(LocalOptions::default()).unwrap();
    runtime.block_on(scene);
}

#[test]
fn every_operation_passes_through_memory_as_through_sockets() {
    run(async {
        let mut client = Client::connect(&proxy_over(state_server()));
        client.expect(&acquire(ID), ABSENT).await;
        client.expect(&put(ID, 0, b"first"), DONE).await;
        client.expect(&get(ID), &item(b"first")).await;
        client
            .expect(&acquire(ID), &locked_item(tag(1, 2), b"first"))
            .await;
        // Larger than what a buffer or the memory between the two takes.
        let large = vec![b'x'; 5 * BUFFER_BYTES];
        client.expect(&put(ID, tag(1, 2), &large), DONE).await;
        client.expect(&get(ID), &item(&large)).await;
        client
            .expect(&acquire(ID), &locked_item(tag(1, 3), &large))
            .await;
        client.expect(&release(ID, tag(1, 3)), DONE).await;
        client.expect(&head(ID), DONE).await;
        client.expect(&delete(ID, 0), DONE).await;
        client.expect(&get(ID), ABSENT).await;
    });
}

#[test]
fn a_server_in_memory_that_is_gone_costs_the_connection_and_no_session() {
    run(async {
        let server = Connector::Local(Arc::new(Gone));
        let mut client = Client::connect(&proxy_over(server));
        let answer = client.first_of_answer(&get(ID)).await;
        assert!(answer.is_err(), "an answer was made up");
    });
}
