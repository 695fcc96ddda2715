//! The pool as others see it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::handle::{AdminAccess, Published};
use super::peers::report::PeerState;
use super::pool_state::{PoolMember, PoolState, ToldBackends};
use super::report::at_risk::replication;
use super::report::copies_held::copies_held;
use super::report::diagnosis::diagnose;
use super::report::engine_room::{BackendLimits, EngineRoom};
use super::report::finding::{self, Finding, Findings};
use super::report::history::History;
use super::report::progress::{empty_ms, under_way};
use super::report::replication::{CopiesStatus, FailoverStatus, ReplicaCounts};
use super::report::status::{
    ApplicationStatus, BackendHealth, BackendLoad, BackendStatus, EngineStatus, LastReload,
    OverrideStatus, PeerStatus, ReloadResult, ServiceState, StageCounts, Status,
};
use super::report::usage_estimates::UsageEstimates;
use crate::config::{BackendHost, BackendState, Config};
use crate::handover::{BackendId, BackendMap, SlotState, Stage};
use crate::health;
use crate::metrics::{
    self, ApplicationMetrics, MapState, PoolApplication, PoolBackend, PoolCopies, PoolEngine,
    PoolMetrics, PoolReplication, Reloads,
};
use crate::net::UnixClock;
use crate::net::own_host_name;
use crate::os;
use crate::route::Slot;
use crate::store::StoreSurvey;
use crate::tls::CertificateState;
use crate::usage::Capacity;

/// Why each backend counts as what it does, as far as that ever changed.
pub(crate) type Reasons = HashMap<BackendId, String>;

/// What never changes while the program runs.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) instance: String,
    host: String,
    started_ms: u64,
    clock: UnixClock,
    /// The name that this machine gives itself.
    own_host: String,
}

/// What control knows at one moment.
pub(crate) struct Known<'a> {
    pub(crate) pool_state: &'a PoolState,
    /// Where the slots are in the eyes of the data path.
    pub(crate) in_force: &'a Arc<[SlotState]>,
    /// Where they are certain to be in those of all workers.
    pub(crate) followed: &'a Arc<[SlotState]>,
    pub(crate) sources: Sources<'a>,
    pub(crate) last_reload: Option<LastReload>,
    pub(crate) reloads: Reloads,
    pub(crate) peers: Vec<PeerStatus>,
    pub(crate) history: Arc<History>,
    /// What is wrong beside what the others show.
    pub(crate) noticed: Vec<Finding>,
    pub(crate) last_failover: Option<FailoverStatus>,
    /// Sessions that are locked all the time.
    pub(crate) contended_sessions: usize,
    /// How the certificates are.
    pub(crate) certificates: Vec<CertificateState>,
    /// Since when what is wrong has been so.
    pub(crate) since: &'a mut Findings,
}

/// What is known of the backends beside the pool state.
pub(crate) struct Sources<'a> {
    pub(crate) reasons: &'a Reasons,
    pub(crate) accounting: &'a UsageEstimates,
    /// What the engines say of themselves.
    pub(crate) engines: &'a HashMap<BackendId, StoreSurvey>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(
        reasons: &'a Reasons,
        accounting: &'a UsageEstimates,
        engines: &'a HashMap<BackendId, StoreSurvey>,
    ) -> Self {
        Self {
            reasons,
            accounting,
            engines,
        }
    }
}

impl About {
    pub(crate) fn new(clock: UnixClock) -> Self {
        let started_ms = clock.now_ms();
        Self {
            // A hasher has random keys, which makes this as good as a random number.
            instance: format!("{:016x}", RandomState::new().hash_one(started_ms)),
            host: os::host_name(),
            started_ms,
            clock,
            own_host: own_host_name(),
        }
    }

