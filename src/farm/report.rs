//! What a run counted: while it runs, and at its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::checker::{Violation, ViolationKind};
use crate::wire::Operation;

/// Counters of a run under way; read them at any time.
#[derive(Debug, Default)]
pub struct FarmStats {
    pages: AtomicU64,
    operations: AtomicU64,
    failures: AtomicU64,
    violations: AtomicU64,
}

/// [`FarmStats`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FarmCounts {
    /// Pages done, however they ended.
    pub pages: u64,
    /// Requests answered.
    pub operations: u64,
    /// Requests without a usable answer.
    pub failures: u64,
    /// Wrong answers of all kinds.
    pub violations: u64,
}

impl FarmStats {
    /// The counts so far.
    pub fn counts(&self) -> FarmCounts {
        FarmCounts {
            pages: self.pages.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            violations: self.violations.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn add(&self, counts: FarmCounts) {
        let add = |counter: &AtomicU64, number: u64| {
            if number > 0 {
                counter.fetch_add(number, Ordering::Relaxed);
            }
        };
        add(&self.pages, counts.pages);
        add(&self.operations, counts.operations);
        add(&self.failures, counts.failures);
        add(&self.violations, counts.violations);
    }
}

/// Why a request brought no usable answer. The farm's user would have seen an error page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FarmFailure {
    /// No connection.
    Connect,
    /// The connection ended before the answer did.
    Closed,
    /// No answer in time.
    Timeout,
    /// An answer that cannot be read.
    Unparsable,
    /// 400.
    BadRequest,
    /// The first answer names no server version of 2 or later (protocol 4).
    Version,
    /// A page waited for a lock as long as it may run.
    LockWait,
}

impl FarmFailure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Unparsable => "unparsable",
            Self::BadRequest => "bad_request",
            Self::Version => "version_header",
            Self::LockWait => "lock_wait",
        }
    }
}

/// The result of a run. Serialises to one JSON object; times are in the unit of their name.
#[derive(Debug, Clone, Serialize)]
pub struct FarmReport {
    /// The seed; with the same options and an empty server it repeats the run's choices.
    pub seed: u64,
    /// How long the run took, the final sweep left out.
    pub elapsed_ms: u64,
    /// Pages done, however they ended.
    pub pages: u64,
    /// Pages that ended in an error for the user.
    pub failed_pages: u64,
    /// Pages still waiting for a lock when the run was stopped.
    pub unfinished_pages: u64,
    /// When the first page ended in an error, milliseconds since the run began.
    pub first_failed_page_ms: Option<u64>,
    /// When the last one did.
    pub last_failed_page_ms: Option<u64>,
    /// The seconds in which pages failed or sessions were found lost, and no others.
    pub bad_seconds: Vec<BadSecond>,
    /// Pages per second.
    pub pages_per_s: f64,
    /// Requests that were answered.
    pub operations: u64,
    /// Answered requests per second.
    pub operations_per_s: f64,
    /// Time of whole pages; in an open loop from the moment the page was due.
    pub page_latency: Latency,
    /// The same with the pages that still waited for a lock when the run was stopped, and the time that
    /// they had waited by then: without them, who keeps pages waiting for longest looks quick.
    pub begun_page_latency: Latency,
    /// The same of pages that ended and first asked for a lock while another page held it or
    /// asked for it.
    pub contended_page_latency: Latency,
    /// How long those waited for the lock, from their first request for it on.
    pub lock_wait: Latency,
    /// The same, over the number of pages that held or wanted it before: how long one of them keeps
    /// the next one waiting.
    pub lock_wait_per_page_ahead: Latency,
    /// How long pages held a lock, from its answer to the one that released it.
    pub lock_hold: Latency,
    /// Time from request to answer, by operation.
    pub operation_latency: BTreeMap<&'static str, Latency>,
    /// Wrong answers, by kind; every kind is present.
    pub violations: BTreeMap<&'static str, ViolationSummary>,
    /// Requests and pages without a usable answer, by kind; no wrong answers.
    pub failures: BTreeMap<&'static str, u64>,
    /// Sessions that began, as far as a page has met them.
    pub new_sessions: u64,
    /// Session_Starts that ran: as many, unless a flag went astray with a lost answer or a
    /// takeover, or an answer was wrong.
    pub session_starts: u64,
    /// Locks broken because of their age.
    pub takeovers: u64,
    /// Answers "locked".
    pub lock_waits: u64,
    /// Open loop: the furthest that a page began behind the moment it was due.
    pub worst_lag_ms: Option<u64>,
    /// The last look at every session, if there was one.
    pub sweep: Option<FinalSweep>,
}

