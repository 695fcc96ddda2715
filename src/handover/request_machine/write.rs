//! PUT, create, release: sent straight to the place of the lock, or to where the item is.

use super::{Refusal, RequestMachine, Step, Subrequest, SubrequestReply};
use crate::handover::{BackendId, Cookie, NO_LOCK, Stage};

/// Where a writing request stands: which answer it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Write {
    /// Whether the item is at the first place: then there without a lock, else at the second with
    /// the lock `counter`, which was issued there.
    LockOfSecond { counter: u32 },
    /// Whether the item is at the first place, for a write with an untagged cookie.
    SeekFirst { counter: u32 },
    /// Whether it is at the second.
    SeekSecond { counter: u32 },
    /// Whether it is at the second, for a create.
    CreateSecond,
    /// Whether it is at the first, for a create on an item that the second has.
    CreateFirst,
    /// Whether it is where a lock of no place of the slot was issued.
    Foreign { at: BackendId, counter: u32 },
}

pub(super) fn begin_put(search: &mut RequestMachine, cookie: Cookie) -> Step {
    let counter = match cookie {
        Cookie::Tagged {
            backend_id,
            counter,
        } if backend_id == search.first => {
            return Step::forward(backend_id, Some(counter));
        }
        Cookie::Tagged { counter, .. } => return put_with_lock_of_second(search, counter),
        Cookie::Untagged(counter) => counter,
    };
    begin_untagged(search, counter)
}

/// A create is insert-only, so where items are created no look is needed before it.
pub(super) fn begin_create(search: &mut RequestMachine) -> Step {
    match search.stage {
        Stage::Settle | Stage::Move1 => Step::forward(search.second, None),
        Stage::Back | Stage::Wait => {
            let at = search.second;
            search.ask_in_write(Write::CreateSecond, Subrequest::Look { at })
        }
        Stage::Steady | Stage::Move2 | Stage::Turned | Stage::Away | Stage::Suspect => {
            Step::forward(search.first, None)
        }
    }
}

pub(super) fn begin_release(search: &mut RequestMachine, cookie: Cookie) -> Step {
    match cookie {
        Cookie::Tagged { backend_id, .. }
            if backend_id != search.first && search.stage == Stage::Away =>
        {
            Step::dropped(Refusal::LockOutOfReach)
        }
        Cookie::Tagged {
            backend_id,
            counter,
        } if backend_id == search.first => Step::forward(backend_id, Some(counter)),
        // Sent there at once, it would keep an outdated item alive for longer than the session that
        // hides it.
        Cookie::Tagged { counter, .. } => look_for_session_of_second(search, counter),
        Cookie::Untagged(counter) if matches!(search.stage, Stage::Steady | Stage::Away) => {
            Step::forward(search.first, in_place_of(counter))
        }
        Cookie::Untagged(counter) => seek(search, counter),
    }
}

/// A lock of a place this slot does not have. Where it is still held, the write belongs there.
pub(super) fn begin_foreign_put(search: &mut RequestMachine, at: BackendId, counter: u32) -> Step {
    search.ask_in_write(Write::Foreign { at, counter }, Subrequest::Look { at })
}

fn begin_untagged(search: &mut RequestMachine, counter: u32) -> Step {
    match search.stage {
        Stage::Steady | Stage::Away | Stage::Suspect => {
            Step::forward(search.first, in_place_of(counter))
        }
        // A fresh session id: nobody else knows it, so it can be nowhere yet.
        Stage::Move2 | Stage::Turned if counter == 0 => Step::forward(search.first, None),
        _ => seek(search, counter),
    }
}

/// What to send in place of an untagged cookie: it stays as it is, unless it stands for the lock
/// of a server that is gone.
pub(super) fn in_place_of(counter: u32) -> Option<u32> {
    (counter == NO_LOCK).then_some(NO_LOCK)
}

fn put_with_lock_of_second(search: &mut RequestMachine, counter: u32) -> Step {
    match search.stage {
        Stage::Away => Step::dropped(Refusal::LockOutOfReach),
        // Another proxy may already have told somebody that the item is absent.
        Stage::Back => Step::dropped(Refusal::Returning),
        _ => look_for_session_of_second(search, counter),
    }
}

fn look_for_session_of_second(search: &mut RequestMachine, counter: u32) -> Step {
    let at = search.first;
    search.ask_in_write(Write::LockOfSecond { counter }, Subrequest::Look { at })
}

fn seek(search: &mut RequestMachine, counter: u32) -> Step {
    let at = search.first;
    search.ask_in_write(Write::SeekFirst { counter }, Subrequest::Look { at })
}

impl Write {
    pub(super) fn next(self, search: &mut RequestMachine, seen: SubrequestReply) -> Step {
        let is_there = match seen {
            SubrequestReply::Done { .. } => true,
            SubrequestReply::Absent => false,
            SubrequestReply::Locked { .. }
            | SubrequestReply::Refused
            | SubrequestReply::Unknown => {
                return Step::dropped(Refusal::Unknown);
            }
        };
        let (first, second) = (search.first, search.second);
        match (self, is_there) {
            (Self::LockOfSecond { .. }, true)
                if matches!(search.stage, Stage::Back | Stage::Wait) =>
            {
                Step::dropped(Refusal::BegunAnew)
            }
            // The lock was broken and the item moved: no lock of the first place is this one.
            (Self::LockOfSecond { .. }, true) => Step::forward(first, Some(NO_LOCK)),
            (Self::LockOfSecond { counter }, false) => Step::forward(second, Some(counter)),
            (Self::SeekFirst { counter }, true) => Step::forward(first, Some(counter)),
            (Self::SeekFirst { counter }, false) => match search.stage {
                // Where items are created, and where they are unless they have moved.
                Stage::Settle | Stage::Move1 => Step::forward(second, Some(counter)),
                _ => {
                    let seeking = Self::SeekSecond { counter };
                    search.ask_in_write(seeking, Subrequest::Look { at: second })
                }
            },
            (Self::SeekSecond { .. }, true) if search.stage == Stage::Back => {
                Step::dropped(Refusal::Returning)
            }
            (Self::SeekSecond { counter }, true) => Step::forward(second, Some(counter)),
            (Self::SeekSecond { counter }, false) => Step::forward(first, Some(counter)),
            (Self::CreateSecond, false) => Step::forward(first, None),
            (Self::CreateSecond, true) if search.stage == Stage::Back => {
                search.ask_in_write(Self::CreateFirst, Subrequest::Look { at: first })
            }
            (Self::CreateSecond, true) => Step::forward(second, None),
            (Self::CreateFirst, true) => Step::forward(first, None),
            (Self::CreateFirst, false) => Step::dropped(Refusal::Returning),
            (Self::Foreign { at, counter }, true) => Step::forward(at, Some(counter)),
            (Self::Foreign { .. }, false) => match search.stage {
                Stage::Steady | Stage::Away => Step::forward(first, Some(NO_LOCK)),
                _ => seek(search, NO_LOCK),
            },
        }
    }
}
