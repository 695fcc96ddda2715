//! Read, keep alive, acquire: finding the item, and moving it.

use super::search::{Ask, Refusal, Search, Seen, Step};
use super::{NO_LOCK, Place, Stage};

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
    /// The flag of the copy, taken off it: the item is not new, and a keep-alive takes none off.
    Unflag { counter: u32 },
    /// The client's own request, now that the first place has the copy.
    Take { counter: u32, flag: bool },
    /// What a flagged copy's second place says to a removal without a lock; `counter` is the lock
    /// just taken at the first.
    Check { counter: u32 },
    /// The removal of what a dead mover left behind.
    Clear,
}

impl Find {
    pub(super) fn begin(search: &mut Search) -> Step {
        match search.stage {
            Stage::Steady | Stage::Away | Stage::Suspect => Step::forward(search.first, None),
            _ => Self::First.ask(search, search.first),
        }
    }

    pub(super) fn next(self, search: &mut Search, seen: Seen) -> Step {
        match self {
            Self::First => first(search, seen),
            Self::Second => second(search, seen),
            Self::Fetch => fetched(search, seen),
            Self::Held => match seen {
                Seen::Unknown => Step::dropped(Refusal::Unknown),
                // Its holder has moved it meanwhile.
                Seen::Absent => Self::Again.ask(search, search.first),
                _ => Step::pass(),
            },
            Self::Again => match seen {
                Seen::Absent => Step::pass(),
                _ => found_at_first(search, seen),
            },
            Self::Confirm { counter } => confirmed(search, counter, seen),
            Self::Undo => search.restart(),
            // Inserted or not: the first place has it now.
            Self::Insert { counter, flag } => match seen {
                Seen::Done { .. } if search.is_touch() && !flag => {
                    let at = search.first;
                    let release = Ask::Release {
                        at,
                        counter: NO_LOCK,
                    };
                    search.ask_in_find(Self::Unflag { counter }, release)
                }
                Seen::Done { .. } => Self::Take { counter, flag }.ask(search, search.first),
                _ => Step::dropped(Refusal::Unknown),
            },
            Self::Unflag { counter } => match seen {
                Seen::Unknown => Step::dropped(Refusal::Unknown),
                // Somebody has taken the copy, flag and all, and is told by what is behind that the
                // item is not new: that is left to whoever it is.
                Seen::Locked { .. } => Self::Held.ask(search, search.first),
                _ => {
                    let flag = false;
                    Self::Take { counter, flag }.ask(search, search.first)
                }
            },
            Self::Take { counter, flag } => taken(search, counter, flag, seen),
            Self::Check { counter } => checked(search, counter, seen),
            Self::Clear => Step::Pass {
                clear_flag: true,
                behind: None,
            },
        }
    }

    fn ask(self, search: &mut Search, at: Place) -> Step {
        search.ask_in_find(self, Ask::Client { at, counter: None })
    }
}

fn first(search: &mut Search, seen: Seen) -> Step {
    if seen != Seen::Absent {
        return found_at_first(search, seen);
    }
    let at = search.second;
    match search.stage {
        // Nothing of a server that has just returned is served yet, so nothing is locked there.
        Stage::Back => search.ask_in_find(Find::Second, Ask::Look { at }),
        // Whatever uses an item moves it: one that is only read would be left behind in the end.
        Stage::Move1 | Stage::Move2 if !search.is_acquire() => {
            search.ask_in_find(Find::Fetch, Ask::Acquire { at })
        }
        _ => Find::Second.ask(search, at),
    }
}

/// The first place has the item: that copy is the true one.
fn found_at_first(search: &mut Search, seen: Seen) -> Step {
    match seen {
        // A read locks nothing, so the move may end between its answer and any look behind it:
        // it can never tell a new item from a copy that another request is just taking.
        Seen::Done { flag: true, .. } if search.may_meet_copies() && !search.is_acquire() => {
            Step::Pass {
                clear_flag: true,
                behind: None,
            }
        }
        Seen::Done {
            counter,
            flag: true,
        } if search.may_meet_copies() => {
            let at = search.second;
            let check = Find::Check { counter };
            let counter = NO_LOCK;
            search.ask_in_find(check, Ask::Remove { at, counter })
        }
        Seen::Done { .. } | Seen::Locked { .. } => Step::pass(),
        Seen::Absent | Seen::Unknown => Step::dropped(Refusal::Unknown),
    }
}

