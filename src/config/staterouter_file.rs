//! The main file, `staterouter.yaml`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::allow::{AllowList, NETWORK};
use super::fault::{Faults, Place, Report};
use super::kinds::{Choice, Durations, Integer, Mistake, Sizes, Text};
use super::outline::Outline;
use super::printable::quoted;
use super::raw;
use super::reader::{Field, MapReader, Read, read_map, read_nothing};
use super::units;

/// Everything the main file says, complete with defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the web farm connects to.
    pub listen: SocketAddr,
    /// Who may connect.
    pub allow: AllowList,
    /// Path of the partition map; a relative path of the file is already joined to the directory
    /// of the file.
    pub partition_map: PathBuf,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many things may be.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// How long things may take. All lie from 100 ms to 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting to a backend; at most `answer`.
    pub connect: Duration,
    /// The whole answer of a backend, connecting included.
    pub answer: Duration,
    /// A client connection without a request.
    pub client_idle: Duration,
    /// A half-sent request or a half-read answer without progress.
    pub client_stall: Duration,
    /// A pooled backend connection without a request.
    pub backend_idle: Duration,
    /// A new client connection waiting for a place when the cap is reached.
    pub accept_wait: Duration,
    /// Requests in flight when the proxy stops.
    pub shutdown: Duration,
}

/// How large and how many things may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Head of a request or an answer, in bytes.
    pub head_bytes: usize,
    /// Body of a request or an answer, in bytes; fits an `i32`.
    pub body_bytes: u64,
    /// Client connections at a time.
    pub client_connections: usize,
    /// Idle connections kept per backend and worker.
    pub idle_backend_connections: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important messages that are logged.
    pub level: LogLevel,
    /// The form of a log line.
    pub format: LogFormat,
}

/// Importance of a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What keeps the program from its work as a whole.
    Error,
    /// What failed or was refused: requests, connections, settings.
    Warn,
    /// Start and end of the program.
    Info,
    /// Details for finding a fault.
    Debug,
    /// Everything there is.
    Trace,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(8),
            client_idle: Duration::from_secs(60),
            client_stall: Duration::from_secs(10),
            backend_idle: Duration::from_secs(15),
            accept_wait: Duration::from_secs(1),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 16 << 10,
            body_bytes: 64 << 20,
            client_connections: 10_000,
            idle_backend_connections: 256,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            level: LogLevel::Info,
            format: LogFormat::Text,
        }
    }
}

impl Config {
    /// The defaults, with the one thing that has none.
    pub fn new(partition_map: impl Into<PathBuf>) -> Self {
        Config {
            listen: DEFAULT_LISTEN,
            allow: AllowList::default(),
            partition_map: partition_map.into(),
            workers: 0,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            log: LogConfig::default(),
        }
    }

    /// Reads the main file from memory. `file_name` is the name in messages, and its directory is
    /// what a relative `partition_map` is relative to.
    ///
    /// # Errors
    /// All faults of the text at once.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<Config, Faults> {
        let MainFile { config, report, .. } = MainFile::read(text.as_ref(), file_name);
        report.finish(config)
    }
}

/// The main file as far as it could be read.
pub(crate) struct MainFile<'t> {
    pub(crate) config: Option<Config>,
    /// The path of the partition map and its place, whatever else is wrong.
    pub(crate) partition_map: Option<(PathBuf, Place)>,
    pub(crate) report: Report<'t>,
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
                report,
            };
        };
        let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
        draft.config.partition_map = directory.join(&draft.config.partition_map);
        let path = draft.config.partition_map.clone();
        let partition_map = draft.partition_map.found().map(|(_, place)| (path, place));
        let config = partition_map.is_some().then_some(draft.config);
        MainFile {
            config,
            partition_map,
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
}

const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 42424);

/// Most entries of `allow`: each new connection is compared with all of them.
const MAX_NETWORKS: usize = 1024;

