//! A pool of real processes: handover, failover, reload, orders.

#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/mod.rs"]
mod support;

mod a_lifetime;
mod accounting_end_to_end;
mod addresses;
mod admin_tls;
mod contents;
mod failover;
mod failover_end_to_end;
mod fresh_server;
mod outliving_sessions;
mod plan;
mod reload;
mod status;
mod steering;
mod tls;
mod waiting;
