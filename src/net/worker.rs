//! The threads that serve connections, from accept to the orderly end.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, watch};

use super::accept::{ACCEPT_PAUSE, Acceptor, Source};
use super::clock;
use super::deadline::TICK_MS;
use super::{BufferPool, Conn, Deadline, Deadlines, Listeners, Moment};
use crate::log::LogLimit;
use crate::tls::ServerTls;

/// Threads of a worker for what cannot wait without one: looking up the names of backends.
const MAX_BLOCKING_THREADS: usize = 4;

/// How long client and server may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a buffer may be of no use before it is given back, about.
const SHRINK_MS: u64 = 1000;

/// What a kind of server does with its connections. One instance lives on each worker.
pub trait Service: 'static {
    /// Serves one connection until it ends.
    fn serve(self: Rc<Self>, conn: Conn, peer: SocketAddr) -> impl Future<Output = ()> + 'static;

    /// Whether `peer` may connect at all; asked at accept, before a byte is read.
    fn admits(&self, peer: IpAddr) -> bool;

    /// A connection was closed unserved because there were too many.
    fn turned_away(&self) {}

    /// A connection was closed unserved because no TLS came about.
    fn not_trusted(&self) {}

    /// Housekeeping, called every [`TICK_MS`].
    fn tick(&self, now_ms: u64) {
        let _ = now_ms;
    }
}

/// What a service shares with the worker it runs on.
#[derive(Debug)]
pub struct Worker {
    /// Number of this worker, from 0.
    pub index: usize,
    /// Its buffers.
    pub buffers: Rc<BufferPool>,
    /// Its deadlines and coarse clock.
    pub deadlines: Rc<Deadlines>,
    stopping: Cell<bool>,
    busy: Cell<usize>,
    all_done: Notify,
}

impl Worker {
    /// One that nobody drives yet: whoever makes it lets its time pass ([`Deadlines::advance`]).
    pub fn new(index: usize, buffer_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            buffers: BufferPool::new(buffer_bytes),
            deadlines: Deadlines::new(),
            stopping: Cell::new(false),
            busy: Cell::new(0),
            all_done: Notify::new(),
        })
    }

    /// Whether the program is ending: finish the request at hand, then close.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Makes the end of the worker wait for this guard as for a connection: until it is dropped,
    /// [`ServeOptions::shutdown`] at most. For work that goes on after its connection is closed.
    pub fn keep_busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy {
            worker: Rc::clone(self),
        }
    }
}

/// A connection or other work that the end of its worker waits for, see [`Worker::keep_busy`].
#[derive(Debug)]
pub struct Busy {
    worker: Rc<Worker>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.worker.busy.set(self.worker.busy.get() - 1);
        if self.worker.busy.get() == 0 {
            self.worker.all_done.notify_one();
        }
    }
}

/// The most connections a server holds, over all its workers.
#[derive(Debug)]
pub struct ConnectionCap {
    open: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl ConnectionCap {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max,
            freed: Notify::new(),
        })
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let take = |open| (open < self.max).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// Waits for a place until `deadline` passes. Another worker may take the one that was freed:
    /// then the wait goes on.
    async fn take_before(self: &Arc<Self>, deadline: &Deadline) -> Option<Place> {
        let place = async {
            loop {
                if let Some(place) = self.try_take() {
                    return place;
                }
                self.freed.notified().await;
            }
        };
        deadline.guard(place).await.ok()
    }
}

/// One connection's place under the cap.
struct Place(Arc<ConnectionCap>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

/// How a server runs.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Name of the threads, for `top` and debuggers.
    pub thread_name: &'static str,
    /// Capacity of one buffer in bytes; at least the longest head.
    pub buffer_bytes: usize,
    /// The connection cap.
    pub cap: Arc<ConnectionCap>,
    /// How long a new connection waits for a place when there is none, before it is refused.
    pub accept_wait: Duration,
    /// How long requests in flight may go on after a stop.
    pub shutdown: Duration,
    /// What makes the connections encrypted; `None` for plain ones.
    pub tls: Option<ServerTls>,
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Stops accepting, lets requests in flight finish within the configured time, and returns
    /// when all threads have ended.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        for thread in self.threads {
            // A worker that panicked has said so on stderr already.
            let _ = thread.join();
        }
    }
}

