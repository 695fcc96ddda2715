//! Orders of an operator about one backend: in force at once, without a change of the files.

use super::boot_moment::BootMoment;
use super::event_loop::Control;
use super::pool_state::{NotGone, Order, Override, PoolState};
use super::report::history::{Event, EventKind, EventLevel};
use super::report::status::{SteerOutcome, SteerPeerOutcome, SteerResult};
use super::steps::ControlSteps;
use crate::config::BackendAddress;

/// A proxy that has not answered for so long is not just being restarted.
const MIN_SILENCE_MS: u64 = 5_000;

impl Control {
    /// Gives a backend the state that is ordered.
    pub(super) fn steer(&mut self, order: &Order) -> SteerOutcome {
        let before = self.pool_state.overrides();
        let (result, moved_slots, reason) = match self.try_to_steer(order) {
            Ok(Some(moved_slots)) => (SteerResult::Applied, moved_slots, None),
            Ok(None) => (SteerResult::Unchanged, 0, None),
            Err(reason) => (SteerResult::Refused, 0, Some(reason)),
        };
        let backend = &order.backend;
        let state = order.state.as_str();
        match (&reason, result) {
            (Some(reason), _) => tracing::error!(backend, "{state} was refused: {reason}"),
            (None, SteerResult::Applied) => {
                tracing::warn!(
                    backend,
                    slots = moved_slots,
                    "{state} by order, so many slots move"
                );
                self.tell_overrides(&before);
            }
            (None, _) => {}
        }
        self.publish();
        SteerOutcome {
            result,
            backend: backend.clone(),
            state,
            is_override: overrides(&self.pool_state, backend),
            moved_slots,
            reason,
        }
    }

    /// Goes on without a peer, as ordered.
    pub(super) fn leave_behind(
        &mut self,
        peer: &BackendAddress,
        is_dry_run: bool,
    ) -> SteerPeerOutcome {
        let (result, reason) = match self.try_to_leave_behind(peer, is_dry_run) {
            Ok(true) if is_dry_run => (SteerResult::Accepted, None),
            Ok(true) => (SteerResult::Applied, None),
            Ok(false) => (SteerResult::Unchanged, None),
            Err(reason) => (SteerResult::Refused, Some(reason)),
        };
        if result == SteerResult::Applied {
            let says = "is gone by order: nobody waits for it before it has joined again";
            tracing::warn!(%peer, "{says}");
            self.publisher.history.note(Event {
                at_ms: self.clock.now_ms(),
                kind: EventKind::Orders,
                level: EventLevel::Warn,
                backend: None,
                says: format!("the proxy at {peer} {says}"),
            });
            self.publish();
        }
        SteerPeerOutcome {
            result,
            peer: peer.to_string(),
            reason,
        }
    }

    fn try_to_leave_behind(
        &mut self,
        peer: &BackendAddress,
        is_dry_run: bool,
    ) -> Result<bool, String> {
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        let mut next = self.pool_state.clone();
        let left = next.leave_behind(peer, &self.publisher.about.instance);
        if !left.map_err(|error| error.to_string())? {
            return Ok(false);
        }
        let Some(silent_ms) = self.peers.silent_ms(peer, now_ms) else {
            let answers = NotGone::Answers { peer: peer.clone() };
            return Err(answers.to_string());
        };
        if silent_ms < MIN_SILENCE_MS {
            return Err(format!(
                "the proxy at {peer} has been silent for {} s only, it may be starting again: ask \
                 once it has been for {} s",
                silent_ms / 1000,
                MIN_SILENCE_MS / 1000
            ));
        }
        if !is_dry_run {
            let notices = self.put_changed(next).map_err(|error| error.to_string())?;
            self.peers.set_gone(self.pool_state.gone_peers());
            self.publisher.tell(&notices, now_ms);
        }
        Ok(true)
    }

