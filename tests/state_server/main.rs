//! The embedded state server over sockets.

#[path = "../support/mod.rs"]
mod support;

mod server;
mod vectors;
