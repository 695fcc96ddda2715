//! From a request target to a slot and its backends.

mod golden;
mod key;
mod placement;
