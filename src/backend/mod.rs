//! Connections to the state servers.
//!
//! * [`pool`]: the connections of one worker to one backend: idle ones, last in first out, and new
//!   ones within their time limit.
//! * `resolve`: host names, one lookup at a time.

pub mod pool;
mod resolve;

pub use pool::{ConnectError, Pool, PoolLimits};
