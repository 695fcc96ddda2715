//! Response heads (protocol 4).

use super::WireError;
use super::head::{self, HeadLines, Parsed};
use super::header::{Header, Name};
use super::request::Operation;
use super::span::{Span, decimal};

/// How stock servers begin nearly every answer: the status line, and a header that says nothing.
const STOCK_OK: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\n";

/// One response head. Spans count from its first byte; the bytes stay where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// Length of the head in bytes, the empty line included.
    pub head_bytes: usize,
    /// Length of the body in bytes; 0 for the answer to a HEAD, whatever it announces.
    pub body_bytes: u64,
    /// What `Content-Length` says, 0 without one. Differs from the length of the body only for the
    /// answer to a HEAD; a server that sends a body all the same sends that many bytes.
    pub announced_bytes: u64,
    /// The status code, 200 to 599.
    pub status: u16,
    /// Whether it has `X-AspNet-Version`, as every answer of a state server does (protocol 4).
    pub has_version: bool,
    /// Value of `LockCookie`: the lock just taken, or the one that is in the way.
    pub lock_cookie: Option<Span>,
    /// Value of `LockAge`, whole seconds; on 423 only.
    pub lock_age: Option<Span>,
    /// Value of `Timeout`, minutes.
    pub timeout: Option<Span>,
    /// Value of `ActionFlags`.
    pub action_flags: Option<Span>,
}

impl ResponseHead {
    /// Parses the head at the start of `bytes`; what follows it is ignored. `to_head` says that it
    /// answers a HEAD request, after which no body is ever awaited (protocol 4).
    ///
    /// # Errors
    /// Everything that is not a well-framed answer with a head of at most `max_head_bytes`.
    pub fn parse(
        bytes: &[u8],
        max_head_bytes: usize,
        to_head: bool,
    ) -> Result<Parsed<Self>, WireError> {
        let mut lines = HeadLines::new(bytes, max_head_bytes);
        let mut fields = Fields::default();
        let status = if lines.take(STOCK_OK)? {
            lines.skipped_header();
            fields.has_version = true;
            200
        } else {
            let Some(line) = lines.any_line()? else {
                return Ok(Parsed::Partial);
            };
            status_line(line.span.of(bytes))?
        };
        if !lines.headers(|header| fields.take(header))? {
            return Ok(Parsed::Partial);
        }
        let body_bytes = match fields.content_length {
            _ if to_head => 0,
            Some(length) => length,
            // Without a length nobody can tell a whole answer from a broken one.
            None => return Err(WireError::MissingContentLength),
        };
        Ok(Parsed::Complete(Self {
            head_bytes: lines.taken(),
            body_bytes,
            announced_bytes: fields.content_length.unwrap_or(0),
            status,
            has_version: fields.has_version,
            lock_cookie: fields.lock_cookie,
            lock_age: fields.lock_age,
            timeout: fields.timeout,
            action_flags: fields.action_flags,
        }))
    }

    /// Whether a state server can have given this answer to a request for `operation`. What cannot
    /// be told apart passes: the answer that another session got to the same operation.
    ///
    /// # Errors
    /// [`Unfit`]: ASP.NET would take the answer for an absent session or for another's.
    #[inline]
    pub fn fits(&self, operation: Operation) -> Result<(), Unfit> {
        match (self.status, operation) {
            (200, Operation::Acquire) if self.lock_cookie.is_none() => Err(Unfit::NoLock),
            (200, Operation::Acquire) => Ok(()),
            (200, _) if self.lock_cookie.is_some() => Err(Unfit::Lock),
            (200, Operation::Get) if self.body_bytes == 0 && self.timeout.is_none() => {
                Err(Unfit::NoItem)
            }
            (200, Operation::Put | Operation::Remove | Operation::Release)
                if self.body_bytes > 0 =>
            {
                Err(Unfit::Body)
            }
            (404, _) if !self.has_version => Err(Unfit::Unversioned),
            (200 | 400 | 404 | 423, _) => Ok(()),
            (status, _) => Err(Unfit::Status(status)),
        }
    }

    /// Whether `bytes`, which begin with this answer, hold a second one behind it. After a HEAD what
    /// follows may also be the body that was announced.
    pub fn is_one_of_two(&self, bytes: &[u8]) -> bool {
        let rest = usize::try_from(self.body_bytes)
            .ok()
            .and_then(|body_bytes| bytes.get(self.head_bytes.checked_add(body_bytes)?..));
        self.announced_bytes == self.body_bytes && rest.is_some_and(begins_answer)
    }

