//! The pool changes while a farm runs on it, and nobody notices: real proxies over real state
//! servers, times as short as a session of one minute lets them be.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use serde_json::Value;

use crate::support::client::{Client, acquire, body, get, put, release, status};
use crate::support::run;
use crate::support::scene::{
    EVERYBODY_KEEPS_THE_COOKIE, Farm, Map, Proxy, SESSIONS, SHORT_TIMES, SLOTS, Server,
    assert_no_wrong_answer, backend, number,
};
use crate::support::sessions::moving;
use staterouter::farm::{FarmOptions, PageMix};

#[test]
fn a_third_backend_gets_its_share_and_the_others_let_go() {
    let servers = [(); 3].map(|()| Server::start());
    let [first, second, third] = &servers;
    let map = Map::of(&[first, second]);
    // To the end of the longest session's life.
    let times = SHORT_TIMES.replace("max_session_timeout: 12s, ", "");
    let proxy = Proxy::start(&map, &times);
    let farm = Farm::with(FarmOptions {
        mix: EVERYBODY_KEEPS_THE_COOKIE,
        ..Farm::options(&[&proxy])
    });

    let before = proxy.status();
    proxy.change(&map.changed(|map| map.add(third)));
    let begun = proxy.wait_for_stage("settle");
    let third_of_slots = SLOTS / 4..SLOTS * 5 / 12;
    let moving = number(&begun["slots"]["settle"]);
    assert!(third_of_slots.contains(&moving), "{begun:#}");
    assert_eq!(moving, number(&backend(&begun, 3)["slots_owned"]));

    let after = proxy.wait_until_settled();
    assert_eq!(backend(&after, 3)["slots_first"], moving, "{after:#}");
    for id in [1, 2] {
        let slots = |status| number(&backend(status, id)["slots_first"]);
        assert!(slots(&after) < slots(&before), "{after:#}");
    }
    farm.finish_flawless();

    drop(proxy);
    let sessions = servers.map(Server::stop_and_count_sessions);
    let all: u64 = sessions.iter().sum();
    assert!(all <= SESSIONS as u64, "something was left: {sessions:?}");
    assert!(sessions[2] * 12 >= all, "no share: {sessions:?}");
}

#[test]
fn a_drained_backend_is_empty_in_the_end_and_can_be_taken_away() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::with(FarmOptions {
        mix: EVERYBODY_KEEPS_THE_COOKIE,
        ..Farm::options(&[&proxy])
    });

    let drained = map.changed(|map| map.lines[2].state = "drain");
    proxy.change(&drained);
    let settled = proxy.wait_until_settled();
    assert_eq!(backend(&settled, 3)["slots_first"], 0, "{settled:#}");
    proxy.wait_for_log("state-3 holds no sessions any more");
    assert_eq!(third.stop_and_count_sessions(), 0);

    let removed = drained.changed(|map| map.lines.truncate(2));
    proxy.change(&removed);
    farm.go_on_for(3.0);
    farm.finish_flawless();
}

#[test]
#[ignore = "takes a minute and a half, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn a_weight_that_is_doubled_and_halved_again_in_mid_handover_goes_unnoticed() {
    let [first, second] = [(); 2].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::start(&[&proxy]);

    let doubled = map.changed(|map| map.lines[0].weight = 200);
    proxy.change(&doubled);
    proxy.wait_for_stage("move2");
    let halved = doubled.changed(|map| map.lines[0].weight = 100);
    proxy.change(&halved);
    // The way back waits until the way there has ended.
    proxy.wait_for_log("from state-1 to state-2 begins");
    proxy.wait_for_stage("move2");
    farm.go_on_for(5.0);
    farm.finish_flawless();
}

#[test]
#[ignore = "takes half a minute, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn five_changes_within_seconds_go_unnoticed() {
    let [first, second, third, fourth] = [(); 4].map(|()| Server::start());
    let mut map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::start(&[&proxy]);

    let changes: [&dyn Fn(&mut Map); 5] = [
        &|map| map.add(&third),
        &|map| map.lines[0].weight = 200,
        &|map| map.lines[1].state = "drain",
        &|map| map.lines[1].state = "active",
        &|map| map.add(&fourth),
    ];
    for change in changes {
        map = map.changed(change);
        proxy.change(&map);
        farm.go_on_for(2.0);
    }
    // What the first change began has ended when its slots go elsewhere.
    proxy.wait_for_log("from state-3 to");
    proxy.wait_for_stage("move2");
    farm.go_on_for(5.0);
    farm.finish_flawless();
}

