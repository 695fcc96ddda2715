//! Worlds in virtual time: the real decisions of several proxies against real stores, with messages
//! that are late or lost, maps that lag, and everything that dies and comes back.
//!
//! * [`plan`], [`maps`]: what a seed stands for.
//! * [`world`]: the queue of events, and what goes wrong.
//! * [`net`]: servers and messages. [`proxy`]: requests of clients. [`control`]: what else a proxy
//!   does. [`brain`], [`pool`]: what decides where a slot is.
//! * [`farm`]: the pages of users. [`judge`]: what may rightly be answered. [`limits`]: what no rule
//!   can hold.
//! * [`broken`]: rules left out, to see that the worlds notice.

mod brain;
pub(crate) mod broken;
mod control;
mod farm;
mod judge;
mod limits;
mod maps;
mod net;
pub(crate) mod plan;
mod pool;
mod proxy;
mod random;
pub(crate) mod run;
mod trace;
mod world;
