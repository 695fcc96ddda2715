//! Three state servers and the proxy in one process, on loopback, with nothing to configure.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::StartError;
use super::proxy_server::{self, ProxyServer};
use super::state_server::{self, StateServer, StateServerOptions};
use crate::config::{BackendAddress, BackendSpec, BackendState, Config, PartitionMap};
use crate::control::ControlOptions;
use crate::net::ListenError;
use crate::os;
use crate::route::HashKey;
use crate::usage::Capacity;

/// Names of the state servers.
const NAMES: [&str; 3] = ["state-a", "state-b", "state-c"];

/// Most client connections of the proxy. All servers share the process's limit on open files, so
/// the defaults would be too much for many systems.
const CLIENT_CONNECTIONS: usize = 1000;

/// Most connections of each state server: those in use and as many idle ones.
const BACKEND_CONNECTIONS: usize = 2 * CLIENT_CONNECTIONS;

/// A port on loopback that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The running demo.
#[derive(Debug)]
pub struct Demo {
    /// The proxy.
    pub proxy: ProxyServer,
    /// The state servers.
    pub servers: Vec<DemoServer>,
    /// Goes last: the proxy writes there.
    directory: TemporaryDirectory,
}

impl Demo {
    /// Stops everything in good order, and leaves nothing behind.
    pub fn stop(self) {
        self.proxy.stop();
        for server in self.servers {
            // Its sessions are in memory: there is nothing to write.
            let _ = server.running.stop();
        }
        drop(self.directory);
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

/// One state server of the demo.
#[derive(Debug)]
pub struct DemoServer {
    /// Its name in the partition map.
    pub name: &'static str,
    /// The server.
    pub running: StateServer,
}

/// Starts the state servers, then the proxy on `listen`, or on any port if that one is taken.
///
/// # Errors
/// [`StartError`].
pub fn start(listen: SocketAddr) -> Result<Demo, StartError> {
    let start_server = |name| {
        let options = StateServerOptions {
            workers: 1,
            max_connections: BACKEND_CONNECTIONS,
            ..StateServerOptions::new(ANY_PORT)
        };
        let running = state_server::start(&options)?;
        Ok(DemoServer { name, running })
    };
    let servers = NAMES
        .into_iter()
        .map(start_server)
        .collect::<Result<Vec<_>, StartError>>()?;
    let map = partition_map(&servers);
    let directory = TemporaryDirectory::create()?;
    let mut config = Config::new(PathBuf::new());
    config.listen = listen;
    config.admin.listen = Some(ANY_PORT);
    config.handover.state_file = directory.0.join("state");
    config.limits.client_connections = CLIENT_CONNECTIONS;
    let start = |config| {
        proxy_server::start(ControlOptions {
            config,
            map: map.clone(),
            main_file: None,
            level: None,
            certificates: Default::default(),
        })
    };
    let proxy = match start(config.clone()) {
        Err(StartError::Listen(ListenError::Taken { .. })) => {
            config.listen = ANY_PORT;
            start(config)?
        }
        started => started?,
    };
    Ok(Demo {
        proxy,
        servers,
        directory,
    })
}

fn partition_map(servers: &[DemoServer]) -> PartitionMap {
    let backend = |(id, server): (u8, &DemoServer)| BackendSpec {
        name: server.name.to_owned(),
        id,
        id_is_derived: false,
        address: BackendAddress::from(server.running.address),
        weight: 100,
        state: BackendState::Active,
        capacity: Capacity::default(),
    };
    PartitionMap {
        version: 1,
        hash_key: HashKey::DEFAULT,
        accept_moved_percent: None,
        backends: (1..).zip(servers).map(backend).collect(),
    }
}
