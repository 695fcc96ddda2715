//! `POST /backends/NAME/STATE`: from the path and its query to an order.

use super::query::Query;
use crate::config::BackendState;
use crate::control::engine::Order;

/// What is ordered, as it stands in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steering<'p> {
    backend: &'p str,
    state: BackendState,
}

impl<'p> Steering<'p> {
    /// The order in `path`, if it is one.
    pub(super) fn of(path: &'p str) -> Option<Self> {
        let (backend, state) = path.strip_prefix("/backends/")?.split_once('/')?;
        let state = match state {
            "activate" => BackendState::Active,
            "drain" => BackendState::Drain,
            "off" => BackendState::Off,
            _ => return None,
        };
        (!backend.is_empty()).then_some(Self { backend, state })
    }

    /// Name of the backend.
    pub(super) fn backend(self) -> &'p str {
        self.backend
    }

    /// The order with what the query adds to it, and whether it is a dry run: one that is only to be
    /// checked.
    ///
    /// # Errors
    /// What is wrong with the query, for people.
    pub(super) fn order(self, query: &Query<'_>) -> Result<(Order, bool), String> {
        query.only(&["accept_moved_share", "dry_run"])?;
        let is_dry_run = match query.get("dry_run") {
            None => false,
            Some("true") => true,
            Some(_) => return Err("dry_run takes nothing but true".to_owned()),
        };
        let percent = |text: &str| match text.parse() {
            Ok(percent @ 1..=100) => Ok(percent),
            _ => Err("accept_moved_share is a percentage from 1 to 100".to_owned()),
        };
        let accept_moved_percent = query.get("accept_moved_share").map(percent).transpose()?;
        let order = Order {
            backend: self.backend.to_owned(),
            state: self.state,
            accept_moved_percent,
        };
        Ok((order, is_dry_run))
    }
}
