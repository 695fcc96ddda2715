//! The last minutes: what the admin page draws, and `GET /history` answers. It is kept in memory
//! only, and bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use crate::config::LogLevel;
use crate::control::pool_state::Notice;
use crate::handover::BackendId;
use crate::metrics::{BACKEND_BOUNDS_NS, BackendMetrics, HistogramTotals};

/// From one sample to the next.
pub const SAMPLE_INTERVAL_MS: u64 = 5_000;

/// A quarter of an hour of samples.
pub const MAX_SAMPLES: usize = 180;

/// Changes that are remembered.
pub const MAX_EVENTS: usize = 100;

/// Changes of slots that are remembered one by one when so many happen at once: a pool of a hundred
/// backends has a hundred, and they must not push out what else has happened.
const MAX_NOTICES_AT_ONCE: usize = 4;

/// Characters of what is said of a change.
const MAX_TEXT_CHARS: usize = 400;

/// What has happened lately.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Arc<HistorySample>>,
    events: VecDeque<Event>,
}

/// What `GET /history` answers.
#[derive(Debug, Serialize)]
pub struct HistoryPage<'h> {
    /// The time between two samples in milliseconds, give or take a quarter of a second.
    pub interval_ms: u64,
    /// The oldest first.
    pub samples: Vec<&'h HistorySample>,
    /// What has changed, the oldest first, however long ago.
    pub events: &'h VecDeque<Event>,
}

/// What was counted in a few seconds. Times of answers are estimates from a histogram, in
/// microseconds, and `null` when nothing was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistorySample {
    /// When these seconds ended, Unix time in milliseconds.
    pub at_ms: u64,
    /// How many milliseconds they were.
    pub span_ms: u64,
    /// Requests of clients that ended, whichever backend they were for, if any.
    pub requests: u64,
    /// Those of them that users saw fail: without a whole answer, unless the client left, or refused
    /// with 400.
    pub failed: u64,
    /// Connections that this machine had no port, file or buffer left for.
    pub shortages: u64,
    /// Half of the answers of all backends came within this time.
    pub p50_us: Option<u64>,
    /// 99 of 100 did.
    pub p99_us: Option<u64>,
    /// The backends, those of the map in its order.
    pub backends: Vec<BackendSample>,
}

/// The part of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendSample {
    /// Its id.
    pub id: u8,
    /// Requests of clients that it answered or failed to.
    pub requests: u64,
    /// Those of them that users saw fail: without a whole answer, unless the client left, or refused
    /// with 400.
    pub failed: u64,
    /// Writes and acquires that it refused with a 400.
    pub refused: u64,
    /// Answers that no state server gives to what was asked.
    pub unfit: u64,
    /// Half of its answers came within this time.
    pub p50_us: Option<u64>,
    /// 99 of 100 did.
    pub p99_us: Option<u64>,
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// What it is about.
    pub kind: EventKind,
    /// How important it is.
    pub level: EventLevel,
    /// The backend that it is about, if it is one and `says` does not begin with it.
    pub backend: Option<String>,
    /// What has happened, for people.
    pub says: String,
}

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The health of a backend.
    Health,
    /// Where sessions are.
    Slots,
    /// The two files.
    Files,
    /// What an operator has ordered.
    Orders,
}

/// How important a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventLevel {
    /// Good to know.
    Info,
    /// Users may notice.
    Warn,
    /// Users notice, or what was wanted was refused.
    Error,
}

impl History {
    /// Requests that failed in the samples that came after `since_ms`, and all of these.
    pub fn failed_since(&self, since_ms: u64) -> (u64, u64) {
        self.since(since_ms)
            .fold((0, 0), |(failed, requests), sample| {
                (failed + sample.failed, requests + sample.requests)
            })
    }

    /// How many connections this machine had nothing left for since then.
    pub fn shortages_since(&self, since_ms: u64) -> u64 {
        self.since(since_ms).map(|sample| sample.shortages).sum()
    }

    /// The writes and acquires that the backend with this id refused since then, and its answers that
    /// did not fit.
    pub fn refused_and_unfit_since(&self, id: u8, since_ms: u64) -> (u64, u64) {
        let samples = self.since(since_ms).flat_map(|sample| &sample.backends);
        let of_backend = samples.filter(|sample| sample.id == id);
        of_backend.fold((0, 0), |(refused, unfit), sample| {
            (refused + sample.refused, unfit + sample.unfit)
        })
    }

