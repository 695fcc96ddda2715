//! Where the items of one slot can be, and what is done with them there.

use super::BackendId;

/// One slot: the place that is asked first, the second place if there is one, and the stage.
///
/// A slot never has more than two places: a change that meets a handover waits until that one has
/// ended, and only the newest target counts then. So no order of three places has to be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotState {
    /// Asked first; its copy of an item is the true one.
    pub first: BackendId,
    /// Where items may be as well: the earlier owner, or a server that failed. `None` exactly in
    /// [`Stage::Steady`].
    pub second: Option<BackendId>,
    /// What is going on.
    pub stage: Stage,
    /// When the stage began, Unix time in milliseconds.
    pub since_ms: u64,
    /// Where the slot was when it became suspect; `None` in every other stage.
    pub before: Option<Before>,
    /// Where else there may be outdated items.
    pub outdated: Outdated,
    /// Who keeps a copy of each item, if anybody does.
    pub replica: Option<Replica>,
}

/// The backend that keeps a copy of each item of a slot.
///
/// It is none of the slot's places, and nobody is served from it before one of them has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The backend.
    pub backend_id: BackendId,
    /// How far it is.
    pub phase: ReplicaPhase,
    /// When the phase began, Unix time in milliseconds.
    pub since_ms: u64,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaPhase {
    /// It is to be the replica. Nothing is copied before every proxy knows: one that gets the slot by
    /// a handover meanwhile must hold nothing.
    Chosen,
    /// Writes are copied, but not by every proxy yet.
    Joining,
    /// Every proxy copies what it writes, and each item that it finds for the first time.
    Filling,
    /// It has every item of the slot.
    Full,
    /// It has missed something: writes wait until no other proxy relies on it any more.
    Dropping,
}

impl ReplicaPhase {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Chosen,
        Self::Joining,
        Self::Filling,
        Self::Full,
        Self::Dropping,
    ];

    /// Whether what is written is copied.
    #[must_use]
    pub const fn is_copied(self) -> bool {
        matches!(self, Self::Joining | Self::Filling | Self::Full)
    }

    /// Its name in metrics, reports and the documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Joining => "joining",
            Self::Filling => "filling",
            Self::Full => "full",
            Self::Dropping => "dropping",
        }
    }
}

/// What a suspect slot returns to if its server answers again in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Before {
    /// Its first place then.
    pub first: BackendId,
    /// Its second place then.
    pub second: Option<BackendId>,
    /// The stage it was in.
    pub stage: Stage,
    /// When that stage began, Unix time in milliseconds.
    pub since_ms: u64,
}

/// Places whose items of a slot may be outdated because another place has served it meanwhile.
///
/// They must not be served from before one lifetime has passed since then. The second place of a
/// slot that is away, back or waiting may hold outdated items by its nature, and is not here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outdated {
    /// A bit per id.
    places: u128,
    since_ms: u64,
}

/// What is going on in a slot. "First" and "second" are its places.
///
/// A handover goes settle, move 1, move 2, steady, or from move 1 or 2 to turned and from there to a
/// handover back; a failure suspect, away, back, wait, then a
/// handover home. Proxies may be one stage apart, never two (`docs/handover.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Everything is at the first place.
    Steady,
    /// Handover from second to first, until every proxy knows of it: nothing is moved, new items
    /// are created at the second place, what others have moved already is found.
    Settle,
    /// An acquire moves its item from second to first; new items are created at the second place.
    Move1,
    /// The same, new items are created at the first place.
    Move2,
    /// The first place is to be left: nothing is moved to it any more, what is at either place is
    /// served there, until what masked items have left behind at the second has died. Then the
    /// handover goes the other way. New items are created at the first place.
    Turned,
    /// The second place does not answer: requests are refused until it does or all proxies agree
    /// to go on without it, with the first instead. If what the first holds may be outdated, nobody
    /// can stand in yet.
    Suspect,
    /// The first place stands in for the second: what is there is out of reach, and counts as
    /// absent. The second misses deletes, which are noted.
    Away,
    /// The second place answers again: an item that only it has is refused until every proxy
    /// knows of the return.
    Back,
    /// What is at either place is served there and nothing moves, until the outdated copies at the
    /// second place have died. New items are created at the first.
    Wait,
}

impl SlotState {
    /// A slot whose items are all at `place`.
    #[must_use]
    pub const fn steady(backend_id: BackendId, since_ms: u64) -> Self {
        Self {
            first: backend_id,
            second: None,
            stage: Stage::Steady,
            since_ms,
            before: None,
            outdated: Outdated::NONE,
            replica: None,
        }
    }

    /// The same with all its times read by another clock.
    #[must_use]
    pub fn read_by(self, here: impl Fn(u64) -> u64) -> Self {
        Self {
            since_ms: here(self.since_ms),
            before: self.before.map(|before| Before {
                since_ms: here(before.since_ms),
                ..before
            }),
            outdated: self.outdated.since(here(self.outdated.since_ms())),
            replica: self.replica.map(|replica| Replica {
                since_ms: here(replica.since_ms),
                ..replica
            }),
            ..self
        }
    }

