//! The main file, `staterouter.yaml`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::address::BackendAddress;
use super::admin_section::{AdminDraft, read_admin};
use super::allow::{AllowList, NETWORK, is_everybody};
use super::fault::{FaultReport, Faults, Location};
use super::kinds::Integer;
use super::outline::Outline;
use super::raw;
use super::reader::{Field, MapReader, Read, read_map, read_nothing};
use super::sections::{self, HandoverDraft, Shown, require_order};
use super::settings::{
    AdminConfig, HandoverConfig, HealthConfig, Limits, LocksConfig, LogConfig, PEER_SILENCE,
    Timeouts,
};
use super::tls_section::{self, BackendTls, TlsTrust};
use crate::tls::ServerFiles;

/// Everything the main file says, complete with defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the web farm connects to.
    pub listen: SocketAddr,
    /// Who may connect.
    pub allow: AllowList,
    /// What clients are shown; `None` for connections without TLS.
    pub tls: Option<ServerFiles>,
    /// How backends are reached with TLS; `None` for without.
    pub backend_tls: Option<BackendTls>,
    /// Path of the partition map; a relative path of the file is already joined to the directory
    /// of the file.
    pub partition_map: PathBuf,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many things may be.
    pub limits: Limits,
    /// Where the proxy answers about itself.
    pub admin: AdminConfig,
    /// Admin addresses of the other proxies of the farm, each once.
    pub peers: Vec<BackendAddress>,
    /// How they are reached with TLS; `None` for without.
    pub peer_tls: Option<TlsTrust>,
    /// When a backend counts as down, and as up again.
    pub health: HealthConfig,
    /// How sessions move between backends.
    pub handover: HandoverConfig,
    /// What becomes of requests for a locked session.
    pub locks: LocksConfig,
    /// Whether sessions and their bytes are counted.
    pub accounting: bool,
    /// Whether bodies that are stored are looked into, for what fills the servers.
    pub contents: bool,
    /// Bytes from which on a session counts as a large one.
    pub large_session_bytes: u64,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Config {
    /// The defaults, with the one thing that has none.
    pub fn new(partition_map: impl Into<PathBuf>) -> Self {
        Config {
            listen: DEFAULT_LISTEN,
            allow: AllowList::default(),
            tls: None,
            backend_tls: None,
            partition_map: partition_map.into(),
            workers: 0,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            admin: AdminConfig::default(),
            peers: Vec::new(),
            peer_tls: None,
            health: HealthConfig::default(),
            handover: HandoverConfig::default(),
            locks: LocksConfig::default(),
            accounting: true,
            contents: true,
            large_session_bytes: 1 << 20,
            log: LogConfig::default(),
        }
    }

    /// Whether other machines reach the proxy.
    pub(crate) fn is_for_others(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }

    /// Reads the main file from memory. `file_name` is the name in messages, and its directory is
    /// what relative paths in the text are relative to.
    ///
    /// # Errors
    /// All faults of the text at once.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<Config, Faults> {
        let MainFile { config, report, .. } = MainFile::read(text.as_ref(), file_name);
        Ok(report.finish(config)?.0)
    }
}

/// Where certificates are named.
#[derive(Clone, Copy, Default)]
pub(crate) struct TlsPlaces {
    pub(crate) listen: Option<Location>,
    pub(crate) backends: Option<Location>,
    pub(crate) admin: Option<Location>,
    pub(crate) peers: Option<Location>,
}

/// The main file as far as it could be read.
pub(crate) struct MainFile<'t> {
    pub(crate) config: Option<Config>,
    /// The path of the partition map and its place, whatever else is wrong.
    pub(crate) partition_map: Option<(PathBuf, Location)>,
    /// The same for the file with the token of the admin server.
    pub(crate) token_file: Option<(PathBuf, Location)>,
    pub(crate) tls_places: TlsPlaces,
    pub(crate) report: FaultReport<'t>,
}

