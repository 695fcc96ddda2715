//! How many requests of a web server may wait for locks, told from the requests of its pages.
//!
//! A page keeps its thread while it holds the lock of its session, and while a request of it waits for
//! one. So the locks that a web server's pages hold and its requests that wait are threads that are
//! certainly busy. The most of them at a time lately are threads that it certainly has. Some of them
//! must stay idle: a page that finds none waits in the web server, where nobody sees it. Pages that
//! poll need threads as well, each for a moment, and so do pages before and after they have their locks.

/// Threads that every web server has.
const MIN_THREADS: usize = 4;

/// Of so many of its threads, or fewer, one stays idle.
const ONE_IDLE_IN: usize = 8;

/// A page that is told that its session is locked asks again after so long.
const POLL_MS: u64 = 500;

/// For so long it has a thread then.
const PER_POLL_MS: u64 = 2;

/// For so long a page that is given a lock has its thread before and after.
const PER_LOCK_MS: u64 = 1;

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
    moments: Moments,
    /// The most that were busy at a time, in this period and the one before.
    most: usize,
    most_before: usize,
    until_ms: u64,
}

/// For how many milliseconds pages had threads without a lock, as far as that can be told: in this
/// period of [`POLL_MS`] and the one before.
#[derive(Debug, Default)]
struct Moments {
    polls_ms: u64,
    /// Locks taken before it began.
    taken_before: u64,
    before_ms: u64,
    since_ms: u64,
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

/// What a web server does.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebServerLoad {
    /// Locks that its pages have taken.
    pub(super) taken: u64,
    /// Those, less the ones that they have given up.
    pub(super) locks: i64,
    /// Requests that wait for a lock.
    pub(super) waiting: usize,
    /// Open connections: requests that it had under way at a time lately.
    pub(super) connections: usize,
}

impl BusyThreads {
    /// Whether one more request may wait, which has found its session locked.
    pub(super) fn may_one_more_wait(&mut self, load: WebServerLoad, now_ms: u64) -> bool {
        let more = WebServerLoad {
            waiting: load.waiting + 1,
            ..load
        };
        self.too_many_waiting(more, now_ms) == 0
    }

    /// So many of those that wait have to give their threads back, for too few are idle.
    pub(super) fn too_many_waiting(&mut self, load: WebServerLoad, now_ms: u64) -> usize {
        let busy = self.locks.held(load, now_ms) + load.waiting;
        let threads = self.threads(busy, now_ms).max(load.connections);
        let idle = threads.div_ceil(ONE_IDLE_IN);
        let moments_ms = self.moments.lately_ms(load.taken, now_ms);
        let in_passing = ((moments_ms + POLL_MS / 2) / POLL_MS) as usize;
        (busy + idle + in_passing)
            .saturating_sub(threads)
            .min(load.waiting)
    }

    /// One of its pages is told that its session is locked, and will ask again. All of them have taken
    /// so many locks.
    pub(super) fn polls(&mut self, taken: u64, now_ms: u64) {
        self.moments.roll(taken, now_ms);
        self.moments.polls_ms += PER_POLL_MS;
    }

    /// Threads that it has certainly, while so many are busy.
    fn threads(&mut self, busy: usize, now_ms: u64) -> usize {
        if now_ms >= self.until_ms {
            let is_recent = now_ms < self.until_ms + REMEMBER_MS;
            self.most_before = if is_recent { self.most } else { 0 };
            self.most = 0;
            self.until_ms = now_ms + REMEMBER_MS;
        }
        self.most = self.most.max(busy);
        self.most.max(self.most_before).max(MIN_THREADS)
    }

    /// It has no connection, so none of its pages holds one of the `locks` that were taken and not given
    /// up.
    pub(super) fn hold_nothing(&mut self, locks: i64) {
        self.locks.gone = locks;
    }
}

impl Moments {
    /// Those in [`POLL_MS`] until now.
    fn lately_ms(&mut self, taken: u64, now_ms: u64) -> u64 {
        self.roll(taken, now_ms);
        // Another worker's clock may be ahead.
        let rest_ms = POLL_MS.saturating_sub(now_ms.saturating_sub(self.since_ms));
        self.this_ms(taken) + self.before_ms * rest_ms / POLL_MS
    }

    /// Those in this period.
    fn this_ms(&self, taken: u64) -> u64 {
        self.polls_ms + taken.saturating_sub(self.taken_before) * PER_LOCK_MS
    }

