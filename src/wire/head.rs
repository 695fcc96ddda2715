//! Lines and headers of a head, shared by requests and responses.

use super::WireError;
use super::scan::Marks;

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
    marks: Marks<'a>,
    next: usize,
    max_head_bytes: usize,
    has_tab: bool,
    has_control_byte: bool,
}

/// One line without its CRLF.
pub(crate) struct Line {
    pub(crate) span: Span,
    /// Where the first colon stands; [`NOWHERE`] without one.
    colon: usize,
}

const NOWHERE: usize = usize::MAX;

/// One header line; all spans count from the first byte of the head.
pub(crate) struct Header<'a> {
    /// Not checked yet: may be empty and hold what no name may hold.
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
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], max_head_bytes: usize) -> Self {
        Self {
            bytes,
            marks: Marks::new(bytes),
            next: 0,
            max_head_bytes,
            has_tab: false,
            has_control_byte: false,
        }
    }

    /// Bytes of the lines taken so far, their line ends included.
    pub(crate) fn taken(&self) -> usize {
        self.next
    }

    /// Whether the lines taken so far hold a tab.
    pub(crate) fn has_tab(&self) -> bool {
        self.has_tab
    }

    /// The next line; `None` while it is not complete.
    // Inlined: a line has some twenty bytes, and handing it over costs as much as finding it.
    #[inline(always)]
    pub(crate) fn next_line(&mut self) -> Result<Option<Line>, WireError> {
        let mut colon = NOWHERE;
        let end = loop {
            let Some(at) = self.marks.next() else {
                return self.incomplete();
            };
            match self.bytes[at] {
                b'\r' if self.bytes.get(at + 1) == Some(&b'\n') => break at,
                b':' => colon = colon.min(at),
                b'\n' => return Err(self.too_large(at).unwrap_or(WireError::BareLineFeed)),
                b'\t' => self.has_tab = true,
                _ => self.has_control_byte = true,
            }
        };
        let line_feed = self.marks.next().unwrap_or(end);
        if let Some(too_large) = self.too_large(line_feed) {
            return Err(too_large);
        }
        let span = Span::new(self.next, end);
        self.next = line_feed + 1;
        Ok(Some(Line { span, colon }))
    }

    #[cold]
    fn incomplete(&self) -> Result<Option<Line>, WireError> {
        self.too_large(self.bytes.len()).map_or(Ok(None), Err)
    }

    /// A head that goes on at `at` is over the limit.
    fn too_large(&self, at: usize) -> Option<WireError> {
        (at >= self.max_head_bytes).then_some(WireError::HeadTooLarge {
            max_bytes: self.max_head_bytes,
        })
    }

    /// Hands every header line to `take` until the empty line; `take` says whether it knows the
    /// name. `Ok(false)` while incomplete.
    #[inline]
    pub(crate) fn headers(
        &mut self,
        mut take: impl FnMut(&Header<'a>) -> Result<bool, WireError>,
    ) -> Result<bool, WireError> {
        let mut headers_left = MAX_HEADERS + 1;
        while headers_left > 0 {
            headers_left -= 1;
            let Some(line) = self.next_line()? else {
                return Ok(false);
            };
            if line.span.start() == line.span.end() {
                return if self.has_control_byte {
                    Err(WireError::ControlByte)
                } else {
                    Ok(true)
                };
            }
            let header = split_header(self.bytes, &line)?;
            // A name that is known needs no look at each of its bytes.
            if !take(&header)? && !is_name(header.name) {
                return Err(WireError::BadHeaderLine);
            }
        }
        Err(WireError::TooManyHeaders)
    }
}

/// Decimal digits only; `None` for anything else or more than 64 bits.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let digit = |byte: u8| Some(u64::from(byte.wrapping_sub(b'0'))).filter(|&digit| digit <= 9);
    if digits.len() < MAX_DIGITS {
        return digits
            .iter()
            .try_fold(0, |number, &byte| Some(number * 10 + digit(byte)?));
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        number.checked_mul(10)?.checked_add(digit(byte)?)
    })
}

/// Digits of the largest number of 64 bits.
const MAX_DIGITS: usize = 20;

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

#[inline(always)]
fn split_header<'a>(bytes: &'a [u8], line: &Line) -> Result<Header<'a>, WireError> {
    let Line { span, colon } = *line;
    let text = bytes.get(colon..span.end());
    let Some([_colon, value @ ..]) = text else {
        return Err(WireError::BadHeaderLine);
    };
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    let start = span.end() - value.len();
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Ok(Header {
        name: &bytes[span.start()..colon],
        value: Span::new(start, start + value.len()),
    })
}

/// Whether this is the name of a header or method, of token bytes only: that excludes folding, a
/// space before the colon and emptiness.
pub(crate) fn is_name(text: &[u8]) -> bool {
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

    fn walked(head: &[u8]) -> Result<bool, WireError> {
        let mut lines = Lines::new(head, head.len() + 1);
        lines.headers(|_| Ok(false))
    }

    #[test]
    fn control_bytes_are_seen_anywhere_in_a_value() {
        for byte in (0..0x20).chain([0x7f]) {
            for at in [2, 17, 61] {
                let mut head = [b"a:", [b'a'; 64].as_slice(), b"\r\n\r\n"].concat();
                head[at] = byte;
                let expected = match byte {
                    b'\t' => Ok(true),
                    b'\n' => Err(WireError::BareLineFeed),
                    _ => Err(WireError::ControlByte),
                };
                assert_eq!(walked(&head), expected, "byte {byte:#x} at {at}");
                // Whether they count is decided once the head is whole.
                head.truncate(68);
                let is_partial = byte != b'\n';
                assert_eq!(walked(&head).is_ok_and(|whole| !whole), is_partial);
            }
        }
        assert_eq!(walked("a: caf\u{e9} ~!\r\n\r\n".as_bytes()), Ok(true));
    }

    #[test]
    fn a_name_is_made_of_token_bytes() {
        for byte in 0..=u8::MAX {
            let head = [b"a", [byte].as_slice(), b"a: 1\r\n\r\n"].concat();
            // A colon ends the name, and what is left of it is part of the value.
            let fits = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
            assert_eq!(walked(&head).is_ok(), fits, "byte {byte:#x}");
        }
    }
}
