//! What operators, monitoring and the other proxies ask over HTTP, on an address of its own.
//!
//! * [`server`]: the thread, its connections and their bounds.
//! * `pages`: what is asked and what is answered; `access`: who may change something.
//! * `page`: the page for people.
//! * [`client`]: asks an admin server.
//! * `peers`: asks the other proxies, again and again.
//!
//! Everything comes from and goes to control through its handle. hyper is used here only: it
//! rejects what real peers of the data path send.

mod access;
pub mod client;
mod page;
mod pages;
mod peers;
pub mod server;

pub use server::{AdminOptions, AdminServer};
