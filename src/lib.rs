//! staterouter.
pub mod cli;
pub mod config;
pub mod farm;
pub mod route;
pub mod store;
pub mod wire;
