//! What the admin server counts.

use super::counter::Counter;
use super::labels::AdminRefusal;

/// Requests that the admin server refused, by reason. Only its thread writes here.
#[derive(Debug, Default)]
pub struct AdminRefusals([Counter; AdminRefusal::ALL.len()]);

impl AdminRefusals {
    /// Counts one more.
    pub fn add(&self, reason: AdminRefusal) {
        self.0[reason as usize].increment();
    }

    /// How many there were.
    pub fn get(&self, reason: AdminRefusal) -> u64 {
        self.0[reason as usize].get()
    }
}
