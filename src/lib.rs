//! staterouter.
pub mod config;
pub mod net;
pub mod route;
pub mod store;
pub mod wire;
