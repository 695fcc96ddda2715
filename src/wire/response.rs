//! Response heads (protocol 4).

use super::WireError;
use super::head::{self, Lines, Parsed};
use super::header::{Header, Name};
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
        let mut lines = Lines::new(bytes, max_head_bytes);
        let status = if lines.take(STOCK_OK)? {
            lines.skipped_header();
            200
        } else {
            let Some(line) = lines.any_line()? else {
                return Ok(Parsed::Partial);
            };
            status_line(line.span.of(bytes))?
        };
        let mut fields = Fields::default();
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
            lock_cookie: fields.lock_cookie,
            lock_age: fields.lock_age,
            timeout: fields.timeout,
            action_flags: fields.action_flags,
        }))
    }

    /// The lock that this answer to an acquire hands out; `None` when it hands out none. `head` is
    /// the bytes it was parsed from.
    pub fn lock_taken(&self, head: &[u8]) -> Option<u32> {
        let cookie = self.lock_cookie.filter(|_| self.status == 200)?;
        decimal(cookie.of(head)).and_then(|cookie| u32::try_from(cookie).ok())
    }

    /// Whether the one-shot flag says that the item was never initialised.
    pub fn is_uninitialised(&self, head: &[u8]) -> bool {
        self.action_flags
            .and_then(|flags| decimal(flags.of(head)))
            .is_some_and(|flags| flags & 1 == 1)
    }
}

#[derive(Default)]
struct Fields {
    content_length: Option<u64>,
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
            Name::Exclusive
            | Name::ExtraFlags
            | Name::HyphenLockCookie
            | Name::Origin
            | Name::Other => Ok(()),
        }
    }
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
