//! The control thread: what happens goes into the pool state, what it says goes out. `steps` says in
//! which order.

use std::io;
use std::sync::{Arc, mpsc as blocking};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::boot_moment::BootMoment;
use super::copy_watch::{self, CopyWatch};
use super::files::read::{FileReader, FilesRead};
use super::handle::{ControlCommand, PeerNews};
use super::in_force::InForce;
use super::missed_deletes::MissedDeletes;
use super::peers::report::{self, PeerReportError};
use super::peers::roster::{FirstMeeting, Peers, Said, is_old};
use super::persist::replay::Replayed;
use super::persist::state_file::StateFileError;
use super::pool_state::{Notice, PoolState};
use super::probing::coalesced_failures::CoalescedFailures;
use super::probing::name_lookup::{LookedUp, Names};
use super::probing::probes::{ProbeResult, Probes};
use super::probing::surveys::{Surveyed, Surveys};
use super::publisher::Publisher;
use super::pulse::Pulse;
use super::report::finding::Finding;
use super::report::history::{Event, EventKind, EventLevel};
use super::report::noticed::Unwritten;
use super::steps::ControlSteps;
use crate::handover::BackendId;
use crate::health::{Change, Failure, HealthState};
use crate::log::LevelHandle;
use crate::net::UnixClock;
use crate::proxy::{Report, WorkersShared};
use crate::route::Slot;

/// How often the pool state is asked what the time has changed.
pub const TICK: Duration = Duration::from_millis(250);

/// Why a peer counts as silent that the others have gone on without.
const LEFT_BEHIND: &str = "it was said to be gone, and has not joined again yet: if it does not within \
                           seconds, restart it";

/// How often it is said again that the state file cannot be written.
const REPEAT_MS: u64 = 60_000;

/// How long the end of the program waits for control. What is in force is on disk at any time.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Threads for what cannot wait without one: looking up the names of backends.
const MAX_BLOCKING_THREADS: usize = 8;

/// Everything the control thread owns.
#[derive(Debug)]
pub struct Control {
    pub(super) clock: UnixClock,
    pub(super) pulse: Pulse,
    pub(super) pool_state: PoolState,
    pub(super) in_force: InForce,
    pub(super) missed: MissedDeletes,
    pub(super) publisher: Publisher,
    pub(super) probes: Probes,
    pub(super) surveys: Surveys,
    pub(super) names: Names,
    pub(super) bursts: CoalescedFailures,
    pub(super) shared: Arc<WorkersShared>,
    pub(super) copy_watch: CopyWatch,
    /// `None` when there are no files to read again.
    pub(super) files: Option<FileReader>,
    pub(super) level: Option<LevelHandle>,
    pub(super) peers: Peers,
    /// `None` once clients are served.
    pub(super) first_meeting: Option<FirstMeeting>,
}

/// What comes in.
#[derive(Debug)]
pub struct Inbox {
    pub(super) commands: mpsc::Receiver<ControlCommand>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) probed: mpsc::Receiver<ProbeResult>,
    pub(super) surveyed: mpsc::Receiver<Surveyed>,
    pub(super) looked_up: mpsc::Receiver<LookedUp>,
    pub(super) replayed: mpsc::Receiver<Replayed>,
    /// Ends at once when there are no files to read again.
    pub(super) files: mpsc::Receiver<FilesRead>,
}

/// The running control thread.
#[derive(Debug)]
pub struct RunningControl {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    /// Breaks off when the thread has ended.
    ended: blocking::Receiver<()>,
}

impl RunningControl {
    /// Ends the thread, or leaves it to the end of the process if it is stuck. What is in force
    /// stays in force.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        if self.ended.recv_timeout(STOP_PATIENCE) == Err(blocking::RecvTimeoutError::Timeout) {
            tracing::warn!("control is stuck and has not ended; the program ends without it");
            return;
        }
        // If it panicked it has said so on stderr already.
        let _ = self.thread.join();
    }
}

impl Control {
    /// Runs in a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread or event queue.
    pub fn spawn(self, inbox: Inbox) -> io::Result<RunningControl> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = blocking::channel();
        let run = move || {
            // Lost however this ends.
            let _end: blocking::Sender<()> = end;
            LocalSet::new().block_on(&runtime, self.run(inbox, stopped));
            // A name whose lookup hangs must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(run)?;
        Ok(RunningControl {
            stop,
            thread,
            ended,
        })
    }

