//! What decides in a proxy: the pool state, or the same for a handful of slots.

use std::fmt;
use std::sync::Arc;

use staterouter::config::{BackendAddress, Config};
use staterouter::control::pool_state::persisted_state::PersistedState;
use staterouter::control::pool_state::{PeerView, PoolState};
use staterouter::control::session_timeouts::SeenTimeouts;
use staterouter::handover::{BackendId, Places, SlotState};
use staterouter::health::{Failure, Health, HealthState};
use staterouter::route::Slot;

use super::broken::Broken;
use super::maps::{self, Spec};
use super::pool::{Pool, PoolMemory};

/// A map and its version.
#[derive(Debug, Clone)]
pub(crate) struct Edition {
    pub(crate) version: u64,
    pub(crate) spec: Spec,
}

/// What a proxy says of itself to another.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) version: u64,
    /// The slots of the plan, with times of the listener's clock.
    pub(crate) slots: Vec<SlotState>,
    pub(crate) up: Vec<BackendId>,
    pub(crate) owed: Vec<BackendId>,
    /// What its map gives up.
    pub(crate) off: Vec<BackendId>,
    /// What it serves from no more.
    pub(crate) gone: Places,
    pub(crate) heard_ms: u64,
    /// All slots, from a whole pool state.
    pub(crate) all: Option<Vec<SlotState>>,
}

/// What survives a proxy.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    Pool(PoolMemory),
    Engine(PersistedState),
}

/// A backend as a proxy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) backend_id: BackendId,
    /// Suspect also while it has not answered: it is probed.
    pub(crate) verdict: HealthState,
    pub(crate) owed: usize,
    /// The operator has given it up.
    pub(crate) is_off: bool,
}

impl Seen {
    pub(crate) fn verdict(health: &Health) -> HealthState {
        match health.verdict() {
            HealthState::Up if !health.has_answered() => HealthState::Suspect,
            verdict => verdict,
        }
    }
}

/// Decides where the slots of the plan are.
pub(crate) trait Brain: fmt::Debug {
    fn memory(&self) -> Remembered;
    fn version(&self) -> u64;
    fn accept(&mut self, edition: &Edition, now_ms: u64);
    fn probed(&mut self, backend_id: BackendId, outcome: Result<(), Failure>, now_ms: u64);
    fn request_failed(&mut self, backend_id: BackendId, failure: Failure, now_ms: u64);
    fn set_peer(&mut self, index: usize, view: Option<View>);
    fn set_owed(&mut self, backend_id: BackendId, owed: usize);
    /// A session could not be moved.
    fn move_failed(&mut self, from: BackendId, to: BackendId, now_ms: u64);
    /// The replicas of these slots have missed something.
    fn copies_missed(&mut self, slots: &[usize], now_ms: u64);
    /// Whether the data path goes by all that is in force, and no copy is under way of what is at a
    /// server that is down.
    fn set_followed(&mut self, is_followed: bool);
    fn tick(&mut self, now_ms: u64);
    fn slots(&self) -> Vec<SlotState>;
    fn target(&self, index: usize) -> BackendId;
    fn members(&self) -> Vec<Seen>;
    /// What to tell a peer.
    fn view(&self) -> View;
}

/// Which brain a world's proxies have.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) config: Config,
    pub(crate) slots: Vec<Slot>,
    pub(crate) is_whole: bool,
    pub(crate) broken: Option<Broken>,
    /// Whether each session is kept twice.
    pub(crate) replicas: bool,
}

impl Maker {
    /// A brain without a past; all servers have answered it.
    pub(crate) fn begin(&self, edition: &Edition, now_ms: u64) -> Box<dyn Brain> {
        let mut brain: Box<dyn Brain> = if self.is_whole {
            let map = maps::map(&edition.spec, edition.version);
            Box::new(Whole {
                pool_state: PoolState::new(self.config.clone(), map, now_ms).unwrap(),
                slots: self.slots.clone(),
            })
        } else {
            Box::new(Pool::new(self, edition, now_ms))
        };
        for member in brain.members() {
            brain.probed(member.backend_id, Ok(()), now_ms);
        }
        brain
    }

    pub(crate) fn resume(&self, remembered: Remembered, now_ms: u64) -> Box<dyn Brain> {
        match remembered {
            Remembered::Pool(memory) => Box::new(Pool::resume(self, memory, now_ms)),
            Remembered::Engine(memory) => Box::new(Whole {
                pool_state: PoolState::resume(self.config.clone(), memory, now_ms).unwrap(),
                slots: self.slots.clone(),
            }),
        }
    }
}

impl View {
    pub(crate) fn new(
        version: u64,
        slots: Vec<SlotState>,
        up: Vec<BackendId>,
        owed: Vec<BackendId>,
    ) -> Self {
        Self {
            version,
            slots,
            up,
            owed,
            off: Vec::new(),
            gone: Places::default(),
            heard_ms: 0,
            all: None,
        }
    }

