//! Lines and headers of a head, shared by requests and responses.

use super::WireError;

/// Most header lines in one head. Stock clients send five, stock servers seven.
pub const MAX_HEADERS: usize = 64;

/// A range of bytes, counted from the first byte of the head it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span of `start..end`. Offsets beyond 4 GiB cannot occur: heads are limited to 64 KiB.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// Offset of the first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Offset behind the last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// The bytes of this span in `head`; empty when `head` is not the head it came from.
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// What a parser made of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The head is not complete; ask again when another line feed has arrived.
    Partial,
    /// The head is complete.
    Complete(T),
}

/// Limits on one head and the body it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Longest head in bytes, the empty line included.
    pub max_head_bytes: usize,
    /// Longest body of a request or an answer in bytes.
    pub max_body_bytes: u64,
}

impl Default for HeadLimits {
    /// 16 KiB of head, 64 MiB of body.
    fn default() -> Self {
        Self {
            max_head_bytes: 16 * 1024,
            max_body_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Walks the CRLF lines of a head and refuses what two parsers might read differently.
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    next: usize,
    max_head_bytes: usize,
}

/// One header line; all spans count from the first byte of the head.
pub(crate) struct Header<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: Span,
}

impl Header<'_> {
    /// Whether this is the header `name`. Peers write stock spelling, which a plain compare of a
    /// few words finds; any other case is the slow way.
    #[inline]
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name.as_bytes() || self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl<'a> Lines<'a> {
    pub(crate) fn new(bytes: &'a [u8], max_head_bytes: usize) -> Self {
        Self {
            bytes,
            next: 0,
            max_head_bytes,
        }
    }

    /// Bytes of the lines taken so far, their line ends included.
    pub(crate) fn taken(&self) -> usize {
        self.next
    }

    /// The next line without its CRLF; `None` while it is not complete.
    pub(crate) fn next_line(&mut self) -> Result<Option<Span>, WireError> {
        let rest = &self.bytes[self.next..];
        let Some(line_feed) = find_line_feed(rest) else {
            return if self.bytes.len() >= self.max_head_bytes {
                Err(WireError::HeadTooLarge {
                    max_bytes: self.max_head_bytes,
                })
            } else {
                Ok(None)
            };
        };
        if self.next + line_feed + 1 > self.max_head_bytes {
            return Err(WireError::HeadTooLarge {
                max_bytes: self.max_head_bytes,
            });
        }
        if line_feed == 0 || rest[line_feed - 1] != b'\r' {
            return Err(WireError::BareLineFeed);
        }
        let span = Span::new(self.next, self.next + line_feed - 1);
        self.next += line_feed + 1;
        Ok(Some(span))
    }

    /// Hands every header line to `take` until the empty line, then looks for control bytes in the
    /// whole head. `Ok(false)` while incomplete.
    pub(crate) fn headers(
        &mut self,
        mut take: impl FnMut(Header<'a>) -> Result<(), WireError>,
    ) -> Result<bool, WireError> {
        for _ in 0..=MAX_HEADERS {
            let Some(line) = self.next_line()? else {
                return Ok(false);
            };
            if line.start() == line.end() {
                let whole = &self.bytes[..self.next];
                return if has_control_byte(whole) {
                    Err(WireError::ControlByte)
                } else {
                    Ok(true)
                };
            }
            take(split_header(self.bytes, line)?)?;
        }
        Err(WireError::TooManyHeaders)
    }
}

/// Decimal digits only; `None` for anything else or more than 64 bits.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Puts `value` in `place`, or says that the header came twice.
pub(crate) fn once<T>(
    place: &mut Option<T>,
    value: T,
    name: &'static str,
) -> Result<(), WireError> {
    if place.replace(value).is_some() {
        return Err(WireError::DuplicateHeader { name });
    }
    Ok(())
}

fn split_header(bytes: &[u8], line: Span) -> Result<Header<'_>, WireError> {
    let text = line.of(bytes);
    // A name of token bytes only: that excludes folding, a space before the colon and emptiness.
    let colon = text.iter().position(|&byte| !is_token(byte));
    let colon = colon
        .filter(|&at| at > 0 && text[at] == b':')
        .ok_or(WireError::BadHeaderLine)?;
    let name = &text[..colon];
    let mut start = colon + 1;
    let mut end = text.len();
    while start < end && is_blank(text[start]) {
        start += 1;
    }
    while end > start && is_blank(text[end - 1]) {
        end -= 1;
    }
    Ok(Header {
        name,
        value: Span::new(line.start() + start, line.start() + end),
    })
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Whether `byte` may stand in a method or header name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
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

/// Whether a head holds a byte below 0x20 or 0x7f that is not a tab or part of a line end. A bare
/// line feed has been refused before.
///
/// No early exit: the loop becomes a few vector instructions.
fn has_control_byte(head: &[u8]) -> bool {
    let behind = head.get(1..).unwrap_or_default();
    head.iter().zip(behind).fold(false, |bad, (&byte, &next)| {
        let is_blank = (byte == b'\t') | (byte == b'\n') | ((byte == b'\r') & (next == b'\n'));
        bad | ((byte < 0x20) & !is_blank) | (byte == 0x7f)
    })
}

/// Position of the first line feed. Lines are short: eight bytes at a time, inline, is less work
/// than the call of a search that is made for long texts.
fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    const LINE_FEEDS: u64 = u64::from_le_bytes([b'\n'; 8]);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        // A byte of `zeroed` is zero where a line feed stood; the lowest marked one is exact.
        let zeroed = u64::from_le_bytes(*eight) ^ LINE_FEEDS;
        let marked = zeroed.wrapping_sub(ONES) & !zeroed & HIGH_BITS;
        if marked != 0 {
            return Some(at + marked.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let tail = bytes[at..].iter().position(|&byte| byte == b'\n');
    tail.map(|position| at + position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"00042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "+1", "-1", "1 ", "0x1", "1,1"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn control_bytes_are_seen_anywhere_in_a_head() {
        for byte in (0..0x20).chain([0x7f]) {
            for at in [0, 17, 61] {
                let mut head = vec![b'a'; 64];
                head[62..].copy_from_slice(b"\r\n");
                head[at] = byte;
                let harmless = byte == b'\t' || byte == b'\n';
                assert_eq!(has_control_byte(&head), !harmless, "byte {byte:#x} at {at}");
            }
        }
        assert!(!has_control_byte("caf\u{e9} ~!\r\n".as_bytes()));
    }

    #[test]
    fn the_first_line_feed_is_found_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                let mut bytes = vec![b'\x0b'; length];
                bytes[at..].fill(b'\n');
                assert_eq!(find_line_feed(&bytes), Some(at), "{at} of {length}");
            }
            assert_eq!(find_line_feed(&vec![b'\x8a'; length]), None);
        }
    }
}
