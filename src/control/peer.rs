//! What proxies of one farm tell each other: `GET /peer`.
//!
//! Nobody goes on alone: a proxy takes a slot to its next stage only when every peer says that it
//! has followed so far.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::engine::PeerView;
use super::slot_groups::{GroupError, SlotGroup, group, ungroup};
use crate::handover::{Before, Place, SlotState};

/// What a proxy tells of itself, as it is in force.
#[derive(Debug, Clone)]
pub struct PeerState {
    /// Drawn anew at every start, 16 hexadecimal digits.
    pub instance: String,
    /// Version of the partition map.
    pub map_version: u64,
    /// The backends that answer.
    pub up: Vec<Place>,
    /// Every slot, in order.
    pub slots: Arc<[SlotState]>,
    /// The clock that their times are of.
    pub clock: Clock,
}

/// The JSON on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    instance: String,
    map_version: u64,
    /// The sender's time, Unix time in milliseconds: the clocks of two machines need not agree.
    now_ms: u64,
    /// Ids of the backends that answer.
    up: Vec<u8>,
    slots: Vec<SlotGroup>,
}

/// Why a peer's answer is no report.
#[derive(Debug, thiserror::Error)]
pub enum PeerReportError {
    /// The peer sent something else.
    #[error("it sent no report of a proxy: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The peer sent slots that cannot be.
    #[error("it sent no report of a proxy: {0}")]
    Slots(#[from] GroupError),
    /// The address in the main file is our own.
    #[error("it is this proxy itself: take it out of the peers")]
    Itself,
}

impl PeerState {
    /// What to send now.
    pub fn report(&self) -> PeerReport {
        PeerReport {
            instance: self.instance.clone(),
            map_version: self.map_version,
            now_ms: self.clock.now_ms(),
            up: self.up.iter().map(|place| place.id()).collect(),
            slots: group(&self.slots),
        }
    }
}

/// Reads what a peer has sent, which arrived at `now_ms` at the proxy `own_instance`. Fields that a
/// later version may add are skipped.
///
/// # Errors
/// [`PeerReportError`].
pub fn read(body: &[u8], own_instance: &str, now_ms: u64) -> Result<PeerView, PeerReportError> {
    let report: PeerReport = serde_json::from_slice(body)?;
    if report.instance == own_instance {
        return Err(PeerReportError::Itself);
    }
    // What was under way for a while looks younger than it is, and everybody waits a little longer.
    let here = |at_ms: u64| now_ms.saturating_sub(report.now_ms.saturating_sub(at_ms));
    let mut slots = ungroup(&report.slots)?;
    for slot in &mut slots {
        slot.since_ms = here(slot.since_ms);
        slot.before = slot.before.map(|before| Before {
            since_ms: here(before.since_ms),
            ..before
        });
    }
    Ok(PeerView {
        map_version: report.map_version,
        slots,
        up: report.up.into_iter().filter_map(Place::new).collect(),
        heard_ms: now_ms,
    })
}
