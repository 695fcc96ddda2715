//! One request whose item may be at either of two places, or that is copied: what is sent for each
//! step of its [`RequestMachine`], and what follows from what came back.
//!
//! Whoever carries the request (`proxy::two_places` over sockets, the simulation in virtual time) holds
//! answers and bodies, sends, waits, and keeps the time. All that depends on what a request is, or on
//! what has become of its questions, is decided here.

use std::time::Duration;

use super::request_machine::{
    ClientRequest, Refusal, RequestMachine, Step, Subrequest, SubrequestReply,
};
use super::{BackendId, COPY_LOCK, NO_LOCK};

/// How often a removal waits for the end of a move.
const MAX_MOVE_PAUSES: u8 = 3;
/// For how long at least each time.
pub const MOVE_PAUSE: Duration = Duration::from_millis(30);

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub struct RequestDriver {
    machine: RequestMachine,
    request: ClientRequest,
    /// Whether it harms nobody when the client's own request is done twice.
    is_repeatable: bool,
    replica: Option<BackendId>,
    ask: Subrequest,
    /// Whether it has changed nothing anywhere so far.
    is_untouched: bool,
    /// Whether the client's body has been taken out of its connection.
    has_taken_body: bool,
    /// How often it has waited for the end of a move.
    pauses: u8,
    /// The answer that is held, if its item is not kept already.
    held: Option<HeldAnswer>,
    moving: Option<ItemMove>,
    /// Of the last question without an answer.
    is_out_of_reach: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverTask {
    /// Send it, and tell [`RequestDriver::heard`] what came of it.
    Send(Question),
    /// Wait for [`MOVE_PAUSE`], then do [`RequestDriver::task`].
    Pause,
    /// Note down that the item has to be removed from this server, and tell whether it is.
    NoteDelete(BackendId),
    /// Take note that the replica has missed something, and that this session may have no copy.
    NoteMiss,
    /// Nothing is left to be decided.
    End(RequestEnd),
}

/// One request to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The server.
    pub at: BackendId,
    /// What it is sent as.
    pub form: QuestionForm,
    /// What is under way at the replica as long as this is.
    pub copy: Option<CopyKind>,
}

/// What a question is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionForm {
    /// The client's own request.
    Own {
        /// The lock cookie in place of the client's; `None` leaves it as it is.
        counter: Option<u32>,
    },
    /// GET.
    Get,
    /// GET, `Exclusive: acquire`.
    Acquire,
    /// HEAD.
    Touch,
    /// GET, `Exclusive: release`, with this lock cookie.
    Release(u32),
    /// DELETE with this lock cookie.
    Remove(u32),
    /// PUT.
    Store {
        /// What is stored.
        body: BodySource,
        /// Its lock cookie.
        lock_cookie: u32,
        /// Whether only if no item is there (`ExtraFlags: 1`).
        unless_there: bool,
    },
}

/// Where a body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodySource {
    /// The client stores it.
    Client,
    /// The item of the held answer. That is kept, and can still be passed on.
    Held,
}

/// What is under way at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyKind {
    /// An item, which was missed unless it was stored.
    Item,
    /// A removal, of which the request itself takes care.
    Removal,
    /// An item that is moved while there are copies of it: missed unless there is an answer.
    Move,
    /// An item that its place has lost, and gets back from its copy at this replica.
    Restore {
        /// The replica.
        from: BackendId,
    },
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyEnd {
    /// The replica may lack it.
    pub is_missed: bool,
    /// Whether there is a copy now; `None` if nothing was learned.
    pub is_there: Option<bool>,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// The client's own request is sent to a server, and its answer passed on, whatever it is.
    Forward {
        /// The server.
        at: BackendId,
        /// The lock cookie in place of the client's; `None` leaves it as it is.
        counter: Option<u32>,
    },
    /// The held answer is passed on.
    Pass {
        /// Without its flag.
        clear_flag: bool,
        /// To be sent without waiting for it.
        behind: Option<Subrequest>,
    },
    /// There is no answer.
    Fail {
        /// Why.
        reason: Refusal,
        /// To be sent without waiting for it.
        behind: Option<Subrequest>,
        /// Whether it may wait and begin anew.
        may_repeat: bool,
    },
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An answer, or something that comes to one.
    Reply(SubrequestReply),
    /// None.
    Nothing(NoReply),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReply {
    /// No byte of the question was sent.
    pub is_unsent: bool,
    /// The server could not be reached, or the connection broke: time may change that.
    pub is_out_of_reach: bool,
}

/// An answer that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldAnswer {
    at: BackendId,
    /// The lock that came with it.
    lock: Option<u32>,
}

