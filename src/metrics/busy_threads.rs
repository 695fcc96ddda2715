//! Whether a web server has idle threads, told from the requests of its pages.
//!
//! A page keeps its thread while it holds the lock of its session, and while a request of it waits for
//! one. So the locks that a web server's pages hold and its requests that wait are threads that are
//! certainly busy. The most of them at a time lately are threads that it certainly has.

/// Threads that every web server has.
const MIN_THREADS: u64 = 4;

/// Of so many parts of its threads
const PARTS: u64 = 4;

/// so many may be busy, once one more request waits.
const BUSY_PARTS: u64 = 3;

/// For how long the most threads that were busy at a time are remembered, and at most twice as long.
const REMEMBER_MS: u64 = 30_000;

/// Locks that count as held all the time for so long were given up where this proxy did not see it.
const FORGET_LOCKS_MS: u64 = 600_000;

/// Locks that count as held, per open connection, at most. Where a balancer spreads the requests of one
/// web server over several proxies, each sees locks taken and others given up.
const MAX_LOCKS_PER_CONNECTION: u64 = 8;

/// Fewer connections count as so many there.
const MIN_CONNECTIONS: u64 = 8;

/// If at least so many requests have met them.
const MIN_MEETINGS: u64 = 100;

/// What is known of the threads of one web server.
#[derive(Debug, Default)]
pub(super) struct BusyThreads {
    locks: HeldLocks,
    /// The most that were busy at a time, in this period and the one before.
    most: u64,
    most_before: u64,
    until_ms: u64,
}

/// The locks that its pages hold.
#[derive(Debug)]
struct HeldLocks {
    /// Of the locks taken and not given up, those that are held no more; negative if more were given up
    /// than were seen taken.
    gone: i64,
    /// The fewest that were held in this period, and how often that was looked at.
    fewest: u64,
    meetings: u64,
    until_ms: u64,
}

/// What a web server does, as one of its requests has found its session locked.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebServerLoad {
    /// Locks that its pages have taken, less those that they have given up.
    pub(super) locks: i64,
    /// Requests that wait for a lock.
    pub(super) waiting: usize,
    /// Open connections: requests that it had under way at a time lately.
    pub(super) connections: usize,
}

impl BusyThreads {
    /// Whether threads would be idle if one more request waited, which has found its session locked.
    pub(super) fn are_some_idle(&mut self, load: WebServerLoad, now_ms: u64) -> bool {
        let busy = self.locks.held(load, now_ms) + load.waiting as u64 + 1;
        if now_ms >= self.until_ms {
            let is_recent = now_ms < self.until_ms + REMEMBER_MS;
            self.most_before = if is_recent { self.most } else { 0 };
            self.most = 0;
            self.until_ms = now_ms + REMEMBER_MS;
        }
        self.most = self.most.max(busy);
        let lately = self.most.max(self.most_before);
        let threads = lately.max(load.connections as u64).max(MIN_THREADS);
        busy * PARTS <= threads * BUSY_PARTS
    }

    /// It has no connection, so none of its pages holds one of the `locks` that were taken and not given
    /// up.
    pub(super) fn hold_nothing(&mut self, locks: i64) {
        self.locks.gone = locks;
    }
}

impl Default for HeldLocks {
    fn default() -> Self {
        Self {
            gone: 0,
            fewest: u64::MAX,
            meetings: 0,
            until_ms: 0,
        }
    }
}

impl HeldLocks {
    /// Those that are held now.
    fn held(&mut self, load: WebServerLoad, now_ms: u64) -> u64 {
        if now_ms >= self.until_ms {
            self.forget();
            self.until_ms = now_ms + FORGET_LOCKS_MS;
        }
        let connections = (load.connections as u64).max(MIN_CONNECTIONS);
        let most = (connections * MAX_LOCKS_PER_CONNECTION) as i64;
        let held = load.locks.saturating_sub(self.gone).clamp(0, most);
        self.gone = load.locks.saturating_sub(held);
        self.fewest = self.fewest.min(held.unsigned_abs());
        self.meetings += 1;
        held.unsigned_abs()
    }

