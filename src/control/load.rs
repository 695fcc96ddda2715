//! What the backends hold, as far as it is counted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What one backend holds and can hold; `None` where nobody counts or says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions that live there.
    pub sessions: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Sessions that there is room for.
    pub max_sessions: Option<u64>,
    /// Bytes that there is room for.
    pub max_bytes: Option<u64>,
}

/// What all backends hold, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loads(BTreeMap<String, Load>);

impl Loads {
    /// What the answer to `GET /status` says; nothing where a proxy does not count.
    pub fn read(status: &Value) -> Self {
        #[derive(Deserialize)]
        struct Backend {
            name: String,
            sessions: Option<u64>,
            session_bytes: Option<u64>,
            capacity: Option<Capacity>,
        }
        #[derive(Deserialize)]
        struct Capacity {
            sessions: Option<u64>,
            memory: Option<u64>,
        }
        let backends = Vec::<Backend>::deserialize(&status["backends"]).unwrap_or_default();
        let load = |backend: Backend| {
            let capacity = backend.capacity.as_ref();
            let load = Load {
                sessions: backend.sessions,
                bytes: backend.session_bytes,
                max_sessions: capacity.and_then(|capacity| capacity.sessions),
                max_bytes: capacity.and_then(|capacity| capacity.memory),
            };
            (backend.name, load)
        };
        Self(backends.into_iter().map(load).collect())
    }

    /// What the backend of this name holds.
    pub fn of(&self, name: &str) -> Load {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether anything is counted.
    pub fn any(&self) -> bool {
        self.0.values().any(|load| load.sessions.is_some())
    }
}

impl Load {
    /// How much of the capacity so many sessions and bytes use, whichever is more; `None` without
    /// a capacity.
    pub fn used_percent(&self, sessions: Option<u64>, bytes: Option<u64>) -> Option<f64> {
        let share = |used: Option<u64>, max: Option<u64>| match (used, max) {
            (Some(used), Some(max)) if max > 0 => Some(used as f64 * 100.0 / max as f64),
            _ => None,
        };
        let shares = [
            share(sessions, self.max_sessions),
            share(bytes, self.max_bytes),
        ];
        shares.into_iter().flatten().reduce(f64::max)
    }
}
