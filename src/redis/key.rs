//! Under which key an item is kept.

use ring::digest::{SHA256, digest};

/// Slots of a Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// What is kept of the digest: enough that no two sessions ever meet.
const DIGEST_BYTES: usize = 16;

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The engine's key of the item with this canonical key: `prefix`, then 22 characters. It is
/// bounded whatever a client sends, tells nothing of the session id to who reads the engine's logs,
/// and has no braces, by which clients could steer where it is kept.
pub fn item_key(prefix: &str, canonical_key: &[u8]) -> String {
    let digest = digest(&SHA256, canonical_key);
    let mut key = String::with_capacity(prefix.len() + 22);
    key.push_str(prefix);
    push_base64_url(&mut key, &digest.as_ref()[..DIGEST_BYTES]);
    key
}

/// Appends `bytes` in base64 for URLs, without padding.
pub(super) fn push_base64_url(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let index = word >> (18 - 6 * place) & 0x3f;
            text.push(char::from(BASE64_URL[index as usize]));
        }
    }
}

/// The slot of a key without braces: CRC16 (XMODEM) modulo the number of slots.
pub(super) fn slot_of(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        let index = (crc >> 8) as u8 ^ byte;
        crc << 8 ^ CRC16[usize::from(index)]
    });
    crc % SLOTS
}

const CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `redis-cli cluster keyslot` says.
    #[test]
    fn slots_are_those_of_redis() {
        for (key, slot) in [("123456789", 12739), ("foo", 12182), ("", 0)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xfb\xff", "-_8"),
        ] {
            let mut text = String::new();
            push_base64_url(&mut text, bytes);
            assert_eq!(text, expected);
        }
    }

    /// Frozen: with another key every session would be lost.
    #[test]
    fn the_key_of_an_item_never_changes() {
        let key = item_key(
            "staterouter:",
            b"/LM/W3SVC/1/ROOT(hash=)/q3m1zt0xk4vdw2hn5sbyr0ac",
        );
        assert_eq!(key, "staterouter:eDpt6uYGQJ_SzxPO7zFHVA");
    }
}
