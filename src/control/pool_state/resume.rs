//! Where a proxy goes on that was started again.

use std::sync::Arc;

use super::decisions::overridden;
use super::failing::Failing;
use super::handovers::Handovers;
use super::persisted_state::{Decision, PersistedState};
use super::{Membership, PoolMember, PoolScope, PoolState};
use crate::config::{BackendSpec, Config, PartitionMap};
use crate::control::probing::engines::Engines;
use crate::control::session_timeouts::SeenTimeouts;
use crate::handover::{BackendId, ReplicaPhase, SlotState, Stage};
use crate::health::Failure;
use crate::proxy::{ApplicationSet, MigrationBudget};
use crate::route::PlacementError;

/// What was written down cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The map gives no placement.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The state file names a backend that neither its map nor its list of retired ones has.
    #[error("a slot is at a backend with id {id}, which the state file does not describe")]
    UnknownPlace {
        /// The id.
        id: u8,
    },
    /// The state file describes another number of slots.
    #[error("the state file describes {slots} slots instead of {expected}")]
    SlotCount {
        /// How many.
        slots: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl PoolState {
    /// A pool without a past: every slot at its owner.
    ///
    /// # Errors
    /// [`ResumeError::Placement`].
    pub fn new(config: Config, map: PartitionMap, now_ms: u64) -> Result<Self, ResumeError> {
        Self::over(PoolScope::default(), config, map, now_ms)
    }

    /// The same for the slots of `scope`.
    ///
    /// # Errors
    /// [`ResumeError::Placement`].
    pub fn over(
        scope: PoolScope,
        config: Config,
        map: PartitionMap,
        now_ms: u64,
    ) -> Result<Self, ResumeError> {
        Self::begin(scope, config, (map, Vec::new()), now_ms)
    }

    fn begin(
        scope: PoolScope,
        config: Config,
        (map, decisions): (PartitionMap, Vec<Decision>),
        now_ms: u64,
    ) -> Result<Self, ResumeError> {
        let in_force = overridden(&map, &decisions);
        let placement = scope.place(&in_force)?;
        let member = |spec: &BackendSpec| PoolMember::new(spec.clone(), &config, now_ms);
        let members: Vec<PoolMember> = in_force.backends.iter().filter_map(member).collect();
        let owner = |slot| members[placement.owner(slot).index()].backend_id;
        let slots = scope
            .slots()
            .map(|(_, slot)| SlotState::steady(owner(slot), now_ms))
            .collect();
        Ok(Self {
            peers: vec![None; config.peers.len()],
            went_by_ms: 0,
            peer_positions: (0..config.peers.len()).map(Some).collect(),
            moves: MigrationBudget::new(config.limits.body_bytes),
            engines: Engines::default(),
            applications: ApplicationSet::new(&map.applications, None),
            scope,
            config,
            map,
            decisions,
            placement,
            members,
            slots,
            membership: Membership::default(),
            gone_peers: Vec::new(),
            given_up: Vec::new(),
            timeouts: SeenTimeouts::default(),
            handovers: Handovers::default(),
            failing: Failing::default(),
            last_failover: None,
            is_followed: true,
        })
    }

    /// The pool as it was written down. Backends that were out of reach then count as down until
    /// they have answered.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn resume(
        config: Config,
        memory: PersistedState,
        now_ms: u64,
    ) -> Result<Self, ResumeError> {
        Self::resume_over(PoolScope::default(), config, memory, now_ms)
    }

    /// The same for the slots of `scope`.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn resume_over(
        scope: PoolScope,
        config: Config,
        memory: PersistedState,
        now_ms: u64,
    ) -> Result<Self, ResumeError> {
        let expected = scope.count();
        let mut pool_state = Self::begin(scope, config, (memory.map, memory.decisions), now_ms)?;
        pool_state.given_up = memory.given_up;
        pool_state.failing = Failing::resume(&memory.failing, now_ms);
        pool_state.timeouts = memory.timeouts;
        pool_state.resume_peers(memory.known_peers, now_ms);
        for spec in memory.retired {
            let retired = PoolMember::new(spec, &pool_state.config, now_ms);
            pool_state.members.extend(retired.map(|member| PoolMember {
                in_map: false,
                ..member
            }));
        }
        for server in &memory.servers {
            let mut members = pool_state.members.iter_mut();
            if let Some(member) = members.find(|member| member.spec.name == server.backend) {
                member.server.resume(server, now_ms);
            }
        }
        let slots = memory.slots.len();
        if slots != expected {
            return Err(ResumeError::SlotCount { slots, expected });
        }
        for slot in memory.slots.iter() {
            for backend_id in slot.serving() {
                if pool_state.member(backend_id).is_none() {
                    return Err(ResumeError::UnknownPlace {
                        id: backend_id.id(),
                    });
                }
            }
            if let (Stage::Suspect | Stage::Away, Some(second)) = (slot.stage, slot.second) {
                pool_state.count_as_down(second, now_ms);
            }
        }
        pool_state.slots = memory.slots;
        for slot in Arc::make_mut(&mut pool_state.slots) {
            // What could not be moved just before the end may not be written down.
            if pool_state.failing.last_ms(slot).is_some() && slot.stage.is_handover() {
                slot.since_ms = now_ms;
            }
            // A clock that was set back must not hold a stage up.
            slot.since_ms = slot.since_ms.min(now_ms);
            if let Some(before) = &mut slot.before {
                before.since_ms = before.since_ms.min(now_ms);
            }
            slot.outdated = slot.outdated.since(slot.outdated.since_ms().min(now_ms));
            if let Some(replica) = &mut slot.replica {
                replica.since_ms = replica.since_ms.min(now_ms);
                // A copy that was missed just before the end may not be written down.
                if replica.phase == ReplicaPhase::Filling {
                    replica.since_ms = now_ms;
                }
            }
        }
        for server in &mut pool_state.given_up {
            server.since_ms = server.since_ms.min(now_ms);
        }
        Ok(pool_state)
    }

    /// Nobody knows how long ago this proxy refused what is suspect here, so that any peer may have
    /// gone on without a failed backend since.
    pub fn doubt_suspicions(&mut self) {
        if self.peers.is_empty() {
            return;
        }
        for slot in Arc::make_mut(&mut self.slots) {
            if slot.stage == Stage::Suspect {
                slot.since_ms = 0;
            }
        }
    }

    fn count_as_down(&mut self, backend_id: BackendId, now_ms: u64) {
        let fall = self.config.health.fall;
        if let Some(member) = self.member_mut(backend_id).filter(|member| member.is_up()) {
            for _ in 0..fall {
                member.health.probe_failed(Failure::Broken, 0, now_ms);
            }
        }
    }
}
