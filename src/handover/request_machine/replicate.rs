//! What a replica adds to a request: copies first, then the truth.
//!
//! A copy is written only while the lock of the item it copies is held, or for an item nobody else
//! can know of. So the replica sees the writes of a session in their order, and what was
//! acknowledged is there, too. `docs/replicas.md` gives the reasons.

use super::{
    ClientRequest, Refusal, ReplicaRoute, RequestMachine, Step, Subrequest, SubrequestReply,
};
use crate::handover::{BackendId, COPY_LOCK, FIRST_LOCK, NO_LOCK, ReplicaPhase, Stage};

/// Whoever waits for a lock that is older than this, in seconds, keeps the copy alive: asking for the
/// session keeps the item alive, and its copy must not die before. A quarter of the shortest timeout.
pub const LOCKED_REFRESH_S: u64 = 15;

/// What a request waits for that has to do with its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Copying {
    /// Nothing: the request itself is asked.
    Idle,
    /// The copy of what is stored next.
    Store(Truth),
    /// The removal of the copy of what is removed next.
    Clear(Truth),
    /// What is stored or removed at its place.
    Write(Truth),
    /// The removal of the copy of a write that was refused at its place.
    Undo(Truth),
    /// The item at its place, for a request that changes nothing.
    Find(Truth),
    /// The copy, because its place does not have the item: it may have lost its memory.
    Recall(Truth),
    /// The copy, stored at its place again.
    Restore(Truth),
    /// The flag of what was stored there, taken off it.
    Unflag(Truth),
    /// The client's own request, now that its place has the item again.
    Take,
    /// Whether there is a copy of a flagged item: then it is not new, but was just restored. With the
    /// lock that the client has taken.
    Check(Option<Lock>),
    /// The item and its lock, for a request that asks for no lock and has to copy it.
    Fetch(Truth),
    /// The copy of what was found; then the lock that nobody asked for is given back.
    Fill {
        lock: Option<Lock>,
        answer: ClientAnswer,
    },
    /// The same, after the replica has missed the copy.
    Unlock(ClientAnswer),
    /// The note that the replica has missed something.
    Miss(AfterMiss),
    /// A keep-alive, now that its item is copied.
    Touch,
    /// The keep-alive of the copy of what was just moved.
    KeepAlive {
        clear_flag: bool,
        behind: Option<Subrequest>,
    },
}

/// Where the client's own request goes, and under which lock there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Truth {
    at: BackendId,
    counter: Option<u32>,
}

/// A lock that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lock {
    at: BackendId,
    counter: u32,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ClientAnswer {
    /// The held one.
    Held {
        clear_flag: bool,
        behind: Option<Subrequest>,
    },
    /// The one to its own request, which asks the place of the item now.
    Touched(BackendId),
}

/// How a request ends whose copy was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AfterMiss {
    Answer {
        lock: Option<Lock>,
        answer: ClientAnswer,
    },
    Drop {
        reason: Refusal,
        behind: Option<Subrequest>,
    },
}

impl RequestMachine {
    /// What a step of the request alone becomes.
    pub(super) fn replicate(&mut self, replica: ReplicaRoute, step: Step) -> Step {
        self.replicate_after(replica, step, None, false)
    }

    /// The same behind an answer that came with the first lock of the session that the client gets.
    pub(super) fn replicate_after(
        &mut self,
        replica: ReplicaRoute,
        step: Step,
        lock: Option<u32>,
        is_found: bool,
    ) -> Step {
        match step {
            Step::Forward { at, counter } => self.forward_with_copy(replica, Truth { at, counter }),
            Step::Pass { clear_flag, behind }
                if lock == Some(FIRST_LOCK) && self.is_acquire() && is_copied(replica) =>
            {
                let answer = ClientAnswer::Held { clear_flag, behind };
                self.fill(replica, None, answer)
            }
            Step::Pass { clear_flag, behind } if is_found && self.needs_touch(replica) => {
                self.touch(replica, clear_flag, behind)
            }
            step => step,
        }
    }

    /// Whether the copy of what was found in a handover has to be kept alive.
    fn needs_touch(&self, replica: ReplicaRoute) -> bool {
        let finds = matches!(
            self.request,
            ClientRequest::Read | ClientRequest::Touch | ClientRequest::Acquire
        );
        finds && replica.phase == ReplicaPhase::Full && !replica.is_fresh
    }

    /// Keeps the copy alive before an answer is passed on, behind it if nothing else is to be sent
    /// there. It is not written anew: what is at either place may be debris.
    fn touch(
        &mut self,
        replica: ReplicaRoute,
        clear_flag: bool,
        behind: Option<Subrequest>,
    ) -> Step {
        let (at, from) = (replica.at, None);
        match behind {
            None => Step::Pass {
                clear_flag,
                behind: Some(Subrequest::Refresh { at, from }),
            },
            Some(_) => {
                let touching = Copying::KeepAlive { clear_flag, behind };
                self.ask_in_copying(touching, Subrequest::Look { at })
            }
        }
    }

