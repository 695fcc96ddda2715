//! Read, keep alive, acquire: finding the item, and moving it.

use super::{Refusal, RequestMachine, Step, Subrequest, SubrequestReply};
use crate::handover::{BackendId, NO_LOCK, Stage};

/// Where a finding request stands: which answer it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Find {
    /// The first place.
    First,
    /// The second place, because the first has nothing.
    Second,
    /// The item and its lock at the second place, for a request that moves it and asks for no lock.
    Fetch,
    /// A place where somebody holds the item: a keep-alive is welcome all the same.
    Held,
    /// The first place once more: the item may have moved past the search.
    Again,
    /// Whether the first place still has nothing, now that the second has answered with an item.
    Confirm { counter: u32 },
    /// Giving back the lock at the second place before starting over.
    Undo,
    /// The copy at the first place; `counter` locks the item at the second, `flag` is its flag.
    Insert { counter: u32, flag: bool },
    /// Whether the first place has the item all the same, although it has refused the copy or none
    /// was made; `counter` and `flag` as before.
    Stay { counter: u32, flag: bool },
    /// Giving back the lock at the second place, where the item stays, for a read: what the lock
    /// came with is its answer.
    Unlock,
    /// The same for a request that is then put to the second place itself.
    Reopen,
    /// The client's own request at the second place, where the item stays.
    Stays,
    /// The flag of the copy, taken off it: the item is not new, and a keep-alive takes none off.
    Unflag { counter: u32 },
    /// The client's own request, now that the first place has the copy.
    Take { counter: u32, flag: bool },
    /// What a flagged copy's second place says to a removal without a lock; `counter` is the lock
    /// just taken at the first.
    Check { counter: u32 },
    /// Whether the second place has the item, although it removes nothing; `counter` as before.
    Peek { counter: u32 },
    /// The removal of what a dead mover left behind.
    Clear,
}

impl Find {
    pub(super) fn begin(search: &mut RequestMachine) -> Step {
        match search.stage {
            Stage::Steady | Stage::Away | Stage::Suspect => Step::forward(search.first, None),
            _ => Self::First.ask(search, search.first),
        }
    }

    pub(super) fn next(self, search: &mut RequestMachine, seen: SubrequestReply) -> Step {
        match self {
            Self::First => first(search, seen),
            Self::Second => second(search, seen),
            Self::Fetch => fetched(search, seen),
            Self::Held => match seen {
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
                // Its holder has moved it meanwhile.
                SubrequestReply::Absent => Self::Again.ask(search, search.first),
                _ => Step::pass(),
            },
            Self::Again => match seen {
                SubrequestReply::Absent => Step::pass(),
                _ => found_at_first(search, seen),
            },
            Self::Confirm { counter } => confirmed(search, counter, seen),
            Self::Undo => search.restart(),
            Self::Insert { counter, flag } => match seen {
                SubrequestReply::Done { .. } => inserted(search, counter, flag),
                // It may be stored yet, and would then cover what is written where it was.
                SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
                SubrequestReply::Absent
                | SubrequestReply::Locked { .. }
                | SubrequestReply::Refused => {
                    let look = Subrequest::Look { at: search.first };
                    search.ask_in_find(Self::Stay { counter, flag }, look)
                }
            },
            Self::Stay { counter, flag } => stays(search, counter, flag, seen),
            Self::Unlock => Step::pass(),
            Self::Reopen => Self::Stays.ask(search, search.second),
            Self::Stays => match seen {
                SubrequestReply::Done { counter, .. } if !search.is_touch() => {
                    let look = Subrequest::Look { at: search.first };
                    search.ask_in_find(Self::Confirm { counter }, look)
                }
                SubrequestReply::Done { .. } | SubrequestReply::Locked { .. } => Step::pass(),
                // Another request has moved it meanwhile.
                SubrequestReply::Absent => Self::Again.ask(search, search.first),
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
            },
            Self::Unflag { counter } => match seen {
                SubrequestReply::Refused | SubrequestReply::Unknown => {
                    Step::dropped(Refusal::Unknown)
                }
                // Somebody has taken the copy, flag and all, and is told by what is behind that the
                // item is not new: that is left to whoever it is.
                SubrequestReply::Locked { .. } => Self::Held.ask(search, search.first),
                _ => {
                    let flag = false;
                    Self::Take { counter, flag }.ask(search, search.first)
                }
            },
            Self::Take { counter, flag } => taken(search, counter, flag, seen),
            Self::Check { counter } => checked(search, counter, seen),
            Self::Peek { counter } => match seen {
                SubrequestReply::Absent => Step::pass(),
                SubrequestReply::Done { .. } | SubrequestReply::Locked { .. } => WITHOUT_FLAG,
                SubrequestReply::Refused | SubrequestReply::Unknown => unchecked(search, counter),
            },
            Self::Clear => WITHOUT_FLAG,
        }
    }