    fn roll(&mut self, taken: u64, now_ms: u64) {
        if now_ms >= self.since_ms + POLL_MS {
            let next_ms = self.since_ms + POLL_MS;
            let is_recent = now_ms < next_ms + POLL_MS;
            (self.before_ms, self.since_ms) = match is_recent {
                true => (self.this_ms(taken), next_ms),
                false => (0, now_ms),
            };
            self.polls_ms = 0;
            self.taken_before = taken;
        }
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
    fn held(&mut self, load: WebServerLoad, now_ms: u64) -> usize {
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
        held.unsigned_abs() as usize
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
        taken: 0,
        locks: 0,
        waiting: 0,
        connections: 2,
    };

    /// How many requests may wait at the same time while so many locks are held.
    fn may_wait(threads: &mut BusyThreads, load: WebServerLoad, now_ms: u64) -> usize {
        let waits =
            |waiting: &usize| threads.may_one_more_wait(with_waiting(load, *waiting), now_ms);
        (0..1_000).take_while(waits).count()
    }

    fn holding(locks: i64) -> WebServerLoad {
        WebServerLoad { locks, ..IDLE }
    }

    fn with_waiting(load: WebServerLoad, waiting: usize) -> WebServerLoad {
        WebServerLoad { waiting, ..load }
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
        threads.may_one_more_wait(holding(15), 0);
        let later_ms = 2 * REMEMBER_MS - 1;
        assert_eq!(
            may_wait(&mut threads, holding(4), later_ms),
            10,
            "fourteen of sixteen"
        );
        assert_eq!(may_wait(&mut threads, holding(14), later_ms), 0);
        let mut threads = BusyThreads::default();
        threads.may_one_more_wait(holding(15), 0);
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
        assert_eq!(may_wait(&mut threads, with_connections, late_ms), 10);
    }

    #[test]
    fn who_waits_gives_its_thread_back_when_a_page_takes_the_last_idle_one() {
        let surplus = |locks, waiting| {
            let load = with_waiting(holding(locks), waiting);
            BusyThreads::default().too_many_waiting(load, 0)
        };
        assert_eq!((surplus(1, 2), surplus(2, 1), surplus(0, 0)), (0, 0, 0));
        // More are busy than it was known to have: those are its threads now.
        assert_eq!((surplus(2, 2), surplus(3, 1), surplus(3, 2)), (1, 1, 1));
        assert_eq!((surplus(9, 1), surplus(16, 2)), (1, 2));
        assert_eq!(surplus(7, 0), 0, "none waits");
    }

    #[test]
    fn pages_that_poll_need_threads_for_half_a_second() {
        let polling = |pages: u64, now_ms| {
            let mut threads = BusyThreads::default();
            (0..pages).for_each(|_| threads.polls(0, 7_000));
            may_wait(&mut threads, IDLE, now_ms)
        };
        let at_once = [0, 124, 125, 374, 375, 2_000].map(|pages| polling(pages, 7_000));
        assert_eq!(at_once, [3, 3, 2, 2, 1, 0]);
        // Each asks again after half a second.
        let later = [7_500, 7_999, 8_000, 70_000].map(|now_ms| polling(2_000, now_ms));
        assert_eq!(later, [0, 3, 3, 3]);
        assert_eq!(polling(2_000, 6_900), 0, "another worker is behind");
    }

    #[test]
    fn pages_that_hold_their_locks_briefly_need_threads_before_and_after() {
        let mut threads = BusyThreads::default();
        let after = |taken| WebServerLoad { taken, ..IDLE };
        assert_eq!(may_wait(&mut threads, after(90_000), 7_000), 3);
        assert_eq!(may_wait(&mut threads, after(90_249), 7_100), 3);
        assert_eq!(may_wait(&mut threads, after(90_250), 7_200), 2);
        assert_eq!(may_wait(&mut threads, after(90_750), 7_300), 1);
        assert_eq!(may_wait(&mut threads, after(90_750), 7_500), 1);
        assert_eq!(may_wait(&mut threads, after(90_750), 8_000), 3);
    }

    #[test]
    fn locks_that_nobody_saw_taken_or_given_up_do_not_count_for_good() {
        // Given up before this proxy could see them taken.
        let mut threads = BusyThreads::default();
        threads.may_one_more_wait(holding(-5), 0);
        assert_eq!(may_wait(&mut threads, holding(-4), 0), 2, "one is held");
        // Taken, and given up elsewhere.
        let mut threads = BusyThreads::default();
        for _ in 0..MIN_MEETINGS {
            assert!(!threads.may_one_more_wait(holding(7), 0));
        }
        assert!(!threads.may_one_more_wait(holding(7), FORGET_LOCKS_MS - 1));
        let later_ms = FORGET_LOCKS_MS + 2 * REMEMBER_MS;
        assert_eq!(may_wait(&mut threads, holding(7), later_ms), 2);
        // Two requests say little of ten minutes.
        let mut threads = BusyThreads::default();
        assert!(!threads.may_one_more_wait(holding(7), 0));
        assert!(!threads.may_one_more_wait(holding(7), FORGET_LOCKS_MS));
        // Nor does a web server hold any that is gone.
        threads.hold_nothing(7);
        assert_eq!(may_wait(&mut threads, holding(8), later_ms), 2);
    }

    #[test]
    fn a_web_server_whose_locks_pass_other_proxies_may_wait_again_soon() {
        let mut threads = BusyThreads::default();
        assert!(!threads.may_one_more_wait(holding(1_000_000), 0));
        let some_less = 1_000_000 - 20;
        assert!(
            threads.may_one_more_wait(holding(some_less), 0),
            "44 of 64 at most"
        );
    }
}
