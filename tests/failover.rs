//! Backends that stop and go on, with one proxy and with two that have to agree.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

mod support;

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use support::admin::{backend, wait_for};
use support::client::{Client, delete, get, put, status};
use support::{Program, ProxyFiles};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Everything as quick as it may be.
const QUICK: &str = "
timeouts: {connect: 200ms, answer: 1s}
health: {interval: 100ms, timeout: 1s, fall: 2, rise: 2, flap_window: 100ms}
handover:
  settle: 1200ms
  failover_after: 1200ms
  session_timeout: 100ms
  max_session_timeout: 100ms
  takeover: 100ms";

/// Slots of both backends in this stage.
fn slots(status: &Value, stage: &str) -> u64 {
    status["slots"][stage].as_u64().unwrap()
}

fn ask(proxy: &Program, request: &[u8]) -> String {
    status(&Client::connect(proxy.address).ask(request)).to_owned()
}

#[test]
fn a_backend_that_missed_a_removal_is_told_of_it_when_it_is_back() {
    let servers = [Program::state_server(), Program::state_server()];
    let addresses = servers.each_ref().map(|server| server.address);
    let proxy = ProxyFiles::new(&addresses, QUICK).serve();
    let admin = proxy.admin();
    assert_eq!(ask(&proxy, &put(ID, 0, b"session")), "200");
    let has_it =
        |server: &&Program| status(&Client::connect(server.address).ask(&get(ID))) == "200";
    let home = servers.iter().find(has_it).unwrap();

    home.signal("STOP");
    wait_for(admin, "the other stands in", |status| {
        slots(status, "away") > 0
    });
    assert_eq!(ask(&proxy, &get(ID)), "404");
    assert_eq!(ask(&proxy, &delete(ID, 0)), "404");
    wait_for(admin, "a removal is owed", |status| {
        let backends = status["backends"].as_array().unwrap();
        backends.iter().any(|backend| backend["owed_removals"] == 1)
    });

    home.signal("CONT");
    wait_for(admin, "every slot is home again", |status| {
        slots(status, "steady") == 16_384
            && (1..=2).all(|number| {
                let backend = backend(status, &format!("state-{number}"));
                backend["owed_removals"] == 0 && backend["slots_first"] == backend["slots_owned"]
            })
    });
    assert!(!has_it(&home));
    let log = proxy.stop();
    assert!(
        log.contains("was told of the removals that it missed"),
        "{log}"
    );
    assert!(!log.contains(ID), "{log}");
}

/// Two proxies over `backends` that know each other.
fn two_proxies(backends: &[SocketAddr]) -> [Program; 2] {
    // The ports are free a moment later: nobody else on this machine is given one of them so soon.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let admins = ports.each_ref().map(|port| port.local_addr().unwrap());
    drop(ports);
    [(admins[0], admins[1]), (admins[1], admins[0])].map(|(own, other)| {
        // What a peer said last counts for 3 s.
        let quick = QUICK.replace("settle: 1200ms", "settle: 4200ms");
        let extra = format!("{quick}\nadmin: {{listen: \"{own}\"}}\npeers: [\"{other}\"]");
        ProxyFiles::new(backends, &extra).serve()
    })
}

#[test]
fn proxies_leave_a_backend_together_or_not_at_all() {
    let servers = [Program::state_server(), Program::state_server()];
    let [one, other] = two_proxies(&servers.each_ref().map(|server| server.address));
    for proxy in [&one, &other] {
        wait_for(proxy.admin(), "the peer answers", |status| {
            status["peers"][0]["map_version"] == 1
        });
    }
    let [lost, _stays] = servers;
    lost.kill();
    for proxy in [&one, &other] {
        wait_for(proxy.admin(), "both have left it", |status| {
            slots(status, "away") > 0
        });
    }
}

#[test]
fn a_proxy_whose_peer_says_nothing_refuses_and_says_so() {
    let servers = [Program::state_server(), Program::state_server()];
    let [one, other] = two_proxies(&servers.each_ref().map(|server| server.address));
    wait_for(one.admin(), "the peer answers", |status| {
        status["peers"][0]["failure"].is_null()
    });
    other.kill();
    let [lost, _stays] = servers;
    lost.kill();
    wait_for(one.admin(), "its sessions are refused", |status| {
        slots(status, "suspect") > 0 && !status["peers"][0]["failure"].is_null()
    });
    one.wait_for_log(|line| line.contains("peer does not answer"));
    // Long after it would have left alone.
    let since = |status: &Value| status["now_ms"].as_u64().unwrap();
    let suspect = support::admin::status(one.admin());
    let later = wait_for(one.admin(), "time passes", |status| {
        since(status) > since(&suspect) + 2_000
    });
    assert_eq!(slots(&later, "away"), 0);
}
