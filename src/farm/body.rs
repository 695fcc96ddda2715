//! Session bodies that tell who wrote them.
//!
//! Layout, little-endian, in the loose shape of ASP.NET's own (timeout, two flags, parts, 0xFF):
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | timeout in minutes |
//! | 4..6 | 1, 0: has items, has no static objects |
//! | 6..14 | magic |
//! | 14..38 | the session id |
//! | 38..46 | the version: number of the write within its session |
//! | 46..50 | length of the whole body |
//! | 50..n-1 | fill derived from id and version |
//! | n-1 | 0xFF |

use super::random::{GOLDEN, mix};
use super::session::ID_BYTES;

/// The shortest body: the fixed fields, one word of fill that seals them, the end mark.
pub const MIN_BODY_BYTES: u32 = HEADER_BYTES as u32 + 8 + 1;

const HEADER_BYTES: usize = 50;
const MAGIC: &[u8; 8] = b"SRFARM\x00\x01";
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
    out.clear();
    out.extend_from_slice(&timeout_minutes.to_le_bytes());
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(id);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&body_bytes.to_le_bytes());
    let end = body_bytes as usize - 1;
    for word in fill(id, version) {
        if out.len() >= end {
            break;
        }
        out.extend_from_slice(&word);
    }
    out.truncate(end);
    out.push(END_MARK);
}

/// The version of a body that is whole and belongs to `id`, else what is wrong with it.
pub(crate) fn verify(body: &[u8], id: &[u8; ID_BYTES]) -> Result<u64, &'static str> {
    let (&end_mark, body_rest) = body.split_last().ok_or("an empty body")?;
    let (header, filled) = body_rest
        .split_at_checked(HEADER_BYTES)
        .filter(|_| body.len() >= MIN_BODY_BYTES as usize)
        .ok_or("a body shorter than any that was written")?;
    if header[6..14] != MAGIC[..] {
        return Err("a body that this program did not write");
    }
    if header[14..38] != id[..] {
        return Err("the body of another session");
    }
    let version = u64::from_le_bytes(number(&header[38..46]));
    let announced = u32::from_le_bytes(number(&header[46..50]));
    if announced as usize != body.len() {
        return Err("a body of the wrong length");
    }
    if header[4..6] != [1, 0] || end_mark != END_MARK || !is_fill(filled, id, version) {
        return Err("a body with changed bytes");
    }
    Ok(version)
}

fn is_fill(filled: &[u8], id: &[u8; ID_BYTES], version: u64) -> bool {
    let mut words = fill(id, version);
    let mut chunks = filled.chunks_exact(8);
    let mut difference = 0;
    // No early exit: the loop becomes a few vector instructions.
    for chunk in chunks.by_ref() {
        let expected = words.next().unwrap_or_default();
        difference |= u64::from_le_bytes(number(chunk)) ^ u64::from_le_bytes(expected);
    }
    let last = words.next().unwrap_or_default();
    let rest = chunks.remainder();
    difference == 0 && rest == &last[..rest.len()]
}

fn fill(id: &[u8; ID_BYTES], version: u64) -> impl Iterator<Item = [u8; 8]> {
    let mut state = mix(version);
    for part in id.chunks_exact(8) {
        state = mix(state ^ u64::from_le_bytes(number(part)));
    }
    std::iter::repeat_with(move || {
        state = state.wrapping_add(GOLDEN);
        (state ^ (state >> 29)).to_le_bytes()
    })
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
    fn another_session_and_a_cut_body_are_told_apart() {
        let whole = body(1, 100);
        let other = verify(&whole, b"aaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(other, Err("the body of another session"));
        let cut = [&whole[..98], &[END_MARK]].concat();
        assert_eq!(verify(&cut, ID), Err("a body of the wrong length"));
        assert_eq!(body(1, 3).len(), MIN_BODY_BYTES as usize);
    }
}
