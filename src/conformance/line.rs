//! One connection to the server under test: a request, then its answer, nothing else in between.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::tls::{BlockingTls, TargetTls};
use crate::wire::{HeadLimits, Parsed, ResponseHead, WireError};

/// Largest answer that is read, head and body.
const MAX_ANSWER_BYTES: usize = 80 << 20;

/// How much of an answer that cannot be read is shown.
const MAX_SHOWN_BYTES: usize = 120;

/// How long bytes behind an answer are waited for where they would matter.
const BEHIND: Duration = Duration::from_millis(30);

/// An open connection.
#[derive(Debug)]
pub(super) struct TargetLine {
    stream: TargetStream,
    patience: Duration,
    /// What came behind the last answer.
    behind: Vec<u8>,
}

#[derive(Debug)]
enum TargetStream {
    Plain(TcpStream),
    Tls(BlockingTls),
}

/// One whole answer.
#[derive(Debug, Clone)]
pub(super) struct TargetAnswer {
    /// Head and body.
    pub(super) bytes: Vec<u8>,
    pub(super) head: ResponseHead,
    /// Whether bytes came behind it.
    pub(super) has_more: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection.
    #[error("it took no connection: {0}")]
    Connect(String),
    /// The server ended the connection instead.
    #[error("it closed the connection instead of answering")]
    Closed,
    /// Only the beginning of an answer came.
    #[error("it closed the connection in the middle of its answer")]
    CutShort,
    /// The run was stopped.
    #[error("the run was stopped")]
    Stopped,
    /// Nothing, or not all, in time.
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    /// Bytes that cannot be an answer.
    #[error("what it sent is no answer: {reason}: `{shown}`")]
    Unframed {
        /// Why.
        reason: WireError,
        /// Its beginning, in printable characters.
        shown: String,
    },
    /// More than anybody would read.
    #[error("it announced an answer of more than {} MiB", MAX_ANSWER_BYTES >> 20)]
    TooLong,
}

impl TargetAnswer {
    pub(super) fn head(&self) -> &[u8] {
        self.bytes.get(..self.head.head_bytes).unwrap_or_default()
    }

    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(self.head.head_bytes..).unwrap_or_default()
    }

    /// The lock that it names.
    pub(super) fn lock(&self) -> Option<u32> {
        self.head.lock_counter(&self.bytes)
    }

    pub(super) fn has_flag(&self) -> bool {
        self.head.is_uninitialised(&self.bytes)
    }
}

impl TargetLine {
    /// # Errors
    /// [`NoAnswer::Connect`].
    pub(super) fn open(
        target: SocketAddr,
        tls: Option<&TargetTls>,
        patience: Duration,
    ) -> Result<Self, NoAnswer> {
        let connect = |error: io::Error| NoAnswer::Connect(error.to_string());
        let stream = TcpStream::connect_timeout(&target, patience).map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        stream.set_write_timeout(Some(patience)).map_err(connect)?;
        let stream = match tls {
            None => TargetStream::Plain(stream),
            Some(TargetTls { tls, name }) => {
                stream.set_read_timeout(Some(patience)).map_err(connect)?;
                let mut stream = tls
                    .connect_blocking(stream, name.clone())
                    .map_err(connect)?;
                // Certificates are exchanged now, so that one that is refused is no missing answer.
                stream.flush().map_err(connect)?;
                TargetStream::Tls(stream)
            }
        };
        let behind = Vec::new();
        Ok(Self {
            stream,
            patience,
            behind,
        })
    }

    /// Sends one request and reads its answer. `to_head`: no body is awaited (protocol 4).
    ///
    /// # Errors
    /// [`NoAnswer`]; the connection is of no use any more.
    pub(super) fn ask(&mut self, request: &[u8], to_head: bool) -> Result<TargetAnswer, NoAnswer> {
        self.send(request)?;
        self.answer(to_head)
    }

    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), NoAnswer> {
        // A server that refuses a large body may answer before it has read it and close; its answer is
        // there all the same.
        match self.stream.write_whole(bytes) {
            Err(error) if is_late(&error) => Err(NoAnswer::Late(self.patience)),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn answer(&mut self, to_head: bool) -> Result<TargetAnswer, NoAnswer> {
        let until = Instant::now() + self.patience;
        let max_head_bytes = HeadLimits::default().max_head_bytes;
        let mut bytes = std::mem::take(&mut self.behind);
        let head = loop {
            match ResponseHead::parse(&bytes, max_head_bytes, to_head) {
                Ok(Parsed::Complete(head)) => break head,
                Ok(Parsed::Partial) => {}
                Err(reason) => {
                    let shown = printable(&bytes);
                    return Err(NoAnswer::Unframed { reason, shown });
                }
            }
            self.read_more(&mut bytes, until)?;
        };
        let body_bytes = usize::try_from(head.body_bytes).unwrap_or(usize::MAX);
        let total = head.head_bytes.saturating_add(body_bytes);
        if total > MAX_ANSWER_BYTES {
            return Err(NoAnswer::TooLong);
        }
        while bytes.len() < total {
            self.read_more(&mut bytes, until)?;
        }
        self.behind = bytes.split_off(total);
        let has_more = !self.behind.is_empty();
        Ok(TargetAnswer {
            bytes,
            head,
            has_more,
        })
    }

    /// Whether bytes come behind an answer that was read, where none may come.
    pub(super) fn has_more(&mut self) -> bool {
        let mut byte = [0];
        let waits = self.stream.socket().set_read_timeout(Some(BEHIND));
        let has_more = waits.is_ok() && matches!(self.stream.read(&mut byte), Ok(1));
        if has_more {
            self.behind.extend(byte);
        }
        has_more
    }

    /// Whether the server has ended the connection, or does so within `longest`.
    pub(super) fn is_closed_within(&mut self, longest: Duration) -> bool {
        if self
            .stream
            .socket()
            .set_read_timeout(Some(longest))
            .is_err()
        {
            return true;
        }
        !matches!(self.stream.read(&mut [0]), Err(error) if is_late(&error))
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>, until: Instant) -> Result<(), NoAnswer> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stream.socket().set_read_timeout(Some(left)).is_err() {
            return Err(NoAnswer::Late(self.patience));
        }
        let mut part = [0; 64 * 1024];
        match self.stream.read(&mut part) {
            Ok(count) if count > 0 => {
                bytes.extend_from_slice(&part[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_late(&error) => Err(NoAnswer::Late(self.patience)),
            _ if bytes.is_empty() => Err(NoAnswer::Closed),
            _ => Err(NoAnswer::CutShort),
        }
    }
}

impl TargetStream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.socket(),
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }

    fn write_whole(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The beginning of what a server sent, fit for a terminal.
fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_SHOWN_BYTES)];
    shown.escape_ascii().to_string()
}
