//! A proxy that remembers nothing takes every slot to be where its peers have it: they know what has
//! become of the sessions, its map only where they are to go.

use std::sync::Arc;

use super::{Notice, PeerView, PoolState};
use crate::handover::schedule::Joined;

impl PoolState {
    /// Takes over where the peers that are heard have the slots, before anybody is served; what
    /// there is to say of it. From there they go on as the map and the peers want it.
    pub fn join_peers(&mut self, now_ms: u64) -> Vec<Notice> {
        let mut notices = self.join_servers(now_ms);
        let standings = self.standings();
        let is_known = |backend_id| !standings.get(backend_id).gone;
        let peers = self.peers_with_a_past();
        let mut taken_over = 0;
        for index in 0..self.slots.len() {
            let here = self.slots[index];
            let there = peers.iter().filter_map(|peer| {
                let there = *peer.slots.get(index)?;
                Joined::new(there, is_known, now_ms)
            });
            // Of several, the one that has been there longest has not begun anew itself.
            let Some(joined) = there.min_by_key(|joined| joined.since_ms) else {
                continue;
            };
            if here.second.is_none() && here.first != joined.slot.first {
                Arc::make_mut(&mut self.slots)[index] = joined.slot;
                taken_over += 1;
            }
        }
        notices.extend((taken_over > 0).then(|| Notice::joined(taken_over)));
        notices
    }

    /// Those that knew where some slot was before this proxy began.
    fn peers_with_a_past(&self) -> Vec<Arc<PeerView>> {
        let begun_ms = self.slots.iter().map(|slot| slot.since_ms).max();
        let has_past = |peer: &&Arc<PeerView>| {
            let since_ms = peer.slots.iter().map(|slot| slot.since_ms).min();
            since_ms < begun_ms
        };
        let heard = self.peers.iter().flatten();
        heard.filter(has_past).cloned().collect()
    }
}