    fn ask(self, search: &mut RequestMachine, at: BackendId) -> Step {
        search.ask_in_find(self, Subrequest::Client { at, counter: None })
    }
}

fn first(search: &mut RequestMachine, seen: SubrequestReply) -> Step {
    if seen != SubrequestReply::Absent {
        return found_at_first(search, seen);
    }
    let at = search.second;
    match search.stage {
        // Nothing of a server that has just returned is served yet, so nothing is locked there.
        Stage::Back => search.ask_in_find(Find::Second, Subrequest::Look { at }),
        // Whatever uses an item moves it: one that is only read would be left behind in the end.
        Stage::Move1 | Stage::Move2 if !search.is_acquire() => {
            search.ask_in_find(Find::Fetch, Subrequest::Acquire { at })
        }
        _ => Find::Second.ask(search, at),
    }
}

/// The first place has the item: that copy is the true one.
fn found_at_first(search: &mut RequestMachine, seen: SubrequestReply) -> Step {
    match seen {
        // A read locks nothing, so the move may end between its answer and any look behind it:
        // it can never tell a new item from a copy that another request is just taking.
        SubrequestReply::Done { flag: true, .. }
            if search.may_meet_copies() && !search.is_acquire() =>
        {
            WITHOUT_FLAG
        }
        SubrequestReply::Done {
            counter,
            flag: true,
        } if search.may_meet_copies() => {
            let at = search.second;
            let check = Find::Check { counter };
            let counter = NO_LOCK;
            search.ask_in_find(check, Subrequest::Remove { at, counter })
        }
        SubrequestReply::Done { .. } | SubrequestReply::Locked { .. } => Step::pass(),
        SubrequestReply::Absent | SubrequestReply::Refused | SubrequestReply::Unknown => {
            Step::dropped(Refusal::Unknown)
        }
    }
}

fn second(search: &mut RequestMachine, seen: SubrequestReply) -> Step {
    match seen {
        SubrequestReply::Absent => Find::Again.ask(search, search.first),
        SubrequestReply::Refused | SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
        _ if search.stage == Stage::Back => Step::dropped(Refusal::Returning),
        SubrequestReply::Locked { .. } => Step::pass(),
        SubrequestReply::Done { counter, flag } => {
            let at = search.first;
            match search.stage {
                Stage::Move1 | Stage::Move2 => {
                    search.ask_in_find(Find::Insert { counter, flag }, Subrequest::Insert { at })
                }
                Stage::Settle | Stage::Turned if !search.is_touch() => {
                    search.ask_in_find(Find::Confirm { counter }, Subrequest::Look { at })
                }
                _ => Step::pass(),
            }
        }
    }
}

/// The item to be moved, under a lock that nobody asked for.
fn fetched(search: &mut RequestMachine, seen: SubrequestReply) -> Step {
    match seen {
        SubrequestReply::Absent => Find::Again.ask(search, search.first),
        SubrequestReply::Refused | SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
        SubrequestReply::Locked { .. } if search.is_touch() => {
            Find::Held.ask(search, search.second)
        }
        // A read gets the same refusal as an acquire.
        SubrequestReply::Locked { .. } => Step::pass(),
        SubrequestReply::Done { counter, flag } => {
            let at = search.first;
            search.ask_in_find(Find::Insert { counter, flag }, Subrequest::Insert { at })
        }
    }
}

/// Inserted or not: the first place has the item now.
fn inserted(search: &mut RequestMachine, counter: u32, flag: bool) -> Step {
    if search.is_touch() && !flag {
        let at = search.first;
        let release = Subrequest::Release {
            at,
            counter: NO_LOCK,
        };
        return search.ask_in_find(Find::Unflag { counter }, release);
    }
    Find::Take { counter, flag }.ask(search, search.first)
}