fn second(search: &mut Search, seen: Seen) -> Step {
    match seen {
        Seen::Absent => Find::Again.ask(search, search.first),
        Seen::Unknown => Step::dropped(Refusal::Unknown),
        _ if search.stage == Stage::Back => Step::dropped(Refusal::Returning),
        Seen::Locked { .. } => Step::pass(),
        Seen::Done { counter, flag } => {
            let at = search.first;
            match search.stage {
                Stage::Move1 | Stage::Move2 => {
                    search.ask_in_find(Find::Insert { counter, flag }, Ask::Insert { at })
                }
                Stage::Settle if !search.is_touch() => {
                    search.ask_in_find(Find::Confirm { counter }, Ask::Look { at })
                }
                _ => Step::pass(),
            }
        }
    }
}

/// The item to be moved, under a lock that nobody asked for.
fn fetched(search: &mut Search, seen: Seen) -> Step {
    match seen {
        Seen::Absent => Find::Again.ask(search, search.first),
        Seen::Unknown => Step::dropped(Refusal::Unknown),
        Seen::Locked { .. } if search.is_touch() => Find::Held.ask(search, search.second),
        // A read gets the same refusal as an acquire.
        Seen::Locked { .. } => Step::pass(),
        Seen::Done { counter, flag } => {
            let at = search.first;
            search.ask_in_find(Find::Insert { counter, flag }, Ask::Insert { at })
        }
    }
}

/// What the second place gave may be an empty item that was created late, after the session had
/// moved: then the first place has it by now.
fn confirmed(search: &mut Search, counter: u32, seen: Seen) -> Step {
    let at = search.second;
    let undo = search.is_acquire().then_some(Ask::Release { at, counter });
    match (seen, undo) {
        (Seen::Absent, _) => Step::pass(),
        (Seen::Done { .. }, Some(release)) => search.ask_in_find(Find::Undo, release),
        (Seen::Done { .. }, None) => search.restart(),
        _ => Step::Drop {
            reason: Refusal::Unknown,
            behind: undo,
        },
    }
}

fn taken(search: &Search, counter: u32, flag: bool, seen: Seen) -> Step {
    match seen {
        Seen::Done {
            flag: copy_flag, ..
        } => Step::Pass {
            // The copy is always flagged; the item is new only if it was flagged itself, and that
            // flag came with the lock under which it moved.
            clear_flag: !(flag && copy_flag) || search.is_touch(),
            behind: Some(Ask::Remove {
                at: search.second,
                counter,
            }),
        },
        // Somebody else took the copy: what is behind is left to whoever that is.
        Seen::Locked { .. } => Step::pass(),
        // Removed meanwhile, or its server lost its memory. The item behind stays locked and
        // whole until its lock is broken.
        Seen::Absent | Seen::Unknown => Step::dropped(Refusal::Unknown),
    }
}

/// A flagged item at the first place: a new session, or the copy of one that is being moved.
fn checked(search: &mut Search, counter: u32, seen: Seen) -> Step {
    let without_flag = Step::Pass {
        clear_flag: true,
        behind: None,
    };
    match seen {
        Seen::Done { .. } => without_flag,
        Seen::Absent => Step::pass(),
        Seen::Locked { age_s, .. } if search.may_be_mover(age_s) => without_flag,
        Seen::Locked { counter, .. } => {
            let at = search.second;
            search.ask_in_find(Find::Clear, Ask::Remove { at, counter })
        }
        Seen::Unknown => Step::Drop {
            reason: Refusal::Unknown,
            behind: Some(Ask::Release {
                at: search.first,
                counter,
            }),
        },
    }
}
