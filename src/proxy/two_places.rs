//! One request whose item may be at either of two places: does what `handover::RequestMachine` says.

mod copying;

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use self::copying::WholeBody;
use super::cleanup;
use super::copies::CopyUnderWay;
use super::error::{ProxyError, Unanswered};
use super::forward::{Exchange, Forwarded, RunFailed};
use super::refresh::{self, Keeping};
use super::request_log::Answered;
use super::subrequest::{Call, CallFailed, Caller, SubrequestAnswer};
use super::untidy::Untidy;
use crate::backend::RetryPolicy;
use crate::handover::{
    BackendId, NO_LOCK, Refusal, RequestMachine, Step, Subrequest, SubrequestReply,
};
use crate::metrics::MoveStep;
use crate::net::Buffer;
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, Request, ResponseHead, Unfit, WireError};

/// How often, and for how long at least, a removal waits for the end of a move.
const MAX_MOVE_PAUSES: usize = 3;
const MOVE_PAUSE: Duration = Duration::from_millis(30);

/// Runs the request at the start of `received` from its first question to its end, by `due_ms` of
/// the worker's clock. On success `received` holds what came behind the request.
pub(super) async fn run(
    exchange: Exchange<'_>,
    mut search: RequestMachine,
    first: Subrequest,
    received: &mut Buffer,
    due_ms: u64,
) -> Result<Answered, Unanswered> {
    let service = exchange.service;
    let now_ms = service.now_ms();
    let mut trail = service
        .lines
        .follow(exchange.subject, service.worker.index, now_ms);
    let mut seek = Seek {
        exchange,
        due_ms,
        held: None,
        kept: None,
        failed: None,
        is_untouched: true,
        is_unsent: Cell::new(false),
        moving: None,
        body: None,
    };
    let mut ask = first;
    loop {
        let seen = match seek.ask_or_copy(ask, received).await {
            Ok(seen) => seen,
            Err(failed) => return Err(seek.changed_meanwhile(failed)),
        };
        let step = search.next(seen);
        if let Some(trail) = &mut trail {
            trail.asked(seek.exchange.view, ask, seen);
            trail.decided(seek.exchange.view, step);
        }
        match step {
            Step::Ask(next) => ask = next,
            Step::Forward { at, counter } => return seek.forward(at, counter, received).await,
            Step::Pass { behind: None, .. } if seek.joins_queue() => {
                seek.release_held();
                return Ok(seek.exchange.queued());
            }
            Step::Pass { clear_flag, behind } => {
                seek.count_what_stays();
                seek.tidy(behind, received);
                return seek.pass(clear_flag, received).await;
            }
            Step::Drop { reason, behind } => {
                seek.count_failed_move();
                seek.tidy(behind, received);
                let mut failed = seek.refused(reason);
                let is_lost = reason == Refusal::Unknown && failed.error.is_out_of_reach();
                // What a replica has missed is stored anew once nobody relies on it any more.
                let is_missed = reason == Refusal::CopyMissed && seek.body.is_none();
                if is_missed || (seek.is_untouched && is_lost) {
                    failed.may_repeat = true;
                }
                return Err(failed);
            }
        }
    }
}

struct Seek<'a> {
    exchange: Exchange<'a>,
    due_ms: u64,
    held: Option<Held>,
    /// What the held answer was before its item was to be stored elsewhere.
    kept: Option<Kept<'a>>,
    /// The last question that was not answered.
    failed: Option<Unanswered>,
    /// Whether it has changed nothing anywhere so far.
    is_untouched: bool,
    /// No byte of the question under way could be sent.
    is_unsent: Cell<bool>,
    moving: Option<Moving>,
    /// What the client stores, if it did not come whole and two servers get it.
    body: Option<WholeBody<'a>>,
}

/// The move of the item.
#[derive(Clone, Copy)]
struct Moving {
    /// How far it has come.
    step: MoveStep,
    from: BackendIndex,
    to: BackendIndex,
    /// The answer to its last question to the new place; `None` while there is no whole one.
    status: Option<u16>,
}

/// An answer to the client's own request that may be passed on.
struct Held {
    answered: SubrequestAnswer,
    backend: BackendIndex,
}

/// An answer whose item was to be stored elsewhere.
struct Kept<'a> {
    head: Buffer,
    /// Ends with the item's body, of this length.
    bytes: Vec<u8>,
    body_bytes: usize,
    backend: BackendIndex,
    _memory: Option<SemaphorePermit<'a>>,
}