/// No session goes into a backend that is to be left again.
#[test]
fn a_handover_to_a_backend_that_is_drained_before_anything_has_moved_is_called_off() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let times = SHORT_TIMES.replace("settle: 2s", "settle: 1m");
    let proxy = Proxy::start(&map, &times);
    let farm = Farm::start(&[&proxy]);

    let larger = map.changed(|map| map.add(&third));
    proxy.change(&larger);
    let moving = proxy.wait_for_stage("settle")["slots"]["settle"].clone();
    proxy.change(&larger.changed(|map| map.lines[2].state = "drain"));
    let status = proxy.wait("the handover is called off", |status| {
        status["slots"]["settle"] == 0
    });
    assert_eq!(status["slots"]["wait"], moving, "{status:#}");
    assert_eq!(backend(&status, 3)["slots_first"], 0, "{status:#}");
    proxy.wait_for_log("is called off");
    farm.go_on_for(3.0);
    farm.finish_flawless();
    assert_eq!(third.stop_and_count_sessions(), 0);
}

/// Each goes by what it has heard of the other, which may be ahead.
#[test]
fn two_proxies_call_a_handover_off_together() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let times = SHORT_TIMES.replace("settle: 2s", "settle: 20s");
    let proxies: [_; 2] = Proxy::start_all(&map, &times);
    let farm = Farm::start(&[&proxies[0], &proxies[1]]);

    let larger = map.changed(|map| map.add(&third));
    for proxy in &proxies {
        proxy.change(&larger);
    }
    for proxy in &proxies {
        proxy.wait_for_stage("settle");
    }
    let drained = larger.changed(|map| map.lines[2].state = "drain");
    for proxy in &proxies {
        proxy.change(&drained);
    }
    for proxy in &proxies {
        let status = proxy.wait("the handover is called off", |status| {
            status["slots"]["settle"] == 0
        });
        assert_ne!(status["slots"]["wait"], 0, "{status:#}");
        assert_eq!(backend(&status, 3)["slots_first"], 0, "{status:#}");
    }
    farm.go_on_for(3.0);
    farm.finish_flawless();
    assert_eq!(third.stop_and_count_sessions(), 0);
}

#[test]
#[ignore = "takes two minutes, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn a_handover_to_a_server_that_is_drained_turns_round() {
    turn_round(|map| [Proxy::start(map, SHORT_TIMES)]);
}

#[test]
#[ignore = "takes three minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn two_proxies_turn_a_handover_round_together() {
    let times = SHORT_TIMES.replace("max_session_timeout: 12s", "max_session_timeout: 40s");
    turn_round(|map| Proxy::start_all::<2>(map, &times));
}

/// Nothing moves into a server that is to be left, and nothing that has moved there is lost.
fn turn_round<const N: usize>(start: impl Fn(&Map) -> [Proxy; N]) {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxies = start(&map);
    let farm = Farm::with(FarmOptions {
        mix: EVERYBODY_KEEPS_THE_COOKIE,
        ..Farm::options(&proxies.each_ref())
    });

    let larger = map.changed(|map| map.add(&third));
    for proxy in &proxies {
        proxy.change(&larger);
    }
    for proxy in &proxies {
        proxy.wait_for_stage("move2");
    }
    let drained = larger.changed(|map| map.lines[2].state = "drain");
    for proxy in &proxies {
        proxy.change(&drained);
    }
    let moved = |status: &Value| number(&backend(status, 3)["moved_here"]);
    let mut moved_before = Vec::new();
    for proxy in &proxies {
        let status = proxy.wait("the handover has stopped", |status| {
            status["slots"]["turned"] != 0 && status["slots"]["move2"] == 0
        });
        assert_eq!(backend(&status, 3)["slots_owned"], 0, "{status:#}");
        proxy.wait_for_log("move to state-3 no more, as it is to be left");
        moved_before.push(moved(&status));
    }
    for (proxy, before) in proxies.iter().zip(moved_before) {
        proxy.wait("the handover goes back", |status| {
            status["slots"]["turned"] == 0 && backend(status, 3)["slots_first"] == 0
        });
        assert_eq!(moved(&proxy.status()), before, "{}", proxy.logged());
    }
    for proxy in &proxies {
        proxy.wait_until_settled();
        proxy.wait_for_log("state-3 holds no sessions any more");
    }
    farm.finish_flawless();
    assert_eq!(third.stop_and_count_sessions(), 0);
}

#[test]
#[ignore = "takes half a minute, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn two_proxies_that_load_the_map_seconds_apart_agree_about_every_session() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let times = SHORT_TIMES.replace("settle: 2s", "settle: 6s");
    let [early, late] = [(); 2].map(|()| Proxy::start(&map, &times));
    let farm = Farm::start(&[&early, &late]);

    let larger = map.changed(|map| map.add(&third));
    early.change(&larger);
    farm.go_on_for(3.0);
    late.change(&larger);
    late.wait_for_stage("move1");
    late.wait_for_stage("move2");
    farm.go_on_for(5.0);
    farm.finish_flawless();
}