/// What went wrong in one second of a run.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, Eq)]
pub struct BadSecond {
    /// Whole seconds since the run began; those behind the run's end are of the final sweep.
    pub second: u64,
    /// Pages that ended in an error for the user.
    pub failed_pages: u64,
    /// Sessions found lost.
    pub lost_sessions: u64,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, Eq)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The mean.
    pub mean_us: u64,
    /// The median.
    pub p50_us: u64,
    /// 90 of 100 took no longer.
    pub p90_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// 999 of 1000 took no longer.
    pub p99_9_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Wrong answers of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ViolationSummary {
    /// How many.
    pub count: u64,
    /// The first ten of each thread, ten in all.
    pub examples: Vec<Example>,
}

/// One wrong answer.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// When it came, milliseconds since the run began.
    pub at_ms: u64,
    /// Fingerprint of the session: 8 hex digits, nothing of its id.
    pub session: String,
    /// What would have been right.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// The last look at every session.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, Eq)]
pub struct FinalSweep {
    /// Sessions read, present or rightly absent.
    pub read: u64,
    /// Sessions that could not be read: no answer, locked for good, or no time left.
    pub unread: u64,
}

impl FarmReport {
    /// Whether no answer was wrong. Failures are no wrong answers.
    pub fn is_clean(&self) -> bool {
        self.violations.values().all(|finding| finding.count == 0)
    }

    /// The same when sessions may be lost.
    pub fn is_clean_but_for_losses(&self) -> bool {
        let mut wrong = self.violations.iter().filter(|(_, found)| found.count > 0);
        wrong.all(|(kind, _)| *kind == ViolationKind::Lost.name())
    }

    /// How often a session was found lost.
    pub fn lost(&self) -> u64 {
        let lost = self.violations.get(ViolationKind::Lost.name());
        lost.map_or(0, |finding| finding.count)
    }
}

const MAX_EXAMPLES: usize = 10;
/// Operations with a histogram of their own.
const OPERATIONS: [Operation; 6] = [
    Operation::Get,
    Operation::Acquire,
    Operation::Release,
    Operation::Put,
    Operation::Remove,
    Operation::Touch,
];

