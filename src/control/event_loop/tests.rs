use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use tokio::sync::oneshot;

use super::*;
use crate::backend::Connector;
use crate::config::{BackendAddress, Config, PEER_SILENCE, PartitionMap};
use crate::control::file_thread::FileThread;
use crate::control::peers::report::PeerState;
use crate::control::persist::pending_deletes::MAX_PENDING;
use crate::control::persist::state_file;
use crate::control::persist::state_writer::StateWriter;
use crate::control::pool_state::persisted_state::PersistedState;
use crate::control::pool_state::{KnownPeers, Membership};
use crate::control::session_timeouts::SeenTimeouts;
use crate::control::{ControlOptions, Prepared, prepare};
use crate::handover::SlotState;
use crate::health::Failure;
use crate::route::SLOT_COUNT;

const SILENCE_MS: u64 = PEER_SILENCE.as_millis() as u64;

/// A map of backends whose ids are their positions.
fn map(version: u64, backends: &[&str]) -> PartitionMap {
    let mut text = format!("version: {version}\nbackends:\n");
    for (name, id) in backends.iter().zip(1..) {
        text += &format!("- {{name: {name}, id: {id}, address: '127.0.0.{id}:1'}}\n");
    }
    PartitionMap::parse(text, "map.yaml").unwrap()
}

fn backend_id(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

/// Control in `directory`, in which a state file may stand.
fn prepared(directory: &Path, map: PartitionMap) -> Prepared {
    prepared_with_peers(directory, map, &[])
}

fn prepared_with_peers(directory: &Path, map: PartitionMap, peers: &[&str]) -> Prepared {
    let mut config = Config::new("map.yaml");
    config.handover.state_file = directory.join("state");
    let peers = peers.iter().map(|peer| BackendAddress::parse(peer));
    config.peers = peers.collect::<Result<_, _>>().unwrap();
    let options = ControlOptions {
        config,
        map,
        main_file: None,
        level: None,
        certificates: Default::default(),
        engines: |_, _| Connector::Nowhere,
    };
    prepare(options).unwrap()
}

/// What a proxy leaves behind whose slots are all at the first backend.
fn leave_behind(directory: &Path, map: PartitionMap) {
    let memory = PersistedState {
        map,
        decisions: Vec::new(),
        retired: Vec::new(),
        given_up: Vec::new(),
        servers: Vec::new(),
        failing: Vec::new(),
        timeouts: SeenTimeouts::default(),
        known_peers: KnownPeers::default(),
        slots: vec![SlotState::steady(backend_id(1), 0); SLOT_COUNT].into(),
    };
    state_file::write(
        &directory.join("state"),
        &memory,
        BootMoment::of(UnixClock::start()),
    )
    .unwrap();
}

fn run(scene: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, scene);
}

#[test]
fn a_backend_is_not_told_what_the_one_before_with_its_id_has_missed() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        leave_behind(path, map(1, &["a", "b", "c"]));
        let mut control = prepared(path, map(1, &["a", "b", "c"])).control;
        control
            .missed
            .journal
            .append(backend_id(3), "c", b"/x(abc)/1")
            .unwrap();
        let journal = fs::read(path.join("state.owed")).unwrap();
        let mut next = control.pool_state.clone();
        let accepted = next.accept(map(2, &["a", "b", "d"]), control.clock.now_ms());
        assert!(accepted.unwrap().is_some());
        control.put_in_force(next).unwrap();
        assert_eq!(control.missed.journal.count(backend_id(3)), 0);
        drop(control);

        // It ended between the new state and the new journal.
        fs::write(path.join("state.owed"), journal).unwrap();
        let control = prepared(path, map(2, &["a", "b", "d"])).control;
        let pending: Vec<_> = control
            .pool_state
            .members()
            .iter()
            .map(|it| it.pending_deletes)
            .collect();
        assert_eq!(pending, [0, 0, 0]);
    });
}

