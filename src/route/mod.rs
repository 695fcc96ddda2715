//! Routing, pure: request target → session key → slot → candidates, the difference of two
//! placements, and pools with room for all.
//!
//! ```
//! use staterouter::route::{BackendIndex, HashKey, KeyBuffer, Member, Placement, extract};
//!
//! let members = [
//!     Member { name: "state-a", weight: 100, backend: BackendIndex::new(0) },
//!     Member { name: "state-b", weight: 100, backend: BackendIndex::new(1) },
//! ];
//! let placement = Placement::build(HashKey::DEFAULT, &members)?;
//!
//! let mut buffer = KeyBuffer::new();
//! let key = extract(b"/x/y(abc)%2fq3m1zt0xk4vdw2hn5sbyr0ac", &mut buffer)?;
//! let slot = placement.slot(key.session_id());
//! assert_eq!(placement.candidates(slot)[0], placement.owner(slot));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Architecture invariant: nothing here knows an address, a health verdict, a clock or a socket.
//! The same names, weights and hash key give the same placement in every proxy, on every platform
//! and in every later version; `tests/golden/placement-v1.csv` holds that.

mod application;
mod hash;
mod key;
mod member;
mod placement;
mod plan;
mod ring;
mod suggest;

pub use application::{Application, MAX_START_BYTES, Renaming, StartTooLong, renaming};
pub use hash::{Fingerprint, HashKey, Located, SLOT_COUNT, Slot};
pub use key::{KeyBuffer, KeyError, SessionKey, extract, is_hash};
pub use member::{BackendIndex, MAX_WEIGHT, Member};
pub use placement::{MAX_CANDIDATES, MAX_MEMBERS, Placement, PlacementError, Share};
pub use plan::{Flow, Move, Plan, PlanError};
pub use suggest::{Room, shares, suggest_more, suggest_weights};
