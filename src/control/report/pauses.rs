//! Outages as users meet them: how long requests waited for a backend, how many were answered then,
//! and how many failed.

use std::collections::BTreeSet;

use super::replication::FailoverStatus;
use crate::config::LogLevel;
use crate::control::pool_state::{Failover, Notice};
use crate::metrics::HeldRequests;

/// What was let go at the end of a pause gets its answers within about this time.
const LET_GO_MS: u64 = 1_000;

/// Follows what the workers count.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    seen: Counts,
    current: Option<Pause>,
    last: Option<Ended>,
}

/// A pause that is over.
#[derive(Debug, Clone, Copy)]
struct Ended {
    since_ms: u64,
    over_ms: u64,
    answered: u64,
    failed: u64,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) held: HeldRequests,
    /// Requests that users saw fail, whether or not they waited.
    pub(crate) failed: u64,
}

#[derive(Debug)]
struct Pause {
    since_ms: u64,
    before: Counts,
    /// When nobody waited any more.
    over_ms: Option<u64>,
    /// The backends that were down in it.
    down: BTreeSet<String>,
}

impl Pauses {
    /// Takes note of what was counted by now, and of the backends that are down. What there is to say
    /// of a pause once it is over.
    pub(crate) fn follow<'n>(
        &mut self,
        counts: Counts,
        down: impl Iterator<Item = &'n str>,
        failover: Option<&Failover>,
        now_ms: u64,
    ) -> Option<Notice> {
        let before = std::mem::replace(&mut self.seen, counts);
        let has_begun = counts.held.begun > before.held.begun;
        if self.current.is_none() && has_begun {
            self.current = Some(Pause {
                since_ms: now_ms,
                before,
                over_ms: None,
                down: BTreeSet::new(),
            });
        }
        let pause = self.current.as_mut()?;
        if counts.held.waiting() > 0 || has_begun {
            pause.over_ms = None;
            pause.down.extend(down.map(str::to_owned));
        }
        if counts.held.waiting() > 0 {
            return None;
        }
        let over_ms = *pause.over_ms.get_or_insert(now_ms);
        if now_ms < over_ms + LET_GO_MS {
            return None;
        }
        let pause = self.current.take()?;
        let ended = pause.ended(counts);
        self.last = Some(ended);
        let failover = failover.filter(|failover| ended.is_of(failover));
        Some(match failover {
            Some(failover) => ended.told_with(failover),
            None => pause.notice(ended),
        })
    }

    /// What there is to show of a failure after which sessions went on with their copies.
    pub(crate) fn status(&self, failover: &Failover) -> FailoverStatus {
        let ended = self.last.filter(|ended| ended.is_of(failover));
        FailoverStatus {
            backend: failover.backend.clone(),
            to: failover.to.clone(),
            at_ms: failover.at_ms,
            slots: failover.slots,
            sessions: failover.sessions,
            pause_ms: ended.map(Ended::lasted_ms),
            waited: ended.map(|ended| ended.answered),
            failed: ended.map(|ended| ended.failed),
        }
    }
}

impl Ended {
    const fn lasted_ms(self) -> u64 {
        self.over_ms - self.since_ms
    }

    /// Whether it was the one that this failure has made.
    fn is_of(&self, failover: &Failover) -> bool {
        (self.since_ms..=self.over_ms + LET_GO_MS).contains(&failover.at_ms)
    }

    fn told_with(self, failover: &Failover) -> Notice {
        let Failover {
            backend, to, slots, ..
        } = failover;
        let to = to.join(" and ");
        let sessions = match failover.sessions {
            Some(sessions) => format!("about {sessions} sessions"),
            None => format!("the sessions of {slots} slots"),
        };
        let seconds = self.lasted_ms() as f64 / 1000.0;
        let Self {
            answered, failed, ..
        } = self;
        Notice {
            level: LogLevel::Warn,
            text: format!(
                "{backend} failed: {sessions} went on at {to} after a pause of up to {seconds:.1} s; \
                 {answered} requests waited and were answered, {failed} requests failed"
            ),
        }
    }
}

impl Pause {
    fn ended(&self, counts: Counts) -> Ended {
        Ended {
            since_ms: self.since_ms,
            over_ms: self.over_ms.unwrap_or(self.since_ms),
            answered: counts.held.answered - self.before.held.answered,
            failed: counts.failed.saturating_sub(self.before.failed),
        }
    }

