//! Where answers end, and that none is larger than any command here can have.
//!
//! The crate `redis` gathers an answer until it is whole, however long it says to be. So every byte
//! passes here first: an answer that says too much ends its connection before anything is kept for
//! it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No value is longer: Redis stores none that is (`proto-max-bulk-len`).
const MAX_VALUE_BYTES: u64 = 512 << 20;

/// Values of an answer, lists included. The map of a Cluster in which each slot is a range of its own
/// has about half as many.
const MAX_VALUES: u64 = 1 << 20;

/// Lists within lists.
const MAX_DEPTH: usize = 8;

/// A line: an error, a number, a length.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The digits of a length, and its sign.
const MAX_LENGTH_BYTES: usize = 20;

/// An answer that is none, or too large to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A value is longer than any that Redis stores.
    #[error("an answer with a value of more than 512 MiB")]
    LongValue,
    /// More values than any answer has.
    #[error("an answer with more than a million values")]
    ManyValues,
    /// Lists within lists within lists.
    #[error("an answer with lists in lists, more than 8 deep")]
    Deep,
    /// A line that does not end.
    #[error("an answer with a line of more than 64 KiB")]
    LongLine,
    /// No answer of this protocol.
    #[error("an answer that is none of Redis")]
    Garbage,
}

/// Follows the answers of one connection.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    /// Of each list that has begun, how many values are to come; the innermost stands last.
    open: Vec<u64>,
    /// Values of this answer so far, those that are announced included.
    values: u64,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// The next byte is the first of a value.
    #[default]
    Begin,
    /// Within a line that is a value itself.
    Line { bytes: usize, ends: bool },
    /// Within the length of a value or a list.
    Length {
        is_list: bool,
        digits: [u8; MAX_LENGTH_BYTES],
        count: usize,
        ends: bool,
    },
    /// Within a value, the end of its line included.
    Value { left_bytes: u64 },
}

