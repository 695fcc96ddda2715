//! Control of one proxy: the steps that production takes, with virtual time and messages around them.

use std::convert::Infallible;

use staterouter::control::copy_watch;
use staterouter::control::pool_state::{Notice, PoolState};
use staterouter::control::steps::ControlSteps;
use staterouter::route::Slot;

use super::brain::Told;
use super::control::{Proxy, Shown};
use super::world::World;

/// Control of the proxy `p`.
pub(crate) struct Hand<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) p: usize,
}

impl Hand<'_> {
    fn proxy(&mut self) -> &mut Proxy {
        &mut self.world.proxies[self.p]
    }
}

impl ControlSteps for Hand<'_> {
    type Error = Infallible;

    fn now_ms(&self) -> u64 {
        self.world.now_ms
    }

    fn pool_state(&mut self) -> &mut PoolState {
        &mut self.proxy().brain.pool_state
    }

    fn forget_silent_peers(&mut self, now_ms: u64) {
        let silent_ms = self.world.numbers.silent_ms;
        let proxy = self.proxy();
        for index in 0..proxy.heard_ms.len() {
            if now_ms >= proxy.heard_ms[index] + silent_ms {
                proxy.brain.hear(index, None);
            }
        }
    }

    fn learn(&mut self, _now_ms: u64) {}

    /// Workers go by what is in force at once.
    fn look_whether_followed(&mut self) -> bool {
        let proxy = self.proxy();
        proxy.is_followed = copy_watch::have_ended(&proxy.copies.tracker, &proxy.brain.pool_state);
        if proxy.is_followed {
            proxy.followed = proxy.slots().to_vec();
        }
        proxy.is_followed
    }

    fn meets_peers(&mut self, _now_ms: u64) -> bool {
        false
    }

    fn look_at_copies(&mut self, next: &mut PoolState, now_ms: u64) -> (Vec<Slot>, Vec<Notice>) {
        let copies = &mut self.proxy().copies;
        copies.watch.look(&copies.tracker, next, now_ms)
    }

    fn allow_restores(&mut self, until_ms: Option<u64>) {
        self.proxy().copies.tracker.allow_restores(until_ms);
    }

    fn keep_missed(&mut self, missed: &[Slot]) {
        copy_watch::keep(&self.proxy().copies.tracker, missed);
    }

    fn take_on(&self, next: &mut PoolState, now_ms: u64) -> Vec<Notice> {
        self.world.proxies[self.p].brain.take_on(next, now_ms)
    }

    fn is_due(&self, _now_ms: u64) -> bool {
        false
    }

    fn write_and_show(&mut self, next: &PoolState) -> Result<(), Infallible> {
        let proxy = self.proxy();
        proxy.on_disk = next.memory();
        proxy.shown = Some(Shown::of(next));
        Ok(())
    }

    fn is_written(&mut self, put: Result<(), Infallible>) -> bool {
        put.is_ok()
    }

    fn show(&mut self) {
        let proxy = self.proxy();
        proxy.shown = Some(Shown::of(&proxy.brain.pool_state));
    }

    fn follow_backends(&mut self) {
        self.world.probe_all(self.p);
    }

    fn forget_pending_deletes(&mut self) {
        let proxy = self.proxy();
        let pool_state = &proxy.brain.pool_state;
        proxy
            .owed
            .retain(|(backend_id, _)| pool_state.keeps_pending_deletes(*backend_id));
        proxy.count_owed();
    }

    fn replay_pending_deletes(&mut self, _now_ms: u64) {
        self.world.begin_replays(self.p);
    }

    fn tell(&mut self, _notices: &[Notice], _now_ms: u64) {}

    fn look_around(&mut self, _now_ms: u64) {}

    fn see_outage(&mut self, _now_ms: u64) {}

    fn publish(&mut self) {
        let proxy = self.proxy();
        proxy.told = Told::of(&proxy.brain.pool_state, proxy.followed.clone());
    }

    fn serve(&mut self) {}
}
