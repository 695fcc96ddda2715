//! Lines and headers of a head, shared by requests and responses.

use super::WireError;
use super::header::{self, Header};
use super::scan::ScanMarks;
use super::span::{Line, NOWHERE, Span};

/// Most header lines in one head. Stock clients send five, stock servers seven.
pub const MAX_HEADERS: usize = 64;

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
pub(crate) struct HeadLines<'a> {
    bytes: &'a [u8],
    next: usize,
    max_head_bytes: usize,
    headers_left: usize,
    has_tab: bool,
    has_control_byte: bool,
}

impl<'a> HeadLines<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], max_head_bytes: usize) -> Self {
        Self {
            bytes,
            next: 0,
            max_head_bytes,
            headers_left: MAX_HEADERS + 1,
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

    /// Any next line; `None` while it is not complete.
    #[inline(never)]
    pub(super) fn any_line(&mut self) -> Result<Option<Line>, WireError> {
        self.next_line()
    }

    /// The same for the request line, which is never a stock one: it saves the call.
    #[inline(always)]
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, WireError> {
        let mut marks = ScanMarks::behind(self.bytes, self.next);
        let mut colon = NOWHERE;
        let end = loop {
            let Some(at) = marks.next() else {
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
        let line_feed = end + 1;
        if let Some(too_large) = self.too_large(line_feed) {
            return Err(too_large);
        }
        let span = Span::new(self.next, end);
        self.next = line_feed + 1;
        Ok(Some(Line { span, colon }))
    }

    /// Takes the next line if it is `line`, its line end included; whether it is.
    #[inline(always)]
    pub(super) fn take(&mut self, line: &[u8]) -> Result<bool, WireError> {
        let is_next = self.bytes[self.next..].starts_with(line);
        if is_next {
            self.too_large(self.next + line.len() - 1)
                .map_or(Ok(()), Err)?;
            self.next += line.len();
        }
        Ok(is_next)
    }

    /// What was taken last held a header.
    pub(super) fn skipped_header(&mut self) {
        self.headers_left -= 1;
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

    /// Hands every header line to `take` until the empty line. `Ok(false)` while incomplete.
    #[inline(always)]
    pub(super) fn headers(
        &mut self,
        mut take: impl FnMut(Header) -> Result<(), WireError>,
    ) -> Result<bool, WireError> {
        while self.headers_left > 0 {
            self.headers_left -= 1;
            if let Some((header, next)) = header::stock(self.bytes, self.next) {
                self.too_large(next - 1).map_or(Ok(()), Err)?;
                self.next = next;
                take(header)?;
                continue;
            }
            if self.take(b"\r\n")? {
                return if self.has_control_byte {
                    Err(WireError::ControlByte)
                } else {
                    Ok(true)
                };
            }
            let Some(line) = self.any_line()? else {
                return Ok(false);
            };
            take(header::parse(self.bytes, &line)?)?;
        }
        Err(WireError::TooManyHeaders)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(head: &[u8]) -> Result<bool, WireError> {
        let mut lines = HeadLines::new(head, head.len() + 1);
        lines.headers(|_| Ok(()))
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
