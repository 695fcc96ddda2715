//! A simulated web server, and what the threads of the farm share.

use std::cell::{RefCell, RefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::checker::{SessionEvents, Violation};
use super::connection::FarmConnections;
use super::options::FarmOptions;
use super::random::Random;
use super::report::{FarmCounts, FarmFailure, FarmStats, Tally};
use super::session::{Population, Session};
use super::stop::Stop;
use super::web_threads::WebThreads;
use crate::wire::Operation;

/// What all threads share.
#[derive(Debug)]
pub(super) struct Farm {
    pub(super) options: FarmOptions,
    pub(super) seed: u64,
    pub(super) population: Population,
    pub(super) started: Instant,
    pub(super) stop: Stop,
    pub(super) stats: Arc<FarmStats>,
    /// Pages begun.
    pub(super) tickets: AtomicU64,
}

/// One simulated web server: one thread, its connections and its counts.
#[derive(Debug)]
pub(super) struct WebServer {
    pub(super) farm: Arc<Farm>,
    pub(super) pools: Vec<FarmConnections>,
    pub(super) web_threads: Option<WebThreads>,
    pub(super) tally: RefCell<Tally>,
}

// What a web request needs of its server.
impl WebServer {
    pub(crate) fn options(&self) -> &FarmOptions {
        &self.farm.options
    }

    pub(crate) fn population(&self) -> &Population {
        &self.farm.population
    }

    /// Nanoseconds since shortly before the run began, never 0.
    pub(crate) fn now_ns(&self) -> u64 {
        self.farm.started.elapsed().as_nanos() as u64 + 1
    }

    pub(crate) fn pick_pool(&self, random: &mut Random) -> &FarmConnections {
        &self.pools[random.below(self.pools.len() as u64) as usize]
    }

    /// A thread to run a page on; `None` if pages do without.
    pub(crate) async fn take_thread(&self) -> Option<OwnedSemaphorePermit> {
        self.web_threads.as_ref()?.take().await
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.farm.stop.is_stopped()
    }

    /// Waits, but not beyond the end of the run.
    pub(crate) async fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.farm.stop.stopped() => {}
        }
    }

    /// The counts of this thread; not to be held over an await.
    pub(crate) fn tally(&self) -> RefMut<'_, Tally> {
        self.tally.borrow_mut()
    }

    pub(crate) fn answered(&self, operation: Operation, took_ns: u64) {
        self.tally().operation(operation, took_ns);
        self.farm.stats.add(FarmCounts {
            operations: 1,
            ..FarmCounts::default()
        });
    }

    pub(crate) fn fail(&self, failure: FarmFailure) {
        self.tally().failure(failure);
        self.farm.stats.add(FarmCounts {
            failures: 1,
            ..FarmCounts::default()
        });
    }

    /// What an answer said about the life of its session.
    pub(crate) fn met(&self, verdict: SessionEvents) {
        let mut tally = self.tally();
        tally.new_sessions += u64::from(verdict.new_session);
        tally.session_starts += u64::from(verdict.session_start);
    }

    pub(crate) fn violation(&self, session: &Session, violation: Violation) {
        let now_ns = self.now_ns();
        self.tally()
            .violation(now_ns, session.fingerprint(), violation);
        self.farm.stats.add(FarmCounts {
            violations: 1,
            ..FarmCounts::default()
        });
    }
}
