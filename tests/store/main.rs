//! The rules of protocol 5 against every store: the state table, limits, the vectors and a model.

mod disk;
mod fake_disk;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod limits;
mod model;
mod on_redis;
#[path = "../support/redis.rs"]
mod redis;
mod redis_access;
mod redis_answers;
mod redis_crowds;
mod redis_faults;
mod stores;
mod table;
mod vectors;
