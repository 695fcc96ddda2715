//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`handle`]: what others may ask, and what is published for them.
//! * [`probes`]: one task per backend that asks whether it is there.
//! * [`status`]: what the proxy says about itself.
//! * [`watch`]: notices that a file may have changed.

pub mod handle;
pub mod probes;
pub mod status;
pub mod watch;
