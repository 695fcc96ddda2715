//! The embedded state server's items: the state table, limits, and a model of it.

mod limits;
mod model;
mod table;
mod vectors;