    /// The lock that an answer to an acquire of the client came with, unless the item is new.
    pub(super) fn lock_of_session(&self, seen: SubrequestReply) -> Option<u32> {
        match seen {
            SubrequestReply::Done { counter, flag } if self.is_acquire() && !flag => Some(counter),
            _ => None,
        }
    }

    fn forward_with_copy(&mut self, replica: ReplicaRoute, truth: Truth) -> Step {
        let at = replica.at;
        let writes = matches!(
            self.request,
            ClientRequest::Put(_) | ClientRequest::Remove(_)
        );
        if replica.phase == ReplicaPhase::Dropping && writes {
            return Step::dropped(Refusal::CopyMissed);
        }
        if !is_copied(replica) {
            return truth.forward();
        }
        match self.request {
            ClientRequest::Put(_) => {
                self.ask_in_copying(Copying::Store(truth), Subrequest::Copy { at })
            }
            ClientRequest::Remove(_) => {
                let counter = COPY_LOCK;
                self.ask_in_copying(Copying::Clear(truth), Subrequest::Remove { at, counter })
            }
            // An item that was never used has nothing to lose.
            ClientRequest::Create | ClientRequest::Release(_) => truth.forward(),
            ClientRequest::Read | ClientRequest::Touch | ClientRequest::Acquire => {
                self.find(replica, truth)
            }
        }
    }

    fn find(&mut self, replica: ReplicaRoute, truth: Truth) -> Step {
        // Nothing is counted on yet, or nothing is copied but what is written.
        let is_at_rest = self.stage == Stage::Steady;
        if replica.phase == ReplicaPhase::Joining || !is_at_rest {
            return truth.forward();
        }
        if !self.is_acquire() && !replica.has_copy {
            let at = truth.at;
            return self.ask_in_copying(Copying::Fetch(truth), Subrequest::Acquire { at });
        }
        self.ask_in_copying(Copying::Find(truth), truth.ask())
    }

    fn fill(&mut self, replica: ReplicaRoute, lock: Option<Lock>, answer: ClientAnswer) -> Step {
        let at = replica.at;
        self.ask_in_copying(Copying::Fill { lock, answer }, Subrequest::CopyHeld { at })
    }

    fn miss(&mut self, replica: ReplicaRoute, then: AfterMiss) -> Step {
        let at = replica.at;
        self.ask_in_copying(Copying::Miss(then), Subrequest::Miss { at })
    }

    /// The request waits until the replica is dropped, and begins anew.
    fn missed(&mut self, replica: ReplicaRoute) -> Step {
        let (reason, behind) = (Refusal::CopyMissed, None);
        self.miss(replica, AfterMiss::Drop { reason, behind })
    }

    fn copy_is_locked(&mut self, replica: ReplicaRoute, behind: Option<Subrequest>) -> Step {
        let reason = Refusal::CopyLocked;
        self.miss(replica, AfterMiss::Drop { reason, behind })
    }

    fn end(&mut self, lock: Option<Lock>, answer: ClientAnswer) -> Step {
        match (lock, answer) {
            (Some(Lock { at, counter }), answer) => {
                let release = Subrequest::Release { at, counter };
                self.ask_in_copying(Copying::Unlock(answer), release)
            }
            (None, ClientAnswer::Held { clear_flag, behind }) => Step::Pass { clear_flag, behind },
            (None, ClientAnswer::Touched(at)) => {
                let counter = None;
                self.ask_in_copying(Copying::Touch, Subrequest::Client { at, counter })
            }
        }
    }

    /// Passes the held answer on: the item is still at its place, and the replica has no copy any more.
    fn pass_without_copy(&mut self, replica: ReplicaRoute, truth: Truth) -> Step {
        let (at, from) = (replica.at, truth.at);
        match self.stage {
            Stage::Steady => Step::Pass {
                clear_flag: false,
                behind: Some(Subrequest::CopyAnew { at, from }),
            },
            // It may move meanwhile, and what is left there is debris.
            _ => {
                let (lock, answer) = (None, HELD);
                self.miss(replica, AfterMiss::Answer { lock, answer })
            }
        }
    }

    fn ask_in_copying(&mut self, copying: Copying, ask: Subrequest) -> Step {
        self.copying = copying;
        Step::Ask(ask)
    }
}

