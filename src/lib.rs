//! staterouter: a pool of ASP.NET state servers that behaves like one.
//!
//! ```text
//!   web farm (IIS, sessionState mode="StateServer", one connection string)
//!       |  one request at a time per connection, many sessions per connection
//!       v
//!   net      accept, connection cap, buffers, deadlines          net/worker.rs, net/stream.rs
//!       |
//!   wire     request head as spans over the bytes that came      wire/request.rs
//!       |
//!   route    target -> session id -> slot                        route/key.rs, route/hash.rs
//!       |
//!   handover slot -> its places -> what to ask there             handover/table.rs, handover/request_machine.rs
//!       |
//!   proxy    one place: forwards, never makes up an answer       proxy/connection.rs, proxy/forward.rs
//!       |    two places, copies: asks question by question       proxy/two_places.rs
//!       |
//!   backend  one attempt, at most one retry; idle connections    backend/upstream.rs, backend/pool.rs
//!       |    the way there: TCP, TLS or this process             backend/connector.rs
//!       |
//!       v
//!   state servers: aspnet_state.exe, or the embedded one:
//!       state_server  the protocol over sockets                  state_server/service.rs
//!       store         its rules, items, expiry, memory budget    store/memory.rs
//! ```
//!
//! The data path goes by one immutable snapshot (`proxy/snapshot.rs`). [`control`] swaps it: the
//! thread that follows the files, the [`health`] of the backends and the stages of the slots.
//!
//! Around the data path:
//!
//! * [`config`]: two YAML files, all faults at once.
//! * [`admin`]: status, metrics and reload over HTTP.
//! * [`metrics`]: every counter and its name. [`usage`]: how many sessions are where. [`contents`]:
//!   which items they consist of.
//! * [`disk`] and [`redis`]: stores that outlive the process.
//! * [`tls`], [`os`], [`log`]: certificates, the operating system, log lines.
//! * [`app`]: the order of start and stop. [`cli`]: the commands.
//! * [`farm`]: a simulated web farm that counts wrong answers. [`conformance`]: asks a state server
//!   whether it keeps to the protocol.
//!
//! A module imports only from layers below its own; `tests/layers.rs` holds the table.
//! ARCHITECTURE.md follows one request through these files and gives the reasons.

pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod contents;
pub mod control;
pub mod disk;
pub mod farm;
pub mod handover;
pub mod health;
pub mod log;
pub mod metrics;
pub mod net;
pub mod os;
pub mod proxy;
pub mod redis;
pub mod route;
pub mod state_server;
pub mod store;
pub mod tls;
pub mod usage;
pub mod wire;
