//! How many sessions live at each backend and how many bytes they hold, estimated from what the
//! data path sees anyway, in a fixed amount of memory.
//!
//! * [`table`]: the sessions that are followed, written by the data path.
//! * [`estimator`]: what they add up to; drops those whose time is over.
//! * [`trend`]: how fast that grows, and when it reaches a backend's capacity.
//!
//! Followed is every session while there are few, and a sample of them once there are many: those
//! whose hash ends in a number of zero bits, the level, which rises when the table gets full. Each
//! followed session then stands for 2^level of them. Which ones that are depends on nothing but
//! their hash, so a followed session is followed from its first request to its end, and sums over
//! the sample are unbiased. The error is a matter of statistics alone, and an [`Estimate`] says it.
//!
//! Pure: time is an argument, and the only thing shared is a table of atomics.

mod entry;
pub mod estimator;
pub mod table;
pub mod trend;

pub use entry::UsagePlace;
pub use estimator::{Audit, Estimate, Estimator};
pub use table::{Account, Observation, SampledSession, minutes_or_default};
pub use trend::{Capacity, Growth, Saturation, Trend};
