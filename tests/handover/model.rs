//! Visits every state of small worlds in which the real decisions run, and holds what a client may
//! rely on in each of them. `docs/handover-proof.md` says what is run and what was found.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a world that does not fit the model must fail the test; runs say what they visited"
)]

mod backend;
mod broken;
mod check;
mod config;
mod copied;
mod copied_broken;
mod copies;
mod driver;
mod known;
mod larger;
mod legs;
mod machine;
mod runs;
mod state;
