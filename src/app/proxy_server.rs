//! The proxy from a checked configuration.

use super::system::{self, Descriptors};
use super::{StartError, worker_count};
use crate::config::{Config, PartitionMap};
use crate::handover::{Place, SlotState, SlotTable};
use crate::net::{ConnectionCap, Listeners, Running, ServeOptions, spawn_workers};
use crate::proxy::{self, Backend, Feedback, ProxyService, Snapshot};
use crate::route::{PlacementError, Slot};

/// Smallest capacity of a buffer: fewer system calls for large bodies.
const MIN_BUFFER_BYTES: usize = 64 * 1024;

/// One for the client, one for the backend of its request.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Starts the proxy; it serves until it is stopped. It holds no more client
/// connections than the limit on open files allows.
///
/// # Errors
/// [`StartError`].
pub fn start(config: &Config, map: &PartitionMap) -> Result<Running, StartError> {
    let snapshot = proxy::share(snapshot(config, map)?);
    let (feedback, _reports) = Feedback::channel();
    let workers = worker_count(config.workers);
    let listeners = Listeners::bind(config.listen, workers)?;
    let idle = config.limits.idle_backend_connections * map.backends.len() * workers;
    let connections = system::connections_that_fit(&Descriptors {
        connections: config.limits.client_connections,
        per_connection: DESCRIPTORS_PER_CONNECTION,
        idle: idle as u64,
        workers,
    });
    let options = ServeOptions {
        thread_name: "proxy",
        buffer_bytes: config.limits.head_bytes.max(MIN_BUFFER_BYTES),
        cap: ConnectionCap::new(connections),
        accept_wait: config.timeouts.accept_wait,
        shutdown: config.timeouts.shutdown,
    };
    spawn_workers(listeners, &options, move |worker| {
        ProxyService::new(worker, &snapshot, feedback.clone())
    })
    .map_err(StartError::Thread)
}

/// Every slot steady at its owner.
fn snapshot(config: &Config, map: &PartitionMap) -> Result<Snapshot, PlacementError> {
    let placement = map.placement()?;
    let backend = |spec: &crate::config::BackendSpec| {
        Some(Backend {
            name: spec.name.clone(),
            place: Place::new(spec.id)?,
            address: spec.address.clone(),
            up: true,
            counts: std::sync::Arc::default(),
        })
    };
    let backends: Vec<Backend> = map.backends.iter().filter_map(backend).collect();
    let slots: Vec<SlotState> = Slot::all()
        .map(|slot| SlotState::steady(backends[placement.owner(slot).index()].place, 0))
        .collect();
    Ok(Snapshot::new(
        config,
        map.version,
        map.hash_key,
        SlotTable::new(&slots),
        backends,
    ))
}