/// The first place has refused the copy. If it has the item all the same, that one is the true one,
/// as after every insert; else the item stays where it is, and is served there under its lock.
fn stays(search: &mut RequestMachine, counter: u32, flag: bool, seen: SubrequestReply) -> Step {
    let at = search.second;
    let release = Subrequest::Release { at, counter };
    match seen {
        SubrequestReply::Done { .. } => inserted(search, counter, flag),
        SubrequestReply::Absent if search.is_acquire() => Step::pass(),
        SubrequestReply::Absent if search.is_touch() => search.ask_in_find(Find::Reopen, release),
        SubrequestReply::Absent => search.ask_in_find(Find::Unlock, release),
        SubrequestReply::Locked { .. } | SubrequestReply::Refused | SubrequestReply::Unknown => {
            Step::Drop {
                reason: Refusal::Unknown,
                behind: Some(release),
            }
        }
    }
}

/// What the second place gave may be an empty item that was created late, after the session had
/// moved: then the first place has it by now.
fn confirmed(search: &mut RequestMachine, counter: u32, seen: SubrequestReply) -> Step {
    let at = search.second;
    let undo = search
        .is_acquire()
        .then_some(Subrequest::Release { at, counter });
    match (seen, undo) {
        (SubrequestReply::Absent, _) => Step::pass(),
        (SubrequestReply::Done { .. }, Some(release)) => search.ask_in_find(Find::Undo, release),
        (SubrequestReply::Done { .. }, None) => search.restart(),
        _ => Step::Drop {
            reason: Refusal::Unknown,
            behind: undo,
        },
    }
}

fn taken(search: &mut RequestMachine, counter: u32, flag: bool, seen: SubrequestReply) -> Step {
    match seen {
        SubrequestReply::Done {
            flag: copy_flag, ..
        } => Step::Pass {
            // The copy is always flagged; the item is new only if it was flagged itself, and that
            // flag came with the lock under which it moved.
            clear_flag: !(flag && copy_flag) || search.is_touch(),
            behind: Some(Subrequest::Remove {
                at: search.second,
                counter,
            }),
        },
        // Somebody else took the copy: what is behind is left to whoever that is.
        SubrequestReply::Locked { .. } => Step::pass(),
        // Its server has lost it, or has never stored it: what is behind is the item.
        SubrequestReply::Absent => {
            let at = search.second;
            search.ask_in_find(Find::Reopen, Subrequest::Release { at, counter })
        }
        // The item behind stays locked and whole until its lock is broken.
        SubrequestReply::Refused | SubrequestReply::Unknown => Step::dropped(Refusal::Unknown),
    }
}

/// A flagged item at the first place: a new session, or the copy of one that is being moved.
fn checked(search: &mut RequestMachine, counter: u32, seen: SubrequestReply) -> Step {
    let at = search.second;
    match seen {
        // A mover would hold its lock: the session has begun anew while its server was away, and
        // what that one had is outdated.
        SubrequestReply::Done { .. } if matches!(search.stage, Stage::Back | Stage::Wait) => {
            Step::pass()
        }
        SubrequestReply::Done { .. } => WITHOUT_FLAG,
        SubrequestReply::Absent => Step::pass(),
        SubrequestReply::Locked { age_s, .. } if search.may_be_mover(age_s) => WITHOUT_FLAG,
        SubrequestReply::Locked { counter, .. } => {
            search.ask_in_find(Find::Clear, Subrequest::Remove { at, counter })
        }
        SubrequestReply::Refused => {
            search.ask_in_find(Find::Peek { counter }, Subrequest::Look { at })
        }
        SubrequestReply::Unknown => unchecked(search, counter),
    }
}

/// Whether the flag is a copy's cannot be found out.
const fn unchecked(search: &RequestMachine, counter: u32) -> Step {
    Step::Drop {
        reason: Refusal::Unknown,
        behind: Some(Subrequest::Release {
            at: search.first,
            counter,
        }),
    }
}

/// The item is not new, its copy is.
const WITHOUT_FLAG: Step = Step::Pass {
    clear_flag: true,
    behind: None,
};
