//! What the sections of the main file hold, and their defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::token::AdminToken;
use crate::health::Thresholds;
use crate::tls::ServerFiles;

/// A peer that has said nothing for this long does not count as heard any more. Until then it may
/// have gone on unnoticed.
pub const PEER_SILENCE: Duration = Duration::from_secs(3);

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

/// Where the proxy answers about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address of the admin server; `None` for no admin server.
    pub listen: Option<SocketAddr>,
    /// What clients are shown; `None` for connections without TLS.
    pub tls: Option<ServerFiles>,
    /// Path of the file with the token that whoever changes something has to show; a relative path
    /// of the main file is already joined to the directory of that file.
    pub token_file: Option<PathBuf>,
    /// What stands there; `None` for a config that was not read by [`load`](super::load), too.
    pub token: Option<AdminToken>,
    /// Host names that the admin server is known under beside IP addresses, `localhost` and the
    /// machine's own name; in lower case.
    pub hosts: Vec<String>,
}

/// When a backend counts as down, and as up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthConfig {
    /// Between two probes of a backend.
    pub interval: Duration,
    /// One probe, connecting included.
    pub timeout: Duration,
    /// Failures in a row that make a backend count as down; at least 1.
    pub fall: u32,
    /// Good probes in a row that make it count as up again; at least 1.
    pub rise: u32,
    /// Each fall within this time after a rise doubles `rise`.
    pub flap_window: Duration,
    /// What `rise` grows to at most; not less than `rise`.
    pub max_rise: u32,
}

/// How sessions move between backends, planned or because one failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverConfig {
    /// Longest time in which proxies differ about the stage of a slot; at least as long as
    /// connecting and answering together, and with peers longer by [`PEER_SILENCE`].
    pub settle: Duration,
    /// Shortest time that the sessions of a slot are given to move or end; at most
    /// `max_session_timeout`.
    pub session_timeout: Duration,
    /// Sessions with a longer timeout do not make a handover longer.
    pub max_session_timeout: Duration,
    /// Age at which the web farm breaks a lock.
    pub takeover: Duration,
    /// Whether other backends stand in for one that is down.
    pub failover: bool,
    /// How long a backend must be down before others stand in for it.
    pub failover_after: Duration,
    /// How long a request waits for a backend that is down before it is refused.
    pub hold: Duration,
    /// Share of the slots that one change of the partition map may move, 1 to 100.
    pub max_moved_percent: u8,
    /// Path of the state file; a relative path of the main file is already joined to the
    /// directory of that file.
    pub state_file: PathBuf,
}

/// What becomes of requests for a locked session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocksConfig {
    /// How long one waits for the lock before it is told that the session is locked; zero: not at
    /// all.
    pub wait: Duration,
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
            backend_idle: Duration::from_secs(5),
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
            idle_backend_connections: 1024,
        }
    }
}

impl Default for LocksConfig {
    fn default() -> Self {
        LocksConfig {
            wait: Duration::from_millis(250),
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

impl Default for AdminConfig {
    fn default() -> Self {
        const PORT: u16 = 42480;
        AdminConfig {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
            tls: None,
            token_file: None,
            token: None,
            hosts: Vec::new(),
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            flap_window: Duration::from_secs(10 * 60),
            max_rise: 16,
        }
    }
}

impl Default for HandoverConfig {
    fn default() -> Self {
        HandoverConfig {
            settle: Duration::from_secs(30),
            session_timeout: Duration::from_secs(20 * 60),
            max_session_timeout: Duration::from_secs(24 * 60 * 60),
            takeover: Duration::from_secs(110),
            failover: true,
            failover_after: Duration::from_secs(2),
            hold: Duration::from_secs(6),
            max_moved_percent: 60,
            state_file: PathBuf::from("staterouter.state"),
        }
    }
}

impl HealthConfig {
    /// The part of it that decides about verdicts.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            fall: self.fall,
            rise: self.rise,
            flap_window_ms: u64::try_from(self.flap_window.as_millis()).unwrap_or(u64::MAX),
            max_rise: self.max_rise,
        }
    }
}
