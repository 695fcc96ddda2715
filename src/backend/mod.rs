//! Connections to the state servers.
//!
//! * `asker`: requests outside of the workers.
//! * `connector`: the way to one server, a socket or memory.
//! * [`dial`]: connections outside of any pool, for what is asked rarely.
//! * [`pool`]: the connections of one worker to one backend: idle ones, last in first out, and new
//!   ones within their time limit.
//! * [`probe`]: asks a backend whether it answers as a state server does.
//! * [`removal`]: removes items from a backend that missed their removal.
//! * [`upstream`]: the one way to ask a server.
//! * [`resolve`]: host names, one lookup at a time.

mod asker;
mod connector;
pub mod dial;
pub mod pool;
pub mod probe;
pub mod removal;
pub mod resolve;
pub mod upstream;

pub use asker::{AskError, unfit_failure};
pub use connector::{ConnectError, Connector, LocalServer, TlsServer};
pub use dial::Dialer;
pub use pool::{ConnectionPool, PoolLimits};
pub use probe::{PROBE_TARGET, PROXY_ANSWER, ProbeError, Prober};
pub use removal::{RemoveError, Remover};
pub use resolve::Resolver;
pub use upstream::{AskFailed, AskLimits, BodyStream, Broken, BrokenReason, Left, RequestContent};
pub use upstream::{Outgoing, Reply, RetryPolicy, Unsent, Upstream};
