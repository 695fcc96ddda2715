//! Every session on two state servers: one dies, and nobody loses a session. Real processes, real
//! signals, sessions of a minute.

use std::time::Duration;

use serde_json::Value;

use crate::support::scene::{
    Farm, Map, Proxy, SLOTS, Server, assert_no_wrong_answer, backend, number,
};
use crate::support::system::wait_up_to;

/// A replica fills for as long as a session lives: a minute, and the takeover.
const PATIENCE: Duration = Duration::from_secs(240);

const TIMES: &str = "
timeouts: {connect: 500ms, answer: 1s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 2s, session_timeout: 1m, max_session_timeout: 1m, takeover: 5s, failover_after: 1s, hold: 10s}";

fn kept_twice(servers: &[&Server]) -> Map {
    let mut map = Map::of(servers);
    map.replicas = 1;
    map
}

fn wait(proxy: &Proxy, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = wait_up_to(PATIENCE, || {
        let status = proxy.status();
        wanted(&status).then_some(status)
    });
    found.unwrap_or_else(|| panic!("{what}: {:#}\n{}", proxy.status(), proxy.logged()))
}

/// Waits until one failure would cost nothing, with all slots where the map wants them.
fn wait_until_whole(proxy: &Proxy) -> Value {
    wait(proxy, "every session is kept twice", |status| {
        let is_home = |backend: &Value| backend["slots_owned"] == backend["slots_first"];
        let mut backends = status["backends"].as_array().into_iter().flatten();
        status["replication"]["slots"]["full"] == SLOTS
            && status["slots"]["steady"] == SLOTS
            && backends.all(is_home)
    })
}

fn has_finding(status: &Value, code: &str) -> bool {
    let mut findings = status["findings"].as_array().into_iter().flatten();
    findings.any(|finding| finding["code"] == code)
}

#[test]
fn a_server_that_dies_and_returns_empty_costs_a_pause_and_no_session() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    let farm = Farm::start(&[&proxy]);
    let filling = wait(&proxy, "the copies are being filled", |status| {
        status["replication"]["slots"]["filling"] == SLOTS
            && has_finding(status, "sessions_unprotected")
    });
    assert!(number(&filling["replication"]["at_risk_sessions"]) > 0);
    let whole = wait_until_whole(&proxy);
    assert_eq!(whole["replication"]["at_risk_sessions"], 0, "{whole:#}");
    assert!(!has_finding(&whole, "sessions_unprotected"), "{whole:#}");
    assert!(number(&backend(&whole, 3)["slots_as_replica"]["full"]) > 0);

    third.kill();
    wait(&proxy, "its sessions go on elsewhere", |status| {
        backend(status, 3)["slots_first"] == 0 && status["slots"]["suspect"] == 0
    });
    proxy.wait_for_log("go on at");
    farm.go_on_for(3.0);
    third.restart();
    wait_until_whole(&proxy);
    farm.go_on_for(3.0);
    let report = farm.finish();
    assert_no_wrong_answer(&report);
    assert_eq!(report.session_starts, report.new_sessions, "{report:#?}");
    println!("{report:#?}\n{}", proxy.logged());
}
