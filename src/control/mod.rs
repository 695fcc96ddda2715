//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`engine`]: the pool and what becomes of it.
//! * [`handle`]: what others may ask, and what is published for them.
//! * [`memory`]: what is remembered over a restart.
//! * [`probes`]: one task per backend that asks whether it is there.
//! * [`status`]: what the proxy says about itself.
//! * [`watch`]: notices that a file may have changed.

pub mod engine;
pub mod handle;
pub mod memory;
pub mod probes;
pub mod status;
pub mod watch;
