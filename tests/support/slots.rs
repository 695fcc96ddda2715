//! A proxy that begins in the middle of something: a state file written for it.

use std::path::Path;

use staterouter::config::load_partition_map;
use staterouter::control::boot_moment::BootMoment;
use staterouter::control::persist::state_file;
use staterouter::control::pool_state::KnownPeers;
use staterouter::control::pool_state::persisted_state::PersistedState;
use staterouter::control::session_timeouts::SeenTimeouts;
use staterouter::handover::{BackendId, Before, SlotState, Stage};
use staterouter::net::UnixClock;
use staterouter::route::SLOT_COUNT;

use super::ProxyFiles;

/// Puts every slot in this stage since now, with the backends of these ids at its first and its
/// second place. To be done before the proxy is started.
pub fn put_all(files: &ProxyFiles, stage: Stage, first: u8, second: u8) {
    let config = files.config();
    let directory = Path::new(&config).parent().unwrap();
    let since_ms = UnixClock::start().now_ms();
    let [first, second] = [first, second].map(|id| BackendId::new(id).unwrap());
    let before = Before {
        first: second,
        second: None,
        stage: Stage::Steady,
        since_ms,
    };
    let slot = SlotState {
        second: Some(second),
        stage,
        before: (stage == Stage::Suspect).then_some(before),
        ..SlotState::steady(first, since_ms)
    };
    let memory = PersistedState {
        map: load_partition_map(&directory.join("map.yaml")).unwrap(),
        decisions: Vec::new(),
        retired: Vec::new(),
        given_up: Vec::new(),
        failing: Vec::new(),
        servers: Vec::new(),
        timeouts: SeenTimeouts::default(),
        known_peers: KnownPeers::default(),
        slots: vec![slot; SLOT_COUNT].into(),
    };
    let path = directory.join("staterouter.state");
    state_file::write(&path, &memory, BootMoment::of(UnixClock::start())).unwrap();
}
