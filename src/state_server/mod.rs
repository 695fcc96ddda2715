//! The embedded state server: the wire protocol over [`crate::store`].
//!
//! One [`StateService`] runs on each worker; all of them share one store, whose shards carry their
//! own locks, so any worker serves any session.
//!
//! * `clock`: the two times the store needs.
//! * `service`: one connection, request after request.

mod clock;
mod service;

pub use clock::Clock;
pub use service::{StateOptions, StateService};
