//! One client connection: request after request, one outstanding at a time.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::attempt::Attempt;
use super::body_samples::{self, ContentsEvent, SAMPLE_BYTES};
use super::error::{ProxyError, Unanswered};
use super::forward::{Exchange, Forwarded};
use super::hold::{Held, Obstacle};
use super::id_watch::IdUse;
use super::lock_wait::LockWait;
use super::request_log::{Answered, Subject};
use super::service::{ProxyService, RequestTarget};
use super::two_places;
use super::view::View;
use crate::backend::{PROBE_TARGET, PROXY_ANSWER};
use crate::contents::StoredSample;
use crate::handover::{ClientRequest, Refusal, RequestDriver, RequestMachine, Stage, Step};
use crate::metrics::{ClientRefusal, RequestOutcome, WebServerConnection};
use crate::net::{self, Buffer, Conn, Deadline, IoError, Moment, Service};
use crate::route::{BackendIndex, Slot};
use crate::wire::{self, Operation, Parsed, RequestHead};

/// How long a request waits for the beginning of its own body, once a minute and session at most.
const LOOK_WAIT: Duration = Duration::from_millis(100);

impl Service for ProxyService {
    fn serve(self: Rc<Self>, conn: Conn, peer: SocketAddr) -> impl Future<Output = ()> {
        serve(self, conn, peer.ip())
    }

    fn admits(&self, peer: IpAddr) -> bool {
        let admits = self.view().snapshot.allow.allows(peer);
        if !admits {
            self.metrics.refused(ClientRefusal::NotAllowed).increment();
        }
        admits
    }

    fn turned_away(&self) {
        self.metrics.refused(ClientRefusal::NoPlace).increment();
    }

    fn not_trusted(&self) {
        self.metrics.refused(ClientRefusal::NoTls).increment();
    }

    fn tick(&self, now_ms: u64) {
        self.view().tick(now_ms);
    }
}

/// Serves the connection until the client closes it, it fails, or the program stops.
///
/// Not an `async fn`: those keep every argument twice, and every idle connection pays for it.
pub(super) fn serve(
    service: Rc<ProxyService>,
    conn: Conn,
    peer: IpAddr,
) -> impl Future<Output = ()> {
    let deadline = service.worker.deadlines.register();
    let idle = service.view().snapshot.timeouts.client_idle;
    let web_server = service.connected(peer);
    let mut client = Client {
        service: Served::new(service),
        conn,
        deadline,
        peer,
        web_server,
        idle,
    };
    async move {
        // While idle a connection holds neither a buffer nor a view.
        while let Some(mut received) = client.wait().await {
            loop {
                if let Err(error) = client.answer(&mut received).await {
                    if error.is_bad_request() {
                        client.refuses(&received, &error);
                        net::refuse_request(client.conn, received, &client.deadline).await;
                    }
                    return;
                }
                if received.is_empty() {
                    break;
                }
                // The client sent the next request early; it was held until now.
                received.compact();
            }
        }
    }
}

/// A request that may be tried once more, when it is time for that.
type NextAttempt<'a> = Pin<Box<dyn Future<Output = Result<(), Unanswered>> + 'a>>;

/// What a request does by what is in force.
enum Way<'a> {
    /// It goes to one backend, under this lock of it, and its answer is due then.
    Forward(Exchange<'a>, Option<u32>, &'a mut Buffer, u64),
    /// It asks at more than one place.
    Search(Pin<Box<dyn Future<Output = Result<Answered, Unanswered>> + 'a>>),
    /// It goes nowhere.
    Refuse(Unanswered),
}

impl Way<'_> {
    #[inline]
    async fn go(self) -> Result<Answered, Unanswered> {
        match self {
            Self::Forward(mut exchange, counter, received, due_ms) => {
                match exchange.run(received, counter, due_ms).await {
                    Ok(Forwarded::PassedOn) => Ok(exchange.answered()),
                    Ok(Forwarded::Queued) => Ok(exchange.queued()),
                    Err(failed) => Err(exchange.unanswered(failed)),
                }
            }
            Self::Search(searching) => searching.await,
            Self::Refuse(refused) => Err(refused),
        }
    }
}

/// The service as one open connection holds it.
struct Served(Rc<ProxyService>);

impl Served {
    fn new(service: Rc<ProxyService>) -> Self {
        service.metrics.opened.increment();
        Self(service)
    }
}

