//! Which server has which key.

use std::collections::HashMap;
use std::rc::Rc;

use super::key::SLOTS;
use super::node::EngineNode;
use super::reply::EngineReply;

/// The servers of an engine that take writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// One has all keys.
    One(Rc<EngineNode>),
    /// Each has some slots.
    Cluster(SlotMap),
}

impl Topology {
    /// Who has this slot.
    pub(super) fn owner(&self, slot: u16) -> Option<Rc<EngineNode>> {
        match self {
            Self::One(node) => Some(Rc::clone(node)),
            Self::Cluster(map) => map.owner(slot),
        }
    }

    /// All of them.
    pub(super) fn masters(&self) -> &[Rc<EngineNode>] {
        match self {
            Self::One(node) => std::slice::from_ref(node),
            Self::Cluster(map) => &map.nodes,
        }
    }

    /// Slots that nobody has.
    pub(super) fn unserved(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Cluster(map) => {
                let owners = map.owners.iter();
                owners.filter(|owner| **owner == NOBODY).count()
            }
        }
    }

    /// A server has said that this slot is somewhere else for good.
    pub(super) fn moved(&mut self, slot: u16, to: EngineNode) {
        match self {
            // What was one server has become a cluster: it is looked at anew.
            Self::One(_) => {}
            Self::Cluster(map) => map.set(slot, to),
        }
    }
}

/// The slots of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    nodes: Vec<Rc<EngineNode>>,
    /// Where each of them stands there.
    positions: HashMap<Rc<EngineNode>, u16>,
    /// For each slot the position of its owner in `nodes`; [`NOBODY`] for none.
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

/// More servers no Cluster has; what goes beyond has nobody.
const MAX_NODES: usize = 4096;

impl SlotMap {
    /// Reads the answer to CLUSTER SLOTS that `asked` gave.
    pub(super) fn read(answer: &EngineReply, asked: &EngineNode) -> Option<Self> {
        let mut map = Self {
            nodes: Vec::new(),
            positions: HashMap::new(),
            owners: vec![NOBODY; usize::from(SLOTS)].into_boxed_slice(),
        };
        let mut assigned = 0;
        for range in answer.list()? {
            let [first, last, master, ..] = range.list()? else {
                return None;
            };
            let [host, port, ..] = master.list()? else {
                return None;
            };
            // A server that does not know its own name leaves it out: it is the one that was asked.
            let host = match host.text() {
                None | Some("" | "?") => &asked.host,
                Some(host) => host,
            };
            let port = u16::try_from(port.number()?).ok()?;
            let (first, last) = (position(first)?, position(last)?);
            let node = map.position_of(EngineNode::new(host, port));
            let owners = map.owners.get_mut(first..=last)?;
            // No slot is in two ranges: what says so again and again is no map.
            assigned += owners.len();
            if assigned > usize::from(SLOTS) {
                return None;
            }
            owners.fill(node);
        }
        Some(map)
    }

    fn owner(&self, slot: u16) -> Option<Rc<EngineNode>> {
        let position = self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(*position)).cloned()
    }

    fn set(&mut self, slot: u16, node: EngineNode) {
        let position = self.position_of(node);
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = position;
        }
    }

    fn position_of(&mut self, node: EngineNode) -> u16 {
        if let Some(position) = self.positions.get(&node) {
            return *position;
        }
        match u16::try_from(self.nodes.len()) {
            Ok(position) if self.nodes.len() < MAX_NODES => {
                let node = Rc::new(node);
                self.nodes.push(Rc::clone(&node));
                self.positions.insert(node, position);
                position
            }
            _ => NOBODY,
        }
    }
}

fn position(slot: &EngineReply) -> Option<usize> {
    let slot = usize::try_from(slot.number()?).ok()?;
    (slot < usize::from(SLOTS)).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: impl IntoIterator<Item = EngineReply>) -> EngineReply {
        EngineReply::List(items.into_iter().collect())
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> EngineReply {
        let node = |port| {
            list([
                EngineReply::Bytes(host.as_bytes().to_vec()),
                EngineReply::Number(port),
                EngineReply::Bytes(b"id".to_vec()),
            ])
        };
        let (first, last) = (EngineReply::Number(first), EngineReply::Number(last));
        list([first, last, node(port), node(port + 1000)])
    }

    fn asked() -> EngineNode {
        EngineNode::new("10.0.0.9", 7009)
    }

    fn owner(map: &SlotMap, slot: u16) -> Option<String> {
        map.owner(slot).map(|node| node.to_string())
    }

    #[test]
    fn every_slot_has_the_owner_that_the_cluster_says() {
        let answer = list([
            range(0, 99, "10.0.0.1", 7001),
            range(200, 16383, "10.0.0.2", 7002),
            range(100, 149, "10.0.0.1", 7001),
        ]);
        let mut map = SlotMap::read(&answer, &asked()).unwrap();
        assert_eq!(map.nodes.len(), 2);
        for (slot, expected) in [
            (0, Some("10.0.0.1:7001")),
            (149, Some("10.0.0.1:7001")),
            (150, None),
            (16383, Some("10.0.0.2:7002")),
        ] {
            assert_eq!(owner(&map, slot).as_deref(), expected, "{slot}");
        }
        map.set(150, EngineNode::new("10.0.0.3", 7003));
        assert_eq!(owner(&map, 150).as_deref(), Some("10.0.0.3:7003"));
        assert_eq!(owner(&map, 149).as_deref(), Some("10.0.0.1:7001"));
    }

    #[test]
    fn more_servers_than_a_cluster_has_are_nobody() {
        let ranges = (0..16384).map(|slot| range(slot, slot, &format!("h{slot}"), 1));
        let map = SlotMap::read(&list(ranges), &asked()).unwrap();
        assert_eq!(map.nodes.len(), MAX_NODES);
        assert_eq!(owner(&map, 4095).as_deref(), Some("h4095:1"));
        assert_eq!(owner(&map, 4096), None);
    }

    #[test]
    fn a_server_without_a_name_is_the_one_that_was_asked() {
        for nameless in ["", "?"] {
            let answer = list([range(0, 16383, nameless, 7001)]);
            let map = SlotMap::read(&answer, &asked()).unwrap();
            assert_eq!(owner(&map, 5).as_deref(), Some("10.0.0.9:7001"));
        }
    }

    #[test]
    fn what_is_no_map_of_slots_is_refused() {
        for answer in [
            EngineReply::Nil,
            list([EngineReply::Number(3)]),
            list([range(0, 16384, "h", 1)]),
            list([range(-1, 5, "h", 1)]),
            list([range(9, 5, "h", 1)]),
            list([range(0, 5, "h", 65536)]),
            list([range(0, 16383, "h", 1), range(0, 0, "h", 1)]),
        ] {
            assert_eq!(SlotMap::read(&answer, &asked()), None, "{answer:?}");
        }
    }
}
