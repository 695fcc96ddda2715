//! A proxy that is gone: the others go on without it when an operator says so, and it joins anew.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::admin::{self, wait_for};
use crate::support::run;
use crate::support::scene::{
    Farm, Map, Proxy, SHORT_TIMES, SLOTS, Server, assert_no_wrong_answer, backend,
};
use crate::support::system::wait_up_to;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// Exit code and output of `staterouter peer PEER gone`, told to the proxy at `admin`.
fn gone(peer: SocketAddr, admin: SocketAddr, more: &[&str]) -> (Option<i32>, String) {
    let [peer, admin] = [peer, admin].map(|address| address.to_string());
    let args = ["peer", &peer, "gone", "--admin", &admin];
    let (code, stdout, stderr) = run(&[&args[..], more].concat());
    (code, stdout + &stderr)
}

fn peer_of(status: &Value) -> &Value {
    &status["peers"][0]
}

#[test]
#[ignore = "takes two minutes, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn the_others_go_on_without_a_proxy_that_is_gone_and_it_goes_on_where_they_are() {
    let servers = [(); 3].map(|()| Server::start());
    let [first, second, third] = &servers;
    let map = Map::of(&[first, second]);
    // To the end of the longest session's life: nothing is left behind that would show it what was.
    let times = SHORT_TIMES.replace("max_session_timeout: 12s, ", "");
    let [stays, mut dies] = Proxy::start_all(&map, &times);
    let farm = Farm::start(&[&stays, &dies]);
    let (code, output) = gone(dies.admin, stays.admin, &["--yes"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("stop it first"), "{output}");

    // One that stands still may serve again.
    dies.signal("STOP");
    wait_for(stays.admin, "the peer is silent", |status| {
        !peer_of(status)["failure"].is_null()
    });
    let (code, output) = gone(dies.admin, stays.admin, &["--yes"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("stop it first"), "{output}");

    dies.kill();
    let command = format!("staterouter peer {} gone", dies.admin);
    stays.wait_for_log(&command);
    // It may be starting again, for a while.
    for wanted in ["may be starting again", "add --yes"] {
        stays.wait(wanted, |_| {
            gone(dies.admin, stays.admin, &[]).1.contains(wanted)
        });
    }
    assert_eq!(peer_of(&stays.status())["gone"], false);
    let (code, output) = gone(dies.admin, stays.admin, &["--yes"]);
    assert_eq!(code, Some(0), "{output}");
    let status = stays.status();
    assert_eq!(peer_of(&status)["gone"], true);
    assert!(!status["findings"].to_string().contains("proxy_silent"));

    // It would have been waited for.
    let larger = map.changed(|map| map.add(third));
    stays.change(&larger);
    let settled = stays.wait_until_settled();
    let share = backend(&settled, 3)["slots_first"].clone();
    assert_ne!(share, 0);

    // By what it has written down, nothing has changed.
    dies.save(&larger);
    dies.restart();
    let joined = dies.status();
    assert_eq!(backend(&joined, 3)["slots_first"], share);
    assert_eq!(joined["slots"]["steady"], SLOTS, "{joined:#}");
    stays.wait("it is a peer again", |status| {
        peer_of(status)["failure"].is_null() && peer_of(status)["gone"] == false
    });
    farm.go_on_for(5.0);
    assert_no_wrong_answer(&farm.finish());
}

#[test]
fn peers_come_and_go_with_the_main_file() {
    let servers = [(); 2].map(|()| Server::start());
    let map = Map::of(&servers.each_ref());
    let [stays, mut leaves] = Proxy::start_all(&map, SHORT_TIMES);
    wait_for(stays.admin, "the peer answers", |status| {
        peer_of(status)["failure"].is_null()
    });
    let main = std::fs::read_to_string(stays.config()).unwrap_or_default();
    let with_peers = |peers: &str| {
        let listed = format!("peers: [\"{}\"]", leaves.admin);
        let text = main.replace(&listed, peers);
        assert!(peers == listed || text != main);
        std::fs::write(stays.config(), text).map_err(|error| error.to_string())
    };
    assert_eq!(with_peers("peers: []"), Ok(()));
    let (code, outcome) = admin::reload(stays.admin);
    assert_eq!((code, &outcome["result"]), (422, &"refused".into()));
    assert!(
        outcome["faults"][0].to_string().contains("stop it first"),
        "{outcome}"
    );

    leaves.kill();
    // Until nothing listens there as far as it has looked.
    let outcome = wait_up_to(PATIENCE, || {
        let (code, outcome) = admin::reload(stays.admin);
        (code == 200).then_some(outcome)
    });
    let outcome = outcome.unwrap_or_default();
    assert_eq!(outcome["needs_restart"], Value::Array(Vec::new()));
    assert_eq!(stays.status()["peers"], Value::Array(Vec::new()));

    leaves.restart();
    std::fs::write(stays.config(), &main).unwrap_or_default();
    let (code, outcome) = admin::reload(stays.admin);
    assert_eq!((code, &outcome["result"]), (200, &"applied".into()));
    wait_for(stays.admin, "it is a peer again", |status| {
        peer_of(status)["failure"].is_null()
    });
}