/// What reaches a worker from other threads.
#[derive(Clone)]
struct Signals {
    /// Whether it is to stop.
    stopped: watch::Receiver<bool>,
    /// Drive its clock.
    ticks: watch::Receiver<()>,
}

/// Starts one thread per worker; `make` builds the service on each.
///
/// # Errors
/// When the system gives no thread or event queue; workers already running end by themselves.
pub fn spawn_workers<S: Service>(
    listeners: Listeners,
    options: &ServeOptions,
    make: impl Fn(Rc<Worker>) -> S + Clone + Send + 'static,
) -> io::Result<Running> {
    let (stop, stopped) = watch::channel(false);
    let ticks = worker_ticks()?;
    let signals = Signals { stopped, ticks };
    let (sources, acceptor) =
        Source::for_workers(listeners.sockets, options.thread_name, &signals.stopped)?;
    let mut threads = Vec::from_iter(acceptor);
    for (index, source) in sources.into_iter().enumerate() {
        let (options, make, signals) = (options.clone(), make.clone(), signals.clone());
        let name = format!("{}-{index}", options.thread_name);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let run = move || match prepare(source) {
            Ok(prepared) => {
                let _ = ready.send(Ok(()));
                run_worker(index, prepared, &options, make, signals);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        threads.push(thread::Builder::new().name(name).spawn(run)?);
        is_ready.recv().map_err(io::Error::other)??;
    }
    Ok(Running {
        address: listeners.address,
        stop,
        threads,
    })
}

/// What can fail when a worker starts.
fn prepare(source: Source) -> io::Result<(LocalRuntime, Acceptor)> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build_local(LocalOptions::default())?;
    let acceptor = runtime.block_on(async { source.start() })?;
    Ok((runtime, acceptor))
}

fn run_worker<S: Service>(
    index: usize,
    (runtime, mut acceptor): (LocalRuntime, Acceptor),
    options: &ServeOptions,
    make: impl Fn(Rc<Worker>) -> S,
    signals: Signals,
) {
    let Signals { mut stopped, ticks } = signals;
    runtime.block_on(async {
        let worker = Worker::new(index, options.buffer_bytes);
        let service = Rc::new(make(Rc::clone(&worker)));
        let (driven, its_service) = (Rc::clone(&worker), Rc::clone(&service));
        let clock = tokio::task::spawn_local(async move {
            drive(&driven, &*its_service, ticks, || true).await;
        });
        tokio::select! {
            () = accept(&worker, &service, &mut acceptor, options) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        drop(acceptor);
        worker.stopping.set(true);
        worker.deadlines.wake_all();
        let done = async {
            while worker.busy.get() > 0 {
                worker.all_done.notified().await;
            }
        };
        let deadline = worker.deadlines.register();
        deadline.arm(options.shutdown);
        if deadline.guard(done).await.is_err() {
            let open = worker.busy.get();
            tracing::warn!(
                worker = index,
                open,
                "closing connections with requests in flight"
            );
        }
        clock.abort();
    });
    // A name whose lookup hangs must not hold up the end.
    runtime.shutdown_background();
}

/// What tells the workers that time has passed.
///
/// # Errors
/// When the system gives no thread.
pub fn worker_ticks() -> io::Result<watch::Receiver<()>> {
    clock::ticks(Duration::from_millis(TICK_MS))
}

/// Drives the worker's clock, its deadlines and the service's housekeeping, for as long as it
/// `goes_on`.
pub async fn drive<S: Service>(
    worker: &Worker,
    service: &S,
    mut ticks: watch::Receiver<()>,
    goes_on: impl Fn() -> bool,
) {
    let start = Moment::now();
    let mut shrink_ms = SHRINK_MS;
    while ticks.changed().await.is_ok() && goes_on() {
        let now_ms = start.elapsed_ns() / 1_000_000;
        worker.deadlines.advance(now_ms);
        if now_ms >= shrink_ms {
            shrink_ms = now_ms + SHRINK_MS;
            worker.buffers.shrink();
        }
        service.tick(now_ms);
    }
}

/// Accepts for ever. At the cap a new connection first waits for a place; once that has failed,
/// those behind it are refused at once until a place is free again.
async fn accept<S: Service>(
    worker: &Rc<Worker>,
    service: &Rc<S>,
    acceptor: &mut Acceptor,
    options: &ServeOptions,
) {
    let mut refusing = false;
    let (refusals, errors) = (Rc::new(LogLimit::default()), LogLimit::default());
    let refuse = |peer: SocketAddr, reason: &str| {
        if let Some(suppressed) = refusals.allow(worker.deadlines.now_ms()) {
            tracing::warn!(peer = %peer.ip(), suppressed, "connection refused: {reason}");
        }
    };
    loop {
        let (stream, peer) = match acceptor.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = errors.allow(worker.deadlines.now_ms()) {
                    let worker = worker.index;
                    tracing::warn!(worker, %error, suppressed, "cannot accept a connection");
                }
                worker.deadlines.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !service.admits(peer.ip()) {
            refuse(peer, "address is not in 'allow'");
            continue;
        }
        let mut place = options.cap.try_take();
        if place.is_none() && !refusing {
            let deadline = worker.deadlines.register();
            deadline.arm(options.accept_wait);
            place = options.cap.take_before(&deadline).await;
        }
        refusing = place.is_none();
        match place {
            Some(place) => match &options.tls {
                None => spawn_connection(worker, service, stream, peer, place),
                Some(tls) => spawn_encrypted(worker, service, stream, peer, place, tls, &refusals),
            },
            None => {
                service.turned_away();
                refuse(peer, "too many connections");
            }
        }
    }
}

fn spawn_connection<S: Service>(
    worker: &Rc<Worker>,
    service: &Rc<S>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    let busy = worker.keep_busy();
    let service = Rc::clone(service);
    // The serving future is made inside: a captured one would be stored twice, and its size is
    // most of what an idle connection costs.
    tokio::task::spawn_local(async move {
        let _held = (busy, place);
        service.serve(Conn::new(stream), peer).await;
    });
}

/// As above, once client and server trust each other. Nothing of what the client sends is served
/// before.
fn spawn_encrypted<S: Service>(
    worker: &Rc<Worker>,
    service: &Rc<S>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    tls: &ServerTls,
    refusals: &Rc<LogLimit>,
) {
    let (busy, worker) = (worker.keep_busy(), Rc::clone(worker));
    let (service, refusals, tls) = (Rc::clone(service), Rc::clone(refusals), tls.clone());
    tokio::task::spawn_local(async move {
        let _held = (busy, place);
        let deadline = worker.deadlines.register();
        deadline.arm(HANDSHAKE);
        // On the heap: it is over soon, and would be most of what an idle connection costs.
        let accepted = Box::pin(deadline.guard(tls.accept(stream))).await;
        drop(deadline);
        let reason = match accepted {
            Ok(Ok(stream)) => return service.serve(Conn::encrypted(stream), peer).await,
            Ok(Err(error)) => error.to_string(),
            Err(_expired) => format!("not within {} s", HANDSHAKE.as_secs()),
        };
        service.not_trusted();
        if let Some(suppressed) = refusals.allow(worker.deadlines.now_ms()) {
            tracing::warn!(peer = %peer.ip(), suppressed, "connection refused: no TLS with it: {reason}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::Mutex;

    /// Greets every connection it admits: those of an even turn.
    struct EverySecond {
        worker: Rc<Worker>,
        turn: Cell<u32>,
    }

    impl Service for EverySecond {
        async fn serve(self: Rc<Self>, mut conn: Conn, _peer: SocketAddr) {
            let deadline = self.worker.deadlines.register();
            conn.write_all(b"welcome", &mut 0, &deadline).await.unwrap();
        }

        fn admits(&self, _peer: IpAddr) -> bool {
            self.turn.replace(self.turn.get() + 1).is_multiple_of(2)
        }
    }

    /// No sign of it after this long is a failure of the test.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn options(max_connections: usize) -> ServeOptions {
        ServeOptions {
            thread_name: "test",
            buffer_bytes: 64,
            cap: ConnectionCap::new(max_connections),
            accept_wait: Duration::from_secs(60),
            shutdown: Duration::from_secs(60),
            tls: None,
        }
    }

    fn start<S: Service>(make: impl Fn(Rc<Worker>) -> S + Clone + Send + 'static) -> Running {
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        spawn_workers(listeners, &options(1), make).unwrap()
    }

    /// What the server says until it closes. Closing unread connections may reset them, which is
    /// an end as well.
    fn greeting(server: &Running) -> String {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    }

    #[test]
    fn a_peer_that_is_not_admitted_is_closed_unserved_and_takes_no_place() {
        let running = start(|worker| EverySecond {
            worker,
            turn: Cell::new(0),
        });
        for expected in ["welcome", "", "welcome", ""] {
            assert_eq!(greeting(&running), expected);
        }
        running.stop();
    }

    /// Leaves work behind that goes on for a while after the worker began to end.
    struct Lingering {
        worker: Rc<Worker>,
        events: mpsc::Sender<&'static str>,
    }

    impl Service for Lingering {
        async fn serve(self: Rc<Self>, _conn: Conn, _peer: SocketAddr) {
            let busy = self.worker.keep_busy();
            let service = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let _busy = busy;
                service.events.send("begun").unwrap();
                while !service.worker.is_stopping() {
                    tokio::task::yield_now().await;
                }
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                service.events.send("done").unwrap();
            });
        }

        fn admits(&self, _peer: IpAddr) -> bool {
            true
        }
    }

    #[test]
    fn the_end_waits_for_work_that_outlives_its_connection() {
        let (events, seen) = mpsc::channel();
        let running = start(move |worker| Lingering {
            worker,
            events: events.clone(),
        });
        assert_eq!(greeting(&running), "");
        assert_eq!(seen.recv_timeout(PATIENCE), Ok("begun"));
        running.stop();
        assert_eq!(seen.try_recv(), Ok("done"));
    }

    /// Leaves a blocking task behind that ends when `release` is dropped.
    struct Blocking {
        begun: mpsc::Sender<()>,
        release: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Service for Blocking {
        async fn serve(self: Rc<Self>, _conn: Conn, _peer: SocketAddr) {
            let (begun, release) = (self.begun.clone(), Arc::clone(&self.release));
            tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                let _ = release.lock().unwrap().recv();
            });
        }

        fn admits(&self, _peer: IpAddr) -> bool {
            true
        }
    }

    #[test]
    fn the_end_does_not_wait_for_a_lookup_that_hangs() {
        let (begun, has_begun) = mpsc::channel();
        let (_hold, release) = mpsc::channel::<()>();
        let release = Arc::new(Mutex::new(release));
        let running = start(move |_worker| Blocking {
            begun: begun.clone(),
            release: Arc::clone(&release),
        });
        assert_eq!(greeting(&running), "");
        has_begun.recv_timeout(PATIENCE).unwrap();
        let (ended, has_ended) = mpsc::channel();
        thread::spawn(move || {
            running.stop();
            ended.send(()).unwrap();
        });
        has_ended.recv_timeout(PATIENCE).unwrap();
    }
}