    /// What others may see now.
    pub(crate) fn publish(&self, pool: Known<'_>) -> Published {
        let Known {
            pool_state,
            in_force,
            followed,
            sources,
            last_reload,
            reloads,
            peers,
            history,
            noticed,
            last_failover,
            contended_sessions,
            certificates,
            since,
        } = pool;
        let now_ms = self.clock.now_ms();
        let backends = backends(pool_state, &sources, now_ms);
        let (replicas, times) = (pool_state.map().replicas, pool_state.times());
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            host: self.host.clone(),
            listen: pool_state.config().listen.to_string(),
            started_ms: self.started_ms,
            now_ms,
            findings: Vec::new(),
            map_version: pool_state.map().version,
            last_reload,
            replication: replication(replicas, in_force, &backends, times.lifetime_ms),
            last_failover,
            backends,
            applications: applications(pool_state, sources.accounting),
            accounting: sources.accounting.status(),
            slots: stages(in_force),
            under_way: under_way(pool_state, in_force),
            longest_session_timeout_minutes: pool_state.longest_timeout_minutes(),
            peers,
        };
        let mut found = diagnose(&status, &history);
        found.extend(noticed);
        status.findings = since.found(found, status.now_ms);
        let accounting = sources.accounting;
        let mut metrics = figures(pool_state, &status, accounting, reloads, &certificates);
        metrics.contended_sessions = contended_sessions;
        Published {
            status,
            history,
            peer: self.peer_state(pool_state, followed),
            metrics,
            access: self.access(pool_state.config()),
            peers: pool_state.config().peers.clone(),
        }
    }
}

impl About {
    /// What peers may know.
    fn peer_state(&self, pool_state: &PoolState, followed: &Arc<[SlotState]>) -> PeerState {
        let ToldBackends {
            up,
            pending,
            off,
            gone,
        } = pool_state.told_backends();
        PeerState {
            instance: self.instance.clone(),
            map_version: pool_state.map().version,
            decisions: pool_state.decisions().to_vec(),
            up,
            pending,
            servers: pool_state.servers(),
            off,
            gone,
            timeouts: pool_state.timeouts().clone(),
            membership: pool_state.membership().clone(),
            slots: Arc::clone(followed),
            clock: self.clock,
        }
    }

    /// Peers may ask for this proxy by the name that it has in their `peers`, and one main file may
    /// serve all of them.
    fn access(&self, config: &Config) -> AdminAccess {
        let peers = config.peers.iter().filter_map(|peer| match peer.host() {
            BackendHost::Name(name) => Some(name.clone()),
            BackendHost::Ip(_) => None,
        });
        let listed = config.admin.hosts.iter().cloned().chain(peers);
        AdminAccess {
            token: config.admin.token.clone(),
            hosts: listed.chain([self.own_host.clone()]).collect(),
        }
    }
}

/// What is shown of the pool in the metrics.
fn figures(
    pool_state: &PoolState,
    status: &Status,
    accounting: &UsageEstimates,
    reloads: Reloads,
    certificates: &[CertificateState],
) -> PoolMetrics {
    let backend = |(member, shown): (&PoolMember, &BackendStatus)| PoolBackend {
        name: shown.name.clone(),
        backend_id: member.backend_id,
        state: match member.spec.state {
            _ if !member.in_map => MapState::Draining,
            BackendState::Active => MapState::Active,
            BackendState::Drain => MapState::Draining,
            BackendState::Off => MapState::Off,
        },
        verdict: member.verdict(),
        address: shown.address_in_use.clone(),
        slots_owned: shown.slots_owned,
        slots_first: shown.slots_first,
        pending_deletes: member.pending_deletes,
        capacity: limits_of(shown).capacity,
        engine: shown.engine.as_ref().map(|engine| PoolEngine {
            memory_bytes: engine.memory_bytes,
            max_memory_bytes: engine.max_memory_bytes,
        }),
        copies: PoolCopies {
            sessions: shown.copies.sessions,
            bytes: shown.copies.bytes,
        },
        load: accounting.pool_load(member.backend_id, limits_of(shown), shown.copies),
        metrics: Arc::clone(&member.metrics),
    };
    let mut slots = status.slots;
    PoolMetrics {
        map_version: status.map_version,
        reloads,
        last_reload: status
            .last_reload
            .as_ref()
            .map(metrics::LastReloadMetrics::from),
        slots: Stage::ALL.map(|stage| *slots.of(stage)),
        replication: status.replication.as_ref().map(|known| PoolReplication {
            slots: [
                ("none", known.slots.none),
                ("joining", known.slots.joining),
                ("filling", known.slots.filling),
                ("full", known.slots.full),
                ("dropping", known.slots.dropping),
            ],
            at_risk_sessions: known.at_risk_sessions,
        }),
        applications: pool_state
            .applications()
            .iter()
            .flat_map(|set| set.metrics())
            .map(|metrics| PoolApplication {
                found: accounting.of_application(metrics.number),
                metrics: Arc::clone(metrics),
            })
            .collect(),
        // Whoever is asked for the metrics looks there.
        contents: Vec::new(),
        findings: finding::counted(&status.findings),
        contended_sessions: 0,
        certificates: certificates
            .iter()
            .map(|state| (state.what.clone(), state.until_s()))
            .collect(),
        backends: pool_state
            .members()
            .iter()
            .zip(&status.backends)
            .map(backend)
            .collect(),
    }
}

