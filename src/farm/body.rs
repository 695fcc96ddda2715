//! Session bodies that tell who wrote them.
//!
//! Layout, little-endian, as ASP.NET's own (protocol 3): three items, the type codes of which are those
//! of strings.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | timeout in minutes |
//! | 4..6 | 1, 0: has items, has no static objects |
//! | 6..38 | 3 items, none without a name, and their names |
//! | 38..50 | where the value of each ends, counted from the first |
//! | 50 | type code of `User` |
//! | 51..59 | magic |
//! | 59..83 | the session id |
//! | 83..91 | the version: number of the write within its session |
//! | 91..95 | length of the whole body |
//! | 95..n-1 | fill derived from id and version, five eighths of it `Cart`, the rest `SearchResults`; each begins with its type code |
//! | n-1 | 0xFF |

use super::random::{GOLDEN, mix};
use super::session::ID_BYTES;

/// The shortest body: the fixed fields, a word of fill for each of two items, the end mark.
pub const MIN_BODY_BYTES: u32 = HEADER_BYTES as u32 + 2 * WORD_BYTES as u32 + 1;

const HEADER_BYTES: usize = 95;
const WORD_BYTES: usize = 8;
/// Where the first value begins.
const VALUES_AT: usize = 50;
/// The part of the first value that is no fill, its type code included.
const USER_BYTES: usize = HEADER_BYTES - VALUES_AT;
const NAMES: &[u8] = b"\x01\0\x03\0\0\0\xff\xff\xff\xff\x04User\x04Cart\x0dSearchResults";
const STRING: u8 = 1;
const MAGIC: &[u8; 8] = b"SRFARM\x00\x02";
const END_MARK: u8 = 0xff;

/// Replaces the contents of `out` by the body of `version` of session `id`. A length below
/// [`MIN_BODY_BYTES`] is taken as that.
pub(crate) fn build(
    out: &mut Vec<u8>,
    id: &[u8; ID_BYTES],
    version: u64,
    timeout_minutes: u32,
    body_bytes: u32,
) {
    let body_bytes = body_bytes.max(MIN_BODY_BYTES);
    let fill = Fill::new(id, version, body_bytes as usize);
    out.clear();
    out.extend_from_slice(&timeout_minutes.to_le_bytes());
    out.extend_from_slice(NAMES);
    out.extend(fill.ends());
    out.push(STRING);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(id);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&body_bytes.to_le_bytes());
    let words = fill.bytes.div_ceil(WORD_BYTES);
    for index in 0..words {
        out.extend_from_slice(&fill.word(index).to_le_bytes());
    }
    out.truncate(HEADER_BYTES + fill.bytes);
    out.push(END_MARK);
}

/// The version of a body that is whole and belongs to `id`, else what is wrong with it.
pub(crate) fn verify(body: &[u8], id: &[u8; ID_BYTES]) -> Result<u64, &'static str> {
    let (&end_mark, body_rest) = body.split_last().ok_or("an empty body")?;
    let (header, filled) = body_rest
        .split_at_checked(HEADER_BYTES)
        .filter(|_| body.len() >= MIN_BODY_BYTES as usize)
        .ok_or("a body shorter than any that was written")?;
    if header[51..59] != MAGIC[..] {
        return Err("a body that this program did not write");
    }
    if header[59..83] != id[..] {
        return Err("the body of another session");
    }
    let version = u64::from_le_bytes(number(&header[83..91]));
    let announced = u32::from_le_bytes(number(&header[91..95]));
    if announced as usize != body.len() {
        return Err("a body of the wrong length");
    }
    let fill = Fill::new(id, version, body.len());
    let is_header = header[4..38] == *NAMES
        && header[38..50].iter().copied().eq(fill.ends())
        && header[50] == STRING;
    if !is_header || end_mark != END_MARK || !fill.is(filled) {
        return Err("a body with changed bytes");
    }
    Ok(version)
}

/// What stands between header and end mark.
struct Fill {
    state: u64,
    bytes: usize,
    /// The word with which the last item begins.
    last_item: usize,
}

