//! What control has noticed and shows in no field of the status.

use super::finding::{Finding, Findings};
use super::lost::Lost;
use super::run::Control;

/// What is wrong beside what the status shows, and since when everything has been so.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub(super) since: Findings,
    pub(super) lost: Lost,
    /// Why the state file cannot be written, while that is so.
    pub(super) unwritten: Option<Unwritten>,
}

/// The state file cannot be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) error: String,
    /// When the log says so again.
    pub(super) repeat_ms: u64,
}

impl Control {
    /// Whoever keeps a fact that is a finding has a line here.
    pub(super) fn noticed(&self) -> Vec<Finding> {
        let now_ms = self.clock.now_ms();
        let mut found = Vec::new();
        let unwritten = self.noticed.unwritten.iter();
        found.extend(unwritten.map(|known| Finding::state_file_not_written(&known.error)));
        let faults = self.engine.server_faults(now_ms).into_iter();
        found
            .extend(faults.map(|(place, fault)| {
                Finding::backend_address(self.engine.name_of(place), &fault)
            }));
        let held_back = self.engine.held_back();
        found
            .extend(held_back.map(|(name, end_ms)| Finding::backend_held_back(name).until(end_ms)));
        let lost = &self.noticed.lost;
        let members = self.engine.members().iter();
        found.extend(
            members.filter_map(|member| lost.finding(member.place, &member.spec.name, now_ms)),
        );
        found
    }
}
