//! Requests that wait at a proxy until they may fare better, as `proxy::hold` lets them wait over
//! sockets: `handover::hold` says how long.

use staterouter::handover::BackendId;
use staterouter::handover::hold::{HoldLimits, HoldReason, backend_in_the_way};

use super::proxy::{Failed, Job};
use super::world::{Event, World};

/// How long a request has waited already, and when its answer is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// When it began to wait.
    since_ms: Option<u64>,
    pub(crate) due_ms: u64,
}

/// One request of a client that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    call: u64,
    waits: Waits,
    /// It waits for the time or so many snapshots.
    number: u64,
}

impl Waits {
    pub(crate) fn new(due_ms: u64) -> Self {
        let since_ms = None;
        Self { since_ms, due_ms }
    }
}

impl Held {
    pub(crate) fn call(&self) -> u64 {
        self.call
    }
}

impl World {
    /// Lets a request wait; false if it has waited long enough.
    pub(crate) fn hold(&mut self, p: usize, job: &Job, failed: Failed) -> bool {
        let is_refused = !matches!(failed.at, Some((_, Some(_))));
        let route = job.route;
        let asked = failed.at.map_or(route.first, |(at, _)| at);
        let in_the_way = backend_in_the_way(is_refused, asked, (route.first, route.second));
        let reason = HoldReason {
            is_refused,
            down_since_ms: self.down_since_ms(p, in_the_way),
        };
        let limits = HoldLimits {
            since_ms: job.waits.since_ms.unwrap_or(self.now_ms),
            hold_ms: self.numbers.hold_ms,
            due_ms: job.waits.due_ms,
        };
        let Some(until_ms) = reason.waits_until_ms(limits, self.now_ms) else {
            return false;
        };
        let waits = Waits {
            since_ms: Some(limits.since_ms),
            ..job.waits
        };
        let boot = self.proxies[p].boot;
        let number = self.next_job();
        self.proxies[p].held.push(Held {
            call: job.call,
            waits,
            number,
        });
        // Another snapshot may have come while the request was under way.
        let until_ms = match job.in_force.number == self.proxies[p].in_force.number {
            true => until_ms,
            false => self.now_ms,
        };
        self.at(until_ms, Event::HoldOver(p, boot, number));
        self.tick_soon(p);
        true
    }

    fn down_since_ms(&self, p: usize, at: BackendId) -> Option<u64> {
        let in_force = &self.proxies[p].in_force;
        let since_ms = self.proxies[p].down_since_ms[usize::from(at.id()) - 1];
        Some(since_ms).filter(|_| !in_force.is_up(at))
    }

    /// Another snapshot is in force: all look again, in the order in which they came.
    pub(crate) fn let_go(&mut self, p: usize) {
        for held in std::mem::take(&mut self.proxies[p].held) {
            self.begin_job(held.call, Some(held.waits));
        }
    }

    /// A request looks again.
    pub(crate) fn hold_over(&mut self, p: usize, boot: u32, number: u64) {
        let proxy = &mut self.proxies[p];
        let position = proxy.held.iter().position(|held| held.number == number);
        if let Some(position) = position.filter(|_| proxy.boot == boot) {
            let held = proxy.held.remove(position);
            self.begin_job(held.call, Some(held.waits));
        }
    }
}
