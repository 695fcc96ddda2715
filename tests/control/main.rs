//! What control decides and reports, without a socket.

mod account;
mod engine;
mod engine_peers;
mod engine_servers;
mod plan_report;
mod status;
