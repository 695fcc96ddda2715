//! What a run is about: places, stages, requests, faults, and the rule that is broken.

use staterouter::handover::{BackendId, ReplicaPhase, SlotRoute, Stage};

/// Backends by index; their place has the next higher number.
pub(crate) const A: u8 = 0;
pub(crate) const B: u8 = 1;
/// Keeps the copies.
pub(crate) const C: u8 = 2;

/// Most web requests, proxies and backends.
pub(crate) const REQUESTS: usize = 3;
pub(crate) const PROXIES: usize = 2;
pub(crate) const PLACES: usize = 3;

/// One stage on the way of a slot.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) route: SlotRoute,
    /// The legs that may come next.
    pub(crate) next: Vec<u8>,
    /// What is gone from which place when the first proxy gets here: the leg before has lasted a
    /// lifetime.
    pub(crate) gone: Option<(Gone, u8)>,
    /// Owed removals are carried out before this leg is entered.
    pub(crate) replay: bool,
}

/// What a lifetime ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The session has moved or died.
    Session,
    /// What is masked by the session elsewhere has died.
    Debris,
    /// Nothing is left.
    All,
    /// Everywhere: whatever nobody has used in this time.
    Unused,
}

/// Faults that may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Requests or answers that get lost.
    pub(crate) lost: u8,
    /// Requests that take effect after their asker has given up.
    pub(crate) delayed: u8,
    /// Operations whose proxy dies in the middle of them.
    pub(crate) deaths: u8,
    /// Locks broken by a page.
    pub(crate) takeovers: u8,
    /// Backends that lose their memory.
    pub(crate) crashes: u8,
    /// Items that expire although the session goes on elsewhere.
    pub(crate) expiries: u8,
    /// Copies that their new place refuses.
    pub(crate) refused: u8,
}

/// What the pages do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) acquire: bool,
    pub(crate) read: bool,
    pub(crate) touch: bool,
    pub(crate) delete: bool,
    /// A page that finds nothing stores its session at its end, under no lock.
    pub(crate) fresh: bool,
}

/// A rule left out. Each overrides steps of the real code on their way to the servers, or the
/// order of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The first place is not asked again after the second.
    NoSecondLook,
    /// Cookies go to clients without their place.
    NoTags,
    /// Stages do not wait for operations under way.
    ShortStages,
    /// A move that fails is answered with the lock of the second place.
    OldLock,
    /// Every lock counts as old for the one who removes debris.
    ForceYoung,
    /// A removal does not clear the second place.
    NoClearing,
    /// The flag of a copy is believed.
    FlagBelieved,
    /// A read passes on the flag of whatever it has found.
    ReadsPassFlags,
    /// Move 1 creates at the first place.
    CreateAtFirst,
    /// Removals at a stand-in are not remembered.
    NoOwed,
    /// Proxies need not be neighbours.
    NoAgreement,
    /// What the second place gave is not confirmed in these stages.
    NoConfirm(&'static [Stage]),
    /// What is read at a place that is being left does not keep the slot from leaving it.
    ShortLifetime,
    /// A proxy waits for its own owed removals only.
    OwnOwedOnly,
    /// What is under way at a server that is down is still waited for.
    NoBreakOff,
    /// What lies behind a new item is taken for what it was copied from, wherever that may be.
    OutdatedIsCopied,
    /// A write is made at its place first, and copied then.
    TruthFirst,
    /// A copy comes with the client's own lock.
    CopyWithItsLock,
    /// What was copied is copied once more when it is stored at its place.
    CopyAgain,
    /// A copy is not kept alive.
    NoKeepAlive,
    /// A replica that is filling is taken to have each item as it is.
    OldCopiesTrusted,
    /// What copies an item that it reads takes no lock for that.
    CopyWithoutLock,
    /// A copy that was missed is forgotten, and its write is made.
    NoMiss,
    /// The copy of a write that was refused stays.
    NoUndo,
    /// What is found is copied with its flag.
    CopyWithFlag,
    /// The slot goes on with the replica while copies are under way.
    NoWaitForCopies,
    /// What is kept alive is copied although it may be new.
    NewIsCopied,
    /// The first lock of a session copies nothing.
    NoFirstCopy,
    /// A copy that was removed, and cannot be written anew, is forgotten.
    NotAnew,
    /// No rule: what no rule can hold is not cut off.
    NoLimits,
}

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) legs: Vec<Leg>,
    pub(crate) proxies: usize,
    /// Pages per web request.
    pub(crate) rounds: [u8; REQUESTS],
    pub(crate) pages: Pages,
    /// Where the session is at first.
    pub(crate) session: Option<u8>,
    pub(crate) budget: Budget,
    pub(crate) broken: Broken,
    /// Whether a new session must be announced as new.
    pub(crate) starts: bool,
    /// Whether a copy of a proxy that has died may arrive after the slot has gone on.
    pub(crate) late_copies: bool,
    /// Whether each copy is due for a keep-alive.
    pub(crate) idle: bool,
    /// Where an outdated item lies at first.
    pub(crate) outdated: Option<u8>,
}