    /// What giving that order would do. Nobody sees anything of it, the log included.
    pub(super) fn dry_run(&mut self, order: &Order) -> SteerOutcome {
        let mut next = self.with_those_that_answer();
        let tried = self.try_dry_run(&mut next, order);
        let left_with = if tried.is_ok() {
            &next
        } else {
            &self.pool_state
        };
        let is_override = overrides(left_with, &order.backend);
        let (result, moved_slots, reason) = match tried {
            Ok(Some(moved_slots)) => (SteerResult::Accepted, moved_slots, None),
            Ok(None) => (SteerResult::Unchanged, 0, None),
            Err(reason) => (SteerResult::Refused, 0, Some(reason)),
        };
        SteerOutcome {
            result,
            backend: order.backend.clone(),
            state: order.state.as_str(),
            is_override,
            moved_slots,
            reason,
        }
    }

    fn try_dry_run(
        &mut self,
        next: &mut PoolState,
        order: &Order,
    ) -> Result<Option<usize>, String> {
        let steered = next.steer(order, self.clock.now_ms());
        let Some(accepted) = steered.map_err(|refused| refused.to_string())? else {
            return Ok(None);
        };
        // A disk that is full would refuse the order, too: it gets what it has.
        let written = self
            .in_force
            .write(&self.pool_state, BootMoment::of(self.clock));
        written.map_err(|error| error.to_string())?;
        Ok(Some(accepted.moved_slots))
    }

    fn try_to_steer(&mut self, order: &Order) -> Result<Option<usize>, String> {
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        let mut next = self.with_those_that_answer();
        let steered = next.steer(order, now_ms);
        let Some(accepted) = steered.map_err(|refused| refused.to_string())? else {
            return Ok(None);
        };
        let notices = self.put_changed(next).map_err(|error| error.to_string())?;
        self.publisher.tell(&notices, now_ms);
        Ok(Some(accepted.moved_slots))
    }

    /// The pool state as far as the peers that answer have told of it: one that has just gone silent
    /// would miss an order.
    fn with_those_that_answer(&self) -> PoolState {
        let mut next = self.pool_state.clone();
        for index in self.peers.unanswering() {
            next.set_peer(index, None);
        }
        next
    }

    /// Goes by what other proxies have been ordered. Until the first meeting is over they are still
    /// being heard.
    pub(super) fn adopt_decisions(&mut self) {
        if self.first_meeting.is_some() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let before = self.pool_state.overrides();
        let mut next = self.pool_state.clone();
        if next.adopt_decisions(now_ms).is_none() {
            return;
        }
        let notices = self.take_on(&mut next, now_ms);
        if self.try_to_put_in_force(next) {
            self.tell_overrides(&before);
            self.publisher.tell(&notices, now_ms);
            self.publish();
        }
    }

    /// Logs which overrides have begun and ended since `before`, and remembers it.
    pub(super) fn tell_overrides(&mut self, before: &[Override]) {
        let at_ms = self.clock.now_ms();
        for (backend, level, text) in log_overrides(before, &self.pool_state.overrides()) {
            self.publisher.history.note(Event {
                at_ms,
                kind: EventKind::Orders,
                level,
                backend: Some(backend),
                says: text,
            });
        }
    }
}

/// Whether an override of this backend is in force.
fn overrides(pool_state: &PoolState, backend: &str) -> bool {
    let overrides = pool_state.overrides();
    let mut overrides = overrides.iter();
    overrides.any(|known| known.backend == backend)
}

/// Logs which overrides have begun and ended between `before` and `now`; by backends what it said.
pub(super) fn log_overrides(
    before: &[Override],
    now: &[Override],
) -> Vec<(String, EventLevel, String)> {
    let mut told = Vec::new();
    let is_in = |known: &Override, all: &[Override]| {
        let mut all = all.iter();
        all.any(|other| (&other.backend, other.state) == (&known.backend, known.state))
    };
    for known in now.iter().filter(|known| !is_in(known, before)) {
        let (backend, text) = (
            &known.backend,
            format!("{} overrides the partition map", known.state.as_str()),
        );
        tracing::warn!(backend, "{text}");
        told.push((backend.clone(), EventLevel::Warn, text));
    }
    for known in before.iter().filter(|known| !is_in(known, now)) {
        let text = format!(
            "{} no longer overrides the partition map",
            known.state.as_str()
        );
        let backend = &known.backend;
        tracing::info!(backend, "{text}");
        told.push((backend.clone(), EventLevel::Info, text));
    }
    told
}
