//! What a body consists of, from its beginning.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | timeout in minutes |
//! | 1, 1 | whether it has items, whether it has static objects |
//! | 4 | number of items |
//! | 4 | which of them has no name; -1 for none. Left out without items |
//! | for each with a name | its name: length in groups of 7 bits, UTF-8 |
//! | 4 for each | where its value ends, counted from the first value |
//! | | the values, each a type code and what belongs to it |
//! | | the static objects, if there are |
//! | 1 | 0xFF |
//!
//! All numbers are little-endian. With `compressionEnabled` all of that is a raw deflate stream, with
//! another 0xFF behind it.

use super::inflate::inflate;

/// What a body consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyContents {
    /// Its items, in its order.
    pub items: Vec<BodyItem>,
    /// The length of the items' values together, before compression.
    pub values_bytes: u64,
    /// Whether it was compressed.
    pub compressed: bool,
}

/// One item of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyItem {
    /// Its name; empty for the one without a name.
    pub name: String,
    /// The length of its value, before compression.
    pub bytes: u64,
}

/// Why a body is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Another serialiser wrote it, or none.
    #[error("it is not what .NET's own collection of items writes")]
    Foreign,
    /// What was seen of it ends before the lengths of its items.
    #[error("names and lengths of its items do not fit into what is looked at")]
    Cut,
}

/// The longest timeout there is, in minutes (protocol 3).
const MAX_TIMEOUT_MINUTES: u32 = 525_600;

/// More items than anybody keeps in a session: what claims more is foreign.
const MAX_ITEMS: usize = 10_000;

/// Longer names are cut.
const MAX_NAME_BYTES: usize = 128;

/// A name as long as this belongs to no item.
const MAX_PLAUSIBLE_NAME_BYTES: usize = 4096;

/// The largest type code of a value.
const MAX_TYPE: u8 = 21;

const NUMBER_BYTES: usize = 4;

/// Where the names of the items begin.
const NAMES_AT: usize = 14;

/// What the body that `sample` is the beginning of consists of.
///
/// # Errors
/// [`NotUnderstood`], which is no fault of anybody.
pub fn decode(sample: &[u8]) -> Result<BodyContents, NotUnderstood> {
    let plain = decode_plain(sample);
    let Err(reason) = plain else {
        return plain;
    };
    // What begins as a body does and goes on otherwise may be a stream by chance.
    let inflated = inflate(sample).ok_or(reason)?;
    let contents = decode_plain(&inflated)?;
    Ok(BodyContents {
        compressed: true,
        ..contents
    })
}

fn decode_plain(bytes: &[u8]) -> Result<BodyContents, NotUnderstood> {
    // What ends before its first name is no body, and neither is it the beginning of one.
    if bytes.len() < NAMES_AT && !bytes.ends_with(&[0xff]) {
        return Err(NotUnderstood::Foreign);
    }
    let mut reader = Reader { rest: bytes };
    let timeout = reader.number()?;
    if !(1..=MAX_TIMEOUT_MINUTES).contains(&timeout) {
        return Err(NotUnderstood::Foreign);
    }
    let (has_items, has_static_objects) = (reader.flag()?, reader.flag()?);
    let nothing = BodyContents {
        items: Vec::new(),
        values_bytes: 0,
        compressed: false,
    };
    if !has_items {
        let is_end = has_static_objects || reader.rest == [0xff];
        return is_end.then_some(nothing).ok_or(NotUnderstood::Foreign);
    }
    let count = reader.number()? as usize;
    if count > MAX_ITEMS {
        return Err(NotUnderstood::Foreign);
    }
    if count == 0 {
        return Ok(nothing);
    }
    let nameless = reader.number()?;
    if nameless != u32::MAX && nameless as usize >= count {
        return Err(NotUnderstood::Foreign);
    }
    let mut items = Vec::new();
    for index in 0..count {
        let name = match index == nameless as usize {
            true => String::new(),
            false => reader.name()?,
        };
        items.push(BodyItem { name, bytes: 0 });
    }
    let mut begin = 0;
    let mut begins = Vec::new();
    for item in &mut items {
        let end = reader.number()?;
        // Every value has a type code at least.
        if end <= begin || end > i32::MAX as u32 {
            return Err(NotUnderstood::Foreign);
        }
        item.bytes = u64::from(end - begin);
        begins.push(begin as usize);
        begin = end;
    }
    let types = begins.iter().map_while(|&begin| reader.rest.get(begin));
    if types.into_iter().any(|code| !(1..=MAX_TYPE).contains(code)) {
        return Err(NotUnderstood::Foreign);
    }
    Ok(BodyContents {
        items,
        values_bytes: begin.into(),
        compressed: false,
    })
}

