//! Where one session is: `GET /route?id=ID`.

use serde::Serialize;

use super::engine::Engine;
use super::slot_groups::StageName;
use crate::handover::{Place, Stage};

/// Where a session is now, and where it could be. Names are those of backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotView {
    /// How logs name the session.
    pub fingerprint: String,
    /// Its slot.
    pub slot: usize,
    /// The backends that serve the slot by the partition map, in order: the owner, then those that
    /// stand in for it.
    pub candidates: Vec<String>,
    /// What is going on in the slot.
    #[serde(with = "StageName")]
    pub stage: Stage,
    /// The place that is asked first.
    pub first: String,
    /// Where the session may be as well; `null` while the slot is steady.
    pub second: Option<String>,
    /// When the stage began, Unix time in milliseconds.
    pub since_ms: u64,
}

/// Where the session with these id bytes is.
pub fn slot_view(engine: &Engine, session_id: &[u8]) -> SlotView {
    let located = engine.map().hash_key.locate(session_id);
    let state = engine.slots()[located.slot.index()];
    let name = |place: Place| engine.name_of(place).to_owned();
    SlotView {
        fingerprint: located.fingerprint.to_string(),
        slot: located.slot.index(),
        candidates: engine.candidates(located.slot).map(name).collect(),
        stage: state.stage,
        first: name(state.first),
        second: state.second.map(name),
        since_ms: state.since_ms,
    }
}
