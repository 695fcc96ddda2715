//! The account of sessions against the truth, told what a data path would see.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::HashMap;
use std::sync::Barrier;
use std::thread;

use staterouter::route::{HashKey, KeyBuffer, extract};
use staterouter::usage::{Account, Audit, Estimate, Estimator, Observation, SampledSession};

const MINUTE_MS: u64 = 60_000;
const PLACES: std::ops::RangeInclusive<u8> = 1..=3;
/// Of what stands in front of the session ids.
const START_HASH: u64 = 0x5eed;

/// A small generator of the SplitMix kind; the same seed gives the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Most sessions are small, a few very large: the standard deviation is twice the mean.
    fn bytes(&mut self) -> u64 {
        match self.below(100) {
            0..60 => 300 + self.below(2_000),
            60..95 => 2_000 + self.below(20_000),
            _ => 20_000 + self.below(150_000),
        }
    }

    fn timeout_minutes(&mut self) -> u32 {
        [1, 5, 20, 20, 20, 60][self.below(6) as usize]
    }
}

/// An account and the truth it has to tell.
struct Scene {
    account: Account,
    auditor: Estimator,
    now_ms: u64,
    hash_key: HashKey,
    sessions: HashMap<u64, Session>,
}

#[derive(Clone, Copy)]
struct Session {
    backend_id: u8,
    bytes: u64,
    timeout_minutes: u32,
    expires_ms: u64,
}

impl Session {
    fn read(&self) -> Observation {
        Observation::Read {
            bytes: self.bytes,
            timeout_minutes: self.timeout_minutes,
        }
    }
}

impl Scene {
    fn new(seed: u64) -> Self {
        let now_ms = 1_700_000_000_000;
        let mut hash_key = [7; 16];
        hash_key[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            account: Account::default(),
            auditor: Estimator::new(now_ms),
            now_ms,
            hash_key: HashKey::new(hash_key),
            sessions: HashMap::new(),
        }
    }

    fn sample(&self, id: u64) -> SampledSession {
        self.account.sample(self.hash(id), START_HASH)
    }

    fn hash(&self, id: u64) -> u64 {
        self.hash_key.hash(&id.to_le_bytes())
    }

    /// By the bits that decide the slot.
    fn backend_id(&self, id: u64) -> u8 {
        (self.hash(id) >> 50) as u8 % 3 + 1
    }

    fn store(&mut self, id: u64, bytes: u64, timeout_minutes: u32) {
        let backend_id = self.backend_id(id);
        let sample = self.sample(id).of_put(timeout_minutes, false);
        self.account
            .observe(sample, backend_id, Observation::Stored { bytes });
        let session = Session {
            backend_id,
            bytes,
            timeout_minutes,
            expires_ms: 0,
        };
        self.sessions.insert(id, session);
        self.slide(id);
    }

    fn slide(&mut self, id: u64) {
        let session = self.sessions.get_mut(&id).unwrap();
        session.expires_ms = self.now_ms + u64::from(session.timeout_minutes) * MINUTE_MS;
    }

    /// What a page does to a session that may have expired.
    fn visit(&mut self, id: u64, random: &mut Random) {
        let alive = self.sessions.get(&id).copied();
        let alive = alive.filter(|session| session.expires_ms > self.now_ms);
        let sample = self.sample(id);
        let Some(session) = alive else {
            self.account
                .observe(sample, self.backend_id(id), Observation::Absent);
            self.store(id, random.bytes(), random.timeout_minutes());
            return;
        };
        let read = session.read();
        match random.below(10) {
            0..4 => {
                self.account.observe(sample, session.backend_id, read);
                self.store(id, random.bytes(), session.timeout_minutes);
            }
            4..7 => {
                self.account.observe(sample, session.backend_id, read);
                self.slide(id);
            }
            7..9 => {
                let touched = Observation::Touched;
                self.account.observe(sample, session.backend_id, touched);
                self.slide(id);
            }
            _ => {
                let gone = Observation::Gone;
                self.account.observe(sample, session.backend_id, gone);
                self.sessions.remove(&id);
            }
        }
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        self.auditor.set_now(&self.account, self.now_ms);
    }

    fn audit(&mut self) -> Audit {
        self.auditor.audit(&self.account, self.now_ms).unwrap()
    }