    fn notice(self, ended: Ended) -> Notice {
        let Ended {
            answered, failed, ..
        } = ended;
        let lasted_ms = ended.lasted_ms();
        let down = match self.down.len() {
            0 => "a backend".to_owned(),
            _ => Vec::from_iter(self.down).join(" and "),
        };
        Notice {
            level: match failed {
                0 => LogLevel::Info,
                _ => LogLevel::Warn,
            },
            text: format!(
                "requests for {down} had to wait: {answered} were answered after a pause of up to \
                 {:.1} s, {failed} requests failed",
                lasted_ms as f64 / 1000.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(begun: u64, answered: u64, gave_up: u64, failed: u64) -> Counts {
        Counts {
            held: HeldRequests {
                begun,
                answered,
                failed: gave_up,
            },
            failed,
        }
    }

    #[test]
    fn a_pause_is_told_once_with_what_it_cost() {
        let mut pauses = Pauses::default();
        let mut follow = |counts, down: &[&str], now_ms| {
            let told = pauses.follow(counts, down.iter().copied(), None, now_ms);
            told.map(|notice| (notice.level, notice.text))
        };
        assert_eq!(follow(counts(0, 0, 0, 5), &[], 2_000), None);
        assert_eq!(follow(counts(2, 0, 0, 6), &[], 3_000), None);
        assert_eq!(follow(counts(50, 0, 0, 7), &["state-3"], 4_000), None);
        assert_eq!(follow(counts(50, 1, 0, 7), &["state-3"], 6_000), None);
        // It goes on elsewhere now.
        assert_eq!(follow(counts(50, 40, 10, 15), &["state-3"], 6_250), None);
        assert_eq!(follow(counts(50, 40, 10, 15), &["state-3"], 7_000), None);
        let (level, text) = follow(counts(50, 40, 10, 16), &["state-3"], 7_250).unwrap();
        assert_eq!(level, LogLevel::Warn);
        assert_eq!(
            text,
            "requests for state-3 had to wait: 40 were answered after a pause of up to 3.2 s, \
             11 requests failed"
        );
        assert_eq!(follow(counts(50, 40, 10, 30), &["state-3"], 9_000), None);
    }

    #[test]
    fn a_failure_after_which_sessions_go_on_is_one_line_and_stays_visible() {
        let mut pauses = Pauses::default();
        let failover = |at_ms| Failover {
            backend: "state-3".to_owned(),
            to: vec!["state-1".to_owned(), "state-2".to_owned()],
            at_ms,
            slots: 5_254,
            sessions: Some(12_300),
        };
        let gone_on = failover(5_000);
        let mut follow = |counts, now_ms| {
            pauses.follow(counts, std::iter::once("state-3"), Some(&gone_on), now_ms)
        };
        assert_eq!(follow(counts(0, 0, 0, 5), 2_000), None);
        assert_eq!(follow(counts(50, 0, 0, 6), 3_000), None);
        assert_eq!(follow(counts(50, 50, 0, 6), 5_200), None);
        let told = follow(counts(50, 50, 0, 7), 6_200).unwrap();
        assert_eq!(told.level, LogLevel::Warn);
        assert_eq!(
            told.text,
            "state-3 failed: about 12300 sessions went on at state-1 and state-2 after a pause of up \
             to 2.2 s; 50 requests waited and were answered, 2 requests failed"
        );
        let shown = pauses.status(&gone_on);
        assert_eq!(
            (shown.pause_ms, shown.waited, shown.failed),
            (Some(2_200), Some(50), Some(2))
        );
        assert_eq!((shown.at_ms, shown.sessions), (5_000, Some(12_300)));
        // The pause of an earlier failure is none of a later one.
        assert_eq!(pauses.status(&failover(60_000)).pause_ms, None);
    }

    #[test]
    fn a_pause_without_a_failure_is_no_warning() {
        let mut pauses = Pauses::default();
        let mut follow = |counts, now_ms| pauses.follow(counts, std::iter::empty(), None, now_ms);
        assert!(follow(counts(0, 0, 0, 7), 0).is_none());
        assert!(follow(counts(3, 3, 0, 7), 1_000).is_none());
        let told = follow(counts(3, 3, 0, 7), 2_000).unwrap();
        assert_eq!(told.level, LogLevel::Info);
        assert!(
            told.text.contains("for a backend had to wait: 3 were"),
            "{}",
            told.text
        );
    }
}
