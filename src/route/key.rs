//! Request target → session key, by the rules of protocol 2.3.
//!
//! The real server decodes the target once and compares the decoded bytes (protocol 2.2), so the
//! decoded bytes are the key, and all spellings of one key must find the same backend.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr_iter, memrchr};
use thiserror::Error;

/// Why a target names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The client sent a request line without a target.
    #[error("the request has an empty target")]
    EmptyTarget,
    /// The client's target ends where the session id should begin.
    #[error("the request target has an empty session id")]
    EmptySessionId,
}

/// Room for one decoded target, kept by the caller and used for one target after the other.
///
/// It grows to the length of the longest target so far; whoever frames requests bounds that.
#[derive(Default)]
pub struct KeyBuffer(Vec<u8>);

impl KeyBuffer {
    /// An empty buffer; allocates at its first use.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

impl fmt::Debug for KeyBuffer {
    /// Shows the length alone: the content is a bearer secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBuffer({} bytes)", self.0.len())
    }
}

/// The parts of a decoded target. All are raw bytes; nothing promises that they are UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey<'b> {
    key: &'b [u8],
    app: &'b [u8],
    hash: &'b [u8],
    session_id: &'b [u8],
}

impl<'b> SessionKey<'b> {
    /// The canonical key: the whole decoded target. Two targets mean the same item exactly when
    /// their keys are equal.
    #[must_use]
    pub fn key(&self) -> &'b [u8] {
        self.key
    }

    /// The session id, which decides the slot. Never empty. A bearer secret.
    #[must_use]
    pub fn session_id(&self) -> &'b [u8] {
        self.session_id
    }

    /// The application's id, empty if the target has none.
    #[must_use]
    pub fn app(&self) -> &'b [u8] {
        self.app
    }

    /// The base64 hash of the application's id, empty if the target has none. A `+` that the
    /// client left unencoded, and decoding made a space, is a `+` again (protocol 2.3, rule 4).
    #[must_use]
    pub fn hash(&self) -> Cow<'b, [u8]> {
        if memchr(b' ', self.hash).is_none() {
            return Cow::Borrowed(self.hash);
        }
        Cow::Owned(
            self.hash
                .iter()
                .map(|&b| if b == b' ' { b'+' } else { b })
                .collect(),
        )
    }
}

impl fmt::Debug for SessionKey<'_> {
    /// Shows lengths alone: the id is a bearer secret, and in a target that matches no usual form
    /// a part of the id may stand in any other field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("key_bytes", &self.key.len())
            .field("session_id_bytes", &self.session_id.len())
            .finish_non_exhaustive()
    }
}

/// Decodes a request target and finds the session id in it (protocol 2.3, rules 2 to 8).
///
/// `target` is what stands between method and version, unchanged. Takes time linear in its length
/// and never more room in `buffer` than that length.
///
/// # Errors
///
/// When the target or the session id is empty.
pub fn extract<'b>(target: &[u8], buffer: &'b mut KeyBuffer) -> Result<SessionKey<'b>, KeyError> {
    let raw = match target {
        [] => return Err(KeyError::EmptyTarget),
        // One slash of a leading pair is dropped before decoding, and the pair is no authority.
        [b'/', b'/', ..] => &target[1..],
        _ => target,
    };
    decode(raw, &mut buffer.0);

    let key = split(&buffer.0);
    if key.session_id.is_empty() {
        return Err(KeyError::EmptySessionId);
    }
    Ok(key)
}

/// Replaces the content of `decoded` by the form-url-decoded `raw` (protocol 2.2).
fn decode(raw: &[u8], decoded: &mut Vec<u8>) {
    // Decoding never lengthens, so this is the only allocation.
    decoded.clear();
    decoded.resize(raw.len(), 0);
    let mut rest = raw;
    let mut end = 0;
    // Escapes stand close together, so a plain loop beats a search for the next one.
    while let [byte, behind @ ..] = rest {
        let mut decoded_byte = *byte;
        rest = behind;
        if *byte == b'+' {
            decoded_byte = b' ';
        } else if *byte == b'%' {
            if let Some((escaped, used)) = byte_escape(behind) {
                decoded_byte = escaped;
                rest = &behind[used..];
            } else if let Some((character, used)) = character_escape(behind) {
                end += character.encode_utf8(&mut decoded[end..]).len();
                rest = &behind[used..];
                continue;
            }
        }
        decoded[end] = decoded_byte;
        end += 1;
    }
    decoded.truncate(end);
}

