//! The ways to the engines of the map. Each is kept for as long as the map is the same: a new way is
//! a new server, with connections of its own.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::Connector;
use crate::config::RedisSpec;

/// Makes the way to an engine, whose answers may take so long.
pub type MakeConnector = fn(&RedisSpec, Duration) -> Connector;

/// The ways that were made, shared by all copies of a pool state.
#[derive(Clone)]
pub struct Engines {
    make: MakeConnector,
    known: Arc<Mutex<Vec<KnownEngine>>>,
}

struct KnownEngine {
    spec: RedisSpec,
    answer: Duration,
    connector: Connector,
}

impl Default for Engines {
    /// There is a way to none.
    fn default() -> Self {
        Self::new(|_spec, _answer| Connector::Nowhere)
    }
}

impl Engines {
    /// No way was made yet.
    pub fn new(make: MakeConnector) -> Self {
        Self {
            make,
            known: Arc::default(),
        }
    }

    /// The way to the engine that `spec` names.
    pub fn way_to(&self, spec: &RedisSpec, answer: Duration) -> Connector {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &&KnownEngine| known.spec == *spec && known.answer == answer;
        if let Some(known) = known.iter().find(is_it) {
            return known.connector.clone();
        }
        let connector = (self.make)(spec, answer);
        known.push(KnownEngine {
            spec: spec.clone(),
            answer,
            connector: connector.clone(),
        });
        connector
    }

    /// Forgets the ways to all but these.
    pub fn keep<'a>(&self, specs: impl Iterator<Item = &'a RedisSpec> + Clone, answer: Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| {
            known.answer == answer && specs.clone().any(|spec| *spec == known.spec)
        });
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}
