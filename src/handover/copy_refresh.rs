//! Keeping the copy of a session at its replica alive: what to ask next, given the last answer.
//!
//! A copy that is there is touched. One that is gone, because its server has lost it or a removal was
//! refused, is written anew under the lock of the true item. Whoever carries it out
//! (`proxy::refresh` over sockets, the simulation in virtual time) sends, waits, and keeps the time.

use std::time::Duration;

use super::request_driver::{BodySource, CopyKind, Question, QuestionForm};
use super::{BackendId, COPY_LOCK, Stage, Subrequest, SubrequestReply};

/// How often a copy waits that is to be written anew, and whose item somebody has locked, or whose
/// place does not answer.
const MAX_PAUSES: u32 = 10;
/// How long each of these times.
pub const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done for a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It is touched, and written anew if there is none.
    Alive {
        /// The replica.
        at: BackendId,
        /// The place of the true item; `None` if it may be new, and is not to be looked at.
        from: Option<BackendId>,
    },
    /// It is gone, and written anew: if it cannot be, the replica has missed it.
    Anew {
        /// The replica.
        at: BackendId,
        /// The place of the true item.
        from: BackendId,
    },
}

/// One session's copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyRefresh {
    keeping: Keeping,
    pauses: u32,
    state: RefreshState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefreshState {
    Touch,
    /// The true item and its lock.
    Fetch(BackendId),
    /// The copy, under that lock.
    Store {
        from: BackendId,
        counter: u32,
    },
    Pause,
    Over(Kept),
}

