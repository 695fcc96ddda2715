//! Other files while the proxy runs: all of what they say comes into force, or nothing.

use tokio::sync::oneshot;

use super::event_loop::Control;
use super::files::read::{FilesRead, Reading, Why};
use super::files::reloadable_keys;
use super::pool_state::NotGone;
use super::report::history::{Event, EventKind, EventLevel};
use super::report::status::{LastReload, ReloadOutcome, ReloadResult};
use super::steps::ControlSteps;
use crate::config::{BackendAddress, LoadedConfig};
use crate::metrics::Reloads;

impl Control {
    /// Has the files read; `answer` is told how that ended.
    pub(super) fn order_reload(&mut self, answer: oneshot::Sender<ReloadOutcome>) {
        self.pool_state.follow_names();
        self.names.hurry();
        self.publisher.noticed.certificates.hurry();
        let Some(files) = &mut self.files else {
            let outcome = self.reload_outcome(ReloadResult::Unchanged, Vec::new());
            self.tell_end(&outcome);
            // Whoever asked may not wait for the answer.
            let _ = answer.send(outcome);
            return;
        };
        if let Err((answer, problem)) = files.ask(answer) {
            let outcome = self.reload_outcome(ReloadResult::Refused, vec![problem]);
            self.tell_end(&outcome);
            let _ = answer.send(outcome);
        }
    }

    /// Sees to it that the files are read again when they are due, and says when a disk that does
    /// not answer keeps them from being read.
    pub(super) fn follow_files(&mut self, now_ms: u64) {
        let Some(files) = &mut self.files else {
            return;
        };
        if let Reading::Stuck(problem) = files.follow(now_ms) {
            let outcome = self.reload_outcome(ReloadResult::Refused, vec![problem]);
            self.tell_end(&outcome);
            if let Some(files) = &mut self.files {
                files.answer_all(&outcome);
            }
        }
    }

    /// Puts in force what the files say.
    pub(super) fn files_read(&mut self, FilesRead { why, loaded }: FilesRead) {
        let taken = loaded.and_then(|loaded| self.take_over(loaded));
        let outcome =
            taken.unwrap_or_else(|faults| self.reload_outcome(ReloadResult::Refused, faults));
        let last = self.publisher.last_reload.as_ref();
        // What is still wrong was said the first time.
        if why != Why::Again || last.is_none_or(|last| last.outcome != outcome) {
            self.tell_end(&outcome);
        }
        if let (Why::Asked(number), Some(files)) = (why, &mut self.files) {
            files.answer(number, &outcome);
        }
    }

    fn reload_outcome(&self, result: ReloadResult, faults: Vec<String>) -> ReloadOutcome {
        ReloadOutcome {
            result,
            map_version: self.pool_state.map().version,
            faults,
            needs_restart: Vec::new(),
        }
    }

    /// Everybody who wants to know how a reload has ended.
    fn tell_end(&mut self, outcome: &ReloadOutcome) {
        log(outcome);
        count(&mut self.publisher.reloads, outcome.result);
        let now_ms = self.clock.now_ms();
        for event in events(outcome, now_ms) {
            self.publisher.history.note(event);
        }
        self.publisher.last_reload = Some(LastReload {
            at_ms: now_ms,
            outcome: outcome.clone(),
        });
        self.publish();
    }

    /// What still takes connections at the address of a peer that is taken out may serve.
    fn check_peers_are_gone(
        &self,
        peers: &[BackendAddress],
        now_ms: u64,
    ) -> Result<(), Vec<String>> {
        let known = self.pool_state.config().peers.iter();
        let mut taken_out = known.filter(|peer| !peers.contains(peer));
        let is_there = |peer: &&BackendAddress| {
            self.peers.is_other(peer) && self.peers.silent_ms(peer, now_ms).is_none()
        };
        taken_out.find(is_there).map_or(Ok(()), |peer| {
            let answers = NotGone::Answers { peer: peer.clone() };
            Err(vec![format!("peers: {answers}")])
        })
    }

    fn take_over(&mut self, loaded: LoadedConfig) -> Result<ReloadOutcome, Vec<String>> {
        let outcome = |result, needs_restart, map_version| ReloadOutcome {
            result,
            map_version,
            faults: Vec::new(),
            needs_restart,
        };
        let in_force = self.pool_state.map().version;
        let (config, kept) = reloadable_keys::merge(self.pool_state.config(), loaded.config);
        let needs_restart = kept.into_iter().map(str::to_owned).collect();
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        let mut next = self.pool_state.clone();
        let overrides = next.overrides();
        let is_same_config = config == *next.config();
        let level = config.log.level;
        let has_other_peers = config.peers != next.config().peers;
        self.check_peers_are_gone(&config.peers, now_ms)?;
        next.take_peers_out(&config.peers, &self.publisher.about.instance)
            .map_err(|error| vec![format!("peers: {error}")])?;
        next.set_config(config);
        let accepted = next
            .accept(loaded.partition_map, now_ms)
            .map_err(|refused| vec![refused.to_string()])?;
        // They were read with the files.
        next.follow_certificates(&self.publisher.noticed.certificates);
        if is_same_config && accepted.is_none() {
            return Ok(outcome(ReloadResult::Unchanged, needs_restart, in_force));
        }
        for warning in &loaded.warnings {
            tracing::warn!("{}", warning.in_one_line());
        }
        let notices = match self.put_changed(next) {
            Ok(notices) => notices,
            Err(error) => {
                // The disk may take it before anybody changes a file.
                if let Some(files) = &mut self.files {
                    files.read_again(now_ms);
                }
                return Err(vec![error.to_string()]);
            }
        };
        if let Some(handle) = &self.level {
            handle.set(level);
        }
        if has_other_peers {
            let peers = &self.pool_state.config().peers;
            self.peers.follow(peers, now_ms);
            tracing::info!(peers = peers.len(), "other peers are asked from now on");
        }
        if let Some(accepted) = accepted {
            let (version, slots) = (accepted.version, accepted.moved_slots);
            tracing::info!(version, slots, "partition map in force; so many slots move");
            self.tell_overrides(&overrides);
        }
        self.publisher.tell(&notices, now_ms);
        let version = self.pool_state.map().version;
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
