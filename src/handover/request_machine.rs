//! One request of a client against a slot: what to ask next, given the last answer.
//!
//! The driver (data path, model or simulation) sends what a [`Step`] says and hands back what it
//! saw. It holds the answer to the last [`Subrequest::Client`] until a [`Step::Pass`] sends it on.
//! `docs/handover.md` gives the rules as tables and the reason of each.

mod find;
mod remove;
mod replicate;
mod write;

use self::find::Find;
use self::remove::Remove;
use self::replicate::Copying;
pub use self::replicate::LOCKED_REFRESH_S;
use super::{BackendId, Cookie, Places, Replica, ReplicaPhase, Stage};

/// Most times a request starts over because its item moved meanwhile.
const MAX_RESTARTS: u8 = 3;

/// The places and the stage of the slot a request falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotRoute {
    /// Asked first.
    pub first: BackendId,
    /// The other place, when there is one.
    pub second: Option<BackendId>,
    /// What is going on.
    pub stage: Stage,
    /// Places that the slot has left with items that may be outdated: a lock of theirs is void.
    pub left: Places,
    /// Who keeps a copy of each item, if anybody does.
    pub replica: Option<ReplicaRoute>,
}

/// The replica of the slot a request falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplicaRoute {
    /// The backend.
    pub at: BackendId,
    /// How far it is.
    pub phase: ReplicaPhase,
    /// Since when, Unix time in milliseconds.
    pub since_ms: u64,
    /// Whether this proxy knows that the item has been copied there in this phase.
    pub has_copy: bool,
    /// Whether the copy was written or touched so lately that it needs no keep-alive.
    pub is_fresh: bool,
}

/// What a client asks for, as far as a decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientRequest {
    /// Shared read.
    Read,
    /// Keep alive.
    Touch,
    /// Read and lock.
    Acquire,
    /// Unlock.
    Release(Cookie),
    /// Store and unlock.
    Put(Cookie),
    /// Store unless it exists.
    Create,
    /// Remove.
    Remove(Cookie),
}

/// One question to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subrequest {
    /// The client's own request, which has no body; its answer is held.
    Client {
        /// Whom to ask.
        at: BackendId,
        /// The lock cookie to send in place of the client's; `None` leaves the request as it is.
        counter: Option<u32>,
    },
    /// The item and its lock, for a request that asks for no lock (GET, `Exclusive: acquire`); the
    /// answer is held.
    Acquire {
        /// Whom to ask.
        at: BackendId,
    },
    /// Whether the item is there (HEAD).
    Look {
        /// Whom to ask.
        at: BackendId,
    },
    /// Store the item of the held answer, with its timeout, unless one is there (PUT,
    /// `ExtraFlags: 1`).
    Insert {
        /// Whom to ask.
        at: BackendId,
    },
    /// Unlock (GET, `Exclusive: release`).
    Release {
        /// Whom to ask.
        at: BackendId,
        /// The lock.
        counter: u32,
    },
    /// Remove (DELETE).
    Remove {
        /// Whom to ask.
        at: BackendId,
        /// The lock.
        counter: u32,
    },
    /// Note down, so that it survives this process, that the item has to be removed from a server
    /// that is out of reach.
    NoteDelete {
        /// The server.
        to: BackendId,
    },
    /// Store what the client stores at the replica, too (PUT, [`COPY_LOCK`](super::COPY_LOCK)).
    Copy {
        /// Whom to ask.
        at: BackendId,
    },
    /// Store the item of the held answer at the replica, in place of what is there (PUT,
    /// [`COPY_LOCK`](super::COPY_LOCK)).
    CopyHeld {
        /// Whom to ask.
        at: BackendId,
    },
    /// The copy at the replica, without its lock (GET); the answer is held.
    Recall {
        /// Whom to ask.
        at: BackendId,
    },
    /// Keep the copy at the replica alive. If there is none, copy the item anew from `from`.
    Refresh {
        /// The replica.
        at: BackendId,
        /// Where the item is; `None` if it may be new.
        from: Option<BackendId>,
    },
    /// The copy at the replica is gone: copy the item anew from `from`, unless it is gone as well. If
    /// it cannot be, the replica has missed it.
    CopyAnew {
        /// The replica.
        at: BackendId,
        /// Where the item is.
        from: BackendId,
    },
    /// Take note that the replica has missed something: it is to be relied on no more.
    Miss {
        /// The replica.
        at: BackendId,
    },
}

