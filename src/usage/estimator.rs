//! What the followed sessions add up to.

use super::entry::{Tick, What, Who};
use super::table::Account;

/// Above this many followed sessions the level rises. With two buckets of four to choose from, one
/// session in a thousand finds no place then.
const MAX_FOLLOWED: usize = Account::ENTRIES / 8 * 5;

/// Below this many it falls, so far that at most half of the table is taken again.
const MIN_FOLLOWED: usize = Account::ENTRIES / 4;

/// A session's time from its last use to its end, as long as none is known.
const DEFAULT_LIFETIME_MINUTES: u32 = 20;

/// The lifetime that counts is the shortest one that so many of a hundred sessions do not exceed.
const LIFETIME_PERCENT: usize = 99;

/// What is known is complete if it has this many times as many sessions as have been found that are
/// older than it.
const COMPLETE_FACTOR: u64 = 50;

/// Backend ids are below this.
const PLACES: usize = 128;

/// Numbers of applications are below this.
const APPLICATIONS: usize = 256;

/// Adds up an account from time to time, and sees to its level. One per account.
///
/// What has been followed for one session lifetime is complete: whatever was alive before has been
/// used since, or has expired. So a lower level counts only after that time, and so does a new
/// account, unless hardly a session turns up that it does not know.
#[derive(Debug)]
pub struct Estimator {
    origin_ms: u64,
    /// When the account began.
    since_ms: u64,
    /// The level whose sessions are all known.
    level: u32,
    /// When the account's own, lower level began.
    lowered_ms: u64,
    discovered: u64,
    is_old: bool,
}

/// An account at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// When, in the time of the caller.
    pub at_ms: u64,
    /// A followed session stands for 2^level of them.
    pub level: u32,
    /// Sessions that are followed.
    pub followed: usize,
    /// Whether all living sessions are counted; false for some time after the start, when those
    /// that have not been used since are missing.
    pub is_complete: bool,
    sums: Box<[Sums]>,
    by_application: Box<[Sums]>,
}

/// How many sessions there are and how many bytes they hold.
///
/// The standard errors are relative: the truth is within one of them two times out of three, and
/// within two of them 19 times out of 20. They are 0 while every session is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Sessions.
    pub sessions: u64,
    /// Relative standard error of `sessions`.
    pub sessions_error: f64,
    /// Bytes of the sessions' bodies.
    pub bytes: u64,
    /// Relative standard error of `bytes`.
    pub bytes_error: f64,
}

/// Over the followed sessions of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    sessions: u64,
    bytes: u64,
    squared_bytes: f64,
}

/// One look at all entries.
struct Pass {
    sums: Box<[Sums]>,
    by_application: Box<[Sums]>,
    followed: usize,
    timeouts: Timeouts,
}

/// How many sessions have a timeout of how many minutes, by powers of two, and the longest of each.
#[derive(Default)]
struct Timeouts([(usize, u32); u32::BITS as usize]);

impl Estimator {
    /// For a new account. Times are milliseconds from any origin that stays the same.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            origin_ms: now_ms,
            since_ms: now_ms,
            level: 0,
            lowered_ms: now_ms,
            discovered: 0,
            is_old: false,
        }
    }

    /// Tells the account the time: what it sees is dated by this. To be done a few times a second.
    pub fn set_now(&self, account: &Account, now_ms: u64) {
        account.set_now(self.tick(now_ms));
    }

    /// Follows sessions from now on, or none any more.
    pub fn switch(&mut self, account: &Account, on: bool, now_ms: u64) {
        if on && !account.is_on() {
            account.set_level(0);
            *self = Self {
                origin_ms: self.origin_ms,
                ..Self::new(now_ms)
            };
        } else if !on && account.is_on() {
            account.switch_off();
        }
    }

    /// Adds up, drops what has expired and adapts the level; `None` when nothing is followed. Takes
    /// about a millisecond.
    pub fn audit(&mut self, account: &Account, now_ms: u64) -> Option<Audit> {
        if !account.is_on() {
            return None;
        }
        self.set_now(account, now_ms);
        // Workers may raise the level at any time: this one is the same for all entries.
        let level = account.level();
        self.level = self.level.max(level);
        let pass = Pass::over(account, level, self.level, self.tick(now_ms));
        let lifetime_ms = pass.timeouts.lifetime_ms();
        self.discovered += account.take_discovered();
        self.is_old |= now_ms.saturating_sub(self.since_ms) >= lifetime_ms;
        let known = pass.followed as u64;
        let audit = Audit {
            at_ms: now_ms,
            level: self.level,
            followed: pass.followed,
            is_complete: self.is_old || known > 0 && self.discovered * COMPLETE_FACTOR <= known,
            sums: pass.sums,
            by_application: pass.by_application,
        };
        self.adapt(account, level, pass.followed, lifetime_ms, now_ms);
        Some(audit)
    }

    fn adapt(
        &mut self,
        account: &Account,
        level: u32,
        followed: usize,
        lifetime_ms: u64,
        now_ms: u64,
    ) {
        account.take_missed();
        if followed > MAX_FOLLOWED {
            account.raise(level);
            return;
        }
        let is_complete = now_ms.saturating_sub(self.lowered_ms) >= lifetime_ms;
        if level < self.level && is_complete {
            self.level = level;
        }
        if level == self.level && level > 0 && followed < MIN_FOLLOWED {
            let room = Account::ENTRIES / 2 / followed.max(1);
            account.set_level(level.saturating_sub(room.ilog2()));
            self.lowered_ms = now_ms;
        }
    }

    fn tick(&self, now_ms: u64) -> Tick {
        Tick::from_ms(now_ms.saturating_sub(self.origin_ms))
    }
}

