//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`engine`]: the pool and what becomes of it.
//! * [`handle`]: what others may ask, and what is published for them.
//! * [`memory`]: what is remembered over a restart.
//! * [`owed`]: removals that a server out of reach has missed.
//! * [`probes`]: one task per backend that asks whether it is there.
//! * [`slot_groups`]: the states of all slots, written down.
//! * [`state_file`]: the memory on disk.
//! * [`status`]: what the proxy says about itself.
//! * [`watch`]: notices that a file may have changed.

pub mod engine;
pub mod handle;
pub mod memory;
pub mod owed;
pub mod probes;
pub mod slot_groups;
pub mod state_file;
pub mod status;
pub mod watch;