/// The counts of one thread.
#[derive(Debug)]
pub(crate) struct Tally {
    page_latency: Histogram<u32>,
    begun_page_latency: Histogram<u32>,
    contended_page_latency: Histogram<u32>,
    lock_wait: Histogram<u32>,
    lock_wait_per_page_ahead: Histogram<u32>,
    lock_hold: Histogram<u32>,
    operation_latency: [Histogram<u32>; OPERATIONS.len()],
    violations: BTreeMap<ViolationKind, ViolationSummary>,
    failures: BTreeMap<FarmFailure, u64>,
    failed_pages: u64,
    /// When pages failed first and last.
    failed_ns: Option<(u64, u64)>,
    bad_seconds: BTreeMap<u64, BadSecond>,
    unfinished_pages: u64,
    pub(crate) new_sessions: u64,
    pub(crate) session_starts: u64,
    pub(crate) takeovers: u64,
    pub(crate) lock_waits: u64,
    pub(crate) worst_lag_ns: u64,
    pub(crate) sweep: FinalSweep,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            page_latency: histogram(),
            begun_page_latency: histogram(),
            contended_page_latency: histogram(),
            lock_wait: histogram(),
            lock_wait_per_page_ahead: histogram(),
            lock_hold: histogram(),
            operation_latency: std::array::from_fn(|_| histogram()),
            violations: BTreeMap::new(),
            failures: BTreeMap::new(),
            failed_pages: 0,
            failed_ns: None,
            bad_seconds: BTreeMap::new(),
            unfinished_pages: 0,
            new_sessions: 0,
            session_starts: 0,
            takeovers: 0,
            lock_waits: 0,
            worst_lag_ns: 0,
            sweep: FinalSweep::default(),
        }
    }

    pub(crate) fn page(&mut self, took_ns: u64, was_contended: bool) {
        self.page_latency.saturating_record(took_ns / 1000);
        self.begun_page_latency.saturating_record(took_ns / 1000);
        if was_contended {
            self.contended_page_latency
                .saturating_record(took_ns / 1000);
        }
    }

    /// A page still waited for a lock, so long after it had begun, when the run was stopped.
    pub(crate) fn unfinished_page(&mut self, took_ns: u64) {
        self.begun_page_latency.saturating_record(took_ns / 1000);
        self.unfinished_pages += 1;
    }

    /// A page has had a lock. When it first asked, another one held it or had asked for it, and `ahead`
    /// held or wanted it in all; `None` if it was free.
    pub(crate) fn lock(&mut self, waited_ns: u64, ahead: Option<usize>, held_ns: u64) {
        self.lock_hold.saturating_record(held_ns / 1000);
        if let Some(ahead) = ahead {
            let waited_us = waited_ns / 1000;
            self.lock_wait.saturating_record(waited_us);
            self.lock_wait_per_page_ahead
                .saturating_record(waited_us / ahead.max(1) as u64);
        }
    }

    pub(crate) fn page_failed(&mut self, now_ns: u64) {
        self.failed_pages += 1;
        self.bad_second(now_ns / 1_000_000_000).failed_pages += 1;
        self.spread_failures((now_ns, now_ns));
    }

    fn spread_failures(&mut self, (from, to): (u64, u64)) {
        let (first, last) = self.failed_ns.unwrap_or((from, to));
        self.failed_ns = Some((first.min(from), last.max(to)));
    }

    fn bad_second(&mut self, second: u64) -> &mut BadSecond {
        self.bad_seconds.entry(second).or_insert(BadSecond {
            second,
            ..BadSecond::default()
        })
    }

    pub(crate) fn operation(&mut self, operation: Operation, took_ns: u64) {
        if let Some(at) = OPERATIONS.iter().position(|&known| known == operation) {
            self.operation_latency[at].saturating_record(took_ns / 1000);
        }
    }

    pub(crate) fn failure(&mut self, failure: FarmFailure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    pub(crate) fn violation(&mut self, now_ns: u64, session: String, violation: Violation) {
        if violation.kind == ViolationKind::Lost {
            self.bad_second(now_ns / 1_000_000_000).lost_sessions += 1;
        }
        let finding = self.violations.entry(violation.kind).or_default();
        finding.count += 1;
        if finding.examples.len() < MAX_EXAMPLES {
            finding.examples.push(Example {
                at_ms: now_ns / 1_000_000,
                session,
                expected: violation.expected,
                got: violation.got,
            });
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        // Adding fails only for values out of range, and all ranges are the same.
        for (ours, theirs) in [
            (&mut self.page_latency, other.page_latency),
            (&mut self.begun_page_latency, other.begun_page_latency),
            (
                &mut self.contended_page_latency,
                other.contended_page_latency,
            ),
            (&mut self.lock_wait, other.lock_wait),
            (
                &mut self.lock_wait_per_page_ahead,
                other.lock_wait_per_page_ahead,
            ),
            (&mut self.lock_hold, other.lock_hold),
        ] {
            let _ = ours.add(theirs);
        }
        let theirs = other.operation_latency;
        for (ours, theirs) in self.operation_latency.iter_mut().zip(theirs) {
            let _ = ours.add(theirs);
        }
        for (kind, theirs) in other.violations {
            let ours = self.violations.entry(kind).or_default();
            ours.count += theirs.count;
            let room = MAX_EXAMPLES.saturating_sub(ours.examples.len());
            ours.examples.extend(theirs.examples.into_iter().take(room));
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (second, theirs) in other.bad_seconds {
            let ours = self.bad_second(second);
            ours.failed_pages += theirs.failed_pages;
            ours.lost_sessions += theirs.lost_sessions;
        }
        if let Some(theirs) = other.failed_ns {
            self.spread_failures(theirs);
        }
        self.failed_pages += other.failed_pages;
        self.unfinished_pages += other.unfinished_pages;
        self.new_sessions += other.new_sessions;
        self.session_starts += other.session_starts;
        self.takeovers += other.takeovers;
        self.lock_waits += other.lock_waits;
        self.worst_lag_ns = self.worst_lag_ns.max(other.worst_lag_ns);
        self.sweep.read += other.sweep.read;
        self.sweep.unread += other.sweep.unread;
    }

    pub(crate) fn report(mut self, run: &RunFacts) -> FarmReport {
        let seconds = (run.elapsed_ns as f64 / 1e9).max(f64::MIN_POSITIVE);
        let by_operation = OPERATIONS.iter().zip(&self.operation_latency);
        FarmReport {
            seed: run.seed,
            elapsed_ms: run.elapsed_ns / 1_000_000,
            pages: run.counts.pages,
            failed_pages: self.failed_pages,
            unfinished_pages: self.unfinished_pages,
            first_failed_page_ms: self.failed_ns.map(|(first, _)| first / 1_000_000),
            last_failed_page_ms: self.failed_ns.map(|(_, last)| last / 1_000_000),
            bad_seconds: self.bad_seconds.into_values().collect(),
            pages_per_s: run.counts.pages as f64 / seconds,
            operations: run.counts.operations,
            operations_per_s: run.counts.operations as f64 / seconds,
            page_latency: latency(&self.page_latency),
            begun_page_latency: latency(&self.begun_page_latency),
            contended_page_latency: latency(&self.contended_page_latency),
            lock_wait: latency(&self.lock_wait),
            lock_wait_per_page_ahead: latency(&self.lock_wait_per_page_ahead),
            lock_hold: latency(&self.lock_hold),
            operation_latency: by_operation
                .map(|(operation, histogram)| (operation.name(), latency(histogram)))
                .filter(|(_, latency)| latency.count > 0)
                .collect(),
            violations: ViolationKind::ALL
                .into_iter()
                .map(|kind| {
                    let finding = self.violations.remove(&kind).unwrap_or_default();
                    (kind.name(), finding)
                })
                .collect(),
            failures: self
                .failures
                .iter()
                .map(|(failure, &count)| (failure.name(), count))
                .collect(),
            new_sessions: self.new_sessions,
            session_starts: self.session_starts,
            takeovers: self.takeovers,
            lock_waits: self.lock_waits,
            worst_lag_ms: run.is_open_loop.then_some(self.worst_lag_ns / 1_000_000),
            sweep: run.is_swept.then_some(self.sweep),
        }
    }
}

/// What the engine knows of a run besides the tallies.
#[derive(Debug)]
pub(crate) struct RunFacts {
    pub(crate) seed: u64,
    pub(crate) elapsed_ns: u64,
    /// The counts at the end of the run proper.
    pub(crate) counts: FarmCounts,
    pub(crate) is_open_loop: bool,
    pub(crate) is_swept: bool,
}

/// Microseconds, up to ten minutes; longer ones count as ten minutes.
// INVARIANT: the crate refuses bounds with low < 1, high < 2 * low or more than 5 digits.
#[expect(
    clippy::expect_used,
    reason = "the bounds are constants the crate accepts"
)]
fn histogram() -> Histogram<u32> {
    const MAX_US: u64 = 600_000_000;
    Histogram::new_with_bounds(1, MAX_US, 2).expect("constant bounds within the crate's limits")
}

fn latency(histogram: &Histogram<u32>) -> Latency {
    Latency {
        count: histogram.len(),
        mean_us: histogram.mean().round() as u64,
        p50_us: histogram.value_at_quantile(0.5),
        p90_us: histogram.value_at_quantile(0.9),
        p99_us: histogram.value_at_quantile(0.99),
        p99_9_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_still_wait_at_the_end_count_with_those_that_were_begun() {
        let mut tally = Tally::new();
        tally.page(1_000_000, true);
        let mut other = Tally::new();
        other.unfinished_page(3_000_000);
        tally.merge(other);
        let report = tally.report(&RunFacts {
            seed: 1,
            elapsed_ns: 1,
            counts: FarmCounts::default(),
            is_open_loop: false,
            is_swept: false,
        });
        let of = |latency: &Latency| (latency.count, latency.mean_us / 100);
        assert_eq!(of(&report.page_latency), (1, 10));
        assert_eq!(of(&report.begun_page_latency), (2, 20));
        assert_eq!(report.unfinished_pages, 1);
    }
}
