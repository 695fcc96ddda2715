//! staterouter.
pub mod app;
pub mod backend;
pub mod cli;
pub mod config;
pub mod log;
pub mod net;
pub mod proxy;
pub mod route;
pub mod state_server;
pub mod store;
pub mod wire;
