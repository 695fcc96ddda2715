//! Where control begins: from what is on disk.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::boot_moment::BootMoment;
use super::contents::ContentsBoard;
use super::copy_watch::CopyWatch;
use super::event_loop::{Control, Inbox};
use super::files::read::{FileReader, Files, FilesRead};
use super::handle::{ControlHandle, Published, handle};
use super::in_force::InForce;
use super::missed_deletes::MissedDeletes;
use super::overrides;
use super::peers::roster::{FirstMeeting, Peers, Said};
use super::persist::pending_deletes::{PendingDeletes, PendingDeletesError};
use super::persist::replay::Replays;
use super::persist::state_file::{self, StateFileError};
use super::persist::state_lock::{StateLock, StateLockError};
use super::persist::state_writer::StateWriter;
use super::pool_state::{PoolState, ResumeError};
use super::probing::coalesced_failures::CoalescedFailures;
use super::probing::engines::{Engines, MakeConnector};
use super::probing::name_lookup::Names;
use super::probing::probes::Probes;
use super::probing::surveys::Surveys;
use super::publish::{About, Known, Reasons, Sources};
use super::publisher::Publisher;
use super::pulse::Pulse;
use super::reload;
use super::report::history::Recorder;
use super::report::noticed::Noticed;
use super::report::status::{LastReload, ReloadOutcome, ReloadResult};
use super::report::usage_estimates::UsageEstimates;
use crate::config::{Config, PartitionMap};
use crate::log::LevelHandle;
use crate::metrics::{Metrics, Reloads};
use crate::net::UnixClock;
use crate::proxy::{SharedSnapshot, WorkersShared, share};
use crate::tls::TlsWatch;

/// What control begins with.
#[derive(Debug)]
pub struct ControlOptions {
    /// The main file.
    pub config: Config,
    /// The partition map.
    pub map: PartitionMap,
    /// Path of the main file; `None` when both come from elsewhere and are never read again.
    pub main_file: Option<PathBuf>,
    /// The way to change the log level.
    pub level: Option<LevelHandle>,
    /// The certificates that this proxy shows and trusts.
    pub certificates: TlsWatch,
    /// Makes the way to an engine of the map.
    pub engines: MakeConnector,
}

