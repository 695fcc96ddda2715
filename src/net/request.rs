//! The server side of one connection: the next request, or the 400 that ends it. Proxy and state
//! server share it, so both treat hostile bytes alike.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use super::{Buffer, Conn, Deadline, IoError, Worker};
use crate::wire::{self, HeadLimits, Parsed, RequestHead, WireError};

/// How long a refused client may go on sending before its connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// How much a refused client may go on sending.
const LINGER_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of a body that must have come since the time limit on a stall was set before it is set
/// anew. Were one byte enough, a body could be made to last for ever.
pub const MIN_PROGRESS_BYTES: u64 = 64 * 1024;

/// There is no next request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The client sent bytes that cannot be framed.
    #[error("bad request: {0}")]
    Malformed(#[from] WireError),
    /// The client left, stalled or broke.
    #[error("client: {0}")]
    Io(#[from] IoError),
}

/// Waits for the first bytes of a request. `None` when the connection is over: closed, idle for
/// longer than `idle`, or the worker is stopping. No buffer is held while waiting.
pub fn wait_for_request(
    conn: &mut Conn,
    worker: &Worker,
    deadline: &Deadline,
    idle: Duration,
) -> impl Future<Output = Option<Buffer>> {
    deadline.arm(idle);
    let mut first = conn.read_first(&worker.buffers, deadline, || worker.is_stopping());
    poll_fn(move |cx| Pin::new(&mut first).poll(cx).map(Result::ok))
}

/// Reads until the head at the start of `received` is complete, for at most `stall`.
///
/// # Errors
/// [`RequestError`].
pub async fn read_request_head(
    conn: &mut Conn,
    received: &mut Buffer,
    deadline: &Deadline,
    limits: &HeadLimits,
    stall: Duration,
) -> Result<RequestHead, RequestError> {
    if let Parsed::Complete(head) = RequestHead::parse(received.filled(), limits)? {
        return Ok(head);
    }
    deadline.arm(stall);
    loop {
        let seen = received.len();
        conn.read_more(received, deadline).await?;
        // Only the end of a line, or too much without one, can change the verdict.
        let full = received.len() >= limits.max_head_bytes;
        if !full && !received.filled()[seen..].contains(&b'\n') {
            continue;
        }
        if let Parsed::Complete(head) = RequestHead::parse(received.filled(), limits)? {
            return Ok(head);
        }
    }
}

/// Answers 400 and closes so that the client can read it, whatever it is still sending.
pub async fn refuse_request(mut conn: Conn, mut received: Buffer, deadline: &Deadline) {
    deadline.arm(LINGER);
    if conn
        .write_all(wire::BAD_REQUEST, &mut 0, deadline)
        .await
        .is_ok()
    {
        conn.linger(&mut received, LINGER_MAX_BYTES, deadline).await;
    }
}
