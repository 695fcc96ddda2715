//! Servers that are killed in the middle of a handover, in each of its stages.

use std::thread;

use super::{
    Farm, Map, Proxy, SLOTS, Server, TIMES, UNDER_WAY, Value, assert_nobody_lost_anything, backend,
    kept_twice, wait, wait_until_whole,
};
use staterouter::farm::FarmOptions;

/// So few that several pools fit on one machine.
const PAGES_PER_S: f64 = 15.0;

/// Three at the same time, each in a pool of its own: the stage and who dies in it.
fn each_dies(what: &str, change: fn(&mut Map, &Server), cases: &[(&str, u8)]) {
    for cases in cases.chunks(3) {
        thread::scope(|scope| {
            for (stage, id) in cases {
                scope.spawn(move || dies_in_a_handover(what, change, stage, *id));
            }
        });
    }
}

/// Each of these servers in each stage.
fn each_in_each_stage<const N: usize>(ids: [u8; N]) -> Vec<(&'static str, u8)> {
    let stages = ["settle", "move1", "move2"].into_iter();
    stages.flat_map(|stage| ids.map(|id| (stage, id))).collect()
}

fn dies_in_a_handover(what: &str, change: fn(&mut Map, &Server), stage: &str, id: u8) {
    let mut servers = [(); 4].map(|()| Server::start());
    let [first, second, third, fourth] = &servers;
    let map = kept_twice(&[first, second, third]);
    // A server on a busy machine may execute late what it has got.
    let times = TIMES.replace("takeover: 5s", "takeover: 20s");
    let proxy = Proxy::start(&map, &times);
    wait_until_whole(&[&proxy]);
    let farm = Farm::with(FarmOptions {
        pages_per_s: Some(PAGES_PER_S),
        ..Farm::options(&[&proxy])
    });
    proxy.change(&map.changed(|map| change(map, fourth)));
    wait(&[&proxy], stage, |status| status["slots"][stage] != 0);
    // Some have moved by then.
    farm.go_on(60);
    let victim = &mut servers[usize::from(id) - 1];
    victim.kill();
    wait(&[&proxy], "all are served", |status| {
        status["slots"]["suspect"] == 0 && backend(status, id)["verdict"] == "down"
    });
    farm.go_on(100);
    victim.restart();
    wait(&[&proxy], "all are home and kept twice", |status| {
        let backends = status["backends"].as_array().into_iter().flatten();
        let mut backends = backends.filter(|backend| backend["state"] == "active");
        let is_home = |backend: &Value| backend["slots_owned"] == backend["slots_first"];
        status["slots"]["steady"] == SLOTS
            && status["replication"]["slots"]["full"] == SLOTS
            && backends.all(is_home)
    });
    farm.go_on(60);
    assert_nobody_lost_anything(
        &format!("{what}: state-{id} dies in {stage}"),
        farm,
        UNDER_WAY,
    );
}

#[test]
#[ignore = "takes a quarter of an hour, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_while_one_is_added_costs_nothing() {
    let cases = each_in_each_stage([1, 2, 4]);
    each_dies("added", |map, fourth| map.add(fourth), &cases);
}

/// What the one that drains kept copies of has none until others are filled: docs/replicas.md 7, 6.
#[test]
#[ignore = "takes five minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_while_it_is_drained_costs_nothing() {
    let drain = |map: &mut Map, _: &Server| map.lines[2].state = "drain";
    let cases = [("settle", 3), ("move1", 3), ("move2", 3)];
    each_dies("drained", drain, &cases);
}

#[test]
#[ignore = "takes a quarter of an hour, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_while_weights_change_costs_nothing() {
    // The others serve slots that go to the server which keeps their copies: docs/replicas.md 7.19.
    let weigh = |map: &mut Map, _: &Server| map.lines[0].weight = 300;
    each_dies("weighed", weigh, &each_in_each_stage([1]));
}
