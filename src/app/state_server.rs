//! One embedded state server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::system::{self, Descriptors};
use super::{StartError, worker_count};
use crate::admin::{
    AdminOptions, AdminServer, KeptOnDisk, ReadStats, StoreFacts, StoreSite, StoreWatch,
};
use crate::config::AllowList;
use crate::disk::{DiskError, DiskOptions, DiskStore, Folder, SyncMode};
use crate::net::{ConnectionCap, Listeners, Running, ServeOptions, own_host_name, spawn_workers};
use crate::os;
use crate::state_server::{BodyBudget, ServerClock, StateOptions, StateService};
use crate::store::{CountedStore, MemoryStore, StoreOptions, StoreStats};
use crate::tls::{ServerFiles, ServerTls, TlsWatch};
use crate::wire::HeadLimits;

/// Capacity of one buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a connection may be idle. Longer than proxies and web servers keep theirs.
const IDLE: Duration = Duration::from_secs(90);

/// How long a half-sent request or half-read answer may make too little progress.
const STALL: Duration = Duration::from_secs(30);

/// How long requests in flight may go on after a stop.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How long a new connection waits for a place.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// Memory for bodies that are still arriving, when there is no limit on the items' memory.
const ARRIVING_BODIES_BYTES: u64 = 1 << 30;

/// Part of the items' memory that bodies still arriving may take on top of it.
const ARRIVING_BODIES_PART: u64 = 4;

/// How a state server runs.
#[derive(Debug, Clone)]
pub struct StateServerOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who may connect besides loopback.
    pub allow: AllowList,
    /// Threads; 0 is one per core.
    pub workers: usize,
    /// Memory for items in bytes; above it new items are refused. `None`: no limit. Bodies still
    /// arriving may take a quarter of it on top, but at least one longest body; without a limit 1 GiB.
    pub max_memory_bytes: Option<u64>,
    /// Longest body in bytes.
    pub max_body_bytes: u64,
    /// Most connections at a time.
    pub max_connections: usize,
    /// What clients are shown; `None` for connections without TLS.
    pub tls: Option<ServerFiles>,
    /// Where sessions are kept beyond the process; `None` for nowhere.
    pub data: Option<DataOptions>,
    /// Where it says how it is; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Whether it shows its certificate there, too.
    pub admin_tls: bool,
    /// Host names that it is known under there beside IP addresses, `localhost` and the machine's
    /// own name; in lower case.
    pub admin_hosts: Vec<String>,
}

/// Where sessions are kept beyond the process.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// The folder, which is made if it is not there.
    pub folder: PathBuf,
    /// When a write is answered.
    pub sync: SyncMode,
}

/// Writes what is still to be written.
type Close = Box<dyn FnOnce() -> Result<(), DiskError> + Send>;

/// A running state server.
pub struct StateServer {
    /// Where it listens.
    pub address: SocketAddr,
    read_stats: ReadStats,
    workers: Running,
    watch: StoreWatch,
    admin: Option<AdminServer>,
    certificates: Arc<TlsWatch>,
    close: Close,
}

impl StateServer {
    /// What its store counts.
    pub fn stats(&self) -> StoreStats {
        (self.read_stats)()
    }

    /// What users see errors of.
    pub fn trouble(&self) -> Option<String> {
        self.watch.eye().trouble()
    }

    /// Has the files of its certificate read again.
    pub fn look_at_certificate(&self) {
        self.certificates.hurry();
    }

    /// Where it says how it is, if it does.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.address)
    }

    /// Lets requests in flight finish, ends the rest, and waits until the disk has everything.
    ///
    /// # Errors
    /// What keeps the disk from having it.
    pub fn stop(self) -> Result<(), DiskError> {
        self.workers.stop();
        if let Some(admin) = self.admin {
            admin.stop();
        }
        self.watch.stop();
        (self.close)()
    }
}

impl fmt::Debug for StateServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl StateServerOptions {
    /// The defaults for a server on `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            allow: AllowList::default(),
            workers: 0,
            max_memory_bytes: None,
            max_body_bytes: HeadLimits::default().max_body_bytes,
            max_connections: 10_000,
            tls: None,
            data: None,
            admin: None,
            admin_tls: false,
            admin_hosts: Vec::new(),
        }
    }
}

