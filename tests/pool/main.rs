//! A pool of real processes: handover, failover, reload, orders.

#[path = "../support/mod.rs"]
mod support;

mod accounting_end_to_end;
mod addresses;
mod contents;
mod failover;
mod failover_end_to_end;
mod fresh_server;
mod giving_up;
mod gone_proxy;
mod handover_end_to_end;
mod outliving_sessions;
mod plan;
mod refused_moves;
mod reload;
mod replicas;
mod status;
mod steering;
mod tls;
mod waiting;
