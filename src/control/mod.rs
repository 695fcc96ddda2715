//! What changes while the proxy runs: files, health, handovers.
//!
//! One thread decides. It feeds what happens to a pure state, puts what comes of it in force
//! (`in_force`), and shows it (`publisher`).
//!
//! * [`steps`]: what follows what.
//! * [`event_loop`]: the control thread; `reload` and `overrides` are what it does with other files
//!   and with orders.
//! * [`pool_state`]: the pool and what becomes of it, without sockets, files or clock;
//!   [`session_timeouts`]: how long an item may live.
//! * [`start`]: where control begins, from what is on disk.
//! * [`files`]: the two configuration files.
//! * [`peers`]: the other proxies.
//! * [`persist`]: what outlives a restart; `missed_deletes`: the deletes that backends have missed; `file_thread`: work on files that nobody waits for longer
//!   than a disk may take.
//! * [`copy_watch`]: what the data path has seen of the copies that replicas keep.
//! * [`probing`]: which backends answer, and where.
//! * [`report`]: what others are shown, as `publish` puts it together; [`handle`]: what they may ask.
//! * [`contents`]: looks into samples of session bodies, on a thread of its own.
//! * [`boot_moment`]: how long ago something was, after a restart, too; [`pulse`]: whether control goes
//!   on.

pub mod boot_moment;
pub mod contents;
pub mod copy_watch;
pub mod event_loop;
mod file_thread;
pub mod files;
pub mod handle;
mod in_force;
mod missed_deletes;
mod overrides;
pub mod peers;
pub mod persist;
pub mod pool_state;
pub mod probing;
mod publish;
mod publisher;
pub mod pulse;
mod reload;
pub mod report;
pub mod session_timeouts;
pub mod start;
pub mod steps;

pub use event_loop::{Control, RunningControl};
pub use probing::engines::MakeConnector;
pub use start::{ControlEnds, ControlError, ControlOptions, Prepared, last_map, prepare};
