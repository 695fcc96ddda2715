//! The embedded state server: the wire protocol over [`crate::store`].
//!
//! One [`StateService`] runs on each worker; all of them share one store, whose shards carry their
//! own locks, so any worker serves any session.
//!
//! * `body_budget`: bodies that are still arriving, bounded over all workers.
//! * `clock`: the two times the store needs.
//! * `local`: the server in the process of those who ask it.
//! * `service`: one connection, request after request.

mod body_budget;
mod clock;
mod local;
mod service;

pub use body_budget::{BodyBudget, BudgetExceeded};
pub use clock::ServerClock;
pub use local::LocalStateServer;
pub use service::{StateOptions, StateService};
