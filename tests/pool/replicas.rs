//! Every session on two state servers: one dies, and nobody loses a session. Real processes, real
//! signals, sessions of a minute, which is how long copies take to be full.
#![expect(
    clippy::panic,
    reason = "a pool that never gets where it should must fail the test"
)]

use std::time::Duration;

use serde_json::Value;

use crate::support::scene::{
    Farm, Map, Proxy, SLOTS, Server, assert_no_wrong_answer, backend, number,
};
use crate::support::system::wait_up_to;

/// Until the copies are full, a failed server has come home, and the copies are full again.
const PATIENCE: Duration = Duration::from_secs(400);

/// A request may wait as long as the copies take to stand in.
const TIMES: &str = "
timeouts: {connect: 500ms, answer: 8s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 12s, session_timeout: 1m, max_session_timeout: 1m, takeover: 5s, failover_after: 1s}";

fn kept_twice(servers: &[&Server]) -> Map {
    let mut map = Map::of(servers);
    map.replicas = 1;
    map
}

fn wait(proxies: &[&Proxy], what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = None;
    for proxy in proxies {
        let found = wait_up_to(PATIENCE, || {
            let status = proxy.status();
            wanted(&status).then_some(status)
        });
        let found =
            found.unwrap_or_else(|| panic!("{what}: {:#}\n{}", proxy.status(), proxy.logged()));
        seen = Some(found);
    }
    seen.unwrap_or_default()
}

/// Waits until one failure would cost nothing, with all slots where the map wants them.
fn wait_until_whole(proxies: &[&Proxy]) -> Value {
    wait(proxies, "every session is kept twice", |status| {
        let is_home = |backend: &Value| {
            backend["slots_owned"] == backend["slots_first"] && backend["slots_unprotected"] == 0
        };
        let mut backends = status["backends"].as_array().into_iter().flatten();
        status["replication"]["slots"]["full"] == SLOTS
            && status["slots"]["steady"] == SLOTS
            && backends.all(is_home)
    })
}

/// Waits until no slot is at this backend or refused.
fn wait_until_elsewhere(proxies: &[&Proxy], id: u8) {
    wait(proxies, "its sessions go on elsewhere", |status| {
        backend(status, id)["slots_first"] == 0 && status["slots"]["suspect"] == 0
    });
}

fn has_finding(status: &Value, code: &str) -> bool {
    let mut findings = status["findings"].as_array().into_iter().flatten();
    findings.any(|finding| finding["code"] == code)
}

/// Nothing is lost or stale, no session begins twice or without a start, and the only pages that
/// failed were under way at a server when it died.
#[track_caller]
fn assert_nobody_lost_anything(farm: Farm, deaths: u64) {
    let in_flight = Farm::options(&[]).clients as u64 * deaths;
    let report = farm.finish();
    assert_no_wrong_answer(&report);
    assert!(report.failed_pages <= in_flight, "{report:#?}");
    // The first of a session's pages may be among those that failed.
    assert!(report.session_starts <= report.new_sessions, "{report:#?}");
    assert!(
        report.new_sessions - report.session_starts <= report.failed_pages,
        "{report:#?}"
    );
}

#[test]
fn a_server_that_dies_costs_a_pause_and_no_session() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    let farm = Farm::start(&[&proxy]);
    let filling = wait(&[&proxy], "the copies are being filled", |status| {
        status["replication"]["slots"]["filling"] == SLOTS
            && has_finding(status, "sessions_unprotected")
    });
    assert!(number(&filling["replication"]["at_risk_sessions"]) > 0);
    let whole = wait_until_whole(&[&proxy]);
    assert_eq!(whole["replication"]["at_risk_backend"], Value::Null);
    assert!(!has_finding(&whole, "sessions_unprotected"), "{whole:#}");
    assert!(number(&backend(&whole, 3)["slots_as_replica"]["full"]) > 0);

    third.kill();
    wait_until_elsewhere(&[&proxy], 3);
    proxy.wait_for_log("state-3 has failed: the sessions of");
    let alone = wait(
        &[&proxy],
        "status says what a failure would cost",
        |status| has_finding(status, "sessions_unprotected"),
    );
    assert_ne!(alone["replication"]["slots"]["full"], SLOTS);
    farm.go_on_for(5.0);
    assert_nobody_lost_anything(farm, 1);
}

#[test]
fn a_server_that_restarts_empty_before_anybody_notices_costs_nothing() {
    let [mut first, second, third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    // So slow that nobody notices.
    let times = TIMES.replace("fall: 2", "fall: 20");
    let proxy = Proxy::start(&map, &times);
    let farm = Farm::start(&[&proxy]);
    wait_until_whole(&[&proxy]);
    first.kill();
    first.restart();
    // Every user comes more than once a second.
    farm.go_on_for(10.0);
    assert_eq!(proxy.status()["slots"]["steady"], SLOTS);
    assert_nobody_lost_anything(farm, 1);
}

#[test]
#[ignore = "takes a quarter of an hour, most of it waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn each_of_three_servers_dies_in_turn_under_two_proxies() {
    let mut servers = [(); 3].map(|()| Server::start());
    let map = kept_twice(&servers.each_ref());
    let [one, other] = Proxy::start_all(&map, TIMES);
    let proxies = [&one, &other];
    let farm = Farm::start(&proxies);
    for id in 1..=3_u8 {
        wait_until_whole(&proxies);
        let server = &mut servers[usize::from(id) - 1];
        server.kill();
        wait_until_elsewhere(&proxies, id);
        farm.go_on_for(5.0);
        server.restart();
    }
    wait_until_whole(&proxies);
    farm.go_on_for(5.0);
    assert_nobody_lost_anything(farm, 3);
}

#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_stands_still_and_goes_on_costs_nothing() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    let farm = Farm::start(&[&proxy]);
    wait_until_whole(&[&proxy]);
    second.signal("STOP");
    wait_until_elsewhere(&[&proxy], 2);
    farm.go_on_for(30.0);
    second.signal("CONT");
    wait_until_whole(&[&proxy]);
    farm.go_on_for(3.0);
    assert_nobody_lost_anything(farm, 1);
}