/// The move of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemMove {
    /// Where the item was.
    pub from: BackendId,
    /// Where it is to go.
    pub to: BackendId,
    /// Whether it is there: it may be although it was refused, and may not be although it was taken.
    pub is_stored: bool,
    /// It was taken there, and is not there.
    pub is_gone: bool,
}

impl RequestDriver {
    /// A request whose `machine` has begun with `first`, on a slot with this replica.
    pub const fn new(
        machine: RequestMachine,
        first: Subrequest,
        replica: Option<BackendId>,
        request: ClientRequest,
        is_repeatable: bool,
    ) -> Self {
        Self {
            machine,
            request,
            is_repeatable,
            replica,
            ask: first,
            is_untouched: true,
            has_taken_body: false,
            pauses: 0,
            held: None,
            moving: None,
            is_out_of_reach: false,
        }
    }

    /// The step under way.
    pub const fn ask(&self) -> Subrequest {
        self.ask
    }

    /// Whether it has changed nothing anywhere so far.
    pub const fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// The move of the item, if it is moved.
    pub const fn moving(&self) -> Option<ItemMove> {
        self.moving
    }

    /// The move that has failed with this end of the request.
    pub fn failed_move(&self, end: &RequestEnd) -> Option<ItemMove> {
        let is_dropped = matches!(end, RequestEnd::Fail { .. });
        self.moving.filter(|moving| is_dropped || !moving.is_stored)
    }

    /// Gives the lock of the held answer back, if it came with one: its item could not be had whole, or
    /// must not be copied.
    pub fn lock_in_hand(&self) -> Option<Subrequest> {
        let HeldAnswer { at, lock } = self.held?;
        lock.map(|counter| Subrequest::Release { at, counter })
    }

    /// The client's body is held whole: its connection does not give it again.
    pub const fn took_body(&mut self) {
        self.has_taken_body = true;
    }

    /// Whether the request may wait and begin anew, if nothing was sent now.
    pub const fn may_begin_anew(&self) -> bool {
        self.is_untouched && !self.has_taken_body
    }

    /// How the request ends whose copy must not be made, or must not be stored anew: its slot has
    /// changed, or other proxies are not heard.
    pub fn refused(&self, reason: Refusal) -> RequestEnd {
        let holds = matches!(self.ask, Subrequest::CopyHeld { .. });
        RequestEnd::Fail {
            reason,
            behind: self.lock_in_hand().filter(|_| holds),
            may_repeat: self.may_begin_anew(),
        }
    }

    /// Whether the request may begin anew after it was forwarded in vain. `is_down` says whether the
    /// server counts as down by now.
    pub const fn forward_failed(&self, failed: NoReply, is_down: bool) -> bool {
        self.may_begin_anew() && failed.may_begin_anew(is_down, self.is_repeatable)
    }

    /// What to do for the step under way.
    pub fn task(&self) -> DriverTask {
        match self.ask {
            Subrequest::NoteDelete { to } => DriverTask::NoteDelete(to),
            Subrequest::Miss { .. } => DriverTask::NoteMiss,
            ask => match self.question(ask) {
                Some(question) => DriverTask::Send(question),
                // Only ever sent behind an answer.
                None => DriverTask::End(self.failed(Refusal::Unknown, None)),
            },
        }
    }

    /// What a step is sent as. An item that comes from the replica was lost by its place.
    fn question(&self, ask: Subrequest) -> Option<Question> {
        let question = Question::of(ask, self.replica)?;
        let from = self.moving.map(|moving| moving.from);
        let restored =
            from.filter(|_| from == self.replica && question.copy == Some(CopyKind::Move));
        let copy = restored
            .map(|from| CopyKind::Restore { from })
            .or(question.copy);
        Some(Question { copy, ..question })
    }