impl ReplyScanner {
    /// Follows the next bytes.
    ///
    /// # Errors
    /// [`FramingError`]; nothing that follows can be told apart any more.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Result<(), FramingError> {
        while let Some((&first, rest)) = bytes.split_first() {
            if let State::Value { left_bytes } = &mut self.state {
                let skipped = (*left_bytes).min(bytes.len() as u64);
                *left_bytes -= skipped;
                bytes = &bytes[skipped as usize..];
                if *left_bytes == 0 {
                    self.value_ends();
                }
                continue;
            }
            self.byte(first)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Whether the last answer is whole.
    #[must_use]
    pub fn is_between_answers(&self) -> bool {
        self.open.is_empty() && matches!(self.state, State::Begin)
    }

    fn byte(&mut self, byte: u8) -> Result<(), FramingError> {
        match &mut self.state {
            State::Begin => self.begin(byte)?,
            State::Line { bytes, ends } => {
                *bytes += 1;
                if *bytes > MAX_LINE_BYTES {
                    return Err(FramingError::LongLine);
                }
                let is_end = *ends && byte == b'\n';
                *ends = byte == b'\r';
                if is_end {
                    self.value_ends();
                }
            }
            State::Length {
                is_list,
                digits,
                count,
                ends,
            } => match byte {
                b'\n' if *ends => {
                    let (is_list, length) = (*is_list, length(&digits[..*count])?);
                    self.announced(is_list, length)?;
                }
                b'\r' if !*ends => *ends = true,
                b'-' | b'0'..=b'9' if !*ends && *count < MAX_LENGTH_BYTES => {
                    digits[*count] = byte;
                    *count += 1;
                }
                _ => return Err(FramingError::Garbage),
            },
            State::Value { .. } => {}
        }
        Ok(())
    }

    fn begin(&mut self, kind: u8) -> Result<(), FramingError> {
        if self.open.is_empty() {
            self.values = 1;
        }
        let (bytes, count, ends) = (0, 0, false);
        let digits = [0; MAX_LENGTH_BYTES];
        self.state = match kind {
            b'+' | b'-' | b':' => State::Line { bytes, ends },
            b'$' | b'*' => State::Length {
                is_list: kind == b'*',
                digits,
                count,
                ends,
            },
            _ => return Err(FramingError::Garbage),
        };
        Ok(())
    }

    /// A value or a list of this length begins.
    fn announced(&mut self, is_list: bool, length: i64) -> Result<(), FramingError> {
        self.state = State::Begin;
        // A negative one is that of nothing.
        let Ok(length) = u64::try_from(length) else {
            self.value_ends();
            return Ok(());
        };
        if !is_list {
            if length > MAX_VALUE_BYTES {
                return Err(FramingError::LongValue);
            }
            let left_bytes = length + 2;
            self.state = State::Value { left_bytes };
            return Ok(());
        }
        self.values = self.values.saturating_add(length);
        if self.values > MAX_VALUES {
            return Err(FramingError::ManyValues);
        }
        if length == 0 {
            self.value_ends();
            return Ok(());
        }
        if self.open.len() == MAX_DEPTH {
            return Err(FramingError::Deep);
        }
        self.open.push(length);
        Ok(())
    }

    fn value_ends(&mut self) {
        self.state = State::Begin;
        while let Some(to_come) = self.open.last_mut() {
            *to_come -= 1;
            if *to_come > 0 {
                return;
            }
            self.open.pop();
        }
    }
}

fn length(digits: &[u8]) -> Result<i64, FramingError> {
    let text = std::str::from_utf8(digits).ok();
    let length = text.and_then(|text| text.parse().ok());
    length.ok_or(FramingError::Garbage)
}

/// A connection whose answers are followed.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    scanner: ReplyScanner,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            scanner: ReplyScanner::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let followed = self.scanner.follow(&buffer.filled()[before..]);
        if let Err(error) = followed {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(bytes: &[u8]) -> Result<bool, FramingError> {
        let mut scanner = ReplyScanner::default();
        scanner.follow(bytes)?;
        Ok(scanner.is_between_answers())
    }

    #[test]
    fn answers_of_all_kinds_end_where_they_end() {
        for whole in [
            &b"+OK\r\n"[..],
            b"-ERR no \r such thing\r\n",
            b":-5\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"$0\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n:1\r\n$1\r\nx\r\n",
            b"*2\r\n*2\r\n:1\r\n*0\r\n+x\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert_eq!(follow(whole), Ok(true), "{}", whole.escape_ascii());
            for end in 1..whole.len() {
                let part = &whole[..end];
                assert_eq!(follow(part), Ok(false), "{}", part.escape_ascii());
            }
            let twice = [whole, whole].concat();
            assert_eq!(follow(&twice), Ok(true), "{}", twice.escape_ascii());
        }
    }

    #[test]
    fn what_says_to_be_too_large_is_refused_before_it_has_come() {
        let deep = "*1\r\n".repeat(9);
        let long = format!("+{}", "x".repeat(MAX_LINE_BYTES + 1));
        for (bytes, error) in [
            ("$536870913\r\n", FramingError::LongValue),
            ("$9223372036854775807\r\n", FramingError::LongValue),
            ("*1048577\r\n", FramingError::ManyValues),
            ("*2\r\n*1000000\r\n", FramingError::ManyValues),
            ("*9223372036854775807\r\n", FramingError::ManyValues),
            (&deep, FramingError::Deep),
            (&long, FramingError::LongLine),
            ("$9999999999999999999\r\n", FramingError::Garbage),
            ("$x\r\n", FramingError::Garbage),
            ("$1\n", FramingError::Garbage),
            ("$\r\n", FramingError::Garbage),
            ("HTTP/1.1 200 OK\r\n", FramingError::Garbage),
            ("%1\r\n", FramingError::Garbage),
        ] {
            let followed = follow(bytes.as_bytes());
            let expected = match bytes {
                "*2\r\n*1000000\r\n" => Ok(false),
                _ => Err(error),
            };
            assert_eq!(followed, expected, "{:.40}", bytes.escape_debug());
        }
        assert_eq!(
            follow(b"*2\r\n*1000000\r\n*40000\r\n"),
            Ok(false),
            "the inner list has not ended"
        );
        let many = format!("*2\r\n*1000000\r\n{}*60000\r\n", ":1\r\n".repeat(1_000_000));
        assert_eq!(follow(many.as_bytes()), Err(FramingError::ManyValues));
        assert_eq!(follow(b"$536870912\r\n"), Ok(false));
    }
}
