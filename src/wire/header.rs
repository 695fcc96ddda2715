//! Header lines: which header it is, and its value.
//!
//! Peers spell their lines as the stock ones do, and those are told by a few words each. Every
//! other spelling is the slow way and means the same.

use super::WireError;
use super::span::{self, Line, Span};

/// Which header a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    ActionFlags,
    ContentLength,
    Exclusive,
    ExtraFlags,
    LockAge,
    LockCookie,
    /// `Origin`: browsers only.
    Origin,
    /// `Lock-Cookie`: printed in the request examples of the published specification only.
    HyphenLockCookie,
    Timeout,
    TransferEncoding,
    /// `X-AspNet-Version`: what tells a state server's answer from a web server's.
    Version,
    /// One that changes nothing.
    Other,
}

/// One header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Name,
    /// Blanks around it left out.
    pub(super) value: Span,
    /// The value, when it is a plain decimal number.
    pub(super) number: Option<u64>,
}

/// Most digits that always fit a number of 64 bits.
const MAX_DIGITS: usize = 19;

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

const ACTION_FLAGS: u64 = word(b"ActionFl");
const CACHE_CONTROL: u64 = word(b"Cache-Co");
const CONTENT_LENGTH: u64 = word(b"Content-");
const EXCLUSIVE: u64 = word(b"Exclusiv");
const EXTRA_FLAGS: u64 = word(b"ExtraFla");
const HOST: u64 = word(b"Host: lo");
const LOCK_AGE: u64 = word(b"LockAge:");
const LOCK_COOKIE: u64 = word(b"LockCook");
const TIMEOUT: u64 = word(b"Timeout:");
const VERSION: u64 = word(b"X-AspNet");

/// The header line at `start` if it is spelt as stock peers do, and where the next line begins.
/// `None` says nothing about the line.
#[inline(always)]
pub(super) fn stock(bytes: &[u8], start: usize) -> Option<(Header, usize)> {
    let line = bytes.get(start..)?;
    let first = u64::from_le_bytes(*line.first_chunk()?);
    let number = |text: &[u8], name| line.starts_with(text).then_some((name, text.len()));
    let fixed = |text: &[u8], name| line.starts_with(text).then(|| of_fixed(start, text, name));
    let (name, name_bytes) = match first {
        CONTENT_LENGTH => number(b"Content-Length:", Name::ContentLength),
        LOCK_COOKIE => number(b"LockCookie:", Name::LockCookie),
        TIMEOUT => number(b"Timeout:", Name::Timeout),
        EXTRA_FLAGS => number(b"ExtraFlags:", Name::ExtraFlags),
        ACTION_FLAGS => number(b"ActionFlags:", Name::ActionFlags),
        LOCK_AGE => number(b"LockAge:", Name::LockAge),
        VERSION => return fixed(b"X-AspNet-Version: 4.0.30319\r\n", Name::Version),
        CACHE_CONTROL => return fixed(b"Cache-Control: private\r\n", Name::Other),
        HOST => return fixed(b"Host: localhost\r\n", Name::Other),
        EXCLUSIVE => {
            return fixed(b"Exclusive: acquire\r\n", Name::Exclusive)
                .or_else(|| fixed(b"Exclusive: release\r\n", Name::Exclusive));
        }
        _ => None,
    }?;
    let blanks = usize::from(line.get(name_bytes) == Some(&b' '));
    let digits = line.get(name_bytes + blanks..)?;
    let (length, number) = leading_digits(digits);
    if length == 0 || !digits[length..].starts_with(b"\r\n") {
        return None;
    }
    let value = start + name_bytes + blanks;
    let header = Header {
        name,
        value: Span::new(value, value + length),
        number: Some(number),
    };
    Some((header, value + length + 2))
}

/// A line that is always the same: only the value of `Exclusive` is ever looked at.
#[inline(always)]
fn of_fixed(start: usize, line: &[u8], name: Name) -> (Header, usize) {
    let next = start + line.len();
    let header = Header {
        name,
        value: Span::new(start + b"Exclusive: ".len(), next - 2),
        number: None,
    };
    (header, next)
}

/// How many digits there are, up to [`MAX_DIGITS`], and their number.
#[inline(always)]
fn leading_digits(text: &[u8]) -> (usize, u64) {
    let mut number = 0;
    let mut length = 0;
    for byte in text.iter().take(MAX_DIGITS) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + u64::from(digit);
        length += 1;
    }
    (length, number)
}

/// Any header line.
///
/// # Errors
/// [`WireError::BadHeaderLine`].
#[inline(never)]
pub(super) fn parse(bytes: &[u8], line: &Line) -> Result<Header, WireError> {
    let Line { span, colon } = *line;
    let Some([_colon, value @ ..]) = bytes.get(colon..span.end()) else {
        return Err(WireError::BadHeaderLine);
    };
    let text = &bytes[span.start()..colon];
    let name = name_of(text);
    // A name that is known needs no look at each of its bytes.
    if name.is_none() && !is_name(text) {
        return Err(WireError::BadHeaderLine);
    }
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    let start = span.end() - value.len();
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Ok(Header {
        name: name.unwrap_or(Name::Other),
        value: Span::new(start, start + value.len()),
        number: name.and_then(|_| span::decimal(value)),
    })
}

/// The header with this name, in any case. Sorts by length first: most are told apart without
/// comparing a byte.
fn name_of(text: &[u8]) -> Option<Name> {
    let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    Some(match text.len() {
        4 if is("Host") => Name::Other,
        6 if is("Origin") => Name::Origin,
        7 if is("LockAge") => Name::LockAge,
        7 if is("Timeout") => Name::Timeout,
        9 if is("Exclusive") => Name::Exclusive,
        10 if is("ExtraFlags") => Name::ExtraFlags,
        10 if is("LockCookie") => Name::LockCookie,
        11 if is("ActionFlags") => Name::ActionFlags,
        11 if is("Lock-Cookie") => Name::HyphenLockCookie,
        14 if is("Content-Length") => Name::ContentLength,
        16 if is("X-AspNet-Version") => Name::Version,
        17 if is("Transfer-Encoding") => Name::TransferEncoding,
        _ => return None,
    })
}

/// Whether this is the name of a header or method, of token bytes only: that excludes folding, a
/// space before the colon and emptiness.
pub(super) fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token(byte))
}

/// Whether `byte` may stand in a method or header name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = token_table();
    TOKEN[usize::from(byte)]
}

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
}
