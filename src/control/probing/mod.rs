//! Which backends answer, and at which address.
//!
//! * [`probes`]: one task for each backend asks it again and again.
//! * `coalesced_failures`: which failed requests count beside the probes.
//! * `name_lookup`: one task for each backend with a host name looks it up.

pub(crate) mod coalesced_failures;
pub(crate) mod name_lookup;
pub mod probes;
