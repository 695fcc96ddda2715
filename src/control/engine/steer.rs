//! Overrides: what an operator decides about a backend without changing the partition map.

use super::accept::{Accepted, MapChange};
use super::{Engine, Refused};
use crate::config::{BackendState, PartitionMap};
use crate::control::memory::Override;

/// What an operator wants of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name.
    pub backend: String,
    /// The state it is to have, whatever the map says.
    pub state: BackendState,
    /// Percent of the slots that this may move, where it is more than
    /// [`HandoverConfig::max_moved_percent`](crate::config::HandoverConfig::max_moved_percent).
    pub accept_moved_percent: Option<u8>,
}

impl Engine {
    /// The overrides in force, in the order of their backends' names.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// Overrides what the map says of a backend, or takes its override away where the map says what
    /// is wanted; `None` if nothing changes by that.
    ///
    /// # Errors
    /// [`Refused`], with nothing changed.
    pub fn steer(&mut self, order: &Order, now_ms: u64) -> Result<Option<Accepted>, Refused> {
        let overrides = self.overrides_with(order, now_ms)?;
        if says_the_same(&overrides, &self.overrides) {
            return Ok(None);
        }
        let change = self.change(self.map.clone(), overrides)?;
        self.check_share_of_order(order, &change)?;
        Ok(Some(self.put(change, now_ms)))
    }

    /// The overrides that would be in force with `order`.
    pub(super) fn overrides_with(
        &self,
        order: &Order,
        now_ms: u64,
    ) -> Result<Vec<Override>, Refused> {
        let backends = self.map.backends.iter();
        let in_map = backends
            .filter(|spec| spec.name == order.backend)
            .map(|spec| spec.state)
            .next();
        let Some(in_map) = in_map else {
            let name = order.backend.clone();
            return Err(Refused::UnknownBackend { name });
        };
        let mut overrides = self.overrides.clone();
        overrides.retain(|known| known.backend != order.backend);
        if order.state != in_map {
            overrides.push(Override {
                backend: order.backend.clone(),
                state: order.state,
                since_ms: now_ms,
            });
        }
        overrides.sort_unstable_by(|a, b| a.backend.cmp(&b.backend));
        Ok(overrides)
    }

    pub(super) fn check_share_of_order(
        &self,
        order: &Order,
        change: &MapChange,
    ) -> Result<(), Refused> {
        let max_percent = self.config.handover.max_moved_percent;
        let max_percent = max_percent.max(order.accept_moved_percent.unwrap_or(0));
        let percent = change.moved_percent();
        if percent > usize::from(max_percent) {
            return Err(Refused::OverrideMovesTooMuch {
                name: order.backend.clone(),
                percent,
                max_percent: max_percent.into(),
            });
        }
        Ok(())
    }
}

/// Whether both leave every backend in the same state.
pub(super) fn says_the_same(some: &[Override], others: &[Override]) -> bool {
    let content = |known: &Override| (known.backend.clone(), known.state);
    some.iter().map(content).eq(others.iter().map(content))
}

/// Those of `overrides` that `map` does not make needless: it has the backend, and says something
/// else of it.
pub(super) fn still_needed(overrides: &[Override], map: &PartitionMap) -> Vec<Override> {
    let is_needed = |known: &&Override| {
        let mut backends = map.backends.iter();
        backends.any(|spec| spec.name == known.backend && spec.state != known.state)
    };
    overrides.iter().filter(is_needed).cloned().collect()
}

/// `map` with the states that `overrides` give.
pub(super) fn overridden(map: &PartitionMap, overrides: &[Override]) -> PartitionMap {
    let mut map = map.clone();
    for known in overrides {
        let mut backends = map.backends.iter_mut();
        if let Some(spec) = backends.find(|spec| spec.name == known.backend) {
            spec.state = known.state;
        }
    }
    map
}
