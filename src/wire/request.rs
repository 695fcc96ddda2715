//! Request heads (protocol 2 and 3).

use memchr::{memchr, memrchr};

use super::WireError;
use super::head::{self, HeadLimits, HeadLines, Parsed};
use super::header::{self, Header, Name};
use super::span::Span;

/// The request method. Anything else is framed and forwarded; state servers answer it with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`: read, acquire or release.
    Get,
    /// `HEAD`: keep the item alive.
    Head,
    /// `PUT`: store, which also unlocks.
    Put,
    /// `DELETE`: remove.
    Delete,
    /// Any other token.
    Other,
}

/// The `Exclusive` header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive {
    /// Header absent.
    None,
    /// `acquire`, in any case.
    Acquire,
    /// `release`, in any case.
    Release,
    /// Any other value.
    Unknown,
}

/// What a request asks for: the six operations of the protocol (protocol 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Shared read.
    Get,
    /// Read and lock.
    Acquire,
    /// Unlock.
    Release,
    /// Store.
    Put,
    /// Remove.
    Remove,
    /// Keep alive.
    Touch,
    /// None of the six.
    Unknown,
}

impl Operation {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Acquire,
        Self::Release,
        Self::Put,
        Self::Remove,
        Self::Touch,
        Self::Unknown,
    ];

    /// Whether sending the request a second time after an unclear failure harms nobody.
    ///
    /// A second acquire finds the lock the first one left, a second PUT or DELETE may hit a newer
    /// item (protocol 8, retries).
    pub fn is_repeatable(self) -> bool {
        matches!(self, Self::Get | Self::Touch)
    }

    /// Lower-case name, as used in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Touch => "touch",
            Self::Unknown => "unknown",
        }
    }
}

/// One request head. Spans count from its first byte; the bytes stay where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Length of the head in bytes, the empty line included.
    pub head_bytes: usize,
    /// Length of the body that follows, in bytes; 0 when none is announced.
    pub body_bytes: u64,
    /// The method.
    pub method: Method,
    /// The `Exclusive` header.
    pub exclusive: Exclusive,
    /// The target exactly as sent: never empty, may hold spaces and non-ASCII bytes.
    pub target: Span,
    /// Value of `LockCookie` (or `Lock-Cookie`), blanks around it left out.
    pub lock_cookie: Option<Span>,
    /// Value of `Timeout`.
    pub timeout: Option<Span>,
    /// Value of `ExtraFlags`.
    pub extra_flags: Option<Span>,
}

impl RequestHead {
    /// Parses the head at the start of `bytes`; what follows it (body, next request) is ignored.
    ///
    /// # Errors
    /// Every way in which the bytes cannot become a well-framed request within `limits`.
    pub fn parse(bytes: &[u8], limits: &HeadLimits) -> Result<Parsed<Self>, WireError> {
        let mut lines = HeadLines::new(bytes, limits.max_head_bytes);
        let Some(line) = lines.next_line()? else {
            return Ok(Parsed::Partial);
        };
        let (method, target) = request_line(line.span.of(bytes), lines.has_tab())?;
        let mut fields = Fields::default();
        if !lines.headers(|header| fields.take(bytes, header))? {
            return Ok(Parsed::Partial);
        }
        let body_bytes = fields.content_length.unwrap_or(0);
        if body_bytes > limits.max_body_bytes {
            return Err(WireError::BodyTooLarge {
                max_bytes: limits.max_body_bytes,
            });
        }
        Ok(Parsed::Complete(Self {
            head_bytes: lines.taken(),
            body_bytes,
            method,
            exclusive: fields.exclusive.unwrap_or(Exclusive::None),
            target,
            lock_cookie: fields.lock_cookie,
            timeout: fields.timeout,
            extra_flags: fields.extra_flags,
        }))
    }

