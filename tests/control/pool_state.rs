//! The pool in virtual time: maps, failures and restarts, and what becomes of the slots.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use staterouter::config::{BackendAddress, BackendSpec, Config, PartitionMap};
use staterouter::control::pool_state::{PoolState, Refused};
use staterouter::handover::{BackendId, SlotState, Stage};
use staterouter::health::Failure;
use staterouter::route::{SLOT_COUNT, Slot};

const START_MS: u64 = 1_800_000_000_000;
const TICK_MS: u64 = 5000;

/// A pool and its clock.
struct Pool {
    pool_state: PoolState,
    now_ms: u64,
}

fn config() -> Config {
    let mut config = Config::new(PathBuf::from("map.yaml"));
    config.handover.settle = Duration::from_secs(30);
    config.handover.session_timeout = Duration::from_secs(20 * 60);
    config.handover.failover_after = Duration::from_secs(15);
    config
}

/// A map of backends `NAME[/WEIGHT[/STATE]]`; ids follow the letters.
fn map(version: u64, backends: &str) -> PartitionMap {
    let mut text = format!("version: {version}\nbackends:\n");
    for backend in backends.split(' ') {
        let mut parts = backend.split('/');
        let name = parts.next().unwrap();
        let weight = parts.next().unwrap_or("100");
        let state = parts.next().unwrap_or("active");
        let id = name.as_bytes()[0] - b'a' + 1;
        text += &format!(
            "  - {{name: {name}, id: {id}, address: '10.0.0.{id}:42424', weight: {weight}, state: {state}}}\n"
        );
    }
    PartitionMap::parse(text, "map.yaml").unwrap()
}

fn backend_id(name: &str) -> BackendId {
    BackendId::new(name.as_bytes()[0] - b'a' + 1).unwrap()
}

impl Pool {
    fn new(backends: &str) -> Self {
        let mut pool = Self {
            pool_state: PoolState::new(config(), map(1, backends), START_MS).unwrap(),
            now_ms: START_MS,
        };
        pool.answer();
        pool
    }

    /// All backends answer that are not down.
    fn answer(&mut self) {
        for member in self.pool_state.members().to_vec() {
            if member.is_up() {
                self.pool_state
                    .probed(member.backend_id, Ok(()), self.now_ms);
            }
        }
    }

    fn accept(&mut self, version: u64, backends: &str) {
        let accepted = self.pool_state.accept(map(version, backends), self.now_ms);
        assert!(accepted.unwrap().is_some());
        self.answer();
        self.pool_state.tick(self.now_ms);
    }

    /// Lets time pass, with a look at the slots every few seconds.
    fn pass(&mut self, seconds: u64) {
        let end_ms = self.now_ms + seconds * 1000;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + TICK_MS);
            self.pool_state.tick(self.now_ms);
        }
    }

    fn fail(&mut self, name: &str) {
        for _ in 0..self.pool_state.config().health.fall {
            self.pool_state
                .probed(backend_id(name), Err(Failure::Refused), self.now_ms);
        }
        self.pool_state.tick(self.now_ms);
    }

    fn recover(&mut self, name: &str) {
        for _ in 0..self.pool_state.config().health.max_rise {
            self.pool_state
                .probed(backend_id(name), Ok(()), self.now_ms);
        }
        self.pool_state.tick(self.now_ms);
    }

    /// Slots by stage and places, such as "move2 ca" for a handover from a to c.
    fn slots(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for slot in self.pool_state.slots() {
            let letter = |backend_id: BackendId| (b'a' + backend_id.id() - 1) as char;
            let mut label = format!("{:?} {}", slot.stage, letter(slot.first)).to_lowercase();
            label.extend(slot.second.map(letter));
            *counts.entry(label).or_default() += 1;
        }
        counts
    }

    fn labels(&self) -> Vec<String> {
        self.slots().into_keys().collect()
    }

    fn share(&self, label: &str) -> f64 {
        *self.slots().get(label).unwrap_or(&0) as f64 / SLOT_COUNT as f64
    }

    /// The proxy is killed and started again after `seconds`.
    fn restart_after(&mut self, seconds: u64) {
        let memory = self.pool_state.memory();
        self.now_ms += seconds * 1000;
        self.pool_state = PoolState::resume(config(), memory, self.now_ms).unwrap();
        self.answer();
    }
}

