//! One connection: reads and writes under its deadline.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::transport::{Quiet, Transport};
use super::{Buffer, BufferPool, Deadline};

/// Reading or writing failed.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The deadline passed.
    #[error("the peer was too slow")]
    TimedOut,
    /// The worker is stopping.
    #[error("the program is stopping")]
    Stopping,
    /// The kernel reported an error, a reset by the peer for example.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
}

/// A connection, whatever carries its bytes. The deadline belongs to whoever drives it: one task drives two connections
/// (client and backend) under one deadline.
///
/// Its futures are closures and not `async fn`s: those keep every argument twice, and the size of
/// the futures is what an idle connection costs.
#[derive(Debug)]
pub struct Conn {
    transport: Transport,
}

impl Conn {
    /// Takes over a connected socket: no delay for small writes, keep-alive on.
    pub fn new(stream: TcpStream) -> Self {
        let transport = Transport::tcp(stream);
        Self { transport }
    }

    /// Takes over an encrypted connection.
    pub fn encrypted(stream: TlsStream<TcpStream>) -> Self {
        let transport = Transport::tls(stream);
        Self { transport }
    }

    /// Both ends of a connection within this process. Each takes `max_bytes` that the other has not
    /// read.
    pub fn pair(max_bytes: usize) -> (Self, Self) {
        let (one, other) = Transport::pair(max_bytes);
        (Self { transport: one }, Self { transport: other })
    }

    /// Ends the connection abruptly, in the middle of a message that nobody will finish: the peer need
    /// not wait for the rest, and no port of this machine stays in use for a minute.
    pub fn reset(self) {
        self.transport.reset_on_close();
    }

    /// Waits for the first bytes of a message without holding a buffer meanwhile.
    ///
    /// # Errors
    /// [`IoError`]; [`IoError::Closed`] on an orderly end; [`IoError::Stopping`] as soon as
    /// `stopping` says so.
    pub fn read_first(
        &mut self,
        pool: &Rc<BufferPool>,
        deadline: &Deadline,
        stopping: impl Fn() -> bool,
    ) -> impl Future<Output = Result<Buffer, IoError>> {
        let mut is_woken = false;
        poll_fn(move |cx| {
            let was_woken = mem::replace(&mut is_woken, true);
            match pool.fill(|room| self.poll_read(cx, room, was_woken)) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending if stopping() => Poll::Ready(Err(IoError::Stopping)),
                Poll::Pending => pending_until(cx, deadline),
            }
        })
    }

    /// Reads more into `buffer`, which must have room.
    ///
    /// # Errors
    /// [`IoError`]; [`IoError::Closed`] on an orderly end.
    pub fn read_more(
        &mut self,
        buffer: &mut Buffer,
        deadline: &Deadline,
    ) -> impl Future<Output = Result<(), IoError>> {
        let mut is_woken = false;
        poll_fn(move |cx| {
            let was_woken = mem::replace(&mut is_woken, true);
            match self.poll_read(cx, buffer.room_mut(), was_woken) {
                Poll::Ready(result) => Poll::Ready(result.map(|count| buffer.grow(count))),
                Poll::Pending => pending_until(cx, deadline),
            }
        })
    }

    /// Reads what there is into `room`, once there is something; how many bytes.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn read_some(
        &mut self,
        room: &mut [u8],
        deadline: &Deadline,
    ) -> impl Future<Output = Result<usize, IoError>> {
        poll_fn(move |cx| match self.poll_read(cx, room, false) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => pending_until(cx, deadline),
        })
    }

    /// Writes all of `bytes`. `written` counts what the kernel has taken, also on failure.
    ///
    /// # Errors
    /// [`IoError`]; [`IoError::Closed`] is never returned, a closed peer is [`IoError::Broken`].
    pub fn write_all(
        &mut self,
        bytes: &[u8],
        written: &mut u64,
        deadline: &Deadline,
    ) -> impl Future<Output = Result<(), IoError>> {
        self.write_two(bytes, &[], written, deadline)
    }

    /// Writes `head`, then `body`, in one system call when the kernel takes both.
    ///
    /// # Errors
    /// As [`Self::write_all`].
    pub fn write_two(
        &mut self,
        head: &[u8],
        body: &[u8],
        written: &mut u64,
        deadline: &Deadline,
    ) -> impl Future<Output = Result<(), IoError>> {
        let total = head.len() + body.len();
        let mut done = 0;
        poll_fn(move |cx| {
            while done < total {
                let (head, body) = match done.checked_sub(head.len()) {
                    Some(done) => (&[] as &[u8], &body[done..]),
                    None => (&head[done..], body),
                };
                match self.transport.poll_write(cx, head, body) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(IoError::Broken(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(count)) => {
                        done += count;
                        *written += count as u64;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(IoError::Broken(error))),
                    Poll::Pending => return pending_until(cx, deadline),
                }
            }
            match self.transport.poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed.map_err(IoError::Broken)),
                Poll::Pending => pending_until(cx, deadline),
            }
        })
    }

    /// What has arrived on an idle connection.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub fn quiet(&mut self) -> Quiet {
        self.transport.quiet()
    }

    /// Whether the peer has certainly ended the connection. Bytes that came before the end, a request
    /// sent early, hide it; so does a transport that cannot tell.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub fn has_ended(&mut self) -> bool {
        self.transport.has_ended().unwrap_or(false)
    }

    /// Waits until the peer ends the connection: for ever where [`Self::has_ended`] never says so.
    pub fn ended(&mut self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.transport.poll_ended(cx))
    }

    /// Ends the connection so that the peer can still read what was written last: stops sending,
    /// then throws away what the peer sends until it closes, `max_bytes` came or time is up.
    /// Closing at once would reset the connection and could take the answer with it.
    pub async fn linger(mut self, buffer: &mut Buffer, max_bytes: u64, deadline: &Deadline) {
        let ended = deadline.guard(poll_fn(|cx| self.transport.poll_shutdown(cx)));
        if !matches!(ended.await, Ok(Ok(()))) {
            return;
        }
        let mut thrown_away = 0;
        while thrown_away < max_bytes {
            buffer.clear();
            if self.read_more(buffer, deadline).await.is_err() {
                return;
            }
            thrown_away += buffer.len() as u64;
        }
    }

    /// How many bytes it has put into `room`; [`IoError::Closed`] instead of none.
    #[inline(always)]
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        is_woken: bool,
    ) -> Poll<Result<usize, IoError>> {
        match ready!(self.transport.poll_read(cx, room, is_woken)) {
            Ok(0) => Poll::Ready(Err(IoError::Closed)),
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(IoError::Broken(error))),
        }
    }
}

fn pending_until<T>(cx: &mut Context<'_>, deadline: &Deadline) -> Poll<Result<T, IoError>> {
    if deadline.poll_expired(cx) {
        Poll::Ready(Err(IoError::TimedOut))
    } else {
        Poll::Pending
    }
}
