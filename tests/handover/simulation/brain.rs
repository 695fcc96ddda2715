//! What decides in a proxy: the pool state of production, over the slots of the plan.

use std::sync::Arc;

use staterouter::config::{BackendAddress, Config, PartitionMap};
use staterouter::control::pool_state::persisted_state::PersistedState;
use staterouter::control::pool_state::{
    Notice, PeerView, PoolMember, PoolScope, PoolState, ToldBackends,
};
use staterouter::control::session_timeouts::SeenTimeouts;
use staterouter::handover::{BackendId, ReplicaPhase, SlotState};
use staterouter::health::{Health, HealthState};
use staterouter::route::Slot;

use super::broken::Broken;
use super::maps::{self, Spec};

/// So often the proxies hear of each other and look at the time until every replica is full, before a
/// world begins.
const FILLING_STEPS: u64 = 18;
/// So many of them in the lifetime of a session.
const STEPS_A_LIFETIME: u64 = 8;

/// A map and its version.
#[derive(Debug, Clone)]
pub(crate) struct Edition {
    pub(crate) version: u64,
    pub(crate) spec: Spec,
}

/// What a proxy says of itself to another.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    map_version: u64,
    slots: Vec<SlotState>,
    backends: ToldBackends,
}

/// A backend as a proxy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) backend_id: BackendId,
    /// Suspect also while it has not answered: it is probed.
    pub(crate) verdict: HealthState,
    /// The operator has given it up.
    pub(crate) is_off: bool,
}

impl Seen {
    fn of(member: &PoolMember) -> Self {
        Self {
            backend_id: member.backend_id,
            verdict: Self::verdict(&member.health),
            is_off: member.is_off(),
        }
    }

    fn verdict(health: &Health) -> HealthState {
        match health.verdict() {
            HealthState::Up if !health.has_answered() => HealthState::Suspect,
            verdict => verdict,
        }
    }
}

/// The pool state, and the rules by which it takes its slots on.
#[derive(Debug)]
pub(crate) struct Brain {
    pub(crate) pool_state: PoolState,
    slots: Vec<Slot>,
    broken: Option<Broken>,
}

/// Makes the brains of a world.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) config: Config,
    pub(crate) slots: Vec<Slot>,
    pub(crate) broken: Option<Broken>,
    /// Whether each session is kept twice.
    pub(crate) replicas: bool,
}

impl Maker {
    /// So many brains without a past at `now_ms`: all servers have answered them, and every replica is
    /// full.
    pub(crate) fn begin_all(&self, count: usize, edition: &Edition, now_ms: u64) -> Vec<Brain> {
        let lifetime_ms = self.begin(edition, now_ms).pool_state.times().lifetime_ms;
        let step_ms = lifetime_ms / STEPS_A_LIFETIME;
        let steps = if self.replicas { FILLING_STEPS } else { 0 };
        let begin = |_| self.begin(edition, now_ms - steps * step_ms);
        let mut brains: Vec<Brain> = (0..count).map(begin).collect();
        for step in (0..steps).rev() {
            let at_ms = now_ms - step * step_ms;
            let told: Vec<Told> = brains.iter().map(Brain::told).collect();
            for (index, brain) in brains.iter_mut().enumerate() {
                let others = told.iter().enumerate().filter(|(other, _)| *other != index);
                for (peer, (_, told)) in others.enumerate() {
                    brain.hear(peer, Some(told.read(at_ms, at_ms)));
                }
                brain.pool_state.set_followed(true);
                brain.tick(at_ms);
            }
        }
        brains
    }

    /// A brain without a past; all servers have answered it.
    pub(crate) fn begin(&self, edition: &Edition, now_ms: u64) -> Brain {
        let (scope, map) = (self.scope(), self.map(edition));
        let pool_state = PoolState::over(scope, self.config.clone(), map, now_ms).unwrap();
        let mut brain = self.brain(pool_state);
        for member in brain.members() {
            brain.pool_state.probed(member.backend_id, Ok(()), now_ms);
        }
        brain
    }

