//! Two proxies of one farm in virtual time: what they agree on, and what they do without agreement.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use staterouter::config::{BackendAddress, BackendState, Config, PartitionMap};
use staterouter::control::pool_state::{Membership, Order, Override, PeerView, PoolState};
use staterouter::handover::{BackendId, SlotState, Stage};
use staterouter::health::Failure;

const START_MS: u64 = 1_800_000_000_000;

/// How long an item lives that nobody uses.
const LIFETIME_S: u64 = 20 * 60 + 110;

/// Two proxies. Each hears the other once in a step, as it was one step ago.
struct Farm {
    now_ms: u64,
    proxies: [PoolState; 2],
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
        let id = backend_id(name).id();
        text += &format!("  - {{name: {name}, id: {id}, address: '10.0.0.{id}:42424'}}\n");
    }
    PartitionMap::parse(text, "map.yaml").unwrap()
}

fn backend_id(name: char) -> BackendId {
    BackendId::new(name as u8 - b'a' + 1).unwrap()
}

/// A proxy without a past that all its backends have answered.
fn begun(version: u64, backends: &str, now_ms: u64) -> PoolState {
    let mut pool_state = PoolState::new(config(), map(version, backends), now_ms).unwrap();
    answer(&mut pool_state, now_ms);
    pool_state
}

