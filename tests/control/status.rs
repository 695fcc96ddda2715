//! What control shows before it has asked anybody.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use staterouter::app::engines;
use staterouter::config::{Config, PartitionMap};
use staterouter::control::boot_moment::BootMoment;
use staterouter::control::persist::state_file;
use staterouter::control::pool_state::KnownPeers;
use staterouter::control::pool_state::persisted_state::PersistedState;
use staterouter::control::report::finding::Code;
use staterouter::control::report::status::{BackendHealth, BackendStatus};
use staterouter::control::{ControlError, ControlOptions, Prepared, prepare};
use staterouter::handover::{BackendId, SlotState, Stage};
use staterouter::net::UnixClock;
use staterouter::route::SLOT_COUNT;

const MAP: &str = "version: 1\nbackends:\n\
    - {name: a, id: 1, address: '10.0.0.1:1'}\n\
    - {name: b, id: 2, address: '10.0.0.2:1'}\n";

fn map() -> PartitionMap {
    PartitionMap::parse(MAP, "map.yaml").unwrap()
}

/// A proxy that begins with this state file.
fn begin(state_file: &Path, map: PartitionMap) -> Result<Prepared, ControlError> {
    let mut config = Config::new("map.yaml");
    config.handover.state_file = state_file.to_owned();
    prepare(ControlOptions {
        config,
        map,
        main_file: None,
        level: None,
        certificates: Default::default(),
        engines: engines::connector,
    })
}

/// Both backends as a proxy shows them that begins with this state file.
fn first_shown(state_file: &Path) -> Vec<BackendStatus> {
    let prepared = begin(state_file, map()).unwrap();
    prepared.ends.handle.published().status.backends.clone()
}

/// The state file of a proxy that had every slot in this state.
fn leave_behind(path: &Path, slot: SlotState) {
    let memory = PersistedState {
        map: map(),
        decisions: Vec::new(),
        retired: Vec::new(),
        given_up: Vec::new(),
        failing: Vec::new(),
        servers: Vec::new(),
        timeouts: Default::default(),
        known_peers: KnownPeers::default(),
        slots: vec![slot; SLOT_COUNT].into(),
    };
    state_file::write(path, &memory, BootMoment::of(UnixClock::start())).unwrap();
}

#[test]
fn a_backend_that_has_to_answer_to_get_its_share_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    leave_behind(&path, SlotState::steady(BackendId::new(1).unwrap(), 0));
    let prepared = begin(&path, map()).unwrap();
    let published = prepared.ends.handle.published();
    let [first, second] = &published.status.backends[..] else {
        unreachable!("{:?}", published.status.backends)
    };
    assert_eq!(first.slots_waiting, 0);
    assert_eq!(second.slots_waiting, second.slots_owned);
    let awaited = &published.status.findings[0];
    assert_eq!(awaited.code, Code::BackendAwaited);
    assert_eq!(awaited.about.as_deref(), Some("b"));
    assert!(awaited.says.contains("not been asked yet"), "{awaited:?}");
}

#[test]
fn a_state_file_belongs_to_one_proxy_as_long_as_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let shop = begin(&path, map()).unwrap();
    let written = fs::read(&path).unwrap();
    let other = PartitionMap::parse(MAP.replace("10.0.0", "10.0.1"), "map.yaml").unwrap();
    let refused = begin(&path, other).unwrap_err().to_string();
    assert!(refused.contains("another proxy"), "{refused}");
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), written);
    drop(shop);
    assert!(begin(&path, map()).is_ok());
}

#[test]
fn a_backend_that_nobody_has_asked_yet_says_so() {
    let directory = tempfile::tempdir().unwrap();
    for backend in first_shown(&directory.path().join("state")) {
        assert_eq!(backend.verdict, BackendHealth::Up);
        assert_eq!(backend.reason.unwrap(), "it has not been asked yet");
    }
}

#[test]
fn a_backend_that_was_down_before_the_start_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let slot = SlotState {
        second: BackendId::new(2),
        stage: Stage::Away,
        ..SlotState::steady(BackendId::new(1).unwrap(), 0)
    };
    leave_behind(&path, slot);
    let shown = first_shown(&path);
    assert_eq!(shown[1].verdict, BackendHealth::Down);
    let reason = shown[1].reason.as_ref().unwrap();
    assert!(reason.contains("when this proxy was stopped"), "{reason}");
}
