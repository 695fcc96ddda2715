//! How fast the sessions of a backend grow, and when they reach its capacity.

use std::collections::VecDeque;

use super::estimator::Estimate;

/// How far back a trend looks.
const WINDOW_MS: u64 = 10 * 60_000;

/// Time between two points of it, at least.
const SPACING_MS: u64 = 10_000;

/// No trend without as many points, which takes a minute.
const MIN_POINTS: usize = 7;

/// A slope counts if it is this many times as large as its standard error.
const MIN_CERTAINTY: f64 = 3.0;

/// What is farther away is as good as never: a trend of minutes knows nothing of next month.
const HORIZON_S: f64 = 30.0 * 86_400.0;

/// What a backend can hold; what is `None` has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Sessions; at least 1.
    pub sessions: Option<u64>,
    /// Bytes of the sessions' bodies; at least 1.
    pub memory_bytes: Option<u64>,
}

/// The last minutes of one backend.
#[derive(Debug, Clone, Default)]
pub struct Trend {
    points: VecDeque<Point>,
    growth: Option<Growth>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at_ms: u64,
    sessions: f64,
    bytes: f64,
}

/// How fast something grows; negative when it shrinks, 0 when it does neither for certain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Sessions per second.
    pub sessions_per_s: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
}

/// How full a backend is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Saturation {
    /// Share of its capacity in use, of sessions or of memory, whichever is more; `None` without a
    /// capacity. 1 is full, and it may be more.
    pub used: Option<f64>,
    /// When it is full if it goes on as in the last minutes, in seconds; 0 when it is, infinite when
    /// it does not grow, or so slowly that it takes more than 30 days. `None` without a capacity, and
    /// while its growth is unknown.
    pub seconds_to_full: Option<f64>,
}

impl Trend {
    /// Adds what was found at `at_ms`, unless the last point is too young.
    pub fn add(&mut self, at_ms: u64, found: &Estimate) {
        let age_ms = |point: &Point| at_ms.saturating_sub(point.at_ms);
        if self
            .points
            .back()
            .is_some_and(|last| age_ms(last) < SPACING_MS)
        {
            return;
        }
        while self
            .points
            .front()
            .is_some_and(|first| age_ms(first) > WINDOW_MS)
        {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at_ms,
            sessions: found.sessions as f64,
            bytes: found.bytes as f64,
        });
        self.growth = (self.points.len() >= MIN_POINTS).then(|| Growth {
            sessions_per_s: self.slope_per_s(|point| point.sessions),
            bytes_per_s: self.slope_per_s(|point| point.bytes),
        });
    }

    /// How fast it grows; `None` in the first minute.
    #[must_use]
    pub fn growth(&self) -> Option<Growth> {
        self.growth
    }

    /// Least squares.
    fn slope_per_s(&self, value: fn(&Point) -> f64) -> f64 {
        let count = self.points.len() as f64;
        let begun_ms = self.points.front().map_or(0, |first| first.at_ms);
        let at_s = |point: &Point| point.at_ms.saturating_sub(begun_ms) as f64 / 1000.0;
        let mean = |of: &dyn Fn(&Point) -> f64| self.points.iter().map(of).sum::<f64>() / count;
        let (mean_s, mean_value) = (mean(&at_s), mean(&value));
        let (mut times, mut products, mut values) = (0.0, 0.0, 0.0);
        for point in &self.points {
            let (time, value) = (at_s(point) - mean_s, value(point) - mean_value);
            times += time * time;
            products += time * value;
            values += value * value;
        }
        if times <= 0.0 {
            return 0.0;
        }
        let slope = products / times;
        let residuals = (values - slope * products).max(0.0);
        let error = (residuals / (count - 2.0) / times).sqrt();
        if slope.abs() > MIN_CERTAINTY * error {
            slope
        } else {
            0.0
        }
    }
}

impl Saturation {
    /// Of a backend with `found` sessions that grow by `growth`, if that is known.
    #[must_use]
    pub fn of(found: &Estimate, capacity: Capacity, growth: Option<Growth>) -> Self {
        let sessions = capacity.sessions.map(|max| {
            let per_s = growth.map(|growth| growth.sessions_per_s);
            Self::of_one(found.sessions, max, per_s)
        });
        let memory = capacity.memory_bytes.map(|max| {
            let per_s = growth.map(|growth| growth.bytes_per_s);
            Self::of_one(found.bytes, max, per_s)
        });
        let both = || sessions.iter().chain(&memory);
        Self {
            used: both().filter_map(|one| one.used).reduce(f64::max),
            seconds_to_full: both()
                .filter_map(|one| one.seconds_to_full)
                .reduce(f64::min),
        }
    }