    /// Sessions and bytes at a place.
    fn truth(&self, backend_id: u8) -> (u64, u64) {
        let here = self
            .sessions
            .values()
            .filter(|session| session.backend_id == backend_id && session.expires_ms > self.now_ms);
        here.fold((0, 0), |(count, bytes), session| {
            (count + 1, bytes + session.bytes)
        })
    }

    /// How far the figures of every place are from the truth, in standard errors.
    fn deviations(&self, audit: &Audit) -> Vec<f64> {
        let deviations = PLACES.flat_map(|backend_id| {
            let found = audit.at(backend_id);
            let (sessions, bytes) = self.truth(backend_id);
            [
                off(found.sessions, sessions) / found.sessions_error,
                off(found.bytes, bytes) / found.bytes_error,
            ]
        });
        deviations.collect()
    }

    fn assert_within(&self, audit: &Audit, limit: f64) {
        for backend_id in PLACES {
            let found = audit.at(backend_id);
            let (sessions, bytes) = self.truth(backend_id);
            let message = format!("{backend_id}: {found:?}, truth {sessions} {bytes}");
            assert!(off(found.sessions, sessions).abs() <= limit, "{message}");
            assert!(off(found.bytes, bytes).abs() <= limit, "{message}");
        }
    }
}

/// Relative.
fn off(found: u64, truth: u64) -> f64 {
    found as f64 / truth as f64 - 1.0
}

/// A farm of `sessions` users, 90 minutes of it.
fn busy_scene(seed: u64, sessions: u64) -> (Scene, Audit) {
    let mut scene = Scene::new(seed);
    let mut random = Random(seed);
    for id in 0..sessions {
        scene.store(id, random.bytes(), random.timeout_minutes());
    }
    let mut audit = scene.audit();
    for _ in 0..45 {
        scene.wait_ms(2 * MINUTE_MS);
        for _ in 0..sessions / 20 {
            let id = random.below(sessions);
            scene.visit(id, &mut random);
        }
        audit = scene.audit();
    }
    (scene, audit)
}