impl<'t> MainFile<'t> {
    pub(crate) fn read(bytes: &'t [u8], file_name: &str) -> Self {
        let (root, mut report) = raw::parse(bytes, file_name);
        let draft = root.map(|root| {
            let what = "the main file";
            read_map(&root, what, &mut report.sink, read_config).0
        });
        let Some(mut draft) = draft else {
            return MainFile {
                config: None,
                partition_map: None,
                token_file: None,
                tls_places: TlsPlaces::default(),
                report,
            };
        };
        let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let Config {
            partition_map,
            admin,
            handover,
            tls,
            backend_tls,
            peer_tls,
            ..
        } = &mut draft.config;
        let servers = tls.iter_mut().chain(&mut admin.tls);
        servers.for_each(|files| tls_section::join(files, directory));
        let backends = backend_tls.iter_mut().map(|tls| &mut tls.trust);
        let clients = backends.chain(peer_tls);
        clients.for_each(|trust| trust.join(directory));
        *partition_map = directory.join(&partition_map);
        handover.state_file = directory.join(&handover.state_file);
        admin.token_file = admin.token_file.as_ref().map(|path| directory.join(path));
        let token_file = admin.token_file.clone().zip(draft.token_file_place);
        let path = draft.config.partition_map.clone();
        let partition_map = draft.partition_map.found().map(|(_, place)| (path, place));
        let config = partition_map.is_some().then_some(draft.config);
        MainFile {
            config,
            partition_map,
            token_file,
            tls_places: draft.tls_places,
            report,
        }
    }
}

/// The keys of the main file.
pub(crate) fn outline() -> Outline {
    read_nothing(read_config).1
}

/// The config as far as it is sound, and the required key, which may be missing from it.
struct Draft {
    config: Config,
    partition_map: Read<PathBuf>,
    token_file_place: Option<Location>,
    tls_places: TlsPlaces,
}

const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 42424);

/// Most entries of `allow`: each new connection is compared with all of them.
const MAX_NETWORKS: usize = 1024;

/// Most entries of `peers`: each of them is asked once a second, and asks as often.
const MAX_PEERS: usize = 32;

fn read_config(map: &mut MapReader<'_, '_>) -> Draft {
    let partition_map = map.required(
        "partition_map",
        "The file that lists the backends. A relative path is relative to the directory of this \
         file. It is read again when it changes; another path takes a restart.",
        &sections::FILE_PATH,
    );
    let mut config = Config::new(partition_map.clone().value().unwrap_or_default());
    let listen = map.optional(
        "listen",
        "IP address and port where the web farm connects to (stateConnectionString). Beyond \
         loopback it needs `allow`.",
        &sections::LISTEN,
        config.listen,
    );
    let allow = map.list(
        "allow",
        "IP addresses and networks of the web servers. Loopback is always allowed; when the list \
         is empty, nobody else is.",
        &NETWORK,
        MAX_NETWORKS,
    );
    require_allow(map, &listen, &allow);
    warn_of_everybody(map, &allow);
    config.listen = listen.value;
    config.allow = AllowList::new(allow.value);
    let mut tls_places = read_tls(map, &mut config);
    let workers = map.optional(
        "workers",
        "Worker threads; 0 is one per core.",
        &Integer(0..=256),
        config.workers as u64,
    );
    config.workers = sections::to_usize(workers.value);
    let token_file_place = read_sections(map, &mut config, &listen, &mut tls_places);
    Draft {
        config,
        partition_map,
        token_file_place,
        tls_places,
    }
}

/// How the web farm, backends and peers are talked to with TLS.
fn read_tls(map: &mut MapReader<'_, '_>, config: &mut Config) -> TlsPlaces {
    let place = |map: &MapReader<'_, '_>, name| map.name_place(name);
    let places = TlsPlaces {
        listen: place(map, "tls"),
        backends: place(map, "backend_tls"),
        peers: place(map, "peer_tls"),
        admin: None,
    };
    let doc = "The certificate of `listen`: with it only connections with TLS are served.";
    let client_ca = "The file with the authorities of clients: then only clients with a certificate \
                     from one of them are served. `allow` counts as well.";
    let read =
        |map: &mut MapReader<'_, '_>| tls_section::read_server(map, places.listen, client_ca);
    config.tls = map.section("tls", doc, read);
    let doc = "How state servers of this program are reached with TLS: all of them but those in \
               `plain`. Without it none is.";
    let read = |map: &mut MapReader<'_, '_>| tls_section::read_backends(map, places.backends);
    config.backend_tls = map.section("backend_tls", doc, read);
    let doc = "How the other proxies' admin servers are reached with TLS: all in `peers`. Without it \
               none is.";
    let read = |map: &mut MapReader<'_, '_>| {
        tls_section::read_client(map, places.peers, "peer_tls", &sections::FILE_PATH)
    };
    config.peer_tls = map.section("peer_tls", doc, read);
    places
}