    /// The view as it is read at `now_ms`, said at `said_ms`: what was under way for a while looks
    /// younger than it is.
    pub(crate) fn heard(mut self, said_ms: u64, now_ms: u64) -> Self {
        let here = |at_ms: u64| now_ms - said_ms.saturating_sub(at_ms);
        let slots = self.slots.iter_mut().chain(self.all.iter_mut().flatten());
        for slot in slots {
            slot.since_ms = here(slot.since_ms);
            if let Some(before) = &mut slot.before {
                before.since_ms = here(before.since_ms);
            }
            slot.outdated = slot.outdated.since(here(slot.outdated.since_ms()));
            if let Some(replica) = &mut slot.replica {
                replica.since_ms = here(replica.since_ms);
            }
        }
        self.heard_ms = now_ms;
        self
    }
}

/// The pool state itself.
#[derive(Debug)]
struct Whole {
    pool_state: PoolState,
    slots: Vec<Slot>,
}

impl Brain for Whole {
    fn memory(&self) -> Remembered {
        Remembered::Engine(self.pool_state.memory())
    }

    fn version(&self) -> u64 {
        self.pool_state.map().version
    }

    fn accept(&mut self, edition: &Edition, now_ms: u64) {
        let map = maps::map(&edition.spec, edition.version);
        self.pool_state.accept(map, now_ms).unwrap();
    }

    fn probed(&mut self, backend_id: BackendId, outcome: Result<(), Failure>, now_ms: u64) {
        self.pool_state.probed(backend_id, outcome, now_ms);
    }

    fn request_failed(&mut self, backend_id: BackendId, failure: Failure, now_ms: u64) {
        self.pool_state.request_failed(backend_id, failure, now_ms);
    }

    fn set_peer(&mut self, index: usize, view: Option<View>) {
        let view = view.map(|view| PeerView {
            map_version: view.version,
            slots: view.all.unwrap_or_default(),
            up: view.up,
            pending: view.owed,
            servers: None,
            off: view
                .off
                .iter()
                .map(|backend_id| maps::name(backend_id.id()))
                .collect(),
            gone: view.gone,
            decisions: Vec::new(),
            timeouts: SeenTimeouts::default(),
            membership: self.pool_state.membership().clone(),
            heard_ms: view.heard_ms,
        });
        self.pool_state.set_peer(index, view);
    }

    fn set_owed(&mut self, backend_id: BackendId, owed: usize) {
        self.pool_state.set_pending_deletes(backend_id, owed);
    }

    fn move_failed(&mut self, from: BackendId, to: BackendId, now_ms: u64) {
        let members = self.pool_state.members();
        let metrics = |backend_id| {
            let mut members = members.iter();
            let member = members.find(|member| member.backend_id == backend_id);
            member.map(|member| Arc::clone(&member.metrics))
        };
        if let (Some(from_metrics), Some(to)) = (metrics(from), metrics(to)) {
            let shard = to.shard(0);
            shard.count_failed_move(&from_metrics, from, Some(400));
        }
        self.pool_state.look_for_failed_moves(now_ms);
    }

    fn copies_missed(&mut self, slots: &[usize], now_ms: u64) {
        let slots: Vec<Slot> = slots.iter().map(|slot| self.slots[*slot]).collect();
        self.pool_state.copies_missed(&slots, now_ms);
    }

    fn set_followed(&mut self, is_followed: bool) {
        self.pool_state.set_followed(is_followed);
    }

    fn tick(&mut self, now_ms: u64) {
        self.pool_state.tick(now_ms);
    }

    fn slots(&self) -> Vec<SlotState> {
        let all = self.pool_state.slots();
        self.slots.iter().map(|slot| all[slot.index()]).collect()
    }

    fn target(&self, index: usize) -> BackendId {
        self.pool_state.target(self.slots[index])
    }

    fn members(&self) -> Vec<Seen> {
        let members = self.pool_state.members().iter();
        let seen = members.map(|member| Seen {
            backend_id: member.backend_id,
            verdict: Seen::verdict(&member.health),
            owed: member.pending_deletes,
            is_off: member.is_off(),
        });
        seen.collect()
    }

    fn view(&self) -> View {
        let members = self.pool_state.members().iter();
        let up = members.clone();
        let up = up.filter(|member| member.is_up() && !member.is_off());
        let off = members.clone().filter(|member| member.is_off());
        let owing = members
            .filter(|member| member.pending_deletes > 0 || self.pool_state.is_given_up(member));
        View {
            off: off.map(|member| member.backend_id).collect(),
            gone: self.pool_state.gone().into_iter().collect(),
            all: Some(self.pool_state.slots().to_vec()),
            ..View::new(
                self.version(),
                self.slots(),
                up.map(|member| member.backend_id).collect(),
                owing.map(|member| member.backend_id).collect(),
            )
        }
    }
}

/// The addresses of so many peers.
pub(crate) fn peers(count: usize) -> Vec<BackendAddress> {
    let address = |index| BackendAddress::parse(&format!("10.0.1.{}:42480", index + 1));
    (0..count).map(|index| address(index).unwrap()).collect()
}

/// Shared by all that is said about placements.
pub(crate) type Placed = Arc<staterouter::route::Placement>;