impl Audit {
    /// What is at the backend with the id `place`.
    #[must_use]
    pub fn at(&self, place: u8) -> Estimate {
        let sums = self.sums.get(usize::from(place)).copied();
        sums.unwrap_or_default().estimate(self.level)
    }

    /// What the application with this number has.
    #[must_use]
    pub fn of_application(&self, number: u8) -> Estimate {
        let sums = self.by_application.get(usize::from(number)).copied();
        sums.unwrap_or_default().estimate(self.level)
    }
}

impl Sums {
    fn add(&mut self, bytes: u64) {
        self.sessions += 1;
        self.bytes += bytes;
        self.squared_bytes += (bytes as f64).powi(2);
    }

    /// Each session is in the sample with the same probability, by itself: what is estimated is a
    /// Horvitz-Thompson total, and so is its variance.
    fn estimate(&self, level: u32) -> Estimate {
        let left_out = 1.0 - (-f64::from(level)).exp2();
        let relative = |squares: f64, sum: u64| match sum {
            0 if level == 0 => 0.0,
            0 => 1.0,
            sum => (left_out * squares).sqrt() / sum as f64,
        };
        Estimate {
            sessions: self.sessions << level,
            sessions_error: relative(self.sessions as f64, self.sessions),
            bytes: self.bytes << level,
            bytes_error: relative(self.squared_bytes, self.bytes),
        }
    }
}

impl Pass {
    /// Frees the entries below `level`, which nobody follows any more, and those that have expired.
    /// Adds up those from `sum_level` on.
    fn over(account: &Account, level: u32, sum_level: u32, now: Tick) -> Self {
        let mut pass = Self {
            sums: vec![Sums::default(); PLACES].into(),
            by_application: vec![Sums::default(); APPLICATIONS].into(),
            followed: 0,
            timeouts: Timeouts::default(),
        };
        for entry in account.entries() {
            let who = entry.who();
            if who == Who::NOBODY {
                continue;
            }
            let what = entry.what();
            if who.rank() < level {
                entry.free(who);
                continue;
            }
            if what.is_expired(now) {
                // Unless it is just being filled.
                if what != What::UNKNOWN {
                    entry.free(who);
                }
                continue;
            }
            pass.followed += 1;
            pass.timeouts.add(who.timeout_minutes());
            if who.rank() >= sum_level {
                pass.sums[usize::from(who.place())].add(what.bytes());
                pass.by_application[usize::from(who.application())].add(what.bytes());
            }
        }
        pass
    }
}

impl Timeouts {
    fn add(&mut self, minutes: u32) {
        let (count, longest) = &mut self.0[minutes.max(1).ilog2() as usize];
        *count += 1;
        *longest = minutes.max(*longest);
    }

    fn lifetime_ms(&self) -> u64 {
        let all: usize = self.0.iter().map(|(count, _)| count).sum();
        let mut counted = 0;
        let nearly_all = self.0.iter().find(|(count, _)| {
            counted += count;
            counted > 0 && counted * 100 >= all * LIFETIME_PERCENT
        });
        let minutes = nearly_all.map_or(DEFAULT_LIFETIME_MINUTES, |(_, longest)| *longest);
        u64::from(minutes) * 60_000
    }
}
