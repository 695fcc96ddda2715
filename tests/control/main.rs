//! What control decides and reports, without a socket.

mod account;
mod engine;
mod engine_peers;
mod plan_report;
mod status;