/// What came of an [`Subrequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubrequestReply {
    /// 200.
    Done {
        /// The lock that comes with it, when it is the answer to an acquire.
        counter: u32,
        /// Whether it says that the item was never initialised.
        flag: bool,
    },
    /// 404.
    Absent,
    /// 423.
    Locked {
        /// The lock in the way.
        counter: u32,
        /// How long it has been held, seconds.
        age_s: u64,
    },
    /// A whole answer that refuses: it had no effect, and will have none.
    Refused,
    /// An answer that says neither, a broken one or none: whether it took effect is unknown.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask, then come back with what was seen.
    Ask(Subrequest),
    /// Send the client's own request to a server and pass its answer on, whatever it is; nothing
    /// else is to be decided.
    Forward {
        /// The server.
        at: BackendId,
        /// The lock cookie to send in place of the client's; `None` leaves the request as it is.
        counter: Option<u32>,
    },
    /// Pass the held answer on.
    Pass {
        /// Without its flag: the item is not new, its copy is.
        clear_flag: bool,
        /// To be sent without waiting for it.
        behind: Option<Subrequest>,
    },
    /// Close the client's connection: neither an answer nor an absence can be vouched for.
    Drop {
        /// Why.
        reason: Refusal,
        /// To be sent without waiting for it.
        behind: Option<Subrequest>,
    },
}

/// Why a request gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A server that could hold the item or its lock did not say.
    #[error("a backend that may hold the session did not answer")]
    Unknown,
    /// Its server is down, and whether all proxies know is not certain yet.
    #[error("its backend is down, no other stands in yet")]
    Suspect,
    /// Only a server that has just returned has the item, or it issued the lock.
    #[error("its backend has just returned, not every proxy may know yet")]
    Returning,
    /// The lock is from before its server failed, and the session has begun anew meanwhile.
    #[error("its lock is from before the outage, the session has begun anew since")]
    BegunAnew,
    /// The lock was issued by a server that is out of reach.
    #[error("the backend that holds its lock is down")]
    LockOutOfReach,
    /// Another request is in the middle of moving the item.
    #[error("the session is being moved by another request")]
    Moving,
    /// The replica has missed a copy: the request waits until no proxy relies on it any more.
    #[error("the backend that keeps the copies did not take one")]
    CopyMissed,
    /// Its place has lost the session, and whether the copy still counts only the other proxies know.
    #[error("its backend has lost the session, and not every proxy says whether the copy counts")]
    Unheard,
    /// Somebody has locked the copy: another proxy may serve from the replica already.
    #[error("the copy of the session is locked: another proxy may serve it already")]
    CopyLocked,
    /// The item moved away again and again.
    #[error("the session moved {} times during one request", MAX_RESTARTS)]
    Restless,
}

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestMachine {
    pub(super) first: BackendId,
    pub(super) second: BackendId,
    pub(super) stage: Stage,
    /// Locks younger than this may belong to a living mover, seconds.
    pub(super) mover_s: u64,
    request: ClientRequest,
    restarts: u8,
    state: State,
    left: Places,
    replica: Option<ReplicaRoute>,
    copying: Copying,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Find(Find),
    Write(write::Write),
    Remove(Remove),
    Over,
}

impl RequestMachine {
    /// Begins `request` on a slot. `mover_s` is the longest time one request takes, in seconds:
    /// a lock that is older is not held by a request that is moving the item.
    ///
    /// Costs nothing but a few compares when the slot is steady.
    #[must_use]
    pub fn start(route: SlotRoute, request: ClientRequest, mover_s: u64) -> (Self, Step) {
        let mut search = Self {
            first: route.first,
            second: route.second.unwrap_or(route.first),
            stage: route.stage,
            mover_s,
            request,
            restarts: 0,
            state: State::Over,
            left: route.left,
            replica: route.replica,
            copying: Copying::Idle,
        };
        let step = search.begin();
        match search.replica {
            None => (search, step),
            Some(replica) => {
                let step = search.replicate(replica, step);
                (search, step)
            }
        }
    }

    /// The next step, given what came of the last [`Step::Ask`].
    pub fn next(&mut self, seen: SubrequestReply) -> Step {
        match (self.replica, self.copying) {
            (None, _) => self.next_of_request(seen),
            (Some(replica), Copying::Idle) => {
                let lock = self.lock_of_session(seen);
                let is_found = replicate::keeps_alive(seen);
                let step = self.next_of_request(seen);
                self.replicate_after(replica, step, lock, is_found)
            }
            (Some(replica), copying) => copying.next(self, replica, seen),
        }
    }

    fn next_of_request(&mut self, seen: SubrequestReply) -> Step {
        match self.state {
            State::Find(find) => find.next(self, seen),
            State::Write(write) => write.next(self, seen),
            State::Remove(remove) => remove.next(self, seen),
            State::Over => Step::dropped(Refusal::Unknown),
        }
    }

