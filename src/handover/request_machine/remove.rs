//! DELETE: debris before truth, or a crash between the two brings the session back.

use super::write::in_place_of;
use super::{Refusal, RequestMachine, Step, Subrequest, SubrequestReply};
use crate::handover::{BackendId, Cookie, NO_LOCK, Stage};

/// Where a removal stands: which answer it waits for. `at` and `counter` say what is removed in
/// the end, `behind` where debris may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Remove {
    /// Whether the item is at the first place, for a lock of unknown origin.
    Seek { counter: u32 },
    /// The same for a lock of the second, by a release without a lock: it takes the flag off a copy
    /// that nobody has taken yet, or who takes it next could find nothing behind it any more and
    /// pass it for a new item.
    SeekBroken { counter: u32 },
    /// The removal of debris without a lock.
    ClearFree { target: Target, behind: BackendId },
    /// Whether the item is at its place, before locked debris is removed.
    Look {
        target: Target,
        behind: BackendId,
        debris: u32,
    },
    /// The removal of locked debris.
    ClearLocked { target: Target },
    /// The note that the server which is out of reach has missed the delete. What that server has is
    /// outdated from now on even if the answer of the stand-in is lost.
    Noted { counter: Option<u32> },
}

/// The item that is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Target {
    at: BackendId,
    counter: u32,
}

impl Remove {
    pub(super) fn begin(search: &mut RequestMachine, cookie: Cookie) -> Step {
        let (first, second) = (search.first, search.second);
        match (search.stage, cookie) {
            (
                Stage::Steady | Stage::Suspect,
                Cookie::Tagged {
                    backend_id,
                    counter,
                },
            ) => Step::forward(backend_id, Some(counter)),
            (Stage::Steady | Stage::Suspect, Cookie::Untagged(counter)) => {
                Step::forward(first, in_place_of(counter))
            }
            (Stage::Away, Cookie::Tagged { backend_id, .. }) if backend_id == second => {
                Step::dropped(Refusal::LockOutOfReach)
            }
            (Stage::Away, cookie) => {
                let counter = match cookie {
                    Cookie::Tagged { counter, .. } => Some(counter),
                    Cookie::Untagged(counter) => in_place_of(counter),
                };
                search.ask_in_remove(
                    Self::Noted { counter },
                    Subrequest::NoteDelete { to: second },
                )
            }
            (
                _,
                Cookie::Tagged {
                    backend_id,
                    counter,
                },
            ) if backend_id == first => Self::clear(search, Target { at: first, counter }, second),
            (Stage::Back, Cookie::Tagged { .. }) => Step::dropped(Refusal::Returning),
            (_, Cookie::Tagged { counter, .. }) => {
                let (at, none) = (first, NO_LOCK);
                let release = Subrequest::Release { at, counter: none };
                search.ask_in_remove(Self::SeekBroken { counter }, release)
            }
            (_, Cookie::Untagged(counter)) => {
                let look = Subrequest::Look { at: first };
                search.ask_in_remove(Self::Seek { counter }, look)
            }
        }
    }

    /// A lock of a place this slot does not have: what the slot's own place has is debris then.
    pub(super) fn begin_foreign(search: &mut RequestMachine, at: BackendId, counter: u32) -> Step {
        let behind = search.first;
        Self::clear(search, Target { at, counter }, behind)
    }

    fn clear(search: &mut RequestMachine, target: Target, behind: BackendId) -> Step {
        search.ask_in_remove(
            Self::ClearFree { target, behind },
            Subrequest::Remove {
                at: behind,
                counter: NO_LOCK,
            },
        )
    }

    pub(super) fn next(self, search: &mut RequestMachine, seen: SubrequestReply) -> Step {
        match (self, seen) {
            (Self::Noted { counter }, SubrequestReply::Done { .. }) => {
                Step::forward(search.first, counter)
            }
            (_, SubrequestReply::Refused | SubrequestReply::Unknown) => {
                Step::dropped(Refusal::Unknown)
            }
            (
                Self::SeekBroken { .. },
                SubrequestReply::Done { .. } | SubrequestReply::Locked { .. },
            ) if search.stage == Stage::Wait => Step::dropped(Refusal::BegunAnew),
            // Who holds the copy may be asking what is behind it.
            (Self::SeekBroken { .. }, SubrequestReply::Locked { age_s, .. })
                if search.may_be_mover(age_s) =>
            {
                Step::dropped(Refusal::Moving)
            }
            (
                Self::SeekBroken { .. },
                SubrequestReply::Done { .. } | SubrequestReply::Locked { .. },
            ) => {
                // The lock was broken, and the item moved: this removal is one without a lock, as
                // on a single server.
                let (at, behind) = (search.first, search.second);
                let counter = NO_LOCK;
                Self::clear(search, Target { at, counter }, behind)
            }
            (Self::Seek { counter }, SubrequestReply::Done { .. }) => {
                let (at, behind) = (search.first, search.second);
                Self::clear(search, Target { at, counter }, behind)
            }
            (Self::Seek { .. }, SubrequestReply::Absent) if search.stage == Stage::Back => {
                Step::dropped(Refusal::Returning)
            }
            (Self::Seek { counter } | Self::SeekBroken { counter }, SubrequestReply::Absent) => {
                Step::forward(search.second, Some(counter))
            }
            (
                Self::ClearFree { target, .. } | Self::ClearLocked { target },
                SubrequestReply::Done { .. } | SubrequestReply::Absent,
            ) => target.remove(),
            (Self::ClearFree { .. }, SubrequestReply::Locked { age_s, .. })
                if search.may_be_mover(age_s) =>
            {
                Step::dropped(Refusal::Moving)
            }
            (Self::ClearFree { target, behind }, SubrequestReply::Locked { counter, .. }) => {
                let look = Self::Look {
                    target,
                    behind,
                    debris: counter,
                };
                search.ask_in_remove(look, Subrequest::Look { at: target.at })
            }
            (
                Self::Look {
                    target,
                    behind,
                    debris,
                },
                SubrequestReply::Done { .. },
            ) => search.ask_in_remove(
                Self::ClearLocked { target },
                Subrequest::Remove {
                    at: behind,
                    counter: debris,
                },
            ),
            // Nothing is left to remove, and what is behind is somebody's.
            (Self::Look { target, .. }, SubrequestReply::Absent) => target.remove(),
            _ => Step::dropped(Refusal::Unknown),
        }
    }
}

impl Target {
    const fn remove(self) -> Step {
        Step::forward(self.at, Some(self.counter))
    }
}
