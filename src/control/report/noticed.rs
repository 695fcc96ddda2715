//! What control has noticed and shows in no field of the status.

use std::collections::HashMap;

use super::finding::{Finding, Findings};
use super::pauses::Pauses;
use super::recent_counts::RecentCounts;
use super::shared_ids::SharedIds;
use super::web_farm::WebFarm;
use crate::control::pool_state::PoolState;
use crate::handover::BackendId;
use crate::store::StoreSurvey;
use crate::tls::TlsWatch;

/// What is wrong beside what the status shows, and since when everything has been so.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    pub(crate) since: Findings,
    /// Requests that found no session because its backend was away.
    pub(crate) lost: RecentCounts,
    /// Sessions that their backend had lost, and that were stored there anew from their copies.
    pub(crate) restored: RecentCounts,
    pub(crate) pauses: Pauses,
    /// Why the state file cannot be written, while that is so.
    pub(crate) unwritten: Option<Unwritten>,
    /// The certificates that this proxy shows and trusts.
    pub(crate) certificates: TlsWatch,
    /// What the engines say of themselves.
    pub(crate) engines: HashMap<BackendId, StoreSurvey>,
    /// Applications that web servers call by different ids.
    pub(crate) shared_ids: SharedIds,
    /// What requests have shown of the web servers.
    pub(crate) web_farm: WebFarm,
}

/// The state file cannot be written.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) error: String,
    /// When the log says so again.
    pub(crate) repeat_ms: u64,
}

impl Noticed {
    /// Whoever keeps a fact that is a finding has a line here.
    pub(crate) fn findings(&self, pool_state: &PoolState, now_ms: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        let unwritten = self.unwritten.iter();
        found.extend(unwritten.map(|known| Finding::state_file_not_written(&known.error)));
        let faults = pool_state.server_faults(now_ms).into_iter();
        found.extend(faults.map(|(backend_id, fault)| {
            Finding::backend_address(pool_state.name_of(backend_id), &fault)
        }));
        for member in pool_state.members() {
            let engine = self.engines.get(&member.backend_id);
            let dangers = engine.iter().flat_map(|engine| &engine.dangers);
            let name = &member.spec.name;
            found.extend(dangers.map(|danger| Finding::engine_danger(name, danger)));
            let fullest = engine.and_then(|engine| engine.fullest.as_ref());
            found.extend(fullest.and_then(|fullest| Finding::engine_memory(name, fullest)));
        }
        let held_back = pool_state.held_back();
        found
            .extend(held_back.map(|(name, end_ms)| Finding::backend_held_back(name).until(end_ms)));
        let certificates = self.certificates.states();
        let certificates = certificates.iter();
        found.extend(certificates.flat_map(|state| Finding::of_certificate(state, now_ms)));
        let outlives = pool_state.outlives_handovers();
        let longest = pool_state.config().handover.max_session_timeout;
        found.extend(outlives.map(|minutes| Finding::sessions_outlive_handovers(minutes, longest)));
        found.extend(self.shared_ids.findings(now_ms));
        found.extend(self.web_farm.findings(pool_state.config(), now_ms));
        let members = pool_state.members().iter();
        for member in members {
            let (backend_id, name) = (member.backend_id, &member.spec.name);
            let lost = self.lost.shown(backend_id, now_ms);
            let restored = self.restored.shown(backend_id, now_ms);
            found.extend(lost.map(|(requests, since_ms)| {
                Finding::sessions_lost(name, requests).since(since_ms)
            }));
            found.extend(restored.map(|(sessions, since_ms)| {
                Finding::sessions_restored(name, sessions).since(since_ms)
            }));
        }
        found
    }
}