#[test]
fn while_there_are_few_every_session_is_counted() {
    let (scene, audit) = busy_scene(1, 20_000);
    assert_eq!(audit.level, 0);
    for backend_id in PLACES {
        let found = audit.at(backend_id);
        let (sessions, bytes) = scene.truth(backend_id);
        assert!(sessions > 2_000);
        let expected = Estimate {
            sessions,
            sessions_error: 0.0,
            bytes,
            bytes_error: 0.0,
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn with_200_000_sessions_come_expired_and_abandoned_all_figures_are_within_5_percent() {
    let (scene, audit) = busy_scene(1, 250_000);
    let alive: u64 = PLACES.map(|backend_id| scene.truth(backend_id).0).sum();
    assert!(alive > 100_000 && alive < 240_000, "{alive}");
    assert!(audit.level > 0);
    scene.assert_within(&audit, 0.05);
}

#[test]
fn the_stated_error_is_the_true_one() {
    let mut deviations = Vec::new();
    for seed in 0..20 {
        let mut scene = Scene::new(seed);
        let mut random = Random(seed);
        for id in 0..100_000 {
            scene.store(id, random.bytes(), 20);
        }
        let audit = scene.audit();
        let found = audit.at(1);
        assert!(
            found.sessions_error > 0.0 && found.sessions_error < 0.01,
            "{found:?}"
        );
        assert!(
            found.bytes_error > 0.0 && found.bytes_error < 0.02,
            "{found:?}"
        );
        deviations.extend(scene.deviations(&audit));
    }
    let within = |errors: f64| {
        let inside = deviations.iter().filter(|off| off.abs() < errors);
        inside.count() as f64 / deviations.len() as f64
    };
    assert!((0.58..0.78).contains(&within(1.0)), "{}", within(1.0));
    assert!(within(2.0) > 0.9, "{}", within(2.0));
    assert_eq!(within(4.5), 1.0);
    let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
    assert!(mean.abs() < 0.3, "biased by {mean} standard errors");
}

#[test]
fn a_rush_between_two_audits_is_no_matter() {
    let mut scene = Scene::new(5);
    let mut random = Random(5);
    for id in 0..1_000_000 {
        scene.store(id, random.bytes(), 20);
    }
    let audit = scene.audit();
    assert!(audit.followed <= Account::ENTRIES);
    assert!(audit.level >= 3);
    scene.assert_within(&audit, 0.06);
}

#[test]
fn a_farm_that_empties_is_followed_more_closely_after_a_while_and_never_wrongly() {
    let mut scene = Scene::new(6);
    let mut random = Random(6);
    for id in 0..400_000 {
        let minutes = if id < 40_000 { 60 } else { 5 };
        scene.store(id, random.bytes(), minutes);
    }
    let full = scene.audit();
    assert!(full.level >= 3);
    let mut levels = vec![full.level];
    for _ in 0..200 {
        scene.wait_ms(MINUTE_MS);
        // Everybody who stays comes every ten minutes.
        for _ in 0..4_000 {
            let id = random.below(40_000);
            let session = scene.sessions[&id];
            if session.expires_ms > scene.now_ms {
                let read = session.read();
                scene
                    .account
                    .observe(scene.sample(id), session.backend_id, read);
                scene.slide(id);
            } else {
                scene.store(id, random.bytes(), 60);
            }
        }
        let audit = scene.audit();
        scene.assert_within(&audit, 0.12);
        levels.push(audit.level);
    }
    assert!(levels.is_sorted_by(|a, b| a >= b), "{levels:?}");
    let audit = scene.audit();
    assert_eq!(audit.level, 0, "{levels:?}");
    scene.assert_within(&audit, 0.05);
}

/// An answer, and whether it is one to a create.
type Seen = (Observation, bool);

/// What is known of one session at each place, after what was seen of it there.
fn seen(observations: &[(u8, Seen)]) -> [(u64, u64); 3] {
    let mut scene = Scene::new(0);
    for &(backend_id, (observation, is_create)) in observations {
        let sample = scene.sample(1).of_put(20, is_create);
        scene.account.observe(sample, backend_id, observation);
    }
    let audit = scene.audit();
    [1, 2, 3].map(|backend_id| (audit.at(backend_id).sessions, audit.at(backend_id).bytes))
}

#[test]
fn every_answer_says_what_it_says() {
    let stored = |bytes| (Observation::Stored { bytes }, false);
    let created = |bytes| (Observation::Stored { bytes }, true);
    let timeout_minutes = 20;
    let read = |bytes| {
        let read = Observation::Read {
            bytes,
            timeout_minutes,
        };
        (read, false)
    };
    let [touched, gone, absent] = [Observation::Touched, Observation::Gone, Observation::Absent]
        .map(|observation| (observation, false));
    let nowhere = [(0, 0); 3];
    for (observations, expected) in [
        (&[(1, stored(7))][..], [(1, 7), (0, 0), (0, 0)]),
        (&[(2, read(7))], [(0, 0), (1, 7), (0, 0)]),
        (&[(3, created(7))], [(0, 0), (0, 0), (1, 7)]),
        (&[(1, stored(7)), (1, stored(9))], [(1, 9), (0, 0), (0, 0)]),
        (&[(1, stored(7)), (1, read(9))], [(1, 9), (0, 0), (0, 0)]),
        // Insert only: what is there stays.
        (&[(1, stored(7)), (1, created(9))], [(1, 7), (0, 0), (0, 0)]),
        // Moved.
        (&[(1, stored(7)), (2, read(7))], [(0, 0), (1, 7), (0, 0)]),
        (&[(1, stored(7)), (2, touched)], [(0, 0), (1, 7), (0, 0)]),
        (&[(1, stored(7)), (1, gone)], nowhere),
        (&[(1, stored(7)), (2, gone)], nowhere),
        (&[(1, stored(7)), (1, absent)], nowhere),
        // Not where it is not.
        (&[(1, stored(7)), (2, absent)], [(1, 7), (0, 0), (0, 0)]),
        (&[(1, touched)], nowhere),
        (&[(1, absent), (1, gone)], nowhere),
        (
            &[(1, stored(7)), (1, gone), (1, stored(5))],
            [(1, 5), (0, 0), (0, 0)],
        ),
    ] {
        assert_eq!(seen(observations), expected, "{observations:?}");
    }
}

#[test]
fn applications_that_share_a_session_id_have_an_item_each() {
    let mut scene = Scene::new(0);
    let observation = Observation::Stored { bytes: 10 };
    for target in [
        "/LM/W3SVC/1/ROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)/abc",
        "/LM/W3SVC/2/ROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)/abc",
        "abc",
    ] {
        let mut buffer = KeyBuffer::new();
        let key = extract(target.as_bytes(), &mut buffer).unwrap();
        assert_eq!(key.session_id(), b"abc");
        let hash = scene.hash_key.hash(key.session_id());
        let sample = scene.account.sample(hash, key.start_hash());
        scene
            .account
            .observe(sample.of_put(20, false), 1, observation);
    }
    let found = scene.audit().at(1);
    assert_eq!((found.sessions, found.bytes), (3, 30));
}

#[test]
fn a_session_expires_one_timeout_after_its_last_use() {
    let read = Observation::Read {
        bytes: 5,
        timeout_minutes: 2,
    };
    let stored = Observation::Stored { bytes: 5 };
    for (last_use, is_create) in [
        (Observation::Touched, false),
        (read, false),
        (stored, false),
        (stored, true),
    ] {
        let mut scene = Scene::new(0);
        scene.store(1, 5, 2);
        scene.wait_ms(MINUTE_MS);
        let sample = scene.sample(1).of_put(2, is_create);
        scene.account.observe(sample, 1, last_use);
        let alive_ms = [0, MINUTE_MS, MINUTE_MS - 200];
        for ms in alive_ms {
            scene.wait_ms(ms);
            assert_eq!(scene.audit().followed, 1, "{last_use:?}");
        }
        scene.wait_ms(200);
        assert_eq!(scene.audit().followed, 0, "{last_use:?}");
    }
}

#[test]
fn after_a_restart_it_is_incomplete_for_one_session_timeout() {
    let read = Observation::Read {
        bytes: 5,
        timeout_minutes: 20,
    };
    let mut scene = Scene::new(0);
    assert!(!scene.audit().is_complete, "nothing is known yet");
    for id in 0..1_000 {
        scene.account.observe(scene.sample(id), 1, read);
    }
    for minutes in [0, 10, 9] {
        scene.wait_ms(minutes * MINUTE_MS);
        assert!(!scene.audit().is_complete);
        scene.account.observe(scene.sample(1), 1, read);
    }
    scene.wait_ms(MINUTE_MS);
    assert!(scene.audit().is_complete);
}

#[test]
fn a_farm_that_begins_with_the_proxy_is_known_at_once() {
    let mut scene = Scene::new(0);
    for id in 0..1_000 {
        scene.store(id, 5, 20);
        let read = scene.sessions[&id].read();
        scene.account.observe(scene.sample(id), 1, read);
    }
    assert!(scene.audit().is_complete);
}

#[test]
fn switched_off_it_knows_nothing_and_on_again_it_begins_anew() {
    let mut scene = Scene::new(0);
    scene.store(1, 5, 20);
    let Scene {
        auditor,
        account,
        now_ms,
        ..
    } = &mut scene;
    auditor.switch(account, false, *now_ms);
    assert_eq!(auditor.audit(account, *now_ms), None);
    scene.store(2, 5, 20);
    let Scene {
        auditor,
        account,
        now_ms,
        ..
    } = &mut scene;
    auditor.switch(account, true, *now_ms + MINUTE_MS);
    assert_eq!(scene.audit().followed, 0);
    scene.store(3, 5, 20);
    assert_eq!(scene.audit().followed, 1);
}

#[test]
fn the_table_takes_2_mib_and_a_few_lines() {
    let extra = Account::MEMORY_BYTES - (2 << 20);
    assert!(extra < 1024, "{extra}");
    assert_eq!(Account::ENTRIES, 131_072);
}

#[test]
fn workers_that_meet_the_same_sessions_at_the_same_time_count_them_once() {
    const SESSIONS: u64 = 40_000;
    let mut scene = Scene::new(0);
    let go = Barrier::new(4);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (scene, go) = (&scene, &go);
            scope.spawn(move || {
                go.wait();
                // Two workers each come upon the same new sessions in the same order.
                for id in 0..SESSIONS {
                    let id = id + worker / 2 * SESSIONS;
                    let sample = scene.sample(id).of_put(20, false);
                    let stored = Observation::Stored { bytes: 100 };
                    scene.account.observe(sample, 1, stored);
                }
            });
        }
    });
    let found = scene.audit().at(1);
    assert!(off(found.sessions, 2 * SESSIONS).abs() < 0.01, "{found:?}");
    assert!(
        off(found.bytes, 2 * SESSIONS * 100).abs() < 0.01,
        "{found:?}"
    );
}