    async fn run(mut self, mut inbox: Inbox, mut stopped: watch::Receiver<bool>) {
        self.follow_backends();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.pulse.beat("deciding");
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => self.tick(),
                Some(result) = inbox.probed.recv() => self.probed(&result),
                Some(surveyed) = inbox.surveyed.recv() => self.surveyed(surveyed),
                Some(looked_up) = inbox.looked_up.recv() => self.looked_up(looked_up),
                Some(report) = inbox.reports.recv() => self.reported(report),
                Some(command) = inbox.commands.recv() => self.obey(command),
                Some(replayed) = inbox.replayed.recv() => {
                    let now_ms = self.clock.now_ms();
                    self.missed.replayed(&mut self.pool_state, replayed, now_ms);
                }
                Some(read) = inbox.files.recv() => self.files_read(read),
            }
        }
    }

    /// Writes anew what a disk did not take.
    fn mend(&mut self) {
        self.pulse.beat("writing the journal of removals");
        self.missed.mend();
        if self.in_force.writer.is_unsure() {
            self.pulse.beat("writing the state file");
            // What cannot be put in force says so.
            let _ = self
                .in_force
                .write(&self.pool_state, BootMoment::of(self.clock));
        }
        self.pulse.beat("deciding");
    }

    /// What lives long makes handovers long, after a restart, too.
    fn look_at_timeouts(&mut self, now_ms: u64) {
        let minutes = self.shared.take_longest_timeout();
        let is_news = self.pool_state.is_timeout_news(minutes, now_ms);
        let mut next = self.pool_state.clone();
        next.saw_timeout(minutes, now_ms);
        if is_news {
            self.try_to_put_in_force(next);
        } else {
            self.pool_state = next;
        }
    }

    /// Whether the first meeting is over and what it has shown in force.
    fn has_met(&mut self, now_ms: u64) -> bool {
        let Some(meeting) = self.first_meeting.as_ref() else {
            return false;
        };
        if !meeting.is_over(&self.peers, self.pool_state.awaits_address(), now_ms) {
            return false;
        };
        let is_remembered = meeting.is_remembered();
        let before = self.pool_state.overrides();
        let mut next = self.pool_state.clone();
        next.adopt_decisions(now_ms);
        let is_left_behind = next.learn_memberships();
        let mut notices = Vec::new();
        if is_remembered && is_left_behind {
            notices.extend(next.join_anew(now_ms));
        } else if !is_remembered {
            notices.extend(next.join_peers(now_ms));
        }
        notices.extend(next.tick(now_ms));
        let is_in_force = self.try_to_put_in_force(next);
        if is_in_force {
            if is_left_behind {
                self.missed.forget_all(&mut self.pool_state);
            }
            self.tell_overrides(&before);
            self.publisher.tell(&notices, now_ms);
        }
        is_in_force
    }

    /// Remembers what an engine says of itself, and logs what is new and dangerous.
    fn surveyed(&mut self, Surveyed { backend_id, found }: Surveyed) {
        let backend = self.pool_state.name_of(backend_id);
        let engines = &mut self.publisher.noticed.engines;
        let before = engines.get(&backend_id).map(|before| &before.dangers);
        if before != Some(&found.dangers) {
            for danger in &found.dangers {
                let Finding { says, action, .. } = Finding::engine_danger(backend, danger);
                tracing::warn!("{says}; {action}");
            }
        }
        engines.insert(backend_id, found);
    }

    fn looked_up(&mut self, looked_up: LookedUp) {
        let LookedUp {
            backend_id,
            in_map,
            found,
        } = looked_up;
        let now_ms = self.clock.now_ms();
        self.pool_state
            .looked_up(backend_id, &in_map, found, now_ms);
        self.advance();
        // Another address may have to be probed now.
        self.follow_backends();
    }

    fn probed(&mut self, result: &ProbeResult) {
        let Some(member) = self.pool_state.member(result.backend_id) else {
            return;
        };
        if member.address() == Some(result.address) {
            member.metrics.count_probe(result.outcome);
            let now_ms = self.clock.now_ms();
            if result.outcome == Err(Failure::Shortage) {
                self.probes.complain(&member.spec.name, now_ms);
            }
            let change = self
                .pool_state
                .probed(result.backend_id, result.outcome, now_ms);
            self.health_changed(result.backend_id, change);
        } else {
            let ProbeResult {
                backend_id,
                address,
                outcome,
            } = *result;
            self.pool_state.probed_other(backend_id, address, outcome);
            self.advance();
        }
    }

    fn reported(&mut self, report: Report) {
        let now_ms = self.clock.now_ms();
        match report {
            Report::Failed {
                backend_id,
                failure,
            } => {
                if self.bursts.counts(backend_id, now_ms) {
                    let change = self.pool_state.request_failed(backend_id, failure, now_ms);
                    self.health_changed(backend_id, change);
                }
            }
            Report::FarmSign(sign) => {
                let app = self.shared.app_names.name(sign.start_hash);
                self.publisher.noticed.web_farm.saw(&sign, app, now_ms);
            }
            Report::IdUse(seen) => self.publisher.noticed.shared_ids.saw(seen, now_ms),
            Report::MissedDelete(missed) => {
                self.pulse.beat("writing the journal of removals");
                self.missed.note(&mut self.pool_state, missed, now_ms);
            }
        }
    }

    fn health_changed(&mut self, backend_id: BackendId, change: Option<Change>) {
        let Some(change) = change else {
            return;
        };
        let Change { to, reason, .. } = change;
        let member = self.pool_state.member(backend_id);
        if let Some(member) = member {
            member.metrics.count_health_change(to);
        }
        let backend = member.map_or("", |member| &member.spec.name);
        let address = member.and_then(|member| member.address());
        let address = address.map(tracing::field::display);
        match to {
            HealthState::Down => tracing::warn!(backend, address, "backend is {to}: {reason}"),
            HealthState::Up | HealthState::Suspect => {
                tracing::info!(backend, address, "backend is {to}: {reason}");
            }
        }
        self.publisher.history.note(Event {
            at_ms: self.clock.now_ms(),
            kind: EventKind::Health,
            level: match to {
                HealthState::Down => EventLevel::Error,
                HealthState::Suspect => EventLevel::Warn,
                HealthState::Up => EventLevel::Info,
            },
            backend: Some(backend.to_owned()),
            says: format!("is {to}: {reason}"),
        });
        self.publisher
            .reasons
            .insert(backend_id, reason.to_string());
        self.probes.suspect(backend_id, to == HealthState::Suspect);
        self.surveys.hurry(backend_id);
        self.follow_health(&change);
    }

    fn obey(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Reload(answer) => self.order_reload(answer),
            ControlCommand::Steer(order, answer) => {
                let _ = answer.send(self.steer(&order));
            }
            ControlCommand::DryRun(order, answer) => {
                let _ = answer.send(self.dry_run(&order));
            }
            ControlCommand::Pool(answer) => {
                let _ = answer.send(Box::new(self.pool_state.clone()));
            }
            ControlCommand::Peer(news) => self.peer_answered(news),
            ControlCommand::LeaveBehind {
                peer,
                is_dry_run,
                answer,
            } => {
                let _ = answer.send(self.leave_behind(&peer, is_dry_run));
            }
        }
    }

    fn peer_answered(&mut self, news: PeerNews) {
        let PeerNews {
            address,
            asked_ms,
            answer,
            is_there,
        } = news;
        let now_ms = self.clock.now_ms();
        let mut peers = self.pool_state.config().peers.iter();
        let index = peers.position(|peer| *peer == address);
        // It waited while control was held up, and the peer has gone on, or is none any more.
        let Some(index) = index.filter(|_| !is_old(asked_ms, now_ms)) else {
            return;
        };
        self.peers.met(index, is_there, asked_ms);
        let own = &self.publisher.about.instance;
        let view = match answer.map(|body| report::read(&body, own, now_ms)) {
            Ok(Err(PeerReportError::Itself)) => {
                self.peers.heard_itself(index);
                self.pool_state.set_left_out(index, true);
                return;
            }
            Ok(Ok(view)) if self.pool_state.is_left_behind(&view.membership) => {
                self.pool_state.set_peer(index, None);
                Err(LEFT_BEHIND.to_owned())
            }
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(failure) => Err(failure),
        };
        let said = view.as_ref().map(Said::from);
        let said = said.map_err(Clone::clone);
        self.peers.heard(index, said, asked_ms);
        let mut is_left_behind = false;
        // What it has said last counts until it is silent.
        if let Ok(view) = view {
            // Behind one address there may be another proxy later.
            self.pool_state.has_joined(index);
            // What there is to learn at the start is learned when all have been heard.
            if self.first_meeting.is_none() {
                is_left_behind = self.pool_state.learn_membership(index, &view.membership);
            }
            self.pool_state.set_peer(index, Some(view));
        }
        if is_left_behind {
            self.join_anew(now_ms);
        }
        self.adopt_decisions();
    }

    /// The others have gone on without this proxy: it goes on where they are.
    fn join_anew(&mut self, now_ms: u64) {
        let mut next = self.pool_state.clone();
        let mut notices = next.join_anew(now_ms);
        notices.extend(next.tick(now_ms));
        if self.try_to_put_in_force(next) {
            self.missed.forget_all(&mut self.pool_state);
            self.publisher.tell(&notices, now_ms);
        }
    }
}

