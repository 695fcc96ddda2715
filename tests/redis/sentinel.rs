//! A master with three Sentinels: it dies under a farm, and its replica takes over.

use std::time::Duration;

use crate::redis_server::{RedisServer, has_redis};
use crate::support::scene::{Farm, Map, Proxy, assert_only_lost};
use crate::support::system::wait_up_to;

const PATIENCE: Duration = Duration::from_secs(60);

const TIMES: &str = "
timeouts: {connect: 2s, answer: 10s}
health: {interval: 1s, timeout: 10s, fall: 5, rise: 1, max_rise: 1}
handover: {settle: 13s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover: off}";

#[test]
fn the_proxy_follows_the_sentinels_to_the_next_master() {
    if !has_redis() {
        return;
    }
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let port = master.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    // Sentinels end all connections of a server whose role changes.
    let says = |words: &str| {
        let info = replica.connect().expect(&["INFO", "replication"]).text();
        info.contains(words)
    };
    wait_for("the replica follows", || says("master_link_status:up"));
    let sentinels = [(); 3].map(|()| RedisServer::start_sentinel("sessions", master.port));
    let urls = sentinels
        .each_ref()
        .map(|sentinel| format!("\"{}\"", sentinel.url()));
    wait_for("the Sentinels know each other and the replica", || {
        sentinels.iter().all(|sentinel| {
            let known = sentinel.connect().expect(&["INFO", "sentinel"]).text();
            known.contains("slaves=1,sentinels=3")
        })
    });
    let mut map = Map::of(&[]);
    map.add_redis(&format!("sentinel: sessions, urls: [{}]", urls.join(", ")));
    let proxy = Proxy::start(&map, TIMES);
    let farm = Farm::start(&[&proxy]);
    farm.go_on_for(1.0);

    master.kill();
    wait_for("the replica takes over", || says("role:master"));
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0);
    // What the replica did not have yet is lost, and nothing else is wrong.
    let report = farm.finish();
    assert_only_lost(&report);
    assert!(report.violations["lost"].count <= 3, "{report:#?}");
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let came = wait_up_to(PATIENCE, || is_so().then_some(()));
    assert!(came.is_some(), "never came true: {what}");
}