/// Reads everything that stands in a section; returns the place of `admin.token_file`.
fn read_sections(
    map: &mut MapReader<'_, '_>,
    config: &mut Config,
    listen: &Field<SocketAddr>,
    tls_places: &mut TlsPlaces,
) -> Option<Location> {
    let doc = "How long things may take.";
    let (timeouts, operation) = map.section("timeouts", doc, sections::read_timeouts);
    config.timeouts = timeouts;
    let doc = "How large and how many things may be.";
    config.limits = map.section("limits", doc, sections::read_limits);
    let doc = "Where the proxy answers about itself.";
    let AdminDraft {
        listen: admin,
        tls,
        tls_place,
        token_file,
        hosts,
    } = map.section("admin", doc, read_admin);
    config.admin.listen = admin.value;
    config.admin.tls = tls;
    tls_places.admin = tls_place;
    config.admin.token_file = token_file.value;
    config.admin.hosts = hosts;
    let peers = map.list(
        "peers",
        "Admin addresses of the other proxies of the farm. They agree before other backends \
         stand in for one that is down.",
        &sections::PEER,
        MAX_PEERS,
    );
    require_askable(map, listen, &admin, &peers);
    config.peers.clone_from(&peers.value);
    if let (Some(place), None, false) = (tls_place, &config.peer_tls, peers.value.is_empty()) {
        map.warn(
            place,
            "the admin server speaks TLS, and without `peer_tls` the peers are asked in the clear",
            "add `peer_tls:` with its `ca:`, unless the peers speak no TLS",
        );
    }
    let doc = "When a backend counts as down, and as up again.";
    config.health = map.section("health", doc, sections::read_health);
    let doc = "How sessions move between backends, planned or because one failed.";
    let handover = map.section("handover", doc, sections::read_handover);
    require_time_for_an_operation(map, &operation, &peers, &handover);
    warn_of_short_answer(map, &operation, config.timeouts.answer, &handover.hold);
    config.handover = handover.handover;
    let doc = "What becomes of requests for a locked session.";
    config.locks = map.section("locks", doc, sections::read_locks);
    let accounting = map.optional(
        "accounting",
        "Whether the sessions at each backend and their bytes are counted.",
        &sections::SWITCH,
        config.accounting,
    );
    config.accounting = accounting.value;
    let contents = map.optional(
        "contents",
        "Whether samples of the bodies that are stored are looked into, for which items fill the servers.",
        &sections::SWITCH,
        config.contents,
    );
    config.contents = contents.value;
    let large_session = map.optional(
        "large_session",
        "From this size on a session is a large one, which is a finding.",
        &sections::LARGE_SESSION,
        config.large_session_bytes,
    );
    config.large_session_bytes = large_session.value;
    let doc = "What is logged, and how.";
    config.log = map.section("log", doc, sections::read_log);
    token_file.place
}

fn require_allow<T>(
    map: &mut MapReader<'_, '_>,
    listen: &Field<SocketAddr>,
    allow: &Field<Vec<T>>,
) {
    let is_open = !listen.value.ip().to_canonical().is_loopback();
    if let Some(place) = listen.place
        && is_open
        && allow.sound
        && allow.value.is_empty()
    {
        map.fault(
            place,
            format!(
                "`listen` is {}, which other machines can reach, but `allow` is empty",
                listen.value
            ),
            "list the web servers under `allow`: whoever can store a session here can run code on \
             the web servers, because they deserialise what is stored. Or listen on 127.0.0.1",
        );
    }
}

