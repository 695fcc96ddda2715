//! What operators, monitoring and the other proxies ask over HTTP, on an address of its own.
//!
//! * [`server`]: the thread, its connections and their bounds.
//! * `routes`: from a request to the row of a table; `pages`: the table of a proxy and its answers;
//!   `page`: the one for people; `steer` and `query`: what the targets of requests mean; `plan`: what
//!   takes longer.
//! * `access`: who may ask for what; `refusals`: what becomes of those that may not.
//! * `routes`: what the server is about, too: a proxy, or a state server ([`store_site`]), which
//!   [`store_watch`] looks at.
//! * [`client`]: asks an admin server.
//! * `peers`: asks the other proxies, again and again.
//!
//! Everything comes from and goes to control through its handle. hyper is used here only: it
//! rejects what real peers of the data path send.

mod access;
pub mod client;
mod options;
mod page;
mod pages;
mod peers;
mod permits;
mod plan;
mod query;
mod refusals;
mod respond;
mod routes;
pub mod server;
mod steer;
pub mod store_site;
pub mod store_watch;

pub use options::{AdminOptions, AdminTls};
pub use server::AdminServer;
pub use store_site::StoreSite;
pub use store_watch::{KeptOnDisk, ReadStats, StoreEye, StoreFacts, StoreWatch};
