//! What operators and their tools see: API, page, metrics, dashboards, log.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod api;
mod browser;
mod dashboards;
mod logging;
mod metrics;
mod schemas;
