//! What is sent without anybody waiting for it: locks that nobody knows of are given back, and
//! what a moved item leaves behind is removed.
//!
//! An acquire takes the lock before its answer is on the way. If the client then vanishes, or the
//! answer breaks off or comes too late, nobody holds the cookie, and every request of that user
//! would wait for the takeover after 110 s. The cookie in the answer opens exactly this lock, so
//! giving it back can hurt nobody (protocol 8). The same cookie removes exactly the item that was
//! moved; it is tried no longer than a request may take, because a later item at the same server
//! counts its locks from the start again.

use std::rc::Rc;
use std::time::Duration;

use super::service::ProxyService;
use super::subrequest::{Call, Caller};
use super::untidy::Untidy;
use super::view::View;
use crate::backend::RetryPolicy;
use crate::net::{Conn, Deadline, TimeSpent};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, ResponseHead};

/// How long a late answer is waited for: after the takeover age it is of no use any more.
const LATE_ANSWER: Duration = Duration::from_secs(100);

/// Tidies up after a request for `target` in the background.
pub(super) fn tidy(
    service: &Rc<ProxyService>,
    view: &Rc<View>,
    backend: BackendIndex,
    target: &[u8],
    untidy: Untidy,
) {
    let Some(under_way) = service.tidying.begin(&untidy) else {
        service.log_untidy(view, backend, "too many at once");
        return;
    };
    // What can go out now holds up the end of the program; a late answer does not.
    let is_late = matches!(untidy, Untidy::LateAnswer(_));
    let busy = (!is_late).then(|| service.worker.keep_busy());
    let (service, view, target) = (Rc::clone(service), Rc::clone(view), target.to_vec());
    tokio::task::spawn_local(async move {
        let _under_way = under_way;
        let deadline = service.worker.deadlines.register();
        let (operation, cookie) = match untidy {
            Untidy::Lock(cookie) => (Operation::Release, cookie),
            Untidy::Moved(cookie) => (Operation::Remove, cookie),
            Untidy::LateAnswer(conn) => match late_cookie(&service, &view, conn, &deadline).await {
                Some(cookie) => {
                    wait_until_up(&service, &view, backend, &deadline).await;
                    (Operation::Release, cookie)
                }
                // No lock: the session was absent, locked, or its server died.
                None => return,
            },
            // Those have a task of their own.
            Untidy::Copy => return,
        };
        let _busy = busy.unwrap_or_else(|| service.worker.keep_busy());
        let caller = Caller {
            service: &service,
            view: &view,
            deadline: &deadline,
            due_ms: deadline.after_ms(view.snapshot.timeouts.answer),
            waited: &TimeSpent::default(),
        };
        if !send(&caller, backend, &target, operation, cookie).await {
            service.log_untidy(&view, backend, "its backend did not take it");
        } else if operation == Operation::Release {
            service.gave_back(&target);
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

/// A server that goes on after a pause answers what it finds in its buffers before it counts as up
/// again.
async fn wait_until_up(
    service: &ProxyService,
    view: &View,
    backend: BackendIndex,
    deadline: &Deadline,
) {
    while view.pool(backend).is_down() {
        if deadline.guard(service.holding.changed()).await.is_err() {
            return;
        }
    }
}

/// Whether the backend answered. A second release is harmless; a second removal could meet an item
/// that was created in between.
async fn send(
    caller: &Caller<'_>,
    backend: BackendIndex,
    target: &[u8],
    operation: Operation,
    lock_cookie: u32,
) -> bool {
    let mut bytes = Vec::new();
    wire::encode_request(
        &mut bytes,
        &wire::Request {
            operation,
            target,
            lock_cookie,
            timeout_minutes: 0,
            extra_flags: 0,
            body: &[],
        },
    );
    let call = Call {
        bytes: &bytes,
        operation,
        body_bytes: 0,
        retry: match operation {
            Operation::Release => RetryPolicy::Unanswered,
            _ => RetryPolicy::Unsent,
        },
    };
    match caller.call(backend, call).await {
        Ok(answered) => {
            caller.finish(backend, answered);
            true
        }
        Err(_) => false,
    }
}