impl Deref for Served {
    type Target = Rc<ProxyService>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.metrics.closed.increment();
    }
}

struct Client {
    service: Served,
    conn: Conn,
    deadline: Deadline,
    peer: IpAddr,
    web_server: WebServerConnection,
    /// How long it may wait for its next request, as of its last one.
    idle: Duration,
}

impl Client {
    fn wait(&mut self) -> impl Future<Output = Option<Buffer>> {
        let worker = &self.service.worker;
        net::wait_for_request(&mut self.conn, worker, &self.deadline, self.idle)
    }

    /// Answers the request at the start of `received` and takes it out.
    async fn answer(&mut self, received: &mut Buffer) -> Result<(), ProxyError> {
        let mut view = self.service.view();
        self.idle = view.snapshot.timeouts.client_idle;
        let mut head = match RequestHead::parse(received.filled(), &view.snapshot.head_limits) {
            Ok(Parsed::Complete(head)) => head,
            // Rare, and on the heap: its state is not to be paid for by every request.
            _ => Box::pin(self.read_head(&mut view, received)).await?,
        };
        let started = Moment::now();
        let operation = head.operation();
        let target = head.target.of(received.filled());
        if operation == Operation::Touch && target == PROBE_TARGET {
            return Box::pin(self.answer_probe(&view, &head, received)).await;
        }
        self.web_server.requests.increment();
        let located = self.locate(&view, &mut head, received)?;
        let contents = &self.service.shared.contents;
        let is_followed = contents.follows(located.hash);
        let mut looked_into = None;
        if is_followed
            && operation == Operation::Put
            && !contents.was_looked_into(located.hash)
            && !body_samples::is_create(&head, received.filled())
            && contents.is_due(located.hash)
        {
            looked_into = self.look_into(&head, received, located.hash).await;
        }
        let request_bytes = head.head_bytes as u64 + head.body_bytes;
        let at_hand = request_bytes.min(received.len() as u64);
        self.service.metrics.received_bytes.add(at_hand);
        let mut subject = self.subject(operation, &located, started);
        let due_ms = self.deadline.after_ms(view.snapshot.timeouts.answer);
        let mut attempt = Attempt::first(
            &head,
            operation,
            received.filled(),
            &view,
            located.sample,
            due_ms,
        );
        let mut held = None;
        if self.service.lock_queues.may_be_awaited(subject.item) {
            let queued = self.queue_up(&mut view, &mut subject, located.slot, &mut attempt);
            queued.await?;
        }
        let answered = loop {
            let way = self.way(&view, &head, &subject, &mut attempt, received);
            let again = match way.go().await {
                Err(failed) if failed.may_repeat => {
                    self.try_again(&mut held, &view, &subject, &attempt, failed)
                }
                Ok(answered) if answered.is_queued => self.await_turn(&mut attempt, &answered),
                answered => break answered,
            };
            if let Err(failed) = again.await {
                break Err(failed);
            }
            view = self.service.view();
            subject.route = view.snapshot.slots.lookup(located.slot.index());
        };
        if let Some(held) = held {
            held.end(answered.is_ok());
        }
        if attempt.gives_lock_up() {
            self.web_server.locks_given_up.increment();
        }
        if is_followed && let Ok(answered) = &answered {
            self.note_use(operation, answered.outcome, located.hash, looked_into);
        }
        self.concludes(&view, &subject, answered)
    }

