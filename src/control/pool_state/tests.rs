use std::path::PathBuf;

use super::*;
use crate::config::BackendAddress;
use crate::handover::{ReplicaPhase, Stage};
use crate::route::SLOT_COUNT;

const START_MS: u64 = 1_800_000_000_000;
const TICK_MS: u64 = 5_000;

/// A pool, its clock, and what its log says.
struct Pool {
    pool_state: PoolState,
    now_ms: u64,
    log: Vec<String>,
}

fn config() -> Config {
    let mut config = Config::new(PathBuf::from("map.yaml"));
    config.handover.settle = Duration::from_secs(30);
    config
}

/// A map of backends `NAME/WEIGHT/STATE`; ids follow the letters.
fn map(version: u64, backends: [&str; 3]) -> PartitionMap {
    let mut text = format!("version: {version}\nbackends:\n");
    for backend in backends {
        let parts: Vec<_> = backend.split('/').collect();
        let [name, weight, state] = parts[..] else {
            panic!("{backend}")
        };
        let id = name.as_bytes()[0] - b'a' + 1;
        text += &format!(
            "- {{name: {name}, id: {id}, address: '10.0.0.{id}:1', weight: {weight}, state: {state}}}\n"
        );
    }
    PartitionMap::parse(text, "map.yaml").unwrap()
}

impl Pool {
    fn new(backends: [&str; 3]) -> Self {
        let mut pool = Self {
            pool_state: PoolState::new(config(), map(1, backends), START_MS).unwrap(),
            now_ms: START_MS,
            log: Vec::new(),
        };
        pool.answer();
        pool
    }

    fn accept(&mut self, version: u64, backends: [&str; 3]) {
        self.accept_unanswered(version, backends);
        self.answer();
    }

    /// Puts a map in force whose new backends nobody has asked yet.
    fn accept_unanswered(&mut self, version: u64, backends: [&str; 3]) {
        let accepted = self.pool_state.accept(map(version, backends), self.now_ms);
        assert!(accepted.unwrap().is_some());
    }

    /// All backends answer.
    fn answer(&mut self) {
        for id in 1..=4 {
            let backend_id = BackendId::new(id).unwrap();
            for _ in 0..self.pool_state.config.health.rise {
                self.pool_state.probed(backend_id, Ok(()), self.now_ms);
            }
        }
    }

    fn fail(&mut self, id: u8) {
        for _ in 0..self.pool_state.config.health.fall {
            let backend_id = BackendId::new(id).unwrap();
            self.pool_state
                .probed(backend_id, Err(Failure::Refused), self.now_ms);
        }
    }

    /// Slots with the backend of this id at either place.
    fn slots_at(&self, id: u8) -> usize {
        let slots = self.pool_state.slots().iter();
        let is_there = |slot: &&SlotState| slot.places().any(|backend_id| backend_id.id() == id);
        slots.filter(is_there).count()
    }

    fn pass(&mut self, seconds: u64) {
        let end_ms = self.now_ms + seconds * 1000;
        while self.now_ms < end_ms {
            self.now_ms += TICK_MS;
            let notices = self.pool_state.tick(self.now_ms);
            self.log
                .extend(notices.into_iter().map(|notice| notice.text));
        }
    }

    /// Sessions have been moved from the first backend to the third.
    fn move_sessions(&self, count: usize) {
        let [from, _, to] = self.pool_state.members() else {
            panic!("three backends")
        };
        for _ in 0..count {
            let shard = to.metrics.shard(0);
            shard.count_move(&from.metrics, from.backend_id);
        }
    }

    fn lines(&self, wanted: &str) -> Vec<&str> {
        let lines = self.log.iter().map(String::as_str);
        lines.filter(|line| line.contains(wanted)).collect()
    }
}

#[test]
fn the_end_of_a_handover_is_told_once_with_what_it_was() {
    let mut pool = Pool::new(["a/100/active", "b/1/active", "c/1/active"]);
    let before = pool.pool_state.slots().to_vec();
    pool.move_sessions(5);
    pool.accept(2, ["a/100/active", "b/1/active", "c/50/active"]);
    pool.pass(200);
    pool.move_sessions(7);
    // More goes the same way, and ends later.
    pool.accept(3, ["a/100/active", "b/1/active", "c/100/active"]);
    pool.pass(1300);
    let arrived = |pool: &Pool| {
        let slots = pool.pool_state.slots().iter().zip(&before);
        let arrived = slots.filter(|(now, before)| {
            (before.first.id(), now.first.id(), now.stage) == (1, 3, Stage::Steady)
        });
        arrived.count()
    };
    assert!(arrived(&pool) > 0);
    assert_eq!(pool.lines("to c has ended"), [""; 0]);
    pool.pass(2000);
    let ends = pool.lines("from a to c has ended");
    assert_eq!(ends.len(), 1, "{ends:?}");
    let slots = format!("handover of {} slots (", arrived(&pool));
    assert!(ends[0].starts_with(&slots), "{slots}: {ends:?}");
    assert!(
        ends[0].ends_with("after 26 min; this proxy has moved 7 sessions"),
        "{ends:?}"
    );
}

