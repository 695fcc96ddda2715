//! What the backends hold, as far as it is counted.

use std::collections::BTreeMap;

use super::status::Status;
use crate::usage::Capacity;

/// What one backend holds; `None` where nobody counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions that live there.
    pub sessions: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Sessions that live elsewhere and of which it keeps the copy; `None` also if it is to keep none.
    pub copies: Option<u64>,
    /// The bytes of these copies.
    pub copy_bytes: Option<u64>,
    /// Bytes of bodies that its engine has room for, all of them; `None` for other backends.
    pub room_bytes: Option<u64>,
}

/// What all backends hold, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loads(BTreeMap<String, Load>);

impl Loads {
    /// What the backend of this name holds.
    pub fn of(&self, name: &str) -> Load {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether anything is counted.
    pub fn any(&self) -> bool {
        self.0.values().any(|load| load.sessions.is_some())
    }
}

impl FromIterator<(String, Load)> for Loads {
    fn from_iter<I: IntoIterator<Item = (String, Load)>>(loads: I) -> Self {
        Self(loads.into_iter().collect())
    }
}

impl From<&Status> for Loads {
    fn from(status: &Status) -> Self {
        let loads = status.backends.iter().map(|backend| {
            let load = Load {
                sessions: backend.load.sessions,
                bytes: backend.load.session_bytes,
                copies: backend.copies.sessions,
                copy_bytes: backend.copies.bytes,
                room_bytes: match backend.engine {
                    Some(_) => backend.load.capacity.memory_bytes,
                    None => None,
                },
            };
            (backend.name.clone(), load)
        });
        loads.collect()
    }
}

impl Load {
    /// How much of `capacity` and of its engine's room this uses, copies included, by sessions or bytes,
    /// whichever is most; `None` without either.
    pub fn used_percent(self, capacity: Capacity) -> Option<f64> {
        let share = |used: Option<u64>, max: Option<u64>| match (used, max) {
            (Some(used), Some(max)) if max > 0 => Some(used as f64 * 100.0 / max as f64),
            _ => None,
        };
        let shares = [
            share(with(self.sessions, self.copies), capacity.sessions),
            share(with(self.bytes, self.copy_bytes), capacity.memory_bytes),
            share(with(self.bytes, self.copy_bytes), self.room_bytes),
        ];
        shares.into_iter().flatten().reduce(f64::max)
    }
}

/// What lives there and what is kept there besides.
fn with(own: Option<u64>, copies: Option<u64>) -> Option<u64> {
    own.map(|own| own.saturating_add(copies.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_an_engine_limits_bytes_as_a_capacity_does() {
        let load = Load {
            sessions: Some(10),
            bytes: Some(800),
            room_bytes: Some(1000),
            ..Load::default()
        };
        assert_eq!(load.used_percent(Capacity::default()), Some(80.0));
        let lower = Capacity {
            sessions: None,
            memory_bytes: Some(400),
        };
        assert_eq!(load.used_percent(lower), Some(200.0));
        let sessions = Capacity {
            sessions: Some(100),
            memory_bytes: None,
        };
        assert_eq!(load.used_percent(sessions), Some(80.0));
    }
}