impl ControlSteps for Control {
    type Error = StateFileError;

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn pool_state(&mut self) -> &mut PoolState {
        &mut self.pool_state
    }

    fn forget_silent_peers(&mut self, now_ms: u64) {
        for index in self.peers.silent(now_ms) {
            self.pool_state.set_peer(index, None);
        }
    }

    fn learn(&mut self, now_ms: u64) {
        self.look_at_timeouts(now_ms);
    }

    fn look_whether_followed(&mut self) -> bool {
        let copies_have_ended = || copy_watch::have_ended(&self.shared.copies, &self.pool_state);
        self.in_force
            .is_followed(&self.publisher.metrics, copies_have_ended)
    }

    fn meets_peers(&mut self, now_ms: u64) -> bool {
        self.has_met(now_ms)
    }

    fn look_at_copies(&mut self, next: &mut PoolState, now_ms: u64) -> (Vec<Slot>, Vec<Notice>) {
        self.copy_watch.look(&self.shared.copies, next, now_ms)
    }

    fn allow_restores(&mut self, until_ms: Option<u64>) {
        self.shared.copies.allow_restores(until_ms);
    }

    fn keep_missed(&mut self, missed: &[Slot]) {
        copy_watch::keep(&self.shared.copies, missed);
    }

    /// During the first meeting the slots stay: nobody is served yet, and what has become of them since
    /// the map was written only the peers know.
    fn take_on(&self, next: &mut PoolState, now_ms: u64) -> Vec<Notice> {
        match self.first_meeting {
            Some(_) => Vec::new(),
            None => next.tick(now_ms),
        }
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.in_force.is_due(now_ms)
    }

