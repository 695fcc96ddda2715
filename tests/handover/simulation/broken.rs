//! Rules left out or turned round: the simulation has to notice each of them.

use std::time::Duration;

use staterouter::config::Config;
use staterouter::handover::{
    COPY_LOCK, ClientRequest, NO_LOCK, Outdated, Replica, ReplicaPhase, SlotRoute, SlotState,
    Stage, Standing, Standings, Subrequest, SubrequestReply, Surroundings, advance,
};

use super::control::places;
use super::net::Op;

/// The bits of a lock cookie that its server counts with.
const COUNTER: u32 = 0xff_ffff;
/// What a server counts the first lock of an item as.
const FIRST_LOCK: u32 = 2;

/// One rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// An item that moves past a search is called absent.
    NoSecondLook,
    /// What the second place gave in settle is passed on without a look at the first.
    NoConfirm,
    /// The copy of an item that is being moved passes for a new session.
    NoFlagCheck,
    /// A read passes on the flag of whatever it has found.
    ReadsPassFlags,
    /// A removal leaves what is at the second place.
    NoClear,
    /// Removals that a server out of reach misses are forgotten.
    NoOwed,
    /// A move whose copy is unknown is answered with the lock of the original.
    OldLock,
    /// Every lock in the way may be broken by a removal, also that of a living mover.
    YoungLocks,
    /// Nobody looks at which server a lock is from.
    NoTags,
    /// No stage waits for the other proxies.
    NoSettle,
    /// New items are created at the first place as soon as anything moves.
    NoMove1,
    /// A stand-in serves before the other proxies have stopped.
    NoSuspect,
    /// What has returned is served from before the other proxies know.
    NoBack,
    /// Nothing waits until what is left behind has died.
    NoLifetime,
    /// Nobody remembers which servers have been stood in for.
    NoOutdated,
    /// Each proxy decides alone whether a server is down.
    NoPeers,
    /// A handover ends whether or not its sessions can be moved.
    NoHold,
    /// A server that was given up is left without waiting for the other proxies.
    NoAgreement,
    /// Restarted proxies have forgotten where the slots are, and no peer tells them.
    NoMemory,
    /// A write is copied once its place has it.
    TruthFirst,
    /// A write is copied once more when its place has it.
    CopyTwice,
    /// Copies of sessions that are only read are not touched.
    NoKeepAlive,
    /// Each proxy goes on with a replica when it wants to.
    NoCopyAgreement,
    /// A replica is full as soon as all copy.
    FullAtOnce,
    /// A copy that was missed does not matter.
    NoMiss,
    /// The copy of a write that its place has refused stays.
    NoUndo,
    /// A server whose replica has gone on gets the slot when it returns.
    HomeAtOnce,
    /// A server whose copies count no more may get the slot.
    CopiesAtOnce,
    /// A replica is asked before the place that still has locks.
    CopiesFirst,
    /// The copy of what is found is marked as new.
    CopyWithFlag,
    /// A copy is written with the cookie of a lock.
    CopyUnderLock,
    /// What is read is copied without a lock at its place.
    CopyWithoutLock,
    /// A copy from before the replica was filled counts.
    OldCopies,
    /// What is lost is stored anew from its copy, whatever has become of the replica since.
    RestoreLate,
    /// The same, whether or not the other proxies are heard.
    RestoreUnheard,
}

impl Broken {
    /// The times of stages.
    pub(crate) fn set_times(self, config: &mut Config) {
        const NONE: Duration = Duration::from_millis(1);
        let handover = &mut config.handover;
        match self {
            Self::NoSettle => handover.settle = NONE,
            Self::NoLifetime => {
                handover.session_timeout = NONE;
                handover.takeover = NONE;
            }
            _ => {}
        }
    }

    /// What a proxy reads of a client's request.
    pub(crate) fn read(self, op: Op) -> Op {
        match (self, op) {
            (Self::NoTags, Op::Release(cookie)) => Op::Release(cookie & COUNTER),
            (Self::NoTags, Op::Remove(cookie)) => Op::Remove(cookie & COUNTER),
            (Self::NoTags, Op::Put { cookie, version }) => Op::Put {
                cookie: cookie & COUNTER,
                version,
            },
            _ => op,
        }
    }

    /// Where a request takes its slot to be.
    pub(crate) fn route(self, route: SlotRoute) -> SlotRoute {
        let has_stand_in = route.second != Some(route.first);
        let stage = match (self, route.stage) {
            (Self::NoMove1, Stage::Move1) => Stage::Move2,
            (Self::NoSuspect, Stage::Suspect) if has_stand_in => Stage::Away,
            (Self::NoBack, Stage::Back) => Stage::Wait,
            (_, stage) => stage,
        };
        SlotRoute { stage, ..route }
    }

