//! Where things stand in a head, and the numbers in it.

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

/// One line without its CRLF.
pub(super) struct Line {
    pub(super) span: Span,
    /// Where the first colon stands; [`NOWHERE`] without one.
    pub(super) colon: usize,
}

pub(super) const NOWHERE: usize = usize::MAX;

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

/// A number as state servers read it in a request: digits, with or without a plus sign.
pub fn signed(text: &[u8]) -> Option<u64> {
    decimal(text.strip_prefix(b"+").unwrap_or(text))
}

/// Digits of the largest number of 64 bits.
const MAX_DIGITS: usize = 20;

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
}