impl Config {
    pub(crate) fn new(legs: Vec<Leg>, rounds: &[u8]) -> Self {
        let mut all = [0; REQUESTS];
        all[..rounds.len()].copy_from_slice(rounds);
        Self {
            legs,
            proxies: PROXIES,
            rounds: all,
            pages: Pages {
                acquire: true,
                read: false,
                touch: false,
                delete: false,
                fresh: false,
            },
            session: None,
            budget: Budget::default(),
            broken: Broken::Nothing,
            starts: false,
            late_copies: false,
            idle: false,
            outdated: None,
        }
    }

    pub(crate) fn session(mut self, at: u8) -> Self {
        self.session = Some(at);
        self
    }

    pub(crate) fn reads(mut self) -> Self {
        self.pages.read = true;
        self
    }

    pub(crate) fn touches(mut self) -> Self {
        self.pages.touch = true;
        self
    }

    pub(crate) fn deletes(mut self) -> Self {
        self.pages.delete = true;
        self
    }

    pub(crate) fn fresh(mut self) -> Self {
        self.pages.fresh = true;
        self
    }

    pub(crate) fn late_copies(mut self) -> Self {
        self.late_copies = true;
        self
    }

    pub(crate) fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    pub(crate) fn outdated(mut self, at: u8) -> Self {
        self.outdated = Some(at);
        self
    }

    pub(crate) fn broken(mut self, broken: Broken) -> Self {
        self.broken = broken;
        self
    }

    pub(crate) fn starts(mut self) -> Self {
        self.starts = true;
        self
    }

    pub(crate) fn refused(mut self, count: u8) -> Self {
        self.budget.refused = count;
        self
    }

    pub(crate) fn alone(mut self) -> Self {
        self.proxies = 1;
        self
    }

    pub(crate) fn lost(mut self, count: u8) -> Self {
        self.budget.lost = count;
        self
    }

    pub(crate) fn delayed(mut self, count: u8) -> Self {
        self.budget.delayed = count;
        self
    }

    pub(crate) fn deaths(mut self, count: u8) -> Self {
        self.budget.deaths = count;
        self
    }

    pub(crate) fn takeovers(mut self, count: u8) -> Self {
        self.budget.takeovers = count;
        self
    }

    pub(crate) fn crashes(mut self, count: u8) -> Self {
        self.budget.crashes = count;
        self
    }

    pub(crate) fn expiries(mut self, count: u8) -> Self {
        self.budget.expiries = count;
        self
    }

    /// Whether it matters which proxy is which.
    pub(crate) fn has_owed(&self) -> bool {
        self.legs.iter().any(|leg| leg.route.stage == Stage::Away) || self.has_copies()
    }

    /// Whether the slot has a replica.
    pub(crate) fn has_copies(&self) -> bool {
        self.legs.iter().any(|leg| leg.route.replica.is_some())
    }

    /// Where copies are in this leg, if it is in that phase.
    pub(crate) fn copies_in(&self, leg: u8, phase: ReplicaPhase) -> Option<u8> {
        let replica = self.legs[usize::from(leg)].route.replica;
        let replica = replica.filter(|replica| replica.phase == phase)?;
        Some(replica.at.id() - 1)
    }

    /// The server that is down in this leg.
    pub(crate) fn down_in(&self, leg: u8) -> Option<u8> {
        let route = self.legs[usize::from(leg)].route;
        let failed = route.second.filter(|_| route.stage == Stage::Suspect)?;
        Some(failed.id() - 1)
    }

    /// Whether the slot has left this server when it gets to this leg.
    pub(crate) fn has_left(&self, leg: u8, at: u8) -> bool {
        let route = self.legs[usize::from(leg)].route;
        route.left.contains(backend_id(at))
    }
}

pub(crate) fn backend_id(index: u8) -> BackendId {
    BackendId::new(index + 1).unwrap()
}
