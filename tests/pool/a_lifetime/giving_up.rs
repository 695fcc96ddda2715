//! A backend is given up while a farm runs on two proxies: what it holds is lost, and nothing outdated
//! is ever served.

use crate::support::admin::{self, wait_for};
use crate::support::scene::{Farm, Map, Proxy, SHORT_TIMES, Server, assert_only_lost, backend};
use serde_json::Value;

/// How much later the second proxy gets a map than the first.
const LATE_S: f64 = 10.0;

/// State servers, two proxies that know each other, and the map.
fn farm_of_two() -> ([Server; 3], [Proxy; 2], Map) {
    let servers = [(); 3].map(|()| Server::start());
    let map = Map::of(&servers.each_ref());
    let proxies = Proxy::start_all(&map, SHORT_TIMES);
    for proxy in &proxies {
        proxy.wait("the peer answers", |status| {
            status["peers"][0]["failure"].is_null()
        });
    }
    (servers, proxies, map)
}

fn is_left(status: &Value) -> bool {
    let known = backend(status, 2);
    known["state"] == "off" && known["slots_first"] == 0
}

#[track_caller]
fn order(proxy: &Proxy, order: &str) {
    let (code, body) = admin::post(proxy.admin, &format!("/backends/state-2/{order}"), "");
    assert_eq!(code, 200, "{body}");
}

#[test]
#[ignore = "takes a minute and a half, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn a_backend_that_is_given_up_and_taken_back_serves_nothing_outdated() {
    let (_servers, proxies, _map) = farm_of_two();
    let farm = Farm::start(&proxies.each_ref());
    order(&proxies[0], "off");
    for proxy in &proxies {
        wait_for(proxy.admin, "both have left it", is_left);
    }
    farm.go_on_for(5.0);
    order(&proxies[1], "activate");
    farm.go_on_for(5.0);
    // What it held has to die first.
    for proxy in &proxies {
        let status = proxy.status();
        let findings = status["findings"].as_array().unwrap();
        let mut codes = findings.iter().map(|found| &found["code"]);
        assert!(codes.any(|code| code == "backend_held_back"), "{status:#}");
    }
    for proxy in &proxies {
        proxy.wait("it has its share again", |status| {
            backend(status, 2)["slots_first"] != 0
        });
    }
    farm.go_on_for(5.0);
    assert_only_lost(&farm.finish());
}

#[test]
fn a_dead_proxy_that_missed_it_serves_nothing_outdated_when_it_starts_again() {
    let (_servers, mut proxies, _map) = farm_of_two();
    let farm = Farm::start(&proxies.each_ref());
    proxies[1].kill();
    proxies[0].wait("the peer is silent", |status| {
        !status["peers"][0]["failure"].is_null()
    });
    order(&proxies[0], "off?only_here=true");
    wait_for(proxies[0].admin, "it has left it", is_left);
    // Sessions that were there begin anew.
    farm.go_on_for(5.0);
    proxies[1].restart();
    assert!(is_left(&proxies[1].status()), "before it serves anybody");
    farm.go_on_for(5.0);
    assert_only_lost(&farm.finish());
}

#[test]
fn a_map_that_the_second_proxy_gets_ten_seconds_late_serves_nothing_outdated() {
    let (_servers, proxies, map) = farm_of_two();
    let farm = Farm::start(&proxies.each_ref());
    let given_up = map.changed(|map| map.lines[1].state = "off");
    proxies[0].change(&given_up);
    // As slow as whatever copies files from machine to machine.
    farm.go_on_for(LATE_S);
    proxies[1].change(&given_up);
    for proxy in &proxies {
        wait_for(proxy.admin, "both have left it", is_left);
    }
    farm.go_on_for(5.0);
    assert_only_lost(&farm.finish());
}