#[test]
fn of_a_handover_from_before_the_start_only_the_end_is_known() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/1/active"]);
    pool.accept(2, ["a/100/active", "b/100/active", "c/100/active"]);
    pool.pass(300);
    pool.pool_state = PoolState::resume(config(), pool.pool_state.memory(), pool.now_ms).unwrap();
    pool.answer();
    pool.move_sessions(2);
    pool.pass(2000);
    let ends = pool.lines("has ended");
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(
        ends[0].ends_with("from a to c has ended; this proxy has moved 2 sessions"),
        "{ends:?}"
    );
}

#[test]
fn a_handover_that_never_arrives_has_no_end() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/1/active"]);
    pool.accept(2, ["a/100/active", "b/100/active", "c/100/active"]);
    pool.pass(300);
    pool.accept(3, ["a/100/active", "b/100/active", "c/100/off"]);
    pool.pass(2000);
    assert_eq!(pool.lines("has ended"), [""; 0]);
    assert!(!pool.lines("is given up").is_empty(), "{:?}", pool.log);
}

#[test]
fn a_backend_that_was_given_up_and_is_wanted_again_says_why_it_gets_nothing() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/100/active"]);
    pool.accept(2, ["a/100/active", "b/100/active", "c/100/off"]);
    pool.pass(300);
    assert_eq!(pool.lines("gets no sessions"), [""; 0]);
    pool.accept(3, ["a/100/active", "b/100/active", "c/100/active"]);
    pool.pass(1000);
    assert_eq!(
        pool.lines("c gets no sessions"),
        ["c gets no sessions for 16 min: it was given up, and what it held until then is outdated"]
    );
    assert_eq!(pool.lines("to c begins"), [""; 0]);
    pool.pass(20);
    assert!(!pool.lines("to c begins").is_empty(), "{:?}", pool.log);
}

#[test]
fn a_new_backend_gets_nothing_before_it_answers() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/1/drain"]);
    pool.accept_unanswered(2, ["a/100/active", "b/100/active", "d/100/active"]);
    pool.pass(10);
    assert_eq!(pool.slots_at(4), 0, "nobody has asked it yet");
    pool.fail(4);
    pool.pass(100);
    assert_eq!(pool.slots_at(4), 0, "it does not answer");
    assert_eq!(
        pool.lines("d gets its share"),
        ["d gets its share of the sessions once it answers"]
    );
    pool.answer();
    pool.pass(10);
    assert!(pool.slots_at(4) > 1000);
    assert!(!pool.lines("to d begins").is_empty(), "{:?}", pool.log);
}

#[test]
fn a_backend_that_nobody_has_heard_does_not_stand_in() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/1/drain"]);
    pool.accept_unanswered(2, ["a/100/active", "b/100/active", "d/100/active"]);
    pool.fail(1);
    pool.pass(60);
    assert_eq!(pool.slots_at(4), 0);
    assert!(
        !pool.lines("b stands in for a").is_empty(),
        "{:?}",
        pool.log
    );
}

#[test]
fn a_backend_that_was_off_gets_nothing_before_it_answers_again() {
    let mut pool = Pool::new(["a/100/active", "b/100/active", "c/100/active"]);
    pool.accept(2, ["a/100/active", "b/100/active", "c/100/off"]);
    pool.pass(2000);
    pool.accept_unanswered(3, ["a/100/active", "b/100/active", "c/100/active"]);
    pool.pass(100);
    assert_eq!(pool.slots_at(3), 0);
    pool.answer();
    pool.pass(10);
    assert!(pool.slots_at(3) > 1000);
}

#[test]
fn a_peer_that_is_the_proxy_itself_is_no_peer_until_it_is_another() {
    let mut config = config();
    config.peers = ["a:1", "b:1", "c:1"]
        .map(|peer| BackendAddress::parse(peer).unwrap())
        .to_vec();
    let backends = ["a/100/active", "b/100/active", "c/100/active"];
    let mut pool_state = PoolState::new(config, map(1, backends), START_MS).unwrap();
    let view = |map_version| PeerView {
        map_version,
        slots: engine_slots(),
        up: Vec::new(),
        pending: Vec::new(),
        servers: None,
        off: Vec::new(),
        gone: Places::default(),
        decisions: Vec::new(),
        timeouts: SeenTimeouts::default(),
        membership: Membership::default(),
        heard_ms: START_MS,
    };
    let versions = |pool_state: &PoolState| -> Vec<_> {
        let peers = pool_state.peers().iter();
        peers
            .map(|peer| peer.as_ref().map(|peer| peer.map_version))
            .collect()
    };
    pool_state.set_left_out(1, true);
    for index in 0..3 {
        pool_state.set_peer(index, Some(view(index as u64)));
    }
    assert_eq!(versions(&pool_state), [Some(0), Some(2)]);
    // As long as the one that was heard first counts.
    pool_state.set_peer(
        2,
        Some(PeerView {
            heard_ms: START_MS - 500,
            ..view(2)
        }),
    );
    let may_restore = |pool_state: &PoolState, now_ms| {
        let until_ms = pool_state.restores_until_ms();
        until_ms.is_none_or(|until_ms| now_ms < until_ms)
    };
    assert!(
        !may_restore(&pool_state, START_MS),
        "it was heard, and the slots have not gone by it"
    );
    pool_state.tick(START_MS);
    assert!(may_restore(&pool_state, START_MS + 1499));
    assert!(!may_restore(&pool_state, START_MS + 1500));
    pool_state.set_left_out(1, true);
    pool_state.set_left_out(1, false);
    assert_eq!(versions(&pool_state), [Some(0), Some(2), None]);
    pool_state.set_peer(1, Some(view(1)));
    pool_state.set_peer(2, None);
    assert_eq!(versions(&pool_state), [Some(0), None, Some(1)]);
    pool_state.tick(START_MS);
    assert!(!may_restore(&pool_state, START_MS), "one is silent");
    let alone = Pool::new(backends).pool_state;
    assert_eq!(alone.restores_until_ms(), None);
}