/// The answer of a peer whose slots are all at the backend of this id, and have long been.
fn answer_of_peer(id: u8, asked_ms: u64) -> PeerNews {
    let peer = PeerState {
        instance: "them".to_owned(),
        map_version: 1,
        decisions: Vec::new(),
        up: vec![backend_id(1), backend_id(2)],
        pending: Vec::new(),
        servers: Vec::new(),
        off: Vec::new(),
        gone: Vec::new(),
        timeouts: SeenTimeouts::default(),
        membership: Membership::default(),
        slots: vec![SlotState::steady(backend_id(id), 0); SLOT_COUNT].into(),
        clock: UnixClock::start(),
    };
    PeerNews {
        address: BackendAddress::parse("10.0.1.1:42480").unwrap(),
        asked_ms,
        answer: Ok(serde_json::to_vec(&peer.report()).unwrap()),
        is_there: true,
    }
}

#[test]
fn a_proxy_that_remembers_nothing_serves_from_where_its_peers_do() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let map = map(1, &["a", "b"]);
        let prepared = prepared_with_peers(directory.path(), map, &["10.0.1.1:42480"]);
        let (mut control, mut may_serve) = (prepared.control, prepared.may_serve);
        control.tick();
        may_serve.try_recv().unwrap_err();
        control.peer_answered(answer_of_peer(1, control.clock.now_ms()));
        control.tick();
        let is_there = |slot: &SlotState| *slot == SlotState::steady(backend_id(1), slot.since_ms);
        assert!(control.pool_state.slots().iter().all(is_there));
        may_serve.try_recv().unwrap();
    });
}

/// It is forgotten in a tick in which nothing else happens.
#[test]
fn what_is_pending_for_a_backend_that_only_a_peer_still_needs_goes_with_it() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        leave_behind(directory.path(), map(1, &["a", "b"]));
        let peers = ["10.0.1.1:42480"];
        let prepared = prepared_with_peers(directory.path(), map(2, &["a"]), &peers);
        let mut control = prepared.control;
        let journal = &mut control.missed.journal;
        journal.append(backend_id(2), "b", b"/x(abc)/1").unwrap();
        let mut hear_that_peer_is_at = |id: u8| {
            control.peer_answered(answer_of_peer(id, control.clock.now_ms()));
            control.tick();
            let is_known = control.pool_state.member(backend_id(2)).is_some();
            (is_known, control.missed.journal.count(backend_id(2)))
        };
        assert_eq!(hear_that_peer_is_at(2), (true, 1));
        assert_eq!(hear_that_peer_is_at(2), (true, 1));
        assert_eq!(hear_that_peer_is_at(1), (false, 0));
    });
}

#[test]
fn no_slot_goes_on_before_the_first_meeting_is_over() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let map = map(1, &["a", "b"]);
        let prepared = prepared_with_peers(directory.path(), map, &["10.0.1.1:42480"]);
        let mut control = prepared.control;
        let probe = |control: &Control, id: u8, outcome| ProbeResult {
            backend_id: backend_id(id),
            address: control.pool_state.members()[usize::from(id) - 1]
                .address()
                .unwrap(),
            outcome,
        };
        // The first one can stand in for the second.
        control.probed(&probe(&control, 1, Ok(())));
        for _ in 0..control.pool_state.config().health.fall {
            control.probed(&probe(&control, 2, Err(Failure::Refused)));
        }
        control.tick();
        let rests = |slot: &SlotState| slot.second.is_none();
        assert!(control.pool_state.slots().iter().all(rests));
        control.peer_answered(answer_of_peer(1, control.clock.now_ms()));
        control.tick();
        let is_there = |slot: &SlotState| *slot == SlotState::steady(backend_id(1), slot.since_ms);
        assert!(control.pool_state.slots().iter().all(is_there));
    });
}

#[test]
fn what_peers_said_while_control_was_held_up_is_as_old_as_the_question() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let map = map(1, &["a", "b"]);
        let prepared = prepared_with_peers(directory.path(), map, &["10.0.1.1:42480"]);
        let mut control = prepared.control;
        let now_ms = control.clock.now_ms();
        control.peer_answered(answer_of_peer(1, now_ms - SILENCE_MS));
        assert!(control.pool_state.peers()[0].is_none());
        control.peer_answered(answer_of_peer(1, now_ms));
        assert!(control.pool_state.peers()[0].is_some());
        // Nor does it get younger when something else comes in before the next tick.
        let own = Said::from(&control.pool_state);
        control.peers.heard(0, Ok(own), now_ms - SILENCE_MS);
        control.advance();
        assert!(control.pool_state.peers()[0].is_none());
    });
}

