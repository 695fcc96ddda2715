//! The header values the rules look at: decimal int32 numbers that may be missing.
//!
//! A value arrives as the raw bytes found in the request head, blanks around it already removed,
//! or `None` when the header is missing. Parsing happens here and not in the codec, because the
//! order in which bad values are noticed is part of the protocol (5.2).

/// The timeout of a PUT without a `Timeout` header, in minutes (protocol 3).
const DEFAULT_TIMEOUT_MINUTES: u32 = 20;

/// The longest timeout, one year, in minutes (protocol 3).
const MAX_TIMEOUT_MINUTES: u32 = 525_600;

/// The bit of `ExtraFlags` that means "uninitialised item, insert only" (protocol 3). All other
/// bits are ignored: bit 1 is internal to the stock server and the rest have no meaning.
const INSERT_ONLY_BIT: u32 = 1;

/// A request was refused because one of its headers holds no usable number (protocol 5.2).
///
/// The value itself is left out: it is whatever a client chose to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// The client sent a `Timeout` that is not a number from 0 to 525600.
    #[error("the request's Timeout is not a number of minutes from 0 to 525600")]
    Timeout,
    /// The client sent `ExtraFlags` that are not a number from 0 to 2147483647.
    #[error("the request's ExtraFlags is not a number from 0 to 2147483647")]
    ExtraFlags,
    /// The client sent a `LockCookie` that is not a number from 0 to 2147483647.
    #[error("the request's LockCookie is not a number from 0 to 2147483647")]
    LockCookie,
    /// The client asked to release a lock and sent no `LockCookie`.
    #[error("the request releases a lock without a LockCookie")]
    LockCookieMissing,
}

/// A checked `Timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeout {
    /// 1 to 525600.
    pub(super) minutes: u32,
    /// The client sent 0, which is served as one minute.
    pub(super) was_zero: bool,
}

/// Reads `Timeout`: missing is 20 minutes, 0 is served as 1 minute (protocol 3).
pub(super) fn timeout(value: Option<&[u8]>) -> Result<Timeout, BadHeader> {
    let minutes = match value {
        None => DEFAULT_TIMEOUT_MINUTES,
        Some(digits) => int32(digits).ok_or(BadHeader::Timeout)?,
    };
    if minutes > MAX_TIMEOUT_MINUTES {
        return Err(BadHeader::Timeout);
    }
    Ok(Timeout {
        minutes: minutes.max(1),
        was_zero: minutes == 0,
    })
}

/// Reads `ExtraFlags` and says whether the PUT is insert only; missing is 0 (protocol 3).
pub(super) fn insert_only(value: Option<&[u8]>) -> Result<bool, BadHeader> {
    let flags = match value {
        None => 0,
        Some(digits) => int32(digits).ok_or(BadHeader::ExtraFlags)?,
    };
    Ok(flags & INSERT_ONLY_BIT != 0)
}

/// Reads `LockCookie`; missing is `None`, which equals no lock's cookie (protocol 5.3).
pub(super) fn lock_cookie(value: Option<&[u8]>) -> Result<Option<u32>, BadHeader> {
    value
        .map(|digits| int32(digits).ok_or(BadHeader::LockCookie))
        .transpose()
}

/// A decimal number from 0 to `i32::MAX`. Signs, blanks and an empty text are no number.
fn int32(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let mut number: i32 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(i32::from(byte - b'0'))?;
    }
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timeout_bounds() {
        assert_eq!(
            timeout(None),
            Ok(Timeout {
                minutes: 20,
                was_zero: false
            })
        );
        assert_eq!(
            timeout(Some(b"0")),
            Ok(Timeout {
                minutes: 1,
                was_zero: true
            })
        );
        assert_eq!(
            timeout(Some(b"1")),
            Ok(Timeout {
                minutes: 1,
                was_zero: false
            })
        );
        assert_eq!(
            timeout(Some(b"525600")),
            Ok(Timeout {
                minutes: 525_600,
                was_zero: false
            })
        );
        assert_eq!(timeout(Some(b"525601")), Err(BadHeader::Timeout));
    }

    #[test]
    fn only_bit_0_of_the_flags_counts() {
        assert_eq!(insert_only(None), Ok(false));
        assert_eq!(insert_only(Some(b"0")), Ok(false));
        assert_eq!(insert_only(Some(b"1")), Ok(true));
        assert_eq!(insert_only(Some(b"2")), Ok(false));
        assert_eq!(insert_only(Some(b"3")), Ok(true));
    }

    #[test]
    fn texts_that_are_no_int32_are_bad() {
        for bad in [
            "",
            "-1",
            "-4",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "2147483648",
            "99999999999",
        ] {
            let value = Some(bad.as_bytes());
            assert_eq!(timeout(value), Err(BadHeader::Timeout), "{bad:?}");
            assert_eq!(insert_only(value), Err(BadHeader::ExtraFlags), "{bad:?}");
            assert_eq!(lock_cookie(value), Err(BadHeader::LockCookie), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_int32_from_0_is_read_back(number in 0..=i32::MAX, zeros in 0usize..4) {
            let text = format!("{}{number}", "0".repeat(zeros));
            prop_assert_eq!(lock_cookie(Some(text.as_bytes())), Ok(u32::try_from(number).ok()));
        }

        #[test]
        fn any_bytes_are_read_as_the_standard_library_would(bytes in "[0-9]{1,12}|[ -~]{0,4}") {
            let expected = bytes.bytes().all(|b| b.is_ascii_digit())
                .then(|| bytes.parse::<i32>().ok()).flatten();
            prop_assert_eq!(
                lock_cookie(Some(bytes.as_bytes())).ok().flatten(),
                expected.and_then(|n| u32::try_from(n).ok())
            );
        }
    }
}
