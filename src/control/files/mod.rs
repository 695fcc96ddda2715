//! The two configuration files: when they change, and what they say.
//!
//! * [`watch`]: when a file has changed and is quiet again.
//! * `read`: reads and checks them, on a thread of its own.
//! * [`reloadable_keys`]: which keys take effect at once.

pub(crate) mod read;
pub mod reloadable_keys;
pub mod watch;
