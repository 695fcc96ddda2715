//! What is sent without anybody waiting for it: locks that nobody knows of are given back, and
//! what a moved item leaves behind is removed.
//!
//! An acquire takes the lock before its answer is on the way. If the client then vanishes, or the
//! answer breaks off or comes too late, nobody holds the cookie, and every request of that user
//! would wait for the takeover after 110 s. The cookie in the answer opens exactly this lock, so
//! giving it back can hurt nobody (protocol 8). The same cookie removes exactly the item that was
//! moved; it is tried no longer than a request may take, because a later item at the same server
//! counts its locks from the start again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::service::{ProxyService, View};
use super::subrequest::{Call, Caller};
use crate::backend::{Left, RetryPolicy};
use crate::net::{Conn, Deadline};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, ResponseHead};

/// Requests that one worker has under way in the background, at most.
const MAX_UNDER_WAY: usize = 256;

/// Late answers that one worker waits for, at most. Beside the others, because each may take as long
/// as [`LATE_ANSWER`]: those of one backend that hangs must not stop the tidying at all.
const MAX_LATE: usize = 128;

/// How long a late answer is waited for: after the takeover age it is of no use any more.
const LATE_ANSWER: Duration = Duration::from_secs(100);

/// One thing to tidy up.
pub(super) enum Untidy {
    /// A lock whose client never learned of it; its cookie came with an answer.
    Lock(u32),
    /// The answer to an acquire has not come in time and is still expected on this connection.
    LateAnswer(Conn),
    /// What a moved item left behind, under this lock.
    Moved(u32),
}

impl From<Left> for Untidy {
    fn from(left: Left) -> Self {
        match left {
            Left::Late(conn) => Self::LateAnswer(conn),
            Left::Lock(cookie) => Self::Lock(cookie),
        }
    }
}

/// Counts what is under way.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    late: Rc<Cell<usize>>,
    others: Rc<Cell<usize>>,
}

/// One of them.
struct UnderWay(Rc<Cell<usize>>);

impl Tidying {
    fn begin(&self, untidy: &Untidy) -> Option<UnderWay> {
        let (under_way, max) = match untidy {
            Untidy::LateAnswer(_) => (&self.late, MAX_LATE),
            Untidy::Lock(_) | Untidy::Moved(_) => (&self.others, MAX_UNDER_WAY),
        };
        let free = under_way.get() < max;
        free.then(|| {
            under_way.set(under_way.get() + 1);
            UnderWay(Rc::clone(under_way))
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

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
                Some(cookie) => (Operation::Release, cookie),
                // No lock: the session was absent, locked, or its server died.
                None => return,
            },
        };
        let _busy = busy.unwrap_or_else(|| service.worker.keep_busy());
        let caller = Caller {
            service: &service,
            view: &view,
            deadline: &deadline,
            due_ms: deadline.after_ms(view.snapshot.timeouts.answer),
            waited: &Cell::default(),
        };
        if !send(&caller, backend, &target, operation, cookie).await {
            service.log_untidy(&view, backend, "its backend did not take it");
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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn late_answers_leave_room_for_locks_and_for_what_was_moved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let late = Untidy::LateAnswer(Conn::new(stream.unwrap()));
        let tidying = Tidying::default();
        let begin_all =
            |untidy: &Untidy| Vec::from_iter(std::iter::from_fn(|| tidying.begin(untidy)));
        let waiting = begin_all(&late);
        assert_eq!(waiting.len(), MAX_LATE);
        let others = [Untidy::Lock(2), Untidy::Moved(2)].map(|untidy| begin_all(&untidy).len());
        assert_eq!(others, [MAX_UNDER_WAY; 2]);
        drop(waiting);
        assert!(tidying.begin(&late).is_some());
    }
}
