//! Connections to the state servers.
//!
//! * [`mod@connect`]: a new connection within its time limit.
//! * [`pool`]: idle connections of one worker to one backend, last in first out.

pub mod connect;
pub mod pool;

pub use connect::{ConnectError, connect};
pub use pool::{Pool, PoolLimits};
