//! What carries the bytes of a connection: a TCP socket, TLS over one, or memory.
//!
//! What only a socket can do is asked here. A transport may say that it cannot tell: memory does not
//! know of an end that lies behind bytes.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::{os, tls};

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Pause between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

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

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    /// A socket.
    Tcp(TcpStream),
    /// One end of a pair in this process.
    Memory(DuplexStream),
    /// TLS over a socket.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Takes over a connected socket: no delay for small writes, keep-alive on.
    pub(super) fn tcp(stream: TcpStream) -> Self {
        prepare(&stream);
        Self::Tcp(stream)
    }

    /// Takes over an encrypted connection, with its socket as above.
    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        prepare(stream.get_ref().0);
        Self::Tls(Box::new(stream))
    }

    /// Two ends, each of which takes `max_bytes` that the other has not read.
    pub(super) fn pair(max_bytes: usize) -> (Self, Self) {
        let (one, other) = tokio::io::duplex(max_bytes);
        (Self::Memory(one), Self::Memory(other))
    }

    /// Reads what is there into `room`, and says how much; nothing means the end. Whoever was woken
    /// for it nearly always finds something.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        is_woken: bool,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => {
                if !is_woken {
                    ready!(stream.poll_read_ready(cx))?;
                }
                poll_receive(stream, cx, room)
            }
            other => other.poll_read_other(cx, room),
        }
    }

    /// Out of line, as the two below: what is no socket must cost sockets nothing.
    #[inline(never)]
    fn poll_read_other(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut room),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, &mut room),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut room),
        })?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Writes what is taken of `head`, then `body`. A socket takes all of nearly every message at
    /// once, so that it is asked before the runtime is.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let (Self::Tcp(stream), [], one) | (Self::Tcp(stream), one, []) = (&*self, head, body) {
            match stream.try_io(Interest::WRITABLE, || os::send(stream, one)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
        self.poll_write_other(cx, head, body)
    }

    #[inline(never)]
    fn poll_write_other(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        let both = [io::IoSlice::new(head), io::IoSlice::new(body)];
        match self {
            Self::Tcp(stream) => match stream.try_write_vectored(&both) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(stream).poll_write_vectored(cx, &both)
                }
                done => Poll::Ready(done),
            },
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, &both),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, &both),
        }
    }

    /// Waits until what was written is on its way. TLS may have taken it and not sent it yet.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Memory(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => flush(stream, cx),
        }
    }

    /// Stops sending; what was written still arrives.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Makes the end abrupt: what was written and not sent is dropped, and no port is kept in use for a
    /// minute afterwards.
    pub(super) fn reset_on_close(&self) {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Memory(_) => return,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // Where the system does not take it, the end is an orderly one.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }

    /// What has arrived while nobody was waiting. A byte that has may be lost.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub(super) fn quiet(&mut self) -> Quiet {
        let mut byte = [0; 1];
        let read = match self {
            Self::Tcp(stream) => match stream.try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Quiet::Yes,
                read => read,
            },
            Self::Memory(_) | Self::Tls(_) => {
                let mut cx = Context::from_waker(Waker::noop());
                match self.poll_read_other(&mut cx, &mut byte) {
                    Poll::Pending => return Quiet::Yes,
                    Poll::Ready(read) => read,
                }
            }
        };
        match read {
            Ok(1..) => Quiet::Unasked,
            Ok(0) | Err(_) => Quiet::Ended,
        }
    }

    /// Waits until the peer ends the connection: for ever where [`Self::has_ended`] cannot tell.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = match self {
            Self::Tcp(stream) => &*stream,
            Self::Tls(stream) => return tls::poll_ended(stream, cx),
            Self::Memory(_) => return Poll::Pending,
        };
        let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match stream.try_io(Interest::READABLE, peek) {
                // Bytes hide the end until somebody reads them.
                Ok(1..) => return Poll::Pending,
                // Nothing after all: the next look waits for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Whether the peer has ended the connection, as far as the event loop has seen; `None` if this
    /// transport cannot tell. Bytes that came before the end, a request sent early, hide it and stay
    /// where they are.
    ///
    /// Costs a system call only when the event loop has seen something arrive.
    pub(super) fn has_ended(&mut self) -> Option<bool> {
        let Self::Tcp(stream) = self else {
            return self.has_ended_other();
        };
        let stream = &*stream;
        let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        Some(match stream.try_io(Interest::READABLE, peek) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        })
    }
}

impl Transport {
    #[inline(never)]
    fn has_ended_other(&mut self) -> Option<bool> {
        let Self::Tls(stream) = self else {
            return None;
        };
        let mut cx = Context::from_waker(Waker::noop());
        Some(tls::poll_ended(stream, &mut cx).is_ready())
    }
}

/// Reads what has arrived, as far as the event loop has seen. What leaves room has emptied the socket:
/// then it is not asked again before the event loop has seen more arrive.
fn poll_receive(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        let mut received = 0;
        let tried = stream.try_io(Interest::READABLE, || {
            received = os::receive(stream, room)?;
            match os::SHORT_READ_EMPTIES && (1..room.len()).contains(&received) {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        if received > 0 {
            // The error, if it is one, was made above and owns nothing: every read would pay for a call
            // to drop it.
            std::mem::forget(tried);
            return Poll::Ready(Ok(received));
        }
        match tried {
            Ok(()) => return Poll::Ready(Ok(0)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            Err(_) => ready!(stream.poll_read_ready(cx))?,
        }
    }
}

#[inline(never)]
fn flush(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_flush(cx)
}

/// No delay for small writes, keep-alive on.
fn prepare(stream: &TcpStream) {
    // Neither option can fail on a live TCP socket; on a dead one the first read tells.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
