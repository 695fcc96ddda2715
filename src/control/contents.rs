//! The thread that looks into samples of session bodies, and what it has found.

use std::io;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::report::contents::ContentsReport;
use crate::contents::ContentsTable;
use crate::proxy::{ContentsEvent, ContentsEvents};

/// How often it looks for events, and whether it is to go on.
const LOOK: Duration = Duration::from_millis(100);

/// How often sessions that have expired are let go.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How often each followed session is looked at.
const ROUND: Duration = Duration::from_secs(60);

/// What fills the servers, for any thread.
#[derive(Debug, Clone)]
pub struct ContentsBoard {
    begun: Instant,
    shared: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    is_on: bool,
    table: ContentsTable,
}

impl ContentsBoard {
    /// Starts the thread; it ends when no worker is left.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(events: ContentsEvents) -> io::Result<Self> {
        let board = Self::new();
        let watcher = board.clone();
        thread::Builder::new()
            .name("contents".to_owned())
            .spawn(move || watcher.follow(&events))?;
        Ok(board)
    }

    /// One on which nobody writes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            shared: Arc::default(),
        }
    }

    /// What fills the servers now.
    #[must_use]
    pub fn report(&self) -> ContentsReport {
        let found = self.lock();
        ContentsReport::new(found.is_on, found.table.totals(self.now_ms()))
    }

    fn follow(&self, ContentsEvents { gate, events }: &ContentsEvents) {
        let (mut swept, mut round) = (Instant::now(), Instant::now());
        loop {
            // Whoever waits for an event is woken for each one, at the cost of the worker that tells it.
            thread::sleep(LOOK);
            let mut found = self.lock();
            let now_ms = self.now_ms();
            loop {
                match events.try_recv() {
                    Ok(ContentsEvent::Stored(sample)) => found.table.stored(&sample, now_ms),
                    Ok(ContentsEvent::Touched(hash)) => found.table.touched(hash, now_ms),
                    Ok(ContentsEvent::Gone(hash)) => found.table.gone(hash),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if found.is_on != gate.is_wanted() {
                found.is_on = gate.is_wanted();
                found.table.clear();
                gate.look_again();
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                found.table.sweep(now_ms);
            }
            if round.elapsed() >= ROUND {
                round = Instant::now();
                gate.look_again();
            }
            gate.follow(found.is_on.then(|| found.table.mask()));
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ContentsBoard {
    fn default() -> Self {
        Self::new()
    }
}