/// All backends answer that are not down.
fn answer(pool_state: &mut PoolState, now_ms: u64) {
    let up = pool_state.members().iter().filter(|member| member.is_up());
    let places: Vec<_> = up.map(|member| member.backend_id).collect();
    for backend_id in places {
        pool_state.probed(backend_id, Ok(()), now_ms);
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
        let pool_state = &self.proxies[proxy];
        self.is_heard[proxy].then(|| PeerView {
            map_version: pool_state.map().version,
            slots: pool_state.slots().to_vec(),
            up: pool_state
                .members()
                .iter()
                .filter(|member| member.is_up())
                .map(|member| member.backend_id)
                .collect(),
            pending: pool_state
                .members()
                .iter()
                .filter(|member| member.pending_deletes > 0)
                .map(|member| member.backend_id)
                .collect(),
            servers: None,
            off: pool_state
                .members()
                .iter()
                .filter(|member| member.is_off())
                .map(|member| member.spec.name.clone())
                .collect(),
            gone: pool_state.gone().into_iter().collect(),
            decisions: pool_state.decisions().to_vec(),
            timeouts: pool_state.timeouts().clone(),
            membership: pool_state.membership().clone(),
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
                proxy.adopt_decisions(self.now_ms);
                proxy.tick(self.now_ms);
            }
        }
    }

    fn accept(&mut self, proxy: usize, version: u64, backends: &str) {
        self.accept_map(proxy, map(version, backends));
    }

    fn accept_map(&mut self, proxy: usize, map: PartitionMap) {
        let accepted = self.proxies[proxy].accept(map, self.now_ms);
        assert!(accepted.unwrap().is_some());
        answer(&mut self.proxies[proxy], self.now_ms);
        self.proxies[proxy].tick(self.now_ms);
    }

    /// The backend fails in the eyes of this proxy.
    fn fail(&mut self, proxy: usize, name: char) {
        for _ in 0..self.proxies[proxy].config().health.fall {
            self.proxies[proxy].probed(backend_id(name), Err(Failure::Refused), self.now_ms);
        }
        self.proxies[proxy].tick(self.now_ms);
    }

    fn recover(&mut self, proxy: usize, name: char) {
        for _ in 0..self.proxies[proxy].config().health.max_rise {
            self.proxies[proxy].probed(backend_id(name), Ok(()), self.now_ms);
        }
        self.proxies[proxy].tick(self.now_ms);
    }

    /// The proxy begins anew, without a memory, and hears the other before it serves.
    fn begin_anew(&mut self, proxy: usize, version: u64, backends: &str) {
        let mut pool_state = begun(version, backends, self.now_ms);
        pool_state.set_peer(0, self.view_of(1 - proxy));
        pool_state.join_peers(self.now_ms);
        pool_state.tick(self.now_ms);
        self.proxies[proxy] = pool_state;
    }

    /// What happens at a proxy, such as "away ba" for b standing in for a; steady slots left out.
    fn unsteady(&self, proxy: usize) -> Vec<String> {
        let slots = self.proxies[proxy].slots().iter();
        let labels = slots.filter_map(|slot| {
            let letter = |backend_id: BackendId| (b'a' + backend_id.id() - 1) as char;
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
    farm.proxies[0].saw_timeout(60, farm.now_ms);
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
    let places = |proxy: &PoolState| -> Vec<BackendId> {
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
fn served_from(proxy: &PoolState) -> Vec<BackendId> {
    let backend_id = |slot: &SlotState| match slot.stage {
        Stage::Settle => slot.second.unwrap(),
        _ => slot.first,
    };
    proxy.slots().iter().map(backend_id).collect()
}

#[test]
fn a_proxy_that_lost_its_memory_serves_from_where_the_other_has_come_to_rest() {
    let mut farm = Farm::new();
    let order = Order {
        backend: "c".to_owned(),
        state: BackendState::Drain,
        accept_moved_percent: None,
        is_only_here: true,
        is_fresh: false,
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
    assert!(!at_rest.contains(&backend_id('c')));
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
    farm.proxies[1].set_pending_deletes(backend_id('a'), 1);
    for proxy in 0..2 {
        farm.recover(proxy, 'a');
    }
    farm.pass(100);
    farm.assert_both(&["back ba", "back ca"]);
    farm.proxies[1].set_pending_deletes(backend_id('a'), 0);
    farm.pass(10);
    farm.assert_both(&["wait ba", "wait ca"]);
}

fn off(backend: &str, is_only_here: bool) -> Order {
    Order {
        backend: backend.to_owned(),
        state: BackendState::Off,
        accept_moved_percent: None,
        is_only_here,
        is_fresh: false,
    }
}

/// Whether a request may be sent to this backend.
fn serves(proxy: &PoolState, name: char) -> bool {
    let backend_id = Some(backend_id(name));
    proxy.slots().iter().any(|slot| match slot.stage {
        Stage::Suspect => false,
        Stage::Away => Some(slot.first) == backend_id,
        _ => Some(slot.first) == backend_id || slot.second == backend_id,
    })
}

fn has(proxy: &PoolState, name: char) -> bool {
    let mut places = proxy.slots().iter().flat_map(SlotState::places);
    places.any(|other| other == backend_id(name))
}

impl Farm {
    fn answer(&mut self) {
        for proxy in &mut self.proxies {
            answer(proxy, self.now_ms);
        }
    }

    fn steer(&mut self, proxy: usize, order: &Order) -> Result<(), String> {
        let pool_state = &mut self.proxies[proxy];
        let steered = pool_state.steer(order, self.now_ms);
        pool_state.tick(self.now_ms);
        steered.map(|_| ()).map_err(|refused| refused.to_string())
    }

    /// Second by second, until nobody has this backend: none has gone on without it while another one
    /// serves from it.
    #[track_caller]
    fn leave(&mut self, name: char, most_s: u64) {
        for _ in 0..most_s {
            self.pass(1);
            for (one, other) in [(0, 1), (1, 0)] {
                let [one, other] = [one, other].map(|proxy| &self.proxies[proxy]);
                assert!(has(one, name) || !serves(other, name), "{:?}", self.now_ms);
            }
        }
        assert!(self.proxies.iter().all(|proxy| !has(proxy, name)));
        let [first, second] = self.proxies.each_ref().map(served_from);
        assert_eq!(first, second);
    }

    /// The proxy ends, and goes on from what it has written down.
    fn restart(&mut self, proxy: usize) {
        let memory = self.proxies[proxy].memory();
        let mut pool_state = PoolState::resume(config(), memory, self.now_ms).unwrap();
        answer(&mut pool_state, self.now_ms);
        self.proxies[proxy] = pool_state;
    }

    /// What it hears before it serves.
    fn meet(&mut self, proxy: usize) {
        let view = self.view_of(1 - proxy);
        self.proxies[proxy].set_peer(0, view);
        self.proxies[proxy].adopt_decisions(self.now_ms);
        self.proxies[proxy].tick(self.now_ms);
    }
}

#[test]
fn an_order_at_one_proxy_is_followed_by_both_at_once() {
    let mut farm = Farm::new();
    farm.pass(5);
    farm.steer(0, &off("c", false)).unwrap();
    assert!(!serves(&farm.proxies[0], 'c'), "it refuses");
    assert!(has(&farm.proxies[0], 'c'), "it waits for the other");
    farm.leave('c', 5);
    // Taken back at the other one.
    let back = Order {
        state: BackendState::Active,
        ..off("c", false)
    };
    farm.steer(1, &back).unwrap();
    farm.pass(5);
    for proxy in &farm.proxies {
        assert_eq!(proxy.overrides(), []);
        assert!(!has(proxy, 'c'), "what it has is outdated");
    }
}

/// The operator has given both proxies a map of one version, and not the same.
#[test]
fn an_order_that_only_one_of_two_maps_needs_is_news_once() {
    let mut farm = Farm::new();
    let mut drains = map(2, "abc");
    drains.backends[2].state = BackendState::Drain;
    farm.accept(0, 2, "abc");
    farm.accept_map(1, drains);
    farm.pass(5);
    let active = Order {
        state: BackendState::Active,
        ..off("c", false)
    };
    farm.steer(1, &active).unwrap();
    farm.pass(5);
    let known = farm.proxies[0].decisions().to_vec();
    assert!(known[0].is_withdrawn && known[0].epoch == 1);
    farm.now_ms += 1000;
    assert!(farm.proxies[0].adopt_decisions(farm.now_ms).is_none());
    assert_eq!(farm.proxies[0].decisions(), known);
}

/// One that was taken over from a faulty peer could not be overruled any more.
#[test]
fn an_order_with_a_number_that_no_farm_can_have_reached_counts_for_nothing() {
    for epoch in [(1 << 48) - 1, 1 << 48, u64::MAX] {
        let (mut farm, mut another) = (Farm::new(), Farm::new());
        farm.pass(5);
        another.pass(5);
        another.steer(0, &off("c", false)).unwrap();
        let mut view = farm.view_of(1).unwrap();
        view.decisions = another.proxies[0].decisions().to_vec();
        view.decisions[0].epoch = epoch;
        farm.proxies[0].set_peer(0, Some(view));
        farm.proxies[0].adopt_decisions(farm.now_ms);
        assert_eq!(farm.proxies[0].overrides(), []);
        farm.pass(1);
        farm.steer(1, &off("c", false)).unwrap();
        farm.leave('c', 5);
    }
}

#[test]
fn a_map_that_gives_a_backend_up_waits_for_the_proxy_that_gets_it_late() {
    let mut farm = Farm::new();
    let given_up = |version| {
        let mut map = map(version, "abc");
        map.backends[2].state = BackendState::Off;
        map
    };
    farm.pass(5);
    farm.accept_map(0, given_up(2));
    farm.leave('c', 10);
    farm.accept_map(1, given_up(2));
    farm.pass(60);
    farm.assert_both(&[]);
}

#[test]
fn an_order_in_the_middle_of_a_handover_is_agreed_on_too() {
    for late in [false, true] {
        let mut farm = Farm::new();
        for proxy in 0..2 {
            farm.accept(proxy, 2, "abcd");
            farm.pass(if late { 40 } else { 1 });
        }
        farm.pass(if late { 70 } else { 0 });
        farm.steer(1, &off("d", false)).unwrap();
        farm.leave('d', 5);
    }
}

#[test]
fn an_order_that_cannot_be_agreed_on_is_refused_unless_one_insists() {
    let mut farm = Farm::new();
    farm.pass(5);
    // The other one is dead with its machine.
    let dead = farm.proxies[1].clone();
    farm.is_heard = [false; 2];
    farm.pass(5);
    let refused = farm.steer(0, &off("c", false)).unwrap_err();
    for wanted in ["10.0.1.1:42480 does not answer", "--only-here"] {
        assert!(refused.contains(wanted), "{refused}");
    }
    assert!(serves(&farm.proxies[0], 'c'));
    farm.steer(0, &off("c", true)).unwrap();
    farm.pass(1);
    assert!(!has(&farm.proxies[0], 'c'));
    farm.pass(300);
    farm.proxies[1] = dead;
    farm.restart(1);
    farm.is_heard = [true; 2];
    farm.meet(1);
    assert!(!has(&farm.proxies[1], 'c'), "before it serves anybody");
    farm.leave('c', 60);
}

#[test]
fn a_proxy_that_has_agreed_does_not_serve_again_what_another_may_have_left() {
    let mut farm = Farm::new();
    farm.pass(5);
    farm.steer(0, &off("c", false)).unwrap();
    farm.meet(1);
    assert!(!serves(&farm.proxies[1], 'c'));
    farm.is_heard[0] = false;
    // It is wanted again, over a restart, and the other one has gone on meanwhile.
    let back = Order {
        state: BackendState::Active,
        ..off("c", true)
    };
    farm.steer(1, &back).unwrap();
    farm.restart(1);
    farm.pass(5);
    assert!(!has(&farm.proxies[0], 'c'));
    assert!(!serves(&farm.proxies[1], 'c'));
    farm.is_heard[0] = true;
    farm.leave('c', 3);
}

#[test]
fn the_newest_order_counts_at_both_whoever_got_it() {
    let mut farm = Farm::new();
    farm.pass(2);
    for (proxy, state) in [
        (0, BackendState::Drain),
        (1, BackendState::Active),
        (0, BackendState::Drain),
    ] {
        let order = Order {
            state,
            ..off("b", false)
        };
        farm.steer(proxy, &order).unwrap();
        farm.pass(2);
        let [first, second] = farm.proxies.each_ref().map(PoolState::overrides);
        let states = |overrides: &[Override]| -> Vec<BackendState> {
            overrides.iter().map(|known| known.state).collect()
        };
        let expected = Vec::from_iter((state != BackendState::Active).then_some(state));
        assert_eq!(
            [states(&first), states(&second)],
            [expected.clone(), expected]
        );
    }
}

#[test]
fn a_peer_makes_handovers_no_longer_than_they_may_be() {
    let mut farm = Farm::new();
    farm.proxies[1].saw_timeout(u32::MAX, farm.now_ms);
    farm.pass(2);
    let most_minutes = 525_600;
    let heard = &farm.proxies[0];
    assert_eq!(heard.longest_timeout_minutes(), most_minutes);
    assert_eq!(heard.times().move_ms, 24 * 3_600_000 + 110_000);
    farm.is_heard[1] = false;
    farm.now_ms += u64::from(most_minutes) * 60_000 / 4 * 5;
    farm.pass(1);
    assert_eq!(farm.proxies[0].longest_timeout_minutes(), 0, "it ages");
}

/// A proxy that lets handovers be shorter than its peer does must not take outdated copies for dead
/// sooner.
#[test]
fn what_only_a_peer_has_seen_keeps_outdated_sessions_from_being_served() {
    let mut farm = Farm::new();
    for proxy in &mut farm.proxies {
        let mut config = config();
        config.handover.max_session_timeout = Duration::from_secs(20 * 60);
        proxy.set_config(config);
    }
    farm.proxies[1].saw_timeout(45, farm.now_ms);
    for proxy in 0..2 {
        farm.fail(proxy, 'a');
    }
    farm.pass(60);
    for proxy in 0..2 {
        farm.recover(proxy, 'a');
    }
    farm.pass(25 * 60);
    farm.assert_both(&["wait ba", "wait ca"]);
    assert_eq!(farm.proxies[0].outlives_handovers(), Some(45));
    farm.pass(25 * 60);
    farm.assert_both(&["move2 ab", "move2 ac"]);
}

fn fresh(backend: &str) -> Order {
    Order {
        state: BackendState::Active,
        is_fresh: true,
        ..off(backend, false)
    }
}

#[test]
fn a_server_that_is_fresh_gets_its_share_at_both_at_once() {
    let mut farm = Farm::new();
    farm.pass(2);
    farm.steer(0, &off("c", false)).unwrap();
    farm.leave('c', 5);
    let back = Order {
        is_fresh: false,
        ..fresh("c")
    };
    farm.steer(0, &back).unwrap();
    farm.pass(2);
    farm.answer();
    farm.pass(30);
    assert!(farm.proxies.iter().all(|proxy| !has(proxy, 'c')));
    farm.steer(1, &fresh("c")).unwrap();
    farm.pass(5);
    farm.assert_both(&["settle ca", "settle cb"]);
    // It stays so after a restart, and says nothing of what it holds now.
    farm.restart(0);
    farm.meet(0);
    farm.assert_both(&["settle ca", "settle cb"]);
    farm.steer(0, &off("c", false)).unwrap();
    farm.leave('c', 5);
    farm.steer(1, &back).unwrap();
    farm.pass(30);
    assert!(farm.proxies.iter().all(|proxy| !has(proxy, 'c')));
}

#[test]
fn nobody_is_fresh_whom_some_proxy_serves_from() {
    let mut farm = Farm::new();
    farm.pass(2);
    let nothing = farm.proxies[0].steer(&fresh("c"), farm.now_ms).unwrap();
    assert!(nothing.is_none(), "nothing was given up");
    farm.is_heard = [false; 2];
    farm.pass(1);
    farm.steer(0, &off("c", true)).unwrap();
    farm.pass(1);
    assert!(!has(&farm.proxies[0], 'c') && serves(&farm.proxies[1], 'c'));
    farm.is_heard[1] = true;
    let view = farm.view_of(1);
    farm.proxies[0].set_peer(0, view);
    let refused = farm.steer(0, &fresh("c")).unwrap_err();
    assert!(
        refused.contains("still serves sessions at the proxy 10.0.1.1:42480"),
        "{refused}"
    );
}

/// A proxy that dies: what it had written down then.
fn dead(farm: &mut Farm) -> PoolState {
    let dead = farm.proxies[1].clone();
    farm.is_heard = [false; 2];
    farm.pass(2);
    dead
}

#[test]
fn a_proxy_that_was_left_behind_goes_on_where_the_others_are() {
    let mut farm = Farm::new();
    farm.pass(5);
    let peer = config().peers[0].clone();
    let early = farm.proxies[0].leave_behind(&peer, "us").unwrap_err();
    assert!(early.to_string().contains("answers"), "{early}");
    let dead = dead(&mut farm);
    farm.fail(0, 'a');
    farm.pass(60);
    assert_eq!(farm.unsteady(0), ["suspect ba", "suspect ca"]);
    assert_eq!(farm.proxies[0].leave_behind(&peer, "us"), Ok(true));
    assert_eq!(farm.proxies[0].leave_behind(&peer, "us"), Ok(false));
    farm.restart(0);
    farm.fail(0, 'a');
    farm.pass(30);
    assert_eq!(farm.unsteady(0), ["away ba", "away ca"]);
    farm.pass(LIFETIME_S + 60);
    assert!(!has(&farm.proxies[0], 'a'));

    // It has nothing of that, and is not gone by before it has joined again.
    farm.proxies[1] = dead;
    farm.restart(1);
    farm.is_heard[0] = true;
    let theirs = farm.proxies[1].membership().clone();
    assert!(farm.proxies[0].is_left_behind(&theirs));
    let view = farm.view_of(0);
    farm.proxies[1].set_peer(0, view);
    assert!(farm.proxies[1].learn_memberships());
    farm.proxies[1].join_anew(farm.now_ms);
    farm.proxies[1].tick(farm.now_ms);
    assert_eq!(served_from(&farm.proxies[1]), served_from(&farm.proxies[0]));
    let theirs = farm.proxies[1].membership().clone();
    assert!(!farm.proxies[0].is_left_behind(&theirs));
    farm.proxies[0].has_joined(0);
    assert!(farm.proxies[0].gone_peers().is_empty());
    assert_eq!(farm.proxies[0].peers().len(), 1);
}

/// Whoever hears of it at once was there; whoever hears of it later was perhaps not.
#[test]
fn only_a_proxy_that_was_out_of_reach_doubts_what_it_knows() {
    let mut farm = Farm::new();
    farm.pass(5);
    let later = Membership {
        number: 1,
        by: "other".to_owned(),
    };
    assert!(!farm.proxies[0].learn_membership(0, &later));
    assert_eq!(*farm.proxies[0].membership(), later);
    let next = Membership {
        number: 2,
        ..later.clone()
    };
    farm.proxies[0].set_peer(0, None);
    assert!(farm.proxies[0].learn_membership(0, &next));
    // A number that no farm can have reached would leave no room for the next one.
    for number in [(1 << 48) - 1, 1 << 48, u64::MAX] {
        let never = Membership {
            number,
            ..later.clone()
        };
        assert!(!farm.proxies[0].learn_membership(0, &never));
        assert_eq!(*farm.proxies[0].membership(), next);
    }
}

#[test]
fn a_peer_that_is_taken_out_of_the_main_file_is_left_behind() {
    let mut farm = Farm::new();
    farm.pass(5);
    let alone = Config {
        peers: Vec::new(),
        ..config()
    };
    assert!(
        farm.proxies[0].take_peers_out(&[], "us").is_err(),
        "it answers"
    );
    dead(&mut farm);
    assert_eq!(farm.proxies[0].take_peers_out(&[], "us"), Ok(()));
    farm.proxies[0].set_config(alone.clone());
    assert_eq!(farm.proxies[0].membership().number, 1);
    // So it is by a restart with another main file.
    let memory = farm.proxies[1].memory();
    let resumed = PoolState::resume(alone, memory, farm.now_ms).unwrap();
    assert_eq!(resumed.membership().number, 1);
}

/// Forgotten, it could not be gone on at when the others have: the slot would be refused for good.
#[test]
fn a_backend_is_not_forgotten_while_another_proxy_may_stand_at_it() {
    let mut farm = Farm::new();
    let mut drained = map(1, "abc");
    drained.backends[2].state = BackendState::Drain;
    let mut pool_state = PoolState::new(config(), drained, START_MS).unwrap();
    answer(&mut pool_state, START_MS);
    farm.proxies[0] = pool_state;
    let c = backend_id('c');
    farm.accept(0, 2, "ab");
    let pool_state = &mut farm.proxies[0];
    // The other one says nothing.
    pool_state.tick(START_MS + 1_000);
    assert!(pool_state.member(c).is_some());
    // It has slots there.
    let view = farm.view_of(1).unwrap();
    let is_there = |slot: &SlotState| slot.first == c;
    assert!(view.slots.iter().any(is_there));
    let pool_state = &mut farm.proxies[0];
    pool_state.set_peer(0, Some(view.clone()));
    pool_state.tick(START_MS + 2_000);
    assert!(pool_state.member(c).is_some());
    // It has left it.
    let slots = pool_state.slots().to_vec();
    pool_state.set_peer(0, Some(PeerView { slots, ..view }));
    pool_state.tick(START_MS + 3_000);
    assert!(pool_state.member(c).is_none());
}