impl Copying {
    pub(super) fn next(
        self,
        search: &mut RequestMachine,
        replica: ReplicaRoute,
        seen: SubrequestReply,
    ) -> Step {
        match self {
            Self::Idle => Step::dropped(Refusal::Unknown),
            Self::Store(truth) => match seen {
                SubrequestReply::Done { .. } => {
                    search.ask_in_copying(Self::Write(truth), truth.ask())
                }
                SubrequestReply::Locked { .. } => search.copy_is_locked(replica, None),
                _ => search.missed(replica),
            },
            Self::Clear(truth) => match seen {
                SubrequestReply::Done { .. } | SubrequestReply::Absent => {
                    search.ask_in_copying(Self::Write(truth), truth.ask())
                }
                SubrequestReply::Locked { .. } => search.copy_is_locked(replica, None),
                SubrequestReply::Refused | SubrequestReply::Unknown => search.missed(replica),
            },
            Self::Write(truth) => written(search, replica, truth, seen),
            Self::Undo(truth) => match seen {
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    let (lock, answer) = (None, HELD);
                    search.miss(replica, AfterMiss::Answer { lock, answer })
                }
                // Gone, or somebody's who serves from the replica. The true one is copied anew.
                _ => search.pass_without_copy(replica, truth),
            },
            Self::Find(truth) => found(search, replica, truth, seen),
            Self::Recall(_) | Self::Restore(_) | Self::Unflag(_) | Self::Take | Self::Check(_) => {
                self.after_loss(search, replica, seen)
            }
            Self::Fetch(truth) => fetched(search, replica, truth, seen),
            Self::Fill { lock, answer } => filled(search, replica, lock, answer, seen),
            Self::Unlock(answer) => search.end(None, answer),
            Self::Touch => match seen {
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
                _ => Step::pass(),
            },
            Self::KeepAlive { clear_flag, behind } => Step::Pass { clear_flag, behind },
            Self::Miss(AfterMiss::Answer { lock, answer }) => search.end(lock, answer),
            Self::Miss(AfterMiss::Drop { reason, behind }) => Step::Drop { reason, behind },
        }
    }

    /// The item was not at its place, which may have lost its memory, or was stored there anew.
    fn after_loss(
        self,
        search: &mut RequestMachine,
        replica: ReplicaRoute,
        seen: SubrequestReply,
    ) -> Step {
        match self {
            Self::Recall(truth) => match seen {
                SubrequestReply::Done { .. } => {
                    let at = truth.at;
                    search.ask_in_copying(Self::Restore(truth), Subrequest::Insert { at })
                }
                SubrequestReply::Absent => Step::pass(),
                SubrequestReply::Locked { .. } => search.copy_is_locked(replica, None),
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
            },
            Self::Restore(truth) => match seen {
                // Stored, or another request was first.
                SubrequestReply::Done { .. } if search.is_touch() => {
                    let (at, counter) = (truth.at, NO_LOCK);
                    search.ask_in_copying(Self::Unflag(truth), Subrequest::Release { at, counter })
                }
                SubrequestReply::Done { .. } => search.ask_in_copying(Self::Take, truth.ask()),
                _ => Step::dropped(Refusal::Unknown),
            },
            Self::Unflag(truth) => match seen {
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
                _ => search.ask_in_copying(Self::Take, truth.ask()),
            },
            Self::Take => match seen {
                SubrequestReply::Done { .. } => WITHOUT_FLAG,
                SubrequestReply::Absent | SubrequestReply::Locked { .. } => Step::pass(),
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
            },
            Self::Check(lock) => match seen {
                SubrequestReply::Absent => Step::pass(),
                SubrequestReply::Done { .. } | SubrequestReply::Locked { .. } => WITHOUT_FLAG,
                SubrequestReply::Refused | SubrequestReply::Unknown => Step::Drop {
                    reason: Refusal::Unknown,
                    behind: lock.map(|Lock { at, counter }| Subrequest::Release { at, counter }),
                },
            },
            _ => Step::dropped(Refusal::Unknown),
        }
    }
}

/// What became of the client's write at its place, once the replica had it.
fn written(
    search: &mut RequestMachine,
    replica: ReplicaRoute,
    truth: Truth,
    seen: SubrequestReply,
) -> Step {
    let stores = matches!(search.request, ClientRequest::Put(_));
    match seen {
        // What may live on has no copy any more.
        SubrequestReply::Unknown if !stores && search.stage == Stage::Steady => {
            let (at, from) = (replica.at, truth.at);
            Step::Drop {
                reason: Refusal::Unknown,
                behind: Some(Subrequest::CopyAnew { at, from }),
            }
        }
        SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
        SubrequestReply::Absent | SubrequestReply::Locked { .. } | SubrequestReply::Refused
            if stores =>
        {
            let (at, counter) = (replica.at, COPY_LOCK);
            search.ask_in_copying(Copying::Undo(truth), Subrequest::Remove { at, counter })
        }
        // The session lives on, and its copy is gone.
        SubrequestReply::Locked { .. } | SubrequestReply::Refused => {
            search.pass_without_copy(replica, truth)
        }
        SubrequestReply::Done { .. } | SubrequestReply::Absent => Step::pass(),
    }
}

