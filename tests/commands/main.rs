//! The command line, the demo, and what README.md says of them.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod demo;
mod readme;
