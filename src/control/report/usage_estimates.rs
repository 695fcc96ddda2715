//! How many sessions are where, and when a backend is full.

use std::collections::HashMap;

use super::copies_held::Served;
use super::engine_room::{BackendLimits, EngineRoom};
use super::replication::CopiesStatus;
use super::status::{AccountingStatus, BackendLoad, CapacityStatus};
use crate::control::pool_state::PoolState;
use crate::handover::{BackendId, BackendMap, Stage};
use crate::metrics::PoolLoad;
use crate::usage::{Account, Audit, Capacity, Estimate, Estimator, Growth, Saturation, Trend};

/// How often it is added up.
const AUDIT_EVERY_MS: u64 = 5_000;

/// The account's auditor, and what it found.
#[derive(Debug)]
pub(crate) struct UsageEstimates {
    auditor: Estimator,
    due_ms: u64,
    latest: Option<Audit>,
    trends: HashMap<BackendId, Trend>,
}

impl UsageEstimates {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            auditor: Estimator::new(now_ms),
            due_ms: now_ms,
            latest: None,
            trends: HashMap::new(),
        }
    }

    /// Keeps the account's clock, and adds it up when it is time.
    pub(crate) fn follow(&mut self, account: &Account, pool_state: &PoolState, now_ms: u64) {
        self.auditor.set_now(account, now_ms);
        self.auditor
            .switch(account, pool_state.config().accounting, now_ms);
        if now_ms >= self.due_ms {
            self.due_ms = now_ms + AUDIT_EVERY_MS;
            let before = self.latest.take();
            self.latest = self.auditor.audit(account, now_ms);
            self.follow_trends(before.as_ref(), pool_state);
        }
    }

    fn follow_trends(&mut self, before: Option<&Audit>, pool_state: &PoolState) {
        let members = pool_state.members();
        self.trends.retain(|backend_id, _| {
            members
                .iter()
                .any(|member| member.backend_id == *backend_id)
        });
        // What was missing or is estimated anew has not grown.
        let comparable = |audit: &&Audit| {
            audit.is_complete && before.is_some_and(|before| before.level == audit.level)
        };
        let Some(audit) = self.latest.as_ref().filter(comparable) else {
            self.trends.clear();
            return;
        };
        let exchanging = exchanging(pool_state);
        for member in members {
            if exchanging[member.backend_id] {
                self.trends.remove(&member.backend_id);
                continue;
            }
            let found = audit.at(member.backend_id.id());
            let trend = self.trends.entry(member.backend_id).or_default();
            trend.add(audit.at_ms, &found);
        }
    }

    pub(crate) fn status(&self) -> AccountingStatus {
        let of_audit = |audit: &Audit| AccountingStatus {
            on: true,
            complete: audit.is_complete,
            at_ms: audit.at_ms,
            followed: audit.followed,
            one_in: 1 << audit.level,
        };
        self.latest.as_ref().map(of_audit).unwrap_or_default()
    }

    /// What lives in the slots of a backend; `None` while nothing is counted.
    pub(crate) fn served(&self, backend_id: BackendId) -> Option<Served> {
        let found = self.latest.as_ref()?.at(backend_id.id());
        Some(Served {
            sessions: found.sessions,
            bytes: found.bytes,
        })
    }

    /// What a backend that keeps these copies besides can hold: what the map says, or what its engine
    /// has room for.
    pub(crate) fn limits(
        &self,
        backend_id: BackendId,
        capacity: Capacity,
        copies: CopiesStatus,
        room: Option<EngineRoom>,
    ) -> BackendLimits {
        let used = None;
        room.map_or(BackendLimits { capacity, used }, |room| {
            let held = self.held(backend_id, copies);
            room.limit(capacity, held.map(|(_, held)| held).as_ref())
        })
    }

    /// What the status says of a backend that keeps these copies besides.
    pub(crate) fn load(
        &self,
        backend_id: BackendId,
        limits: BackendLimits,
        copies: CopiesStatus,
    ) -> BackendLoad {
        let BackendLimits { capacity, used } = limits;
        let percent = |share: f64| rounded(share * 100.0);
        let nothing = BackendLoad {
            capacity: CapacityStatus {
                sessions: capacity.sessions,
                memory_bytes: capacity.memory_bytes,
            },
            used_percent: used.map(percent),
            ..BackendLoad::default()
        };
        let Some(PoolLoad { found, saturation }) = self.pool_load(backend_id, limits, copies)
        else {
            return nothing;
        };
        let growth = self.growth(backend_id);
        let to_full = saturation.seconds_to_full;
        BackendLoad {
            sessions: Some(found.sessions),
            sessions_error_percent: Some(percent(found.sessions_error)),
            session_bytes: Some(found.bytes),
            session_bytes_error_percent: Some(percent(found.bytes_error)),
            sessions_per_minute: growth.map(|growth| rounded(growth.sessions_per_s * 60.0)),
            session_bytes_per_minute: growth.map(|growth| rounded(growth.bytes_per_s * 60.0)),
            used_percent: saturation.used.map(percent),
            seconds_to_full: to_full.filter(|s| s.is_finite()).map(|s| s as u64),
            ..nothing
        }
    }

    /// The same for the metrics; `None` while nothing is counted.
    pub(crate) fn pool_load(
        &self,
        backend_id: BackendId,
        limits: BackendLimits,
        copies: CopiesStatus,
    ) -> Option<PoolLoad> {
        let (found, held) = self.held(backend_id, copies)?;
        // What others keep here grows as what is served does.
        let times = |more: u64, own: u64| more as f64 / own.max(1) as f64;
        let growth = self.growth(backend_id).map(|growth| Growth {
            sessions_per_s: growth.sessions_per_s * times(held.sessions, found.sessions),
            bytes_per_s: growth.bytes_per_s * times(held.bytes, found.bytes),
        });
        let mut saturation = Saturation::of(&held, limits.capacity, growth);
        let known = [saturation.used, limits.used];
        saturation.used = known.into_iter().flatten().reduce(f64::max);
        Some(PoolLoad { found, saturation })
    }

    /// What a backend serves, and the same with these copies; `None` while nothing is counted.
    fn held(&self, backend_id: BackendId, copies: CopiesStatus) -> Option<(Estimate, Estimate)> {
        let found = self.latest.as_ref()?.at(backend_id.id());
        let held = Estimate {
            sessions: found.sessions + copies.sessions.unwrap_or(0),
            bytes: found.bytes + copies.bytes.unwrap_or(0),
            ..found
        };
        Some((found, held))
    }

    /// The sessions of the application with this number; `None` while nothing is counted.
    pub(crate) fn of_application(&self, number: u8) -> Option<Estimate> {
        let audit = self.latest.as_ref()?;
        Some(audit.of_application(number))
    }

    fn growth(&self, backend_id: BackendId) -> Option<Growth> {
        self.trends.get(&backend_id).and_then(Trend::growth)
    }
}

