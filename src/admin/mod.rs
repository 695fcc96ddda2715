//! What operators, monitoring and the other proxies ask over HTTP, on an address of its own.
//!
//! * [`server`]: the thread, its connections and their bounds.
//! * `pages`: what is asked and what is answered.
//! * [`site`]: the same for a state server, which has less to say.
//! * [`peers`]: asks the other proxies.
//!
//! Everything comes from and goes to control through its handle. hyper is used here only: it
//! rejects what real peers of the data path send.

mod pages;
pub mod peers;
pub mod server;
pub mod site;

pub use server::{AdminOptions, AdminServer};
pub use site::StoreSite;
