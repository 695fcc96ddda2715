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
//!   handover slot -> where its items can be; what to ask there   handover/request_machine.rs
//!       |
//!   proxy    one place: one attempt, at most one retry, never    proxy/connection.rs, proxy/forward.rs
//!       |    a made-up answer; two places: question by question  proxy/two_places.rs
//!       |
//!   backend  idle connections, last in first out                 backend/pool.rs
//!       |
//!       v
//!   state servers: aspnet_state.exe, or the embedded one:
//!       state_server  the protocol over sockets                  state_server/service.rs
//!       store         its rules, items, expiry, memory budget    store/memory.rs
//! ```
//!
//! What it goes by is one immutable snapshot (`proxy/snapshot.rs`), swapped by [`control`]: the
//! thread that follows the files, the [`health`] of the backends and the stages of the slots.
//!
//! Around it: [`config`] (two YAML files, all faults at once), [`admin`] (status, metrics and reload
//! over HTTP), [`metrics`] (what is counted), [`usage`] (how many sessions are where),
//! [`contents`] (what they consist of), [`log`],
//! [`app`] (what starts and stops when), [`farm`] (a simulated web farm that counts wrong answers), [`conformance`] (does a state server
//! do what the protocol says),
//! [`cli`] (the commands).
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
