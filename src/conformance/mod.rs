//! The conformance suite: what docs/protocol.md says, asked of any state server.
//!
//! * `fixtures`: the frozen exchanges of tests/vectors, as the program carries them.
//! * `line`: one connection to the server under test, request by request.
//! * `message`: requests and answers taken apart and compared.
//! * `own`: session ids of its own in place of those in the fixtures, and the server's lock cookies.
//! * `scratch`: the server as the checks use it: one request at a time, and everything removed again.
//! * `suite`: the vectors and scenarios, one after the other.
//! * `checks`: what the fixtures do not ask: the open questions of the protocol.
//! * `thorough`: those that take minutes, or send what no web server sends.
//! * `report`: what came of it.
//! * `capture`: a relay that writes down what a real farm and its server say to each other.
//! * `blank`: what of that may be written down.
//!
//! It may be run against a server with users: one request at a time and at a bounded rate, only under
//! random session ids, and everything it stored is removed again.

mod blank;
mod capture;
mod checks;
mod fixtures;
mod line;
mod message;
mod own;
mod report;
mod scratch;
mod suite;
mod thorough;

pub use capture::{Capture, CaptureCounts, CaptureError, CaptureOptions, capture};
pub use report::{CheckInfo, CheckReport, ConformanceReport, SpellingReport, Verdict};
pub use scratch::{ConformanceOptions, SuiteStop};
pub use suite::{ConformanceError, all_checks, run};