/// How it is with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    There,
    /// There is none, and nothing to be copied.
    Gone,
    /// There is none, and somebody has locked the true one.
    Locked,
    /// The replica does not have what it should.
    Missed,
    /// The place of the item did not answer.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshTask {
    /// Send it, and tell [`CopyRefresh::heard`] what came of it. Its first question, and the first
    /// behind a pause, begin a round, which lasts as long as one request may.
    Send(Question),
    /// Wait for [`REFRESH_PAUSE`], then tell [`CopyRefresh::paused`].
    Pause,
    /// Nothing is left to be done.
    End(RefreshEnd),
}

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshEnd {
    /// Whether there is a copy.
    pub is_there: bool,
    /// The place whose item the replica has missed, unless that place is about to be left.
    missed_of: Option<BackendId>,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshNews {
    /// A lock that is given back now.
    pub release: Option<Subrequest>,
    /// Whether a copy that was to be kept alive was there; `None` if that says nothing of its server.
    pub was_there: Option<bool>,
}

impl Keeping {
    /// What is sent behind an answer for the sake of a copy.
    pub const fn of(behind: Subrequest) -> Option<Self> {
        match behind {
            Subrequest::Refresh { at, from } => Some(Self::Alive { at, from }),
            Subrequest::CopyAnew { at, from } => Some(Self::Anew { at, from }),
            _ => None,
        }
    }

    /// The replica.
    pub const fn at(self) -> BackendId {
        let (Self::Alive { at, .. } | Self::Anew { at, .. }) = self;
        at
    }

    /// The place of the true item, if it is to be looked at.
    pub const fn from(self) -> Option<BackendId> {
        match self {
            Self::Alive { from, .. } => from,
            Self::Anew { from, .. } => Some(from),
        }
    }

    /// Whether the copy is gone, and the replica has missed it if it cannot be written.
    pub const fn is_anew(self) -> bool {
        matches!(self, Self::Anew { .. })
    }
}

impl CopyRefresh {
    /// The first task is to touch the copy.
    pub const fn new(keeping: Keeping) -> Self {
        Self {
            keeping,
            pauses: 0,
            state: RefreshState::Touch,
        }
    }

    /// What it is for.
    pub const fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// What to do now.
    pub fn task(&self) -> RefreshTask {
        let at = self.keeping.at();
        let question = |at, form, copy| RefreshTask::Send(Question { at, form, copy });
        match self.state {
            RefreshState::Touch => question(at, QuestionForm::Touch, None),
            RefreshState::Fetch(from) => question(from, QuestionForm::Acquire, None),
            RefreshState::Store { .. } => {
                let form = QuestionForm::Store {
                    body: BodySource::Held,
                    lock_cookie: COPY_LOCK,
                    unless_there: false,
                };
                question(at, form, Some(CopyKind::Item))
            }
            RefreshState::Pause => RefreshTask::Pause,
            RefreshState::Over(kept) => RefreshTask::End(self.end(kept)),
        }
    }

    /// The places of the item whose copy is under way.
    pub const fn places(&self) -> [Option<BackendId>; 2] {
        [self.keeping.from(), None]
    }

    /// What came of the question; `None` if there is no answer.
    pub fn heard(&mut self, reply: Option<SubrequestReply>) -> RefreshNews {
        match self.state {
            RefreshState::Touch => self.touched(reply),
            RefreshState::Fetch(from) => self.fetched(from, reply),
            RefreshState::Store { .. } => self.ended(match reply {
                Some(SubrequestReply::Done { .. }) => Kept::There,
                Some(_) => Kept::Missed,
                None => Kept::Unknown,
            }),
            RefreshState::Pause | RefreshState::Over(_) => RefreshNews::NONE,
        }
    }

    /// The slot has changed since the request came, and the copy must not be made.
    /// `is_about_to_be_left` says how it is with [`Self::places`].
    pub fn slot_changed(&mut self, is_about_to_be_left: bool) -> RefreshNews {
        self.ended(match is_about_to_be_left {
            true => Kept::Unknown,
            false => Kept::Missed,
        })
    }

    /// The item could not be had whole.
    pub fn not_kept(&mut self) -> RefreshNews {
        self.ended(Kept::Missed)
    }

    /// The pause is over.
    pub fn paused(&mut self) {
        self.state = RefreshState::Touch;
    }

    fn touched(&mut self, reply: Option<SubrequestReply>) -> RefreshNews {
        let was_there = match (self.keeping, reply) {
            (Keeping::Alive { .. }, Some(SubrequestReply::Done { .. })) => Some(true),
            (Keeping::Alive { from: Some(_), .. }, Some(SubrequestReply::Absent)) => Some(false),
            _ => None,
        };
        match (reply, self.keeping.from()) {
            (Some(SubrequestReply::Absent), Some(from)) => {
                self.state = RefreshState::Fetch(from);
            }
            (Some(SubrequestReply::Absent), None) => self.is_kept(Kept::Gone),
            (Some(SubrequestReply::Done { .. } | SubrequestReply::Locked { .. }), _) => {
                self.is_kept(Kept::There);
            }
            _ => self.is_kept(Kept::Missed),
        }
        RefreshNews {
            was_there,
            ..RefreshNews::NONE
        }
    }

    /// Whoever has locked the item copies it with what it stores.
    fn fetched(&mut self, from: BackendId, reply: Option<SubrequestReply>) -> RefreshNews {
        match reply {
            Some(SubrequestReply::Done { counter, .. }) => {
                self.state = RefreshState::Store { from, counter };
            }
            Some(SubrequestReply::Absent) => self.is_kept(Kept::Gone),
            Some(SubrequestReply::Locked { .. }) => self.is_kept(Kept::Locked),
            Some(SubrequestReply::Refused | SubrequestReply::Unknown) => {
                self.is_kept(Kept::Missed);
            }
            None => self.is_kept(Kept::Unknown),
        }
        RefreshNews::NONE
    }

    /// The copy was stored, or will not be: nothing needs the lock any more.
    fn ended(&mut self, kept: Kept) -> RefreshNews {
        let release = match self.state {
            RefreshState::Store { from: at, counter } => Some(Subrequest::Release { at, counter }),
            _ => None,
        };
        self.is_kept(kept);
        RefreshNews {
            release,
            ..RefreshNews::NONE
        }
    }

    fn is_kept(&mut self, kept: Kept) {
        let may_change = matches!(kept, Kept::Locked | Kept::Unknown);
        self.state = match self.keeping.is_anew() && may_change && self.pauses < MAX_PAUSES {
            true => RefreshState::Pause,
            false => RefreshState::Over(kept),
        };
        self.pauses += u32::from(self.state == RefreshState::Pause);
    }

    fn end(&self, kept: Kept) -> RefreshEnd {
        let is_missed = self.keeping.is_anew() && !matches!(kept, Kept::There | Kept::Gone);
        RefreshEnd {
            is_there: kept == Kept::There,
            missed_of: self.keeping.from().filter(|_| is_missed),
        }
    }
}

impl RefreshNews {
    const NONE: Self = Self {
        release: None,
        was_there: None,
    };
}

impl RefreshEnd {
    /// Whether the replica has missed the item, for all that is in force now.
    pub fn is_missed(self, is_about_to_be_left: impl FnOnce(BackendId) -> bool) -> bool {
        self.missed_of
            .is_some_and(|from| !is_about_to_be_left(from))
    }
}

/// Whether a place is about to be left, by the stage of its slot: then the replica is all there is.
pub const fn is_about_to_be_left(stage: Stage, is_up: bool) -> bool {
    matches!(stage, Stage::Suspect) || !is_up
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: SubrequestReply = SubrequestReply::Done {
        counter: 3,
        flag: false,
    };
    const LOCKED: SubrequestReply = SubrequestReply::Locked {
        counter: 3,
        age_s: 1,
    };

    fn place(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn anew() -> CopyRefresh {
        let (at, from) = (place(2), place(1));
        CopyRefresh::new(Keeping::Anew { at, from })
    }

    fn end(refresh: &CopyRefresh) -> RefreshEnd {
        match refresh.task() {
            RefreshTask::End(end) => end,
            task => panic!("{task:?}"),
        }
    }

    #[test]
    fn a_copy_that_is_there_is_only_touched() {
        let (at, from) = (place(2), Some(place(1)));
        let mut refresh = CopyRefresh::new(Keeping::Alive { at, from });
        assert_eq!(refresh.heard(Some(DONE)).was_there, Some(true));
        assert!(end(&refresh).is_there);
    }

    #[test]
    fn one_that_is_gone_is_written_under_the_lock_of_its_item() {
        let mut refresh = anew();
        refresh.heard(Some(SubrequestReply::Absent));
        assert!(matches!(
            refresh.task(),
            RefreshTask::Send(Question { at, form: QuestionForm::Acquire, .. }) if at == place(1)
        ));
        refresh.heard(Some(DONE));
        let RefreshTask::Send(question) = refresh.task() else {
            panic!("{:?}", refresh.task());
        };
        assert_eq!(
            (question.at, question.copy),
            (place(2), Some(CopyKind::Item))
        );
        let (at, counter) = (place(1), 3);
        let release = Some(Subrequest::Release { at, counter });
        assert_eq!(refresh.heard(Some(DONE)).release, release);
        assert!(end(&refresh).is_there);
    }

    #[test]
    fn who_waits_for_a_lock_gives_up_after_a_while() {
        let mut refresh = anew();
        for _ in 0..MAX_PAUSES {
            refresh.heard(Some(SubrequestReply::Absent));
            refresh.heard(Some(LOCKED));
            assert_eq!(refresh.task(), RefreshTask::Pause);
            refresh.paused();
        }
        refresh.heard(Some(SubrequestReply::Absent));
        refresh.heard(Some(LOCKED));
        let end = end(&refresh);
        assert!(!end.is_there && end.is_missed(|_| false) && !end.is_missed(|_| true));
    }

    #[test]
    fn a_keep_alive_that_finds_the_item_locked_leaves_it_to_its_holder() {
        let (at, from) = (place(2), Some(place(1)));
        let mut refresh = CopyRefresh::new(Keeping::Alive { at, from });
        assert_eq!(
            refresh.heard(Some(SubrequestReply::Absent)).was_there,
            Some(false)
        );
        refresh.heard(Some(LOCKED));
        let end = end(&refresh);
        assert!(!end.is_there && !end.is_missed(|_| false));
    }

    #[test]
    fn a_copy_that_must_not_be_made_gives_its_lock_back() {
        for (is_left, waits) in [(false, false), (true, true)] {
            let mut refresh = anew();
            refresh.heard(Some(SubrequestReply::Absent));
            refresh.heard(Some(DONE));
            assert!(refresh.slot_changed(is_left).release.is_some());
            assert_eq!(refresh.task() == RefreshTask::Pause, waits, "{is_left}");
        }
    }
}
