//! What requests have shown of the web farm lately: writes that came too late, web servers that do not
//! wait for answers, sessions that are always locked, and large ones.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::finding::Finding;
use super::silent_servers::SilentServers;
use crate::config::Config;
use crate::metrics::WebServers;
use crate::proxy::{CONTENTION_ROUND, FarmSign, FarmSignKind};
use crate::route::Fingerprint;

/// For how long most of it counts.
const KEEP_MS: u64 = 10 * MINUTE_MS;

const MINUTE_MS: u64 = 60_000;

/// Applications, web servers and sessions of a kind that are remembered at most. One that comes later
/// takes the place of the one that was not heard of for longest.
const MAX_REMEMBERED: usize = 64;

/// Findings of a kind, at most.
const MAX_FINDINGS: usize = 4;

/// So many answers that a web server did not wait for are no accident.
const MIN_ABANDONED: u64 = 3;

/// They are not those of one moment, in which its process has ended.
const MIN_ABANDONED_SPAN_MS: u64 = 10_000;

/// A session that is locked all the time has been so for this long.
const MIN_CONTENDED_MS: u64 = MINUTE_MS;

/// Two signs of a contended session that are further apart do not belong together.
const MAX_CONTENDED_GAP_MS: u64 = CONTENTION_ROUND.as_millis() as u64 * 5 / 2;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct WebFarm {
    refused: Remembered<Arc<str>, RefusedWrites>,
    abandoned: Remembered<IpAddr, Abandoned>,
    contended: Remembered<Fingerprint, Contended>,
    large: Remembered<Arc<str>, Large>,
    silent: SilentServers,
}

#[derive(Debug)]
struct RefusedWrites {
    writes: RecentCount,
    session: Fingerprint,
    by: IpAddr,
}

#[derive(Debug)]
struct Abandoned {
    requests: RecentCount,
    first_ms: u64,
    least: Duration,
}

#[derive(Debug)]
struct Contended {
    began_ms: u64,
    app: Arc<str>,
    by: IpAddr,
}

#[derive(Debug, Default)]
struct Large {
    sessions: Remembered<Fingerprint, u64>,
}

impl WebFarm {
    /// A request of the application `app` has shown something at `now_ms`.
    pub(crate) fn saw(&mut self, sign: &FarmSign, app: Option<Arc<str>>, now_ms: u64) {
        let app = app.unwrap_or_default();
        let (session, by, count) = (sign.session, sign.by, sign.left_out + 1);
        match sign.kind {
            FarmSignKind::WriteRefused => {
                let new = || RefusedWrites {
                    writes: RecentCount::default(),
                    session,
                    by,
                };
                let known = self.refused.at(app, now_ms, new);
                known.writes.add(count, now_ms);
                (known.session, known.by) = (session, by);
            }
            FarmSignKind::Abandoned { after } => {
                let new = || Abandoned {
                    requests: RecentCount::default(),
                    first_ms: now_ms,
                    least: after,
                };
                let known = self.abandoned.at(by, now_ms, new);
                known.requests.add(count, now_ms);
                known.least = known.least.min(after);
            }
            FarmSignKind::Contended => {
                let gap_ms = self.contended.silent_ms(&session, now_ms);
                let new = || Contended {
                    began_ms: now_ms,
                    app: Arc::clone(&app),
                    by,
                };
                let known = self.contended.at(session, now_ms, new);
                if gap_ms.is_some_and(|gap_ms| gap_ms > MAX_CONTENDED_GAP_MS) {
                    known.began_ms = now_ms;
                }
                known.by = by;
            }
            FarmSignKind::StoredLarge { bytes } => {
                let known = self.large.at(app, now_ms, Large::default);
                *known.sessions.at(session, now_ms, || bytes) = bytes;
            }
        }
    }

    /// Looks whether all web servers go on, from time to time.
    pub(crate) fn follow(&mut self, web_servers: &WebServers, now_ms: u64) {
        self.silent.follow(web_servers, now_ms);
    }

    /// Sessions that are locked all the time.
    pub(crate) fn contended_sessions(&self, now_ms: u64) -> usize {
        self.always_contended(now_ms).count()
    }