/// How long an item lives that nobody uses, and how long a handover takes with the ticks above.
const LIFETIME_S: u64 = 20 * 60 + 110;
const HANDOVER_S: u64 = 30 + 60 + LIFETIME_S + 4 * TICK_MS / 1000;

/// It is said in words, outlives a restart, and can be taken back.
#[test]
fn a_handover_to_a_backend_that_is_drained_turns_round() {
    let mut pool = Pool::new("a b");
    pool.accept(2, "a b c");
    pool.pass(31 + 65);
    let moving = ["move2 ca", "move2 cb", "steady a", "steady b"];
    assert_eq!(pool.labels(), moving);
    pool.pass(70);
    let is_said = |pool: &mut Pool, version, backends: &str, words: &str| {
        let accepted = pool.pool_state.accept(map(version, backends), pool.now_ms);
        accepted.unwrap().unwrap();
        let notices = pool.pool_state.tick(pool.now_ms);
        notices.iter().any(|notice| notice.text.contains(words))
    };
    let drained = "a b c/100/drain";
    assert!(is_said(&mut pool, 3, drained, "to c no more"));
    let turned = ["steady a", "steady b", "turned ca", "turned cb"];
    assert_eq!(pool.labels(), turned);
    assert!(is_said(&mut pool, 4, "a b c", "from a to c again"));
    assert_eq!(pool.labels(), moving);
    pool.pass(70);
    assert!(is_said(&mut pool, 5, drained, "to c no more"));
    pool.restart_after(60);
    assert_eq!(pool.labels(), turned);
    pool.pass(LIFETIME_S - 60);
    assert_eq!(
        pool.labels(),
        ["settle ac", "settle bc", "steady a", "steady b"]
    );
    pool.pass(HANDOVER_S);
    assert_eq!(pool.labels(), ["steady a", "steady b"]);
}

#[test]
fn a_third_backend_gets_a_third_of_the_slots_and_no_other_slot_is_touched() {
    let mut pool = Pool::new("a b");
    let before = pool.pool_state.slots().to_vec();
    pool.accept(2, "a b c");
    assert_eq!(
        pool.labels(),
        ["settle ca", "settle cb", "steady a", "steady b"]
    );
    let moving = pool.share("settle ca") + pool.share("settle cb");
    assert!((0.28..0.39).contains(&moving), "{moving}");
    pool.pass(31);
    assert_eq!(
        pool.labels(),
        ["move1 ca", "move1 cb", "steady a", "steady b"]
    );
    pool.pass(61);
    assert_eq!(
        pool.labels(),
        ["move2 ca", "move2 cb", "steady a", "steady b"]
    );
    pool.pass(LIFETIME_S + 1);
    assert_eq!(pool.labels(), ["steady a", "steady b", "steady c"]);
    let unmoved =
        |(now, before): (&SlotState, &SlotState)| now.first != backend_id("c") && now != before;
    assert!(!pool.pool_state.slots().iter().zip(&before).any(unmoved));
}

#[test]
fn a_handover_lasts_as_long_as_the_longest_session_within_bounds() {
    let mut pool = Pool::new("a b");
    pool.pool_state.saw_timeout(60, pool.now_ms);
    pool.accept(2, "a b c");
    pool.pass(HANDOVER_S);
    assert!(pool.labels().contains(&"move2 ca".to_owned()));
    pool.pass(40 * 60);
    assert_eq!(pool.labels(), ["steady a", "steady b", "steady c"]);
}

