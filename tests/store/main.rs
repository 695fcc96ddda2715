//! The rules of protocol 5 against every store: the state table, limits, the vectors and a model.

mod disk;
mod fake_disk;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod limits;
mod model;
mod stores;
mod table;
mod vectors;