/// What a backend can hold, as it is shown.
fn limits_of(shown: &BackendStatus) -> BackendLimits {
    let percent = shown
        .engine
        .as_ref()
        .and_then(|known| known.fullest_percent);
    BackendLimits {
        capacity: Capacity {
            sessions: shown.load.capacity.sessions,
            memory_bytes: shown.load.capacity.memory_bytes,
        },
        used: percent.map(|percent| percent / 100.0),
    }
}

/// What is counted per backend.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    owned: usize,
    first: usize,
    waiting: usize,
    refused: usize,
    as_replica: ReplicaCounts,
    unprotected: usize,
    copies: CopiesStatus,
    /// Until when requests wait for it.
    waits_until_ms: Option<u64>,
    /// When there should be none any more.
    empty_ms: Option<u64>,
    stages: StageCounts,
}

/// All slots by stage.
fn stages(slots: &[SlotState]) -> StageCounts {
    let mut counts = StageCounts::default();
    for slot in slots {
        *counts.of(slot.stage) += 1;
    }
    counts
}

/// The applications of the map, and all others.
fn applications(pool_state: &PoolState, accounting: &UsageEstimates) -> Vec<ApplicationStatus> {
    let set = pool_state.applications().into_iter();
    let status = |metrics: &Arc<ApplicationMetrics>| {
        let counted = metrics.counts();
        let found = accounting.of_application(metrics.number);
        ApplicationStatus {
            name: metrics.name.clone(),
            requests: counted.requests,
            requests_failed: counted.failed,
            requests_renamed: counted.renamed,
            sessions: found.map(|found| found.sessions),
            session_bytes: found.map(|found| found.bytes),
        }
    };
    set.flat_map(|set| set.metrics()).map(status).collect()
}

/// All backends.
fn backends(pool_state: &PoolState, sources: &Sources<'_>, now_ms: u64) -> Vec<BackendStatus> {
    let Sources {
        reasons,
        accounting,
        engines,
    } = sources;
    let mut counts = BackendMap::filled(Counts::default());
    let mut serves = BackendMap::filled(false);
    for member in pool_state.members() {
        serves[member.backend_id] = member.is_up() && !member.is_off();
    }
    for (slot, state) in Slot::all().zip(pool_state.slots()) {
        let target = pool_state.target(slot);
        counts[target].owned += 1;
        counts[state.first].first += 1;
        if let Some(down) = refused_for(state, &serves) {
            counts[down].refused += 1;
        } else if state.second.is_none() && state.first != target {
            counts[target].waiting += 1;
        }
        if let Some(replica) = state.replica {
            counts[replica.backend_id]
                .as_replica
                .count(Some(replica.phase));
        }
        if !pool_state.is_protected(slot) {
            counts[state.first].unprotected += 1;
        }
        for backend_id in [Some(state.first), state.second].into_iter().flatten() {
            *counts[backend_id].stages.of(state.stage) += 1;
        }
    }
    let empty_ms = empty_ms(pool_state, pool_state.slots(), now_ms);
    let lifetime_ms = pool_state.times().lifetime_ms;
    let served = |backend_id| accounting.served(backend_id);
    let is_copied = |slot: &SlotState| slot.replica.is_some();
    let copies = match pool_state.map().replicas {
        0 if !pool_state.slots().iter().any(is_copied) => {
            BackendMap::filled(CopiesStatus::default())
        }
        _ => copies_held(pool_state.slots(), served, lifetime_ms, now_ms),
    };
    let hold_ms = pool_state.config().handover.hold.as_millis() as u64;
    let status = |member: &PoolMember| {
        let mut counts = counts[member.backend_id];
        let empty_ms = empty_ms[member.backend_id];
        counts.empty_ms = empty_ms.filter(|empty| *empty > 0 && counts.owned == 0);
        counts.copies = copies[member.backend_id];
        let is_waited_for = counts.refused > 0 && !member.is_up();
        counts.waits_until_ms = is_waited_for.then(|| member.health.since_ms() + hold_ms);
        let engine = engines.get(&member.backend_id);
        let room = engine.and_then(EngineRoom::of);
        let (backend_id, capacity) = (member.backend_id, member.spec.capacity);
        let limits = accounting.limits(backend_id, capacity, counts.copies, room);
        let load = accounting.load(backend_id, limits, counts.copies);
        let overridden = override_of(pool_state, &member.spec.name);
        let reason = reasons.get(&member.backend_id);
        let mut status = backend(member, overridden, counts, reason, load);
        status.engine = engine.and_then(EngineStatus::of);
        status
    };
    pool_state.members().iter().map(status).collect()
}

