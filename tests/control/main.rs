//! What control decides and reports, without a socket.

mod plan_report;
mod pool_state;
mod pool_state_peers;
mod pool_state_servers;
mod status;
mod steps;
mod usage;
