//! Connections of one simulated web server, pooled as ASP.NET's client pools them (protocol 1).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::options::MAX_BODY_BYTES;
use super::report::FarmFailure;
use crate::wire::{HeadLimits, Parsed, ResponseHead};

/// Tick of the pool: a connection unused through a whole one is closed at the next (protocol 1).
pub(crate) const IDLE_TICK: Duration = Duration::from_secs(5);

/// The connections to one target: last in, first out, as many as are needed at once.
#[derive(Debug)]
pub(crate) struct FarmConnections {
    target: SocketAddr,
    idle: RefCell<Vec<Connection>>,
    /// The first answer has been checked for its version.
    is_greeted: Cell<bool>,
    network_timeout: Duration,
}

/// The bytes of one answer. Reused from request to request.
#[derive(Debug)]
pub(crate) struct AnswerBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Fires at or before the deadline of the request under way. It is moved only when it fires,
    /// so most requests cost no timer at all.
    timer: Pin<Box<Sleep>>,
    used_at: Instant,
}

impl FarmConnections {
    pub(crate) fn new(target: SocketAddr, network_timeout: Duration) -> Self {
        Self {
            target,
            idle: RefCell::new(Vec::new()),
            is_greeted: Cell::new(false),
            network_timeout,
        }
    }

    /// Sends `request` and reads the whole answer into `answer`.
    pub(crate) async fn exchange(
        &self,
        request: &[u8],
        to_head: bool,
        answer: &mut AnswerBuffer,
    ) -> Result<ResponseHead, FarmFailure> {
        let mut connection = match self.take_live() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let now = Instant::now();
        connection.used_at = now;
        let deadline = now + self.network_timeout;
        connection.send(request, deadline).await?;
        let head = connection.receive(to_head, answer, deadline).await?;
        self.idle.borrow_mut().push(connection);
        if head.status == 400 {
            return Err(FarmFailure::BadRequest);
        }
        if !self.is_greeted.replace(true) && !names_version_2(&answer.bytes[..head.head_bytes]) {
            return Err(FarmFailure::Version);
        }
        Ok(head)
    }

    /// Closes what has been idle for at least one tick; to be called every [`IDLE_TICK`].
    pub(crate) fn close_idle(&self) {
        let now = Instant::now();
        let is_fresh = |held: &Connection| now.duration_since(held.used_at) < IDLE_TICK;
        self.idle.borrow_mut().retain(is_fresh);
    }

    /// A pooled connection found dead is replaced without the caller noticing (protocol 1).
    fn take_live(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            let nothing = connection.stream.try_read(&mut [0]);
            if nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, FarmFailure> {
        let connecting = timeout(self.network_timeout, TcpStream::connect(self.target));
        let Ok(Ok(stream)) = connecting.await else {
            return Err(FarmFailure::Connect);
        };
        stream.set_nodelay(true).map_err(|_| FarmFailure::Connect)?;
        let now = Instant::now();
        Ok(Connection {
            stream,
            timer: Box::pin(sleep_until(now + self.network_timeout)),
            used_at: now,
        })
    }
}

impl AnswerBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; 16 * 1024],
            filled: 0,
        }
    }

    pub(crate) fn head(&self, head: &ResponseHead) -> &[u8] {
        self.bytes.get(..head.head_bytes).unwrap_or_default()
    }

    pub(crate) fn body(&self, head: &ResponseHead) -> &[u8] {
        let body = self.bytes.get(head.head_bytes..self.filled);
        body.unwrap_or_default()
    }

    /// Makes room for `total` bytes and at least one more: an answer that is too long shows.
    fn reserve(&mut self, total: usize) {
        if self.bytes.len() <= total {
            self.bytes.resize(total + 1, 0);
        }
    }
}

impl Connection {
    async fn send(&mut self, request: &[u8], deadline: Instant) -> Result<(), FarmFailure> {
        let mut sent = 0;
        while sent < request.len() {
            let rest = &request[sent..];
            let write = |connection: &mut Self, cx: &mut Context<'_>| {
                Pin::new(&mut connection.stream).poll_write(cx, rest)
            };
            sent += self.bounded(deadline, write).await?;
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        to_head: bool,
        answer: &mut AnswerBuffer,
        deadline: Instant,
    ) -> Result<ResponseHead, FarmFailure> {
        let max_head_bytes = HeadLimits::default().max_head_bytes;
        answer.filled = 0;
        let head = loop {
            self.read_some(answer, deadline).await?;
            let received = &answer.bytes[..answer.filled];
            match ResponseHead::parse(received, max_head_bytes, to_head) {
                Ok(Parsed::Complete(head)) => break head,
                Ok(Parsed::Partial) => answer.reserve(answer.filled),
                Err(_) => return Err(FarmFailure::Unparsable),
            }
        };
        if head.body_bytes > u64::from(MAX_BODY_BYTES) {
            return Err(FarmFailure::Unparsable);
        }
        let total = head.head_bytes + head.body_bytes as usize;
        answer.reserve(total);
        while answer.filled < total {
            self.read_some(answer, deadline).await?;
        }
        if answer.filled > total {
            return Err(FarmFailure::Unparsable);
        }
        Ok(head)
    }

    async fn read_some(
        &mut self,
        answer: &mut AnswerBuffer,
        deadline: Instant,
    ) -> Result<(), FarmFailure> {
        let room = &mut answer.bytes[answer.filled..];
        let read = |connection: &mut Self, cx: &mut Context<'_>| {
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(&mut connection.stream).poll_read(cx, &mut room))?;
            Poll::Ready(Ok(room.filled().len()))
        };
        answer.filled += self.bounded(deadline, read).await?;
        Ok(())
    }

    /// Runs `step` until it moves at least one byte, or the deadline passes.
    async fn bounded(
        &mut self,
        deadline: Instant,
        mut step: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Result<usize, FarmFailure> {
        poll_fn(|cx| {
            if let Poll::Ready(moved) = step(self, cx) {
                return Poll::Ready(match moved {
                    Ok(bytes) if bytes > 0 => Ok(bytes),
                    _ => Err(FarmFailure::Closed),
                });
            }
            while self.timer.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(Err(FarmFailure::Timeout));
                }
                self.timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// Whether a head carries `X-AspNet-Version` with a major version of 2 or later (protocol 4).
fn names_version_2(head: &[u8]) -> bool {
    const NAME: &[u8] = b"X-AspNet-Version:";
    let mut lines = head.split(|&byte| byte == b'\n');
    lines.any(|line| {
        let Some((name, value)) = line.split_at_checked(NAME.len()) else {
            return false;
        };
        let digits = value.trim_ascii().split(|&byte| byte == b'.').next();
        let major = digits.and_then(crate::wire::decimal);
        name.eq_ignore_ascii_case(NAME) && major.is_some_and(|major| major >= 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_header_counts_from_2() {
        let names = |line: &str| names_version_2(format!("200 OK\r\n{line}\r\n\r\n").as_bytes());
        assert!(names("X-AspNet-Version: 4.0.30319"));
        assert!(names("x-aspnet-version:2.0.50727"));
        assert!(!names("X-AspNet-Version: 1.1.4322"));
        assert!(!names("X-AspNet-Version: "));
        assert!(!names("Cache-Control: private"));
    }
}