fn read_config(map: &mut MapReader<'_, '_>) -> Draft {
    let partition_map = map.required(
        "partition_map",
        "The file that lists the backends. A relative path is relative to the directory of this \
         file. It is read once, at the start.",
        &FILE_PATH,
    );
    let mut config = Config::new(partition_map.clone().value().unwrap_or_default());
    let listen = map.optional(
        "listen",
        "IP address and port where the web farm connects to (stateConnectionString). Beyond \
         loopback it needs `allow`.",
        &LISTEN,
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
    config.listen = listen.value;
    config.allow = AllowList::new(allow.value);
    let workers = map.optional(
        "workers",
        "Worker threads; 0 is one per core.",
        &Integer(0..=256),
        config.workers as u64,
    );
    config.workers = to_usize(workers.value);
    config.timeouts = map.section("timeouts", "How long things may take.", read_timeouts);
    config.limits = map.section(
        "limits",
        "How large and how many things may be.",
        read_limits,
    );
    config.log = map.section("log", "What is logged, and how.", read_log);
    Draft {
        config,
        partition_map,
    }
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

fn read_timeouts(map: &mut MapReader<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let range = Durations(100..=3_600_000);
    let connect = map.optional(
        "connect",
        "Connecting to a backend. Not longer than `answer`.",
        &range,
        default.connect,
    );
    let answer = map.optional(
        "answer",
        "The whole answer of a backend, connecting included. Keep it below the 10 s after which \
         ASP.NET gives up (stateNetworkTimeout).",
        &range,
        default.answer,
    );
    require_order(map, &connect, &answer);
    let mut duration = |name, doc, default| map.optional(name, doc, &range, default).value;
    Timeouts {
        connect: connect.value,
        answer: answer.value,
        client_idle: duration(
            "client_idle",
            "A client connection without a request is closed after this.",
            default.client_idle,
        ),
        client_stall: duration(
            "client_stall",
            "A half-sent request or a half-read answer that makes no progress for this long ends \
             the connection.",
            default.client_stall,
        ),
        backend_idle: duration(
            "backend_idle",
            "A pooled backend connection without a request is closed after this. Must lie below \
             the idle limit of the state servers, or requests meet closed connections.",
            default.backend_idle,
        ),
        accept_wait: duration(
            "accept_wait",
            "How long a new client connection waits for a place when `client_connections` is \
             reached, before it is refused.",
            default.accept_wait,
        ),
        shutdown: duration(
            "shutdown",
            "How long requests in flight may go on when the proxy stops.",
            default.shutdown,
        ),
    }
}

/// `connect` within `answer`. Blames the one that is in the file.
fn require_order(map: &mut MapReader<'_, '_>, connect: &Field<Duration>, answer: &Field<Duration>) {
    if !connect.sound || !answer.sound || connect.value <= answer.value {
        return;
    }
    let Some(place) = connect.place.or(answer.place) else {
        return;
    };
    let [connect, answer] = [connect, answer].map(|field| {
        let millis = u64::try_from(field.value.as_millis()).unwrap_or(u64::MAX);
        let origin = if field.place.is_some() {
            ""
        } else {
            ", the default"
        };
        format!("{}{origin}", units::format(millis, units::TIME))
    });
    map.fault(
        place,
        format!("`connect` ({connect}) is longer than `answer` ({answer})"),
        "`answer` includes connecting: make `connect` shorter or `answer` longer",
    );
}

fn read_limits(map: &mut MapReader<'_, '_>) -> Limits {
    let default = Limits::default();
    let head = map.optional(
        "head",
        "Head of a request or an answer.",
        &Sizes(1 << 10..=64 << 10),
        default.head_bytes as u64,
    );
    let body = map.optional(
        "body",
        "Body of a request or an answer, that is the largest session.",
        &Sizes(1 << 10..=2047 << 20),
        default.body_bytes,
    );
    let client_connections = map.optional(
        "client_connections",
        "Client connections at a time. Each needs a file descriptor.",
        &Integer(1..=1_000_000),
        default.client_connections as u64,
    );
    let idle_backend_connections = map.optional(
        "idle_backend_connections",
        "Idle connections kept for reuse, per backend and worker.",
        &Integer(1..=65_536),
        default.idle_backend_connections as u64,
    );
    Limits {
        head_bytes: to_usize(head.value),
        body_bytes: body.value,
        client_connections: to_usize(client_connections.value),
        idle_backend_connections: to_usize(idle_backend_connections.value),
    }
}

fn read_log(map: &mut MapReader<'_, '_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: map
            .optional(
                "level",
                "The least important messages that are logged.",
                &LEVELS,
                default.level,
            )
            .value,
        format: map
            .optional(
                "format",
                "The form of a log line.",
                &FORMATS,
                default.format,
            )
            .value,
    }
}

const LEVELS: Choice<LogLevel> = Choice(&[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
]);

const FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

const LISTEN: Text<SocketAddr> = Text {
    wanted: "an IP address and a port, such as `127.0.0.1:42424` or `\"[::1]:42424\"`",
    pattern: Some(r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]+$"),
    parse: |text| {
        text.parse()
            .map_err(|_| Mistake::new(format!("{} is not an IP address and a port", quoted(text))))
    },
    write: SocketAddr::to_string,
    secret: false,
};

const FILE_PATH: Text<PathBuf> = Text {
    wanted: "the path of a file",
    pattern: None,
    parse: |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(Mistake::new(format!(
                "{} is not the path of a file",
                quoted(text)
            )));
        }
        Ok(PathBuf::from(text))
    },
    write: |path| path.display().to_string(),
    secret: false,
};

/// A number from the file whose range lies far below `usize::MAX` on every platform.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
