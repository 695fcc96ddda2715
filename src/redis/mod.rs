//! Sessions on Redis or Valkey: a store whose items any number of proxies share.
//!
//! One script per operation, run by the engine as a whole, does what the state table of the
//! protocol asks (5.3); it needs one round trip. Times and lock ages are the engine's, so proxies
//! need not agree on the time.
//!
//! An item is a HASH under the prefix and a digest of its key (`key`): `b` body, `t` minutes,
//! `c` counter, `l` when the lock was taken in the engine's milliseconds, `n` the nonce of its
//! holder, `u` uninitialised (`1`, or the nonce of the read that took the flag).
//!
//! * `client`: the one file that names the crate `redis`: connections and commands.
//! * `error`: what can go wrong, and whether a command may have been carried out.
//! * `framing`: where answers end, and that none is too large.
//! * `key`: keys and slots of a Cluster.
//! * `node`, `reply`: a server, and what it answers.
//! * `shown`: what they say, fit to be shown.
//! * `script`: the scripts.
//! * `topology`: which server has which key.
//! * `engine`: an engine as one thread uses it.
//! * `trial`: whether an engine runs the scripts as it must.
//! * `survey`: what its servers say of themselves.
//! * `store`: the store.

mod client;
mod engine;
mod error;
mod framing;
mod key;
mod node;
mod reply;
mod script;
mod shown;
mod store;
mod survey;
mod topology;
mod trial;

pub use engine::{Engine, EngineOptions};
pub use error::EngineError;
pub use framing::{FramingError, ReplyScanner};
pub use key::item_key;
pub use store::RedisStore;
