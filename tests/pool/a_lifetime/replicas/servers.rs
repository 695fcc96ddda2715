//! Servers and proxies that die, stand still or are cut off, one after the other.

use super::{
    Farm, PATIENCE, Proxy, SLOTS, Server, TIMES, UNDER_WAY, Value, assert_nobody_lost_anything,
    has_finding, kept_twice, number, wait, wait_until_elsewhere, wait_until_whole, with_shim,
};
use crate::support::run;
use crate::support::scene::assert_no_wrong_answer;
use crate::support::system::wait_up_to;

#[test]
#[ignore = "takes a quarter of an hour, most of it waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn each_of_three_servers_dies_in_turn_under_two_proxies() {
    let mut servers = [(); 3].map(|()| Server::start());
    let map = kept_twice(&servers.each_ref());
    // A server on a busy machine may execute late what it has got.
    let times = TIMES.replace("takeover: 5s", "takeover: 20s");
    let [one, other] = Proxy::start_all(&map, &times);
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
    assert_nobody_lost_anything("each in turn", farm, 3 * UNDER_WAY);
}

#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_stands_still_and_goes_on_costs_nothing() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    // It stands still for less than that: docs/replicas.md 7, 12.
    let times = TIMES.replace("takeover: 5s", "takeover: 50s");
    let proxy = Proxy::start(&map, &times);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    second.signal("STOP");
    wait_until_elsewhere(&[&proxy], 2);
    farm.go_on_for(30.0);
    second.signal("CONT");
    wait_until_whole(&[&proxy]);
    farm.go_on_for(3.0);
    assert_nobody_lost_anything("stopped", farm, UNDER_WAY);
}

#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_whose_network_swallows_everything_costs_nothing() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let mut map = kept_twice(&[&first, &second, &third]);
    let shim = with_shim(&mut map, &second, 2);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    shim.swallow();
    wait_until_elsewhere(&[&proxy], 2);
    farm.go_on_for(30.0);
    shim.mend();
    wait_until_whole(&[&proxy]);
    farm.go_on_for(3.0);
    assert_nobody_lost_anything("cut off", farm, UNDER_WAY);
}

/// What the status says of copies throughout: the one server that is left has none, then the other
/// fills, then nothing would be lost.
#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn in_a_pool_of_two_each_dies_once_the_other_has_all_copies_again() {
    let [mut first, mut second] = [(); 2].map(|()| Server::start());
    let map = kept_twice(&[&first, &second]);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    first.kill();
    wait_until_elsewhere(&[&proxy], 1);
    farm.go_on_for(8.0);
    let alone = proxy.status();
    assert_eq!(alone["replication"]["slots"]["none"], SLOTS, "{alone:#}");
    assert_eq!(alone["replication"]["at_risk_backend"], "state-2");
    assert!(number(&alone["replication"]["at_risk_sessions"]) > 0);
    assert!(has_finding(&alone, "sessions_unprotected"), "{alone:#}");
    first.restart();
    let is_full = |status: &Value| status["replication"]["slots"]["full"] == SLOTS;
    // Its own slots come home meanwhile.
    let filling = wait(&[&proxy], "the other fills", |status| {
        status["replication"]["slots"]["filling"] != 0
    });
    assert!(has_finding(&filling, "sessions_unprotected"), "{filling:#}");
    assert!(number(&filling["replication"]["full_ms"]) > number(&filling["now_ms"]));
    let full = wait(&[&proxy], "the other is full", is_full);
    assert_eq!(full["replication"]["at_risk_sessions"], 0);
    assert!(!has_finding(&full, "sessions_unprotected"), "{full:#}");
    second.kill();
    wait_until_elsewhere(&[&proxy], 2);
    farm.go_on_for(5.0);
    second.restart();
    wait(&[&proxy], "the other is full again", is_full);
    farm.go_on_for(3.0);
    assert_nobody_lost_anything("pool of two", farm, 2 * UNDER_WAY);
}

/// The proxy is started again at once, as its service does.
#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_proxy_and_a_server_that_die_in_the_same_second_cost_nothing() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let [one, mut other] = Proxy::start_all(&map, TIMES);
    wait_until_whole(&[&one, &other]);
    let farm = Farm::start(&[&one, &other]);
    other.kill();
    third.kill();
    other.restart();
    wait_until_elsewhere(&[&one, &other], 3);
    farm.go_on_for(5.0);
    third.restart();
    wait_until_whole(&[&one, &other]);
    farm.go_on_for(3.0);
    // Pages that met the dead proxy failed, how many is the balancer's business.
    let report = farm.finish();
    eprintln!("{} of {} pages failed", report.failed_pages, report.pages);
    assert_no_wrong_answer(&report);
}

#[test]
#[ignore = "takes four minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_with_a_proxy_that_is_gone_costs_nothing() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let [one, mut gone] = Proxy::start_all(&map, TIMES);
    // The balancer sends nobody to the proxy that dies.
    wait_until_whole(&[&one, &gone]);
    let farm = Farm::start(&[&one]);
    gone.kill();
    let admins = [gone.admin, one.admin].map(|admin| admin.to_string());
    third.kill();
    let args = ["peer", &admins[0], "gone", "--admin", &admins[1], "--yes"];
    // It is believed to be gone once it has been silent for a while.
    let ordered = wait_up_to(PATIENCE, || (run(&args).0 == Some(0)).then_some(()));
    assert!(ordered.is_some(), "{:?}", run(&args));
    wait_until_elsewhere(&[&one], 3);
    farm.go_on_for(5.0);
    // Whoever has waited for longer than pages wait has failed: nobody goes on before the order.
    let report = farm.finish();
    eprintln!("{} of {} pages failed", report.failed_pages, report.pages);
    assert_no_wrong_answer(&report);
}