#[test]
fn a_drained_backend_lets_go_after_a_lifetime_and_can_leave_the_file_before() {
    let mut pool = Pool::new("a b c");
    pool.accept(2, "a b c/100/drain");
    pool.pass(100);
    pool.accept(3, "a b");
    pool.pass(100);
    assert_eq!(
        pool.labels(),
        ["move2 ac", "move2 bc", "steady a", "steady b"]
    );
    assert_eq!(
        pool.pool_state.members().len(),
        3,
        "it still holds sessions"
    );
    pool.now_ms += LIFETIME_S * 1000;
    let notices = pool.pool_state.tick(pool.now_ms);
    assert!(
        notices
            .iter()
            .any(|notice| notice.text.contains("c holds no sessions any more"))
    );
    assert_eq!(pool.labels(), ["steady a", "steady b"]);
    assert_eq!(pool.pool_state.members().len(), 2);
    assert!(
        pool.pool_state.tick(pool.now_ms + 1).is_empty(),
        "said once"
    );
}

/// Whoever stops it sooner has the sessions of others kept once.
#[test]
fn a_drained_backend_that_kept_copies_is_waited_for_until_others_have_them() {
    let copied = |version, backends: &str| {
        let mut map = map(version, backends);
        map.replicas = 1;
        map
    };
    let mut pool = Pool::new("a b c d");
    pool.pool_state = PoolState::new(config(), copied(1, "a b c d"), START_MS).unwrap();
    pool.answer();
    let after = |pool: &mut Pool, seconds: u64| {
        pool.now_ms += seconds * 1000;
        let notices = pool.pool_state.tick(pool.now_ms);
        notices
            .iter()
            .any(|notice| notice.text.contains("d holds no sessions any more"))
    };
    after(&mut pool, 60);
    after(&mut pool, LIFETIME_S);
    let is_protected = |slot| pool.pool_state.is_protected(slot);
    assert!(Slot::all().all(is_protected));
    assert!(!pool.pool_state.copied_to(backend_id("d")).is_empty());
    let drained = copied(2, "a b c d/100/drain");
    assert!(
        pool.pool_state
            .accept(drained, pool.now_ms)
            .unwrap()
            .is_some()
    );
    for seconds in [5, 31, 61, 1_000] {
        assert!(!after(&mut pool, seconds));
    }
    // Those that are to keep the copies instead miss some, and begin anew.
    let slots: Vec<Slot> = Slot::all().collect();
    pool.pool_state.copies_missed(&slots, pool.now_ms);
    assert!(!after(&mut pool, LIFETIME_S - 900));
    assert!(
        pool.labels()
            .iter()
            .all(|label| label.starts_with("steady"))
    );
    assert!(!pool.labels().contains(&"steady d".to_owned()));
    let until_ms = pool.pool_state.missed_until_ms()[backend_id("d")];
    assert!(until_ms.is_some_and(|until_ms| until_ms > pool.now_ms));
    let is_told = [600, 600].map(|seconds| after(&mut pool, seconds));
    assert_eq!(is_told, [false, true]);
    assert_eq!(pool.pool_state.missed_until_ms()[backend_id("d")], None);
}

#[test]
fn a_way_back_waits_for_the_end_of_the_way_there() {
    let mut pool = Pool::new("a b c");
    let before = pool.labels();
    pool.accept(2, "a b c/200");
    pool.pass(50);
    pool.accept(3, "a b c");
    pool.pass(60);
    assert!(
        pool.labels().contains(&"move2 ca".to_owned()),
        "{:?}",
        pool.labels()
    );
    pool.pass(LIFETIME_S);
    assert!(
        pool.labels().contains(&"settle ac".to_owned()),
        "{:?}",
        pool.labels()
    );
    pool.pass(HANDOVER_S);
    assert_eq!(pool.labels(), before);
}

#[test]
fn of_five_maps_in_a_minute_the_last_one_counts() {
    let mut pool = Pool::new("a b c");
    for (version, backends) in [
        (2, "a b c d"),
        (3, "a b c/150 d"),
        (4, "a/50 b c d"),
        (5, "a b c d e"),
        (6, "a b/100/drain c d"),
    ] {
        pool.accept(version, backends);
        pool.pass(12);
    }
    pool.pass(3 * HANDOVER_S);
    assert_eq!(pool.labels(), ["steady a", "steady c", "steady d"]);
}

