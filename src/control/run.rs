//! The control thread: what happens goes into the engine, what it says goes out.
//!
//! Every step is tried on a copy of the engine. It counts once it is on disk, and only then the
//! data path and the peers see it.

use std::io;
use std::ptr;
use std::sync::{Arc, mpsc as blocking};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::accounting::Accounting;
use super::burst::Bursts;
use super::clock::Clock;
use super::engine::{Engine, Notice};
use super::files::{FileReader, FilesRead};
use super::handle::{Command, PeerNews, Published};
use super::history::{Event, EventKind, EventLevel, Recorder};
use super::names::{LookedUp, Names};
use super::noticed::{Noticed, Unwritten};
use super::owed::Owed;
use super::peer::{self, PeerReportError};
use super::peers::{FirstMeeting, Peers, Said, is_old};
use super::probes::{ProbeResult, Probes};
use super::pulse::Pulse;
use super::replay::{ReplayEvent, Replayed, Replays};
use super::state_file::StateFileError;
use super::state_lock::StateLock;
use super::state_writer::StateWriter;
use super::status::LastReload;
use super::view::{About, Known, Reasons};
use crate::backend::RemoveError;
use crate::config::LogLevel;
use crate::handover::{Place, SlotState};
use crate::health::{Change, Failure, Verdict};
use crate::log::{LevelHandle, LogLimit};
use crate::metrics::{Metrics, Reloads};
use crate::proxy::{self, Feedback, Report, SharedSnapshot};

/// How often the engine is asked what the time has changed.
const TICK: Duration = Duration::from_millis(250);

/// How often it is said again that the state file cannot be written.
const REPEAT_MS: u64 = 60_000;

/// How long the end of the program waits for control. What is in force is on disk at any time.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How often the state file is written while stages go on.
const WRITE_EVERY_MS: u64 = 60_000;

/// Threads for what cannot wait without one: looking up the names of backends.
const MAX_BLOCKING_THREADS: usize = 8;

/// Everything the control thread owns.
#[derive(Debug)]
pub struct Control {
    pub(super) clock: Clock,
    pub(super) pulse: Pulse,
    pub(super) about: About,
    pub(super) engine: Engine,
    /// The slots of the engine as they are on disk, for the peers.
    pub(super) in_force: Arc<[SlotState]>,
    pub(super) state: StateWriter,
    /// As long as this may write it.
    pub(super) _state_lock: StateLock,
    pub(super) owed: Owed,
    pub(super) replays: Replays,
    pub(super) probes: Probes,
    pub(super) names: Names,
    pub(super) snapshot: SharedSnapshot,
    pub(super) feedback: Arc<Feedback>,
    pub(super) published: watch::Sender<Arc<Published>>,
    /// `None` when there are no files to read again.
    pub(super) files: Option<FileReader>,
    pub(super) level: Option<LevelHandle>,
    pub(super) peers: Peers,
    /// `None` once clients are served.
    pub(super) first_meeting: Option<FirstMeeting>,
    pub(super) reasons: Reasons,
    pub(super) bursts: Bursts,
    pub(super) accounting: Accounting,
    pub(super) last_reload: Option<LastReload>,
    pub(super) reloads: Reloads,
    pub(super) history: Recorder,
    pub(super) noticed: Noticed,
    /// What the workers count.
    pub(super) metrics: Arc<Metrics>,
    /// When the state file was written.
    pub(super) written_ms: u64,
    /// Lines about removals that are refused: as many as clients ask for.
    pub(super) refused_removals: LogLimit,
}

