//! Session id → 64-bit hash → slot. The only file that names the SipHash crate.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Number of slots: equal shares of the hash space of session ids.
pub const SLOT_COUNT: usize = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 14;

/// The 128-bit key of every hash in routing.
///
/// Clients choose session ids; without the key they cannot aim them at one slot. All proxies of
/// one farm must use the same key; under a new one nearly every session would be elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

impl HashKey {
    /// The key used when none is configured. It is public, so it gives stable routing but no
    /// protection against chosen session ids.
    pub const DEFAULT: HashKey = HashKey(*b"staterouter/key1");

    /// A key of 16 bytes, read by SipHash as two little-endian 64-bit words.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key in 32 lower case hexadecimal digits, as a partition map holds it: secret text.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// SipHash-1-3 of the decoded session id bytes, nothing put before or behind them.
    #[must_use]
    pub fn hash(&self, session_id: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(session_id)
    }

    /// The slot of a session: the top 14 bits of [`HashKey::hash`].
    #[must_use]
    pub fn slot(&self, session_id: &[u8]) -> Slot {
        self.locate(session_id).slot
    }

    /// Slot and fingerprint of a session from one hash: the data path wants both for every
    /// request. They share no bit, so a fingerprint in a log says nothing about the slot.
    #[must_use]
    pub fn locate(&self, session_id: &[u8]) -> Located {
        let hash = self.hash(session_id);
        Located {
            slot: Slot((hash >> (u64::BITS - SLOT_BITS)) as u16),
            fingerprint: Fingerprint(hash as u32),
            hash,
        }
    }

    /// SipHash-1-3 under this key as a stream. Only `write` may be used: what the other methods
    /// feed depends on the platform.
    pub(super) fn hasher(&self) -> impl Hasher + use<> {
        SipHasher13::new_with_key(&self.0)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(redacted)")
    }
}

/// Where a session belongs and how a log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// Its share of the hash space.
    pub slot: Slot,
    /// Its name in logs.
    pub fingerprint: Fingerprint,
    /// [`HashKey::hash`], of which both are parts.
    pub hash: u64,
}

/// One of [`SLOT_COUNT`] equal shares of the hash space; always below that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, or `None` when there is no such slot.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (usize::from(number) < SLOT_COUNT).then_some(Self(number))
    }

    /// All slots in ascending order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..SLOT_COUNT as u16).map(Self)
    }

    /// The slot's number, 0 to [`SLOT_COUNT`] - 1.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The slot's number as an index into a table of [`SLOT_COUNT`] entries.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 32-bit keyed hash of a session id, shown as 8 hex digits.
///
/// It links the log lines of one session and reveals nothing of the id: default ids carry 120
/// random bits (protocol 2.1). It is too short to be a key of anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// Its bits.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published SipHash-1-3 outputs (little-endian bytes) for the key 00 01 .. 0f and the message
    /// 00 01 .. of the given length, from the test suites of the Rust standard library and the
    /// `siphasher` crate.
    const PUBLISHED: [(u8, [u8; 8]); 6] = [
        (0, [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab]),
        (1, [0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9]),
        (7, [0x40, 0x11, 0xb1, 0x9b, 0x98, 0x7d, 0x92, 0xd3]),
        (8, [0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36]),
        (15, [0x56, 0x99, 0x51, 0x2a, 0x6d, 0xd8, 0x20, 0xd3]),
        (24, [0x8c, 0x9c, 0x34, 0x67, 0xb2, 0xae, 0x64, 0xf4]),
    ];

    #[test]
    fn hash_is_siphash_1_3_and_the_slot_its_top_bits() {
        let key = HashKey::new(std::array::from_fn(|i| i as u8));
        for (len, output) in PUBLISHED {
            let message: Vec<u8> = (0..len).collect();
            let expected = u64::from_le_bytes(output);
            assert_eq!(key.hash(&message), expected, "length {len}");
            assert_eq!(u64::from(key.slot(&message).number()), expected >> 50);

            let mut stream = key.hasher();
            message.chunks(3).for_each(|part| stream.write(part));
            assert_eq!(stream.finish(), expected, "streamed, length {len}");
        }
    }

    #[test]
    fn slots_are_exactly_the_numbers_below_the_count() {
        assert_eq!(Slot::all().len(), SLOT_COUNT);
        assert!(Slot::all().enumerate().all(|(i, slot)| slot.index() == i));
        assert_eq!(Slot::new(16_383).map(Slot::number), Some(16_383));
        assert_eq!(Slot::new(16_384), None);
    }

    #[test]
    fn fingerprint_depends_on_id_and_key_and_shares_no_bit_with_the_slot() {
        let id = b"q3m1zt0xk4vdw2hn5sbyr0ac";
        let print = |key: HashKey, id: &[u8]| key.locate(id).fingerprint;
        assert_eq!(
            print(HashKey::DEFAULT, id).to_string(),
            format!("{:08x}", HashKey::DEFAULT.hash(id) as u32)
        );
        assert_ne!(
            print(HashKey::DEFAULT, id),
            print(HashKey::DEFAULT, b"b5k2ye1tqz0mh3wdcx4nvs1g")
        );
        assert_ne!(
            print(HashKey::DEFAULT, id),
            print(HashKey::new([7; 16]), id)
        );
        assert_eq!(print(HashKey::DEFAULT, id).to_string().len(), 8);
    }

    #[test]
    fn debug_of_the_key_hides_it() {
        let shown = format!("{:?}", HashKey::new(*b"0123456789abcdef"));
        assert_eq!(shown, "HashKey(redacted)");
    }
}
