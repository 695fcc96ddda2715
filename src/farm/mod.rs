//! A simulated ASP.NET web farm that counts wrong answers, not only speed.
//!
//! It speaks the state-server protocol to one or more targets as ASP.NET's client does (protocol 1
//! and 6), and knows of every session what may rightly be answered.
//!
//! * [`run`]: the whole of it, [`FarmOptions`] in, [`FarmReport`] out.
//! * [`checker`]: what is true about one session, and which answers contradict it. Pure.
//! * `session`: the users and their session ids.
//! * `page`: one web request, page by page.
//! * `body`: session bodies that tell which write they came from.
//! * `connection`: the client's connection pool.
//! * `web_server`: one thread of the farm with its connections and counts.
//! * `web_threads`: the threads that a web server runs its pages on, if they are modelled.
//! * `engine`: threads, pace, beginning and end.
//!
//! Architecture invariant: a request without an answer is a failure, never a wrong answer; a wrong
//! answer is counted only if no order of the operations explains it.

mod body;
pub mod checker;
mod connection;
mod engine;
mod options;
mod page;
mod random;
mod report;
mod session;
mod stop;
mod web_server;
mod web_threads;

pub use body::MIN_BODY_BYTES;
pub use engine::{FarmError, run};
pub use options::{BodySize, FarmOptions, OptionsError, PageMix, RunEnd};
pub use report::{
    BadSecond, Example, FarmCounts, FarmReport, FarmStats, FinalSweep, Latency, ViolationSummary,
};
pub use stop::Stop;
