//! The proxy from a checked configuration.

use super::{StartError, worker_count};
use crate::config::{Config, PartitionMap};
use crate::net::{ConnectionCap, Listeners, Running, ServeOptions, spawn_workers};
use crate::proxy::{self, ProxyService, Snapshot};

/// Smallest capacity of a buffer: fewer system calls for large bodies.
const MIN_BUFFER_BYTES: usize = 64 * 1024;

/// Starts the proxy; it serves until it is stopped.
///
/// # Errors
/// [`StartError`].
pub fn start(config: &Config, map: &PartitionMap) -> Result<Running, StartError> {
    let snapshot = proxy::share(Snapshot::build(config, map)?);
    let listeners = Listeners::bind(config.listen, worker_count(config.workers))?;
    let options = ServeOptions {
        thread_name: "proxy",
        buffer_bytes: config.limits.head_bytes.max(MIN_BUFFER_BYTES),
        cap: ConnectionCap::new(config.limits.client_connections),
        accept_wait: config.timeouts.accept_wait,
        shutdown: config.timeouts.shutdown,
    };
    spawn_workers(listeners, &options, move |worker| {
        ProxyService::new(worker, &snapshot)
    })
    .map_err(StartError::Thread)
}
