//! Two proxies of one farm in virtual time: what they agree on, and what they do without agreement.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use staterouter::config::{BackendAddress, BackendState, Config, PartitionMap};
use staterouter::control::engine::{Engine, Order, PeerView};
use staterouter::handover::{Place, SlotState, Stage};
use staterouter::health::Failure;

const START_MS: u64 = 1_800_000_000_000;

/// How long an item lives that nobody uses.
const LIFETIME_S: u64 = 20 * 60 + 110;

/// Two proxies. Each hears the other once in a step, as it was one step ago.
struct Farm {
    now_ms: u64,
    proxies: [Engine; 2],
    /// Whether each is heard by the other.
    is_heard: [bool; 2],
}

fn config() -> Config {
    let mut config = Config::new(PathBuf::from("map.yaml"));
    config.peers = vec![BackendAddress::parse("10.0.1.1:42480").unwrap()];
    config.handover.failover_after = Duration::from_secs(15);
    config
}

fn map(version: u64, backends: &str) -> PartitionMap {
    let mut text = format!("version: {version}\nbackends:\n");
    for name in backends.chars() {
        let id = place(name).id();
        text += &format!("  - {{name: {name}, id: {id}, address: '10.0.0.{id}:42424'}}\n");
    }
    PartitionMap::parse(text, "map.yaml").unwrap()
}

fn place(name: char) -> Place {
    Place::new(name as u8 - b'a' + 1).unwrap()
}

/// A proxy without a past that all its backends have answered.
fn begun(version: u64, backends: &str, now_ms: u64) -> Engine {
    let mut engine = Engine::new(config(), map(version, backends), now_ms).unwrap();
    answer(&mut engine, now_ms);
    engine
}

/// All backends answer that are not down.
fn answer(engine: &mut Engine, now_ms: u64) {
    let up = engine.members().iter().filter(|member| member.is_up());
    let places: Vec<_> = up.map(|member| member.place).collect();
    for place in places {
        engine.probed(place, Ok(()), now_ms);
    }
}

impl Farm {
    fn new() -> Self {
        Self {
            now_ms: START_MS,
            proxies: [1, 1].map(|version| begun(version, "abc", START_MS)),
            is_heard: [true; 2],
        }
    }

    fn view_of(&self, proxy: usize) -> Option<PeerView> {
        let engine = &self.proxies[proxy];
        self.is_heard[proxy].then(|| PeerView {
            map_version: engine.map().version,
            slots: engine.slots().to_vec(),
            up: engine
                .members()
                .iter()
                .filter(|member| member.is_up())
                .map(|member| member.place)
                .collect(),
            owed: engine
                .members()
                .iter()
                .filter(|member| member.owed > 0)
                .map(|member| member.place)
                .collect(),
            overrides: Vec::new(),
            longest_timeout_minutes: engine.longest_timeout_minutes(),
            servers: None,
            heard_ms: self.now_ms,
        })
    }

    fn pass(&mut self, seconds: u64) {
        let step_s = if seconds > 100 { 10 } else { 1 };
        for _ in 0..seconds.div_ceil(step_s) {
            let views = [1, 0].map(|other| self.view_of(other));
            self.now_ms += 1000 * step_s;
            for (proxy, mut view) in self.proxies.iter_mut().zip(views) {
                if let Some(view) = &mut view {
                    view.heard_ms = self.now_ms;
                    for slot in &mut view.slots {
                        slot.since_ms += 1000 * step_s;
                    }
                }
                proxy.set_peer(0, view);
                proxy.tick(self.now_ms);
            }
        }
    }

    fn accept(&mut self, proxy: usize, version: u64, backends: &str) {
        let accepted = self.proxies[proxy].accept(map(version, backends), self.now_ms);
        assert!(accepted.unwrap().is_some());
        answer(&mut self.proxies[proxy], self.now_ms);
        self.proxies[proxy].tick(self.now_ms);
    }

    /// The backend fails in the eyes of this proxy.
    fn fail(&mut self, proxy: usize, name: char) {
        for _ in 0..self.proxies[proxy].config().health.fall {
            self.proxies[proxy].probed(place(name), Err(Failure::Refused), self.now_ms);
        }
        self.proxies[proxy].tick(self.now_ms);
    }

    fn recover(&mut self, proxy: usize, name: char) {
        for _ in 0..self.proxies[proxy].config().health.max_rise {
            self.proxies[proxy].probed(place(name), Ok(()), self.now_ms);
        }
        self.proxies[proxy].tick(self.now_ms);
    }

    /// The proxy begins anew, without a memory, and hears the other before it serves.
    fn begin_anew(&mut self, proxy: usize, version: u64, backends: &str) {
        let mut engine = begun(version, backends, self.now_ms);
        engine.set_peer(0, self.view_of(1 - proxy));
        engine.join_peers(self.now_ms);
        engine.tick(self.now_ms);
        self.proxies[proxy] = engine;
    }