    fn write_and_show(&mut self, next: &PoolState) -> Result<(), StateFileError> {
        self.pulse.beat("writing the state file");
        self.in_force.put(next, BootMoment::of(self.clock))
    }

    fn is_written(&mut self, put: Result<(), StateFileError>) -> bool {
        let Err(error) = put else {
            self.publisher.noticed.unwritten = None;
            return true;
        };
        let now_ms = self.clock.now_ms();
        let mut repeat_ms = self
            .publisher
            .noticed
            .unwritten
            .as_ref()
            .map_or(0, |known| known.repeat_ms);
        if now_ms >= repeat_ms {
            repeat_ms = now_ms + REPEAT_MS;
            tracing::error!("cannot write the state file; handovers are paused: {error}");
        }
        let error = error.to_string();
        self.publisher.noticed.unwritten = Some(Unwritten { error, repeat_ms });
        false
    }

    fn show(&mut self) {
        self.in_force.show(&self.pool_state);
    }

    /// Looks up the names of the backends, too.
    fn follow_backends(&mut self) {
        self.names.follow(self.pool_state.names());
        let targets = self.pool_state.probe_targets();
        self.probes
            .follow(&self.pool_state.config().health, targets, |id, address| {
                self.pool_state.way_to_probe(id, address)
            });
        let engines: Vec<_> = self.pool_state.engines().collect();
        let is_asked = |id: BackendId| engines.iter().any(|(asked, _)| *asked == id);
        let known = &mut self.publisher.noticed.engines;
        known.retain(|id, _| is_asked(*id));
        self.surveys.follow(engines);
    }

    fn forget_pending_deletes(&mut self) {
        self.missed.forget(&mut self.pool_state);
    }

    fn replay_pending_deletes(&mut self, now_ms: u64) {
        self.missed.replay(&self.pool_state, now_ms);
    }

    fn tell(&mut self, notices: &[Notice], now_ms: u64) {
        self.publisher.tell(notices, now_ms);
    }

    fn look_around(&mut self, now_ms: u64) {
        self.publisher
            .count_sessions(&self.shared.account, &mut self.pool_state, now_ms);
        let is_wanted = self.pool_state.config().contents;
        self.shared.contents.switch(is_wanted);
        self.mend();
        self.publisher.sample(&self.pool_state, now_ms);
        self.publisher.follow_pauses(&self.pool_state, now_ms);
        self.publisher.follow_web_servers(now_ms);
        self.follow_files(now_ms);
        let own = Said::from(&self.pool_state);
        self.peers.set_gone(self.pool_state.gone_peers());
        self.peers.complain(&own, now_ms);
    }

    fn see_outage(&mut self, now_ms: u64) {
        self.publisher.follow_pauses(&self.pool_state, now_ms);
    }

    fn publish(&mut self) {
        let peers = self.peers.status(&Said::from(&self.pool_state));
        let now_ms = self.clock.now_ms();
        self.publisher
            .publish(&self.pool_state, &self.in_force, peers, now_ms);
    }

    fn serve(&mut self) {
        if let Some(meeting) = self.first_meeting.take() {
            meeting.end(&self.peers);
        }
    }
}

#[cfg(test)]
mod tests;