    /// The lock that this answer to an acquire hands out; `None` when it hands out none. `head` is
    /// the bytes it was parsed from.
    pub fn lock_taken(&self, head: &[u8]) -> Option<u32> {
        self.lock_counter(head).filter(|_| self.status == 200)
    }

    /// The lock that this answer names, taken or in the way. `head` is the bytes it was parsed from.
    pub fn lock_counter(&self, head: &[u8]) -> Option<u32> {
        let cookie = self.lock_cookie?;
        decimal(cookie.of(head)).and_then(|cookie| u32::try_from(cookie).ok())
    }

    /// Whether the one-shot flag says that the item was never initialised.
    pub fn is_uninitialised(&self, head: &[u8]) -> bool {
        self.action_flags
            .and_then(|flags| decimal(flags.of(head)))
            .is_some_and(|flags| flags & 1 == 1)
    }
}

/// Why a well-framed answer is not the answer of a state server to the request it followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No state server has anything to say with this status (protocol 4): it comes from a web server,
    /// from a proxy, or from one that is shutting down.
    #[error("status {0}, which says nothing about a session")]
    Status(u16),
    /// A web server's way to say that it has no such page.
    #[error("status 404 without X-AspNet-Version, which says nothing about a session")]
    Unversioned,
    /// The answer to an acquire brings a lock.
    #[error("the answer to another request: an acquire was answered without LockCookie")]
    NoLock,
    /// Only the answer to an acquire brings one.
    #[error("the answer to another request: it hands out a lock that was not asked for")]
    Lock,
    /// The answer to a read brings an item, which has a timeout.
    #[error("the answer to another request: a read was answered without an item")]
    NoItem,
    /// Only the answer to a read or an acquire brings an item.
    #[error("the answer to another request: it has a body where none belongs")]
    Body,
    /// Which of the two belongs to the request nobody can tell.
    #[error("two answers to one request")]
    Two,
}

impl Unfit {
    /// Whether it may be the answer to another request.
    #[must_use]
    pub fn belongs_elsewhere(self) -> bool {
        !matches!(self, Self::Status(_) | Self::Unversioned)
    }
}

#[derive(Default)]
struct Fields {
    content_length: Option<u64>,
    has_version: bool,
    lock_cookie: Option<Span>,
    lock_age: Option<Span>,
    timeout: Option<Span>,
    action_flags: Option<Span>,
}

impl Fields {
    #[inline(always)]
    fn take(&mut self, header: Header) -> Result<(), WireError> {
        let value = header.value;
        match header.name {
            Name::Timeout => head::once(&mut self.timeout, value, "Timeout"),
            Name::LockAge => head::once(&mut self.lock_age, value, "LockAge"),
            Name::LockCookie => head::once(&mut self.lock_cookie, value, "LockCookie"),
            Name::ActionFlags => head::once(&mut self.action_flags, value, "ActionFlags"),
            Name::ContentLength => {
                let length = header.number.ok_or(WireError::BadContentLength)?;
                head::once(&mut self.content_length, length, "Content-Length")
            }
            Name::TransferEncoding => Err(WireError::TransferEncoding),
            Name::Version => {
                self.has_version = true;
                Ok(())
            }
            Name::Exclusive
            | Name::ExtraFlags
            | Name::HyphenLockCookie
            | Name::Origin
            | Name::Other => Ok(()),
        }
    }
}

/// Whether what came behind an answer begins a second one. Then nobody can tell which of the two
/// belongs to the request: the first may have been late.
pub fn begins_answer(rest: &[u8]) -> bool {
    matches!(rest, [b'1'..=b'9' | b'H', ..])
}

/// Real servers write `200 OK`; documentation also shows `HTTP/1.1 200 OK` (protocol 11, row 1).
fn status_line(line: &[u8]) -> Result<u16, WireError> {
    let rest = match line.strip_prefix(b"HTTP/1.") {
        Some([minor, b' ', rest @ ..]) if minor.is_ascii_digit() => rest,
        Some(_) => return Err(WireError::BadStatusLine),
        None => line,
    };
    let (code, phrase) = rest.split_at_checked(3).ok_or(WireError::BadStatusLine)?;
    if !phrase.is_empty() && phrase[0] != b' ' {
        return Err(WireError::BadStatusLine);
    }
    match decimal(code) {
        // 1xx would announce a second answer, which the protocol does not have.
        Some(status @ 200..=599) => Ok(status as u16),
        _ => Err(WireError::BadStatusLine),
    }
}
