//! State servers and the proxy in one process, on loopback, with nothing to configure.
//!
//! Its files lie in a temporary folder and are changed there as an operator would: the proxy reads them
//! again by itself.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::proxy_server::{self, ProxyServer};
use super::state_server::{self, DataOptions, StateServer, StateServerOptions};
use super::{StartError, engines};
use crate::config::{self, LoadedConfig};
use crate::control::ControlOptions;
use crate::disk::{DiskError, SyncMode};
use crate::net::ListenError;
use crate::os;
use crate::store::StoreStats;
use crate::tls::TlsWatch;

/// Names of the state servers to begin with.
const NAMES: [&str; 3] = ["state-a", "state-b", "state-c"];

/// Most client connections of the proxy. All servers share the process's limit on open files, so
/// the defaults would be too much for many systems.
const CLIENT_CONNECTIONS: usize = 1000;

/// Most connections of each state server: those in use and as many idle ones.
const BACKEND_CONNECTIONS: usize = 2 * CLIENT_CONNECTIONS;

/// A port on loopback that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where the admin server is, unless that port is taken.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 42480);

/// How long a session of the demo lives unless it is used, in minutes: the shortest there is.
pub const SESSION_MINUTES: u32 = 1;

/// Times with which a handover takes little more than a minute. That is longer than a session lives:
/// none is left behind.
const SHORT_TIMES: &str = "\
timeouts: {connect: 500ms, answer: 4500ms}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 5s, session_timeout: 1m, max_session_timeout: 1m, takeover: 5s, failover_after: 20s}
";

/// How fast things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As in a farm: nothing is changed anyway.
    Steady,
    /// A handover takes little more than a minute.
    Story,
}

/// The running demo.
#[derive(Debug)]
pub struct Demo {
    /// The proxy.
    pub proxy: ProxyServer,
    /// The state servers.
    pub servers: Vec<DemoServer>,
    map_version: u64,
    /// Goes last: the proxy writes there.
    directory: TemporaryDirectory,
}

/// One state server of the demo. It keeps its sessions in a folder, so that it has them after a
/// restart.
#[derive(Debug)]
pub struct DemoServer {
    /// Its name in the partition map.
    pub name: &'static str,
    id: u8,
    /// Where it listens, also while it is stopped.
    pub address: SocketAddr,
    is_draining: bool,
    folder: PathBuf,
    running: Option<StateServer>,
}

impl Demo {
    /// Starts one more state server, and adds it to the partition map.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn add(&mut self, name: &'static str) -> Result<(), StartError> {
        // None is used twice: servers are added at the end and never all removed.
        let id = self.servers.last().map_or(1, |last| last.id + 1);
        let server = DemoServer::start(name, id, &self.directory.0)?;
        self.servers.push(server);
        self.change_map()
    }

    /// Writes `state: drain` to the line of this state server.
    ///
    /// # Errors
    /// [`StartError::Directory`].
    pub fn drain(&mut self, name: &str) -> Result<(), StartError> {
        let servers = self.servers.iter_mut();
        for server in servers.filter(|server| server.name == name) {
            server.is_draining = true;
        }
        self.change_map()
    }

    /// Takes this state server out of the partition map, and stops it.
    ///
    /// # Errors
    /// [`StartError::Directory`].
    pub fn remove(&mut self, name: &str) -> Result<(), StartError> {
        let Some(index) = self.servers.iter().position(|server| server.name == name) else {
            return Ok(());
        };
        let mut removed = self.servers.remove(index);
        self.change_map()?;
        // It holds nothing any more.
        let _ = removed.stop();
        Ok(())
    }

    /// The state server of this name.
    pub fn server(&mut self, name: &str) -> Option<&mut DemoServer> {
        self.servers.iter_mut().find(|server| server.name == name)
    }

    /// The share of all sessions that this state server holds, from 0 to 1.
    pub fn share_of_sessions(&self, name: &str) -> f64 {
        let items = |server: &DemoServer| server.stats().map_or(0, |stats| stats.items);
        let all: u64 = self.servers.iter().map(items).sum();
        let here = self.servers.iter().find(|server| server.name == name);
        here.map_or(0, items) as f64 / all.max(1) as f64
    }

    /// How many slots are with this backend, and how many of all are not at rest.
    pub fn slots(&self, name: &str) -> (usize, usize) {
        let published = self.proxy.control.published();
        let status = &published.status;
        let backends = status.backends.iter();
        let here = backends
            .filter(|backend| backend.name == name)
            .map(|backend| backend.slots_first);
        let moving = status.under_way.iter().map(|progress| progress.slots);
        (here.sum(), moving.sum())
    }

    /// The version of the partition map that is in force, and of the one that was written last.
    pub fn map_versions(&self) -> (u64, u64) {
        let published = self.proxy.control.published();
        (published.status.map_version, self.map_version)
    }

    /// Stops everything in good order, and leaves nothing behind.
    pub fn stop(self) {
        self.proxy.stop();
        for mut server in self.servers {
            // What it could not write is thrown away in a moment anyway.
            let _ = server.stop();
        }
        drop(self.directory);
    }

    fn change_map(&mut self) -> Result<(), StartError> {
        self.map_version += 1;
        write_map(&self.directory.0, self.map_version, &self.servers)?;
        self.proxy.control.reload_soon();
        Ok(())
    }
}

