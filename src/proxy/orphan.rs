//! Locks that nobody knows of.
//!
//! An acquire takes the lock before its answer is on the way. If the client then vanishes, or the
//! answer breaks off or comes too late, nobody holds the cookie, and every request of that user
//! would wait for the takeover after 110 s. The cookie in the answer opens exactly this lock, so
//! giving it back can hurt nobody (protocol 8).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::service::{ProxyService, View};
use crate::net::{Conn, Deadline};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, ResponseHead};

/// Locks that one worker is giving back at the same time, at most.
const MAX_ORPHANS: usize = 256;

/// How long a late answer is waited for: after the takeover age it is of no use any more.
const LATE_ANSWER: Duration = Duration::from_secs(100);

/// A lock taken on behalf of a client that will never learn of it.
pub(super) enum OrphanLock {
    /// The cookie came with an answer that could not be passed on.
    Known(u32),
    /// The answer has not come in time and is still expected on this connection.
    InLateAnswer(Conn),
}

/// Counts the locks being given back.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    running: Rc<Cell<usize>>,
}

/// One of them.
struct Orphan(Rc<Cell<usize>>);

impl Orphans {
    fn take(&self) -> Option<Orphan> {
        let free = self.running.get() < MAX_ORPHANS;
        free.then(|| {
            self.running.set(self.running.get() + 1);
            Orphan(Rc::clone(&self.running))
        })
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Gives the lock of `target` back in the background.
pub(super) fn give_back(
    service: &Rc<ProxyService>,
    view: &Rc<View>,
    backend: BackendIndex,
    target: &[u8],
    lock: OrphanLock,
) {
    let Some(orphan) = service.orphans.take() else {
        service.log_orphan(view, backend, "too many at once");
        return;
    };
    // A release that can go out now holds up the end of the program; a late answer does not.
    let known = matches!(lock, OrphanLock::Known(_)).then(|| service.worker.keep_busy());
    let (service, view, target) = (Rc::clone(service), Rc::clone(view), target.to_vec());
    tokio::task::spawn_local(async move {
        let _orphan = orphan;
        let deadline = service.worker.deadlines.register();
        let cookie = match lock {
            OrphanLock::Known(cookie) => Some(cookie),
            OrphanLock::InLateAnswer(conn) => late_cookie(&service, &view, conn, &deadline).await,
        };
        // Without a cookie there is no lock: the session was absent, locked, or its server died.
        let Some(cookie) = cookie else { return };
        let _busy = known.unwrap_or_else(|| service.worker.keep_busy());
        deadline.arm(view.snapshot.timeouts.answer);
        if release(&service, &view, backend, &target, cookie, &deadline)
            .await
            .is_none()
        {
            service.log_orphan(&view, backend, "its backend did not take it");
        }
    });
}

/// Waits for the answer of an acquire nobody waits for any more; the cookie of the lock it took.
async fn late_cookie(
    service: &ProxyService,
    view: &View,
    mut conn: Conn,
    deadline: &Deadline,
) -> Option<u32> {
    deadline.arm(LATE_ANSWER);
    let stopping = || service.worker.is_stopping();
    let buffers = &service.worker.buffers;
    let mut answer = conn.read_first(buffers, deadline, stopping).await.ok()?;
    let max_head_bytes = view.snapshot.head_limits.max_head_bytes;
    loop {
        match ResponseHead::parse(answer.filled(), max_head_bytes, false).ok()? {
            Parsed::Complete(head) => return head.lock_taken(answer.filled()),
            Parsed::Partial => conn.read_more(&mut answer, deadline).await.ok()?,
        }
    }
}

async fn release(
    service: &ProxyService,
    view: &View,
    backend: BackendIndex,
    target: &[u8],
    lock_cookie: u32,
    deadline: &Deadline,
) -> Option<()> {
    let mut request = Vec::new();
    wire::encode_request(
        &mut request,
        &wire::Request {
            operation: Operation::Release,
            target,
            lock_cookie,
            timeout_minutes: 0,
            extra_flags: 0,
            body: &[],
        },
    );
    let pool = view.pool(backend);
    if let Some(pooled) = pool.take()
        && send_release(service, view, backend, pooled, &request, deadline)
            .await
            .is_some()
    {
        return Some(());
    }
    // A second release is harmless, so a pooled connection that was dead is no reason to give up.
    let fresh = pool.connect(deadline).await.ok()?;
    send_release(service, view, backend, fresh, &request, deadline).await
}

async fn send_release(
    service: &ProxyService,
    view: &View,
    backend: BackendIndex,
    mut conn: Conn,
    request: &[u8],
    deadline: &Deadline,
) -> Option<()> {
    conn.write_all(request, &mut 0, deadline).await.ok()?;
    let buffers = &service.worker.buffers;
    let mut answer = conn.read_first(buffers, deadline, || false).await.ok()?;
    let max_head_bytes = view.snapshot.head_limits.max_head_bytes;
    loop {
        match ResponseHead::parse(answer.filled(), max_head_bytes, false).ok()? {
            Parsed::Complete(head) if answer.len() == head.head_bytes => {
                view.pool(backend).put(conn, deadline.now_ms());
                return Some(());
            }
            Parsed::Complete(_) => return Some(()),
            Parsed::Partial => conn.read_more(&mut answer, deadline).await.ok()?,
        }
    }
}