#[test]
fn a_backend_that_answers_again_soon_serves_on_as_before() {
    let mut pool = Pool::new("a b");
    let before = pool.slots();
    pool.fail("a");
    assert_eq!(pool.labels(), ["steady b", "suspect ba"]);
    pool.pass(10);
    pool.recover("a");
    assert_eq!(pool.slots(), before);
}

#[test]
fn a_backend_that_stays_away_is_stood_in_for_and_gets_its_slots_back_in_the_end() {
    let mut pool = Pool::new("a b c");
    let before = pool.slots();
    pool.fail("a");
    assert_eq!(
        pool.labels(),
        ["steady b", "steady c", "suspect ba", "suspect ca"]
    );
    pool.pass(16);
    assert_eq!(
        pool.labels(),
        ["away ba", "away ca", "steady b", "steady c"]
    );
    pool.pass(60);
    pool.recover("a");
    assert_eq!(
        pool.labels(),
        ["back ba", "back ca", "steady b", "steady c"]
    );
    pool.pool_state.set_pending_deletes(backend_id("a"), 1);
    pool.pass(60);
    assert_eq!(
        pool.labels(),
        ["back ba", "back ca", "steady b", "steady c"],
        "a delete is pending"
    );
    pool.pool_state.set_pending_deletes(backend_id("a"), 0);
    pool.pass(1);
    assert_eq!(
        pool.labels(),
        ["steady b", "steady c", "wait ba", "wait ca"]
    );
    pool.pass(LIFETIME_S);
    assert_eq!(
        pool.labels(),
        ["settle ab", "settle ac", "steady b", "steady c"]
    );
    pool.pass(HANDOVER_S);
    assert_eq!(pool.slots(), before);
}

#[test]
fn without_failover_nobody_stands_in() {
    let mut pool = Pool::new("a b");
    let mut strict = config();
    strict.handover.failover = false;
    pool.pool_state.set_config(strict);
    let before = pool.slots();
    pool.fail("a");
    pool.pass(600);
    assert_eq!(pool.slots(), before);
}

#[test]
fn the_last_backend_has_nobody_to_stand_in_for_it() {
    let mut pool = Pool::new("a b");
    pool.fail("b");
    pool.pass(20);
    pool.fail("a");
    pool.pass(60);
    assert_eq!(pool.labels(), ["steady a", "suspect ba"]);
    pool.recover("a");
    pool.pass(1);
    assert_eq!(pool.labels(), ["away ab", "steady a"]);
}

/// The slots in this state.
fn slots_in(pool: &Pool, stage: Stage, first: &str, second: &str) -> Vec<usize> {
    let slots = pool.pool_state.slots().iter().enumerate();
    let wanted = (stage, backend_id(first), Some(backend_id(second)));
    let found = slots.filter(|(_, slot)| (slot.stage, slot.first, slot.second) == wanted);
    found.map(|(index, _)| index).collect()
}

/// Whether a slot is served from this backend.
fn serves(slot: &SlotState, name: &str) -> bool {
    slot.stage != Stage::Suspect
        && (slot.first == backend_id(name)
            || (slot.second == Some(backend_id(name)) && slot.stage != Stage::Away))
}

/// A pool in which b stands in for a, which has returned.
fn returned(backends: &str) -> (Pool, Vec<usize>) {
    let mut pool = Pool::new(backends);
    pool.fail("a");
    pool.pass(60);
    pool.recover("a");
    pool.pass(15);
    let waiting = slots_in(&pool, Stage::Wait, "b", "a");
    assert!(waiting.len() > 1000);
    (pool, waiting)
}