    fn begin(&mut self) -> Step {
        if self.stage == Stage::Suspect {
            return Step::dropped(Refusal::Suspect);
        }
        if let Some(foreign) = self.foreign() {
            return self.begin_foreign(foreign);
        }
        match self.request {
            ClientRequest::Read | ClientRequest::Touch | ClientRequest::Acquire => {
                Find::begin(self)
            }
            ClientRequest::Put(cookie) => write::begin_put(self, cookie),
            ClientRequest::Create => write::begin_create(self),
            ClientRequest::Release(cookie) => write::begin_release(self, cookie),
            ClientRequest::Remove(cookie) => Remove::begin(self, cookie),
        }
    }

    /// The place that issued the lock, when it is none of the slot's.
    fn foreign(&self) -> Option<(BackendId, u32)> {
        let (ClientRequest::Put(cookie)
        | ClientRequest::Release(cookie)
        | ClientRequest::Remove(cookie)) = self.request
        else {
            return None;
        };
        match cookie {
            Cookie::Tagged {
                backend_id,
                counter,
            } if backend_id != self.first && backend_id != self.second => {
                Some((backend_id, counter))
            }
            _ => None,
        }
    }

    /// Another proxy knows more than this one, or a page took longer than a whole handover. The
    /// lock is where its tag says, if anywhere.
    fn begin_foreign(&mut self, (backend_id, counter): (BackendId, u32)) -> Step {
        // Its sessions have gone on elsewhere.
        if self.left.contains(backend_id) {
            return Step::dropped(Refusal::LockOutOfReach);
        }
        match self.request {
            ClientRequest::Put(_) => write::begin_foreign_put(self, backend_id, counter),
            ClientRequest::Remove(_) => Remove::begin_foreign(self, backend_id, counter),
            _ => Step::forward(backend_id, Some(counter)),
        }
    }

    fn ask_in_find(&mut self, find: Find, ask: Subrequest) -> Step {
        self.state = State::Find(find);
        Step::Ask(ask)
    }

    fn ask_in_write(&mut self, write: write::Write, ask: Subrequest) -> Step {
        self.state = State::Write(write);
        Step::Ask(ask)
    }

    fn ask_in_remove(&mut self, remove: Remove, ask: Subrequest) -> Step {
        self.state = State::Remove(remove);
        Step::Ask(ask)
    }

    /// Begins anew: the item has moved since.
    pub(super) fn restart(&mut self) -> Step {
        if self.restarts == MAX_RESTARTS {
            return Step::dropped(Refusal::Restless);
        }
        self.restarts += 1;
        self.begin()
    }

    pub(super) fn is_acquire(&self) -> bool {
        self.request == ClientRequest::Acquire
    }

    pub(super) fn is_touch(&self) -> bool {
        self.request == ClientRequest::Touch
    }

    /// Whether this proxy, or one that is a stage ahead, may be moving items to the first place:
    /// then a flagged item there may be a copy.
    pub(super) fn may_meet_copies(&self) -> bool {
        self.stage.is_handover() || matches!(self.stage, Stage::Back | Stage::Wait)
    }

    /// Whether a lock of this age may belong to a request that is moving the item.
    pub(super) fn may_be_mover(&self, age_s: u64) -> bool {
        age_s < self.mover_s
    }
}

impl SlotRoute {
    /// A slot all of whose items are at one place, and of which there is no more to say.
    #[must_use]
    pub const fn steady(first: BackendId) -> Self {
        Self {
            first,
            second: None,
            stage: Stage::Steady,
            left: Places::NONE,
            replica: None,
        }
    }

    /// Whether what belongs to a request may still be copied to `at`: the slot is as it was when the
    /// request came, at `places` in `stage`, and served.
    pub fn may_copy(
        &self,
        at: BackendId,
        places: [Option<BackendId>; 2],
        stage: Stage,
        is_served: impl Fn(BackendId) -> bool,
    ) -> bool {
        let is_kept = self
            .replica
            .is_some_and(|replica| replica.at == at && replica.phase.is_copied());
        let is_same = [Some(self.first), self.second] == places && self.stage == stage;
        is_kept && is_same && places.into_iter().flatten().all(is_served)
    }
}

impl From<Replica> for ReplicaRoute {
    fn from(replica: Replica) -> Self {
        Self {
            at: replica.backend_id,
            phase: replica.phase,
            since_ms: replica.since_ms,
            has_copy: replica.phase == ReplicaPhase::Full,
            is_fresh: false,
        }
    }
}

impl Step {
    pub(super) const fn forward(at: BackendId, counter: Option<u32>) -> Self {
        Self::Forward { at, counter }
    }

    pub(super) const fn pass() -> Self {
        Self::Pass {
            clear_flag: false,
            behind: None,
        }
    }

    pub(super) const fn dropped(reason: Refusal) -> Self {
        Self::Drop {
            reason,
            behind: None,
        }
    }
}
