//! Request target → session key, by the rules of protocol 2.3.
//!
//! The real server decodes the target once and compares the decoded bytes (protocol 2.2), so the
//! decoded bytes are the key, and all spellings of one key must find the same backend.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr_iter, memrchr};
use thiserror::Error;
use wide::u8x16;

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
pub struct KeyBuffer {
    /// The decoded target, and what is left of longer ones.
    decoded: Vec<u8>,
    known: KnownStart,
}

/// The start of the last target, up to its session id: all requests of one application begin alike.
///
/// It ends behind the mark of rule 4, so whatever follows, that mark stays the first.
#[derive(Default)]
struct KnownStart {
    /// As it was sent; empty when nothing is known. Decoded it is what the buffer begins with.
    raw: Vec<u8>,
    group: Group,
    /// [`start_hash`] of it.
    hash: u64,
}

/// Positions of the parentheses around an application's hash; `)/` ends the start of the target.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    open: usize,
    close: usize,
}

impl KeyBuffer {
    /// An empty buffer; allocates at its first use.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            decoded: Vec::new(),
            known: KnownStart {
                raw: Vec::new(),
                group: Group { open: 0, close: 0 },
                hash: 0,
            },
        }
    }
}

impl fmt::Debug for KeyBuffer {
    /// Shows the length alone: the content is a bearer secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBuffer({} bytes)", self.decoded.len())
    }
}

/// The parts of a decoded target. All are raw bytes; nothing promises that they are UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey<'b> {
    key: &'b [u8],
    app: &'b [u8],
    hash: &'b [u8],
    session_id: &'b [u8],
    start_hash: u64,
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

    /// A hash of what stands in front of the session id, to tell applications apart that share
    /// session ids; 0 if it has not the usual form.
    #[must_use]
    pub fn start_hash(&self) -> u64 {
        self.start_hash
    }

    /// Whether it has the form that ASP.NET gives it: an application's id, the hash of that, a session
    /// id (protocol 2.3, rule 4).
    #[must_use]
    pub fn is_usual(&self) -> bool {
        is_hash(self.hash)
    }

    /// What stands in front of the session id.
    #[must_use]
    pub fn start(&self) -> &'b [u8] {
        &self.key[..self.key.len() - self.session_id.len()]
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
/// and never more room in `buffer` than twice that length and 16 bytes.
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
    let KeyBuffer { decoded, known } = buffer;
    let key = match raw.strip_prefix(known.raw.as_slice()) {
        Some(rest) if !known.raw.is_empty() => {
            let start = known.group.end();
            let end = decode(rest, decoded, start);
            known.group.split(&decoded[..end], known.hash)
        }
        _ => {
            let end = decode(raw, decoded, 0);
            let key = &decoded[..end];
            known.raw.clear();
            match standard_group(key) {
                Some(group) => {
                    let hash = start_hash(&key[..group.end()]);
                    known.learn(raw, key, group, hash);
                    group.split(key, hash)
                }
                None => split(key),
            }
        }
    };
    if key.session_id.is_empty() {
        return Err(KeyError::EmptySessionId);
    }
    Ok(key)
}

/// How many bytes of `target` say the first `decoded_bytes` of its key, which must not end within a
/// character that was sent as one.
pub(super) fn sent_start_bytes(target: &[u8], decoded_bytes: usize) -> usize {
    let dropped = usize::from(target.starts_with(b"//"));
    let raw = &target[dropped..];
    let (mut used, mut end) = (0, 0);
    // The longest character.
    let mut decoded = [0; 4];
    while end < decoded_bytes
        && let [begin, behind @ ..] = &raw[used..]
    {
        used += 1;
        let mut bytes = 0;
        match begin {
            b'%' => used += unescape(*begin, behind, &mut decoded, &mut bytes),
            _ => bytes = 1,
        }
        end += bytes;
    }
    dropped + used
}

impl KnownStart {
    /// Keeps the start of the target `raw`, whose decoded form is `key`, if what it ends with is
    /// spelt so that nothing that follows can change what it means.
    fn learn(&mut self, raw: &[u8], key: &[u8], group: Group, hash: u64) {
        let id_bytes = key.len() - group.end();
        let (start, id) = raw.split_at(raw.len() - id_bytes);
        // Of an id without escapes as many bytes were sent. No escape goes on behind a slash.
        let is_slash = |end: &[u8]| end.ends_with(b"/") || end.ends_with(b"%2f");
        let is_clean = is_slash(start) || start.ends_with(b"%2F");
        if is_clean && memchr(b'%', id).is_none() {
            self.raw.extend_from_slice(start);
            self.group = group;
            self.hash = hash;
        }
    }
}

impl Group {
    /// Where the session id begins.
    fn end(self) -> usize {
        self.close + 2
    }

    fn split(self, key: &[u8], start_hash: u64) -> SessionKey<'_> {
        SessionKey {
            key,
            app: &key[..self.open],
            hash: &key[self.open + 1..self.close],
            session_id: &key[self.end()..],
            start_hash,
        }
    }
}

/// Bytes that are decoded in one step when none of them begins an escape.
const STEP: usize = 16;

