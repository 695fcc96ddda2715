//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`handle`]: what others may ask, and what is published for them.
//! * [`status`]: what the proxy says about itself.
//! * [`watch`]: notices that a file may have changed.

pub mod handle;
pub mod status;
pub mod watch;