fn engine_slots() -> Vec<SlotState> {
    let backend_id = BackendId::new(1).unwrap();
    vec![SlotState::steady(backend_id, START_MS); SLOT_COUNT]
}

/// A restart must not end what it held up: what failed last may not be written down.
#[test]
fn a_handover_whose_moves_fail_goes_on_until_they_do_not_even_over_a_restart() {
    let mut pool = Pool::new(["a/100/active", "b/1/active", "c/1/active"]);
    pool.accept(2, ["a/100/active", "b/1/active", "c/50/active"]);
    pool.pass(200);
    let moving = |pool: &Pool| {
        let mut slots = pool.pool_state.slots().iter();
        slots.any(|slot| slot.stage.is_handover())
    };
    let fail_a_move = |pool: &Pool| {
        let [from, _, to] = pool.pool_state.members() else {
            panic!("three backends")
        };
        let shard = to.metrics.shard(0);
        shard.count_failed_move(&from.metrics, from.backend_id, Some(400));
    };
    let lifetime_s = pool.pool_state.times().lifetime_ms / 1000;
    for _ in 0..4 {
        fail_a_move(&pool);
        pool.pool_state.look_for_failed_moves(pool.now_ms);
        pool.pass(lifetime_s / 2 + 60);
        assert!(moving(&pool));
    }
    let told = pool.lines("sessions cannot be moved from a to c: c answers 400");
    assert_eq!(told.len(), 1, "{told:?}");

    let (config, memory) = (pool.pool_state.config.clone(), pool.pool_state.memory());
    pool.pool_state = PoolState::resume(config, memory, pool.now_ms).unwrap();
    pool.answer();
    pool.pass(lifetime_s - 60);
    assert!(moving(&pool), "what is used now lives for so long");
    pool.pass(180);
    assert!(!moving(&pool));
    assert_eq!(pool.pool_state.failing_moves().count(), 0);
    assert_eq!(pool.lines("from a to c has ended").len(), 1);
}

/// It may have missed a copy in the moment before, and that is not written down.
#[test]
fn a_replica_that_was_filling_fills_anew_after_a_restart() {
    let mut copied = map(1, ["a/1/active", "b/1/active", "c/1/active"]);
    copied.replicas = 1;
    let mut pool = Pool::new(["a/1/active", "b/1/active", "c/1/active"]);
    pool.pool_state = PoolState::new(config(), copied, START_MS).unwrap();
    pool.answer();
    let begin_ms = START_MS + 60_000;
    pool.pool_state.tick(begin_ms);
    let filling_since_ms = |pool: &Pool, phase| {
        let slots = pool.pool_state.slots().iter();
        let replicas = slots.filter_map(|slot| slot.replica);
        let mut since_ms: Vec<u64> = replicas
            .filter(|replica| replica.phase == phase)
            .map(|replica| replica.since_ms)
            .collect();
        assert_eq!(since_ms.len(), SLOT_COUNT);
        since_ms.dedup();
        since_ms
    };
    assert_eq!(filling_since_ms(&pool, ReplicaPhase::Filling), [begin_ms]);
    let lifetime_ms = pool.pool_state.times().lifetime_ms;
    let restart_ms = begin_ms + lifetime_ms - 1;
    let memory = pool.pool_state.memory();
    pool.pool_state = PoolState::resume(config(), memory, restart_ms).unwrap();
    pool.answer();
    pool.pool_state.tick(restart_ms + 1);
    assert_eq!(filling_since_ms(&pool, ReplicaPhase::Filling), [restart_ms]);
    let full_ms = restart_ms + lifetime_ms;
    pool.pool_state.tick(full_ms);
    assert_eq!(filling_since_ms(&pool, ReplicaPhase::Full), [full_ms]);
    // What is full stays so.
    let memory = pool.pool_state.memory();
    pool.pool_state = PoolState::resume(config(), memory, full_ms + 1).unwrap();
    assert_eq!(filling_since_ms(&pool, ReplicaPhase::Full), [full_ms]);
}
