//! The thread of the admin server, its connections and their bounds.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::options::{AdminOptions, AdminTls};
use super::pages::ProxySite;
use super::peers;
use super::permits::{ConnectionPermit, ConnectionPermits};
use super::plan::Planner;
use super::refusals::Refusals;
use super::routes;
use super::routes::Site;
use super::store_site::StoreSite;
use crate::control::handle::ControlHandle;
use crate::metrics::Metrics;
use crate::net::Listeners;
use crate::tls::ServerTls;

/// Bytes of a request's head, and of what is read ahead.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Lines of a request's head.
const MAX_HEAD_LINES: usize = 64;

/// Names of peers that are looked up at a time.
const LOOKUP_THREADS: usize = 4;

/// Threads beside those that look up the names of peers.
const PLANNING_THREADS: usize = 1;

/// Pause after the kernel refused an accept for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What each connection is served with.
#[derive(Clone)]
struct Served<S> {
    site: S,
    options: AdminOptions,
    /// What clients are shown; `None` for connections without TLS.
    tls: Option<ServerTls>,
}

/// The running admin server, and the asking of the peers.
#[derive(Debug)]
pub struct AdminServer {
    /// Where it listens; `None` when it only asks.
    pub address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl AdminServer {
    /// Serves on `listeners`, of which one is enough, and asks the peers of the main file in force, in a
    /// thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread or event queue.
    pub fn start(
        listeners: Option<Listeners>,
        control: ControlHandle,
        metrics: Arc<Metrics>,
        options: AdminOptions,
        tls: AdminTls,
    ) -> io::Result<Self> {
        let asking = {
            let (control, trust) = (control.clone(), tls.peers);
            move |tasks: &mut JoinSet<()>, stopped: &watch::Receiver<bool>| {
                tasks.spawn(peers::ask_all(control, options, trust, stopped.clone()));
            }
        };
        let site = ProxySite {
            control,
            refusals: Refusals::new(metrics.admin_refusals()),
            metrics,
            planner: Planner::new(),
        };
        let served = Served {
            site,
            options,
            tls: tls.server,
        };
        Self::run(listeners, served, LOOKUP_THREADS, asking)
    }

    /// The same for a state server, which has no peers.
    ///
    /// # Errors
    /// When the system gives no thread or event queue.
    pub fn start_for_store(
        listeners: Listeners,
        site: StoreSite,
        options: AdminOptions,
        tls: Option<ServerTls>,
    ) -> io::Result<Self> {
        let served = Served { site, options, tls };
        Self::run(Some(listeners), served, 0, |_, _| ())
    }

    fn run(
        listeners: Option<Listeners>,
        served: Served<impl Site>,
        lookup_threads: usize,
        spawn_others: impl FnOnce(&mut JoinSet<()>, &watch::Receiver<bool>) + Send + 'static,
    ) -> io::Result<Self> {
        let address = listeners.as_ref().map(|listeners| listeners.address);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(lookup_threads + PLANNING_THREADS)
            .build()?;
        let sockets = listeners.into_iter().flat_map(Listeners::into_sockets);
        let entered = runtime.enter();
        let sockets = sockets
            .map(TcpListener::from_std)
            .collect::<io::Result<Vec<_>>>()?;
        drop(entered);
        let (stop, stopped) = watch::channel(false);
        let serve = async move {
            let mut tasks = JoinSet::new();
            for socket in sockets {
                tasks.spawn(accept(socket, served.clone(), stopped.clone()));
            }
            spawn_others(&mut tasks, &stopped);
            tasks.join_all().await;
        };
        let run = move || {
            runtime.block_on(serve);
            // A name whose lookup hangs must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(run)?;
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Stops accepting, finishes what is being answered within its time, and returns when the
    /// thread has ended.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        // If it panicked it has said so on stderr already.
        let _ = self.thread.join();
    }
}

/// Accepts until it is stopped, then waits for the connections to end.
async fn accept(socket: TcpListener, served: Served<impl Site>, stopped: watch::Receiver<bool>) {
    let places = ConnectionPermits::new(served.options.max_connections);
    let mut connections = JoinSet::new();
    let mut stop = stopped.clone();
    let accepting = async {
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = places.take(peer.ip()).await else {
                        return;
                    };
                    let (served, stopped) = (served.clone(), stopped.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            () = served.take(stream, peer.ip(), stopped, &place) => {}
                            () = place.must_leave() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept an admin connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(socket);
    connections.join_all().await;
}

impl<S: Site> Served<S> {
    /// Serves one connection to the end of its life. With TLS nothing is read of a client before it
    /// has shown what it has to.
    async fn take(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        mut stopped: watch::Receiver<bool>,
        place: &ConnectionPermit,
    ) {
        let Some(tls) = &self.tls else {
            return self.serve(stream, peer, stopped, place).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.options.receive, tls.accept(stream)) => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let problem = match accepted {
            Ok(Ok(stream)) => return self.serve(stream, peer, stopped, place).await,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("not within {} s", self.options.receive.as_secs()),
        };
        self.site.refusals().note_untrusted(&problem, peer);
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: IpAddr,
        mut stopped: watch::Receiver<bool>,
        place: &ConnectionPermit,
    ) {
        let Self { site, options, .. } = self;
        let answer = service_fn(|request| async move {
            place.is_answering(true);
            let answer = routes::answer(site, request, peer, options).await;
            place.is_answering(false);
            Ok::<_, Infallible>(answer)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.receive)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEAD_LINES)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = tokio::time::sleep(options.lifetime) => None,
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            let finished = tokio::time::timeout(options.shutdown, connection).await;
            finished.unwrap_or(Ok(()))
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, "admin connection ended: {error}");
        }
    }
}