    fn of_one(used: u64, max: u64, per_s: Option<f64>) -> Self {
        let free = max as f64 - used as f64;
        let seconds_to_full = if free <= 0.0 {
            Some(0.0)
        } else {
            per_s.map(|per_s| match free / per_s {
                seconds if per_s > 0.0 && seconds <= HORIZON_S => seconds.round(),
                _ => f64::INFINITY,
            })
        };
        Self {
            used: Some(used as f64 / max as f64),
            seconds_to_full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sessions: u64, bytes: u64) -> Estimate {
        Estimate {
            sessions,
            sessions_error: 0.0,
            bytes,
            bytes_error: 0.0,
        }
    }

    /// A trend with a point every `spacing_ms`.
    fn trend(points: usize, spacing_ms: u64, at: impl Fn(f64) -> (f64, f64)) -> Trend {
        let mut trend = Trend::default();
        for i in 0..points {
            let at_ms = i as u64 * spacing_ms;
            let (sessions, bytes) = at(at_ms as f64 / 1000.0);
            trend.add(7_000 + at_ms, &found(sessions as u64, bytes as u64));
        }
        trend
    }

    proptest! {
        #[test]
        fn a_straight_line_is_followed_to_its_end(
            per_s in 1.0..1e5_f64, begin in 0.0..1e7_f64, spacing_ms in 1_000u64..60_000,
        ) {
            let line = |s: f64| (begin + per_s * s, 1e9);
            let trend = trend(200, spacing_ms, line);
            let growth = trend.growth().unwrap();
            prop_assert!((growth.sessions_per_s / per_s - 1.0).abs() < 0.01, "{growth:?}");
            prop_assert_eq!(growth.bytes_per_s, 0.0);

            let capacity = Capacity { sessions: Some(20_000_000), memory_bytes: Some(2_000_000_000) };
            let now = found(10_000_000, 1_000_000_000);
            let saturation = Saturation::of(&now, capacity, Some(growth));
            prop_assert_eq!(saturation.used, Some(0.5));
            let expected = 1e7 / per_s;
            match saturation.seconds_to_full.unwrap() {
                f64::INFINITY => prop_assert!(expected > HORIZON_S * 0.98),
                seconds => prop_assert!((seconds - expected).abs() <= expected * 0.02 + 1.0),
            }
        }
    }

    #[test]
    fn the_last_ten_minutes_count_and_no_more_is_kept() {
        let bend = |s: f64| (if s < 3_600.0 { 10.0 * s } else { 36_000.0 }, 0.0);
        let before = trend(361, 10_000, bend);
        assert!(before.growth().unwrap().sessions_per_s > 9.9);
        let after = trend(361 + 62, 10_000, bend);
        assert_eq!(after.growth().unwrap().sessions_per_s, 0.0);
        assert!(after.points.len() <= 62, "{}", after.points.len());
    }

    #[test]
    fn no_trend_in_the_first_minute() {
        let line = |s: f64| (s, s);
        assert_eq!(trend(MIN_POINTS - 1, 10_000, line).growth(), None);
        assert!(trend(MIN_POINTS, 10_000, line).growth().is_some());
    }

    #[test]
    fn what_only_wavers_does_not_grow() {
        let waver = |s: f64| (1e5 + 500.0 * (s * 1.7).sin(), 0.0);
        assert_eq!(
            trend(60, 10_000, waver).growth().unwrap().sessions_per_s,
            0.0
        );
    }

    #[test]
    fn the_nearer_of_two_limits_counts() {
        let growth = Some(Growth {
            sessions_per_s: 10.0,
            bytes_per_s: 1_000.0,
        });
        let capacity = |sessions, memory_bytes| Capacity {
            sessions,
            memory_bytes,
        };
        for (capacity, used, seconds_to_full) in [
            (capacity(None, None), None, None),
            (capacity(Some(2_000), None), Some(0.5), Some(100.0)),
            (capacity(None, Some(60_000)), Some(0.25), Some(45.0)),
            (capacity(Some(2_000), Some(60_000)), Some(0.5), Some(45.0)),
            (capacity(Some(500), Some(60_000)), Some(2.0), Some(0.0)),
        ] {
            let expected = Saturation {
                used,
                seconds_to_full,
            };
            let found = found(1_000, 15_000);
            assert_eq!(Saturation::of(&found, capacity, growth), expected);
        }
    }

    #[test]
    fn what_does_not_grow_never_gets_full_and_nobody_knows_without_a_trend() {
        let capacity = Capacity {
            sessions: Some(2_000),
            memory_bytes: None,
        };
        let saturation_of =
            |sessions, growth| Saturation::of(&found(sessions, 0), capacity, growth);
        for sessions_per_s in [-1.0, 0.0, 1e-9] {
            let growth = Growth {
                sessions_per_s,
                bytes_per_s: 1.0,
            };
            let saturation = saturation_of(1_000, Some(growth));
            assert_eq!(
                saturation.seconds_to_full,
                Some(f64::INFINITY),
                "{growth:?}"
            );
            assert_eq!(saturation.used, Some(0.5));
        }
        assert_eq!(saturation_of(1_000, None).seconds_to_full, None);
        let full = saturation_of(2_000, None);
        assert_eq!(full.seconds_to_full, Some(0.0), "full is full");
    }
}
