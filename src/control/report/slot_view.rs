//! Where one session is: `GET /route?id=ID`.

use serde::Serialize;

use crate::config::{self, SentOn};
use crate::control::persist::slot_groups::StageName;
use crate::control::pool_state::PoolState;
use crate::handover::{BackendId, Stage};

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
    /// The application of the map that it belongs to; `null` if it belongs to none, and if only its id
    /// is known.
    pub application: Option<ApplicationView>,
}

/// An application, and under which id state servers know its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplicationView {
    /// Its name in the partition map.
    pub name: String,
    /// What the requests have in front of the session id when they are sent on: the application's id
    /// and its hash; `null` if that is what came.
    pub sent_on_as: Option<String>,
}

impl From<SentOn> for ApplicationView {
    fn from(sent_on: SentOn) -> Self {
        Self {
            name: sent_on.name,
            sent_on_as: sent_on.renamed_to,
        }
    }
}

/// Where the session with these id bytes is. `target` is what was asked for: its id, or a whole request
/// target.
pub fn slot_view(pool_state: &PoolState, target: &[u8], session_id: &[u8]) -> SlotView {
    let applications = &pool_state.map().applications;
    let located = pool_state.map().hash_key.locate(session_id);
    let state = pool_state.slots()[located.slot.index()];
    let name = |backend_id: BackendId| pool_state.name_of(backend_id).to_owned();
    SlotView {
        fingerprint: located.fingerprint.to_string(),
        slot: located.slot.index(),
        candidates: pool_state.candidates(located.slot).map(name).collect(),
        stage: state.stage,
        first: name(state.first),
        second: state.second.map(name),
        since_ms: state.since_ms,
        application: config::sent_on(applications, target).map(ApplicationView::from),
    }
}
