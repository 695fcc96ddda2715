//! Which backends answer, and at which address.
//!
//! * [`probes`]: one task for each backend asks it again and again.
//! * [`coalesced_failures`]: which failed requests count beside the probes.
//! * [`engines`]: the ways to the engines of the map.
//! * [`surveys`]: one task for each engine looks whether sessions are safe there.
//! * `name_lookup`: one task for each backend with a host name looks it up.

pub mod coalesced_failures;
pub mod engines;
pub(crate) mod name_lookup;
pub mod probes;
pub mod surveys;
