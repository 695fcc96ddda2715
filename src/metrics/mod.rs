//! Counts of what the proxy does, and their text for Prometheus.
//!
//! * [`table`]: every metric with its name, type, labels and help.
//! * [`labels`]: the values of labels that are not names of backends.
//! * [`counter`]: numbers that one thread writes and any reads.
//! * `durations`: what a histogram says of the time between two looks at it.
//! * [`backend`], [`worker`]: what is counted per backend and per worker.
//! * [`web_server`]: what is counted per web server.
//! * `admin`: what the admin server counts.
//! * [`pool`]: what control knows, as plain numbers.
//! * `scrape`: all of it, summed up and written down; `exposition` and `process` are parts of it.
//! * `state_server`: the same of a state server.
//!
//! Every worker counts in memory of its own, with a load and a store: nothing is locked, allocated
//! or looked up per request, and no two workers write to one cache line. Whoever asks adds up.

mod admin;
pub mod application;
pub mod backend;
mod busy_threads;
pub mod counter;
mod durations;
mod exposition;
pub mod labels;
mod lock_waiters;
pub mod pool;
mod process;
mod scrape;
mod shards;
mod state_server;
pub mod table;
pub mod web_server;
pub mod worker;

pub use admin::AdminRefusals;
pub use application::{ApplicationCounts, ApplicationMetrics, ApplicationShard};
pub use backend::{BACKEND_BOUNDS_NS, BackendMetrics, BackendShard, FailedMoves};
pub use counter::{Counter, Histogram, HistogramTotals};
pub use labels::{
    AdminRefusal, ClientRefusal, FailureReason, LockWaitEnd, MapState, MoveStep, RequestOutcome,
};
pub use pool::{
    LastReloadMetrics, PoolApplication, PoolBackend, PoolContents, PoolCopies, PoolEngine,
    PoolFinding, PoolLoad, PoolMetrics, PoolReplication, Reloads,
};
pub use process::resident_bytes;
pub use scrape::{Metrics, ScrapeError};
pub use state_server::{DiskMetrics, StateServerMetrics};
pub use web_server::{
    MAX_WEB_SERVERS, WaitingOfWebServer, WebServerConnection, WebServerMetrics, WebServerShard,
    WebServers,
};
pub use worker::{HeldRequests, WorkerShard};