/// What comes in.
#[derive(Debug)]
pub struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) probed: mpsc::Receiver<ProbeResult>,
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
                Some(looked_up) = inbox.looked_up.recv() => self.looked_up(looked_up),
                Some(report) = inbox.reports.recv() => self.reported(report),
                Some(command) = inbox.commands.recv() => self.obey(command),
                Some(replayed) = inbox.replayed.recv() => self.replayed(replayed),
                Some(read) = inbox.files.recv() => self.files_read(read),
            }
        }
    }

    fn tick(&mut self) {
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        self.look_at_timeouts(now_ms);
        let may_serve = self.has_met(now_ms);
        self.advance();
        self.count_sessions(now_ms);
        self.mend();
        self.replay(now_ms);
        self.sample(now_ms);
        self.follow_files(now_ms);
        let own = Said::from(&self.engine);
        self.peers.complain(&own, now_ms);
        self.publish();
        // What the peers said until now is in force.
        if let Some(meeting) = self.first_meeting.take_if(|_| may_serve) {
            meeting.end(&self.peers);
        }
    }

    /// Writes anew what a disk did not take.
    fn mend(&mut self) {
        self.pulse.beat("writing the journal of removals");
        // While it cannot be mended, each removal that is refused says so.
        let _ = self.owed.mend();
        if self.state.is_unsure() {
            self.pulse.beat("writing the state file");
            // What cannot be put in force says so.
            let _ = self.state.write(self.engine.memory(), self.clock.moment());
        }
        self.pulse.beat("deciding");
    }

    /// What lives long makes handovers long, after a restart, too.
    fn look_at_timeouts(&mut self, now_ms: u64) {
        let minutes = self.feedback.take_longest_timeout();
        let is_news = self.engine.is_timeout_news(minutes, now_ms);
        let mut next = self.engine.clone();
        next.saw_timeout(minutes, now_ms);
        if is_news {
            self.try_to_put_in_force(next);
        } else {
            self.engine = next;
        }
    }

    /// Whether the first meeting is over and what it has shown in force.
    fn has_met(&mut self, now_ms: u64) -> bool {
        let Some(meeting) = self.first_meeting.as_ref() else {
            return false;
        };
        if !meeting.is_over(&self.peers, self.engine.awaits_address(), now_ms) {
            return false;
        };
        let is_remembered = meeting.is_remembered();
        let before = self.engine.overrides();
        let mut next = self.engine.clone();
        next.adopt_decisions(now_ms);
        let mut notices = Vec::new();
        if !is_remembered {
            notices.extend(next.join_peers(now_ms));
        }
        notices.extend(next.tick(now_ms));
        let is_in_force = self.try_to_put_in_force(next);
        if is_in_force {
            self.tell_overrides(&before);
            self.tell(&notices);
        }
        is_in_force
    }

    fn count_sessions(&mut self, now_ms: u64) {
        self.accounting
            .follow(&self.feedback.account, &self.engine, now_ms);
        let members = self.engine.members().iter();
        let counted: Vec<_> = members
            .map(|member| {
                (
                    member.place,
                    self.accounting.load(member.place, member.spec.capacity),
                )
            })
            .collect();
        for (place, load) in counted {
            self.engine.set_sessions(place, load.sessions);
        }
    }

    fn sample(&mut self, now_ms: u64) {
        let members = self.engine.members().iter();
        let backends = members.map(|member| (member.place, &member.metrics));
        let unplaced = || self.metrics.unplaced();
        self.history.sample(now_ms, unplaced, backends);
        let members = self.engine.members().iter();
        let lost = members.map(|member| (member.place, member.metrics.absent_while_away()));
        self.noticed.lost.follow(lost, now_ms);
    }

    /// Nothing is decided by what peers said too long ago, however long control was held up.
    pub(super) fn forget_silent_peers(&mut self, now_ms: u64) {
        for index in self.peers.silent(now_ms) {
            self.engine.set_peer(index, None);
        }
    }

    /// Takes the slots on to where they are now.
    fn advance(&mut self) {
        let now_ms = self.clock.now_ms();
        self.forget_silent_peers(now_ms);
        self.engine.look_for_failed_moves(now_ms);
        let mut next = self.engine.clone();
        let notices = self.step(&mut next, now_ms);
        // They are copied when one changes.
        let is_changed = !notices.is_empty() || !ptr::eq(next.slots(), self.engine.slots());
        // After the machine was down, what is not written down has taken no time.
        let is_due = next.is_under_way() && now_ms >= self.written_ms + WRITE_EVERY_MS;
        if !is_changed && !is_due {
            // What has been said of it may be over, and is news when it comes again.
            self.engine = next;
        } else if self.try_to_put_in_force(next) {
            self.tell(&notices);
        }
    }

    /// Takes the slots of `next` on. During the first meeting they stay: nobody is served yet, and
    /// what has become of them since the map was written only the peers know.
    pub(super) fn step(&self, next: &mut Engine, now_ms: u64) -> Vec<Notice> {
        match self.first_meeting {
            Some(_) => Vec::new(),
            None => next.tick(now_ms),
        }
    }

    pub(super) fn try_to_put_in_force(&mut self, next: Engine) -> bool {
        let Err(error) = self.put_in_force(next) else {
            self.noticed.unwritten = None;
            return true;
        };
        let now_ms = self.clock.now_ms();
        let mut repeat_ms = self
            .noticed
            .unwritten
            .as_ref()
            .map_or(0, |known| known.repeat_ms);
        if now_ms >= repeat_ms {
            repeat_ms = now_ms + REPEAT_MS;
            tracing::error!("cannot write the state file; handovers are paused: {error}");
        }
        let error = error.to_string();
        self.noticed.unwritten = Some(Unwritten { error, repeat_ms });
        false
    }

    /// Writes the next state down, then shows it to the data path.
    pub(super) fn put_in_force(&mut self, next: Engine) -> Result<(), StateFileError> {
        self.pulse.beat("writing the state file");
        self.state.write(next.memory(), self.clock.moment())?;
        self.written_ms = self.clock.now_ms();
        self.engine = next;
        self.in_force = self.engine.shared_slots();
        self.show_data_path();
        self.follow_backends();
        self.forget_owed();
        Ok(())
    }

    fn show_data_path(&self) {
        self.snapshot.store(Arc::new(self.engine.snapshot()));
    }

    /// Shows everybody else what is in force.
    pub(super) fn publish(&mut self) {
        let published = Arc::new(self.next_published());
        self.published.send_replace(published);
    }

    fn next_published(&mut self) -> Published {
        self.about.publish(Known {
            engine: &self.engine,
            in_force: &self.in_force,
            reasons: &self.reasons,
            accounting: &self.accounting,
            last_reload: self.last_reload.clone(),
            reloads: self.reloads,
            peers: self.peers.status(&Said::from(&self.engine)),
            history: self.history.history(),
            noticed: self.noticed(),
            since: &mut self.noticed.since,
        })
    }

    /// Looks up the names of the backends, and probes those that are in use.
    fn follow_backends(&mut self) {
        self.names.follow(self.engine.names());
        let targets = self.engine.probe_targets();
        self.probes.follow(&self.engine.config().health, targets);
    }

    fn looked_up(&mut self, looked_up: LookedUp) {
        let LookedUp {
            place,
            in_map,
            found,
        } = looked_up;
        let now_ms = self.clock.now_ms();
        self.engine.looked_up(place, &in_map, found, now_ms);
        self.advance();
        // Another address may have to be probed now.
        self.follow_backends();
    }

    fn probed(&mut self, result: &ProbeResult) {
        let mut members = self.engine.members().iter();
        let Some(member) = members.find(|member| member.place == result.place) else {
            return;
        };
        if member.address() == Some(result.address) {
            member.metrics.count_probe(result.outcome);
            let now_ms = self.clock.now_ms();
            if result.outcome == Err(Failure::Shortage) {
                self.probes.complain(&member.spec.name, now_ms);
            }
            let change = self.engine.probed(result.place, result.outcome, now_ms);
            self.health_changed(result.place, change);
        } else {
            let ProbeResult {
                place,
                address,
                outcome,
            } = *result;
            self.engine.probed_other(place, address, outcome);
            self.advance();
        }
    }

    fn reported(&mut self, report: Report) {
        let now_ms = self.clock.now_ms();
        match report {
            Report::Failed { place, failure } => {
                if self.bursts.counts(place, now_ms) {
                    let change = self.engine.request_failed(place, failure, now_ms);
                    self.health_changed(place, change);
                }
            }
            Report::Owed(owed) => self.owe(owed),
        }
    }

    fn health_changed(&mut self, place: Place, change: Option<Change>) {
        let Some(Change { from, to, reason }) = change else {
            return;
        };
        let members = self.engine.members();
        let member = members.iter().find(|member| member.place == place);
        if let Some(member) = member {
            member.metrics.count_health_change(to);
        }
        let backend = member.map_or("", |member| &member.spec.name);
        let address = member.and_then(|member| member.address());
        let address = address.map(tracing::field::display);
        match to {
            Verdict::Down => tracing::warn!(backend, address, "backend is {to}: {reason}"),
            Verdict::Up | Verdict::Suspect => {
                tracing::info!(backend, address, "backend is {to}: {reason}");
            }
        }
        self.history.note(Event {
            at_ms: self.clock.now_ms(),
            kind: EventKind::Health,
            level: match to {
                Verdict::Down => EventLevel::Error,
                Verdict::Suspect => EventLevel::Warn,
                Verdict::Up => EventLevel::Info,
            },
            backend: Some(backend.to_owned()),
            says: format!("is {to}: {reason}"),
        });
        self.reasons.insert(place, reason.to_string());
        self.probes.suspect(place, to == Verdict::Suspect);
        if from == Verdict::Down || to == Verdict::Down {
            self.advance();
            self.show_data_path();
            self.follow_backends();
        }
        self.publish();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(answer) => self.order_reload(answer),
            Command::Steer(order, answer) => {
                let _ = answer.send(self.steer(&order));
            }
            Command::DryRun(order, answer) => {
                let _ = answer.send(self.dry_run(&order));
            }
            Command::Pool(answer) => {
                let _ = answer.send(Box::new(self.engine.clone()));
            }
            Command::Peer(news) => self.peer_answered(news),
        }
    }

    fn peer_answered(&mut self, news: PeerNews) {
        let PeerNews {
            index,
            asked_ms,
            answer,
        } = news;
        let now_ms = self.clock.now_ms();
        // It waited while control was held up, and the peer has gone on.
        if is_old(asked_ms, now_ms) {
            return;
        }
        let own = &self.about.instance;
        let view = match answer.map(|body| peer::read(&body, own, now_ms)) {
            Ok(Err(PeerReportError::Itself)) => {
                self.peers.heard_itself(index);
                self.engine.set_peer_is_itself(index, true);
                return;
            }
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(failure) => Err(failure),
        };
        // Behind one address there may be another proxy later.
        if view.is_ok() {
            self.engine.set_peer_is_itself(index, false);
        }
        let said = view.as_ref().map(Said::from);
        let said = said.map_err(Clone::clone);
        self.peers.heard(index, said, asked_ms);
        self.engine.set_peer(index, view.ok());
        self.adopt_decisions();
    }

    fn owe(&mut self, proxy::Owed { to, target, noted }: proxy::Owed) {
        self.pulse.beat("writing the journal of removals");
        let mut members = self.engine.members().iter();
        let kept = match members.find(|member| member.place == to) {
            None => true,
            Some(member) => match self.owed.append(to, &member.spec.name, &target) {
                Ok(()) => true,
                Err(error) => {
                    if let Some(suppressed) = self.refused_removals.allow(self.clock.now_ms()) {
                        tracing::error!(
                            suppressed,
                            "a request that ends a session is refused, the pending delete cannot be noted: {error}"
                        );
                    }
                    false
                }
            },
        };
        self.engine.set_owed(to, self.owed.count(to));
        // The client may have left.
        let _ = noted.send(kept);
    }

    /// Tells the backends that answer what they missed.
    fn replay(&mut self, now_ms: u64) {
        let timeout = self.engine.config().timeouts.answer;
        for member in self.engine.members() {
            if member.owed > 0
                && member.is_up()
                && let Some(address) = member.address()
            {
                self.replays
                    .begin(member.place, address, timeout, &self.owed, now_ms);
            }
        }
    }

    fn replayed(&mut self, Replayed { place, event }: Replayed) {
        match event {
            ReplayEvent::Removed(target) => {
                if let Err(error) = self.owed.replayed(place, &target) {
                    tracing::warn!("{error}");
                    self.replays.not_noted(place);
                }
                self.engine.set_owed(place, self.owed.count(place));
            }
            ReplayEvent::Ended(result) => {
                let now_ms = self.clock.now_ms();
                // What is not noted has been told of.
                if self.replays.ended(place, result.is_err(), now_ms) || result.is_err() {
                    self.log_replay(place, result);
                }
            }
        }
    }

    fn log_replay(&self, place: Place, result: Result<(), RemoveError>) {
        let members = self.engine.members();
        let backend = members.iter().find(|member| member.place == place);
        let backend = backend.map_or("", |member| &member.spec.name);
        match result {
            Ok(()) => tracing::info!(
                backend,
                "backend has got the pending deletes, which it had missed"
            ),
            Err(error) => tracing::warn!(
                backend,
                left = self.owed.count(place),
                "backend does not take the pending deletes, and is not served from before: {error}"
            ),
        }
    }

    /// Nothing is owed to a backend that no slot needs, that was given up, or whose id another one
    /// has now.
    fn forget_owed(&mut self) {
        for place in (1..=u8::MAX).filter_map(Place::new) {
            let mut members = self.engine.members().iter();
            let member = members.find(|member| member.place == place && !member.is_off());
            let backend = member.map(|member| member.spec.name.as_str());
            if let Err(error) = self.owed.keep(place, backend) {
                tracing::warn!("{error}");
            }
            // It would wait for them for ever once it is turned on again.
            self.engine.set_owed(place, self.owed.count(place));
        }
    }

    /// Logs what is new in the slots, and remembers it.
    pub(super) fn tell(&mut self, notices: &[Notice]) {
        self.history.note_slots(notices, self.clock.now_ms());
        for Notice { level, text } in notices {
            match level {
                LogLevel::Error => tracing::error!("{text}"),
                LogLevel::Warn => tracing::warn!("{text}"),
                LogLevel::Info => tracing::info!("{text}"),
                LogLevel::Debug => tracing::debug!("{text}"),
                LogLevel::Trace => tracing::trace!("{text}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