#[test]
fn a_stand_in_that_fails_leaves_its_slots_to_a_third_backend() {
    let (mut pool, waiting) = returned("a b c");
    let home = pool.pool_state.map().clone();
    pool.fail("b");
    pool.pass(10);
    pool.restart_after(1);
    pool.pass(10);
    assert_eq!(waiting, {
        let away = slots_in(&pool, Stage::Away, "c", "b");
        let of_a = away.into_iter().filter(|slot| waiting.contains(slot));
        of_a.collect::<Vec<_>>()
    });
    pool.restart_after(60);
    // Out of the map and under another name, it is still the server that was left behind.
    pool.accept(2, "b c d");
    let mut renamed = home;
    renamed.version = 3;
    renamed.backends[0].name = "e".to_owned();
    renamed.backends[0].id = 5;
    let refused = pool.pool_state.accept(renamed, pool.now_ms).unwrap_err();
    assert!(matches!(refused, Refused::AddressTaken { .. }), "{refused}");
    pool.accept(3, "a b c d");
    for _ in 0..(LIFETIME_S - 80) / 100 {
        pool.pass(100);
        let slots = pool.pool_state.slots();
        assert!(!waiting.iter().any(|slot| serves(&slots[*slot], "a")));
    }
    pool.pass(100 + 2 * HANDOVER_S);
    pool.recover("b");
    pool.pass(3 * HANDOVER_S);
    assert_eq!(
        pool.labels(),
        ["steady a", "steady b", "steady c", "steady d"]
    );
}

#[test]
fn with_two_backends_outdated_sessions_are_refused_until_they_have_died() {
    let (mut pool, waiting) = returned("a b");
    let mut failing = pool.pool_state.clone();
    for _ in 0..3 {
        failing.probed(backend_id("b"), Err(Failure::Refused), pool.now_ms);
    }
    let notices = failing.tick(pool.now_ms);
    let texts: Vec<_> = notices.iter().map(|notice| &notice.text).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    let is_said = |words: &str| texts.iter().any(|text| text.contains(words));
    assert!(is_said("until it answers or a stands in"), "{texts:?}");
    let refused = "until it answers; what a holds may be outdated, and nobody else can stand in";
    assert!(is_said(refused), "{texts:?}");

    pool.fail("b");
    pool.pass(LIFETIME_S - 60);
    assert_eq!(slots_in(&pool, Stage::Suspect, "a", "b"), waiting);
    pool.pass(60);
    assert_eq!(pool.labels(), ["away ab"]);
}

#[test]
fn the_log_says_which_sessions_a_third_backend_leaves_behind() {
    let (mut pool, _) = returned("a b c");
    pool.fail("b");
    pool.now_ms += 16_000;
    let notices = pool.pool_state.tick(pool.now_ms);
    let is_said = notices.iter().any(|notice| {
        let text = &notice.text;
        text.contains("c stands in for b in") && text.ends_with("those at a may be outdated")
    });
    assert!(is_said, "{notices:?}");
}

#[test]
fn a_stand_in_that_is_given_up_leaves_no_outdated_sessions_behind() {
    let (mut pool, waiting) = returned("a b c");
    pool.accept(2, "a b/100/off c");
    let slots = pool.pool_state.slots();
    assert!(!waiting.iter().any(|slot| serves(&slots[*slot], "a")));
    pool.pass(20);
    let slots = pool.pool_state.slots();
    let is_at_third = |slot: &&usize| slots[**slot].first == backend_id("c");
    assert!(waiting.iter().all(|slot| is_at_third(&slot)));
    pool.pass(LIFETIME_S);
    assert!(pool.labels().contains(&"settle ac".to_owned()));
}

#[test]
fn a_backend_that_is_off_is_left_at_once() {
    let mut pool = Pool::new("a b c");
    pool.accept(2, "a b c/100/off");
    assert_eq!(pool.labels(), ["steady a", "steady b"]);
}

