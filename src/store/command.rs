//! What can be asked of a store, parsed from the header values of a request.
//!
//! A value arrives as the raw bytes found in the request head, blanks around it already removed,
//! or `None` when the header is missing. All values are read here, once. The order in which bad
//! ones are answered is part of the protocol (5.2): a PUT with a bad `Timeout` or `ExtraFlags` is
//! no command, for nothing is looked up; a bad `LockCookie` is carried along, because whether it
//! matters depends on the item.

use super::body::Body;

/// One request of the protocol, without its key (protocol 3).
#[derive(Debug)]
pub enum SessionCommand {
    /// `GET`: shared read.
    Get,
    /// `GET` with `Exclusive: acquire`: read and lock.
    Acquire,
    /// `GET` with `Exclusive: release`: unlock.
    Release {
        /// `LockCookie`.
        cookie: LockCookie,
    },
    /// `PUT`: store and unlock.
    Put {
        /// `Timeout`.
        timeout: Timeout,
        /// `ExtraFlags` bit 0: only if there is no item, and a new one is uninitialised.
        insert_only: bool,
        /// `LockCookie`.
        cookie: LockCookie,
        /// The bytes to store; may be empty.
        body: Body,
    },
    /// `DELETE`: remove.
    Remove {
        /// `LockCookie`.
        cookie: LockCookie,
    },
    /// `HEAD`: keep the item alive.
    Touch,
}

impl SessionCommand {
    /// A release with this `LockCookie`.
    pub fn release(cookie: Option<&[u8]>) -> Self {
        let cookie = LockCookie::parse(cookie);
        Self::Release { cookie }
    }

    /// A removal with this `LockCookie`.
    pub fn remove(cookie: Option<&[u8]>) -> Self {
        let cookie = LockCookie::parse(cookie);
        Self::Remove { cookie }
    }

    /// A PUT with these `Timeout`, `ExtraFlags` and `LockCookie`.
    ///
    /// # Errors
    /// [`BadHeader`] for the first of timeout and flags that is unusable: to be answered 400.
    pub fn put(
        timeout: Option<&[u8]>,
        extra_flags: Option<&[u8]>,
        cookie: Option<&[u8]>,
        body: Body,
    ) -> Result<Self, BadHeader> {
        Ok(Self::Put {
            timeout: Timeout::parse(timeout)?,
            insert_only: insert_only(extra_flags)?,
            cookie: LockCookie::parse(cookie),
            body,
        })
    }

    /// Whether it can change or remove what is stored, locks and expiry aside.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Remove { .. })
    }
}

/// The `LockCookie` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockCookie {
    /// No such header: equals no lock's cookie (protocol 5.3).
    Missing,
    /// 0 to 2147483647.
    Number(u32),
    /// The header holds anything else.
    Unusable,
}

impl LockCookie {
    fn parse(value: Option<&[u8]>) -> Self {
        match value.map(int32) {
            None => Self::Missing,
            Some(Some(number)) => Self::Number(number),
            Some(None) => Self::Unusable,
        }
    }

    /// The number, `None` if the header is missing.
    ///
    /// # Errors
    /// [`BadHeader::LockCookie`].
    pub fn number(self) -> Result<Option<u32>, BadHeader> {
        match self {
            Self::Missing => Ok(None),
            Self::Number(number) => Ok(Some(number)),
            Self::Unusable => Err(BadHeader::LockCookie),
        }
    }
}

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
pub struct Timeout {
    /// 1 to 525600.
    pub minutes: u32,
    /// The client sent 0, which is served as one minute.
    pub was_zero: bool,
}

impl Timeout {
    /// Missing is 20 minutes, 0 is served as 1 minute (protocol 3).
    fn parse(value: Option<&[u8]>) -> Result<Self, BadHeader> {
        let minutes = match value {
            None => DEFAULT_TIMEOUT_MINUTES,
            Some(digits) => int32(digits).ok_or(BadHeader::Timeout)?,
        };
        if minutes > MAX_TIMEOUT_MINUTES {
            return Err(BadHeader::Timeout);
        }
        Ok(Self {
            minutes: minutes.max(1),
            was_zero: minutes == 0,
        })
    }
}

/// Reads `ExtraFlags` and says whether the PUT is insert only; missing is 0, and so is -1, by which
/// the stock server marks a header that is missing (protocol 3).
fn insert_only(value: Option<&[u8]>) -> Result<bool, BadHeader> {
    let flags = match value {
        None | Some(b"-1") => 0,
        Some(digits) => int32(digits).ok_or(BadHeader::ExtraFlags)?,
    };
    Ok(flags & INSERT_ONLY_BIT != 0)
}

/// A decimal number from 0 to `i32::MAX`, with or without a plus sign. Blanks, a text without digits
/// and a minus sign are no number.
fn int32(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
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
            Timeout::parse(None),
            Ok(Timeout {
                minutes: 20,
                was_zero: false
            })
        );
        assert_eq!(
            Timeout::parse(Some(b"0")),
            Ok(Timeout {
                minutes: 1,
                was_zero: true
            })
        );
        assert_eq!(
            Timeout::parse(Some(b"1")),
            Ok(Timeout {
                minutes: 1,
                was_zero: false
            })
        );
        assert_eq!(
            Timeout::parse(Some(b"525600")),
            Ok(Timeout {
                minutes: 525_600,
                was_zero: false
            })
        );
        assert_eq!(Timeout::parse(Some(b"525601")), Err(BadHeader::Timeout));
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
            "-2",
            "-4",
            "+",
            "++1",
            "+-1",
            "+ 1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "2147483648",
            "99999999999",
        ] {
            let value = Some(bad.as_bytes());
            assert_eq!(Timeout::parse(value), Err(BadHeader::Timeout), "{bad:?}");
            assert_eq!(insert_only(value), Err(BadHeader::ExtraFlags), "{bad:?}");
            assert_eq!(LockCookie::parse(value), LockCookie::Unusable, "{bad:?}");
        }
    }

    #[test]
    fn minus_one_is_no_flags_and_nothing_else() {
        let minus_one = Some(&b"-1"[..]);
        assert_eq!(insert_only(minus_one), Ok(false));
        assert_eq!(Timeout::parse(minus_one), Err(BadHeader::Timeout));
        assert_eq!(LockCookie::parse(minus_one), LockCookie::Unusable);
    }

    proptest! {
        #[test]
        fn every_int32_from_0_is_read_back(
            number in 0..=i32::MAX,
            zeros in 0usize..4,
            sign in "[+]?",
        ) {
            let text = format!("{sign}{}{number}", "0".repeat(zeros));
            prop_assert_eq!(
                LockCookie::parse(Some(text.as_bytes())).number(),
                Ok(u32::try_from(number).ok())
            );
        }

        #[test]
        fn any_bytes_are_read_as_the_standard_library_would(
            bytes in "[+-]?[0-9]{1,12}|[ -~]{0,4}",
        ) {
            let expected = bytes.parse::<i32>().ok().filter(|_| !bytes.starts_with('-'));
            prop_assert_eq!(
                LockCookie::parse(Some(bytes.as_bytes())).number().ok().flatten(),
                expected.and_then(|n| u32::try_from(n).ok())
            );
        }
    }
}
