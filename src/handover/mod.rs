//! Moving sessions between servers without losing one, pure: what to ask next, given the last
//! answer, and which stage a slot is in, given the time. `docs/handover.md` gives the reasons.
//!
//! * [`lock_cookie`]: lock cookies that name their server.
//! * [`slot`]: the places and the stage of one slot.
//! * [`schedule`]: when a slot goes from one stage to the next.
//! * [`table`]: the slots as the data path reads them.
//! * [`request_machine`]: one request of a client; `find`, `write`, `remove` and `replicate` hold its
//!   rules.
//! * [`request_driver`]: what is sent for each of its steps, and what follows from what came back.
//! * [`copy_refresh`]: what keeps the copy of a session alive.
//! * [`hold`]: how long a request waits instead of failing.

mod backend_map;
pub mod copy_refresh;
pub mod hold;
pub mod lock_cookie;
pub mod request_driver;
pub mod request_machine;
pub mod schedule;
pub mod slot;
pub mod table;

pub use backend_map::BackendMap;
pub use lock_cookie::{BackendId, COPY_LOCK, Cookie, CounterTooLarge, FIRST_LOCK, NO_LOCK};
pub use request_driver::{
    CopyKind, DriverTask, Heard, NoReply, Question, QuestionForm, RequestDriver, RequestEnd,
};
pub use request_machine::{
    ClientRequest, LOCKED_REFRESH_S, Refusal, ReplicaRoute, RequestMachine, SlotRoute, Step,
    Subrequest, SubrequestReply,
};
pub use schedule::{CopyPlaces, PeerSlot, Standing, Standings, Surroundings, Times, advance};
pub use slot::{Before, Outdated, Places, Replica, ReplicaPhase, SlotState, Stage};
pub use table::{RouteRef, SlotTable};
