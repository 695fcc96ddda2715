//! What others are shown.
//!
//! * [`status`]: its form; `progress`: the handovers in it.
//! * [`finding`]: what is wrong, in words; `diagnosis` reads it from the status, `noticed` has the
//!   rest; `recent_counts`: what backends have cost sessions lately.
//! * `shared_ids`, `web_farm`, `silent_servers`: what is wrong with the web servers and their pages.
//! * [`history`]: what has happened in the last minutes.
//! * [`contents`]: which items fill the servers.
//! * `engine_room`: what the memory of an engine means for sessions.
//! * `usage_estimates`, [`load`]: how many sessions are where, and when a backend is full.
//! * [`plan`]: what a new map would do; [`suggest`]: which pool would be large enough;
//!   [`slot_view`]: where a session is.

pub(crate) mod at_risk;
pub mod contents;
pub(crate) mod copies_held;
pub(crate) mod diagnosis;
pub(crate) mod engine_room;
pub mod finding;
pub mod history;
pub mod load;
pub(crate) mod noticed;
pub(crate) mod pauses;
pub mod plan;
pub(crate) mod progress;
pub(crate) mod recent_counts;
pub mod replication;
pub(crate) mod shared_ids;
pub(crate) mod silent_servers;
pub mod slot_view;
pub mod status;
pub mod suggest;
pub(crate) mod usage_estimates;
pub(crate) mod web_farm;