/// Starts a state server: with no sessions, or with those in its folder, once they are loaded. It
/// holds no more connections than the limit on open files allows.
///
/// # Errors
/// [`StartError`].
pub fn start(options: &StateServerOptions) -> Result<StateServer, StartError> {
    let mut memory = StoreOptions::new(random_key()?);
    memory.max_memory_bytes = options.max_memory_bytes;
    let clock = Arc::new(ServerClock::default());
    let Some(data) = &options.data else {
        let store = Arc::new(MemoryStore::new(&memory));
        return serve(options, store, clock, None, Box::new(|| Ok(())));
    };
    let folder = Folder::take(&data.folder)?;
    let disk = DiskOptions::new(memory, data.sync);
    let store = Arc::new(DiskStore::open(folder, &disk, clock.now())?);
    let stats = store.stats();
    tracing::info!(
        folder = %data.folder.display(),
        sessions = stats.items,
        bytes = stats.bytes,
        "sessions are loaded"
    );
    let on_disk = KeptOnDisk {
        store: Arc::clone(&store),
        folder: data.folder.display().to_string(),
    };
    let close = Arc::clone(&store);
    let close = Box::new(move || close.close());
    serve(options, store, clock, Some(on_disk), close)
}

fn serve<S: CountedStore + Send + Sync>(
    options: &StateServerOptions,
    store: Arc<S>,
    clock: Arc<ServerClock>,
    disk: Option<KeptOnDisk>,
    close: Close,
) -> Result<StateServer, StartError> {
    let load = |files| ServerTls::load("--listen", files);
    let tls = options.tls.clone().map(load).transpose()?;
    let certificates = TlsWatch::start(tls.clone(), None).map_err(StartError::Thread)?;
    let certificates = Arc::new(certificates);
    let workers = worker_count(options.workers);
    let listeners = Listeners::bind(options.listen, workers)?;
    let admin = options.admin.map(|address| Listeners::bind(address, 1));
    let admin = admin.transpose()?;
    let admin_options = AdminOptions::default();
    let connections = system::connections_that_fit(&Descriptors {
        connections: options.max_connections,
        per_connection: 1,
        idle: 0,
        workers,
        own: admin.as_ref().map_or(0, |_| admin_options.max_connections),
    });
    let state = StateOptions {
        store: Arc::clone(&store),
        body_budget: BodyBudget::new(arriving_bodies_bytes(options)),
        clock,
        allow: options.allow.clone(),
        head_limits: HeadLimits {
            max_body_bytes: options.max_body_bytes,
            ..HeadLimits::default()
        },
        idle: IDLE,
        stall: STALL,
    };
    let serve = ServeOptions {
        thread_name: "state",
        buffer_bytes: BUFFER_BYTES,
        cap: ConnectionCap::new(connections),
        accept_wait: ACCEPT_WAIT,
        shutdown: SHUTDOWN,
        tls: tls.clone(),
    };
    let workers = spawn_workers(listeners, &serve, move |worker| {
        StateService::new(worker, state.clone())
    })
    .map_err(StartError::Thread)?;
    let read_stats: ReadStats = Arc::new(move || store.stats());
    let watch = StoreWatch::start(StoreFacts {
        stats: Arc::clone(&read_stats),
        disk,
        max_memory_bytes: options.max_memory_bytes,
        certificates: Arc::clone(&certificates),
    });
    let watch = watch.map_err(StartError::Thread)?;
    let start_admin = |listeners| {
        let mut hosts = options.admin_hosts.clone();
        hosts.push(own_host_name());
        let site = StoreSite::new(watch.eye(), hosts);
        let tls = tls.filter(|_| options.admin_tls);
        AdminServer::start_for_store(listeners, site, admin_options, tls)
    };
    let admin = admin.map(start_admin).transpose();
    Ok(StateServer {
        address: workers.address,
        admin: admin.map_err(StartError::Thread)?,
        read_stats,
        workers,
        watch,
        certificates,
        close,
    })
}

/// At least one longest body fits, or it could never be stored.
fn arriving_bodies_bytes(options: &StateServerOptions) -> u64 {
    let part_of = |max_bytes| max_bytes / ARRIVING_BODIES_PART;
    let wanted = options
        .max_memory_bytes
        .map_or(ARRIVING_BODIES_BYTES, part_of);
    wanted.max(options.max_body_bytes)
}

/// A hash key nobody outside this process knows: clients choose the keys of items.
fn random_key() -> Result<[u8; 16], StartError> {
    let mut key = [0; 16];
    os::random(&mut key).map_err(StartError::Random)?;
    Ok(key)
}