    /// Those that were held all the time of this period are not, but for the one that a request finds.
    fn forget(&mut self) {
        if self.meetings >= MIN_MEETINGS {
            self.gone = self
                .gone
                .saturating_add_unsigned(self.fewest.saturating_sub(1));
        }
        (self.fewest, self.meetings) = (u64::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: WebServerLoad = WebServerLoad {
        locks: 0,
        waiting: 0,
        connections: 2,
    };

    /// How many requests may wait at the same time while so many locks are held.
    fn may_wait(threads: &mut BusyThreads, load: WebServerLoad, now_ms: u64) -> usize {
        let waits = |waiting: &usize| {
            threads.are_some_idle(
                WebServerLoad {
                    waiting: *waiting,
                    ..load
                },
                now_ms,
            )
        };
        (0..1_000).take_while(waits).count()
    }

    fn holding(locks: i64) -> WebServerLoad {
        WebServerLoad { locks, ..IDLE }
    }

    #[test]
    fn a_web_server_of_which_little_is_known_has_four_threads_of_which_one_stays_idle() {
        for (locks, expected) in [(0, 3), (1, 2), (2, 1), (3, 0)] {
            let mut threads = BusyThreads::default();
            assert_eq!(
                may_wait(&mut threads, holding(locks), 0),
                expected,
                "{locks}"
            );
        }
    }

    #[test]
    fn the_most_threads_that_were_busy_lately_are_threads_that_it_has_and_so_are_connections() {
        let mut threads = BusyThreads::default();
        threads.are_some_idle(holding(15), 0);
        let later_ms = 2 * REMEMBER_MS - 1;
        assert_eq!(
            may_wait(&mut threads, holding(4), later_ms),
            8,
            "twelve of sixteen"
        );
        assert_eq!(may_wait(&mut threads, holding(12), later_ms), 0);
        let mut threads = BusyThreads::default();
        threads.are_some_idle(holding(15), 0);
        let late_ms = 2 * REMEMBER_MS;
        assert_eq!(
            may_wait(&mut threads, holding(1), late_ms),
            2,
            "that is long ago"
        );
        let with_connections = WebServerLoad {
            connections: 16,
            ..holding(4)
        };
        assert_eq!(may_wait(&mut threads, with_connections, late_ms), 8);
    }

    #[test]
    fn locks_that_nobody_saw_taken_or_given_up_do_not_count_for_good() {
        // Given up before this proxy could see them taken.
        let mut threads = BusyThreads::default();
        threads.are_some_idle(holding(-5), 0);
        assert_eq!(may_wait(&mut threads, holding(-4), 0), 2, "one is held");
        // Taken, and given up elsewhere.
        let mut threads = BusyThreads::default();
        for _ in 0..MIN_MEETINGS {
            assert!(!threads.are_some_idle(holding(7), 0));
        }
        assert!(!threads.are_some_idle(holding(7), FORGET_LOCKS_MS - 1));
        let later_ms = FORGET_LOCKS_MS + 2 * REMEMBER_MS;
        assert_eq!(may_wait(&mut threads, holding(7), later_ms), 2);
        // Two requests say little of ten minutes.
        let mut threads = BusyThreads::default();
        assert!(!threads.are_some_idle(holding(7), 0));
        assert!(!threads.are_some_idle(holding(7), FORGET_LOCKS_MS));
        // Nor does a web server hold any that is gone.
        threads.hold_nothing(7);
        assert_eq!(may_wait(&mut threads, holding(8), later_ms), 2);
    }

    #[test]
    fn a_web_server_whose_locks_pass_other_proxies_may_wait_again_soon() {
        let mut threads = BusyThreads::default();
        assert!(!threads.are_some_idle(holding(1_000_000), 0));
        let some_less = 1_000_000 - 20;
        assert!(
            threads.are_some_idle(holding(some_less), 0),
            "44 of 64 at most"
        );
    }
}