impl DemoServer {
    fn start(name: &'static str, id: u8, directory: &Path) -> Result<Self, StartError> {
        let mut server = Self {
            name,
            id,
            address: ANY_PORT,
            is_draining: false,
            folder: directory.join(name),
            running: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Stops it, as a machine that is turned off.
    ///
    /// # Errors
    /// What keeps the disk from having all sessions.
    pub fn stop(&mut self) -> Result<(), DiskError> {
        self.running.take().map_or(Ok(()), StateServer::stop)
    }

    /// Starts it at its old address, with the sessions in its folder.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn restart(&mut self) -> Result<(), StartError> {
        let running = state_server::start(&StateServerOptions {
            workers: 1,
            max_connections: BACKEND_CONNECTIONS,
            data: Some(DataOptions {
                folder: self.folder.clone(),
                sync: SyncMode::Off,
            }),
            ..StateServerOptions::new(self.address)
        })?;
        self.address = running.address;
        self.running = Some(running);
        Ok(())
    }

    /// What its store counts; nothing while it is stopped.
    pub fn stats(&self) -> Option<StoreStats> {
        self.running.as_ref().map(StateServer::stats)
    }
}

/// A directory that is there as long as this.
#[derive(Debug)]
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn create() -> Result<Self, StartError> {
        let random = RandomState::new().hash_one(std::process::id());
        let path = std::env::temp_dir().join(format!("staterouter-demo-{random:016x}"));
        match os::make_private_directory(&path, false) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(StartError::Directory { path, source }),
        }
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // It lies where everything is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the state servers, then the proxy on `listen`, or on any port if that one is taken.
///
/// # Errors
/// [`StartError`].
pub fn start(listen: SocketAddr, pace: Pace) -> Result<Demo, StartError> {
    let directory = TemporaryDirectory::create()?;
    let servers = (1..)
        .zip(NAMES)
        .map(|(id, name)| DemoServer::start(name, id, &directory.0))
        .collect::<Result<Vec<_>, StartError>>()?;
    let map_version = 1;
    write_map(&directory.0, map_version, &servers)?;
    let (mut listen, mut admin) = (listen, ADMIN);
    let proxy = loop {
        match start_proxy(&directory.0, listen, admin, pace) {
            Err(StartError::Listen(ListenError::Taken { address })) if address == admin => {
                admin = ANY_PORT;
            }
            Err(StartError::Listen(ListenError::Taken { address })) if address != ANY_PORT => {
                listen = ANY_PORT;
            }
            started => break started?,
        }
    };
    Ok(Demo {
        proxy,
        servers,
        map_version,
        directory,
    })
}

fn start_proxy(
    directory: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
    pace: Pace,
) -> Result<ProxyServer, StartError> {
    let times = match pace {
        Pace::Steady => "",
        Pace::Story => SHORT_TIMES,
    };
    let text = format!(
        "listen: \"{listen}\"\npartition_map: map.yaml\nadmin: {{listen: \"{admin}\"}}\nlimits: \
         {{client_connections: {CLIENT_CONNECTIONS}}}\n{times}"
    );
    let main = directory.join("staterouter.yaml");
    fs::write(&main, text).map_err(|source| cannot_write(&main, source))?;
    let LoadedConfig {
        config,
        partition_map: map,
        ..
    } = config::load(&main)?;
    proxy_server::start(ControlOptions {
        config,
        map,
        main_file: Some(main),
        level: None,
        certificates: TlsWatch::default(),
        engines: engines::connector,
    })
}

fn write_map(directory: &Path, version: u64, servers: &[DemoServer]) -> Result<(), StartError> {
    let mut text = format!("version: {version}\naccept_moved_share: 100\nbackends:\n");
    for server in servers {
        let DemoServer {
            name, id, address, ..
        } = server;
        let state = match server.is_draining {
            true => "drain",
            false => "active",
        };
        text +=
            &format!("  - {{name: {name}, id: {id}, address: \"{address}\", state: {state}}}\n");
    }
    let (path, next) = (directory.join("map.yaml"), directory.join("map.next"));
    let written = fs::write(&next, text).and_then(|()| fs::rename(&next, &path));
    written.map_err(|source| cannot_write(&path, source))
}

fn cannot_write(path: &Path, source: io::Error) -> StartError {
    StartError::Directory {
        path: path.to_owned(),
        source,
    }
}
