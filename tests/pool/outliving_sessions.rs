//! Sessions that live longer than a handover may last.

use std::ops::Range;

use crate::support::admin::{self, backend, wait_for, wait_for_finding};
use crate::support::client::{Client, body, get, put, status};
use crate::support::scene::number;
use crate::support::sessions::ids;
use crate::support::{Program, ProxyFiles};
use serde_json::Value;

/// Times that are over long before the sessions, whose timeout is 20 minutes.
const TOO_SHORT: &str = "
timeouts: {connect: 200ms, answer: 1s}
health: {interval: 100ms, timeout: 1s, fall: 2, rise: 2, flap_window: 100ms}
handover:
  settle: 1200ms
  failover_after: 1200ms
  session_timeout: 100ms
  max_session_timeout: 100ms
  takeover: 100ms";

const SESSIONS: Range<usize> = 0..30;

fn slots(status: &Value, stage: &str) -> u64 {
    number(&status["slots"][stage])
}

fn store_all(proxy: &Program, ids: &[String], contents: &[u8]) {
    let mut client = Client::connect(proxy.address);
    for id in ids {
        let answer = client.ask(&put(id, 0, contents));
        assert_eq!(status(&answer), "200");
    }
}

#[test]
fn a_bound_that_is_too_low_serves_nothing_outdated_and_is_a_finding() {
    let servers = [(); 3].map(|()| Program::state_server());
    let addresses = servers.each_ref().map(|server| server.address);
    let files = ProxyFiles::new(&addresses[..2], TOO_SHORT);
    let proxy = files.start();
    let admin = proxy.admin();
    let ids = &ids(31, 30)[SESSIONS];
    store_all(&proxy, ids, b"before");
    let found = wait_for_finding(admin, "sessions_outlive_handovers");
    for (field, wanted) in [
        (
            "says",
            "up to 20 min, and handover.max_session_timeout is 100 ms",
        ),
        ("action", "at least 20m"),
    ] {
        assert!(found[field].as_str().unwrap().contains(wanted), "{found}");
    }

    servers[0].signal("STOP");
    wait_for(admin, "the other stands in", |status| {
        slots(status, "away") > 0
    });
    store_all(&proxy, ids, b"after");
    servers[0].signal("CONT");
    let returned = wait_for(admin, "it serves again", |status| slots(status, "wait") > 0);

    // A whole handover takes no longer than it may.
    let third = format!(
        "  - {{name: state-3, id: 3, address: \"{}\"}}\n",
        addresses[2]
    );
    let map = files.read("map.yaml").replace("version: 1", "version: 2") + &third;
    files.replace("map.yaml", &map);
    assert_eq!(admin::reload(admin).1["map_version"], 2);
    proxy.wait_for_log(|line| line.contains("to state-3 has ended"));

    let mut client = Client::connect(proxy.address);
    let found = ids.iter().filter(|id| {
        let answer = client.ask(&get(id));
        // What nobody used in the short handover may be lost, as the finding says.
        let is_found = status(&answer) == "200";
        assert!(!is_found || body(&answer) == b"after");
        is_found
    });
    assert!(found.count() > ids.len() / 2);
    let status = admin::status(admin);
    assert_eq!(slots(&status, "wait"), slots(&returned, "wait"));
    assert_eq!(backend(&status, "state-1")["verdict"], "up");
}
