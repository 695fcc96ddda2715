//! Backends on a real Redis, served by the proxy itself.

#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/mod.rs"]
mod support;

mod balancer;
mod cluster;
mod conformance;
mod sentinel;
mod status;