/// The beginning of a name, of so many bytes at most.
pub(super) fn cut(name: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotUnderstood> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(NotUnderstood::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, NotUnderstood> {
        self.take(1).map(|taken| taken[0])
    }

    fn number(&mut self) -> Result<u32, NotUnderstood> {
        let taken = self.take(NUMBER_BYTES)?;
        let bytes = taken.first_chunk().ok_or(NotUnderstood::Cut)?;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn flag(&mut self) -> Result<bool, NotUnderstood> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(NotUnderstood::Foreign),
        }
    }

    fn name(&mut self) -> Result<String, NotUnderstood> {
        let mut length = 0usize;
        for group in 0..5 {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << (7 * group);
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > MAX_PLAUSIBLE_NAME_BYTES {
            return Err(NotUnderstood::Foreign);
        }
        let name = std::str::from_utf8(self.take(length)?);
        let name = name.map_err(|_| NotUnderstood::Foreign)?;
        Ok(cut(name, MAX_NAME_BYTES).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::{compress, encode};
    use super::*;

    fn item(name: &str, bytes: u64) -> BodyItem {
        let name = name.to_owned();
        BodyItem { name, bytes }
    }

    #[test]
    fn names_and_lengths_come_out_of_a_whole_body_and_of_its_beginning() {
        let items = [
            item("Cart", 5000),
            item("", 17),
            item("Bücher", 1),
            item("x", 90),
        ];
        let body = encode(20, &items);
        for sample in [&body[..], &body[..100]] {
            let contents = decode(sample).unwrap();
            assert_eq!(contents.items, items);
            assert_eq!((contents.values_bytes, contents.compressed), (5108, false));
        }
        let packed = compress(&body);
        for sample in [&packed[..], &packed[..packed.len() / 2]] {
            let contents = decode(sample).unwrap();
            assert_eq!(
                (&contents.items[..], contents.compressed),
                (&items[..], true)
            );
        }
        assert_eq!(decode(&body[..20]), Err(NotUnderstood::Cut));
    }

    /// Byte by byte as .NET 4.8 writes a session with `["n"] = 7` and `["s"] = "hi"`.
    #[test]
    fn a_body_byte_by_byte() {
        let body = b"\x14\0\0\0\x01\0\x02\0\0\0\xff\xff\xff\xff\x01n\x01s\x05\0\0\0\x09\0\0\0\
                     \x02\x07\0\0\0\x01\x02hi\xff";
        let contents = decode(body).unwrap();
        assert_eq!(contents.items, [item("n", 5), item("s", 4)]);
        assert_eq!(encode(20, &[]), b"\x14\0\0\0\0\0\xff");
        assert_eq!(decode(b"\x14\0\0\0\0\0\xff").unwrap().items, []);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ü".repeat(100);
        let found = decode(&encode(20, &[item(&long, 5)])).unwrap();
        assert_eq!(found.items[0].name, "ü".repeat(64));
        assert_eq!(cut("aü", 2), "a");
    }

    #[test]
    fn what_another_wrote_is_foreign() {
        let good = encode(20, &[item("Cart", 50), item("User", 50)]);
        let changed = |at: usize, to: u8| {
            let mut body = good.clone();
            body[at] = to;
            body
        };
        // A timeout of 0, a flag of 2, too many items, an item that is not there, a value that ends
        // before it begins, a type that does not exist.
        let ends = good.len() - 1 - 100 - 8;
        for (at, to) in [
            (0, 0),
            (4, 2),
            (8, 1),
            (10, 9),
            (ends + 4, 20),
            (ends + 8, 22),
        ] {
            assert_eq!(
                decode(&changed(at, to)),
                Err(NotUnderstood::Foreign),
                "{at}"
            );
        }
        for foreign in [&b""[..], b"{\"json\": true}", &[0xff; 100]] {
            assert!(decode(foreign).is_err(), "{foreign:?}");
        }
    }
}
