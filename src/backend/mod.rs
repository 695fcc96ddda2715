//! Connections to the state servers.
//!
//! * [`pool`]: the connections of one worker to one backend: idle ones, last in first out, and new
//!   ones within their time limit.
//! * [`probe`]: asks a backend whether it answers as a state server does.
//! * `resolve`: host names, one lookup at a time.

pub mod pool;
pub mod probe;
mod resolve;

pub use pool::{ConnectError, Pool, PoolLimits};
pub use probe::{ProbeError, Prober};
