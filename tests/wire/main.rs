//! The codec: requests, responses and how stock peers spell them.

#[path = "../vectors/mod.rs"]
mod vectors;

mod request;
mod response;
mod spelling;
