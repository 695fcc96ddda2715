//! Backends that stop and go on, with one proxy and with two that have to agree; and how two begin.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::support::admin::{backend, reload, wait_for};
use crate::support::client::{Client, delete, get, put, status};
use crate::support::system::{ask_page, wait_up_to};
use crate::support::{Program, ProxyFiles};
use serde_json::Value;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything as quick as it may be.
pub(crate) const QUICK: &str = "
timeouts: {connect: 200ms, answer: 1s}
health: {interval: 100ms, timeout: 1s, fall: 2, rise: 2, flap_window: 100ms}
handover:
  settle: 1200ms
  failover_after: 1200ms
  session_timeout: 100ms
  max_session_timeout: 100ms
  takeover: 100ms";

/// Slots of both backends in this stage.
pub(crate) fn slots(status: &Value, stage: &str) -> u64 {
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
    wait_for(admin, "a delete is pending", |status| {
        let backends = status["backends"].as_array().unwrap();
        backends
            .iter()
            .any(|backend| backend["pending_deletes"] == 1)
    });

    home.signal("CONT");
    // The slots come home once a session as long as the longest seen has died.
    wait_for(admin, "the backend has been told and serves", |status| {
        let unserved = ["suspect", "away", "back"];
        unserved.iter().all(|stage| slots(status, stage) == 0)
            && (1..=2)
                .all(|number| backend(status, &format!("state-{number}"))["pending_deletes"] == 0)
    });
    assert!(!has_it(&home));
    let log = proxy.stop();
    assert!(log.contains("has got the pending deletes"), "{log}");
    assert!(!log.contains(ID), "{log}");
}

#[test]
fn a_removal_that_the_journal_cannot_forget_counts_as_told_once_it_can() {
    let servers = [Program::state_server(), Program::state_server()];
    let files = ProxyFiles::new(&servers.each_ref().map(|server| server.address), QUICK);
    let proxy = files.start();
    assert_eq!(ask(&proxy, &put(ID, 0, b"session")), "200");
    let has_it =
        |server: &&Program| status(&Client::connect(server.address).ask(&get(ID))) == "200";
    let home = servers.iter().find(has_it).unwrap();
    home.signal("STOP");
    wait_for(proxy.admin(), "the other stands in", |status| {
        slots(status, "away") > 0
    });
    assert_eq!(ask(&proxy, &delete(ID, 0)), "404");

    // Stands where the next journal is to be written.
    let in_the_way = files.path("staterouter.state.owed.new");
    std::fs::create_dir(&in_the_way).unwrap();
    home.signal("CONT");
    let failures = RefCell::new(HashSet::new());
    let log = proxy.wait_for_log(|line| {
        if line.contains("cannot write the journal of pending deletes") {
            failures.borrow_mut().insert(line.to_owned());
        }
        failures.borrow().len() == 2
    });
    let told = "has got the pending deletes";
    assert!(!log.contains(told), "{log}");
    std::fs::remove_dir(&in_the_way).unwrap();
    proxy.wait_for_log(|line| line.contains(told));
}

/// Files of two proxies over `backends` that know each other.
fn two_files(backends: &[SocketAddr], settle: &str) -> [ProxyFiles; 2] {
    // The ports are free a moment later: nobody else on this machine is given one of them so soon.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let admins = ports.each_ref().map(|port| port.local_addr().unwrap());
    drop(ports);
    [(admins[0], admins[1]), (admins[1], admins[0])].map(|(own, other)| {
        let quick = QUICK.replace("settle: 1200ms", &format!("settle: {settle}"));
        let extra = format!("{quick}\nadmin: {{listen: \"{own}\"}}\npeers: [\"{other}\"]");
        ProxyFiles::new(backends, &extra)
    })
}

/// Two proxies over `backends` that know each other, started at the same time.
fn two_proxies(backends: &[SocketAddr]) -> [Program; 2] {
    // What a peer said last counts for 3 s.
    let starting = two_files(backends, "4200ms").map(|files| thread::spawn(|| files.serve()));
    starting.map(|proxy| proxy.join().unwrap())
}

#[test]
fn two_proxies_that_remember_nothing_wait_for_each_other_and_begin() {
    let servers = [Program::state_server(), Program::state_server()];
    let proxies = two_proxies(&servers.each_ref().map(|server| server.address));
    for proxy in &proxies {
        let status = support::admin::status(proxy.admin());
        assert_eq!(status["peers"][0]["map_version"], 1, "{status:#}");
        assert_eq!(slots(&status, "steady"), 16_384);
        assert_eq!(ask(proxy, &get(ID)), "404");
    }
}

#[test]
fn a_proxy_that_remembers_nothing_begins_with_what_the_other_has_under_way() {
    let servers = [(); 3].map(|()| Program::state_server());
    let addresses = servers.each_ref().map(|server| server.address);
    let [one, other] = two_files(&addresses[..2], "1h");
    let map = one.map_with_third(addresses[2]);
    other.replace("map.yaml", &map);

    // Nobody is waited for in vain.
    let first = one.start();
    let unheard = "clients are served before every peer has said";
    first.wait_for_log(|line| line.contains(unheard));
    assert_eq!(ask(&first, &get(ID)), "404");
    one.replace("map.yaml", &map);
    assert_eq!(reload(first.admin()).1["map_version"], 2);
    let of_first = wait_for(first.admin(), "the third backend has answered", |status| {
        slots(status, "settle") > 3000
    });
    // Its peers hear of it once its workers go by it.
    let tells_peers = || ask_page(first.admin(), "/peer").contains("settle");
    assert!(wait_up_to(PATIENCE, || tells_peers().then_some(())).is_some());

    let second = other.start();
    let of_second = support::admin::status(second.admin());
    assert_eq!(of_second["slots"], of_first["slots"]);

    // Whoever remembers hears the others, too, and waits for nobody in vain: an order may have come
    // meanwhile.
    first.kill();
    second.kill();
    let again = one.start();
    let of_again = support::admin::status(again.admin());
    assert_eq!(of_again["slots"], of_first["slots"]);
    assert!(again.stop().contains(unheard));
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