#[test]
fn a_restarted_proxy_goes_on_where_it_was() {
    let mut pool = Pool::new("a b");
    pool.accept(2, "a b c");
    for (seconds, stage) in [(10, Stage::Settle), (25, Stage::Move1), (60, Stage::Move2)] {
        pool.pass(seconds);
        let before = pool.pool_state.slots().to_vec();
        assert!(before.iter().any(|slot| slot.stage == stage), "{stage:?}");
        pool.restart_after(1);
        assert_eq!(pool.pool_state.slots(), before);
    }
    pool.restart_after(LIFETIME_S);
    pool.pool_state.tick(pool.now_ms);
    assert_eq!(pool.labels(), ["steady a", "steady b", "steady c"]);
}

#[test]
fn a_restarted_proxy_does_not_take_a_lost_backend_for_one_that_is_back() {
    let mut pool = Pool::new("a b");
    pool.fail("a");
    pool.pass(20);
    let before = pool.slots();
    pool.restart_after(5);
    pool.pool_state.tick(pool.now_ms);
    assert_eq!(pool.slots(), before);
    assert!(!pool.pool_state.members()[0].is_up());
    pool.recover("a");
    assert_eq!(pool.labels(), ["back ba", "steady b"]);
}

#[test]
fn maps_that_would_harm_are_refused_and_change_nothing() {
    let mut pool = Pool::new("a b c");
    pool.accept(5, "a b c");
    let before = pool.slots();
    let refusal = |pool: &mut Pool, map| pool.pool_state.accept(map, START_MS).unwrap_err();
    assert!(matches!(
        refusal(&mut pool, map(4, "a b")),
        Refused::Older {
            version: 4,
            in_force: 5
        }
    ));
    assert_eq!(
        refusal(&mut pool, map(5, "a b")),
        Refused::SameVersion { version: 5 }
    );
    let mut other_id = map(6, "a b c");
    other_id.backends[2].id = 9;
    assert!(matches!(
        refusal(&mut pool, other_id),
        Refused::IdChanged { .. }
    ));
    let mut taken = map(6, "a b");
    taken.backends[1].name = "new".to_owned();
    assert!(matches!(refusal(&mut pool, taken), Refused::IdTaken { .. }));
    let mut other_key = map(6, "a b c");
    other_key.hash_key = staterouter::route::HashKey::new([1; 16]);
    assert_eq!(refusal(&mut pool, other_key), Refused::HashKey);
    let most = refusal(&mut pool, map(6, "a"));
    assert!(
        matches!(
            most,
            Refused::MovesTooMuch {
                percent: 64..=70,
                max_percent: 60,
                ..
            }
        ),
        "{most}"
    );
    assert_eq!(pool.slots(), before);
    assert_eq!(pool.pool_state.map().version, 5);
    let in_force = pool.pool_state.accept(map(5, "a b c"), START_MS);
    assert_eq!(in_force, Ok(None), "no change");
}

#[test]
fn a_map_may_allow_itself_to_move_more() {
    let mut pool = Pool::new("a b c");
    let mut bold = map(2, "a");
    bold.accept_moved_percent = Some(70);
    let accepted = pool.pool_state.accept(bold, START_MS).unwrap().unwrap();
    assert!(accepted.moved_slots > SLOT_COUNT * 60 / 100);
}

#[test]
fn an_id_is_free_again_when_its_backend_has_let_go() {
    let mut pool = Pool::new("a b c");
    pool.accept(2, "a b");
    pool.pass(HANDOVER_S);
    let mut reused = map(3, "a b c");
    reused.backends[2].name = "new".to_owned();
    assert!(pool.pool_state.accept(reused, pool.now_ms).is_ok());
}

#[test]
fn one_server_under_two_names_is_refused_until_it_holds_nothing() {
    let renamed = |version| {
        let mut renamed = map(version, "a b d");
        renamed.backends[2].address = map(1, "a b c").backends[2].address.clone();
        renamed
    };
    let mut pool = Pool::new("a b c");
    let refused = pool.pool_state.accept(renamed(2), START_MS);
    assert!(matches!(
        refused.unwrap_err(),
        Refused::AddressTaken { name, holder, .. } if name == "d" && holder == "c"
    ));
    pool.accept(2, "a b c/100/drain");
    pool.pass(HANDOVER_S);
    assert!(pool.pool_state.accept(renamed(3), pool.now_ms).is_ok());
}

