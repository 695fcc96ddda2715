//! The consistent-hash ring. The only file that names the `consistent_hash` crate.
//!
//! Two kinds of points lie on the ring. Their bytes are frozen: a change moves sessions.
//!
//! | point | bytes fed to SipHash-1-3 |
//! |---|---|
//! | slot | `slot:`, slot number as u16 little-endian |
//! | virtual node | `node:`, backend name in UTF-8, sequence number as u64 little-endian |
//!
//! The crate's own hash feeds tuples, `str` and `usize` through `std::hash::Hash`, whose bytes
//! differ between platforms and compilers. So every key here writes its bytes itself, in one
//! `Hasher::write`.
//!
//! A slot is served by the backends in the order in which their first virtual node follows the
//! slot's point. Virtual nodes with equal hashes stand in the order of the backend names. The
//! virtual nodes of a backend are numbered from 0, so a greater weight adds nodes and keeps all
//! others: a weight change moves slots only to or from that backend.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};

use super::hash::{HashKey, Slot};
use super::placement::{BackendIndex, Member};

/// Virtual nodes of a backend of weight 100.
const VNODES_AT_WEIGHT_100: u32 = 512;

/// The ring over the members of one placement; lives only while its table is built.
pub(super) struct Ring<'m> {
    ring: StaticHashRing<'m, NodeKey<'m>, BackendIndex, KeyedHash>,
}

impl<'m> Ring<'m> {
    /// Places `weight * 512 / 100` virtual nodes for each member. Names must be distinct.
    pub(super) fn new(key: HashKey, members: &[Member<'m>]) -> Self {
        let nodes = members.iter().map(|member| Node {
            key: NodeKey(member.name),
            value: member.backend,
            quantity: vnode_count(member.weight),
        });
        Self {
            ring: StaticHashRing::new(KeyedHash(key), nodes),
        }
    }

    /// The distinct backends that serve a slot, the owner first. Each step walks the ring, so
    /// take no more than needed.
    pub(super) fn candidates(&self, slot: Slot) -> impl Iterator<Item = BackendIndex> {
        self.ring
            .calc_candidates(&SlotPoint(slot))
            .map(|node| node.value)
    }
}

/// At least 5, for weight 1.
fn vnode_count(weight: u32) -> usize {
    (weight * VNODES_AT_WEIGHT_100 / 100) as usize
}

/// Feeds the bytes of the table above, and nothing else, to keyed SipHash-1-3.
struct KeyedHash(HashKey);

impl RingHash for KeyedHash {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut hasher = self.0.hasher();
        item.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_vnode<K: Hash>(&self, node_key: &K, vnode_seq: usize) -> u64 {
        let mut hasher = self.0.hasher();
        hasher.write(b"node:");
        node_key.hash(&mut hasher);
        hasher.write(&(vnode_seq as u64).to_le_bytes());
        hasher.finish()
    }
}

/// A backend's name; hashes to its UTF-8 bytes without length or end mark.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey<'m>(&'m str);

impl Hash for NodeKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

/// A slot's place on the ring; hashed, so that slots and virtual nodes are spread alike.
struct SlotPoint(Slot);

impl Hash for SlotPoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [low, high] = self.0.number().to_le_bytes();
        state.write(&[b's', b'l', b'o', b't', b':', low, high]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_feed_the_documented_bytes() {
        let key = HashKey::new(*b"fedcba9876543210");
        let slot = Slot::new(0x1234).unwrap();
        assert_eq!(
            KeyedHash(key).hash_item(&SlotPoint(slot)),
            key.hash(b"slot:\x34\x12")
        );
        assert_eq!(
            KeyedHash(key).hash_vnode(&NodeKey("zürich"), 0x0102),
            key.hash(b"node:z\xc3\xbcrich\x02\x01\0\0\0\0\0\0"),
        );
    }

    #[test]
    fn virtual_nodes_follow_the_weight() {
        assert_eq!(vnode_count(1), 5);
        assert_eq!(vnode_count(100), 512);
        assert_eq!(vnode_count(150), 768);
        assert_eq!(vnode_count(1000), 5120);
    }
}
