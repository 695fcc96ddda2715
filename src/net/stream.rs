//! One connection: reads and writes under its deadline.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{Buffer, BufferPool, Deadline};

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Pause between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

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

/// Whether a socket could not be had or used because this machine or process has none left: no port,
/// open file, buffer or memory. It says nothing about the peer.
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        matches!(
            errno,
            Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM
        )
    })
}

/// What has arrived on an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing: it can be used.
    Yes,
    /// Its end.
    Ended,
    /// Bytes that nobody has asked for.
    Unasked,
}

/// A TCP connection. The deadline belongs to whoever drives it: one task drives two connections
/// (client and backend) under one deadline.
///
/// Its futures are closures and not `async fn`s: those keep every argument twice, and the size of
/// the futures is what an idle connection costs.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
}

impl Conn {
    /// Takes over a connected stream: no delay for small writes, keep-alive on.
    pub fn new(stream: TcpStream) -> Self {
        // Neither option can fail on a live TCP socket; on a dead one the first read tells.
        let _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        Self { stream }
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
        poll_fn(move |cx| match pool.fill(|room| self.poll_read(cx, room)) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending if stopping() => Poll::Ready(Err(IoError::Stopping)),
            Poll::Pending => pending_until(cx, deadline),
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
        poll_fn(move |cx| match self.poll_read(cx, buffer.room_mut()) {
            Poll::Ready(result) => Poll::Ready(result.map(|count| buffer.grow(count))),
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
                match self.poll_write(cx, head, body) {
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
            Poll::Ready(Ok(()))
        })
    }

    /// What has arrived on an idle connection.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub fn quiet(&self) -> Quiet {
        match self.stream.try_read(&mut [0u8; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Yes,
            Ok(1..) => Quiet::Unasked,
            Ok(0) | Err(_) => Quiet::Ended,
        }
    }

    /// Whether the peer has ended the connection, as far as the event loop has seen. Bytes that
    /// came before the end, a request sent early, hide it and stay where they are.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub fn has_ended(&self) -> bool {
        let peek = || SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]);
        match self.stream.try_io(Interest::READABLE, peek) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Ends the connection so that the peer can still read what was written last: stops sending,
    /// then throws away what the peer sends until it closes, `max_bytes` came or time is up.
    /// Closing at once would reset the connection and could take the answer with it.
    pub async fn linger(mut self, buffer: &mut Buffer, max_bytes: u64, deadline: &Deadline) {
        if SockRef::from(&self.stream)
            .shutdown(std::net::Shutdown::Write)
            .is_err()
        {
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

    /// Writes what the kernel takes of `head`, then `body`. It takes all of nearly every message
    /// at once, so that it is asked before the runtime is.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        let both = [io::IoSlice::new(head), io::IoSlice::new(body)];
        let tried = match (head, body) {
            (one, []) | ([], one) => self.stream.try_write(one),
            _ => self.stream.try_write_vectored(&both),
        };
        match tried {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Pin::new(&mut self.stream).poll_write_vectored(cx, &both)
            }
            done => Poll::Ready(done),
        }
    }

    /// How many bytes it has put into `room`; [`IoError::Closed`] instead of none.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<Result<usize, IoError>> {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)).map_err(IoError::Broken)?;
        match room.filled().len() {
            0 => Poll::Ready(Err(IoError::Closed)),
            count => Poll::Ready(Ok(count)),
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