/// A list that lets every machine in is none.
fn warn_of_everybody(map: &mut MapReader<'_, '_>, allow: &Field<Vec<IpNet>>) {
    let Some(place) = allow.place else {
        return;
    };
    for network in allow.value.iter().filter(|network| is_everybody(network)) {
        map.warn(
            place,
            format!("`allow` lists {network}, which lets every machine in"),
            "list the web servers: whoever can store a session can run code on them",
        );
    }
}

/// The admin address is free and, where there are peers, exists; no peer is there twice.
fn require_askable(
    map: &mut MapReader<'_, '_>,
    listen: &Field<SocketAddr>,
    admin: &Field<Option<SocketAddr>>,
    peers: &Field<Vec<BackendAddress>>,
) {
    // Port 0 stands for a free one, a different one each time.
    let is_taken = admin.value == Some(listen.value) && listen.value.port() != 0;
    if let Some(place) = admin.place.or(listen.place)
        && is_taken
    {
        let problem = format!("`listen` and `admin.listen` are both {}", listen.value);
        map.fault(place, problem, "give the admin server a port of its own");
    }
    let Some(place) = peers.place else {
        return;
    };
    if admin.sound && admin.value.is_none() && !peers.value.is_empty() {
        map.fault(
            place,
            "`peers` are listed, but `admin.listen` is off: they could not ask this proxy",
            "give `admin.listen` an address that they can reach",
        );
    }
    warn_of_deaf_admin(map, admin, peers);
    let mut seen = HashSet::new();
    for peer in peers.value.iter().filter(|peer| !seen.insert(*peer)) {
        let problem = format!("`peers` lists `{peer}` twice");
        map.fault(place, problem, "write each of the other proxies once");
    }
}

/// Peers on other machines cannot ask an admin server that listens on loopback.
fn warn_of_deaf_admin(
    map: &mut MapReader<'_, '_>,
    admin: &Field<Option<SocketAddr>>,
    peers: &Field<Vec<BackendAddress>>,
) {
    let Some(listen) = admin
        .value
        .filter(|listen| listen.ip().to_canonical().is_loopback())
    else {
        return;
    };
    let elsewhere = peers.value.iter().find(|peer| !peer.is_on_this_machine());
    if let (Some(place), Some(peer)) = (admin.place.or(peers.place), elsewhere) {
        map.warn(
            place,
            format!(
                "`admin.listen` is {listen}, which only this machine reaches, but the peer {peer} \
                 asks it: the peer takes this proxy for dead, and no backend is replaced"
            ),
            "give `admin.listen` an address that the peers reach",
        );
    }
}

/// Who waits for a backend waits within the time for its answer.
fn warn_of_short_answer(
    map: &mut MapReader<'_, '_>,
    operation: &Field<Duration>,
    answer: Duration,
    hold: &Field<Duration>,
) {
    let is_short = operation.sound && hold.sound && answer < hold.value;
    if let (Some(place), true) = (hold.place.or(operation.place), is_short) {
        map.warn(
            place,
            format!(
                "`timeouts.answer` is {}, less than `handover.hold`, {}: when a backend fails, pages \
                 fail sooner than they would have to",
                answer.shown(),
                hold.value.shown()
            ),
            "make `timeouts.answer` at least as long, or `handover.hold` as short",
        );
    }
}

/// Proxies may differ for as long as an operation that one of them has begun goes on; those that
/// ask each other also for as long as they go by an old answer.
fn require_time_for_an_operation(
    map: &mut MapReader<'_, '_>,
    operation: &Field<Duration>,
    peers: &Field<Vec<BackendAddress>>,
    handover: &HandoverDraft,
) {
    let settle = &handover.settle;
    let name = "`timeouts.connect` plus `timeouts.answer`";
    let longest_lag = Field {
        value: operation.value + PEER_SILENCE,
        ..*operation
    };
    let (lesser, why) = if peers.value.is_empty() {
        ((name, operation), "")
    } else {
        let name = "`timeouts.connect` plus `timeouts.answer` plus 3s for `peers`";
        (
            (name, &longest_lag),
            ", and 3s longer: what a peer said last counts for so long",
        )
    };
    let help = format!("make `handover.settle` at least as long as the two together{why}");
    require_order(map, lesser, ("`handover.settle`", settle), &help);
}