    fn since(&self, since_ms: u64) -> impl Iterator<Item = &Arc<HistorySample>> {
        let samples = self.samples.iter().rev();
        samples.take_while(move |sample| sample.at_ms > since_ms)
    }

    /// Everything that there is, of samples only those that came after `since_ms`.
    pub fn page(&self, since_ms: u64) -> HistoryPage<'_> {
        let samples = self.samples.iter().map(AsRef::as_ref);
        HistoryPage {
            interval_ms: SAMPLE_INTERVAL_MS,
            samples: samples.filter(|sample| sample.at_ms > since_ms).collect(),
            events: &self.events,
        }
    }
}

/// Writes the history.
#[derive(Debug)]
pub(crate) struct Recorder {
    history: Arc<History>,
    sampled_ms: u64,
    unplaced: (u64, u64),
    known: Vec<Known>,
}

/// What a backend had counted at the last sample.
#[derive(Debug)]
struct Known {
    metrics: Arc<BackendMetrics>,
    counted: Counted,
}

#[derive(Debug, Clone, Default)]
struct Counted {
    requests: u64,
    failed: u64,
    refused: u64,
    unfit: u64,
    shortages: u64,
    durations: HistogramTotals,
}

impl Recorder {
    /// An empty history that begins now.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            history: Arc::default(),
            sampled_ms: now_ms,
            unplaced: (0, 0),
            known: Vec::new(),
        }
    }

    /// The history so far.
    pub(crate) fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// Takes the next sample if it is due. `unplaced` are the requests for no backend, all and
    /// failed, since the start.
    pub(crate) fn sample<'m>(
        &mut self,
        now_ms: u64,
        unplaced: impl FnOnce() -> (u64, u64),
        backends: impl Iterator<Item = (BackendId, &'m Arc<BackendMetrics>)>,
    ) {
        let span_ms = now_ms.saturating_sub(self.sampled_ms);
        if span_ms < SAMPLE_INTERVAL_MS {
            return;
        }
        let unplaced = unplaced();
        let mut total = Counted {
            requests: unplaced.0.saturating_sub(self.unplaced.0),
            failed: unplaced.1.saturating_sub(self.unplaced.1),
            ..Counted::default()
        };
        let mut known = Vec::new();
        let mut samples = Vec::new();
        for (backend_id, metrics) in backends {
            let counted = Counted::of(metrics);
            let new = counted.since(self.before(metrics));
            total.add(&new);
            samples.push(new.sample(backend_id));
            known.push(Known {
                metrics: Arc::clone(metrics),
                counted,
            });
        }
        (self.sampled_ms, self.unplaced, self.known) = (now_ms, unplaced, known);
        let [p50_us, p99_us] = total.quantiles_us();
        self.push(HistorySample {
            at_ms: now_ms,
            span_ms,
            requests: total.requests,
            failed: total.failed,
            shortages: total.shortages,
            p50_us,
            p99_us,
            backends: samples,
        });
    }

    /// Notes that something has changed.
    pub(crate) fn note(&mut self, event: Event) {
        let says = match event.says.char_indices().nth(MAX_TEXT_CHARS) {
            Some((end, _)) => format!("{}…", &event.says[..end]),
            None => event.says,
        };
        let events = &mut Arc::make_mut(&mut self.history).events;
        events.push_back(Event { says, ..event });
        if events.len() > MAX_EVENTS {
            events.pop_front();
        }
    }

    /// Notes what is new in the slots, for many the first ones and the number of the others.
    pub(crate) fn note_slots(&mut self, notices: &[Notice], at_ms: u64) {
        let mut note = |level, says| {
            self.note(Event {
                at_ms,
                kind: EventKind::Slots,
                level,
                backend: None,
                says,
            });
        };
        let told = match notices.len() {
            0..=MAX_NOTICES_AT_ONCE => notices.len(),
            _ => MAX_NOTICES_AT_ONCE - 1,
        };
        let (told, others) = notices.split_at(told);
        for notice in told {
            note(EventLevel::from(notice.level), notice.text.clone());
        }
        let worst = others.iter().map(|notice| EventLevel::from(notice.level));
        if let Some(level) = worst.max() {
            note(level, format!("{} more like these", others.len()));
        }
    }

    fn push(&mut self, sample: HistorySample) {
        let samples = &mut Arc::make_mut(&mut self.history).samples;
        samples.push_back(Arc::new(sample));
        if samples.len() > MAX_SAMPLES {
            samples.pop_front();
        }
    }

    /// What was counted in the same numbers at the last sample: a backend that comes back under its
    /// old id begins with new ones.
    fn before(&self, metrics: &Arc<BackendMetrics>) -> Option<&Counted> {
        let mut known = self.known.iter();
        let found = known.find(|known| Arc::ptr_eq(&known.metrics, metrics));
        found.map(|known| &known.counted)
    }
}

