//! What stands in a segment.
//!
//! ```text
//! segment: magic (16 bytes) number (8) run (8) salt (8) check (8), then records
//! record:  length of the payload (4) check (8) payload
//! ```
//!
//! All numbers are little-endian. A check is SipHash-1-3 under the salt of the segment, over the
//! record's offset and its payload: neither bytes of another place nor what a client stores can
//! pass for a record.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::store::{ItemMarks, RestoredItem};

/// The first bytes of a segment; the last one is the version of the format.
const MAGIC: &[u8; 16] = b"staterouter log1";

/// Length of the head of a segment.
pub(super) const HEAD_BYTES: usize = 48;

/// Length and check in front of a payload.
pub(super) const FRAME_BYTES: usize = 12;

/// The length of the payload of [`Record::Synced`], by which it is looked for.
pub(super) const SYNCED_PAYLOAD_BYTES: u32 = 9;

const STORED: u8 = 1;
const USED: u8 = 2;
const GONE: u8 = 3;
const SYNCED: u8 = 4;
const END: u8 = 5;

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The segment's number, one higher than that of the one before.
    pub(super) number: u64,
    /// How many processes have written to the log before this one.
    pub(super) run: u64,
    /// Random.
    pub(super) salt: u64,
}

/// One record; a body is shared with the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Record<'a> {
    /// An item as it is from here on.
    Stored {
        key: &'a [u8],
        item: RestoredItem<'a>,
    },
    /// What a use has changed of an item.
    Used { key: &'a [u8], marks: ItemMarks },
    /// The item is no more.
    Gone { key: &'a [u8] },
    /// The disk has everything in this segment before this offset.
    Synced { offset: u64 },
    /// The segment is complete, and the disk has it before the next one begins.
    End,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.run.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let check = self.check(0, &bytes[..40]);
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let number = |at: usize| u64_at(&bytes[at..]);
        let head = Self {
            number: number(16)?,
            run: number(24)?,
            salt: number(32)?,
        };
        let good = bytes[..16] == *MAGIC && number(40)? == head.check(0, &bytes[..40]);
        good.then_some(head)
    }

    /// The check of a payload whose record begins at `offset`.
    pub(super) fn check(&self, offset: u64, payload: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.salt, self.number);
        hasher.write_u64(offset);
        hasher.write(payload);
        hasher.finish()
    }

    /// What completes a segment of which the disk has everything before `offset`.
    pub(super) fn end(&self, offset: u64) -> Vec<u8> {
        let mut end = Vec::new();
        self.append(&mut end, offset, &Record::Synced { offset });
        self.append(&mut end, offset, &Record::End);
        end
    }

    /// Adds a record to `out`, whose first byte will stand at `start` in the segment.
    pub(super) fn append(&self, out: &mut Vec<u8>, start: u64, record: &Record<'_>) {
        let at = out.len();
        out.extend_from_slice(&[0; FRAME_BYTES]);
        record.encode(out);
        let payload = at + FRAME_BYTES;
        let length = (out.len() - payload) as u32;
        let check = self.check(start + at as u64, &out[payload..]);
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        out[at + 4..payload].copy_from_slice(&check.to_le_bytes());
    }
}

impl<'a> Record<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored { key, item } => {
                out.push(STORED);
                encode_marks(out, &item.marks);
                out.extend_from_slice(&item.timeout_minutes.to_le_bytes());
                out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(item.body);
            }
            Self::Used { key, marks } => {
                out.push(USED);
                encode_marks(out, marks);
                out.extend_from_slice(key);
            }
            Self::Gone { key } => {
                out.push(GONE);
                out.extend_from_slice(key);
            }
            Self::Synced { offset } => {
                out.push(SYNCED);
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Self::End => out.push(END),
        }
    }

    /// `None` for what this version does not write.
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        Some(match *kind {
            STORED => {
                let (marks, rest) = decode_marks(rest)?;
                let (timeout, rest) = rest.split_at_checked(4)?;
                let (key_bytes, rest) = rest.split_at_checked(4)?;
                let (key, body) = rest.split_at_checked(u32_at(key_bytes)? as usize)?;
                let timeout_minutes = u32_at(timeout)?;
                let item = RestoredItem {
                    marks,
                    timeout_minutes,
                    body,
                };
                Self::Stored { key, item }
            }
            USED => {
                let (marks, key) = decode_marks(rest)?;
                Self::Used { key, marks }
            }
            GONE => Self::Gone { key: rest },
            SYNCED if rest.len() == 8 => Self::Synced {
                offset: u64_at(rest)?,
            },
            END if rest.is_empty() => Self::End,
            _ => return None,
        })
    }
}

fn encode_marks(out: &mut Vec<u8>, marks: &ItemMarks) {
    out.push(u8::from(marks.uninit));
    out.extend_from_slice(&marks.cookie.to_le_bytes());
    out.extend_from_slice(&marks.expires_ms.to_le_bytes());
}

fn decode_marks(bytes: &[u8]) -> Option<(ItemMarks, &[u8])> {
    let (marks, rest) = bytes.split_at_checked(13)?;
    let marks = ItemMarks {
        uninit: marks[0] != 0,
        cookie: u32_at(&marks[1..])?,
        expires_ms: u64_at(&marks[5..])?,
    };
    Some((marks, rest))
}

fn u32_at(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

fn u64_at(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: Head = Head {
        number: 7,
        run: 3,
        salt: 0x1234,
    };

    fn marks() -> ItemMarks {
        ItemMarks {
            uninit: true,
            cookie: 5,
            expires_ms: 1_234_567,
        }
    }

    #[test]
    fn records_are_read_back() {
        let (key, body) = (b"key".as_slice(), b"body".as_slice());
        let item = RestoredItem {
            marks: marks(),
            timeout_minutes: 20,
            body,
        };
        for record in [
            Record::Stored { key, item },
            Record::Used {
                key,
                marks: marks(),
            },
            Record::Gone { key },
            Record::Synced { offset: 99 },
            Record::End,
        ] {
            let mut bytes = vec![1, 2, 3];
            HEAD.append(&mut bytes, 100, &record);
            let payload = &bytes[3 + FRAME_BYTES..];
            assert_eq!(u32_at(&bytes[3..]), Some(payload.len() as u32));
            assert_eq!(u64_at(&bytes[7..]), Some(HEAD.check(103, payload)));
            let decoded = Record::decode(payload);
            assert_eq!(format!("{decoded:?}"), format!("{:?}", Some(record)));
        }
    }

    #[test]
    fn a_head_with_a_changed_byte_is_none() {
        let bytes = HEAD.encode();
        assert_eq!(Head::decode(&bytes), Some(HEAD));
        for at in 0..HEAD_BYTES {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert_eq!(Head::decode(&bytes), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_read_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::decode(&payload);
        }
    }
}
