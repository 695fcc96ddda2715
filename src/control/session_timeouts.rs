//! Which session timeouts have been seen lately: a handover lasts as long as the longest one, and so
//! long nothing outdated may be served.
//!
//! A timeout counts as long as a session that had it may live, and no longer: one mistake of one page
//! must not make every handover of the year a long one.

/// The longest timeout that a session can have (protocol 3), whatever a peer claims.
pub const MAX_TIMEOUT_MINUTES: u32 = 525_600;

/// Most timeouts that are told apart.
const MAX_SEEN: usize = 32;

/// A session lives this long after it was last seen, and as observations are noted only now and then,
/// a quarter more.
const fn counts_ms(minutes: u32) -> u64 {
    minutes as u64 * 60_000 / 4 * 5
}

/// A session with this timeout was used at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTimeout {
    /// The timeout in minutes, at least 1.
    pub minutes: u32,
    /// When, Unix time in milliseconds.
    pub seen_ms: u64,
}

/// The timeouts seen lately. Of one that is shorter than another and was seen before it nothing is
/// kept: it adds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenTimeouts(Vec<SeenTimeout>);

impl SeenTimeouts {
    /// Takes note of a session. A timeout of 0 is none.
    pub fn saw(&mut self, seen: SeenTimeout) {
        let covers = |known: &SeenTimeout, other: &SeenTimeout| {
            known.minutes >= other.minutes && known.seen_ms >= other.seen_ms
        };
        if seen.minutes == 0 || self.0.iter().any(|known| covers(known, &seen)) {
            return;
        }
        self.0.retain(|known| !covers(&seen, known));
        self.0.push(seen);
        // The longest first, which is the one that was seen longest ago.
        self.0
            .sort_unstable_by_key(|known| u32::MAX - known.minutes);
        if self.0.len() > MAX_SEEN {
            self.join_neighbours();
        }
    }

    /// Makes one of the two that are most alike, which counts as the longer one and as the later one.
    fn join_neighbours(&mut self) {
        let pairs = self.0.windows(2).enumerate();
        let closest = pairs.min_by_key(|(_, pair)| pair[0].minutes - pair[1].minutes);
        if let Some((index, _)) = closest {
            self.0[index].seen_ms = self.0[index + 1].seen_ms;
            self.0.remove(index + 1);
        }
    }

    /// Forgets those whose sessions have died.
    pub fn forget_dead(&mut self, now_ms: u64) {
        let lives =
            |seen: &SeenTimeout| now_ms.saturating_sub(seen.seen_ms) < counts_ms(seen.minutes);
        self.0.retain(lives);
    }

    /// The longest, in minutes; 0 for none.
    pub fn longest_minutes(&self) -> u32 {
        self.0.first().map_or(0, |longest| longest.minutes)
    }

    /// When a session with this timeout or a longer one was last seen, as far as is known.
    pub fn last_seen_ms(&self, minutes: u32) -> Option<u64> {
        let mut longer = self.0.iter().filter(|seen| seen.minutes >= minutes);
        longer.next_back().map(|seen| seen.seen_ms)
    }

    /// Whether a session with this timeout is worth writing down: what is known of it will not count
    /// for its whole life any more.
    pub fn is_news(&self, minutes: u32, now_ms: u64) -> bool {
        let quarter_ms = counts_ms(minutes) / 5;
        let known_ms = self.last_seen_ms(minutes);
        minutes > 0 && known_ms.is_none_or(|seen_ms| now_ms.saturating_sub(seen_ms) >= quarter_ms)
    }

    /// All of them, the longest first.
    pub fn iter(&self) -> impl Iterator<Item = SeenTimeout> + '_ {
        self.0.iter().copied()
    }

    /// The same with other times.
    pub fn with_times(&self, time: impl Fn(u64) -> u64) -> Self {
        self.iter()
            .map(|seen| SeenTimeout {
                seen_ms: time(seen.seen_ms),
                ..seen
            })
            .collect()
    }
}

impl FromIterator<SeenTimeout> for SeenTimeouts {
    fn from_iter<T: IntoIterator<Item = SeenTimeout>>(seen: T) -> Self {
        let mut all = Self::default();
        seen.into_iter().for_each(|seen| all.saw(seen));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn seen(minutes: u32, at_minute: u64) -> SeenTimeout {
        SeenTimeout {
            minutes,
            seen_ms: at_minute * MINUTE_MS,
        }
    }

    fn longest(all: &SeenTimeouts, at_minute: u64) -> u32 {
        let mut all = all.clone();
        all.forget_dead(at_minute * MINUTE_MS);
        all.longest_minutes()
    }

    #[test]
    fn a_timeout_counts_while_its_session_may_live() {
        let all: SeenTimeouts = [seen(20, 0), seen(1000, 10), seen(60, 100)]
            .into_iter()
            .collect();
        for (at_minute, expected) in [(100, 1000), (1009, 1000), (1260, 0)] {
            assert_eq!(longest(&all, at_minute), expected, "{at_minute}");
        }
        let mut used = all.clone();
        used.saw(seen(60, 1250));
        assert_eq!(longest(&used, 1260), 60);
    }

    #[test]
    fn only_what_adds_something_is_kept_and_never_much() {
        let mut all: SeenTimeouts = (1..=1000).map(|minute| seen(2000 - minute, 1000)).collect();
        assert_eq!(all.iter().count(), 1);
        all = (0..1000)
            .map(|minute| seen(2000 - minute, minute.into()))
            .collect();
        assert_eq!(all.iter().count(), MAX_SEEN);
        assert_eq!(all.longest_minutes(), 2000);
        // None counts for less than it is.
        for minute in 0..1000 {
            let timeout = 2000 - minute;
            assert!(all.last_seen_ms(timeout).unwrap() >= u64::from(minute) * MINUTE_MS);
        }
    }

    #[test]
    fn a_session_in_use_is_news_now_and_then() {
        let mut all = SeenTimeouts::default();
        assert!(all.is_news(60, 0));
        all.saw(seen(60, 0));
        assert!(!all.is_news(60, 14 * MINUTE_MS) && !all.is_news(20, 4 * MINUTE_MS));
        assert!(all.is_news(60, 15 * MINUTE_MS) && all.is_news(61, 0));
        assert!(!all.is_news(0, 15 * MINUTE_MS));
    }
}
