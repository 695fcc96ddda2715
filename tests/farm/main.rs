//! The simulated web farm and its account.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod checker;
