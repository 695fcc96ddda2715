//! Moving sessions between servers without losing one, pure: what to ask next, given the last
//! answer, and which stage a slot is in, given the time. `docs/handover.md` gives the reasons.
//!
//! * [`place`]: lock cookies that name their server.
//! * [`slot`]: the places and the stage of one slot.

pub mod place;
pub mod slot;

pub use place::{Cookie, CounterTooLarge, NO_LOCK, Place};
pub use slot::{Before, SlotState, Stage};
