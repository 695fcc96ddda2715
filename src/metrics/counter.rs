//! Numbers that one thread writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};
/// Number of bounds of a [`Histogram`].
pub const BOUNDS: usize = 15;

/// Upper bounds of the buckets of a histogram, in nanoseconds.
pub type Bounds = [u64; BOUNDS];

/// A number with a single writer. Two threads that add at the same time lose one of both.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    #[inline]
    pub fn add(&self, count: u64) {
        // With one writer no locked read-modify-write is needed.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(count), Ordering::Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Puts `value` in its place.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by size, with a single writer.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    buckets: [Counter; BOUNDS],
    beyond: Counter,
    sum_ns: Counter,
}

/// What one or several histograms hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    /// Number of durations up to each bound, in their order.
    pub cumulative: [u64; BOUNDS],
    /// Number of all durations.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            buckets: Default::default(),
            beyond: Counter::default(),
            sum_ns: Counter::default(),
        }
    }

    /// Takes note of one duration.
    #[inline]
    pub fn observe_ns(&self, ns: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < ns);
        self.buckets.get(bucket).unwrap_or(&self.beyond).increment();
        self.sum_ns.add(ns);
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        let within: u64 = self.buckets.iter().map(Counter::get).sum();
        within + self.beyond.get()
    }

    /// Adds what it holds to `all`.
    pub fn add_to(&self, all: &mut HistogramTotals) {
        let mut below = 0;
        for (cumulative, bucket) in all.cumulative.iter_mut().zip(&self.buckets) {
            below += bucket.get();
            *cumulative += below;
        }
        all.count += below + self.beyond.get();
        all.sum_ns += self.sum_ns.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS_NS: Bounds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 20];

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it_and_all_above() {
        let histogram = Histogram::new(&BOUNDS_NS);
        for ns in [0, 1, 14, 15, 20, 21] {
            histogram.observe_ns(ns);
        }
        let mut all = HistogramTotals::default();
        histogram.add_to(&mut all);
        assert_eq!(all.cumulative[0], 2);
        assert_eq!(all.cumulative[12..], [2, 3, 5]);
        assert_eq!((all.count, all.sum_ns), (6, 71));
        assert_eq!(histogram.count(), 6);
        histogram.add_to(&mut all);
        assert_eq!((all.cumulative[14], all.count, all.sum_ns), (10, 12, 142));
    }
}
