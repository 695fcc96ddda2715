//! One request against one backend.

use std::cell::Cell;
use std::rc::Rc;

use super::error::ProxyError;
use super::service::{ProxyService, View};
use crate::backend::{self, ConnectError};
use crate::net::{Buffer, Conn, Deadline, IoError};
use crate::route::BackendIndex;
use crate::wire::{self, Method, Operation, Parsed, RequestHead, ResponseHead};

/// Locks of vanished clients that one worker releases at the same time, at most.
const MAX_ORPHAN_RELEASES: usize = 256;

/// A request with a whole head, its route, and the connection that waits for the answer.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a mut Conn,
    pub(super) deadline: &'a Deadline,
    pub(super) head: &'a RequestHead,
    pub(super) backend: BackendIndex,
}

/// A failed attempt, and when the request may be sent again on a fresh connection.
struct Failed {
    error: ProxyError,
    again: Again,
}

/// When a request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// No byte of it can have reached the backend: always.
    NothingSent,
    /// It was sent whole and no byte of an answer came: when a second one harms nobody.
    NothingAnswered,
    /// Never.
    No,
}

impl Exchange<'_> {
    /// Forwards the request at the start of `received` and relays its answer. On success
    /// `received` holds what came behind the request.
    pub(super) async fn run(mut self, received: &mut Buffer) -> Result<(), ProxyError> {
        let due_ms = self.deadline.after_ms(self.view.snapshot.timeouts.answer);
        if let Some(pooled) = self.view.pool(self.backend).take() {
            match self.attempt(pooled, received, due_ms).await {
                Ok(()) => return Ok(()),
                Err(failed) if self.may_try_again(&failed) => {}
                Err(failed) => return Err(failed.error),
            }
        }
        // The state of the connection attempt is large and rarely needed: it lives on the heap.
        let fresh = Box::pin(self.connect(due_ms)).await?;
        self.attempt(fresh, received, due_ms)
            .await
            .map_err(|failed| failed.error)
    }

    fn may_try_again(&self, failed: &Failed) -> bool {
        match failed.again {
            Again::NothingSent => true,
            Again::NothingAnswered => self.head.operation().is_repeatable(),
            Again::No => false,
        }
    }

    async fn connect(&self, due_ms: u64) -> Result<Conn, ConnectError> {
        let connect_ms = self.deadline.after_ms(self.view.snapshot.timeouts.connect);
        self.deadline.arm_at(connect_ms.min(due_ms));
        backend::connect(&self.view.backend(self.backend).address, self.deadline).await
    }

    async fn attempt(
        &mut self,
        mut conn: Conn,
        received: &mut Buffer,
        mut due_ms: u64,
    ) -> Result<(), Failed> {
        self.deadline.arm_at(due_ms);
        let request_bytes = self.head.head_bytes as u64 + self.head.body_bytes;
        let at_hand = request_bytes.min(received.len() as u64);
        let mut sent = 0;
        let sending = conn.write_all(
            &received.filled()[..at_hand as usize],
            &mut sent,
            self.deadline,
        );
        if let Err(error) = sending.await {
            let again = match error {
                IoError::Broken(_) if sent == 0 => Again::NothingSent,
                IoError::Broken(_) if at_hand == request_bytes => Again::NothingAnswered,
                _ => Again::No,
            };
            return Err(Failed {
                error: ProxyError::Send(error),
                again,
            });
        }
        if at_hand == request_bytes {
            self.relay(conn, Some(received), due_ms).await?;
            received.consume(at_hand as usize);
            return Ok(());
        }
        received.clear();
        let rest = request_bytes - at_hand;
        self.stream_body(&mut conn, received, rest)
            .await
            .map_err(Failed::finally)?;
        // The answer's time starts when the whole request is out.
        due_ms = self.deadline.after_ms(self.view.snapshot.timeouts.answer);
        // The request is no longer at hand: whatever happens now, it cannot be sent again.
        let answered = self.relay(conn, None, due_ms).await;
        answered.map_err(|failed| Failed::finally(failed.error))
    }

    /// Passes on the part of the body that has not been received yet, a buffer at a time.
    async fn stream_body(
        &mut self,
        conn: &mut Conn,
        received: &mut Buffer,
        mut rest: u64,
    ) -> Result<(), ProxyError> {
        let timeouts = &self.view.snapshot.timeouts;
        loop {
            self.deadline.arm(timeouts.client_stall);
            let more = self.client.read_more(received, self.deadline).await;
            more.map_err(ProxyError::Client)?;
            let part = rest.min(received.len() as u64);
            self.deadline.arm(timeouts.answer);
            let bytes = &received.filled()[..part as usize];
            let written = conn.write_all(bytes, &mut 0, self.deadline).await;
            written.map_err(ProxyError::Send)?;
            received.consume(part as usize);
            rest -= part;
            if rest == 0 {
                return Ok(());
            }
            received.clear();
        }
    }

    /// Reads the answer and passes it on. `request` starts with the request's head; it is gone
    /// when the body was streamed.
    async fn relay(
        &mut self,
        mut conn: Conn,
        request: Option<&Buffer>,
        mut due_ms: u64,
    ) -> Result<(), Failed> {
        self.deadline.arm_at(due_ms);
        let buffers = &self.service.worker.buffers;
        let first = conn.read_first(buffers, self.deadline, || false).await;
        let mut answer = first.map_err(|error| Failed {
            again: match error {
                IoError::Closed | IoError::Broken(_) => Again::NothingAnswered,
                IoError::TimedOut | IoError::Stopping => Again::No,
            },
            error: ProxyError::Answer(error),
        })?;
        let head = self
            .read_head(&mut conn, &mut answer)
            .await
            .map_err(Failed::finally)?;
        let lock = self.lock_taken(&head, answer.filled());
        let mut rest = head.head_bytes as u64 + head.body_bytes;
        let mut conn = Some(conn);
        loop {
            let part = rest.min(answer.len() as u64);
            rest -= part;
            if rest == 0 && part == answer.len() as u64 {
                // Whole and nothing behind it: free for the next request before the client has
                // taken a byte.
                self.keep(conn.take());
            }
            let stalled_from_ms = self.deadline.now_ms();
            self.deadline.arm(self.view.snapshot.timeouts.client_stall);
            let bytes = &answer.filled()[..part as usize];
            // The kernel takes bytes for a client that has closed; nobody would read of the lock.
            let written = if lock.is_some() && self.client.has_ended() {
                Err(IoError::Closed)
            } else {
                self.client.write_all(bytes, &mut 0, self.deadline).await
            };
            if let Err(error) = written {
                if let (Some(cookie), Some(request)) = (lock, request) {
                    self.release_orphan(cookie, self.head.target.of(request.filled()));
                }
                return Err(Failed::finally(ProxyError::Client(error)));
            }
            let (1.., Some(conn)) = (rest, &mut conn) else {
                return Ok(());
            };
            answer.clear();
            // The backend's time does not run while the client is the slow one.
            due_ms += self.deadline.now_ms() - stalled_from_ms;
            self.deadline.arm_at(due_ms);
            let more = conn.read_more(&mut answer, self.deadline).await;
            more.map_err(|error| Failed::finally(ProxyError::Answer(error)))?;
        }
    }

    /// Reads until the head at the start of `answer` is complete.
    async fn read_head(
        &self,
        conn: &mut Conn,
        answer: &mut Buffer,
    ) -> Result<ResponseHead, ProxyError> {
        let max_head_bytes = self.view.snapshot.head_limits.max_head_bytes;
        let to_head = self.head.method == Method::Head;
        loop {
            let parsed = ResponseHead::parse(answer.filled(), max_head_bytes, to_head);
            if let Parsed::Complete(head) = parsed.map_err(ProxyError::Garbage)? {
                return Ok(head);
            }
            let more = conn.read_more(answer, self.deadline).await;
            more.map_err(ProxyError::Answer)?;
        }
    }

    fn keep(&self, conn: Option<Conn>) {
        if let Some(conn) = conn {
            self.view
                .pool(self.backend)
                .put(conn, self.deadline.now_ms());
        }
    }

    /// The cookie of the lock that an answer hands to the client.
    fn lock_taken(&self, answer: &ResponseHead, answer_bytes: &[u8]) -> Option<u32> {
        let acquired = self.head.operation() == Operation::Acquire && answer.status == 200;
        let cookie = answer.lock_cookie.filter(|_| acquired)?.of(answer_bytes);
        wire::head::decimal(cookie).and_then(|cookie| u32::try_from(cookie).ok())
    }

    /// The client of an acquire vanished before it had the answer: the lock it never learned of
    /// would make every request of that user wait for the takeover. The cookie opens exactly this
    /// lock, so the release can hurt nobody.
    fn release_orphan(&self, lock_cookie: u32, target: &[u8]) {
        let mut release = Vec::new();
        wire::encode_request(
            &mut release,
            &wire::Request {
                operation: Operation::Release,
                target,
                lock_cookie,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        let service = Rc::clone(self.service);
        let (view, backend) = (Rc::clone(self.view), self.backend);
        tokio::task::spawn_local(async move {
            if let Some(_place) = service.releases.take() {
                let released = send_release(&service, &view, backend, &release).await;
                if released.is_none() {
                    let name = &view.backend(backend).name;
                    tracing::debug!(backend = name, "the lock of a vanished client stays");
                }
            }
        });
    }
}

impl Failed {
    fn finally(error: ProxyError) -> Self {
        Self {
            error,
            again: Again::No,
        }
    }
}

async fn send_release(
    service: &ProxyService,
    view: &View,
    backend: BackendIndex,
    release: &[u8],
) -> Option<()> {
    let deadline = service.worker.deadlines.register();
    deadline.arm(view.snapshot.timeouts.answer);
    let mut conn = match view.pool(backend).take() {
        Some(conn) => conn,
        None => backend::connect(&view.backend(backend).address, &deadline)
            .await
            .ok()?,
    };
    conn.write_all(release, &mut 0, &deadline).await.ok()?;
    let buffers = &service.worker.buffers;
    let mut answer = conn.read_first(buffers, &deadline, || false).await.ok()?;
    let max_head_bytes = view.snapshot.head_limits.max_head_bytes;
    loop {
        match ResponseHead::parse(answer.filled(), max_head_bytes, false).ok()? {
            Parsed::Complete(head) if answer.len() == head.head_bytes => {
                view.pool(backend).put(conn, deadline.now_ms());
                return Some(());
            }
            Parsed::Complete(_) => return Some(()),
            Parsed::Partial => conn.read_more(&mut answer, &deadline).await.ok()?,
        }
    }
}

/// Counts the releases under way on behalf of vanished clients.
#[derive(Debug, Default)]
pub(super) struct OrphanReleases {
    running: Rc<Cell<usize>>,
}

impl OrphanReleases {
    fn take(&self) -> Option<OrphanRelease> {
        let free = self.running.get() < MAX_ORPHAN_RELEASES;
        free.then(|| {
            self.running.set(self.running.get() + 1);
            OrphanRelease(Rc::clone(&self.running))
        })
    }
}

struct OrphanRelease(Rc<Cell<usize>>);

impl Drop for OrphanRelease {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
