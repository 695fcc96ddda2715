//! Sessions that outlive the process: the store in memory, and a log of its changes in a folder.
//!
//! ```text
//!   worker: apply ── MemoryStore ── what changed ──> journal (a queue, in the order of the changes)
//!                                                       |
//!   worker: answer <── committed ── writer (a thread) ──┘── SessionLog ──> sessions-00000007.log ...
//! ```
//!
//! All reads are served from memory. A write is answered once the log has it: by [`SyncMode`], the
//! file or the disk. The log is cut into segments; the oldest is copied on and removed when less
//! than half of the log is in use, so that its size follows that of the sessions.
//!
//! * `directory`: the files, behind a trait, so that tests can cut the power.
//! * `record`: what a record looks like, and when it is whole.
//! * `segment`: reading a segment, and telling a torn end from damage.
//! * `log`: appending, syncing, cleaning up.
//! * `load`: from the folder into memory.
//! * `journal`: between the workers and the writer.
//! * `waiting`: those who wait for the writer, of whom it wakes one a thread.
//! * `writer`: the thread that writes.
//! * `store`: [`DiskStore`], which holds it all.

mod directory;
mod error;
mod figures;
mod journal;
mod load;
mod log;
mod options;
mod record;
mod segment;
mod store;
mod waiting;
mod writer;

pub use directory::{Directory, Folder, LogFile};
pub use error::DiskError;
pub use journal::DiskState;
pub use options::{DiskOptions, SyncMode};
pub use store::{DiskStats, DiskStore};
