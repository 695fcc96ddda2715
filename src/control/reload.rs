//! Other files while the proxy runs: all of what they say comes into force, or nothing.

use super::history::{Event, EventKind, EventLevel};
use super::live;
use super::run::Control;
use super::status::{LastReload, ReloadOutcome, ReloadResult};
use crate::metrics::Reloads;

impl Control {
    /// Reads the files again if one of them holds something else.
    pub(super) fn look_at_files(&mut self) {
        if self
            .files
            .as_mut()
            .is_some_and(|files| files.have_changed())
        {
            self.reload();
        }
    }

    /// Reads the files again if what they say could not be put in force although it may be.
    pub(super) fn read_files_again(&mut self, now_ms: u64) {
        let files = self.files.as_mut();
        if !files.is_some_and(|files| files.are_due(now_ms)) {
            return;
        }
        let outcome = self.read_files();
        let last = self.last_reload.as_ref();
        // What is still wrong was said the first time.
        if last.is_none_or(|last| last.outcome != outcome) {
            self.tell_end(&outcome);
        }
    }

    /// Reads the files again.
    pub(super) fn reload(&mut self) -> ReloadOutcome {
        let outcome = self.read_files();
        self.tell_end(&outcome);
        outcome
    }

    fn read_files(&mut self) -> ReloadOutcome {
        self.try_reload().unwrap_or_else(|faults| ReloadOutcome {
            result: ReloadResult::Refused,
            map_version: self.engine.map().version,
            faults,
            needs_restart: Vec::new(),
        })
    }

    /// Everybody who wants to know how a reload has ended.
    fn tell_end(&mut self, outcome: &ReloadOutcome) {
        log(outcome);
        count(&mut self.reloads, outcome.result);
        let now_ms = self.clock.now_ms();
        for event in events(outcome, now_ms) {
            self.history.note(event);
        }
        self.last_reload = Some(LastReload {
            at_ms: now_ms,
            outcome: outcome.clone(),
        });
        self.publish();
    }

    fn try_reload(&mut self) -> Result<ReloadOutcome, Vec<String>> {
        let outcome = |result, needs_restart, map_version| ReloadOutcome {
            result,
            map_version,
            faults: Vec::new(),
            needs_restart,
        };
        let in_force = self.engine.map().version;
        let Some(files) = &mut self.files else {
            return Ok(outcome(ReloadResult::Unchanged, Vec::new(), in_force));
        };
        let loaded = files.load()?;
        let (config, kept) = live::merge(self.engine.config(), loaded.config);
        let needs_restart = kept.into_iter().map(str::to_owned).collect();
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        let mut next = self.engine.clone();
        let overrides = next.overrides().to_vec();
        let is_same_config = config == *next.config();
        let level = config.log.level;
        next.set_config(config);
        let accepted = next
            .accept(loaded.partition_map, now_ms)
            .map_err(|refused| vec![refused.to_string()])?;
        if is_same_config && accepted.is_none() {
            return Ok(outcome(ReloadResult::Unchanged, needs_restart, in_force));
        }
        for warning in &loaded.warnings {
            tracing::warn!("{}", warning.in_one_line());
        }
        let notices = self.step(&mut next, now_ms);
        if let Err(error) = self.put_in_force(next) {
            // The disk may take it before anybody changes a file.
            if let Some(files) = &mut self.files {
                files.read_again(now_ms);
            }
            return Err(vec![error.to_string()]);
        }
        if let Some(handle) = &self.level {
            handle.set(level);
        }
        if let Some(accepted) = accepted {
            let (version, slots) = (accepted.version, accepted.moved_slots);
            tracing::info!(version, slots, "partition map in force; so many slots move");
            self.tell_overrides(&overrides);
        }
        self.tell(&notices);
        let version = self.engine.map().version;
        Ok(outcome(ReloadResult::Applied, needs_restart, version))
    }
}

/// What a reload before the first one counts for.
pub(super) fn counted(last: Option<&LastReload>) -> Reloads {
    let mut reloads = Reloads::default();
    if let Some(last) = last {
        count(&mut reloads, last.outcome.result);
    }
    reloads
}

fn count(reloads: &mut Reloads, result: ReloadResult) {
    *match result {
        ReloadResult::Applied => &mut reloads.applied,
        ReloadResult::Unchanged => &mut reloads.unchanged,
        ReloadResult::Refused => &mut reloads.refused,
    } += 1;
}

/// What is remembered of it: faults in one line, however many there are.
pub(super) fn events(outcome: &ReloadOutcome, at_ms: u64) -> Vec<Event> {
    let event = |level, says| Event {
        at_ms,
        kind: EventKind::Files,
        level,
        backend: None,
        says,
    };
    let mut events = Vec::new();
    match outcome.result {
        ReloadResult::Applied => {
            let version = outcome.map_version;
            let says = format!("files read, version {version} of the partition map is in force");
            events.push(event(EventLevel::Info, says));
        }
        ReloadResult::Unchanged => {}
        ReloadResult::Refused => {
            let fault = outcome
                .faults
                .first()
                .and_then(|fault| fault.lines().next());
            let more = match outcome.faults.len() {
                0 | 1 => String::new(),
                faults => format!(" (and {} more)", faults - 1),
            };
            let says = format!("files refused: {}{more}", fault.unwrap_or_default());
            events.push(event(EventLevel::Error, says));
        }
    }
    for key in &outcome.needs_restart {
        let says = format!("{key} has changed: that takes a restart");
        events.push(event(EventLevel::Warn, says));
    }
    events
}

pub(super) fn log(outcome: &ReloadOutcome) {
    match outcome.result {
        ReloadResult::Applied => tracing::info!("files read, what they say is in force"),
        ReloadResult::Unchanged => {}
        ReloadResult::Refused => {
            for fault in &outcome.faults {
                tracing::error!("files refused, what was in force stays: {fault}");
            }
        }
    }
    for key in &outcome.needs_restart {
        tracing::warn!("{key} has changed: that takes a restart");
    }
}