impl<'a> Seek<'a> {
    /// The same for what the replica is asked, too; an error if the slot has changed meanwhile.
    async fn ask_or_copy(
        &mut self,
        ask: Subrequest,
        received: &mut Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let replica = self.exchange.subject.route.replica;
        match ask {
            Subrequest::Copy { at } => self.copy(at, received).await,
            Subrequest::CopyHeld { at } => self.copy_held(at, received).await,
            Subrequest::Remove { at, .. } if replica == Some(at) => {
                self.clear_copy(at, received).await
            }
            Subrequest::Miss { .. } => Ok(self.miss()),
            ask => Ok(self.ask(ask, received).await),
        }
    }

    /// Nothing was done yet, unless the client's body was taken: then it cannot begin anew.
    fn changed_meanwhile(self, failed: Unanswered) -> Unanswered {
        let is_whole = self.is_untouched && self.body.is_none() && failed.error.is_refusal();
        Unanswered {
            may_repeat: is_whole,
            ..failed
        }
    }

    /// Puts one question and says what came of it.
    async fn ask(&mut self, ask: Subrequest, received: &mut Buffer) -> SubrequestReply {
        let seen = match ask {
            Subrequest::Client { at, counter } => self.ask_as_client(at, counter, received).await,
            Subrequest::Acquire { at } => self.fetch(at, Operation::Acquire, received).await,
            Subrequest::Recall { at } => self.fetch(at, Operation::Get, received).await,
            Subrequest::Look { at } => self.ask_alone(at, Operation::Touch, 0, received).await,
            Subrequest::Release { at, counter } => {
                self.ask_alone(at, Operation::Release, counter, received)
                    .await
            }
            Subrequest::Remove { at, counter } => self.remove(at, counter, received).await,
            Subrequest::Insert { at } => self.insert(at, received).await,
            Subrequest::NoteDelete { to } => return self.note_delete(to, received).await,
            // Those go elsewhere, or to the background.
            Subrequest::Copy { .. }
            | Subrequest::CopyHeld { .. }
            | Subrequest::Miss { .. }
            | Subrequest::Refresh { .. }
            | Subrequest::CopyAnew { .. } => return SubrequestReply::Unknown,
        };
        let seen = seen.unwrap_or_else(|failed| {
            self.failed = Some(failed);
            SubrequestReply::Unknown
        });
        self.is_untouched &= self.is_unsent.take() || self.leaves_no_trace(ask, seen);
        self.follow_move(ask, seen);
        seen
    }

    /// Whether a question that was put has certainly changed nothing.
    fn leaves_no_trace(&self, ask: Subrequest, seen: SubrequestReply) -> bool {
        let is_repeatable = self.exchange.head.operation().is_repeatable();
        match ask {
            Subrequest::Look { .. } | Subrequest::Recall { .. } => true,
            Subrequest::Client { .. } if is_repeatable => true,
            _ => matches!(
                seen,
                SubrequestReply::Absent | SubrequestReply::Locked { .. }
            ),
        }
    }