    /// Where what is written is copied to.
    #[must_use]
    pub fn copied_to(&self) -> Option<BackendId> {
        let replica = self.replica.filter(|replica| replica.phase.is_copied())?;
        Some(replica.backend_id)
    }

    /// The replica, if it is in this phase.
    #[must_use]
    pub fn replica_in(&self, phase: ReplicaPhase) -> Option<BackendId> {
        let replica = self.replica.filter(|replica| replica.phase == phase)?;
        Some(replica.backend_id)
    }

    /// The places that clients are sent to now. What is suspect waits, and may wait for one that only
    /// other proxies know, because they stand there.
    pub fn serving(&self) -> impl Iterator<Item = BackendId> + use<> {
        let is_served = self.stage != Stage::Suspect;
        let places = [Some(self.first), self.second];
        places.into_iter().flatten().filter(move |_| is_served)
    }

    /// The places that are served from, or that may be once the slot is suspect no more. A place
    /// can be there twice.
    pub fn places(&self) -> impl Iterator<Item = BackendId> + Clone + use<> {
        let before = self.before;
        let places = [
            Some(self.first),
            self.second,
            before.map(|before| before.first),
            before.and_then(|before| before.second),
        ];
        places.into_iter().flatten()
    }
}

impl Outdated {
    /// No place.
    pub const NONE: Self = Self {
        places: 0,
        since_ms: 0,
    };

    /// These places and those there are already, as of `since_ms`; unchanged if `places` is empty.
    #[must_use]
    pub fn with(self, places: impl IntoIterator<Item = BackendId>, since_ms: u64) -> Self {
        let added = places
            .into_iter()
            .fold(0, |added, backend_id| added | bit(backend_id));
        match added {
            0 => self,
            _ => Self {
                places: self.places | added,
                since_ms,
            },
        }
    }

    /// All but this place.
    #[must_use]
    pub const fn without(self, backend_id: BackendId) -> Self {
        match self.places & !bit(backend_id) {
            0 => Self::NONE,
            places => Self { places, ..self },
        }
    }

    /// The same places as of another time; nothing if there are none.
    #[must_use]
    pub const fn since(self, since_ms: u64) -> Self {
        match self.places {
            0 => Self::NONE,
            _ => Self { since_ms, ..self },
        }
    }

    /// Whether this is one of them.
    #[must_use]
    pub const fn contains(self, backend_id: BackendId) -> bool {
        self.places & bit(backend_id) != 0
    }

    /// The places as a set.
    #[must_use]
    pub const fn set(self) -> Places {
        Places(self.places)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.places == 0
    }

    /// The places, ascending by id.
    pub fn places(self) -> impl Iterator<Item = BackendId> {
        let mut left = self.places;
        std::iter::from_fn(move || {
            // None are left at 128.
            let backend_id = BackendId::new(left.trailing_zeros() as u8)?;
            left &= !bit(backend_id);
            Some(backend_id)
        })
    }

    /// When the last of them was left, Unix time in milliseconds; 0 if there are none.
    #[must_use]
    pub const fn since_ms(self) -> u64 {
        self.since_ms
    }
}

const fn bit(backend_id: BackendId) -> u128 {
    1 << backend_id.id()
}

/// A set of places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Places(u128);

impl Places {
    /// No place.
    pub const NONE: Self = Self(0);

    /// Whether this is one of them.
    #[must_use]
    pub const fn contains(self, backend_id: BackendId) -> bool {
        self.0 & bit(backend_id) != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<BackendId> for Places {
    fn from_iter<T: IntoIterator<Item = BackendId>>(places: T) -> Self {
        Self(
            places
                .into_iter()
                .fold(0, |all, backend_id| all | bit(backend_id)),
        )
    }
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Steady,
        Self::Settle,
        Self::Move1,
        Self::Move2,
        Self::Turned,
        Self::Suspect,
        Self::Away,
        Self::Back,
        Self::Wait,
    ];

    /// Its name in metrics, reports and the documents: what `docs/handover.md` defines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Settle => "settle",
            Self::Move1 => "move1",
            Self::Move2 => "move2",
            Self::Turned => "turned",
            Self::Suspect => "suspect",
            Self::Away => "away",
            Self::Back => "back",
            Self::Wait => "wait",
        }
    }

    /// What an operator reads in its place, in the log, at the terminal and on the page.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Steady => "at rest",
            Self::Settle => "about to move",
            Self::Move1 | Self::Move2 => "moving",
            Self::Turned => "about to move back",
            Self::Suspect => "refused",
            Self::Away => "failed over",
            Self::Back => "returned, settling",
            Self::Wait => "returned",
        }
    }

    /// Whether items are on their way from the second place to the first, or were until just now.
    #[must_use]
    pub const fn is_handover(self) -> bool {
        matches!(
            self,
            Self::Settle | Self::Move1 | Self::Move2 | Self::Turned
        )
    }
}