    /// Something came of the step under way; what to do next.
    pub fn heard(&mut self, heard: Heard) -> DriverTask {
        let reply = heard.reply();
        if self.waits_for_mover(reply) {
            self.pauses += 1;
            return DriverTask::Pause;
        }
        self.pauses = 0;
        let mut is_unsent = false;
        if let Heard::Nothing(failed) = heard {
            self.is_out_of_reach = failed.is_out_of_reach;
            is_unsent = failed.is_unsent;
        }
        if let Some(question) = Question::of(self.ask, self.replica) {
            self.follow_held(question, heard);
            // What a copy changes is changed again when the request begins anew.
            if !matches!(question.copy, Some(CopyKind::Item | CopyKind::Removal)) {
                self.is_untouched &= is_unsent || self.leaves_no_trace(reply);
                self.follow_move(reply);
            }
        }
        match self.machine.next(reply) {
            Step::Ask(ask) => {
                self.ask = ask;
                self.begin_move();
                self.task()
            }
            Step::Forward { at, counter } => DriverTask::End(RequestEnd::Forward { at, counter }),
            Step::Pass { clear_flag, behind } => {
                DriverTask::End(RequestEnd::Pass { clear_flag, behind })
            }
            Step::Drop { reason, behind } => DriverTask::End(self.failed(reason, behind)),
        }
    }

    fn failed(&self, reason: Refusal, behind: Option<Subrequest>) -> RequestEnd {
        let may_repeat = match reason {
            // What a replica has missed is stored anew once nobody relies on it any more.
            Refusal::CopyMissed => !self.has_taken_body,
            Refusal::Unknown => self.is_out_of_reach && self.may_begin_anew(),
            _ => false,
        };
        RequestEnd::Fail {
            reason,
            behind,
            may_repeat,
        }
    }

    /// Where a client removes a session that was moved a moment ago, the mover's own removal, which
    /// nobody waited for, may still be on its way: it gets the time to arrive.
    fn waits_for_mover(&self, reply: SubrequestReply) -> bool {
        let is_clearing = matches!(self.request, ClientRequest::Remove(_))
            && matches!(self.ask, Subrequest::Remove { counter, .. } if counter == NO_LOCK);
        let may_end = matches!(
            reply,
            SubrequestReply::Locked { age_s, .. } if self.machine.may_be_mover(age_s)
        );
        is_clearing && may_end && self.pauses < MAX_MOVE_PAUSES
    }

    /// Which answer is held, and whether a lock came with it.
    fn follow_held(&mut self, question: Question, heard: Heard) {
        match (question.form, heard) {
            (form, Heard::Reply(reply)) if form.is_held() => {
                let lock = match reply {
                    SubrequestReply::Done { counter, .. } => Some(counter),
                    _ => None,
                };
                let (at, lock) = (question.at, lock.filter(|lock| *lock != NO_LOCK));
                self.held = Some(HeldAnswer { at, lock });
            }
            (form, _) if form.is_held() || form.keeps_held() => self.held = None,
            _ => {}
        }
    }

    /// Whether a question that was put has certainly changed nothing.
    fn leaves_no_trace(&self, reply: SubrequestReply) -> bool {
        match self.ask {
            Subrequest::Look { .. } | Subrequest::Recall { .. } => true,
            Subrequest::Client { .. } if self.is_repeatable => true,
            _ => matches!(
                reply,
                SubrequestReply::Absent | SubrequestReply::Locked { .. }
            ),
        }
    }

    fn begin_move(&mut self) {
        if let (Subrequest::Insert { at: to }, Some(HeldAnswer { at: from, .. })) =
            (self.ask, self.held)
        {
            self.moving = Some(ItemMove {
                from,
                to,
                is_stored: false,
                is_gone: false,
            });
        }
    }

    fn follow_move(&mut self, reply: SubrequestReply) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        match (self.ask, reply) {
            (Subrequest::Insert { .. } | Subrequest::Look { .. }, SubrequestReply::Done { .. }) => {
                moving.is_stored = true;
            }
            (Subrequest::Client { .. }, SubrequestReply::Absent) if moving.is_stored => {
                (moving.is_stored, moving.is_gone) = (false, true);
            }
            _ => {}
        }
    }
}

impl Question {
    /// What a step is sent as; `None` for one that asks no server. `replica` is that of the slot.
    pub fn of(ask: Subrequest, replica: Option<BackendId>) -> Option<Self> {
        let is_replica = |at| replica == Some(at);
        let (at, form) = match ask {
            Subrequest::Client { at, counter } => (at, QuestionForm::Own { counter }),
            Subrequest::Acquire { at } => (at, QuestionForm::Acquire),
            Subrequest::Recall { at } => (at, QuestionForm::Get),
            Subrequest::Look { at } => (at, QuestionForm::Touch),
            Subrequest::Release { at, counter } => (at, QuestionForm::Release(counter)),
            Subrequest::Remove { at, counter } => (at, QuestionForm::Remove(counter)),
            Subrequest::Insert { at } => (at, QuestionForm::store(BodySource::Held, 0, true)),
            Subrequest::Copy { at } => (
                at,
                QuestionForm::store(BodySource::Client, COPY_LOCK, false),
            ),
            Subrequest::CopyHeld { at } => {
                (at, QuestionForm::store(BodySource::Held, COPY_LOCK, false))
            }
            Subrequest::NoteDelete { .. }
            | Subrequest::Miss { .. }
            | Subrequest::Refresh { .. }
            | Subrequest::CopyAnew { .. } => return None,
        };
        let copy = match ask {
            Subrequest::Copy { .. } | Subrequest::CopyHeld { .. } => Some(CopyKind::Item),
            Subrequest::Remove { at, .. } if is_replica(at) => Some(CopyKind::Removal),
            // Nobody goes on with the copies of this slot before it is known what became of this one.
            Subrequest::Insert { .. } => replica.map(|_| CopyKind::Move),
            _ => None,
        };
        Some(Self { at, form, copy })
    }

