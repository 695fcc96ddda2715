//! The data path: one request of a web server, routed, forwarded, answered.
//!
//! * [`snapshot`]: everything a request needs to know, immutable, swapped as a whole.
//! * [`service`]: one worker's side of it: the view with its pools, logging.
//! * `client`: one client connection, request after request.
//! * `exchange`: one request against one backend, with the retry rules.
//! * `orphan`: gives back the locks of clients that never learned of them.
//!
//! Architecture invariant: nothing here makes up an answer but the 400 for bytes that cannot be
//! framed. A backend that fails costs the client its connection, never a 404 or 5xx.

mod client;
mod error;
mod exchange;
mod orphan;
pub mod service;
pub mod snapshot;

pub use service::{ProxyService, SharedSnapshot, share};
pub use snapshot::{Backend, Snapshot};
