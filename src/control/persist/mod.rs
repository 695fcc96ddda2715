//! What outlives a restart.
//!
//! * [`state_file`]: the form on disk of what the pool remembers; [`slot_groups`]: the slots of it,
//!   many a line; `redis_document`: the engines in it; `tls_document`: certificates; `state_writer`: writes it without waiting for the disk; [`state_lock`]: keeps a
//!   second proxy from it.
//! * [`pending_deletes`]: deletes that a backend has missed; [`replay`]: sends them once it answers.

pub mod pending_deletes;
mod redis_document;
pub mod replay;
pub mod slot_groups;
pub mod state_file;
pub mod state_lock;
pub(crate) mod state_writer;
mod tls_document;
