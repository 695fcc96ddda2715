//! staterouter.
pub mod config;
pub mod route;
pub mod store;
pub mod wire;
