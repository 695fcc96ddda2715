//! Which address each backend is asked at, in virtual time.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use staterouter::config::{BackendAddress, Config, PartitionMap};
use staterouter::control::pool_state::{PeerView, PoolState};
use staterouter::handover::BackendId;
use staterouter::health::Failure;

const START_MS: u64 = 1_800_000_000_000;
const REFUSED: Result<(), Failure> = Err(Failure::Refused);

/// The first backend of the map, at `address`; the second is always the same.
fn map(version: u64, address: &str) -> PartitionMap {
    let text = format!(
        "version: {version}\nbackends:\n  - {{name: a, id: 1, address: '{address}'}}\n  \
         - {{name: b, id: 2, address: '10.0.0.200:1'}}\n"
    );
    PartitionMap::parse(text, "map.yaml").unwrap()
}

fn config() -> Config {
    let mut config = Config::new(PathBuf::from("map.yaml"));
    config.handover.failover_after = Duration::from_secs(10);
    config
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

fn first() -> BackendId {
    BackendId::new(1).unwrap()
}

struct Pool {
    pool_state: PoolState,
    now_ms: u64,
    log: Vec<String>,
}

impl Pool {
    fn new(address: &str) -> Self {
        Self::with(config(), address)
    }

    fn with(config: Config, address: &str) -> Self {
        let mut pool = Self {
            pool_state: PoolState::new(config, map(1, address), START_MS).unwrap(),
            now_ms: START_MS,
            log: Vec::new(),
        };
        pool.pool_state
            .probed(BackendId::new(2).unwrap(), Ok(()), START_MS);
        pool
    }

    /// Both proxies of a pair, which have one name for the first backend and ask it at `at(1)`.
    fn pair() -> [Self; 2] {
        let mut config = config();
        config.peers = vec![BackendAddress::parse("10.0.1.1:42480").unwrap()];
        let mut pair = [(); 2].map(|()| Self::with(config.clone(), "a.test:1"));
        for pool in &mut pair {
            pool.finds(&[1]);
            pool.tick(0);
            pool.answers();
        }
        meet(&mut pair);
        pair
    }

    fn accept(&mut self, version: u64, address: &str) {
        let accepted = self.pool_state.accept(map(version, address), self.now_ms);
        assert!(accepted.unwrap().is_some());
        self.tick(0);
    }

    fn finds(&mut self, last: &[u8]) {
        let found = last.iter().map(|last| at(*last)).collect();
        let in_map = self.pool_state.members()[0].spec.address.clone();
        self.pool_state
            .looked_up(first(), &in_map, Ok(found), self.now_ms);
    }

    fn tick(&mut self, seconds: u64) {
        self.now_ms += seconds * 1000;
        let notices = self.pool_state.tick(self.now_ms);
        self.log
            .extend(notices.into_iter().map(|notice| notice.text));
    }

    /// The address in use answers.
    fn answers(&mut self) {
        for _ in 0..self.pool_state.config().health.rise {
            self.pool_state.probed(first(), Ok(()), self.now_ms);
        }
    }

    /// The address in use has failed for good.
    fn fails(&mut self) {
        for _ in 0..self.pool_state.config().health.fall {
            self.pool_state.probed(first(), REFUSED, self.now_ms);
        }
    }

    fn other(&mut self, last: u8, outcome: Result<(), Failure>) {
        self.pool_state.probed_other(first(), at(last), outcome);
        self.tick(0);
    }

    fn in_use(&self) -> Option<SocketAddr> {
        self.pool_state.members()[0].address()
    }

    /// Whether the address is probed now.
    fn asks(&self, last: u8) -> bool {
        self.pool_state
            .probe_targets()
            .contains(&(first(), at(last)))
    }

    fn said(&self, part: &str) -> usize {
        self.log.iter().filter(|line| line.contains(part)).count()
    }

    fn view(&self) -> PeerView {
        let up = self.pool_state.members().iter();
        let up = up.filter(|member| member.is_up());
        PeerView {
            map_version: self.pool_state.map().version,
            slots: self.pool_state.slots().to_vec(),
            up: up.map(|member| member.backend_id).collect(),
            pending: Vec::new(),
            off: Vec::new(),
            gone: Default::default(),
            decisions: Vec::new(),
            timeouts: Default::default(),
            servers: Some(self.pool_state.servers()),
            membership: self.pool_state.membership().clone(),
            heard_ms: self.now_ms,
        }
    }
}

/// Each hears the other as it is now.
fn meet(pair: &mut [Pool; 2]) {
    let views = pair.each_ref().map(Pool::view);
    let [first, second] = views;
    for (pool, view) in pair.iter_mut().zip([second, first]) {
        pool.pool_state.set_peer(0, Some(view));
        pool.tick(1);
    }
}

#[test]
fn of_several_addresses_the_lowest_that_answers_is_used() {
    for (outcomes, expected) in [
        ([Ok(()), Ok(())], 1),
        ([REFUSED, Ok(())], 2),
        ([REFUSED, REFUSED], 1),
    ] {
        let mut pool = Pool::new("a.test:1");
        assert!(pool.pool_state.awaits_address());
        pool.finds(&[2, 1]);
        pool.tick(0);
        assert_eq!(pool.in_use(), None, "used before anybody has asked it");
        assert!(pool.asks(1) && pool.asks(2));
        pool.other(2, outcomes[1]);
        assert_eq!(pool.in_use(), None, "the lower one may answer, too");
        pool.other(1, outcomes[0]);
        assert_eq!(pool.in_use(), Some(at(expected)));
        assert!(!pool.pool_state.awaits_address());
        assert_eq!(pool.said("has 2 addresses (10.0.0.1:1, 10.0.0.2:1)"), 1);
    }
}

#[test]
fn a_single_address_is_used_at_once_and_none_means_down() {
    let mut pool = Pool::new("a.test:1");
    assert!(!pool.pool_state.members()[0].is_up());
    let in_map = pool.pool_state.members()[0].spec.address.clone();
    let failed = Err("no such host".to_owned());
    pool.pool_state
        .looked_up(first(), &in_map, failed, pool.now_ms);
    pool.tick(0);
    assert_eq!(pool.said("leads to no address (no such host)"), 1);
    assert!(!pool.pool_state.awaits_address());
    pool.finds(&[1]);
    pool.tick(0);
    assert_eq!(pool.in_use(), Some(at(1)));
    assert!(pool.pool_state.members()[0].is_up());
    assert!(!pool.pool_state.members()[0].health.has_answered());
}

#[test]
fn a_name_that_leads_elsewhere_is_not_followed_while_the_server_answers() {
    let mut pool = Pool::new("a.test:1");
    pool.finds(&[1]);
    pool.tick(0);
    pool.answers();
    pool.finds(&[2]);
    pool.other(2, Ok(()));
    for _ in 0..100 {
        pool.tick(60);
    }
    assert_eq!(pool.in_use(), Some(at(1)));
    assert_eq!(
        pool.said("leads to 10.0.0.2:1 now, but 10.0.0.1:1 still"),
        1
    );
    // What the operator orders or a dead server makes necessary.
    let mut ordered = Pool {
        pool_state: pool.pool_state.clone(),
        log: Vec::new(),
        ..pool
    };
    ordered.pool_state.follow_names();
    ordered.tick(0);
    assert_eq!(ordered.in_use(), Some(at(2)));
    assert_eq!(
        ordered.said("asked at 10.0.0.2:1 from now on instead of 10.0.0.1:1"),
        1
    );
    pool.fails();
    pool.tick(0);
    assert_eq!(pool.in_use(), Some(at(2)));
    assert_eq!(
        pool.said("does not answer: sessions that only 10.0.0.1:1 holds"),
        1
    );
    // What the first one holds is outdated by now: its sessions have gone on.
    pool.answers();
    pool.finds(&[1]);
    pool.other(1, Ok(()));
    pool.fails();
    pool.tick(1);
    assert_eq!(
        pool.in_use(),
        Some(at(2)),
        "outdated sessions would be served"
    );
    pool.pool_state.follow_names();
    pool.tick(1);
    assert_eq!(pool.in_use(), Some(at(2)));
    assert_eq!(
        pool.said("was given up, and may hold outdated sessions for 21 min more"),
        1
    );
    pool.tick(23 * 60);
    pool.other(1, Ok(()));
    assert_eq!(pool.in_use(), Some(at(1)));
}

#[test]
fn a_second_address_of_a_name_replaces_the_first_only_where_nobody_can_stand_in() {
    for can_stand_in in [true, false] {
        let mut pool = Pool::new("a.test:1");
        pool.finds(&[1, 2]);
        pool.other(2, Ok(()));
        pool.other(1, Ok(()));
        pool.answers();
        if !can_stand_in {
            for _ in 0..pool.pool_state.config().health.fall {
                pool.pool_state
                    .probed(BackendId::new(2).unwrap(), REFUSED, pool.now_ms);
            }
        }
        pool.fails();
        pool.other(2, Ok(()));
        pool.tick(19);
        assert_eq!(
            pool.in_use(),
            Some(at(1)),
            "a server may be gone for a moment"
        );
        pool.tick(1);
        let expected = if can_stand_in { 1 } else { 2 };
        assert_eq!(pool.in_use(), Some(at(expected)));
    }
}

#[test]
fn a_changed_address_is_used_once_it_answers_as_a_state_server() {
    let mut pool = Pool::new("10.0.0.1:1");
    pool.answers();
    pool.accept(2, "10.0.0.2:1");
    assert!(pool.asks(1) && pool.asks(2));
    pool.other(2, Err(Failure::Garbage));
    pool.tick(600);
    assert_eq!(pool.in_use(), Some(at(1)));
    assert_eq!(
        pool.said("10.0.0.1:1 stays in use: its new address 10.0.0.2:1 does not answer as a"),
        1
    );
    assert!(pool.pool_state.members()[0].is_up());
    let mut corrected = Pool {
        pool_state: pool.pool_state.clone(),
        log: Vec::new(),
        ..pool
    };
    corrected.accept(3, "10.0.0.1:1");
    corrected.tick(600);
    assert_eq!(corrected.in_use(), Some(at(1)));
    assert!(!corrected.asks(2));
    pool.other(2, Ok(()));
    assert_eq!(pool.in_use(), Some(at(2)));
    assert!(!pool.asks(1));
}

#[test]
fn one_server_is_not_two_backends() {
    let mut pool = Pool::new("a.test:1");
    pool.finds(&[200]);
    pool.tick(0);
    assert_eq!(pool.in_use(), None);
    assert_eq!(
        pool.said("10.0.0.200:1 is the server of backend b already"),
        1
    );
}

#[test]
fn a_restart_goes_on_where_the_backend_was_asked() {
    let mut pool = Pool::new("a.test:1");
    pool.finds(&[1]);
    pool.tick(0);
    pool.answers();
    pool.finds(&[2]);
    pool.tick(0);
    let resume = |pool: &Pool| Pool {
        pool_state: PoolState::resume(config(), pool.pool_state.memory(), pool.now_ms).unwrap(),
        now_ms: pool.now_ms,
        log: Vec::new(),
    };
    let mut again = resume(&pool);
    assert_eq!(again.in_use(), Some(at(1)));
    assert!(
        !again.pool_state.awaits_address(),
        "whatever the name service says"
    );
    again.finds(&[2]);
    again.other(2, Ok(()));
    assert_eq!(again.in_use(), Some(at(1)));
    // An order that waits is one after a restart as well.
    pool.accept(2, "10.0.0.3:1");
    let mut again = resume(&pool);
    assert_eq!(again.in_use(), Some(at(1)));
    again.other(3, Ok(()));
    assert_eq!(again.in_use(), Some(at(3)));
}

#[test]
fn proxies_change_over_together() {
    let mut pair = Pool::pair();
    pair[0].accept(2, "10.0.0.2:1");
    pair[0].other(2, Ok(()));
    meet(&mut pair);
    assert_eq!(pair[0].in_use(), Some(at(1)), "the other has another map");
    assert_eq!(
        pair[0].said("answers, but not every other proxy is ready"),
        1
    );
    pair[1].accept(2, "10.0.0.2:1");
    meet(&mut pair);
    assert_eq!(
        pair[0].in_use(),
        Some(at(1)),
        "it does not answer the other"
    );
    pair[1].other(2, Ok(()));
    meet(&mut pair);
    meet(&mut pair);
    assert_eq!(pair.each_ref().map(Pool::in_use), [Some(at(2)); 2]);
    assert_eq!(pair[0].pool_state.server_faults(pair[0].now_ms), []);
}

#[test]
fn a_server_that_one_proxy_reaches_stays_for_all() {
    let mut pair = Pool::pair();
    for pool in &mut pair {
        pool.finds(&[2]);
    }
    pair[0].fails();
    pair[0].other(2, Ok(()));
    meet(&mut pair);
    assert_eq!(pair[0].in_use(), Some(at(1)), "the other reaches it");
    pair[0].pool_state.set_peer(0, None);
    pair[0].tick(600);
    assert_eq!(pair[0].in_use(), Some(at(1)), "the other may reach it");
    pair[1].fails();
    pair[1].other(2, Ok(()));
    meet(&mut pair);
    meet(&mut pair);
    assert_eq!(pair.each_ref().map(Pool::in_use), [Some(at(2)); 2]);
}

#[test]
fn a_proxy_that_begins_asks_where_its_peers_do() {
    let mut pair = Pool::pair();
    // The name, and then the map, lead elsewhere.
    for address in ["a.test:1", "10.0.0.2:1"] {
        let mut config = config();
        config.peers = vec![BackendAddress::parse("10.0.1.1:42480").unwrap()];
        let mut begun = Pool::with(config, address);
        begun.now_ms = pair[0].now_ms + 60_000;
        if address.starts_with('a') {
            begun.finds(&[2]);
        }
        begun.pool_state.set_peer(0, Some(pair[0].view()));
        begun.pool_state.join_peers(begun.now_ms);
        assert_eq!(begun.in_use(), Some(at(1)), "{address}");
        begun.other(2, Ok(()));
        assert_eq!(begun.in_use(), Some(at(1)), "{address}");
    }
    // The others do not follow the new one.
    meet(&mut pair);
    assert_eq!(pair.each_ref().map(Pool::in_use), [Some(at(1)); 2]);
}

#[test]
fn proxies_that_begin_together_with_different_addresses_end_at_one() {
    let mut pair = Pool::pair();
    for (pool, last) in pair.iter_mut().zip([1, 2]) {
        *pool = Pool::with(pool.pool_state.config().clone(), "a.test:1");
        pool.finds(&[last]);
        pool.tick(0);
        pool.finds(&[1, 2]);
    }
    for _ in 0..3 {
        meet(&mut pair);
    }
    assert_eq!(pair.each_ref().map(Pool::in_use), [Some(at(1)); 2]);
}
