//! Requests that wait until another backend stands in for theirs, or theirs answers again, instead of
//! failing at once: their users see a pause and no error page.
//!
//! Only what has changed nothing anywhere waits. It waits for `handover.hold` at most, and no longer
//! than that after its backend went down: one that stays away must not bind the threads of the web
//! farm. Whoever came first goes on first.

use std::rc::Rc;
use std::time::Duration;

use super::error::Unanswered;
use super::service::ProxyService;
use super::view::View;
use crate::net::{Conn, Deadline, Moment, TimeSpent};
use crate::route::BackendIndex;

/// A backend that cannot be reached, and does not count as down yet, is tried again after this.
const PAUSE: Duration = Duration::from_millis(200);

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
    /// What has kept the request from its answer. `of_slot` is the backend because of which a whole
    /// slot is refused.
    pub(super) fn new(
        failed: &Unanswered,
        view: &'a Rc<View>,
        of_slot: Option<BackendIndex>,
    ) -> Self {
        let is_refused = failed.error.is_refusal();
        let of_slot = of_slot.filter(|_| is_refused);
        Self {
            view,
            backend: of_slot.unwrap_or(failed.backend),
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
        let since_ms = held.as_ref().map_or(now_ms, |held| held.since_ms);
        let until_ms = self.until_ms(since_ms).min(due_ms);
        if now_ms >= until_ms {
            return false;
        }
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
        let look_ms = match self.is_refused {
            true => until_ms,
            false => until_ms.min(now_ms + PAUSE.as_millis() as u64),
        };
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

    /// As long as the pause may last: counted from the fall of the backend, for whoever came later.
    fn until_ms(&self, since_ms: u64) -> u64 {
        let down_since_ms = self.view.pool(self.backend).down_since_ms();
        let since_ms = down_since_ms.map_or(since_ms, |down_ms| down_ms.min(since_ms));
        since_ms + self.view.snapshot.hold.as_millis() as u64
    }
}