/// The places that give sessions to others or get them: where that would lead if it went on for
/// ever says nothing about when they are full.
fn exchanging(pool_state: &PoolState) -> BackendMap<bool> {
    let mut exchanging = BackendMap::filled(false);
    let slots = pool_state.slots().iter();
    for slot in slots.filter(|slot| matches!(slot.stage, Stage::Move1 | Stage::Move2)) {
        for backend_id in [Some(slot.first), slot.second].into_iter().flatten() {
            exchanging[backend_id] = true;
        }
    }
    exchanging
}

/// To two digits behind the point: more would promise what no estimate keeps.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, PartitionMap};
    use crate::usage::Observation;

    const MINUTE_MS: u64 = 60_000;
    const ROOM: BackendLimits = BackendLimits {
        capacity: Capacity {
            sessions: Some(100_000),
            memory_bytes: None,
        },
        used: None,
    };

    fn map(version: u64, names: &str) -> PartitionMap {
        let mut text = format!("version: {version}\nbackends:\n");
        for (id, name) in (1..).zip(names.split(' ')) {
            text += &format!("  - {{name: {name}, id: {id}, address: '10.0.0.{id}:1'}}\n");
        }
        PartitionMap::parse(text, "map").unwrap()
    }

    /// Ten sessions more at the first backend every second, for two minutes.
    fn grow(
        accounting: &mut UsageEstimates,
        account: &Account,
        pool_state: &PoolState,
        from_ms: u64,
    ) -> u64 {
        let now_ms = |second: u64| from_ms + second * 1_000;
        for second in 0..120 {
            accounting.follow(account, pool_state, now_ms(second));
            for id in 0..10 {
                let hash = (second * 10 + id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let sample = account.sample(hash, 7).of_put(20, false);
                account.observe(sample, 1, Observation::Stored { bytes: 10 });
            }
        }
        now_ms(120)
    }

    #[test]
    fn what_moves_is_no_growth() {
        let mut now_ms = 1_800_000_000_000;
        let mut pool_state =
            PoolState::new(Config::new("map.yaml"), map(1, "a b"), now_ms).unwrap();
        let backend_id = BackendId::new(1).unwrap();
        let mut accounting = UsageEstimates::new(now_ms);
        // Nothing is said before all sessions can have been seen.
        let account = Account::default();
        while !accounting.status().complete {
            now_ms += MINUTE_MS;
            accounting.follow(&account, &pool_state, now_ms);
        }
        now_ms = grow(&mut accounting, &account, &pool_state, now_ms);
        let growing = accounting.load(backend_id, ROOM, CopiesStatus::default());
        assert_eq!(growing.sessions_per_minute, Some(600.0));
        assert!(growing.seconds_to_full.is_some());
        // Copies take room, too, and grow with what they are copies of.
        let with_copies = CopiesStatus {
            sessions: growing.sessions,
            ..CopiesStatus::default()
        };
        let twice = accounting.load(backend_id, ROOM, with_copies);
        assert_eq!(twice.sessions, growing.sessions);
        let used = |load: BackendLoad| load.used_percent.unwrap();
        assert!(
            (used(twice) - 2.0 * used(growing)).abs() < 0.02,
            "{twice:?}"
        );
        assert!(twice.seconds_to_full.unwrap() < growing.seconds_to_full.unwrap() / 2);

        pool_state.accept(map(2, "a b c"), now_ms).unwrap();
        pool_state.probed(BackendId::new(3).unwrap(), Ok(()), now_ms);
        pool_state.tick(now_ms);
        pool_state.tick(now_ms + MINUTE_MS);
        grow(&mut accounting, &account, &pool_state, now_ms + MINUTE_MS);
        let moving = accounting.load(backend_id, ROOM, CopiesStatus::default());
        assert_eq!(moving.sessions_per_minute, None);
        assert_eq!(moving.seconds_to_full, None);
        assert!(moving.sessions.is_some());
    }
}