/// A disk that takes nothing until it is told to.
fn hanging_disk(control: &mut Control, directory: &Path) -> blocking::Sender<()> {
    let mut thread = FileThread::with_patience("test", Duration::from_millis(1)).unwrap();
    let (release, hang) = blocking::channel();
    thread.run(move || hang.recv()).unwrap_err();
    control.in_force.writer = StateWriter::with(&directory.join("state"), thread);
    release
}

#[test]
fn a_disk_that_hangs_stops_changes_and_neither_control_nor_its_end() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let Prepared { mut control, .. } = prepared(directory.path(), map(1, &["a", "b"]));
        let release = hanging_disk(&mut control, directory.path());
        let before = control.pool_state.slots().to_vec();
        let mut next = control.pool_state.clone();
        let now_ms = control.clock.now_ms();
        next.accept(map(2, &["a", "b", "c"]), now_ms).unwrap();
        let refused = control.put_in_force(next.clone()).unwrap_err().to_string();
        assert!(refused.contains("the disk has not answered"), "{refused}");
        control.tick();
        assert_eq!(control.pool_state.map().version, 1);
        assert_eq!(control.pool_state.slots(), before);
        assert!(control.in_force.writer.is_unsure());
        // Once it answers, the file says what is in force, and changes are taken again.
        drop(release);
        while control.in_force.writer.is_unsure() {
            control.tick();
        }
        let written = state_file::read(
            &directory.path().join("state"),
            &BootMoment::of(UnixClock::start()),
        )
        .unwrap();
        assert_eq!(written.unwrap().memory.map.version, 1);
        // It may be slow for a while.
        while control.put_in_force(next.clone()).is_err() {}
        assert_eq!(control.pool_state.map().version, 2);
    });
}

#[test]
fn a_write_that_the_disk_takes_too_late_is_made_up_for() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let Prepared { mut control, .. } = prepared(directory.path(), map(1, &["a", "b"]));
        let path = directory.path().join("state");
        let mut thread = FileThread::with_patience("test", Duration::from_millis(1)).unwrap();
        let mut next = control.pool_state.clone();
        let now_ms = control.clock.now_ms();
        next.accept(map(2, &["a", "b", "c"]), now_ms).unwrap();
        // The disk takes it, and control no longer waits for that.
        let (memory, to) = (next.memory(), path.clone());
        let (release, hang) = blocking::channel::<()>();
        let late = thread.run(move || {
            let _ = hang.recv();
            state_file::write(&to, &memory, BootMoment::of(UnixClock::start()))
        });
        late.unwrap_err();
        control.in_force.writer = StateWriter::with(&path, thread);
        control.put_in_force(next).unwrap_err();
        drop(release);
        while control.in_force.writer.is_unsure() {
            control.tick();
        }
        let written = state_file::read(&path, &BootMoment::of(UnixClock::start())).unwrap();
        assert_eq!(written.unwrap().memory.map.version, 1);
    });
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn removals_that_are_refused_do_not_fill_the_log() {
    const REFUSED: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let full: String = (0..MAX_PENDING)
        .map(|number| format!("{{\"place\":1,\"backend\":\"a\",\"target\":\"{number:06}\"}}\n"))
        .collect();
    fs::write(directory.path().join("state.owed"), full).unwrap();
    let mut control = prepared(directory.path(), map(1, &["a"])).control;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        for _ in 0..REFUSED {
            let (noted, mut kept) = oneshot::channel();
            control.reported(Report::MissedDelete(crate::proxy::PendingDelete {
                to: backend_id(1),
                target: b"one more".to_vec(),
                noted,
            }));
            assert_eq!(kept.try_recv(), Ok(false));
        }
    });
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let count = logged.matches("cannot be noted: 100000").count();
    assert!((1..REFUSED / 10).contains(&count), "{count} lines");
}
