//! What becomes of durations between two looks at them.

use super::counter::{Bounds, HistogramTotals};

impl HistogramTotals {
    /// Those that came after `earlier`, which were read from the same histograms before.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        for (count, before) in later.cumulative.iter_mut().zip(earlier.cumulative) {
            *count = count.saturating_sub(before);
        }
        later.count = later.count.saturating_sub(earlier.count);
        later.sum_ns = later.sum_ns.saturating_sub(earlier.sum_ns);
        later
    }

    /// Adds those of histograms with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.cumulative.iter_mut().zip(other.cumulative) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
    }

    /// The time in microseconds that `part` (0 to 1) of them took at most, as far as histograms with
    /// these bounds tell: those in one bucket count as spread evenly over it, those beyond the last
    /// bound as equal to it. `None` when there are none.
    #[must_use]
    pub fn quantile_us(&self, bounds: &Bounds, part: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = part * self.count as f64;
        let (mut lower_ns, mut below) = (0, 0);
        for (&upper_ns, &within) in bounds.iter().zip(&self.cumulative) {
            if within as f64 >= rank && within > below {
                let share = (rank - below as f64).max(0.0) / (within - below) as f64;
                let ns = lower_ns as f64 + share * (upper_ns - lower_ns) as f64;
                return Some((ns / 1e3) as u64);
            }
            (lower_ns, below) = (upper_ns, within);
        }
        Some(lower_ns / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;

    const BOUNDS_NS: Bounds = [
        1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_000_000,
        2_000_000, 4_000_000, 8_000_000, 16_000_000,
    ];

    fn durations(us: &[u64]) -> HistogramTotals {
        let histogram = Histogram::new(&BOUNDS_NS);
        for &us in us {
            histogram.observe_ns(us * 1000);
        }
        let mut all = HistogramTotals::default();
        histogram.add_to(&mut all);
        all
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_where_so_many_are_reached() {
        let all = durations(&[10, 11, 12, 13, 300]);
        assert_eq!(all.quantile_us(&BOUNDS_NS, 0.5), Some(13));
        assert_eq!(all.quantile_us(&BOUNDS_NS, 0.8), Some(16));
        assert_eq!(all.quantile_us(&BOUNDS_NS, 1.0), Some(512));
        assert_eq!(all.quantile_us(&BOUNDS_NS, 0.0), Some(8));
    }

    #[test]
    fn without_durations_there_is_no_quantile_and_beyond_the_bounds_no_better_one() {
        assert_eq!(durations(&[]).quantile_us(&BOUNDS_NS, 0.5), None);
        let beyond = durations(&[20_000, 30_000]);
        assert_eq!(beyond.quantile_us(&BOUNDS_NS, 0.5), Some(16_000));
    }

    #[test]
    fn what_came_since_is_what_was_added() {
        let (early, late) = (durations(&[1, 300]), durations(&[5, 5, 40_000]));
        let mut all = early.clone();
        all.merge(&late);
        assert_eq!(all.since(&early), late);
        assert_eq!(all.since(&all).quantile_us(&BOUNDS_NS, 0.5), None);
    }
}
