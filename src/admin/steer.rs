//! `POST /backends/NAME/STATE` and `GET /plan?backend=NAME&state=STATE`: from a target to an order.

use super::query::Query;
use crate::config::BackendState;
use crate::control::pool_state::Order;

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
        let state = state_of(state)?;
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
        query.only(&["accept_moved_share", "dry_run", "only_here", "fresh"])?;
        let is_set = |key: &str| match query.get(key) {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(format!("{key} takes nothing but true")),
        };
        let is_dry_run = is_set("dry_run")?;
        let is_only_here = is_set("only_here")?;
        let is_fresh = is_set("fresh")?;
        if is_fresh && self.state != BackendState::Active {
            return Err("fresh goes with activate".to_owned());
        }
        let order = order(self.backend, self.state, query)?;
        Ok((
            Order {
                is_only_here,
                is_fresh,
                ..order
            },
            is_dry_run,
        ))
    }
}

/// The order in a query that names the backend and its state, too.
///
/// # Errors
/// What is wrong with the query, for people.
pub(super) fn order_of(query: &Query<'_>) -> Result<Order, String> {
    query.only(&["backend", "state", "accept_moved_share"])?;
    let state = query.get("state").and_then(state_of);
    let (Some(backend), Some(state)) = (query.get("backend"), state) else {
        return Err("ask with backend= and state=drain, activate or off".to_owned());
    };
    order(backend, state, query)
}

/// A state by the word that orders it.
fn state_of(word: &str) -> Option<BackendState> {
    Some(match word {
        "activate" => BackendState::Active,
        "drain" => BackendState::Drain,
        "off" => BackendState::Off,
        _ => return None,
    })
}

fn order(backend: &str, state: BackendState, query: &Query<'_>) -> Result<Order, String> {
    let percent = |text: &str| match text.parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("accept_moved_share is a percentage from 1 to 100".to_owned()),
    };
    let accept_moved_percent = query.get("accept_moved_share").map(percent).transpose()?;
    Ok(Order {
        backend: backend.to_owned(),
        state,
        accept_moved_percent,
        is_only_here: false,
        is_fresh: false,
    })
}
