//! Whether web servers have threads to spare, which their polls tell.
//!
//! A page that is told that its session is locked asks again after half a second, if it has a thread
//! then. If it comes late, pages of its web server wait for threads, and a request that waits here for
//! a lock would keep one more of them busy.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock_queue::ItemHash;
use crate::metrics::ThreadSigns;

/// After which time ASP.NET asks for a locked session again.
const POLL_MS: u64 = 500;

/// A poll that is so late has waited for a thread.
const LATE_MS: u64 = 100;

/// For how long after the last late poll threads count as short.
const SHORT_MS: u64 = 1_000;

/// For how long a poll is expected.
const EXPECTED_MS: u64 = 5_000;

/// A poll may be this much early, by the clocks of two machines.
const EARLY_MS: u64 = 50;

/// Polls that are awaited at a time; what does not fit is not awaited.
const ENTRIES: usize = 1 << 12;
/// Places among which one has the choice.
const WAYS: usize = 4;

const TIME_BITS: u32 = 32;

/// Pages that were told that their session is locked, and have yet to ask again.
///
/// | bits of an entry | what |
/// |---|---|
/// | 63..32 | of the hash of item and web server |
/// | 31..0 | when it was told, in milliseconds |
pub(super) struct PollWatch(Box<[AtomicU64]>);

/// A session, as one web server asks for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poller(u64);

impl Poller {
    pub(super) fn new(item: ItemHash, web_server: IpAddr) -> Self {
        let address = match web_server.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() ^ (address.to_bits() >> 64)) as u64,
        };
        // Spreads the few bits in which addresses differ.
        Self(item.bits() ^ address.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Default for PollWatch {
    fn default() -> Self {
        Self((0..ENTRIES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl fmt::Debug for PollWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PollWatch")
    }
}

impl PollWatch {
    /// A page was told that its session is locked.
    pub(super) fn told(&self, poller: Poller, signs: &ThreadSigns, now_ms: u64) {
        let entries = self.entries(poller).iter();
        let mut loaded = entries.map(|entry| (entry, entry.load(Ordering::Relaxed)));
        let free = loaded.find(|(_, known)| *known == 0 || age_ms(*known, now_ms) > EXPECTED_MS);
        if let Some((entry, known)) = free {
            let told = (poller.0 >> TIME_BITS << TIME_BITS) | (now_ms % (1 << TIME_BITS));
            // Another one may have taken the place: then this poll is not awaited.
            let _ = entry.compare_exchange(known, told, Ordering::Relaxed, Ordering::Relaxed);
            signs
                .polls_until_ms
                .store(now_ms + EXPECTED_MS, Ordering::Relaxed);
        }
    }

    /// A page asks for a session, perhaps once more.
    pub(super) fn asks(&self, poller: Poller, signs: &ThreadSigns, now_ms: u64) {
        let is_short = signs.are_short(now_ms);
        let late_ms = self.late_ms(poller, now_ms);
        if late_ms.is_some_and(|late_ms| shows_shortage(late_ms, is_short)) {
            signs
                .short_until_ms
                .store(now_ms + SHORT_MS, Ordering::Relaxed);
        }
    }

    /// How late the poll is that has been awaited longest; `None` if none was due.
    fn late_ms(&self, poller: Poller, now_ms: u64) -> Option<u64> {
        let loaded = self.entries(poller).iter().filter_map(|entry| {
            let known = entry.load(Ordering::Relaxed);
            let age_ms = age_ms(known, now_ms);
            let is_due = (POLL_MS - EARLY_MS..=EXPECTED_MS).contains(&age_ms);
            let is_its = known != 0 && (known ^ poller.0) >> TIME_BITS == 0;
            (is_due && is_its).then_some((age_ms, entry, known))
        });
        let (age_ms, entry, known) = loaded.max_by_key(|(age_ms, ..)| *age_ms)?;
        let taken = entry.compare_exchange(known, 0, Ordering::Relaxed, Ordering::Relaxed);
        taken.ok().map(|_| age_ms.saturating_sub(POLL_MS))
    }

    fn entries(&self, poller: Poller) -> &[AtomicU64] {
        let first = poller.0 as usize % ENTRIES / WAYS * WAYS;
        &self.0[first..first + WAYS]
    }
}

/// Whether a poll that comes so late has waited for a thread. One that comes after a multiple of half a
/// second has asked another proxy in between, and what comes much later may be another page.
fn shows_shortage(late_ms: u64, is_short: bool) -> bool {
    let beyond_ms = late_ms % POLL_MS;
    let is_between = (LATE_MS..POLL_MS - EARLY_MS).contains(&beyond_ms);
    late_ms >= LATE_MS && (is_short || (is_between && late_ms < 3 * POLL_MS))
}

fn age_ms(entry: u64, now_ms: u64) -> u64 {
    now_ms.wrapping_sub(entry) % (1 << TIME_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB_SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn poller(number: u64) -> Poller {
        Poller::new(ItemHash::new(number << 40, 9), WEB_SERVER)
    }

    /// When threads are short because of polls at these times, each told at 10,000 ms.
    fn short_after(polls_ms: &[u64]) -> bool {
        let (watch, signs) = (PollWatch::default(), ThreadSigns::default());
        for (number, at_ms) in polls_ms.iter().enumerate() {
            let poller = poller(number as u64 + 1);
            watch.told(poller, &signs, 10_000);
            watch.asks(poller, &signs, 10_000 + at_ms);
        }
        signs.are_short(10_000 + polls_ms.iter().max().unwrap_or(&0))
    }

    #[test]
    fn a_late_poll_says_that_threads_are_short_and_others_do_not() {
        assert!(!short_after(&[500, 510, 599]), "in time");
        assert!(!short_after(&[20, 440]), "other pages of the session");
        assert!(short_after(&[500, 600]));
        assert!(short_after(&[949]));
        assert!(!short_after(&[1_000, 1_020, 1_500]), "polled elsewhere");
        assert!(short_after(&[1_200]));
        assert!(!short_after(&[2_300, 4_900]), "may be another page");
        assert!(short_after(&[700, 1_520, 2_500]), "it lasts");
    }

    #[test]
    fn threads_are_short_until_polls_have_come_in_time_for_a_second() {
        let (watch, signs) = (PollWatch::default(), ThreadSigns::default());
        let one = poller(1);
        watch.told(one, &signs, 10_000);
        assert!(signs.await_polls(10_000) && !signs.await_polls(15_000));
        watch.asks(one, &signs, 10_700);
        assert!(signs.are_short(11_699) && !signs.are_short(11_700));
        // Each poll counts once.
        watch.asks(one, &signs, 10_800);
        assert!(!signs.are_short(11_700));
    }

    #[test]
    fn sessions_and_web_servers_are_told_apart_and_a_full_place_awaits_no_more() {
        let (watch, signs) = (PollWatch::default(), ThreadSigns::default());
        let item = ItemHash::new(1 << 40, 9);
        let elsewhere = Poller::new(item, IpAddr::from([10, 0, 0, 2]));
        watch.told(poller(1), &signs, 10_000);
        assert_eq!(watch.late_ms(elsewhere, 10_700), None);
        assert_eq!(watch.late_ms(poller(2), 10_700), None);
        assert_eq!(watch.late_ms(poller(1), 10_700), Some(200));
        for told_ms in 0..=WAYS as u64 {
            watch.told(poller(1), &signs, 20_000 + told_ms);
        }
        let late = || watch.late_ms(poller(1), 20_700);
        let all: Vec<_> = std::iter::from_fn(late).collect();
        assert_eq!(all, [200, 199, 198, 197]);
    }
}
