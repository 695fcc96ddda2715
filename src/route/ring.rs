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
use super::member::{BackendIndex, MAX_WEIGHT, Member};

/// Virtual nodes of a backend of weight 100.
const VNODES_AT_WEIGHT_100: u32 = 512;

/// Greatest weights of the tiers, a factor of 8 apart.
const TIER_CEILINGS: [u32; 4] = [MAX_WEIGHT, 125, 15, 1];

/// The ring over the members of one placement; lives only while its table is built.
///
/// Next to backends a thousand times heavier, a light backend's few virtual nodes are far apart,
/// and walking to them for every slot takes seconds. But which heavier backends are on the ring
/// does not change the order of the light ones. So there is a ring for each tier, and as soon as
/// all the heavy ones are found the walk goes on where only the lighter ones stand.
pub(super) struct Ring<'m> {
    /// The first holds every member, each other one those up to a lower ceiling. Nearly always it
    /// is one: members differ in weight by less.
    tiers: Vec<Tier<'m>>,
}

struct Tier<'m> {
    ring: StaticHashRing<'m, NodeKey<'m>, BackendIndex, KeyedHash>,
    /// Members that no later tier holds.
    heavy: Vec<BackendIndex>,
}

impl<'m> Ring<'m> {
    /// Places `weight * 512 / 100` virtual nodes for each member. Names must be distinct.
    pub(super) fn new(key: HashKey, members: &[Member<'m>]) -> Self {
        let floors = TIER_CEILINGS.into_iter().skip(1).chain([0]);
        let tiers = TIER_CEILINGS.into_iter().zip(floors);
        Self {
            tiers: tiers
                .filter_map(|(ceiling, floor)| Tier::new(key, members, ceiling, floor))
                .collect(),
        }
    }

    /// Fills `found` with the first `count` distinct backends that serve a slot, the owner first;
    /// with all members if there are fewer.
    pub(super) fn candidates(&self, slot: Slot, count: usize, found: &mut Vec<BackendIndex>) {
        found.clear();
        for tier in &self.tiers {
            let mut heavy_left = tier.heavy.len();
            let mut walk = tier
                .ring
                .calc_candidates(&SlotPoint(slot))
                .map(|node| node.value);
            while heavy_left > 0
                && found.len() < count
                && let Some(backend) = walk.next()
            {
                if tier.heavy.contains(&backend) {
                    heavy_left -= 1;
                }
                if !found.contains(&backend) {
                    found.push(backend);
                }
            }
        }
    }
}

impl<'m> Tier<'m> {
    /// A ring of the members up to `ceiling`; those above `floor` are its heavy ones. `None` if
    /// there are none.
    fn new(key: HashKey, members: &[Member<'m>], ceiling: u32, floor: u32) -> Option<Self> {
        let heavy: Vec<BackendIndex> = members
            .iter()
            .filter(|member| member.weight > floor && member.weight <= ceiling)
            .map(|member| member.backend)
            .collect();
        if heavy.is_empty() {
            return None;
        }
        let nodes = members
            .iter()
            .filter(|member| member.weight <= ceiling)
            .map(|member| Node {
                key: NodeKey(member.name),
                value: member.backend,
                quantity: vnode_count(member.weight),
            });
        Some(Self {
            ring: StaticHashRing::new(KeyedHash(key), nodes),
            heavy,
        })
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
    fn tiers_give_the_order_of_one_ring_of_all_members() {
        let names: Vec<String> = (0..12).map(|i| format!("state-{i}")).collect();
        for weights in [
            [1, 1000, 1, 90, 7, 1000, 15, 16, 125, 126, 2, 300],
            [1; 12],
            [1000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 20, 1],
        ] {
            let members: Vec<Member<'_>> = (0..12)
                .map(|i| Member {
                    name: &names[i],
                    weight: weights[i],
                    backend: BackendIndex::new(i as u8),
                })
                .collect();
            let whole = Tier::new(HashKey::DEFAULT, &members, MAX_WEIGHT, 0).unwrap();
            let tiered = Ring::new(HashKey::DEFAULT, &members);
            let mut found = Vec::new();
            for slot in Slot::all().step_by(61) {
                let expected: Vec<BackendIndex> = whole
                    .ring
                    .calc_candidates(&SlotPoint(slot))
                    .map(|node| node.value)
                    .collect();
                tiered.candidates(slot, 12, &mut found);
                assert_eq!(found, expected, "{weights:?}, slot {slot}");
                tiered.candidates(slot, 8, &mut found);
                assert_eq!(found, expected[..8], "{weights:?}, slot {slot}");
            }
        }
    }

    #[test]
    fn virtual_nodes_follow_the_weight() {
        assert_eq!(vnode_count(1), 5);
        assert_eq!(vnode_count(100), 512);
        assert_eq!(vnode_count(150), 768);
        assert_eq!(vnode_count(1000), 5120);
    }
}
