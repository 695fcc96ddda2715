//! Overrides: what an operator decides about a backend without changing the partition map. All
//! proxies of a farm go by the newest decision about each backend.

use super::accept::{Accepted, MapChange};
use super::membership::MAX_AHEAD;
use super::persisted_state::Decision;
use super::{PoolState, Refused};
use crate::config::BackendState;

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
    /// No other proxy has to be waited for: those that do not answer serve nobody.
    pub is_only_here: bool,
    /// Its server holds nothing from before: it was started empty, or is another one.
    pub is_fresh: bool,
}

/// A state that a backend has by an operator's order, whatever the partition map says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The backend's name.
    pub backend: String,
    /// Its state.
    pub state: BackendState,
    /// When the order came, Unix time in milliseconds.
    pub since_ms: u64,
}

impl PoolState {
    /// The overrides in force, in the order of their backends' names.
    pub fn overrides(&self) -> Vec<Override> {
        let decisions = self.decisions.iter();
        let in_force = decisions.filter(|decision| !decision.is_withdrawn);
        in_force
            .map(|decision| Override {
                backend: decision.backend.clone(),
                state: decision.state,
                since_ms: decision.since_ms,
            })
            .collect()
    }

    /// What operators have decided about backends, withdrawn or not, by name.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Overrides what the map says of a backend, or takes its override away where the map says what
    /// is wanted; `None` if nothing changes by that. Other proxies take that over from this one.
    ///
    /// # Errors
    /// [`Refused`], with nothing changed.
    pub fn steer(&mut self, order: &Order, now_ms: u64) -> Result<Option<Accepted>, Refused> {
        let Some(decisions) = self.decisions_with(order, now_ms)? else {
            return Ok(None);
        };
        if !order.is_only_here {
            self.check_agreement()?;
        }
        let change = self.change(self.map.clone(), decisions)?;
        self.check_share_of_order(order, &change)?;
        Ok(Some(self.put(change, now_ms)))
    }

    /// The decisions that would be in force with `order`; `None` if it changes nothing.
    pub(super) fn decisions_with(
        &self,
        order: &Order,
        now_ms: u64,
    ) -> Result<Option<Vec<Decision>>, Refused> {
        let Some(in_map) = self.state_in_map(&order.backend) else {
            let name = order.backend.clone();
            return Err(Refused::UnknownBackend { name });
        };
        let known = self.decision_about(&order.backend);
        let overriding = known.filter(|known| !known.is_withdrawn);
        let state = overriding.map_or(in_map, |known| known.state);
        let is_insisted = overriding.is_none_or(|known| known.is_only_here);
        let is_fresh = order.is_fresh && self.is_held_back_anywhere(&order.backend);
        if is_fresh {
            self.check_is_left(&order.backend)?;
        }
        if state == order.state && (!order.is_only_here || is_insisted) && !is_fresh {
            return Ok(None);
        }
        // What it holds once it is given up again is not.
        let fresh_ms = known.and_then(|known| known.fresh_ms);
        let fresh_ms = fresh_ms.filter(|_| order.state != BackendState::Off);
        let mut decisions = self.decisions.clone();
        put(
            &mut decisions,
            Decision {
                backend: order.backend.clone(),
                state: order.state,
                is_withdrawn: order.state == in_map,
                epoch: self.next_epoch(),
                since_ms: now_ms,
                is_only_here: order.is_only_here,
                fresh_ms: if is_fresh { Some(now_ms) } else { fresh_ms },
            },
        );
        Ok(Some(decisions))
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

    /// Takes over what has been decided at other proxies since; `None` if there is nothing new.
    /// Decisions go with a map: those of a proxy with another one wait.
    pub fn adopt_decisions(&mut self, now_ms: u64) -> Option<Accepted> {
        let mut decisions = self.decisions.clone();
        let mut peers = self.peers.iter().flatten();
        let heard = peers
            .by_ref()
            .filter(|peer| peer.map_version == self.map.version);
        for heard in heard.flat_map(|peer| &peer.decisions) {
            let Some(in_map) = self.state_in_map(&heard.backend) else {
                continue;
            };
            let adopted = Decision {
                is_withdrawn: heard.is_withdrawn || heard.state == in_map,
                since_ms: now_ms,
                is_only_here: false,
                ..heard.clone()
            };
            let mut known = decisions.iter();
            let known = known.find(|known| known.backend == heard.backend);
            // Compared as it counts here: two maps of one version may differ by mistake, and the same
            // decision would be news with every look otherwise.
            let is_news = known.is_none_or(|known| adopted.is_newer_than(known));
            if is_news && self.is_count(heard.epoch) {
                put(&mut decisions, adopted);
            }
        }
        if decisions == self.decisions {
            return None;
        }
        // What leaves no backend stays as it is, and both proxies say that they differ.
        let change = self.change(self.map.clone(), decisions).ok()?;
        Some(self.put(change, now_ms))
    }

    /// Every other proxy says that it goes by the same map: it takes over what is decided here.
    fn check_agreement(&self) -> Result<(), Refused> {
        let version = self.map.version;
        for (address, position) in self.config.peers.iter().zip(&self.peer_positions) {
            // The address may be this proxy's own.
            let Some(peer) = position.and_then(|position| self.peers.get(position)) else {
                continue;
            };
            let problem = match peer {
                None => "does not answer".to_owned(),
                Some(peer) if peer.map_version != version => format!(
                    "has version {} of the partition map and this one has {version}",
                    peer.map_version
                ),
                Some(_) => continue,
            };
            let peer = address.clone();
            return Err(Refused::NotAgreed { peer, problem });
        }
        Ok(())
    }

    fn state_in_map(&self, backend: &str) -> Option<BackendState> {
        let mut backends = self.map.backends.iter();
        let spec = backends.find(|spec| spec.name == backend)?;
        Some(spec.state)
    }

    fn decision_about(&self, backend: &str) -> Option<&Decision> {
        let mut decisions = self.decisions.iter();
        decisions.find(|known| known.backend == backend)
    }

    /// Beyond every decision that any proxy has said to know.
    fn next_epoch(&self) -> u64 {
        let heard = self.peers.iter().flatten().flat_map(|peer| &peer.decisions);
        let heard = heard.filter(|heard| self.is_count(heard.epoch));
        let known = self.decisions.iter().chain(heard).map(|known| known.epoch);
        known.max().unwrap_or(0).saturating_add(1)
    }

    /// Whether a peer's epoch can be a count of orders.
    fn is_count(&self, epoch: u64) -> bool {
        let own = self.decisions.iter().map(|known| known.epoch);
        epoch <= own.max().unwrap_or(0).saturating_add(MAX_AHEAD)
    }
}

/// Puts a decision in the place of the one about the same backend.
fn put(decisions: &mut Vec<Decision>, decision: Decision) {
    decisions.retain(|known| known.backend != decision.backend);
    decisions.push(decision);
    decisions.sort_unstable_by(|a, b| a.backend.cmp(&b.backend));
}
