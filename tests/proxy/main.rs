//! The data path between raw clients and scripted backends.

#[path = "../support/mod.rs"]
mod support;

mod applications;
mod failures;
mod framing;
mod limits;
mod locks;
mod moves;
mod names;
mod one_thread;
mod probe;
mod recovery;
mod removal;
mod retries;
mod shortage;
mod tags;
mod unfit;
mod web_farm;