/// The place that is down and because of which requests for this slot are refused, if they are.
fn refused_for(slot: &SlotState, serves: &BackendMap<bool>) -> Option<BackendId> {
    if slot.stage == Stage::Suspect {
        return slot.second;
    }
    let is_refused = !serves[slot.first];
    is_refused.then_some(slot.first)
}

/// The override that is in force for a backend.
fn override_of(pool_state: &PoolState, backend: &str) -> Option<OverrideStatus> {
    let overrides = pool_state.overrides();
    let mut overrides = overrides.iter();
    let known = overrides.find(|known| known.backend == backend)?;
    let mut backends = pool_state.map().backends.iter();
    let in_map = backends.find(|spec| spec.name == backend)?;
    Some(OverrideStatus {
        in_map: in_map.state.into(),
        since_ms: known.since_ms,
    })
}

fn backend(
    member: &PoolMember,
    overridden: Option<OverrideStatus>,
    counts: Counts,
    reason: Option<&String>,
    load: BackendLoad,
) -> BackendStatus {
    let verdict = BackendHealth::from(member.verdict());
    BackendStatus {
        name: member.spec.name.clone(),
        id: member.backend_id.id(),
        address: member.spec.shown_address(),
        address_in_use: match &member.spec.redis {
            Some(redis) => Some(redis.to_string()),
            None => member.address().map(|address| address.to_string()),
        },
        state: if member.in_map {
            member.spec.state.into()
        } else {
            ServiceState::Removed
        },
        overridden,
        weight: member.spec.weight,
        verdict,
        reason: reason_of(member, reason),
        since_ms: member.health.since_ms(),
        slots_owned: counts.owned,
        slots_first: counts.first,
        slots_waiting: counts.waiting,
        slots_refused: counts.refused,
        waits_until_ms: counts.waits_until_ms,
        empty_ms: counts.empty_ms,
        slots_in: counts.stages,
        slots_as_replica: counts.as_replica,
        copies: counts.copies,
        slots_unprotected: counts.unprotected,
        pending_deletes: member.pending_deletes,
        moved_here: member.metrics.moved_here(),
        absent_while_away: member.metrics.absent_while_away(),
        engine: None,
        load,
    }
}

/// Why a backend is not up, or may not be. `told` is why its verdict changed last.
fn reason_of(member: &PoolMember, told: Option<&String>) -> Option<String> {
    let words = match (member.health.verdict(), told) {
        _ if member.address().is_none() => "its host name leads to no address that can be used",
        (health::HealthState::Up, _) if member.health.has_answered() => return None,
        (health::HealthState::Up, _) => "it has not been asked yet",
        (_, Some(told)) => told,
        (_, None) => "it was down when this proxy was stopped, and has not come up since",
    };
    Some(words.to_owned())
}

impl StageCounts {
    fn of(&mut self, stage: Stage) -> &mut usize {
        match stage {
            Stage::Steady => &mut self.steady,
            Stage::Settle => &mut self.settle,
            Stage::Move1 => &mut self.move1,
            Stage::Move2 => &mut self.move2,
            Stage::Turned => &mut self.turned,
            Stage::Suspect => &mut self.suspect,
            Stage::Away => &mut self.away,
            Stage::Back => &mut self.back,
            Stage::Wait => &mut self.wait,
        }
    }
}

impl From<&LastReload> for metrics::LastReloadMetrics {
    fn from(last: &LastReload) -> Self {
        Self {
            at_ms: last.at_ms,
            ok: last.outcome.result != ReloadResult::Refused,
        }
    }
}

impl From<health::HealthState> for BackendHealth {
    fn from(verdict: health::HealthState) -> Self {
        match verdict {
            health::HealthState::Up => Self::Up,
            health::HealthState::Suspect => Self::Suspect,
            health::HealthState::Down => Self::Down,
        }
    }
}