#[test]
fn a_backend_that_was_given_up_gets_no_slots_while_what_it_held_may_live() {
    let mut pool = Pool::new("a b c");
    pool.accept(2, "a b c/100/off");
    pool.pass(60);
    pool.accept(3, "a b");
    pool.pass(60);
    // Back under another name, over a restart: it is still the server that was left.
    pool.restart_after(60);
    let mut back = map(4, "a b d");
    back.backends[2].address = map(1, "a b c").backends[2].address.clone();
    pool.pool_state.accept(back, pool.now_ms).unwrap();
    pool.answer();
    pool.pass(1000);
    assert_eq!(pool.labels(), ["steady a", "steady b"]);
    pool.fail("a");
    assert!(!pool.labels().contains(&"suspect da".to_owned()));
    pool.recover("a");
    pool.pass(140);
    assert!(pool.share("settle da") > 0.1, "{:?}", pool.slots());
}

/// A map's backends, and what is to be changed in the last one.
type NextMap = (&'static str, fn(&mut BackendSpec));

/// What becomes of c after it was given up: other maps follow, each with what is to be changed in its
/// last backend.
fn given_up_and(then: &[NextMap]) -> Pool {
    let mut pool = Pool::new("a b c");
    pool.accept(2, "a b c/100/off");
    pool.pass(60);
    for ((backends, change), version) in then.iter().zip(3..) {
        let mut map = map(version, backends);
        change(map.backends.last_mut().unwrap());
        pool.pool_state.accept(map, pool.now_ms).unwrap();
        for (backend_id, address) in pool.pool_state.probe_targets() {
            pool.pool_state.probed_other(backend_id, address, Ok(()));
        }
        pool.answer();
        pool.pass(60);
        pool.answer();
    }
    pool
}

#[test]
fn what_was_given_up_stays_so_under_another_address_id_or_name() {
    const ELSEWHERE: fn(&mut BackendSpec) = |spec| {
        spec.address = BackendAddress::parse("10.0.0.33:42424").unwrap();
    };
    let same: fn(&mut BackendSpec) = |_| ();
    let ways: [&[NextMap]; 5] = [
        // Another address for the same server, while it is off or as it comes back.
        &[("a b c/100/off", ELSEWHERE), ("a b c", ELSEWHERE)],
        &[("a b c", ELSEWHERE)],
        // Taken out, and back at another address.
        &[("a b", same), ("a b c", ELSEWHERE)],
        // Renamed after it has got another address.
        &[
            ("a b c/100/off", ELSEWHERE),
            ("a b", same),
            ("a b d", ELSEWHERE),
        ],
        // Another backend with its id.
        &[("a b", same), ("a b d", |spec| spec.id = 3)],
    ];
    for way in ways {
        let mut pool = given_up_and(way);
        pool.pass(900);
        assert_eq!(pool.labels(), ["steady a", "steady b"]);
        pool.pass(LIFETIME_S);
        assert_ne!(pool.labels(), ["steady a", "steady b"]);
    }
}

#[test]
fn a_server_that_nobody_can_take_for_the_one_that_was_given_up_gets_its_share() {
    let pool = given_up_and(&[("a b", |_| ()), ("a b d", |_| ())]);
    assert!(pool.share("settle da") + pool.share("move1 da") > 0.1);
}

#[test]
fn one_server_is_told_by_localhost_too() {
    let at = |text: &'static str, map: &mut PartitionMap| {
        map.backends[2].address = BackendAddress::parse(text).unwrap();
    };
    let mut pool = Pool::new("a b c");
    for (version, backends, address) in [
        (2, "a b c", "127.0.0.1:42424"),
        (3, "a b c/100/off", "127.0.0.1:42424"),
        (4, "a b d", "localhost:42424"),
    ] {
        let mut map = map(version, backends);
        at(address, &mut map);
        pool.pool_state.accept(map, pool.now_ms).unwrap();
        pool.answer();
        pool.pass(60);
    }
    pool.pass(900);
    assert_eq!(pool.labels(), ["steady a", "steady b"]);
}