impl From<LogLevel> for EventLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info | LogLevel::Debug | LogLevel::Trace => Self::Info,
        }
    }
}

impl Counted {
    fn of(metrics: &BackendMetrics) -> Self {
        Self {
            requests: metrics.sum(|shard| shard.requests.total()),
            failed: metrics.failed(),
            refused: metrics.refused(),
            unfit: metrics.sum(|shard| shard.unfit.get()),
            shortages: metrics.shortages(),
            durations: metrics.durations(),
        }
    }

    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self.clone();
        };
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            refused: self.refused.saturating_sub(before.refused),
            unfit: self.unfit.saturating_sub(before.unfit),
            shortages: self.shortages.saturating_sub(before.shortages),
            durations: self.durations.since(&before.durations),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.shortages += other.shortages;
        self.durations.merge(&other.durations);
    }

    fn quantiles_us(&self) -> [Option<u64>; 2] {
        [0.5, 0.99].map(|part| self.durations.quantile_us(&BACKEND_BOUNDS_NS, part))
    }

    fn sample(&self, backend_id: BackendId) -> BackendSample {
        let [p50_us, p99_us] = self.quantiles_us();
        BackendSample {
            id: backend_id.id(),
            requests: self.requests,
            failed: self.failed,
            refused: self.refused,
            unfit: self.unfit,
            p50_us,
            p99_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RequestOutcome;
    use crate::wire::Operation;

    const START_MS: u64 = 1_000_000;

    fn backend_id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn serve(metrics: &BackendMetrics, outcome: RequestOutcome, took_us: u64) {
        let shard = metrics.shard(0);
        shard.requests.count(Operation::Get, outcome);
        shard.duration.observe_ns(took_us * 1000);
    }

    fn sample(recorder: &mut Recorder, now_ms: u64, backends: &[(u8, &Arc<BackendMetrics>)]) {
        let backends = backends
            .iter()
            .map(|(id, metrics)| (backend_id(*id), *metrics));
        recorder.sample(now_ms, || (0, 0), backends);
    }

    fn last(recorder: &Recorder) -> HistorySample {
        let history = recorder.history();
        HistorySample::clone(history.samples.back().unwrap())
    }

    #[test]
    fn a_sample_holds_what_came_since_the_one_before() {
        let metrics = Arc::<BackendMetrics>::default();
        let mut recorder = Recorder::new(START_MS);
        serve(&metrics, RequestOutcome::Ok, 300);
        sample(&mut recorder, START_MS + 4_999, &[(1, &metrics)]);
        assert!(recorder.history().samples.is_empty());
        serve(&metrics, RequestOutcome::Failed, 300);
        sample(&mut recorder, START_MS + 5_100, &[(1, &metrics)]);
        let first = last(&recorder);
        assert_eq!((first.at_ms, first.span_ms), (START_MS + 5_100, 5_100));
        assert_eq!((first.requests, first.failed), (2, 1));
        assert!((250..=500).contains(&first.p50_us.unwrap()));

        sample(&mut recorder, START_MS + 10_100, &[(1, &metrics)]);
        let second = last(&recorder);
        assert_eq!(
            (second.requests, second.failed, second.p50_us),
            (0, 0, None)
        );
        assert_eq!(second.backends.len(), 1);
    }

    #[test]
    fn the_whole_is_all_backends_and_what_is_for_none() {
        let [slow, fast] = [(); 2].map(|()| Arc::<BackendMetrics>::default());
        for _ in 0..99 {
            serve(&fast, RequestOutcome::Ok, 60);
        }
        serve(&slow, RequestOutcome::Ok, 2_000_000);
        let mut recorder = Recorder::new(START_MS);
        let backends = [(backend_id(7), &slow), (backend_id(9), &fast)];
        recorder.sample(START_MS + 5_000, || (5, 3), backends.into_iter());
        let sample = last(&recorder);
        assert_eq!((sample.requests, sample.failed), (105, 3));
        assert!(sample.p50_us.unwrap() < 100, "{sample:?}");
        let [of_slow, of_fast] = &sample.backends[..] else {
            unreachable!("{sample:?}")
        };
        assert_eq!((of_slow.id, of_slow.requests), (7, 1));
        assert!(of_slow.p50_us.unwrap() > 1_000_000);
        assert_eq!((of_fast.id, of_fast.requests), (9, 99));
    }

    #[test]
    fn refused_requests_failed_and_those_whose_client_left_did_not() {
        let metrics = Arc::<BackendMetrics>::default();
        let shard = metrics.shard(0);
        for (operation, outcome) in [
            (Operation::Put, RequestOutcome::BadRequest),
            (Operation::Acquire, RequestOutcome::BadRequest),
            // What is no request of the protocol deserves it.
            (Operation::Unknown, RequestOutcome::BadRequest),
            (Operation::Put, RequestOutcome::Failed),
            (Operation::Put, RequestOutcome::Failed),
            (Operation::Put, RequestOutcome::Ok),
        ] {
            shard.requests.count(operation, outcome);
        }
        shard.left_by_client.increment();
        let mut recorder = Recorder::new(START_MS);
        sample(&mut recorder, START_MS + 5_000, &[(7, &metrics)]);
        let history = recorder.history();
        assert_eq!(last(&recorder).failed, 3);
        assert_eq!(last(&recorder).backends[0].refused, 2);
        assert_eq!(history.failed_since(START_MS), (3, 6));
        assert_eq!(history.refused_and_unfit_since(7, START_MS), (2, 0));
    }

    #[test]
    fn another_backend_under_the_same_id_begins_at_nothing() {
        let [old, new] = [(); 2].map(|()| Arc::<BackendMetrics>::default());
        let mut recorder = Recorder::new(START_MS);
        (0..10).for_each(|_| serve(&old, RequestOutcome::Ok, 60));
        sample(&mut recorder, START_MS + 5_000, &[(1, &old)]);
        serve(&new, RequestOutcome::Ok, 60);
        sample(&mut recorder, START_MS + 10_000, &[(1, &new)]);
        assert_eq!(last(&recorder).requests, 1);
    }

    #[test]
    fn many_changes_of_slots_at_once_leave_room_for_others() {
        let notice = |number: usize| Notice {
            level: if number == 60 {
                LogLevel::Warn
            } else {
                LogLevel::Info
            },
            text: format!("{number}"),
        };
        for (happened, wanted) in [
            (0, &[][..]),
            (2, &["0", "1"]),
            (4, &["0", "1", "2", "3"]),
            (64, &["0", "1", "2", "61 more like these"]),
        ] {
            let mut recorder = Recorder::new(START_MS);
            let notices: Vec<_> = (0..happened).map(notice).collect();
            recorder.note_slots(&notices, START_MS);
            let history = recorder.history();
            let said: Vec<_> = history.events.iter().map(|event| &event.says).collect();
            assert_eq!(said, wanted);
            let last = history.events.back();
            let is_warning = last.is_some_and(|event| event.level == EventLevel::Warn);
            assert_eq!(is_warning, happened == 64);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest() {
        let mut recorder = Recorder::new(START_MS);
        let event = |says: String| Event {
            at_ms: START_MS,
            kind: EventKind::Files,
            level: EventLevel::Error,
            backend: None,
            says,
        };
        for number in 1..=500 {
            recorder.note(event(format!("{number} {}", "é".repeat(10_000))));
            sample(&mut recorder, START_MS + number * 5_000, &[]);
        }
        let history = recorder.history();
        let page = history.page(0);
        assert_eq!(page.samples.len(), MAX_SAMPLES);
        assert_eq!(page.events.len(), MAX_EVENTS);
        assert!(page.events.back().unwrap().says.starts_with("500 "));
        let is_short = |event: &Event| event.says.chars().count() <= MAX_TEXT_CHARS + 1;
        assert!(page.events.iter().all(is_short));
        let newest_ms = START_MS + 500 * 5_000;
        assert_eq!(history.page(newest_ms - 5_000).samples.len(), 1);
        assert!(history.page(newest_ms).samples.is_empty());
    }
}