    /// The beginning of the body of a PUT that is to be looked into. Waits a moment for what has not come
    /// of it.
    ///
    /// That is rare, and its state large: it lives on the heap.
    #[cold]
    fn look_into<'a>(
        &'a mut self,
        head: &'a RequestHead,
        received: &'a mut Buffer,
        hash: u64,
    ) -> Pin<Box<impl Future<Output = Option<Box<StoredSample>>> + 'a>> {
        Box::pin(async move {
            let wanted = head.head_bytes as u64 + head.body_bytes.min(SAMPLE_BYTES as u64);
            self.deadline.arm(LOOK_WAIT);
            while (received.len() as u64) < wanted && !received.room_mut().is_empty() {
                // What is wrong with the connection shows when the rest is forwarded.
                if self.conn.read_more(received, &self.deadline).await.is_err() {
                    break;
                }
            }
            body_samples::take(head, received.filled(), hash).map(Box::new)
        })
    }

    /// A followed session was stored, used or removed: mostly used, as it has been in this minute.
    #[inline]
    fn note_use(
        &self,
        operation: Operation,
        outcome: RequestOutcome,
        hash: u64,
        looked_into: Option<Box<StoredSample>>,
    ) {
        let is_news = looked_into.is_some() || operation == Operation::Remove;
        if is_news || !self.service.shared.contents.was_used(hash) {
            self.note_contents(operation, outcome, hash, looked_into);
        }
    }

    /// The same, if it is news.
    #[cold]
    fn note_contents(
        &self,
        operation: Operation,
        outcome: RequestOutcome,
        hash: u64,
        looked_into: Option<Box<StoredSample>>,
    ) {
        let contents = &self.service.shared.contents;
        match (operation, outcome, looked_into) {
            (Operation::Put, RequestOutcome::Ok, Some(sample)) => {
                contents.tell(ContentsEvent::Stored(sample));
            }
            (Operation::Remove, RequestOutcome::Ok, _) => contents.used(hash, true),
            (_, RequestOutcome::Ok | RequestOutcome::Locked, _) => contents.used(hash, false),
            _ => {}
        }
    }

    /// The request once more, for which nobody has done anything, if that is worth waiting for.
    ///
    /// That is rare, and its state large: it lives on the heap.
    #[cold]
    fn try_again<'a>(
        &'a mut self,
        held: &'a mut Option<Held>,
        view: &'a Rc<View>,
        subject: &'a Subject,
        attempt: &'a Attempt,
        failed: Unanswered,
    ) -> NextAttempt<'a> {
        Box::pin(async move {
            match self.hold(held, view, &failed, subject, attempt).await {
                true => Ok(()),
                false => Err(failed),
            }
        })
    }

    /// The head of a request that has come in part, or cannot be framed. It may take a while to come.
    async fn read_head(
        &mut self,
        view: &mut Rc<View>,
        received: &mut Buffer,
    ) -> Result<RequestHead, ProxyError> {
        let limits = &view.snapshot.head_limits;
        let stall = view.snapshot.timeouts.client_stall;
        let reading =
            net::read_request_head(&mut self.conn, received, &self.deadline, limits, stall);
        match reading.await {
            Ok(head) => {
                *view = self.service.view();
                Ok(head)
            }
            Err(error) => Err(self.unplaced(Operation::Unknown, error.into())),
        }
    }

    /// Counts a request that has nothing to do with any backend.
    #[cold]
    fn unplaced(&self, operation: Operation, error: ProxyError) -> ProxyError {
        self.service.count_failure(operation, &error);
        error
    }

    /// Where the request's session can be.
    #[inline]
    fn locate(
        &self,
        view: &View,
        head: &mut RequestHead,
        received: &mut Buffer,
    ) -> Result<RequestTarget, ProxyError> {
        let service = &self.service;
        let located = match &view.snapshot.applications {
            Some(set) => service.locate_renamed(view, set, head, received),
            None => {
                let target = head.target.of(received.filled());
                service.locate(view, target).map_err(ProxyError::from)
            }
        };
        let located = located.map_err(|error| self.unplaced(head.operation(), error))?;
        let (session, start) = (located.hash, located.start_hash);
        if located.sample.is_followed() && service.shared.id_watch.is_news(session, start) {
            self.note_id(head, received, &located);
        }
        Ok(located)
    }

    #[cold]
    fn note_id(&self, head: &RequestHead, received: &Buffer, located: &RequestTarget) {
        let service = &self.service;
        let (watch, now_ms) = (&service.shared.id_watch, service.now_ms());
        let before = watch.note(located.hash, located.start_hash);
        let is_told = match before {
            Some(_) => service.changed_ids.allow(now_ms).is_some(),
            None => {
                watch.is_new_user(located.start_hash, self.peer, now_ms)
                    && service.id_users.allow(now_ms).is_some()
            }
        };
        let target = head.target.of(received.filled());
        if is_told && let Some(seen) = IdUse::of(target, located.fingerprint, self.peer, before) {
            service.shared.id_use(seen);
        }
    }

    #[inline]
    fn subject(&self, operation: Operation, located: &RequestTarget, started: Moment) -> Subject {
        Subject {
            peer: self.peer,
            operation,
            session: located.fingerprint,
            slot: located.slot,
            item: located.item(),
            start_hash: located.start_hash,
            application: located.application,
            route: located.route,
            started,
        }
    }

    /// Lets a request for a locked session wait for its turn. Rare, as above.
    #[cold]
    fn await_turn<'a>(
        &'a mut self,
        attempt: &'a mut Attempt,
        locked: &Answered,
    ) -> NextAttempt<'a> {
        let backend = locked.backend;
        Box::pin(async move {
            let Attempt {
                progress, due_ms, ..
            } = attempt;
            if let Some(lock_wait) = &mut progress.lock_wait {
                let begun = Moment::now();
                let is_there = lock_wait
                    .wait(&self.deadline, *due_ms, &mut self.conn)
                    .await;
                // It counts as spent on backends.
                progress.waited.add_ns(begun.elapsed_ns());
                if !is_there {
                    let left = ProxyError::Client(IoError::Closed);
                    return Err(Unanswered::new(left, backend));
                }
            }
            Ok(())
        })
    }

    /// Lets a request wait behind those that wait for the same lock already. Rare, as above.
    ///
    /// # Errors
    /// The client has left.
    #[cold]
    fn queue_up<'a>(
        &'a mut self,
        view: &'a mut Rc<View>,
        subject: &'a mut Subject,
        slot: Slot,
        attempt: &'a mut Attempt,
    ) -> Pin<Box<impl Future<Output = Result<(), ProxyError>> + 'a>> {
        Box::pin(async move {
            let service = &self.service;
            let wait_ms = view.snapshot.lock_wait_ms;
            let waits = matches!(
                attempt.request,
                ClientRequest::Acquire | ClientRequest::Read
            );
            let backend = view.snapshot.backend_at(subject.route.first);
            let (true, 1.., Some(backend)) = (waits, wait_ms, backend) else {
                return Ok(());
            };
            let terms = service.lock_terms(subject, &self.web_server, wait_ms);
            let Some(mut lock_wait) = LockWait::behind_others(&terms) else {
                return Ok(());
            };
            service.found_locked(subject);
            let begun = Moment::now();
            let is_there = lock_wait
                .wait(&self.deadline, attempt.due_ms, &mut self.conn)
                .await;
            if !is_there {
                let left = Unanswered::new(ProxyError::Client(IoError::Closed), backend);
                return self.concludes(view, subject, Err(left));
            }
            let progress = &mut attempt.progress;
            progress.waited.add_ns(begun.elapsed_ns());
            progress.lock_wait = Some(lock_wait);
            *view = service.view();
            subject.route = view.snapshot.slots.lookup(slot.index());
            Ok(())
        })
    }

    /// Counts and logs how the request has ended.
    #[inline(always)]
    fn concludes(
        &mut self,
        view: &View,
        subject: &Subject,
        answered: Result<Answered, Unanswered>,
    ) -> Result<(), ProxyError> {
        let service = &self.service;
        match answered {
            Ok(answered) => {
                if service.lock_queues.may_be_awaited(subject.item) {
                    self.calls_next(subject, answered.outcome);
                }
                if let Some(of_application) = view.applications.get(subject.application) {
                    let requests = &of_application.requests;
                    requests.count(subject.operation, answered.outcome);
                }
                let shard = view.shard(answered.backend);
                shard.requests.count(subject.operation, answered.outcome);
                let now_ms = service.now_ms();
                service.lines.answered(view, subject, &answered, now_ms);
                if answered.outcome == RequestOutcome::BadRequest {
                    service.refused_by_backend();
                    service
                        .lines
                        .refused_by_backend(view, subject, &answered, now_ms);
                }
                Ok(())
            }
            Err(failed) => {
                let now_ms = service.now_ms();
                if let Some(of_application) = view.applications.get(subject.application) {
                    let requests = &of_application.requests;
                    requests.count(subject.operation, RequestOutcome::Failed);
                }
                service.lines.failure(view, subject, &failed, now_ms);
                service.failed(view, subject.operation, &failed);
                self.note_departure(subject, &failed.error);
                Err(failed.error)
            }
        }
    }

    /// Takes note of a client that did not wait for the answer to a whole request.
    #[cold]
    fn note_departure(&mut self, subject: &Subject, error: &ProxyError) {
        let has_left = match error {
            // It may have left in the middle of what it stores.
            ProxyError::Client(_) if subject.operation == Operation::Put => false,
            ProxyError::Client(IoError::Closed | IoError::Broken(_)) => true,
            _ => self.conn.has_ended(),
        };
        if has_left {
            self.service.abandoned(subject, &self.web_server);
        }
    }

    /// Calls whoever waits for the session, if the answer that was passed on says that it may be free.
    /// A request that had to look at two places may have locked it for a moment of its own.
    #[cold]
    fn calls_next(&self, subject: &Subject, outcome: RequestOutcome) {
        let releases = matches!(
            subject.operation,
            Operation::Put | Operation::Release | Operation::Remove
        );
        let is_released = releases && outcome == RequestOutcome::Ok;
        if is_released || subject.route.second.is_some() {
            self.service.lock_queues.released(subject.item);
        }
    }

    /// Another proxy, or this one, takes this address for that of a state server.
    async fn answer_probe(
        &mut self,
        view: &View,
        head: &RequestHead,
        received: &mut Buffer,
    ) -> Result<(), ProxyError> {
        received.consume(head.head_bytes);
        self.deadline.arm(view.snapshot.timeouts.client_stall);
        let mut sent = 0;
        let writing = self.conn.write_all(PROXY_ANSWER, &mut sent, &self.deadline);
        writing.await.map_err(ProxyError::Client)
    }

    /// Bytes that are no request are about to be answered 400.
    fn refuses(&self, received: &Buffer, error: &ProxyError) {
        let now_ms = self.service.now_ms();
        self.service.lines.refusal(self.peer, error, now_ms);
        let metrics = &self.service.metrics;
        metrics.received_bytes.add(received.len() as u64);
        metrics.sent_bytes.add(wire::BAD_REQUEST.len() as u64);
    }

    /// Whether it is worth trying the request once more, after having waited for that.
    async fn hold(
        &mut self,
        held: &mut Option<Held>,
        view: &Rc<View>,
        failed: &Unanswered,
        subject: &Subject,
        attempt: &Attempt,
    ) -> bool {
        let places = (subject.route.first, subject.route.second);
        let obstacle = Obstacle::new(failed, view, places);
        // It may take more than one to find that the backend is down.
        self.service.report(view, failed);
        let (service, deadline) = (&self.service, &self.deadline);
        let waited = &attempt.progress.waited;
        // What is stored, released or removed is for whoever comes next.
        let stores_nothing = matches!(
            attempt.request,
            ClientRequest::Read | ClientRequest::Acquire | ClientRequest::Touch
        );
        let client = stores_nothing.then_some(&mut self.conn);
        let due_ms = attempt.due_ms;
        let waiting = obstacle.wait(held, service, deadline, due_ms, waited, client);
        waiting.await
    }

    /// What a request does by what is in force.
    #[inline]
    fn way<'a>(
        &'a mut self,
        view: &'a Rc<View>,
        head: &'a RequestHead,
        subject: &'a Subject,
        attempt: &'a mut Attempt,
        received: &'a mut Buffer,
    ) -> Way<'a> {
        let snapshot = &view.snapshot;
        let mut route = snapshot.slots.route(subject.route);
        if let Some(replica) = &mut route.replica {
            self.service.recall_copy(subject, replica);
        }
        let Some(backend) = snapshot.backend_at(route.first) else {
            let nobody = BackendIndex::new(0);
            return Way::Refuse(Unanswered::refused(Refusal::Unknown, nobody));
        };
        let (request, due_ms) = (attempt.request, attempt.due_ms);
        let mut exchange = Exchange {
            service: &self.service,
            view,
            client: &mut self.conn,
            web_server: &self.web_server,
            deadline: &self.deadline,
            head,
            subject,
            backend,
            attempt,
            away: route.second.filter(|_| route.stage == Stage::Away),
            may_queue: true,
        };
        let (search, step) = RequestMachine::start(route, request, snapshot.mover_s);
        match step {
            Step::Forward { at, counter } => {
                exchange.backend = snapshot.backend_at(at).unwrap_or(backend);
                Way::Forward(exchange, counter, received, due_ms)
            }
            // A search is rare and its state large: it lives on the heap.
            Step::Ask(ask) => {
                let replica = subject.route.replica;
                let is_repeatable = head.operation().is_repeatable();
                let driver = RequestDriver::new(search, ask, replica, request, is_repeatable);
                Way::Search(Box::pin(two_places::run(
                    exchange, driver, received, due_ms,
                )))
            }
            Step::Drop { reason, .. } => Way::Refuse(Unanswered {
                may_repeat: reason.may_begin_anew(),
                ..Unanswered::refused(reason, backend)
            }),
            Step::Pass { .. } => Way::Refuse(Unanswered::refused(Refusal::Unknown, backend)),
        }
    }
}
