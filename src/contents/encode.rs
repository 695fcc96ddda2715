//! Bodies as .NET writes them, with values of no meaning.

use super::decode::BodyItem;
use super::inflate::deflate;

/// The type code of a string.
const STRING: u8 = 1;

/// A body with these items: its values are strings of printable bytes, which compress as text does.
/// An item has a byte at least. One item at most may be without a name.
#[must_use]
pub fn encode(timeout_minutes: u32, items: &[BodyItem]) -> Vec<u8> {
    let mut body = timeout_minutes.to_le_bytes().to_vec();
    body.extend_from_slice(&[u8::from(!items.is_empty()), 0]);
    if !items.is_empty() {
        body.extend_from_slice(&(items.len() as u32).to_le_bytes());
        let nameless = items.iter().position(|item| item.name.is_empty());
        let nameless = nameless.map_or(-1, |index| index as i32);
        body.extend_from_slice(&nameless.to_le_bytes());
        for item in items.iter().filter(|item| !item.name.is_empty()) {
            let mut length = item.name.len();
            while length >= 0x80 {
                body.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            body.push(length as u8);
            body.extend_from_slice(item.name.as_bytes());
        }
        let mut end = 0;
        for item in items {
            end += item.bytes.max(1) as u32;
            body.extend_from_slice(&end.to_le_bytes());
        }
        for item in items {
            body.push(STRING);
            let bytes = (1..item.bytes).scan(item.bytes as u32, |state, _| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some(b"abcdefgh 01234 5"[(*state >> 28) as usize])
            });
            body.extend(bytes);
        }
    }
    body.push(0xff);
    body
}

/// The same body as `compressionEnabled` stores it.
#[must_use]
pub fn compress(body: &[u8]) -> Vec<u8> {
    let mut packed = deflate(body);
    packed.push(0xff);
    packed
}
