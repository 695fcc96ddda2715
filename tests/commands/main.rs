//! The command line, the demo, and what README.md and docs/ say of them.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod demo;
mod docs;
mod service_manager;
