//! Requests that wait until another backend stands in for theirs, or theirs answers again, instead of
//! failing at once: their users see a pause and no error page.
//!
//! Only what has changed nothing anywhere waits. `handover::hold` says how long; whoever came first
//! goes on first.

use std::rc::Rc;

use super::error::Unanswered;
use super::service::ProxyService;
use super::view::View;
use crate::handover::BackendId;
use crate::handover::hold::{HoldLimits, HoldReason, backend_in_the_way};
use crate::net::{Conn, Deadline, Moment, TimeSpent};
use crate::route::BackendIndex;

/// One of them.
#[derive(Debug)]
pub(super) struct Held {
    service: Rc<ProxyService>,
    /// When it began to wait, of the worker's clock.
    since_ms: u64,
}

impl Held {
    /// `None` if too many wait already.
    fn begin(service: &Rc<ProxyService>) -> Option<Self> {
        if !service.holding.take_in() {
            return None;
        }
        service.metrics.held.increment();
        Some(Self {
            service: Rc::clone(service),
            since_ms: service.now_ms(),
        })
    }

    /// The request has been answered, or has failed for good.
    pub(super) fn end(self, is_answered: bool) {
        let metrics = &self.service.metrics;
        if is_answered {
            metrics.held_answered.increment();
        } else {
            metrics.held_failed.increment();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.service.holding.let_out();
    }
}

/// What a request waits for.
pub(super) struct Obstacle<'a> {
    /// By which it has failed.
    pub(super) view: &'a Rc<View>,
    /// The backend that failed it.
    pub(super) backend: BackendIndex,
    /// Only another snapshot can change that.
    is_refused: bool,
}

impl<'a> Obstacle<'a> {
    /// What has kept the request to a slot with these places from its answer.
    pub(super) fn new(
        failed: &Unanswered,
        view: &'a Rc<View>,
        places: (BackendId, Option<BackendId>),
    ) -> Self {
        let is_refused = failed.error.waits_for_change();
        let asked = view.backend(failed.backend).backend_id;
        let in_the_way = backend_in_the_way(is_refused, asked, places);
        let in_the_way = view.snapshot.backend_at(in_the_way);
        Self {
            view,
            backend: in_the_way.unwrap_or(failed.backend),
            is_refused,
        }
    }

    /// Waits until the request may fare better. False once it has waited long enough, by `due_ms` at
    /// the latest, if too many wait already, or if `client` has left. The time counts as spent on
    /// backends.
    pub(super) async fn wait(
        &self,
        held: &mut Option<Held>,
        service: &Rc<ProxyService>,
        deadline: &Deadline,
        due_ms: u64,
        waited: &TimeSpent,
        client: Option<&mut Conn>,
    ) -> bool {
        let now_ms = service.now_ms();
        let limits = HoldLimits {
            since_ms: held.as_ref().map_or(now_ms, |held| held.since_ms),
            hold_ms: self.view.snapshot.hold.as_millis() as u64,
            due_ms,
        };
        let Some(look_ms) = self.reason().waits_until_ms(limits, now_ms) else {
            return false;
        };
        if held.is_none() {
            *held = Held::begin(service);
        }
        if held.is_none() {
            return false;
        }
        if !Rc::ptr_eq(&service.view(), self.view) {
            // It has come while the request was under way.
            return true;
        }
        deadline.arm_at(look_ms);
        let begun = Moment::now();
        let left = async {
            match client {
                Some(client) => client.ended().await,
                None => std::future::pending().await,
            }
        };
        let is_there = tokio::select! {
            biased;
            _ = deadline.guard(service.holding.changed()) => true,
            () = left => false,
        };
        waited.add_ns(begun.elapsed_ns());
        is_there
    }

    fn reason(&self) -> HoldReason {
        HoldReason {
            is_refused: self.is_refused,
            down_since_ms: self.view.pool(self.backend).down_since_ms(),
        }
    }
}