    /// Whether it harms nobody when it is done twice. The client's own request has a rule of its own.
    pub const fn is_repeatable(&self) -> bool {
        match self.form {
            QuestionForm::Get | QuestionForm::Touch | QuestionForm::Release(_) => true,
            QuestionForm::Store { .. } => matches!(self.copy, Some(CopyKind::Item)),
            QuestionForm::Own { .. } | QuestionForm::Acquire | QuestionForm::Remove(_) => false,
        }
    }
}

impl QuestionForm {
    const fn store(body: BodySource, lock_cookie: u32, unless_there: bool) -> Self {
        Self::Store {
            body,
            lock_cookie,
            unless_there,
        }
    }

    /// Whether its answer is held, and may be passed on. The one that was held before is let go of when
    /// it is sent.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Own { .. } | Self::Get | Self::Acquire)
    }

    /// Whether the item of the held answer is taken out of it.
    const fn keeps_held(self) -> bool {
        matches!(
            self,
            Self::Store {
                body: BodySource::Held,
                ..
            }
        )
    }
}

impl CopyKind {
    /// The replica that the slot must still have ([`SlotRoute::may_copy`](super::SlotRoute::may_copy))
    /// for a question to `at`: what is written there late would cover what others have written, and
    /// what comes from there late may have been removed since.
    pub fn needs_replica(self, at: BackendId) -> Option<BackendId> {
        match self {
            Self::Item | Self::Removal => Some(at),
            Self::Restore { from } => Some(from),
            Self::Move => None,
        }
    }

    /// Whether it must not be sent unless no other proxy can have dropped the replica.
    pub const fn is_restore(self) -> bool {
        matches!(self, Self::Restore { .. })
    }

    /// When it is due at `now_ms`, in a request that is due at `due_ms`. A replica that does not answer
    /// must not take the time in which the slot goes on without it: it gets half of what is left.
    pub const fn due_ms(self, now_ms: u64, due_ms: u64) -> u64 {
        match self {
            Self::Item | Self::Removal => now_ms + due_ms.saturating_sub(now_ms) / 2,
            Self::Move | Self::Restore { .. } => due_ms,
        }
    }

    /// What became of it, given what came of its question.
    pub const fn ended(self, reply: SubrequestReply) -> CopyEnd {
        let is_done = matches!(reply, SubrequestReply::Done { .. });
        match self {
            Self::Item => CopyEnd {
                is_missed: !is_done,
                is_there: if is_done { Some(true) } else { None },
            },
            Self::Removal => CopyEnd {
                is_missed: false,
                is_there: Some(false),
            },
            Self::Move | Self::Restore { .. } => CopyEnd {
                is_missed: matches!(reply, SubrequestReply::Unknown),
                is_there: None,
            },
        }
    }
}

impl Heard {
    /// What a decision has to know of it.
    pub const fn reply(self) -> SubrequestReply {
        match self {
            Self::Reply(reply) => reply,
            Self::Nothing(_) => SubrequestReply::Unknown,
        }
    }
}

impl NoReply {
    /// Whether a request that was forwarded in vain, and had changed nothing before, may begin anew.
    /// `is_down` says whether its server counts as down by now: nothing that was under way there is
    /// waited for then.
    pub const fn may_begin_anew(self, is_down: bool, is_repeatable: bool) -> bool {
        self.is_unsent || (is_down && self.is_out_of_reach && is_repeatable)
    }
}

impl Refusal {
    /// Whether a request that is refused before anybody was asked may wait and begin anew: another
    /// snapshot may change it.
    pub const fn may_begin_anew(self) -> bool {
        matches!(self, Self::Suspect | Self::CopyMissed)
    }
}

#[cfg(test)]
mod tests;