fn found(
    search: &mut RequestMachine,
    replica: ReplicaRoute,
    truth: Truth,
    seen: SubrequestReply,
) -> Step {
    // Another proxy may write without a copy while this one fills the replica: what that has may be
    // outdated.
    let is_whole = replica.phase == ReplicaPhase::Full;
    match seen {
        SubrequestReply::Done {
            counter,
            flag: true,
        } if replica.has_copy => {
            let (at, truth) = (replica.at, truth.at);
            let lock = search.is_acquire().then_some(Lock { at: truth, counter });
            search.ask_in_copying(Copying::Check(lock), Subrequest::Look { at })
        }
        SubrequestReply::Absent if is_whole => {
            let at = replica.at;
            search.ask_in_copying(Copying::Recall(truth), Subrequest::Recall { at })
        }
        SubrequestReply::Done { counter, flag } => {
            let is_new = search.is_acquire() && flag;
            // Two pages may have begun the session at once: the copy of the one that came second at
            // its place may have come first at the replica.
            let is_first = search.is_acquire() && counter == FIRST_LOCK;
            let is_due = is_first || !replica.has_copy;
            if search.is_acquire() && is_due && !is_new {
                return search.fill(replica, None, HELD);
            }
            // An item that was never used has no copy, and would lose its flag to the look that makes
            // one. A keep-alive cannot tell it.
            let (at, from) = (replica.at, Some(truth.at).filter(|_| !search.is_touch()));
            let needs_refresh = !replica.is_fresh && !flag;
            Step::Pass {
                clear_flag: false,
                behind: needs_refresh.then_some(Subrequest::Refresh { at, from }),
            }
        }
        SubrequestReply::Locked { age_s, .. }
            if is_kept_by_polls(age_s) && replica.has_copy && !replica.is_fresh =>
        {
            search.touch(replica, false, None)
        }
        SubrequestReply::Absent | SubrequestReply::Locked { .. } | SubrequestReply::Refused => {
            Step::pass()
        }
        SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
    }
}

/// Whether those who wait for a lock of this age keep the copy alive, as they keep the item. When a
/// younger lock was taken, the copy was fresh or was touched.
const fn is_kept_by_polls(age_s: u64) -> bool {
    age_s >= LOCKED_REFRESH_S
}

/// Whether a session is there by this answer, and is kept alive by asking for it.
pub(super) const fn keeps_alive(seen: SubrequestReply) -> bool {
    match seen {
        SubrequestReply::Done { .. } => true,
        SubrequestReply::Locked { age_s, .. } => is_kept_by_polls(age_s),
        _ => false,
    }
}

fn fetched(
    search: &mut RequestMachine,
    replica: ReplicaRoute,
    truth: Truth,
    seen: SubrequestReply,
) -> Step {
    let answer = match search.is_touch() {
        true => ClientAnswer::Touched(truth.at),
        false => HELD,
    };
    match seen {
        SubrequestReply::Done { counter, .. } => {
            let at = truth.at;
            search.fill(replica, Some(Lock { at, counter }), answer)
        }
        // Its holder copies it, or it is not there.
        SubrequestReply::Locked { .. } | SubrequestReply::Absent => search.end(None, answer),
        SubrequestReply::Refused | SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
    }
}

fn filled(
    search: &mut RequestMachine,
    replica: ReplicaRoute,
    lock: Option<Lock>,
    answer: ClientAnswer,
    seen: SubrequestReply,
) -> Step {
    match seen {
        SubrequestReply::Done { .. } => search.end(lock, answer),
        SubrequestReply::Absent | SubrequestReply::Refused | SubrequestReply::Unknown => {
            search.miss(replica, AfterMiss::Answer { lock, answer })
        }
        SubrequestReply::Locked { .. } => {
            let release = lock.map(|Lock { at, counter }| Subrequest::Release { at, counter });
            search.copy_is_locked(replica, release)
        }
    }
}

/// The held answer: the item is not new, it was stored anew.
const WITHOUT_FLAG: Step = Step::Pass {
    clear_flag: true,
    behind: None,
};

/// The held answer, as it came.
const HELD: ClientAnswer = ClientAnswer::Held {
    clear_flag: false,
    behind: None,
};

/// Whether what is written in this phase is copied.
fn is_copied(replica: ReplicaRoute) -> bool {
    replica.phase.is_copied()
}

impl Truth {
    const fn forward(self) -> Step {
        Step::forward(self.at, self.counter)
    }

    const fn ask(self) -> Subrequest {
        let Self { at, counter } = self;
        Subrequest::Client { at, counter }
    }
}

#[cfg(test)]
mod tests;