    /// What is asked instead of what a question says.
    pub(crate) fn ask(self, ask: Subrequest, route: SlotRoute, op: Op) -> Op {
        match (self, ask, op) {
            (Self::CopyWithFlag, Subrequest::CopyHeld { .. }, Op::Put { version, .. }) => {
                Op::Insert { version }
            }
            (Self::CopyUnderLock, Subrequest::Copy { .. }, Op::Put { version, .. }) => Op::Put {
                cookie: FIRST_LOCK,
                version,
            },
            (Self::CopyWithoutLock, Subrequest::Acquire { at }, _) if route.first == at => Op::Read,
            _ => op,
        }
    }

    /// Where a slot goes on without the rule.
    pub(crate) fn advance(self, slot: SlotState, around: &Surroundings<'_>) -> SlotState {
        let mut before = slot;
        let mut peers = around.peers.to_vec();
        let mut standings = around.standings.clone();
        let mut around = *around;
        match self {
            Self::NoAgreement => {
                for backend_id in places() {
                    let insisted = true;
                    let standing = standings.get(backend_id);
                    standings.set(
                        backend_id,
                        Standing {
                            insisted,
                            ..standing
                        },
                    );
                }
            }
            Self::NoHold => around.move_failed_ms = None,
            Self::NoOutdated => {
                let slots = peers.iter_mut().flatten().map(|peer| &mut peer.slot);
                for slot in slots.chain([&mut before]) {
                    forget_outdated(slot, &standings);
                }
            }
            Self::NoCopyAgreement
                if slot.stage == Stage::Suspect
                    && slot.replica_in(ReplicaPhase::Full).is_some() =>
            {
                peers.clear();
            }
            _ => {}
        }
        let around = Surroundings {
            peers: &peers,
            standings: &standings,
            ..around
        };
        self.slot(before, advance(before, &around))
    }

    /// What is left of a slot's state where a rule of its replica is not kept.
    fn slot(self, before: SlotState, after: SlotState) -> SlotState {
        let Some(replica) = before.replica else {
            return after;
        };
        let copies = replica.backend_id;
        let is_served = after.places().any(|place| place == copies);
        let goes_on = before.stage == Stage::Suspect && after.stage != Stage::Away && is_served;
        match (self, before.second, after.replica) {
            (Self::HomeAtOnce, Some(failed), _) if goes_on => SlotState {
                outdated: after.outdated.without(failed),
                ..after
            },
            (Self::CopiesFirst, _, _) if goes_on && after.second == Some(copies) => SlotState {
                first: copies,
                second: Some(after.first),
                ..after
            },
            (Self::CopiesAtOnce, _, None) if !is_served => SlotState {
                outdated: after.outdated.without(copies),
                ..after
            },
            (Self::FullAtOnce, _, Some(there)) if there.phase == ReplicaPhase::Filling => {
                let phase = ReplicaPhase::Full;
                let replica = Some(Replica { phase, ..there });
                SlotState { replica, ..after }
            }
            _ => after,
        }
    }

    /// What is taken for the answer to a question that is not asked.
    pub(crate) fn instead(
        self,
        ask: Subrequest,
        request: ClientRequest,
        route: SlotRoute,
        is_absent_at_second: bool,
    ) -> Option<SubrequestReply> {
        const DONE: SubrequestReply = SubrequestReply::Done {
            counter: 0,
            flag: false,
        };
        let finds = matches!(request, ClientRequest::Acquire | ClientRequest::Read);
        let is_skipped = match (self, ask) {
            (Self::NoSecondLook, Subrequest::Client { at, .. }) => {
                finds && is_absent_at_second && at == route.first
            }
            (Self::NoConfirm, Subrequest::Look { at }) => {
                finds && route.stage == Stage::Settle && at == route.first
            }
            (Self::NoFlagCheck, Subrequest::Remove { counter, .. }) => finds && counter == NO_LOCK,
            (Self::NoClear, Subrequest::Remove { counter, .. }) => {
                matches!(request, ClientRequest::Remove(_)) && counter == NO_LOCK
            }
            (Self::NoUndo, Subrequest::Remove { counter, .. }) => {
                matches!(request, ClientRequest::Put(_)) && counter == COPY_LOCK
            }
            (Self::NoOwed, Subrequest::NoteDelete { .. })
            | (Self::TruthFirst, Subrequest::Copy { .. }) => return Some(DONE),
            _ => false,
        };
        is_skipped.then_some(SubrequestReply::Absent)
    }
}

/// Makes what a suspect slot was look as if its places had not been stood in for lately.
fn forget_outdated(slot: &mut SlotState, standings: &Standings) {
    slot.outdated = Outdated::NONE;
    let is_down = |backend_id| standings.get(backend_id).up_since_ms.is_none();
    if let (true, Some(before)) = (slot.second.is_some_and(is_down), &mut slot.before) {
        before.since_ms = 0;
    }
}
