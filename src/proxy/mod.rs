//! The data path: one request of a web server, routed, forwarded, answered.
//!
//! * [`snapshot`]: everything a request needs to know, immutable, swapped as a whole.
//! * [`service`]: one worker's side of it; `view`: a snapshot with this worker's connections.
//! * `connection`: one client connection, request after request.
//! * `forward`: one request against one backend: what it asks for, and its answer on the way back.
//! * [`applications`]: applications that go by several ids, and how many requests they have;
//!   `renaming`: gives each request the id that state servers know.
//! * `app_names`: how the applications of requests are called.
//! * `attempt`: a request as it can begin, and begin anew after it has waited.
//! * `hold`: waits until a backend can serve a request; `holding`: how many do so at once.
//! * `id_watch`: notices sessions that are used under two application ids.
//! * `farm_signs`: what single requests show of the web farm: pages that run too long, web servers that
//!   do not wait for answers, sessions that are always locked, and large ones.
//! * `lock_wait`: waits until a locked session is released; `lock_queue`: in which order; `lock_pace`:
//!   whether that is worth it.
//! * `tagged`: a client's request before and after its lock cookie has lost the tag.
//! * `two_places`: one request whose item may be at either of two places, as `handover` decides.
//!   `two_places/copying`: the copies for its replica.
//! * [`copies`]: what all workers know of copies: when they were written, which were missed, which are
//!   under way.
//! * [`migration_budget`]: how much of sessions that are being moved is held in memory.
//! * `subrequest`: one small request to one backend, for `two_places` and `cleanup`.
//! * `cleanup`: gives back locks that nobody knows of, removes what moved items leave behind.
//!   `untidy`: how much of that at once.
//! * `refresh`: keeps the copies at a replica alive.
//! * `observation`: what is learned from an answer, for the account of sessions and the metrics.
//! * `request_log`: what the log says of single requests.
//! * `body_samples`: which bodies are looked into, for what fills the servers.
//! * [`reports`]: what the data path tells the control thread.
//!
//! Architecture invariant: nothing here makes up an answer but the 400 for bytes that cannot be
//! framed. A backend that fails costs the client its connection, never a 404 or 5xx.

mod app_names;
pub mod applications;
mod attempt;
mod body_samples;
mod cleanup;
mod connection;
pub mod copies;
mod error;
mod farm_signs;
mod forward;
mod hold;
mod holding;
mod id_watch;
mod lock_pace;
mod lock_queue;
mod lock_wait;
pub mod migration_budget;
mod observation;
mod refresh;
mod renaming;
pub mod reports;
mod request_log;
pub mod service;
pub mod snapshot;
mod subrequest;
mod tagged;
mod two_places;
mod untidy;
mod view;

pub use app_names::AppNames;
pub use applications::ApplicationSet;
pub use body_samples::{BodySamples, ContentsEvent, ContentsEvents, SampleGate};
pub use copies::CopyTracker;
pub use farm_signs::{CONTENTION_ROUND, FarmSign, FarmSignKind};
pub use id_watch::{IdUse, StartId};
pub use migration_budget::MigrationBudget;
pub use reports::{PendingDelete, Report, WorkersShared};
pub use service::{ProxyService, SharedSnapshot, share};
pub use snapshot::{Backend, Snapshot};
