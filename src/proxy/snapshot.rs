//! What is in force: built as a whole, swapped as a whole, never changed.

use crate::config::{AllowList, BackendAddress, Config, PartitionMap};
use crate::config::{BackendState, Timeouts};
use crate::route::{BackendIndex, Member, Placement, PlacementError};
use crate::wire::HeadLimits;

/// One state server of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name: identity, log and report label.
    pub name: String,
    /// Where to connect.
    pub address: BackendAddress,
}

/// Placement, backends, limits. A request sees exactly one of these from start to end.
#[derive(Debug)]
pub struct Snapshot {
    /// Version of the partition map.
    pub map_version: u64,
    /// Which backend serves which slot.
    pub placement: Placement,
    /// The backends of the map, in its order; [`BackendIndex`] counts here.
    pub backends: Vec<Backend>,
    /// Who may connect.
    pub allow: AllowList,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Limits on heads and bodies.
    pub head_limits: HeadLimits,
    /// Idle connections per backend and worker.
    pub max_idle_backend_connections: usize,
}

impl Snapshot {
    /// Builds what `config` and `map` describe. Only active backends are given slots.
    ///
    /// # Errors
    /// [`PlacementError`] for a map that no check has seen.
    pub fn build(config: &Config, map: &PartitionMap) -> Result<Self, PlacementError> {
        let members: Vec<Member<'_>> = map
            .backends
            .iter()
            .zip(0..=u8::MAX)
            .filter(|(backend, _)| backend.state == BackendState::Active)
            .map(|(backend, index)| Member {
                name: &backend.name,
                weight: backend.weight.into(),
                backend: BackendIndex::new(index),
            })
            .collect();
        let backend = |spec: &crate::config::BackendSpec| Backend {
            name: spec.name.clone(),
            address: spec.address.clone(),
        };
        Ok(Self {
            map_version: map.version,
            placement: Placement::build(map.hash_key, &members)?,
            backends: map.backends.iter().map(backend).collect(),
            allow: config.allow.clone(),
            timeouts: config.timeouts,
            head_limits: HeadLimits {
                max_head_bytes: config.limits.head_bytes,
                max_body_bytes: config.limits.body_bytes,
            },
            max_idle_backend_connections: config.limits.idle_backend_connections,
        })
    }
}
