//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`watch`]: notices that a file may have changed.

pub mod watch;