/// A pool whose sessions live for two hours, and whose handovers last half an hour.
fn with_long_sessions(backends: &str) -> Pool {
    let mut pool = Pool::new(backends);
    let mut config = config();
    config.handover.max_session_timeout = Duration::from_secs(30 * 60);
    pool.pool_state.set_config(config);
    pool.pool_state.saw_timeout(120, pool.now_ms);
    pool
}

#[test]
fn outdated_sessions_are_not_served_however_short_handovers_are() {
    let mut pool = with_long_sessions("a b");
    pool.fail("a");
    pool.pass(60);
    assert!(pool.labels().contains(&"away ba".to_owned()));
    pool.recover("a");
    pool.pass(100 * 60);
    assert!(
        pool.labels().contains(&"wait ba".to_owned()),
        "{:?}",
        pool.slots()
    );
    pool.pass(25 * 60);
    assert!(
        !pool.labels().contains(&"wait ba".to_owned()),
        "{:?}",
        pool.slots()
    );
}

#[test]
fn what_a_short_handover_leaves_behind_does_not_come_back() {
    let mut pool = with_long_sessions("a b c");
    pool.accept(2, "a b c/100/drain");
    pool.pass(HANDOVER_S + 10 * 60 + 20);
    assert_eq!(
        pool.labels(),
        ["steady a", "steady b"],
        "it does not last two hours"
    );
    pool.accept(3, "a b c");
    pool.pass(60 * 60);
    assert_eq!(
        pool.labels(),
        ["steady a", "steady b"],
        "c has what began anew"
    );
    pool.pass(40 * 60);
    assert_ne!(pool.labels(), ["steady a", "steady b"]);
}

#[test]
fn one_session_that_lives_long_makes_no_handover_long_for_ever() {
    let mut pool = Pool::new("a b");
    pool.pool_state.saw_timeout(24 * 60, pool.now_ms);
    assert_eq!(pool.pool_state.longest_timeout_minutes(), 24 * 60);
    pool.restart_after(29 * 3600);
    pool.pass(60);
    assert_eq!(pool.pool_state.longest_timeout_minutes(), 24 * 60);
    pool.pass(3600);
    assert_eq!(pool.pool_state.longest_timeout_minutes(), 0);
}

#[test]
fn a_backend_gets_no_slots_before_it_knows_of_the_removals_that_it_missed() {
    let mut pool = Pool::new("a b");
    pool.fail("b");
    pool.pass(HANDOVER_S);
    assert_eq!(pool.labels(), ["steady a"]);
    pool.pool_state.set_pending_deletes(backend_id("b"), 1);
    pool.recover("b");
    assert_eq!(pool.labels(), ["steady a"]);
    pool.pool_state.set_pending_deletes(backend_id("b"), 0);
    pool.pool_state.tick(pool.now_ms);
    assert_eq!(pool.labels(), ["settle ba", "steady a"]);
}

#[test]
fn health_survives_a_new_map_and_starts_anew_at_a_new_address() {
    let mut pool = Pool::new("a b c");
    pool.fail("c");
    pool.accept(2, "a b/50 c");
    assert!(!pool.pool_state.members()[2].is_up());
    let mut moved = map(3, "a b/50 c");
    moved.backends[2].address = BackendAddress::parse("10.0.9.9:1").unwrap();
    pool.pool_state.accept(moved, pool.now_ms).unwrap();
    let moved = "10.0.9.9:1".parse().unwrap();
    pool.pool_state.probed_other(backend_id("c"), moved, Ok(()));
    pool.pool_state.tick(pool.now_ms);
    assert!(pool.pool_state.members()[2].is_up());
}
