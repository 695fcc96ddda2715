//! State servers stop, die and come back while a farm runs on them: real processes, real signals.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support::client::{Client, body, get, put, status};
use crate::support::relay::Relay;
use crate::support::scene::{
    Farm, Map, Proxy, SHORT_TIMES, SLOTS, Server, assert_no_wrong_answer, assert_only_lost,
    backend, number,
};
use crate::support::sessions::owned_by;

#[test]
fn a_stopped_backend_is_stood_in_for_and_its_sessions_come_home() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let [untouched, used] = store_two(&proxy, 2);
    let farm = Farm::start(&[&proxy]);

    third.signal("STOP");
    let away = proxy.wait_for_stage("away");
    assert_eq!(away["slots"]["away"], backend(&away, 3)["slots_owned"]);
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0, "{}", proxy.logged());
    let mut client = Client::connect(proxy.address);
    assert_eq!(status(&client.ask(&get(&used))), "404");
    assert_eq!(status(&client.ask(&put(&used, 0, b"during"))), "200");

    third.signal("CONT");
    proxy.wait_for_stage("wait");
    let lost = farm.counts().violations;
    assert!(lost > 0, "nothing of the stopped backend was asked for");
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0, "{}", proxy.logged());
    assert_eq!(body(&client.ask(&get(&used))), b"during");
    assert_eq!(body(&client.ask(&get(&untouched))), b"before");
    let report = farm.finish();
    assert_only_lost(&report);
    assert_eq!(report.violations["lost"].count, lost, "{report:#?}");
}

#[test]
fn without_failover_a_stopped_backend_costs_errors_and_no_session() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    let times = SHORT_TIMES.replace("handover: {", "handover: {failover: off, ");
    let proxy = Proxy::start(&map, &times);
    let farm = Farm::start(&[&proxy]);

    third.signal("STOP");
    let down = proxy.wait("state-3 is down", |status| {
        backend(status, 3)["verdict"] == "down"
    });
    assert_eq!(down["slots"]["steady"], SLOTS, "{down:#}");
    farm.go_on_for(3.0);
    third.signal("CONT");
    proxy.wait("state-3 is up", |status| {
        backend(status, 3)["verdict"] == "up"
    });
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0, "{}", proxy.logged());
    let report = farm.finish();
    assert!(report.failed_pages > 0);
    assert_no_wrong_answer(&report);
}

#[test]
fn a_backend_that_comes_back_empty_has_lost_its_own_sessions_and_no_other() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    // It is back before another one stands in, however slowly it starts.
    let times = SHORT_TIMES.replace("failover_after: 2s", "failover_after: 1m");
    let proxy = Proxy::start(&map, &times);
    let [elsewhere, _] = store_two(&proxy, 0);
    let [gone, _] = store_two(&proxy, 2);
    let farm = Farm::start(&[&proxy]);

    third.kill();
    farm.wait_for_failures();
    third.restart();
    proxy.wait("all backends are up, all slots at home", |status| {
        backend(status, 3)["verdict"] == "up" && status["slots"]["steady"] == SLOTS
    });
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0, "{}", proxy.logged());
    let mut client = Client::connect(proxy.address);
    assert_eq!(body(&client.ask(&get(&elsewhere))), b"before");
    assert_eq!(status(&client.ask(&get(&gone))), "404");
    assert_eq!(status(&client.ask(&put(&gone, 0, b"after"))), "200");
    assert_eq!(body(&client.ask(&get(&gone))), b"after");
    let lost = farm.counts().violations;
    assert!(lost > 0, "nobody had a session there");
    farm.go_on_for(3.0);
    let report = farm.finish();
    assert_only_lost(&report);
}

#[test]
fn a_new_owner_that_dies_in_mid_handover_takes_only_what_it_had() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let [elsewhere, _] = store_two(&proxy, 0);
    let farm = Farm::start(&[&proxy]);

    proxy.change(&map.changed(|map| map.add(&third)));
    proxy.wait_for_stage("move2");
    farm.go_on_for(2.0);
    third.kill();
    let away = proxy.wait_for_stage("away");
    assert_eq!(
        number(&away["slots"]["away"]),
        number(&backend(&away, 3)["slots_owned"])
    );
    third.restart();
    proxy.wait_for_stage("wait");
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0, "{}", proxy.logged());
    let mut client = Client::connect(proxy.address);
    assert_eq!(body(&client.ask(&get(&elsewhere))), b"before");
    assert_only_lost(&farm.finish());
}

#[test]
fn a_backend_that_one_proxy_cannot_reach_and_its_peer_can_is_not_stood_in_for() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let relay = Relay::to(third.address);
    let mut map = Map::of(&[&first, &second, &third]);
    map.lines[2].place = format!("address: \"{}\"", relay.address);
    let [near, far] = Proxy::start_all(&map, SHORT_TIMES);
    let farm = Farm::start(&[&near, &far]);

    relay.cut_off(far.id());
    far.wait_for_stage("suspect");
    // Alone it would have left long ago.
    farm.go_on_for(8.0);
    let refusing = far.status();
    assert_eq!(refusing["slots"]["away"], 0, "{refusing:#}");
    assert_eq!(near.status()["slots"]["steady"], SLOTS);

    relay.mend();
    far.wait("the slots are served again", |status| {
        status["slots"]["steady"] == SLOTS
    });
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0, "{}", far.logged());
    let report = farm.finish();
    assert!(report.failed_pages > 0);
    assert_no_wrong_answer(&report);
}

#[test]
fn what_a_returned_backend_had_before_is_not_served_when_its_stand_in_dies() {
    let mut servers = [(); 3].map(|()| Server::start());
    let map = Map::of(&servers.each_ref());
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let [_, used] = store_two(&proxy, 2);
    let mut client = Client::connect(proxy.address);

    servers[2].signal("STOP");
    proxy.wait_for_stage("away");
    assert_eq!(status(&client.ask(&put(&used, 0, b"during"))), "200");
    servers[2].signal("CONT");
    proxy.wait_for_stage("wait");
    let has_it =
        |server: &&mut Server| body(&Client::connect(server.address).ask(&get(&used))) == b"during";
    let stand_in = servers.iter_mut().find(has_it).unwrap();
    stand_in.kill();
    proxy.wait_for_log("may be outdated");
    proxy.wait("the session is absent", |_| {
        let mut client = Client::connect(proxy.address);
        client.send(&get(&used));
        client.finish_sending();
        let answer = client.until_closed();
        assert!(!answer.ends_with(b"before"), "{}", proxy.logged());
        answer.starts_with(b"404")
    });
    // The returned backend still has it.
    assert_eq!(
        body(&Client::connect(servers[2].address).ask(&get(&used))),
        b"before"
    );
    proxy.wait("no slot is suspect", |status| {
        status["slots"]["suspect"] == 0
    });
}

/// Stores two sessions at the backend with this index of three.
fn store_two(proxy: &Proxy, owner: usize) -> [String; 2] {
    let ids = owned_by(owner, 3, 50 + owner as u64, 2);
    let mut client = Client::connect(proxy.address);
    for id in &ids {
        assert_eq!(status(&client.ask(&put(id, 0, b"before"))), "200");
    }
    ids.try_into().unwrap()
}