impl Fill {
    fn new(id: &[u8; ID_BYTES], version: u64, body_bytes: usize) -> Self {
        let mut state = mix(version);
        for part in id.chunks_exact(WORD_BYTES) {
            state = mix(state ^ u64::from_le_bytes(number(part)));
        }
        let bytes = body_bytes - HEADER_BYTES - 1;
        Self {
            state,
            bytes,
            last_item: bytes / WORD_BYTES * 5 / 8,
        }
    }

    /// Where the values end, as the header has it.
    fn ends(&self) -> impl Iterator<Item = u8> {
        let last_item = USER_BYTES + self.last_item * WORD_BYTES;
        let ends = [USER_BYTES, last_item, USER_BYTES + self.bytes];
        ends.into_iter().flat_map(|end| (end as u32).to_le_bytes())
    }

    /// One word. The lowest byte of those with which an item begins is its type code.
    fn word(&self, index: usize) -> u64 {
        let word = self.plain_word(index);
        match index == 0 || index == self.last_item {
            true => word & !0xff | u64::from(STRING),
            false => word,
        }
    }

    fn plain_word(&self, index: usize) -> u64 {
        let steps = GOLDEN.wrapping_mul(index as u64 + 1);
        let state = self.state.wrapping_add(steps);
        state ^ (state >> 29)
    }

    fn is(&self, filled: &[u8]) -> bool {
        let (whole, rest) = filled.split_at(filled.len() / WORD_BYTES * WORD_BYTES);
        let last = self.word(whole.len() / WORD_BYTES).to_le_bytes();
        let word = |index: usize| {
            let at = index * WORD_BYTES;
            u64::from_le_bytes(number(&whole[at..at + WORD_BYTES])) ^ self.word(index)
        };
        let (cart, results) = whole.split_at(self.last_item * WORD_BYTES);
        let difference = word(0)
            | word(self.last_item)
            | self.differs(&cart[WORD_BYTES..], 1)
            | self.differs(&results[WORD_BYTES..], self.last_item + 1);
        difference == 0 && rest == &last[..rest.len()]
    }

    /// Where whole words, the first of which has this index, differ from plain ones.
    fn differs(&self, words: &[u8], first: usize) -> u64 {
        let mut difference = 0;
        // No early exit: the loop becomes a few vector instructions.
        for (index, word) in (first..).zip(words.chunks_exact(WORD_BYTES)) {
            difference |= u64::from_le_bytes(number(word)) ^ self.plain_word(index);
        }
        difference
    }
}

/// The first `N` bytes; zeros where there are fewer.
fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &[u8; ID_BYTES] = b"q3m1zt0xk4vdw2hn5sbyr0ac";

    fn body(version: u64, body_bytes: u32) -> Vec<u8> {
        let mut out = b"what was there before".to_vec();
        build(&mut out, ID, version, 20, body_bytes);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_body_has_its_length_and_names_its_version(version: u64, bytes in MIN_BODY_BYTES..3000) {
            let body = body(version, bytes);
            prop_assert_eq!(body.len(), bytes as usize);
            prop_assert_eq!(verify(&body, ID), Ok(version));
        }

        #[test]
        fn no_changed_bit_goes_unseen(bytes in MIN_BODY_BYTES..300, at: usize, bit in 0u8..8) {
            let mut body = body(41, bytes);
            // The timeout in front is the server's to read, not ours to check.
            let at = 4 + at % (body.len() - 4);
            body[at] ^= 1 << bit;
            prop_assert!(verify(&body, ID).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(verify(&bytes, ID).is_err());
        }
    }

    #[test]
    fn a_body_is_one_that_aspnet_could_have_written() {
        let contents = crate::contents::decode(&body(1, 2048)).unwrap();
        let items = contents.items.iter();
        let items: Vec<_> = items.map(|item| (&*item.name, item.bytes)).collect();
        let wanted = [("User", 45), ("Cart", 1216), ("SearchResults", 736)];
        assert_eq!(items, wanted);
        assert!(crate::contents::decode(&body(1, 0)).is_ok());
    }

    #[test]
    fn another_session_and_a_cut_body_are_told_apart() {
        let whole = body(1, 200);
        let other = verify(&whole, b"aaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(other, Err("the body of another session"));
        let cut = [&whole[..198], &[END_MARK]].concat();
        assert_eq!(verify(&cut, ID), Err("a body of the wrong length"));
        assert_eq!(body(1, 3).len(), MIN_BODY_BYTES as usize);
    }
}
