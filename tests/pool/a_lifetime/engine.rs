//! A farm is moved from state servers onto Redis and back, and nobody notices.

use staterouter::farm::FarmOptions;

use crate::redis_server::{RedisServer, has_redis};
use crate::support::scene::{
    EVERYBODY_KEEPS_THE_COOKIE, Farm, Map, Proxy, SHORT_TIMES, SLOTS, Server, backend,
};

#[test]
fn three_state_servers_move_onto_redis_and_back() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&[]);
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    // All sessions at once: a new map may do that only if it is told to.
    let times = SHORT_TIMES.replace("settle: 2s", "settle: 2s, max_moved_share: 100");
    let proxy = Proxy::start(&map, &times);
    let farm = Farm::with(FarmOptions {
        mix: EVERYBODY_KEEPS_THE_COOKIE,
        ..Farm::options(&[&proxy])
    });

    let onto = map.changed(|map| {
        map.lines.iter_mut().for_each(|line| line.state = "drain");
        map.add_redis(&format!("urls: [\"{}\"]", redis.url()));
    });
    proxy.change(&onto);
    let settled = proxy.wait_until_settled();
    let on_redis = backend(&settled, 4);
    assert_eq!(on_redis["slots_first"], SLOTS, "{settled:#}");
    assert_eq!(on_redis["address"], redis.url());
    for id in 1..=3 {
        proxy.wait_for_log(&format!("state-{id} holds no sessions any more"));
    }
    let mut asked = redis.connect();
    assert!(asked.expect(&["DBSIZE"]).number() > 0);

    let back = onto.changed(|map| {
        map.lines.iter_mut().for_each(|line| line.state = "active");
        map.lines[3].state = "drain";
    });
    proxy.change(&back);
    proxy.wait_until_settled();
    proxy.wait_for_log("state-4 holds no sessions any more");
    farm.finish_flawless();
    assert_eq!(asked.expect(&["DBSIZE"]).number(), 0);
}
