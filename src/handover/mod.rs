//! Moving sessions between servers without losing one, pure: what to ask next, given the last
//! answer, and which stage a slot is in, given the time. `docs/handover.md` gives the reasons.
//!
//! * [`place`]: lock cookies that name their server.
//! * [`slot`]: the places and the stage of one slot.
//! * [`schedule`]: when a slot goes from one stage to the next.
//! * [`table`]: the slots as the data path reads them.
//! * [`search`]: one request of a client; `find`, `write` and `remove` hold its rules.

mod find;
pub mod place;
mod remove;
pub mod schedule;
pub mod search;
pub mod slot;
pub mod table;
mod write;

pub use place::{Cookie, CounterTooLarge, NO_LOCK, Place};
pub use schedule::{PeerSlot, Standing, Standings, Surroundings, Times, advance};
pub use search::{Ask, Refusal, Request, Route, Search, Seen, Step};
pub use slot::{Before, Outdated, Places, SlotState, Stage};
pub use table::SlotTable;