/// Control could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The state file cannot be had for this proxy alone.
    #[error(transparent)]
    Lock(#[from] StateLockError),
    /// The journal of removals cannot be used.
    #[error(transparent)]
    PendingDeletes(#[from] PendingDeletesError),
    /// What is on disk cannot be gone on with, or the map gives no placement.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The system gives no thread or event queue.
    #[error("cannot start the threads of control: {0}")]
    Thread(#[source] io::Error),
}

/// What the rest of the program has of control.
#[derive(Debug, Clone)]
pub struct ControlEnds {
    /// What is in force.
    pub snapshot: SharedSnapshot,
    /// Where the data path tells what it sees.
    pub shared: Arc<WorkersShared>,
    /// What others may ask.
    pub handle: ControlHandle,
    /// Where the workers count.
    pub metrics: Arc<Metrics>,
}

/// What control leaves on disk and shows others when it has begun.
#[derive(Debug)]
pub struct Prepared {
    /// To be run.
    pub control: Control,
    /// What it listens to.
    pub inbox: Inbox,
    /// For everybody else.
    pub ends: ControlEnds,
    /// Ends, one way or the other, when clients may be served: a proxy first hears its peers and looks
    /// up its backends' names, or waits 3 s for that. Peers must be asked meanwhile, and answered.
    pub may_serve: oneshot::Receiver<()>,
}

/// The pool to begin with.
struct Begun {
    pool_state: PoolState,
    last_reload: Option<LastReload>,
    /// There was a state file.
    is_remembered: bool,
    state: StateWriter,
    state_lock: StateLock,
    pending_deletes: PendingDeletes,
}

/// Reads what is on disk, and puts the first snapshot in force. If the partition map may not follow
/// the one that was in force before, that one stays, and the log says so.
///
/// # Errors
/// [`ControlError`].
pub fn prepare(options: ControlOptions) -> Result<Prepared, ControlError> {
    let files = options
        .main_file
        .map(|main| Files::new(main, &options.config, &options.map));
    let faults = files.as_ref().map(Files::faults_at_start);
    let clock = UnixClock::start();
    let faults = faults.unwrap_or_default();
    let mut begun = begin(options.config, options.map, faults, clock)?;
    begun.pool_state.set_engines(Engines::new(options.engines));
    for problem in begun.pool_state.read_certificates() {
        tracing::error!("a backend of the last run is not reached: {problem}");
    }
    begun.pool_state.follow_certificates(&options.certificates);
    assemble(begun, files, (options.level, options.certificates), clock)
}

fn assemble(
    begun: Begun,
    files: Option<Files>,
    (level, certificates): (Option<LevelHandle>, TlsWatch),
    clock: UnixClock,
) -> Result<Prepared, ControlError> {
    let (pool_state, last_reload) = (begun.pool_state, begun.last_reload);
    let about = About::new(clock);
    let (reloads, history) = first_history(last_reload.as_ref(), clock);
    let accounting = UsageEstimates::new(clock.now_ms());
    let peers = Peers::new(&pool_state.config().peers, clock.now_ms());
    let (first_meeting, may_serve) = first_meeting(&pool_state, begun.is_remembered, clock);
    let mut noticed = Noticed {
        certificates,
        ..Noticed::default()
    };
    let first = about.publish(Known {
        pool_state: &pool_state,
        in_force: &pool_state.shared_slots(),
        followed: &pool_state.shared_slots(),
        sources: Sources::new(&Reasons::new(), &accounting, &HashMap::new()),
        last_reload: last_reload.clone(),
        reloads,
        peers: peers.status(&Said::from(&pool_state)),
        history: history.history(),
        noticed: Vec::new(),
        last_failover: None,
        contended_sessions: 0,
        certificates: noticed.certificates.states(),
        since: &mut noticed.since,
    });
    let (files, files_read) = read_on_a_thread(files)?;
    let channels = open_channels(&pool_state, first, files_read, clock)?;
    let ends = channels.ends;
    let control = Control {
        clock,
        pulse: channels.pulse,
        in_force: InForce::new(
            begun.state,
            begun.state_lock,
            Arc::clone(&ends.snapshot),
            &pool_state,
            clock.now_ms(),
        ),
        pool_state,
        missed: MissedDeletes::new(begun.pending_deletes, channels.replays),
        publisher: Publisher {
            about,
            published: channels.published,
            reasons: Reasons::new(),
            accounting,
            last_reload,
            reloads,
            history,
            noticed,
            metrics: Arc::clone(&ends.metrics),
        },
        probes: channels.probes,
        surveys: channels.surveys,
        names: channels.names,
        bursts: CoalescedFailures::default(),
        copy_watch: CopyWatch::default(),
        shared: Arc::clone(&ends.shared),
        files,
        level,
        peers,
        first_meeting,
    };
    Ok(Prepared {
        control,
        inbox: channels.inbox,
        ends,
        may_serve,
    })
}

/// What there is to learn before clients are served, if anything.
fn first_meeting(
    pool_state: &PoolState,
    is_remembered: bool,
    clock: UnixClock,
) -> (Option<FirstMeeting>, oneshot::Receiver<()>) {
    let asks_peers = !pool_state.config().peers.is_empty();
    let (meeting, may_serve) = FirstMeeting::new(asks_peers, is_remembered, clock.now_ms());
    let has_to_ask = asks_peers || pool_state.awaits_address();
    (has_to_ask.then_some(meeting), may_serve)
}

/// How control and everybody else hear of each other.
struct Channels {
    ends: ControlEnds,
    inbox: Inbox,
    probes: Probes,
    surveys: Surveys,
    names: Names,
    replays: Replays,
    published: watch::Sender<Arc<Published>>,
    pulse: Pulse,
}

fn read_on_a_thread(
    files: Option<Files>,
) -> Result<(Option<FileReader>, mpsc::Receiver<FilesRead>), ControlError> {
    let Some(files) = files else {
        return Ok((None, mpsc::channel(1).1));
    };
    let (reader, read) = FileReader::start(files).map_err(ControlError::Thread)?;
    Ok((Some(reader), read))
}

fn open_channels(
    pool_state: &PoolState,
    first: Published,
    files: mpsc::Receiver<FilesRead>,
    clock: UnixClock,
) -> Result<Channels, ControlError> {
    let (shared, reports, events) = WorkersShared::channel(clock);
    let contents = ContentsBoard::start(events).map_err(ControlError::Thread)?;
    let (handle, end) = handle(first, contents);
    let (probes, probed) = Probes::new(&pool_state.config().health);
    let (surveys, surveyed) = Surveys::new();
    let (names, looked_up) = Names::new();
    let (replays, replayed) = Replays::new();
    Ok(Channels {
        ends: ControlEnds {
            snapshot: share(pool_state.snapshot()),
            shared,
            handle,
            metrics: Arc::default(),
        },
        inbox: Inbox {
            commands: end.commands,
            reports,
            probed,
            surveyed,
            looked_up,
            replayed,
            files,
        },
        probes,
        surveys,
        names,
        replays,
        published: end.published,
        pulse: end.pulse,
    })
}

/// What is counted and remembered from the start: a map that was refused then.
fn first_history(last_reload: Option<&LastReload>, clock: UnixClock) -> (Reloads, Recorder) {
    let mut history = Recorder::new(clock.now_ms());
    if let Some(LastReload { at_ms, outcome }) = last_reload {
        let events = reload::events(outcome, *at_ms);
        events.into_iter().for_each(|event| history.note(event));
    }
    (reload::counted(last_reload), history)
}

/// The partition map that was in force last, for a proxy whose map on disk is faulty; `None` where
/// there is no state file, or none that can be read.
#[must_use]
pub fn last_map(config: &Config) -> Option<PartitionMap> {
    let now = BootMoment::of(UnixClock::start());
    let read = state_file::read(&config.handover.state_file, &now);
    read.ok().flatten().map(|read| read.memory.map)
}

/// The pool as it was, under the map as it is, if that may follow. `faults` are those of a map on
/// disk that `map` stands in for.
fn begin(
    config: Config,
    map: PartitionMap,
    faults: Vec<String>,
    clock: UnixClock,
) -> Result<Begun, ControlError> {
    let now_ms = clock.now_ms();
    let path = config.handover.state_file.clone();
    let state_lock = StateLock::take(&path, &beside(&path, ".lock"))?;
    let remembered = state_file::read(&path, &BootMoment::of(clock))?;
    let is_remembered = remembered.is_some();
    let (mut pool_state, faults) = match remembered {
        None => (PoolState::new(config, map, now_ms)?, Vec::new()),
        Some(remembered) => {
            let mut pool_state = PoolState::resume(config, remembered.memory, now_ms)?;
            if remembered.is_time_unknown {
                pool_state.doubt_suspicions();
            }
            let refused = pool_state.accept(map, now_ms).err();
            overrides::log_overrides(&[], &pool_state.overrides());
            let refused = refused.map(|refused| vec![refused.to_string()]);
            (pool_state, refused.unwrap_or(faults))
        }
    };
    let last_reload = (!faults.is_empty()).then(|| refusal(&pool_state, faults, clock));
    // Also shows that it can be written.
    let mut state = StateWriter::start(&path).map_err(ControlError::Thread)?;
    state.write(pool_state.memory(), BootMoment::of(clock))?;
    let pending_deletes = open_pending_deletes(&path, &mut pool_state)?;
    Ok(Begun {
        pool_state,
        last_reload,
        is_remembered,
        state,
        state_lock,
        pending_deletes,
    })
}

fn refusal(pool_state: &PoolState, faults: Vec<String>, clock: UnixClock) -> LastReload {
    let outcome = ReloadOutcome {
        result: ReloadResult::Refused,
        map_version: pool_state.map().version,
        faults,
        needs_restart: Vec::new(),
    };
    reload::log(&outcome);
    LastReload {
        at_ms: clock.now_ms(),
        outcome,
    }
}

/// The journal beside the state file; the pool state is told what it holds.
fn open_pending_deletes(
    state_file: &Path,
    pool_state: &mut PoolState,
) -> Result<PendingDeletes, PendingDeletesError> {
    let name_of = |backend_id| {
        let member = pool_state.member(backend_id);
        member.map(|member| member.spec.name.as_str())
    };
    let pending_deletes = PendingDeletes::open(&beside(state_file, ".owed"), name_of)?;
    let places: Vec<_> = pool_state
        .members()
        .iter()
        .map(|member| member.backend_id)
        .collect();
    for backend_id in places {
        pool_state.set_pending_deletes(backend_id, pending_deletes.count(backend_id));
    }
    Ok(pending_deletes)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}
