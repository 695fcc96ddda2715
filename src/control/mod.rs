//! What changes while the proxy runs: files, health, handovers.
//!
//! * [`engine`]: the pool and what becomes of it.
//! * [`start`]: where control begins, from what is on disk.
//! * [`run`]: the control thread; `reload`, `steer`, `replay` and `peers` are parts of it.
//! * [`handle`], [`status`], [`peer`]: what others may ask, and what they are told; `view` and
//!   `under_way` write it down.
//! * [`finding`]: what is wrong, in words; `diagnosis` reads it from what is published, `noticed`
//!   has the rest.
//! * [`history`]: what has happened in the last minutes; `lost`: which sessions users have lost.
//! * [`memory`], [`slot_groups`], [`state_file`], [`owed`]: what is remembered over a restart;
//!   [`state_lock`]: by one proxy.
//! * [`watch`], [`live`]: files that change, and which of their keys take effect at once; `files`
//!   reads them, on a thread of its own.
//! * `file_thread`, `state_writer`: writing without waiting for a disk that hangs; [`pulse`]:
//!   whether control goes on.
//! * [`probes`]: one task per backend that asks whether it is there; `burst` tells which failed
//!   requests count beside them.
//! * `accounting`: how many sessions are where, and when a backend is full.
//! * [`plan`]: what a new map would do; [`suggest`]: which pool
//!   would be large enough; [`slot_view`]: where a session is; [`load`]: what the backends hold.
//! * [`clock`]: the time that everything here goes by.

mod accounting;
mod burst;
pub mod clock;
mod diagnosis;
pub mod engine;
mod file_thread;
mod files;
pub mod finding;
pub mod handle;
pub mod history;
pub mod live;
pub mod load;
mod lost;
pub mod memory;
mod names;
mod noticed;
pub mod owed;
pub mod peer;
mod peers;
pub mod plan;
pub mod probes;
pub mod pulse;
mod reload;
mod replay;
pub mod run;
pub mod slot_groups;
pub mod slot_view;
pub mod start;
pub mod state_file;
pub mod state_lock;
mod state_writer;
pub mod status;
mod steer;
pub mod suggest;
pub mod timeouts;
mod under_way;
mod view;
pub mod watch;

pub use run::{Control, RunningControl};
pub use start::{ControlEnds, ControlError, ControlOptions, Prepared, last_map, prepare};
