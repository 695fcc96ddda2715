//! Sessions that live longer than a handover may last.

use std::ops::Range;

use crate::failover::{QUICK, slots};
use crate::support::admin::{self, backend, wait_for, wait_for_finding};
use crate::support::client::{Client, body, get, put, status};
use crate::support::sessions::ids;
use crate::support::{Program, ProxyFiles};

const SESSIONS: Range<usize> = 0..30;

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
    // Everything is over long before the sessions, whose timeout is 20 minutes.
    let files = ProxyFiles::new(&addresses[..2], QUICK);
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
    files.replace("map.yaml", &files.map_with_third(addresses[2]));
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