    /// Whether the item is at its new place: it may be there although it was refused, and it may
    /// not be although it was taken.
    fn follow_move(&mut self, ask: Subrequest, seen: SubrequestReply) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        match (ask, moving.step, seen) {
            (
                Subrequest::Insert { .. } | Subrequest::Look { .. },
                MoveStep::Insert,
                SubrequestReply::Done { .. },
            ) => {
                moving.step = MoveStep::Take;
            }
            (Subrequest::Client { .. }, MoveStep::Take, SubrequestReply::Absent) => {
                (moving.step, moving.status) = (MoveStep::Insert, Some(404));
            }
            _ => {}
        }
    }

    /// Sends the client's own request and holds the answer.
    async fn ask_as_client(
        &mut self,
        at: BackendId,
        counter: Option<u32>,
        received: &mut Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        self.release_held();
        let unrepeatable = |error| Unanswered::new(error, backend);
        let head = self.exchange.head;
        let request = self.exchange.attempt.own.untag(received, counter);
        let mut body = self.body.take();
        let bytes = match &mut body {
            Some(body) => Some(body.behind(request.head(head.body_bytes))),
            None => request.whole(),
        };
        let bytes = bytes.ok_or(unrepeatable(ProxyError::Unrepeatable))?;
        let call = Call {
            bytes,
            operation: head.operation(),
            body_bytes: head.body_bytes,
            retry: RetryPolicy::of(head.operation()),
        };
        let answered = self.caller().call(backend, call).await;
        self.body = body;
        self.hold(answered, backend, received)
    }

    /// Sends a request of our own that has no body.
    async fn ask_alone(
        &self,
        at: BackendId,
        operation: Operation,
        lock_cookie: u32,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        let mut bytes = Vec::new();
        wire::encode_request(
            &mut bytes,
            &self.request(operation, lock_cookie, received.filled()),
        );
        let call = Call {
            bytes: &bytes,
            operation,
            body_bytes: 0,
            retry: match operation {
                Operation::Touch | Operation::Release => RetryPolicy::Unanswered,
                _ => RetryPolicy::Unsent,
            },
        };
        self.send(backend, call).await
    }

    /// Gets the item, with a lock or without, for a request that asked for something else, and holds
    /// the answer.
    async fn fetch(
        &mut self,
        at: BackendId,
        operation: Operation,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        self.release_held();
        let mut bytes = Vec::new();
        wire::encode_request(&mut bytes, &self.request(operation, 0, received.filled()));
        let call = Call {
            bytes: &bytes,
            operation,
            body_bytes: 0,
            retry: RetryPolicy::of(operation),
        };
        let answered = self.caller().call(backend, call).await;
        self.hold(answered, backend, received)
    }

    /// Holds an answer that may be passed on. The lock of one that is late is given back.
    fn hold(
        &mut self,
        answered: Result<SubrequestAnswer, CallFailed>,
        backend: BackendIndex,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let answered = answered.map_err(|failed| {
            let CallFailed { error, left, .. } = failed;
            self.is_unsent.set(failed.is_unsent);
            if let Some(left) = left {
                self.tidy_at(backend, left.into(), received);
            }
            Unanswered::new(error, backend)
        })?;
        let seen = answered.seen();
        self.held = Some(Held { answered, backend });
        Ok(seen)
    }

    /// Removes what is behind. Where a client removes a session that was moved a moment ago, the
    /// mover's own removal, which nobody waited for, may still be on its way: it gets the time to
    /// arrive.
    async fn remove(
        &self,
        at: BackendId,
        counter: u32,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let is_clearing = counter == NO_LOCK && self.exchange.head.operation() == Operation::Remove;
        let mover_s = self.exchange.view.snapshot.mover_s;
        let mut pauses = 0;
        loop {
            let seen = self
                .ask_alone(at, Operation::Remove, counter, received)
                .await?;
            let may_end = matches!(seen, SubrequestReply::Locked { age_s, .. } if age_s < mover_s);
            if !is_clearing || !may_end || pauses == MAX_MOVE_PAUSES {
                return Ok(seen);
            }
            pauses += 1;
            self.exchange
                .service
                .worker
                .deadlines
                .sleep(MOVE_PAUSE)
                .await;
        }
    }

    /// Stores the item of the held answer unless there is one.
    async fn insert(
        &mut self,
        at: BackendId,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        if let Some(held) = &self.held {
            self.moving = Some(Moving {
                step: MoveStep::Insert,
                from: held.backend,
                to: backend,
                status: None,
            });
        }
        let memory = self.memory_of_held().await;
        let memory = memory.map_err(|error| match self.held.take() {
            Some(Held { answered, backend }) => {
                let lock = answered.head.lock_taken(answered.bytes.filled());
                self.stays_behind(backend, lock, error, received)
            }
            None => Unanswered::new(error, backend),
        })?;
        self.keep_whole(0, 1, memory, received).await?;
        let call = self.call_with_kept(RetryPolicy::Unsent);
        // Nobody goes on with the copies of this slot before it is known what became of this one.
        let mut under_way = self.begin_insert();
        under_way.iter_mut().for_each(CopyUnderWay::is_sent);
        let sent = self.send_and_see(backend, call).await;
        if let Some(under_way) = under_way.filter(|_| sent.is_ok()) {
            under_way.ends();
        }
        let (seen, status) = sent.or_else(|failed| {
            let refusal = refusal(&failed.error).ok_or(failed)?;
            Ok((SubrequestReply::Refused, refusal))
        })?;
        if let Some(moving) = &mut self.moving {
            moving.status = Some(status);
        }
        Ok(seen)
    }

    /// Waits until there is room for the item of the held answer.
    async fn memory_of_held(&self) -> Result<Option<SemaphorePermit<'a>>, ProxyError> {
        let held = self.held.as_ref();
        let body_bytes = held.map_or(0, |held| held.answered.head.body_bytes);
        let taking = self.exchange.view.snapshot.moves.take(body_bytes);
        self.exchange.deadline.arm_at(self.due_ms);
        let memory = self.exchange.deadline.guard(taking).await;
        memory.map_err(|_| ProxyError::Crowded)
    }

    /// Reads the item of the held answer whole, as the body of a PUT with this lock cookie and these
    /// flags. What the answer was is kept, to be passed on.
    async fn keep_whole(
        &mut self,
        lock_cookie: u32,
        extra_flags: u32,
        memory: Option<SemaphorePermit<'a>>,
        received: &Buffer,
    ) -> Result<(), Unanswered> {
        let Some(mut held) = self.held.take() else {
            let backend = self.exchange.backend;
            return Err(Unanswered::refused(Refusal::Unknown, backend));
        };
        let request = Request {
            timeout_minutes: held.answered.timeout_minutes(),
            extra_flags,
            ..self.request(Operation::Put, lock_cookie, received.filled())
        };
        let mut bytes = Vec::new();
        let body_bytes = held.answered.head.body_bytes;
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let from = held.backend;
        let head = &held.answered.head;
        let lock = head.lock_taken(held.answered.bytes.filled());
        let stays = |error| self.stays_behind(from, lock, error, received);
        let caller = self.caller();
        let head = held.answered.copy_head(&caller);
        let read = held.answered.read_body(&caller, from, &mut bytes);
        read.await.map_err(stays)?;
        caller.finish(from, held.answered);
        self.kept = Some(Kept {
            head,
            bytes,
            body_bytes: body_bytes as usize,
            backend: from,
            _memory: memory,
        });
        Ok(())
    }

    /// The PUT with the item that is kept.
    fn call_with_kept(&self, retry: RetryPolicy) -> Call<'_> {
        let kept = self.kept.as_ref();
        Call {
            bytes: kept.map_or(&[], |kept| &kept.bytes),
            operation: Operation::Put,
            body_bytes: kept.map_or(0, |kept| kept.body_bytes as u64),
            retry,
        }
    }

    /// The item could not be had whole in time. Nothing of it has been sent anywhere: it stays where
    /// it is, without the lock.
    fn stays_behind(
        &self,
        at: BackendIndex,
        lock: Option<u32>,
        error: ProxyError,
        received: &Buffer,
    ) -> Unanswered {
        if let Some(cookie) = lock {
            self.tidy_at(at, Untidy::Lock(cookie), received);
        }
        Unanswered::new(error, at)
    }

    async fn send(
        &self,
        backend: BackendIndex,
        call: Call<'_>,
    ) -> Result<SubrequestReply, Unanswered> {
        Ok(self.send_and_see(backend, call).await?.0)
    }

    /// What came of it, and the status that said so.
    async fn send_and_see(
        &self,
        backend: BackendIndex,
        call: Call<'_>,
    ) -> Result<(SubrequestReply, u16), Unanswered> {
        let caller = self.caller();
        let answered = caller.call(backend, call).await;
        let answered = answered.map_err(
            |CallFailed {
                 error, is_unsent, ..
             }| {
                self.is_unsent.set(is_unsent);
                Unanswered::new(error, backend)
            },
        )?;
        let (seen, status) = (answered.seen(), answered.head.status);
        caller.finish(backend, answered);
        Ok((seen, status))
    }

    async fn note_delete(&self, to: BackendId, received: &Buffer) -> SubrequestReply {
        let target = self.exchange.head.target.of(received.filled()).to_vec();
        let noting = self.exchange.service.shared.note_delete(to, target);
        self.exchange.deadline.arm_at(self.due_ms);
        match self.exchange.deadline.guard(noting).await {
            Ok(true) => SubrequestReply::Done {
                counter: 0,
                flag: false,
            },
            Ok(false) | Err(_) => SubrequestReply::Unknown,
        }
    }

    /// Hands the rest over to an ordinary exchange.
    async fn forward(
        mut self,
        at: BackendId,
        counter: Option<u32>,
        received: &mut Buffer,
    ) -> Result<Answered, Unanswered> {
        self.exchange.backend = self.backend(at)?;
        self.exchange.may_queue = self.is_untouched;
        match self.exchange.run(received, counter, self.due_ms).await {
            Ok(Forwarded::PassedOn) => Ok(self.exchange.answered()),
            Ok(Forwarded::Queued) => Ok(self.exchange.queued()),
            Err(failed) => {
                let may_repeat = failed.may_repeat && self.is_untouched;
                let failed = RunFailed {
                    may_repeat,
                    ..failed
                };
                Err(self.exchange.unanswered(failed))
            }
        }
    }

    /// Whether the request waits for the lock that the held answer speaks of.
    fn joins_queue(&mut self) -> bool {
        self.exchange.may_queue = self.is_untouched;
        match &self.held {
            Some(Held { answered, backend }) if answered.head.status == 423 => {
                self.exchange.backend = *backend;
                let (head, bytes) = (&answered.head, answered.bytes.filled());
                self.exchange.joins_queue(head, bytes)
            }
            _ => false,
        }
    }

    /// Passes the held answer on.
    async fn pass(
        mut self,
        clear_flag: bool,
        received: &mut Buffer,
    ) -> Result<Answered, Unanswered> {
        let (backend, passed) = match (self.held.take(), self.kept.take()) {
            (Some(Held { answered, backend }), _) => {
                self.exchange.backend = backend;
                (
                    backend,
                    self.pass_answer(answered, clear_flag, received).await,
                )
            }
            (None, Some(kept)) => {
                self.exchange.backend = kept.backend;
                (kept.backend, self.pass_kept(kept, received).await)
            }
            (None, None) => return Err(self.refused(Refusal::Unknown)),
        };
        passed.map_err(|error| Unanswered::new(error, backend))?;
        // A part of it may have come past this buffer.
        let came = received.len() as u64;
        received.consume(self.exchange.attempt.own.bytes().min(came) as usize);
        Ok(self.exchange.answered())
    }

    async fn pass_answer(
        &mut self,
        answered: SubrequestAnswer,
        clear_flag: bool,
        received: &Buffer,
    ) -> Result<(), ProxyError> {
        let SubrequestAnswer {
            conn,
            mut bytes,
            mut head,
            keeps_connection,
            ..
        } = answered;
        if let Some(flags) = head.action_flags.filter(|_| clear_flag) {
            bytes.remove_line(flags);
            // What follows the line has moved.
            head = self.parse_again(&bytes)?;
        }
        let request = Some(received);
        let remaining = self
            .exchange
            .remaining(&head, keeps_connection, &mut bytes, request)?;
        let mut conn = Some(conn);
        let passed_on = self
            .exchange
            .pass_on(&mut conn, &mut bytes, remaining, self.due_ms);
        passed_on
            .await
            .inspect_err(|_| self.exchange.give_back(remaining.lock, request))
    }

    /// The answer with which the item was to be moved, as that of the place where it stays. The lock
    /// that a read did not ask for is not its business.
    async fn pass_kept(&mut self, kept: Kept<'_>, received: &Buffer) -> Result<(), ProxyError> {
        let Kept {
            mut head, bytes, ..
        } = kept;
        let mut parsed = self.parse_again(&head)?;
        let is_acquire = self.exchange.head.operation() == Operation::Acquire;
        if let Some(cookie) = parsed.lock_cookie.filter(|_| !is_acquire) {
            head.remove_line(cookie);
            parsed = self.parse_again(&head)?;
        }
        let request = Some(received);
        // The connection that it came over is free already.
        let keeps_connection = false;
        let remaining = self
            .exchange
            .remaining(&parsed, keeps_connection, &mut head, request)?;
        let body = &bytes[bytes.len() - kept.body_bytes..];
        let passed_on = self.exchange.pass_on_whole(&head, body, remaining).await;
        passed_on.inspect_err(|_| self.exchange.give_back(remaining.lock, request))
    }

    fn parse_again(&self, bytes: &Buffer) -> Result<ResponseHead, ProxyError> {
        let max_head_bytes = self.exchange.view.snapshot.head_limits.max_head_bytes;
        let is_head = self.exchange.head.operation() == Operation::Touch;
        match ResponseHead::parse(bytes.filled(), max_head_bytes, is_head) {
            Ok(Parsed::Complete(head)) => Ok(head),
            Ok(Parsed::Partial) => Err(ProxyError::Garbage(WireError::BadHeaderLine)),
            Err(error) => Err(ProxyError::Garbage(error)),
        }
    }

    /// Sends what nobody waits for.
    fn tidy(&self, behind: Option<Subrequest>, received: &Buffer) {
        let (at, untidy) = match behind {
            Some(Subrequest::Release { at, counter }) => (at, Untidy::Lock(counter)),
            Some(Subrequest::Remove { at, counter }) => {
                self.count_move();
                (at, Untidy::Moved(counter))
            }
            Some(Subrequest::Refresh { at, from }) => {
                let keeping = Keeping::Alive { at, from };
                return self.keep_copy(keeping, received);
            }
            Some(Subrequest::CopyAnew { at, from }) => {
                return self.keep_copy(Keeping::Anew { at, from }, received);
            }
            _ => return,
        };
        if let Ok(backend) = self.backend(at) {
            self.tidy_at(backend, untidy, received);
        }
    }

    fn keep_copy(&self, keeping: Keeping, received: &Buffer) {
        let Exchange {
            service,
            view,
            subject,
            head,
            ..
        } = &self.exchange;
        let target = head.target.of(received.filled());
        refresh::keep_copy(service, view, subject, target, keeping);
    }

    fn tidy_at(&self, backend: BackendIndex, untidy: Untidy, received: &Buffer) {
        let target = self.exchange.head.target.of(received.filled());
        cleanup::tidy(
            self.exchange.service,
            self.exchange.view,
            backend,
            target,
            untidy,
        );
    }

    /// The request is over, and its item is not where it was to go.
    fn count_what_stays(&self) {
        let is_left = |moving: &Moving| moving.step == MoveStep::Insert;
        if self.moving.as_ref().is_some_and(is_left) {
            self.count_failed_move();
        }
    }

    fn count_failed_move(&self) {
        let Some(Moving {
            step,
            from,
            to,
            status,
        }) = self.moving
        else {
            return;
        };
        self.exchange.service.metrics.failed_moves(step).increment();
        if step == MoveStep::Insert {
            let view = self.exchange.view;
            let from = view.backend(from);
            let to = view.shard(to);
            to.count_failed_move(&from.metrics, from.backend_id, status);
        }
    }

    /// The held answer is the one of the place the item has just been moved to.
    fn count_move(&self) {
        if let (Some(held), Some(Moving { from, .. })) = (&self.held, self.moving) {
            let view = self.exchange.view;
            let from = view.backend(from);
            view.shard(held.backend)
                .count_move(&from.metrics, from.backend_id);
        }
    }

    /// Lets go of an answer that will not be passed on.
    fn release_held(&mut self) {
        self.kept = None;
        if let Some(Held { answered, backend }) = self.held.take() {
            self.caller().finish(backend, answered);
        }
    }

    /// Why there is no answer: the question that failed says more than what followed from it.
    fn refused(&mut self, reason: Refusal) -> Unanswered {
        let backend = self.exchange.backend;
        self.failed
            .take()
            .filter(|_| reason == Refusal::Unknown)
            .unwrap_or_else(|| Unanswered::refused(reason, backend))
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            service: self.exchange.service,
            view: self.exchange.view,
            deadline: self.exchange.deadline,
            due_ms: self.due_ms,
            waited: &self.exchange.attempt.progress.waited,
        }
    }

    fn backend(&self, at: BackendId) -> Result<BackendIndex, Unanswered> {
        let known = self.exchange.view.snapshot.backend_at(at);
        known.ok_or_else(|| Unanswered::refused(Refusal::Unknown, self.exchange.backend))
    }

    fn request<'r>(
        &self,
        operation: Operation,
        lock_cookie: u32,
        received: &'r [u8],
    ) -> Request<'r> {
        Request {
            operation,
            target: self.exchange.head.target.of(received),
            lock_cookie,
            timeout_minutes: 0,
            extra_flags: 0,
            body: &[],
        }
    }
}

/// The status with which no state server refuses to store the copy of a moved session, but something
/// else does: nothing else is taken from that answer. Not those of something in between that does
/// not know what has become of a request (408, 500, 502 to 504).
fn refusal(error: &ProxyError) -> Option<u16> {
    match error {
        ProxyError::Unfit(Unfit::Unversioned) => Some(404),
        ProxyError::Unfit(Unfit::Status(status)) => {
            let is_refusal = matches!(status, 401..=407 | 409..=499 | 501 | 505 | 507);
            is_refusal.then_some(*status)
        }
        _ => None,
    }
}
