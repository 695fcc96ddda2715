//! What follows what in control, with workers that do as the test says.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;

use staterouter::config::{Config, PartitionMap};
use staterouter::control::pool_state::{Notice, PoolState};
use staterouter::control::steps::ControlSteps;
use staterouter::route::Slot;

const NOW_MS: u64 = 1_800_000_000_000;
const MAP: &str = "version: 1\nbackends: [{name: a, address: '10.0.0.1:42424'}]\n";

/// Control of a proxy alone.
struct Steps {
    pool_state: PoolState,
    /// Whether every worker goes by what is in force.
    is_followed: bool,
    /// For how long what is lost may be stored anew from its copy, each time that it was allowed.
    restores: Vec<Option<u64>>,
}

impl Steps {
    fn new() -> Self {
        let map = PartitionMap::parse(MAP, "map.yaml").unwrap();
        Self {
            pool_state: PoolState::new(Config::new("map.yaml"), map, NOW_MS).unwrap(),
            is_followed: true,
            restores: Vec::new(),
        }
    }
}

impl ControlSteps for Steps {
    type Error = Infallible;

    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn pool_state(&mut self) -> &mut PoolState {
        &mut self.pool_state
    }

    fn forget_silent_peers(&mut self, _now_ms: u64) {}

    fn learn(&mut self, _now_ms: u64) {}

    fn look_whether_followed(&mut self) -> bool {
        self.is_followed
    }

    fn meets_peers(&mut self, _now_ms: u64) -> bool {
        false
    }

    fn look_at_copies(&mut self, _next: &mut PoolState, _now_ms: u64) -> (Vec<Slot>, Vec<Notice>) {
        Default::default()
    }

    fn allow_restores(&mut self, for_ms: Option<u64>) {
        self.restores.push(for_ms);
    }

    fn keep_missed(&mut self, _missed: &[Slot]) {}

    fn take_on(&self, next: &mut PoolState, now_ms: u64) -> Vec<Notice> {
        next.tick(now_ms)
    }

    fn is_due(&self, _now_ms: u64) -> bool {
        false
    }

    fn write_and_show(&mut self, _next: &PoolState) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_written(&mut self, put: Result<(), Infallible>) -> bool {
        put.is_ok()
    }

    fn show(&mut self) {}

    fn follow_backends(&mut self) {}

    fn forget_pending_deletes(&mut self) {}

    fn replay_pending_deletes(&mut self, _now_ms: u64) {}

    fn tell(&mut self, _notices: &[Notice], _now_ms: u64) {}

    fn look_around(&mut self, _now_ms: u64) {}

    fn see_outage(&mut self, _now_ms: u64) {}

    fn publish(&mut self) {}

    fn serve(&mut self) {}
}

/// A worker that still goes by the slots from before may copy to a replica that is being dropped.
#[test]
fn nothing_is_stored_anew_before_every_worker_goes_by_what_the_peers_said() {
    let mut steps = Steps::new();
    steps.is_followed = false;
    steps.tick();
    assert_eq!(steps.restores, []);
    steps.is_followed = true;
    steps.tick();
    assert_eq!(steps.restores, [None], "a proxy alone knows");
}
