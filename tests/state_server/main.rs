//! The embedded state server over sockets.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod broken;
mod capture;
mod disk;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod server;
mod stores;
mod vectors;