    pub(crate) fn resume(&self, memory: PersistedState, now_ms: u64) -> Brain {
        let (scope, config) = (self.scope(), self.config.clone());
        self.brain(PoolState::resume_over(scope, config, memory, now_ms).unwrap())
    }

    /// A map as a proxy reads it.
    pub(crate) fn map(&self, edition: &Edition) -> PartitionMap {
        PartitionMap {
            replicas: self.replicas.into(),
            ..maps::map(&edition.spec, edition.version)
        }
    }

    fn scope(&self) -> PoolScope {
        PoolScope::of(self.slots.clone(), maps::place)
    }

    fn brain(&self, pool_state: PoolState) -> Brain {
        Brain {
            pool_state,
            slots: self.slots.clone(),
            broken: self.broken,
        }
    }
}

impl Brain {
    pub(crate) fn version(&self) -> u64 {
        self.pool_state.map().version
    }

    /// What the peer at this position says; `None` when it does not answer.
    pub(crate) fn hear(&mut self, index: usize, view: Option<PeerView>) {
        self.pool_state.set_peer(index, view);
    }

    /// Takes the slots of `next` on, by the rules there are.
    pub(crate) fn take_on(&self, next: &mut PoolState, now_ms: u64) -> Vec<Notice> {
        match self.broken {
            None => next.tick(now_ms),
            Some(broken) => next.tick_by(|slot, around| broken.advance(slot, around), now_ms),
        }
    }

    fn tick(&mut self, now_ms: u64) {
        let mut next = self.pool_state.clone();
        self.take_on(&mut next, now_ms);
        self.pool_state = next;
    }

    /// A session could not be moved.
    pub(crate) fn move_failed(&mut self, from: BackendId, to: BackendId) {
        let metrics = |backend_id| {
            let member = self.pool_state.member(backend_id);
            member.map(|member| Arc::clone(&member.metrics))
        };
        if let (Some(from_metrics), Some(to)) = (metrics(from), metrics(to)) {
            let shard = to.shard(0);
            shard.count_failed_move(&from_metrics, from, Some(400));
        }
    }

    pub(crate) fn slots(&self) -> Vec<SlotState> {
        self.pool_state.slots().to_vec()
    }

    pub(crate) fn target(&self, index: usize) -> BackendId {
        self.pool_state.target(self.slots[index])
    }

    pub(crate) fn members(&self) -> Vec<Seen> {
        self.pool_state.members().iter().map(Seen::of).collect()
    }

    fn told(&self) -> Told {
        Told::of(&self.pool_state, self.slots())
    }

    /// Whether every slot has a copy of all that it holds.
    pub(crate) fn is_full(&self) -> bool {
        let mut slots = self.pool_state.slots().iter();
        slots.all(|slot| slot.replica_in(ReplicaPhase::Full).is_some())
    }
}

impl Told {
    /// What is told of a pool state whose slots the data path follows as far as these.
    pub(crate) fn of(pool_state: &PoolState, followed: Vec<SlotState>) -> Self {
        Self {
            map_version: pool_state.map().version,
            slots: followed,
            backends: pool_state.told_backends(),
        }
    }

    /// What was said at `said_ms`, as it is read at `now_ms`: what was under way for a while looks
    /// younger than it is.
    pub(crate) fn read(&self, said_ms: u64, now_ms: u64) -> PeerView {
        let here = |at_ms: u64| now_ms.saturating_sub(said_ms.saturating_sub(at_ms));
        let ToldBackends {
            up,
            pending,
            off,
            gone,
        } = self.backends.clone();
        PeerView {
            map_version: self.map_version,
            slots: self.slots.iter().map(|slot| slot.read_by(here)).collect(),
            up,
            pending,
            off,
            gone: gone.into_iter().collect(),
            servers: None,
            decisions: Vec::new(),
            timeouts: SeenTimeouts::default(),
            membership: Default::default(),
            heard_ms: now_ms,
        }
    }
}

/// The addresses of so many peers.
pub(crate) fn peers(count: usize) -> Vec<BackendAddress> {
    let address = |index| BackendAddress::parse(&format!("10.0.1.{}:42480", index + 1));
    (0..count).map(|index| address(index).unwrap()).collect()
}
