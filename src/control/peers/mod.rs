//! The other proxies.
//!
//! * [`report`]: what a proxy tells the others, and how that is read.
//! * `roster`: who they are, what each said last, and how long that counts.

pub mod report;
pub(crate) mod roster;