#[test]
#[ignore = "takes half a minute, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn proxies_that_know_of_each_other_wait_for_the_one_that_is_late() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let [early, late] = Proxy::start_all(&map, SHORT_TIMES);
    let farm = Farm::start(&[&early, &late]);

    let larger = map.changed(|map| map.add(&third));
    early.change(&larger);
    // Twice as long as it would stay in this stage alone.
    farm.go_on_for(10.0);
    assert_eq!(early.status()["slots"]["move1"], 0);
    late.wait_for_log("peer has version 2");
    late.change(&larger);
    for proxy in [&early, &late] {
        proxy.wait_for_stage("move2");
    }
    farm.go_on_for(5.0);
    farm.finish_flawless();
}

#[test]
fn a_proxy_killed_in_mid_handover_goes_on_with_it() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let mut proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::start(&[&proxy]);

    proxy.change(&map.changed(|map| map.add(&third)));
    let moving = number(&proxy.wait_for_stage("settle")["slots"]["settle"]);
    for stage in ["move1", "move2"] {
        proxy.wait_for_stage(stage);
        farm.go_on_for(1.0);
        proxy.kill();
        farm.wait_for_failures();
        proxy.restart();
        let status = proxy.status();
        assert_eq!(status["slots"]["settle"], 0, "{status:#}");
        assert_eq!(
            number(&status["slots"]["steady"]),
            SLOTS - moving,
            "{status:#}"
        );
        farm.forget_failures();
        farm.go_on_for(1.0);
    }
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0);
    assert_no_wrong_answer(&farm.finish());
}

#[test]
fn a_faulty_map_changes_nothing_and_says_where_its_faults_are() {
    let [first, second] = [(); 2].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::start(&[&proxy]);

    proxy.save_text("version: 2\nbackends:\n  - {name: state-1, id: 1, adress: \"10.0.0.1:1\"}\n");
    let backend_id = "map.yaml:3:";
    let status = proxy.wait("the map is refused", |status| {
        status["last_reload"]["result"] == "refused"
    });
    let faults = status["last_reload"]["faults"].to_string();
    assert!(faults.contains(backend_id), "{faults}");
    assert_eq!(status["map_version"], 1);
    assert_eq!(status["slots"]["steady"], SLOTS);
    proxy.wait_for_log(backend_id);
    let config = proxy.config();
    let (exit, stdout, stderr) = run(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(exit, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains(backend_id), "{stdout}");

    farm.go_on_for(2.0);
    proxy.change(&map.changed(|_| ()));
    farm.finish_flawless();
}

#[test]
fn a_holder_whose_lock_was_broken_writes_nothing_after_the_session_has_moved() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let id = &moving(2, 1)[0];
    let [mut slow, mut next] = [(); 2].map(|()| Client::connect(proxy.address));
    assert_eq!(status(&slow.ask(&put(id, 0, b"first"))), "200");
    let slow_lock = lock(&slow.ask(&acquire(id)));

    proxy.change(&map.changed(|map| map.add(&third)));
    proxy.wait_for_stage("move1");
    let refused = next.ask(&acquire(id));
    assert_eq!((status(&refused), lock(&refused)), ("423", slow_lock));
    assert_eq!(status(&next.ask(&release(id, slow_lock))), "200");
    let moved = next.ask(&acquire(id));
    assert_eq!((status(&moved), body(&moved)), ("200", &b"first"[..]));
    let next_lock = lock(&moved);
    assert_ne!(next_lock, slow_lock);
    let mut direct = Client::connect(third.address);
    assert_eq!(status(&direct.ask(&get(id))), "423");

    assert_eq!(status(&slow.ask(&put(id, slow_lock, b"outdated"))), "423");
    assert_eq!(status(&next.ask(&put(id, next_lock, b"second"))), "200");
    assert_eq!(body(&direct.ask(&get(id))), b"second");
    let read = slow.ask(&get(id));
    assert_eq!((status(&read), body(&read)), ("200", &b"second"[..]));
}

#[test]
fn session_start_runs_once_for_every_session_that_begins_while_slots_move() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let farm = Farm::with(FarmOptions {
        mix: PageMix {
            abandon: 60,
            cookieless_return_percent: 10,
            ..PageMix::default()
        },
        ..Farm::options(&[&proxy])
    });
    proxy.change(&map.changed(|map| map.add(&third)));
    for stage in ["settle", "move1", "move2"] {
        proxy.wait_for_stage(stage);
        farm.go_on_for(1.0);
    }
    farm.go_on_for(5.0);
    let report = farm.finish_flawless();
    assert!(report.new_sessions > 5 * SESSIONS as u64, "{report:#?}");
}

fn lock(answer: &[u8]) -> u32 {
    let head = String::from_utf8_lossy(answer);
    let mut lines = head.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("LockCookie: "));
    cookie.unwrap().parse().unwrap()
}