    /// What follows from what counts at `now_ms`, under `config`.
    pub(crate) fn findings(&self, config: &Config, now_ms: u64) -> Vec<Finding> {
        let takeover = config.handover.takeover;
        let refused = self.refused.since(KEEP_MS, now_ms).map(|(app, _, known)| {
            let writes = known.writes.sum(now_ms).max(1);
            let session = known.session.to_string();
            Finding::writes_taken_over(app, writes, &session, known.by, takeover)
        });
        let answer = config.timeouts.answer;
        let abandoned = self.abandoned.since(KEEP_MS, now_ms);
        let abandoned = abandoned.filter_map(|(by, last_ms, known)| {
            let requests = known.requests.sum(now_ms);
            let is_lasting = last_ms - known.first_ms >= MIN_ABANDONED_SPAN_MS;
            (requests >= MIN_ABANDONED && is_lasting)
                .then(|| Finding::client_gives_up(*by, requests, known.least, answer))
        });
        let contended = self.always_contended(now_ms).map(|(session, known)| {
            let lasting = Duration::from_millis(now_ms - known.began_ms);
            Finding::session_contended(&session.to_string(), &known.app, known.by, lasting)
        });
        let large = self.large.since(KEEP_MS, now_ms);
        let large = large.filter_map(|(app, _, known)| {
            let sessions = || known.sessions.since(KEEP_MS, now_ms);
            let (largest, _, bytes) = sessions().max_by_key(|(_, _, bytes)| **bytes)?;
            let largest = (largest.to_string(), *bytes);
            let from_bytes = config.large_session_bytes;
            (*bytes >= from_bytes).then(|| {
                let largest = (largest.0.as_str(), largest.1);
                Finding::sessions_large(app, sessions().count(), largest, from_bytes)
            })
        });
        let mut found: Vec<_> = refused.take(MAX_FINDINGS).collect();
        found.extend(abandoned.take(MAX_FINDINGS));
        found.extend(self.silent.findings(now_ms).take(MAX_FINDINGS));
        found.extend(contended.take(MAX_FINDINGS));
        found.extend(large.take(MAX_FINDINGS));
        found
    }

    fn always_contended(&self, now_ms: u64) -> impl Iterator<Item = (Fingerprint, &Contended)> {
        let known = self.contended.since(MAX_CONTENDED_GAP_MS, now_ms);
        known.filter_map(|(session, last_ms, known)| {
            // The first sign comes at the end of what has brought it about.
            let round_ms = CONTENTION_ROUND.as_millis() as u64;
            let lasted_ms = last_ms - known.began_ms + round_ms;
            (lasted_ms >= MIN_CONTENDED_MS).then_some((*session, known))
        })
    }
}

/// A few things, each with the time it was heard of last.
#[derive(Debug)]
struct Remembered<K, V>(BTreeMap<K, (u64, V)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V> Remembered<K, V> {
    /// What is known of one, heard of at `now_ms`.
    fn at(&mut self, key: K, now_ms: u64, new: impl FnOnce() -> V) -> &mut V {
        let is_old = |last_ms: u64| last_ms + KEEP_MS <= now_ms;
        self.0.retain(|_, (last_ms, _)| !is_old(*last_ms));
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, (last_ms, _))| *last_ms);
            if let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) {
                self.0.remove(&oldest);
            }
        }
        let known = self.0.entry(key).or_insert_with(|| (now_ms, new()));
        known.0 = now_ms;
        &mut known.1
    }

    fn silent_ms(&self, key: &K, now_ms: u64) -> Option<u64> {
        let (last_ms, _) = self.0.get(key)?;
        Some(now_ms.saturating_sub(*last_ms))
    }

    /// Those that were heard of within `period_ms`, with when.
    fn since(&self, period_ms: u64, now_ms: u64) -> impl Iterator<Item = (&K, u64, &V)> {
        let known = self
            .0
            .iter()
            .map(|(key, (last_ms, of))| (key, *last_ms, of));
        known.filter(move |(_, last_ms, _)| last_ms + period_ms > now_ms)
    }
}

/// How often something has happened in this minute and the nine before.
#[derive(Debug, Default)]
struct RecentCount {
    latest: u64,
    minutes: [u64; 10],
}

impl RecentCount {
    fn add(&mut self, count: u64, now_ms: u64) {
        let minute = now_ms / MINUTE_MS;
        let places = self.minutes.len() as u64;
        for later in (self.latest + 1..=minute).rev().take(self.minutes.len()) {
            self.minutes[(later % places) as usize] = 0;
        }
        self.latest = self.latest.max(minute);
        self.minutes[(minute % places) as usize] += count;
    }