/// The byte of the `%xx` whose `%` stands before `behind`, and the bytes of `behind` it takes. A
/// `%` that begins no complete escape stands for itself, and what follows it is decoded afresh.
fn byte_escape(behind: &[u8]) -> Option<(u8, usize)> {
    let [high, low, ..] = behind else { return None };
    Some((hex_digit(*high)? << 4 | hex_digit(*low)?, 2))
}

/// The character of the `%uXXXX` whose `%` stands before `behind`, and the bytes of `behind` it
/// takes: a surrogate pair is one character, a lone surrogate becomes U+FFFD.
fn character_escape(behind: &[u8]) -> Option<(char, usize)> {
    let unit = utf16_escape(behind)?;
    let next = behind[UTF16_ESCAPE_BYTES - 1..]
        .strip_prefix(b"%")
        .and_then(utf16_escape);
    let (character, units) = match char::decode_utf16([unit].into_iter().chain(next)).next() {
        Some(Ok(character)) => (character, character.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, 1),
    };
    Some((character, units * UTF16_ESCAPE_BYTES - 1))
}

/// Length of `%uXXXX`. It becomes at most 3 bytes, and a pair of them 4.
const UTF16_ESCAPE_BYTES: usize = 6;

/// The UTF-16 unit of the `%uXXXX` whose `%` stands before `behind`, if one does.
fn utf16_escape(behind: &[u8]) -> Option<u16> {
    let [b'u', digits @ ..] = behind else {
        return None;
    };
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | u16::from(hex_digit(digit)?))
    })
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Finds the parts of a decoded target (protocol 2.3, rules 4 to 7).
fn split(key: &[u8]) -> SessionKey<'_> {
    if let Some((open, close)) = standard_group(key) {
        return SessionKey {
            key,
            app: &key[..open],
            hash: &key[open + 1..close],
            session_id: &key[close + 2..],
        };
    }
    if let Some(close) = key.windows(2).rposition(|pair| pair == b")/") {
        // Without a `(` there is no hash, and what stands before the `)` counts as the app.
        let (app, hash) = match memrchr(b'(', &key[..close]) {
            Some(open) => (&key[..open], &key[open + 1..close]),
            None => (&key[..close], &key[..0]),
        };
        return SessionKey {
            key,
            app,
            hash,
            session_id: &key[close + 2..],
        };
    }
    if let Some(slash) = memrchr(b'/', key) {
        return SessionKey {
            key,
            app: &key[..slash],
            hash: &key[..0],
            session_id: &key[slash + 1..],
        };
    }
    SessionKey {
        key,
        app: &key[..0],
        hash: &key[..0],
        session_id: key,
    }
}

/// The first `(` whose text up to the next `)` can only be an application's hash, with `)/`
/// behind it; returns the positions of both parentheses. Ids, paths and even the hash may hold
/// `/`, ids and paths also parentheses, so this is the one reliable mark.
fn standard_group(key: &[u8]) -> Option<(usize, usize)> {
    memchr_iter(b'(', key).find_map(|open| {
        let after = &key[open + 1..];
        // Nothing longer can be a hash, and the bound keeps hostile input linear.
        let window = &after[..after.len().min(LONGEST_HASH_BYTES + 1)];
        let length = memchr(b')', window)?;
        let is_group = after.get(length + 1) == Some(&b'/') && is_base64_hash(&after[..length]);
        is_group.then_some((open, open + 1 + length))
    })
}

/// An HMAC-SHA512 in base64.
const LONGEST_HASH_BYTES: usize = 88;

/// Whether this is the base64 of a hash that some framework version sends (protocol 2.1), a `+`
/// possibly decoded to a space.
fn is_base64_hash(text: &[u8]) -> bool {
    let padding_bytes = match text.len() {
        24 | 88 => 2,
        28 | 44 => 1,
        64 => 0,
        _ => return false,
    };
    let (digits, padding) = text.split_at(text.len() - padding_bytes);
    // No early exit: the loop becomes a few vector instructions.
    let all_digits = digits.iter().fold(true, |all, &b| {
        all & (b.is_ascii_alphanumeric() | (b == b'+') | (b == b'/') | (b == b' '))
    });
    all_digits && padding.iter().all(|&b| b == b'=')
}
