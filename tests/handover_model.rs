//! Visits every state of small worlds in which the real decisions run, and holds what a client may
//! rely on in each of them. `docs/handover-proof.md` says what is run and what was found.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a world that does not fit the model must fail the test; runs say what they visited"
)]

#[path = "handover_model/backend.rs"]
mod backend;
#[path = "handover_model/broken.rs"]
mod broken;
#[path = "handover_model/check.rs"]
mod check;
#[path = "handover_model/config.rs"]
mod config;
#[path = "handover_model/driver.rs"]
mod driver;
#[path = "handover_model/known.rs"]
mod known;
#[path = "handover_model/larger.rs"]
mod larger;
#[path = "handover_model/legs.rs"]
mod legs;
#[path = "handover_model/model.rs"]
mod model;
#[path = "handover_model/runs.rs"]
mod runs;
#[path = "handover_model/state.rs"]
mod state;
