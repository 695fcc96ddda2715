//! What the memory of an engine means for the sessions of its backend.

use super::status::EngineStatus;
use crate::store::StoreSurvey;
use crate::usage::{Capacity, Estimate};

/// What Redis needs for a session beside its body; Valkey needs less (docs/redis.md).
const OVERHEAD_BYTES: u64 = 620;

/// How full an engine with a limit is, by the last look at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EngineRoom {
    /// The part of the limit that the fullest server uses.
    used: f64,
    /// What more all servers take together, if they fill up like the fullest one.
    free_bytes: u64,
}

/// What a backend can hold, and how much of it is used at least.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct BackendLimits {
    pub(crate) capacity: Capacity,
    pub(crate) used: Option<f64>,
}

impl EngineRoom {
    /// `None` for an engine without a limit, or one that does not tell.
    pub(crate) fn of(survey: &StoreSurvey) -> Option<Self> {
        let memory = survey.memory?;
        let max_bytes = memory.max_bytes?;
        let fullest = survey.fullest.as_ref()?;
        let used = fullest.memory.used_ratio()?;
        let free_bytes = max_bytes.saturating_sub(memory.used_bytes);
        let like_fullest = max_bytes as f64 * (1.0 - used).max(0.0);
        Some(Self {
            used,
            free_bytes: free_bytes.min(like_fullest as u64),
        })
    }

    /// The capacity of the map, with room for no more bytes of bodies than the engine has. `held` is
    /// what lives there.
    pub(crate) fn limit(self, capacity: Capacity, held: Option<&Estimate>) -> BackendLimits {
        let memory_bytes = held.map(|held| {
            let overhead_bytes = held.sessions.saturating_mul(OVERHEAD_BYTES);
            let with_overhead = held.bytes.saturating_add(overhead_bytes).max(1);
            // Sessions to come are like those that are there.
            let body_part = match held.sessions {
                0 => 1.0,
                _ => held.bytes as f64 / with_overhead as f64,
            };
            let more_bytes = (self.free_bytes as f64 * body_part) as u64;
            held.bytes.saturating_add(more_bytes).max(1)
        });
        let known = [capacity.memory_bytes, memory_bytes];
        BackendLimits {
            capacity: Capacity {
                memory_bytes: known.into_iter().flatten().min(),
                ..capacity
            },
            used: Some(self.used),
        }
    }
}

impl EngineStatus {
    /// What an engine says of its memory, if it does.
    pub(crate) fn of(survey: &StoreSurvey) -> Option<Self> {
        let memory = survey.memory?;
        let fullest = survey.fullest.as_ref();
        let used = fullest.and_then(|fullest| fullest.memory.used_ratio());
        Some(Self {
            memory_bytes: memory.used_bytes,
            max_memory_bytes: memory.max_bytes,
            fullest_server: fullest.map(|fullest| fullest.server.clone()),
            fullest_percent: used.map(|used| (used * 10_000.0).round() / 100.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FullestServer, StoreMemory};

    const GIB: u64 = 1 << 30;

    fn survey(used_bytes: u64, max_bytes: Option<u64>, fullest_bytes: u64) -> StoreSurvey {
        let memory = |used_bytes, max_bytes| StoreMemory {
            used_bytes,
            max_bytes,
        };
        StoreSurvey {
            memory: Some(memory(used_bytes, max_bytes)),
            fullest: max_bytes.map(|max| FullestServer {
                server: "redis-b:6379".to_owned(),
                memory: memory(fullest_bytes, Some(max / 2)),
            }),
            ..StoreSurvey::default()
        }
    }

    fn held(sessions: u64, bytes: u64) -> Estimate {
        Estimate {
            sessions,
            sessions_error: 0.0,
            bytes,
            bytes_error: 0.0,
        }
    }

    #[test]
    fn sessions_need_more_than_their_bodies() {
        // Two servers of 4 GiB, one half full, the other empty.
        let room = EngineRoom::of(&survey(2 * GIB, Some(8 * GIB), 2 * GIB)).unwrap();
        let limits = room.limit(Capacity::default(), Some(&held(1_000_000, 620_000_000)));
        assert_eq!(limits.used, Some(0.5));
        // As many bytes of bodies as of what else they need: half of what is free fits, and the
        // fuller one is full when the other is half so.
        assert_eq!(limits.capacity.memory_bytes, Some(620_000_000 + 2 * GIB));
        let limits = room.limit(Capacity::default(), Some(&held(0, 0)));
        assert_eq!(limits.capacity.memory_bytes, Some(4 * GIB));
    }

    #[test]
    fn the_lower_limit_counts_and_what_is_not_counted_limits_nothing() {
        let room = EngineRoom::of(&survey(GIB, Some(8 * GIB), GIB)).unwrap();
        let map = Capacity {
            sessions: Some(7),
            memory_bytes: Some(GIB),
        };
        assert_eq!(room.limit(map, Some(&held(0, 0))).capacity, map);
        assert_eq!(room.limit(map, None).capacity, map);
        let full = EngineRoom::of(&survey(9 * GIB, Some(8 * GIB), 5 * GIB)).unwrap();
        let limits = full.limit(Capacity::default(), Some(&held(10, 1000)));
        assert_eq!(limits.capacity.memory_bytes, Some(1000));
        assert_eq!(limits.used, Some(1.25));
        assert_eq!(EngineRoom::of(&survey(GIB, None, 0)), None);
        assert_eq!(EngineRoom::of(&StoreSurvey::default()), None);
    }
}