    /// What happens at a proxy, such as "away ba" for b standing in for a; steady slots left out.
    fn unsteady(&self, proxy: usize) -> Vec<String> {
        let slots = self.proxies[proxy].slots().iter();
        let labels = slots.filter_map(|slot| {
            let letter = |place: Place| (b'a' + place.id() - 1) as char;
            let (first, second) = (letter(slot.first), letter(slot.second?));
            Some(format!("{:?} {first}{second}", slot.stage).to_lowercase())
        });
        labels.collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[track_caller]
    fn assert_both(&self, expected: &[&str]) {
        for proxy in 0..2 {
            assert_eq!(self.unsteady(proxy), expected, "proxy {proxy}");
        }
    }
}

#[test]
fn a_handover_waits_for_the_proxy_that_has_not_heard_of_it() {
    let mut farm = Farm::new();
    farm.accept(0, 2, "abcd");
    farm.pass(300);
    assert_eq!(farm.unsteady(0), ["settle da", "settle db", "settle dc"]);
    assert!(farm.unsteady(1).is_empty());
    farm.accept(1, 2, "abcd");
    farm.pass(29);
    farm.assert_both(&["settle da", "settle db", "settle dc"]);
    farm.pass(5);
    farm.assert_both(&["move1 da", "move1 db", "move1 dc"]);
    farm.pass(60 + 5);
    farm.assert_both(&["move2 da", "move2 db", "move2 dc"]);
    farm.pass(LIFETIME_S + 20);
    farm.assert_both(&[]);
    assert_eq!(farm.proxies[0].slots().len(), farm.proxies[1].slots().len());
}

#[test]
fn sessions_that_only_one_has_seen_make_a_handover_longer_for_both() {
    let mut farm = Farm::new();
    for proxy in 0..2 {
        farm.accept(proxy, 2, "abcd");
    }
    farm.proxies[0].saw_timeout(60);
    farm.pass(200);
    // Learned from the other, and not forgotten when that one loses its memory.
    farm.proxies[0] = begun(2, "abcd", farm.now_ms);
    farm.pass(59 * 60);
    farm.assert_both(&["move2 da", "move2 db", "move2 dc"]);
    farm.pass(6 * 60);
    farm.assert_both(&[]);
}

#[test]
fn a_map_that_was_taken_back_in_time_holds_nobody_up() {
    let mut farm = Farm::new();
    farm.accept(0, 2, "abcd");
    farm.pass(60);
    farm.accept(0, 3, "abc");
    farm.pass(2);
    assert_eq!(farm.unsteady(0), ["wait ad", "wait bd", "wait cd"]);
    farm.pass(2 * LIFETIME_S + 60);
    farm.assert_both(&[]);
    let places = |proxy: &Engine| -> Vec<Place> {
        let slots = proxy.slots().iter();
        slots.map(|slot| slot.first).collect()
    };
    assert_eq!(places(&farm.proxies[0]), places(&farm.proxies[1]));
}

#[test]
fn both_go_without_a_failed_backend_and_home_again() {
    let mut farm = Farm::new();
    farm.fail(0, 'a');
    farm.pass(5);
    farm.fail(1, 'a');
    farm.assert_both(&["suspect ba", "suspect ca"]);
    farm.pass(9);
    farm.assert_both(&["suspect ba", "suspect ca"]);
    farm.pass(8);
    farm.assert_both(&["away ba", "away ca"]);
    farm.recover(0, 'a');
    farm.pass(60);
    assert_eq!(farm.unsteady(0), ["back ba", "back ca"], "it waits");
    assert_eq!(farm.unsteady(1), ["away ba", "away ca"]);
    farm.recover(1, 'a');
    farm.pass(35);
    farm.assert_both(&["wait ba", "wait ca"]);
    farm.pass(LIFETIME_S + 10);
    farm.assert_both(&["settle ab", "settle ac"]);
    farm.pass(30 + 60 + LIFETIME_S + 60);
    farm.assert_both(&[]);
}

#[test]
fn one_that_alone_loses_a_backend_refuses_until_it_is_back() {
    let mut farm = Farm::new();
    farm.fail(0, 'a');
    farm.pass(600);
    assert_eq!(farm.unsteady(0), ["suspect ba", "suspect ca"]);
    assert!(farm.unsteady(1).is_empty(), "it serves on");
    farm.recover(0, 'a');
    farm.pass(31);
    farm.assert_both(&[]);
}

#[test]
fn nobody_goes_on_while_the_other_is_not_heard() {
    let mut farm = Farm::new();
    farm.is_heard[1] = false;
    farm.fail(0, 'a');
    farm.fail(1, 'a');
    farm.pass(14);
    farm.assert_both(&["suspect ba", "suspect ca"]);
    farm.pass(3);
    assert_eq!(farm.unsteady(0), ["suspect ba", "suspect ca"]);
    assert_eq!(farm.unsteady(1), ["away ba", "away ca"]);
    // It must not serve the failed backend either: the other may have gone on, and has.
    farm.recover(0, 'a');
    farm.pass(100);
    assert_eq!(farm.unsteady(0), ["suspect ba", "suspect ca"]);
    farm.is_heard[1] = true;
    farm.pass(2);
    assert_eq!(farm.unsteady(0), ["back ba", "back ca"]);
}

#[test]
fn nobody_stands_in_whom_the_other_cannot_reach() {
    let mut farm = Farm::new();
    farm.fail(1, 'b');
    farm.pass(5);
    farm.fail(0, 'a');
    farm.fail(1, 'a');
    farm.pass(20);
    assert_eq!(farm.unsteady(0), ["away ca"]);
}

#[test]
fn a_proxy_that_lost_its_memory_learns_from_the_other() {
    let mut farm = Farm::new();
    for proxy in 0..2 {
        farm.accept(proxy, 2, "abcd");
    }
    farm.pass(120);
    farm.proxies[0] = begun(2, "abcd", farm.now_ms);
    farm.pass(2);
    farm.assert_both(&["move2 da", "move2 db", "move2 dc"]);
    for proxy in 0..2 {
        farm.fail(proxy, 'b');
    }
    farm.pass(20);
    farm.proxies[0] = begun(2, "abcd", farm.now_ms);
    farm.recover(1, 'b');
    farm.pass(2);
    let of_b = |labels: Vec<String>| -> Vec<String> {
        let is_of_b = |label: &String| label.ends_with('b');
        labels.into_iter().filter(is_of_b).collect()
    };
    assert_eq!(of_b(farm.unsteady(0)), of_b(farm.unsteady(1)));
}

/// From where each slot is served while nothing moves yet.
fn served_from(proxy: &Engine) -> Vec<Place> {
    let place = |slot: &SlotState| match slot.stage {
        Stage::Settle => slot.second.unwrap(),
        _ => slot.first,
    };
    proxy.slots().iter().map(place).collect()
}

#[test]
fn a_proxy_that_lost_its_memory_serves_from_where_the_other_has_come_to_rest() {
    let mut farm = Farm::new();
    let order = Order {
        backend: "c".to_owned(),
        state: BackendState::Drain,
        accept_moved_percent: None,
    };
    for proxy in &mut farm.proxies {
        proxy.steer(&order, farm.now_ms).unwrap();
    }
    farm.pass(100);
    farm.assert_both(&["move2 ac", "move2 bc"]);
    // Its map says nothing of what the operator has decided.
    farm.begin_anew(0, 1, "abc");
    farm.assert_both(&["move2 ac", "move2 bc"]);
    farm.pass(LIFETIME_S + 60);
    assert!(farm.unsteady(1).is_empty());
    let at_rest = served_from(&farm.proxies[1]);
    farm.begin_anew(0, 1, "abc");
    assert!(!at_rest.contains(&place('c')));
    assert_eq!(served_from(&farm.proxies[0]), at_rest);
    assert_eq!(farm.unsteady(0), ["settle ca", "settle cb"]);
    farm.pass(300);
    assert_eq!(served_from(&farm.proxies[0]), at_rest, "it waits");
}

#[test]
fn a_new_proxy_with_a_newer_map_does_not_run_ahead() {
    let mut farm = Farm::new();
    farm.pass(60);
    let at_rest = served_from(&farm.proxies[1]);
    farm.begin_anew(0, 2, "abcd");
    assert_eq!(served_from(&farm.proxies[0]), at_rest);
    assert_eq!(farm.unsteady(0), ["settle da", "settle db", "settle dc"]);
    farm.accept(1, 2, "abcd");
    farm.pass(120);
    farm.assert_both(&["move2 da", "move2 db", "move2 dc"]);
    // It has never heard of the one that failed.
    for proxy in 0..2 {
        farm.fail(proxy, 'a');
    }
    farm.pass(60);
    farm.begin_anew(0, 3, "bcd");
    let there = farm.proxies[1].slots().iter();
    let pairs = served_from(&farm.proxies[0]).into_iter().zip(there);
    let stood_in_for: Vec<_> = pairs
        .filter(|(_, there)| there.stage == Stage::Away)
        .collect();
    assert!(stood_in_for.len() > 1000);
    assert!(
        stood_in_for
            .iter()
            .all(|(here, there)| *here == there.first)
    );
}

#[test]
fn of_two_proxies_that_begin_together_the_first_is_followed() {
    let mut farm = Farm::new();
    let first = served_from(&farm.proxies[0]);
    farm.now_ms += 500;
    farm.begin_anew(1, 2, "abcd");
    assert_eq!(served_from(&farm.proxies[1]), first);
    let second = farm.view_of(1);
    farm.proxies[0].set_peer(0, second);
    farm.proxies[0].join_peers(farm.now_ms);
    assert_eq!(served_from(&farm.proxies[0]), first);
}

#[test]
fn nobody_serves_a_returned_backend_while_another_proxy_owes_it_a_removal() {
    let mut farm = Farm::new();
    for proxy in 0..2 {
        farm.fail(proxy, 'a');
    }
    farm.pass(60);
    farm.assert_both(&["away ba", "away ca"]);
    farm.proxies[1].set_owed(place('a'), 1);
    for proxy in 0..2 {
        farm.recover(proxy, 'a');
    }
    farm.pass(100);
    farm.assert_both(&["back ba", "back ca"]);
    farm.proxies[1].set_owed(place('a'), 0);
    farm.pass(10);
    farm.assert_both(&["wait ba", "wait ca"]);
}
