//! Every session on two state servers: one dies, and nobody loses a session. Real processes, real
//! signals, sessions of a minute, which is how long copies take to be full.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a pool that never gets where it should must fail the test and say what it saw"
)]

mod bodies;
mod copies;
mod handovers;
mod pages;
mod servers;

use std::time::Duration;

use serde_json::Value;

use crate::support::scene::{
    Farm, Map, Proxy, SLOTS, Server, assert_no_wrong_answer, backend, number,
};
use crate::support::shim::Shim;
use crate::support::system::wait_up_to;

/// Until the copies are full, a failed server has come home, and the copies are full again.
const PATIENCE: Duration = Duration::from_secs(400);

/// A request may wait as long as the copies take to stand in. Copies are full within seconds before
/// anybody has come, and from then on within the minute that a session lives.
const TIMES: &str = "
timeouts: {connect: 500ms, answer: 8s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 12s, session_timeout: 1s, max_session_timeout: 1m, takeover: 5s, failover_after: 1s}";

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

/// Pages of a farm at the same time: so many may be under way where something dies.
const UNDER_WAY: u64 = 16;

/// Nothing is lost or stale, no session begins twice or without a start, and no more pages
/// failed than may: those that were under way at a server when it died. Says what was counted.
#[track_caller]
fn assert_nobody_lost_anything(what: &str, farm: Farm, may_fail: u64) {
    let report = farm.finish();
    let longest = report.operation_latency.values().map(|known| known.max_us);
    eprintln!(
        "{what}: {} pages, {} failed ({:?}), {} sessions begun, {} Session_Starts, longest request \
         {:.1} s",
        report.pages,
        report.failed_pages,
        report.failures,
        report.new_sessions,
        report.session_starts,
        longest.max().unwrap_or(0) as f64 / 1e6
    );
    assert_no_wrong_answer(&report);
    assert!(report.failed_pages <= may_fail, "{report:#?}");
    // The first of a session's pages may be among those that failed.
    assert!(report.session_starts <= report.new_sessions, "{report:#?}");
    let missed = report.new_sessions - report.session_starts;
    let known = report.violations["missed_start"].count;
    assert!(missed <= report.failed_pages + known, "{report:#?}");
}

/// A way to the server with this number, and the map that leads there.
fn with_shim(map: &mut Map, server: &Server, id: usize) -> Shim {
    let shim = Shim::to(server.address);
    map.lines[id - 1].place = format!("address: \"{}\"", shim.address);
    shim
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
    let kept = |status: &Value| {
        let backends = status["backends"].as_array().into_iter().flatten();
        let sum =
            |of: fn(&Value) -> &Value| backends.clone().map(|one| number(of(one))).sum::<u64>();
        [
            sum(|one| &one["copies"]["sessions"]),
            sum(|one| &one["sessions"]),
        ]
    };
    wait(&[&proxy], "each session has a copy", |status| {
        let [copies, sessions] = kept(status);
        copies.abs_diff(sessions) <= 1
    });
    let of_third = &backend(&whole, 3)["copies"];
    assert_eq!(of_third["filled_percent"], 100.0);
    assert_eq!(of_third["full_ms"], Value::Null);
    let third_fills = &backend(&filling, 3)["copies"];
    assert!(
        third_fills["filled_percent"].as_f64() < Some(100.0),
        "{filling:#}"
    );
    assert!(
        number(&third_fills["full_ms"]) > number(&filling["now_ms"]),
        "{filling:#}"
    );

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
    let told = "requests waited and were answered";
    proxy.wait_for_log(told);
    let line = proxy.logged();
    let line = line.lines().find(|line| line.contains(told)).unwrap();
    assert!(line.contains("state-3 failed: about "), "{line}");
    let shown = proxy.status()["last_failover"].clone();
    assert_eq!(shown["backend"], "state-3");
    assert_eq!(
        number(&shown["slots"]),
        number(&backend(&whole, 3)["slots_first"])
    );
    assert!(
        number(&shown["sessions"]) > 0 && number(&shown["waited"]) > 0,
        "{shown:#}"
    );
    assert_nobody_lost_anything("killed", farm, UNDER_WAY);
}

#[test]
fn a_server_that_restarts_empty_before_anybody_notices_costs_nothing() {
    let [mut first, second, third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    // So slow that nobody notices.
    let times = TIMES.replace("fall: 2", "fall: 20");
    let [one, other] = Proxy::start_all(&map, &times);
    let proxies = [&one, &other];
    wait_until_whole(&proxies);
    let farm = Farm::start(&proxies);
    first.kill();
    first.restart();
    // Every user comes more than once a second.
    farm.go_on_for(10.0);
    for proxy in proxies {
        let status = proxy.status();
        assert_eq!(status["slots"]["steady"], SLOTS);
        assert!(has_finding(&status, "sessions_restored"), "{status:#}");
    }
    assert_nobody_lost_anything("restarted", farm, UNDER_WAY);
}
