//! A pool of real processes: handover, failover, reload, orders.

#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/mod.rs"]
mod support;

/// Tests that last as long as a session lives, or longer. Tests begin in the order of their names:
/// these first, beside whom the others find room.
mod a_lifetime {
    #[path = "../giving_up.rs"]
    mod giving_up;
    #[path = "../gone_proxy.rs"]
    mod gone_proxy;
    #[path = "../handover_end_to_end.rs"]
    mod handover_end_to_end;
    #[path = "../onto_redis.rs"]
    mod onto_redis;
    #[path = "../refused_moves.rs"]
    mod refused_moves;
    #[path = "../replicas.rs"]
    mod replicas;
}
mod accounting_end_to_end;
mod addresses;
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
