//! Orders of operators beside a partition map.

use super::persisted_state::Decision;
use crate::config::PartitionMap;

/// What of `decisions` is left under `map`: none about a backend that it does not have, and those
/// are withdrawn that say what it says itself.
pub(super) fn still_needed(decisions: &[Decision], map: &PartitionMap) -> Vec<Decision> {
    let under_map = |known: &Decision| {
        let mut backends = map.backends.iter();
        let spec = backends.find(|spec| spec.name == known.backend)?;
        let ends = !known.is_withdrawn && spec.state == known.state;
        Some(Decision {
            is_withdrawn: known.is_withdrawn || ends,
            // A proxy that has missed this map takes that over, too.
            epoch: known.epoch.saturating_add(u64::from(ends)),
            ..known.clone()
        })
    };
    decisions.iter().filter_map(under_map).collect()
}

/// `map` with the states that `decisions` give.
pub(super) fn overridden(map: &PartitionMap, decisions: &[Decision]) -> PartitionMap {
    let mut map = map.clone();
    for known in decisions.iter().filter(|known| !known.is_withdrawn) {
        let mut backends = map.backends.iter_mut();
        if let Some(spec) = backends.find(|spec| spec.name == known.backend) {
            spec.state = known.state;
        }
    }
    map
}
