//! Where sessions live: the rules of the ASP.NET state server (protocol 5), the seam behind which
//! a store stands, and the store in memory.
//!
//! [`SessionStore::apply`] is the whole server: one [`SessionCommand`] on one key gives one
//! [`StoreOutcome`]. A command is parsed before any store sees it, so every store gets the same numbers
//! and none of them reads header values.
//!
//! Pure: no clock, no socket, no file, no task. The caller passes [`Now`] in. Stores that need
//! more than memory are modules of their own, above this one.
//!
//! * `command`: what is asked, parsed from the header values.
//! * `outcome`: what is answered, and what changed.
//! * `session_store`: the trait.
//! * `survey`: what a store says about what keeps its sessions.
//! * `memory`: [`MemoryStore`], for millions of items and all cores.

mod body;
mod budget;
mod change;
mod command;
mod item;
mod memory;
mod outcome;
mod session_store;
mod shard;
mod shard_entry;
mod survey;
mod wheel;

pub use body::Body;
pub use change::ItemChange;
pub use command::{BadHeader, LockCookie, SessionCommand, Timeout};
pub use item::{Item, ItemMarks, KeptItem, RestoredItem};
pub use memory::{MemoryStore, StoreOptions};
pub use outcome::{ItemSnapshot, Now, StoreOutcome, StoreRefusal};
pub use session_store::{CountedStore, SessionStore, StoreStats, SweepTurn};
pub use survey::{FullestServer, StoreDanger, StoreMemory, StoreSurvey};