/// Form-url-decodes `raw` (protocol 2.2) into `decoded` from `end` on; where it ends then.
fn decode(raw: &[u8], decoded: &mut Vec<u8>, mut end: usize) -> usize {
    // Decoding never lengthens, so this is the only allocation.
    let room = end + raw.len() + STEP;
    if decoded.len() < room {
        decoded.resize(room, 0);
    }
    let mut rest = raw;
    while !rest.is_empty() {
        // All of a step is copied, and what follows its first escape is written over.
        let plain = match rest.first_chunk() {
            Some(step) => copy_plain(step, decoded, end),
            None => {
                let mut step = [0; STEP];
                step[..rest.len()].copy_from_slice(rest);
                copy_plain(&step, decoded, end).min(rest.len())
            }
        };
        end += plain;
        rest = &rest[plain..];
        if plain < STEP
            && let [begin, behind @ ..] = rest
        {
            let used = unescape(*begin, behind, decoded, &mut end);
            rest = &behind[used..];
        }
    }
    end
}

/// Copies a whole step; how many of its bytes come before the first that decoding changes.
#[inline]
fn copy_plain(step: &[u8; STEP], decoded: &mut [u8], end: usize) -> usize {
    decoded[end..end + STEP].copy_from_slice(step);
    plain_bytes(step)
}

/// How many bytes come before the first that decoding changes.
#[inline]
fn plain_bytes(step: &[u8; STEP]) -> usize {
    let step = u8x16::new(*step);
    let changes = step.cmp_eq(u8x16::splat(b'%')) | step.cmp_eq(u8x16::splat(b'+'));
    (changes.move_mask() as u32 | 1 << STEP).trailing_zeros() as usize
}

/// Decodes what `begin` begins and puts it at `end`; the bytes it takes of what is `behind`.
#[inline]
fn unescape(begin: u8, behind: &[u8], decoded: &mut [u8], end: &mut usize) -> usize {
    let mut byte = (begin, 0);
    if begin == b'+' {
        byte.0 = b' ';
    } else if let Some(escaped) = byte_escape(behind) {
        byte = escaped;
    } else if let Some((character, used)) = character_escape(behind) {
        *end += character.encode_utf8(&mut decoded[*end..]).len();
        return used;
    }
    decoded[*end] = byte.0;
    *end += 1;
    byte.1
}

/// The byte of the `%xx` whose `%` stands before `behind`, and the bytes of `behind` it takes. A
/// `%` that begins no complete escape stands for itself, and what follows it is decoded afresh.
#[inline]
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
    const DIGITS: [u8; 256] = hex_digits();
    Some(DIGITS[usize::from(byte)]).filter(|&digit| digit < 16)
}

/// The value of each byte as a hexadecimal digit; 16 for one that is none.
const fn hex_digits() -> [u8; 256] {
    let mut digits = [16; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
}

/// Finds the parts of a decoded target without the mark of rule 4 (protocol 2.3, rules 5 to 7).
fn split(key: &[u8]) -> SessionKey<'_> {
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
            start_hash: 0,
        };
    }
    if let Some(slash) = memrchr(b'/', key) {
        return SessionKey {
            key,
            app: &key[..slash],
            hash: &key[..0],
            session_id: &key[slash + 1..],
            start_hash: 0,
        };
    }
    SessionKey {
        key,
        app: &key[..0],
        hash: &key[..0],
        session_id: key,
        start_hash: 0,
    }
}

/// Eight bytes a step. Whoever chooses the bytes chooses the hash: it is no key of anything that
/// has to stay apart.
fn start_hash(start: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    start.chunks(8).fold(0, |hash: u64, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR)
    })
}

/// The first `(` whose text up to the next `)` can only be an application's hash, with `)/`
/// behind it (protocol 2.3, rule 4). Ids, paths and even the hash may hold `/`, ids and paths also
/// parentheses, so this is the one reliable mark.
fn standard_group(key: &[u8]) -> Option<Group> {
    memchr_iter(b'(', key).find_map(|open| {
        let after = &key[open + 1..];
        // Nothing longer can be a hash, and the bound keeps hostile input linear.
        let window = &after[..after.len().min(LONGEST_HASH_BYTES + 1)];
        let length = memchr(b')', window)?;
        let is_group = after.get(length + 1) == Some(&b'/') && is_hash(&after[..length]);
        is_group.then_some(Group {
            open,
            close: open + 1 + length,
        })
    })
}

/// An HMAC-SHA512 in base64.
const LONGEST_HASH_BYTES: usize = 88;

/// Whether this is the base64 of a hash that some framework version sends (protocol 2.1), a `+`
/// possibly decoded to a space.
pub fn is_hash(text: &[u8]) -> bool {
    let padding_bytes = match text.len() {
        24 | 88 => 2,
        28 | 44 => 1,
        64 => 0,
        _ => return false,
    };
    let (digits, padding) = text.split_at(text.len() - padding_bytes);
    let (steps, _) = digits.as_chunks();
    // No hash is shorter than a step, so the last one may overlap the one before.
    let steps = steps.iter().chain(digits.last_chunk());
    padding.iter().all(|&b| b == b'=') && steps.fold(true, |all, step| all & are_digits(step))
}

/// Whether all bytes are digits of base64, or spaces. No early exit: the loop becomes a few vector
/// instructions.
fn are_digits(step: &[u8; STEP]) -> bool {
    step.iter().fold(true, |all, &b| {
        all & (b.is_ascii_alphanumeric() | (b == b'+') | (b == b'/') | (b == b' '))
    })
}
