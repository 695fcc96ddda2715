//! The proxy from a checked configuration: control, workers, admin server.

use std::net::SocketAddr;

use super::system::{self, Descriptors};
use super::{StartError, worker_count};
use crate::admin::{AdminOptions, AdminServer, AdminTls};
use crate::config::Config;
use crate::control::handle::ControlHandle;
use crate::control::{self, ControlOptions, Prepared, RunningControl};
use crate::net::{ConnectionCap, Listeners, Running, ServeOptions, spawn_workers};
use crate::proxy::ProxyService;
use crate::tls::{ServerTls, TlsWatch};

/// Smallest capacity of a buffer: fewer system calls for large bodies.
const MIN_BUFFER_BYTES: usize = 64 * 1024;

/// One for the client, one for the backend of its request.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Connections of control to a backend: its probe, and the removals that it has missed.
const CONTROL_DESCRIPTORS_PER_BACKEND: usize = 2;

/// The running proxy.
#[derive(Debug)]
pub struct ProxyServer {
    /// Where the web farm connects to.
    pub address: SocketAddr,
    /// What may be asked of control.
    pub control: ControlHandle,
    workers: Running,
    running_control: RunningControl,
    admin: AdminServer,
}

impl ProxyServer {
    /// Where the admin server listens, if there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.address
    }

    /// Lets requests in flight finish within the configured time, then ends the rest: until then
    /// the other proxies can ask this one.
    pub fn stop(self) {
        self.workers.stop();
        self.running_control.stop();
        self.admin.stop();
    }
}

/// Starts the proxy; it serves until it is stopped. It holds no more client connections than the
/// limit on open files allows.
///
/// # Errors
/// [`StartError`].
pub fn start(mut options: ControlOptions) -> Result<ProxyServer, StartError> {
    let Certificates { listen, admin_tls } = load_certificates(&mut options)?;
    let config = options.config.clone();
    let backends = options.map.backends.len();
    // Both before anything is written: another proxy may run already.
    let workers = worker_count(config.workers);
    let listeners = Listeners::bind(config.listen, workers)?;
    let admin = config
        .admin
        .listen
        .map(|address| Listeners::bind(address, 1));
    let admin = admin.transpose()?;
    let Prepared {
        control,
        inbox,
        ends,
        may_serve,
    } = control::prepare(options)?;
    let serve_options = serve_options(&config, workers, backends, listen);
    let (snapshot, shared, metrics) = (ends.snapshot, ends.shared, ends.metrics);
    let running_control = control.spawn(inbox).map_err(StartError::Thread)?;
    // Also without listeners: a reload may bring peers, which are asked from there.
    let (control, shown) = (ends.handle.clone(), metrics.clone());
    let admin = AdminServer::start(admin, control, shown, AdminOptions::default(), admin_tls)
        .map_err(StartError::Thread)?;
    // Clients that connect meanwhile wait in the kernel.
    let _ = may_serve.blocking_recv();
    let workers = spawn_workers(listeners, &serve_options, move |worker| {
        ProxyService::new(worker, &snapshot, shared.clone(), &metrics)
    })
    .map_err(StartError::Thread)?;
    Ok(ProxyServer {
        address: workers.address,
        control: ends.handle,
        workers,
        running_control,
        admin,
    })
}

/// What clients of the web farm are shown, and how admin servers are sure of each other.
struct Certificates {
    listen: Option<ServerTls>,
    admin_tls: AdminTls,
}

/// Reads the files with certificates, and has them looked after.
fn load_certificates(options: &mut ControlOptions) -> Result<Certificates, StartError> {
    let config = &mut options.config;
    let load = |what, files: &Option<_>| {
        let files = files.clone();
        files.map(|files| ServerTls::load(what, files)).transpose()
    };
    let listen = load("listen", &config.tls)?;
    let admin = load("admin", &config.admin.tls)?;
    let mut clients = Vec::new();
    if let Some(tls) = &mut config.backend_tls {
        clients.push(tls.trust.load("backends")?);
    }
    if let Some(trust) = &mut config.peer_tls {
        clients.push(trust.load("peers")?);
    }
    for backend in &mut options.map.backends {
        if let Some(trust) = &mut backend.tls
            && trust.client.is_none()
        {
            trust.load(&format!("backend {}", backend.name))?;
        }
    }
    let servers = [&listen, &admin].into_iter().flatten().cloned();
    options.certificates = TlsWatch::start(servers, clients).map_err(StartError::Thread)?;
    let admin_tls = AdminTls {
        server: admin,
        peers: config.peer_tls.clone(),
    };
    Ok(Certificates { listen, admin_tls })
}

/// Connections of the admin server and of control.
fn own_connections(config: &Config, backends: usize) -> usize {
    let admin = config
        .admin
        .listen
        .map_or(0, |_| AdminOptions::default().max_connections);
    admin + CONTROL_DESCRIPTORS_PER_BACKEND * backends + config.peers.len()
}

fn serve_options(
    config: &Config,
    workers: usize,
    backends: usize,
    tls: Option<ServerTls>,
) -> ServeOptions {
    let idle = config.limits.idle_backend_connections * backends * workers;
    let connections = system::connections_that_fit(&Descriptors {
        connections: config.limits.client_connections,
        per_connection: DESCRIPTORS_PER_CONNECTION,
        idle: idle as u64,
        workers,
        own: own_connections(config, backends),
    });
    ServeOptions {
        thread_name: "proxy",
        buffer_bytes: config.limits.head_bytes.max(MIN_BUFFER_BYTES),
        cap: ConnectionCap::new(connections),
        accept_wait: config.timeouts.accept_wait,
        shutdown: config.timeouts.shutdown,
        tls,
    }
}