    /// Makes this the head in which the first `old_bytes` of the target are replaced by `new_bytes`
    /// others, and says where those that are replaced stand.
    pub fn replace_target_start(&mut self, old_bytes: usize, new_bytes: usize) -> Span {
        let start = self.target.start();
        let moved = |at: usize| at + new_bytes - old_bytes;
        let behind = |span: Span| Span::new(moved(span.start()), moved(span.end()));
        self.target = Span::new(start, moved(self.target.end()));
        self.head_bytes = moved(self.head_bytes);
        for value in [
            &mut self.lock_cookie,
            &mut self.timeout,
            &mut self.extra_flags,
        ] {
            *value = value.map(behind);
        }
        Span::new(start, start + old_bytes)
    }

    /// The operation, from method and `Exclusive`.
    pub fn operation(&self) -> Operation {
        match (self.method, self.exclusive) {
            (Method::Get, Exclusive::None) => Operation::Get,
            (Method::Get, Exclusive::Acquire) => Operation::Acquire,
            (Method::Get, Exclusive::Release) => Operation::Release,
            (Method::Put, _) => Operation::Put,
            (Method::Delete, _) => Operation::Remove,
            (Method::Head, _) => Operation::Touch,
            (Method::Get, Exclusive::Unknown) | (Method::Other, _) => Operation::Unknown,
        }
    }
}

#[derive(Default)]
struct Fields {
    content_length: Option<u64>,
    exclusive: Option<Exclusive>,
    lock_cookie: Option<Span>,
    timeout: Option<Span>,
    extra_flags: Option<Span>,
}

impl Fields {
    #[inline(always)]
    fn take(&mut self, bytes: &[u8], header: Header) -> Result<(), WireError> {
        let value = header.value;
        match header.name {
            Name::Timeout => head::once(&mut self.timeout, value, "Timeout"),
            Name::Exclusive => {
                let exclusive = exclusive(value.of(bytes));
                head::once(&mut self.exclusive, exclusive, "Exclusive")
            }
            Name::LockCookie | Name::HyphenLockCookie => {
                head::once(&mut self.lock_cookie, value, "LockCookie")
            }
            Name::ExtraFlags => head::once(&mut self.extra_flags, value, "ExtraFlags"),
            Name::ContentLength => {
                let length = header.number.ok_or(WireError::BadContentLength)?;
                head::once(&mut self.content_length, length, "Content-Length")
            }
            Name::TransferEncoding => Err(WireError::TransferEncoding),
            Name::Origin => Err(WireError::FromWebPage),
            Name::ActionFlags | Name::LockAge | Name::Version | Name::Other => Ok(()),
        }
    }
}

fn is_value(value: &[u8], stock: &[u8]) -> bool {
    value == stock || value.eq_ignore_ascii_case(stock)
}

fn exclusive(value: &[u8]) -> Exclusive {
    if is_value(value, b"acquire") {
        Exclusive::Acquire
    } else if is_value(value, b"release") {
        Exclusive::Release
    } else {
        Exclusive::Unknown
    }
}

/// Method before the first space, version after the last one, target everything between
/// (protocol 2.3, rule 1).
fn request_line(line: &[u8], has_tab: bool) -> Result<(Method, Span), WireError> {
    let (method, method_bytes) = method(line).ok_or(WireError::BadRequestLine)?;
    let target_end = match line.strip_suffix(b" HTTP/1.1") {
        Some(front) => front.len(),
        None => memrchr(b' ', line)
            .filter(|&last| line[last + 1..].starts_with(b"HTTP/"))
            .ok_or(WireError::BadRequestLine)?,
    };
    let target_start = method_bytes + 1;
    if has_tab || target_end <= target_start {
        return Err(WireError::BadRequestLine);
    }
    Ok((method, Span::new(target_start, target_end)))
}

/// The method and its length; `None` if no token stands before the first space.
fn method(line: &[u8]) -> Option<(Method, usize)> {
    let known = match line {
        [b'G', b'E', b'T', b' ', ..] => (Method::Get, 3),
        [b'P', b'U', b'T', b' ', ..] => (Method::Put, 3),
        [b'H', b'E', b'A', b'D', b' ', ..] => (Method::Head, 4),
        [b'D', b'E', b'L', b'E', b'T', b'E', b' ', ..] => (Method::Delete, 6),
        _ => {
            let bytes = memchr(b' ', line)?;
            return header::is_name(&line[..bytes]).then_some((Method::Other, bytes));
        }
    };
    Some(known)
}