    fn sum(&self, now_ms: u64) -> u64 {
        let passed = (now_ms / MINUTE_MS).saturating_sub(self.latest) as usize;
        let places = self.minutes.len();
        let counted = (0..places.saturating_sub(passed))
            .map(|before| (self.latest as usize + places - before) % places);
        counted.map(|place| self.minutes[place]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Code;
    use super::*;
    use crate::route::HashKey;

    const START_MS: u64 = 1_800_000_000_000;
    const SHOP: &str = "/LM/W3SVC/2/ROOT/Shop";

    fn sign(kind: FarmSignKind, session: &str, by: u8) -> FarmSign {
        FarmSign {
            kind,
            by: IpAddr::from([10, 0, 0, by]),
            start_hash: 1,
            session: HashKey::DEFAULT.locate(session.as_bytes()).fingerprint,
            left_out: 0,
        }
    }

    fn found(farm: &WebFarm, now_ms: u64) -> Vec<(Code, String)> {
        let found = farm.findings(&Config::new("map.yaml"), now_ms).into_iter();
        let text = |one: Finding| (one.code, one.says + " " + &one.action);
        found.map(text).collect()
    }

    fn assert_text(found: &[(Code, String)], code: Code, parts: &[&str]) {
        let [(only, text)] = found else {
            panic!("{found:?}")
        };
        assert_eq!(*only, code);
        for part in parts {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }

    #[test]
    fn writes_that_came_too_late_are_counted_by_application_for_ten_minutes() {
        let mut farm = WebFarm::default();
        let late = sign(FarmSignKind::WriteRefused, "s", 3);
        farm.saw(&late, Some(SHOP.into()), START_MS);
        let more = FarmSign {
            left_out: 4,
            ..late
        };
        farm.saw(&more, Some(SHOP.into()), START_MS + 5 * MINUTE_MS);
        let now_ms = START_MS + 6 * MINUTE_MS;
        let parts = [SHOP, "6 writes", "10.0.0.3", "110 s"];
        assert_text(&found(&farm, now_ms), Code::WritesTakenOver, &parts);
        let later_ms = START_MS + 12 * MINUTE_MS;
        assert_text(
            &found(&farm, later_ms),
            Code::WritesTakenOver,
            &["5 writes"],
        );
        assert_eq!(found(&farm, START_MS + 15 * MINUTE_MS), []);
    }

    #[test]
    fn a_web_server_that_gives_up_again_and_again_is_told_from_one_that_has_ended_once() {
        let mut farm = WebFarm::default();
        let after = |by, ms| {
            let after = Duration::from_millis(ms);
            sign(FarmSignKind::Abandoned { after }, "s", by)
        };
        for _ in 0..50 {
            farm.saw(&after(2, 1_200), None, START_MS);
        }
        for (at_ms, took_ms) in [(0, 8_000), (4_000, 3_100), (11_000, 5_000)] {
            farm.saw(&after(3, took_ms), None, START_MS + at_ms);
        }
        let parts = ["10.0.0.3", "3 answers", "3.1 s", "to 10 s"];
        assert_text(
            &found(&farm, START_MS + 12_000),
            Code::ClientGivesUp,
            &parts,
        );
        assert_eq!(found(&farm, START_MS + 11_000 + KEEP_MS), []);
    }

    #[test]
    fn a_session_is_always_contended_after_a_minute_and_until_a_pause() {
        let mut farm = WebFarm::default();
        let sign = sign(FarmSignKind::Contended, "s", 2);
        let mut contend = |from_s: u64, to_s: u64| {
            for second in (from_s..=to_s).step_by(10) {
                farm.saw(&sign, Some(SHOP.into()), START_MS + second * 1000);
            }
            let now_ms = START_MS + to_s * 1000 + 5_000;
            (found(&farm, now_ms), farm.contended_sessions(now_ms))
        };
        assert_eq!(contend(0, 40), (vec![], 0));
        let (found_now, sessions) = contend(50, 120);
        let parts = [SHOP, "10.0.0.2", "for 2 min", "ReadOnly"];
        assert_text(&found_now, Code::SessionContended, &parts);
        assert_eq!(sessions, 1);
        assert_eq!(contend(150, 190), (vec![], 0));
        assert_eq!(found(&farm, START_MS + 220_000), []);
    }

    #[test]
    fn large_sessions_are_told_by_application_with_the_largest() {
        let mut farm = WebFarm::default();
        for (session, bytes) in [("s", 2 << 20), ("t", 3 << 20), ("s", 2 << 20)] {
            let large = sign(FarmSignKind::StoredLarge { bytes }, session, 2);
            farm.saw(&large, Some(SHOP.into()), START_MS);
        }
        let largest = sign(FarmSignKind::Contended, "t", 2).session.to_string();
        let parts = [SHOP, "at least 2 sessions", "3.0 MiB", "1.0 MiB", &largest];
        assert_text(&found(&farm, START_MS), Code::SessionsLarge, &parts);
        assert_eq!(found(&farm, START_MS + KEEP_MS), []);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut farm = WebFarm::default();
        for number in 0..1000u64 {
            let app = Some(format!("/LM/{number}").into());
            let session = number.to_string();
            for kind in [
                FarmSignKind::WriteRefused,
                FarmSignKind::StoredLarge { bytes: 2 << 20 },
                FarmSignKind::Contended,
            ] {
                farm.saw(
                    &sign(kind, &session, 1),
                    Clone::clone(&app),
                    START_MS + number,
                );
            }
            let large = FarmSignKind::StoredLarge { bytes: 2 << 20 };
            farm.saw(
                &sign(large, &session, 1),
                Some(SHOP.into()),
                START_MS + number,
            );
        }
        let now_ms = START_MS + 1000;
        assert_eq!(farm.refused.0.len(), MAX_REMEMBERED);
        assert_eq!(farm.contended.0.len(), MAX_REMEMBERED);
        let large = |(_, large): &(u64, Large)| large.sessions.0.len() <= MAX_REMEMBERED;
        assert!(farm.large.0.len() <= MAX_REMEMBERED && farm.large.0.values().all(large));
        assert_eq!(found(&farm, now_ms).len(), 2 * MAX_FINDINGS);
    }
}
