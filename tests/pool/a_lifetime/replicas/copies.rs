//! Copies that are lost, late or refused, and replicas that are turned on and off under load.

use std::time::Duration;

use super::{
    Farm, Proxy, Server, TIMES, UNDER_WAY, Value, assert_nobody_lost_anything, has_finding,
    kept_twice, number, wait, wait_until_elsewhere, wait_until_whole, with_shim,
};
use crate::support::scene::assert_no_wrong_answer;
use crate::support::shim::Fate;

/// Longer than the proxy waits for an answer.
const TOO_LATE: Duration = Duration::from_secs(9);

/// A write waits until its slot goes on without the copy. The slot is filled anew elsewhere, and says
/// so.
#[test]
fn copies_that_are_lost_late_or_refused_cost_no_page() {
    let [first, second, third] = [(); 3].map(|()| Server::start());
    let mut map = kept_twice(&[&first, &second, &third]);
    let shim = with_shim(&mut map, &second, 2);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    let fates = [
        Fate::Lost,
        Fate::Unanswered,
        Fate::Late(TOO_LATE),
        Fate::Refused("400 Bad Request"),
    ];
    for fate in fates {
        shim.harm_copies(fate, 1);
        shim.wait_until_harmed(1);
    }
    let behind = wait(&[&proxy], "slots are behind", |status| {
        number(&status["replication"]["slots"]["filling"]) >= fates.len() as u64
    });
    assert!(has_finding(&behind, "sessions_unprotected"), "{behind:#}");
    // Until what was late has come.
    farm.go_on_for(10.0);
    assert_nobody_lost_anything("copies harmed", farm, 0);
}

#[test]
#[ignore = "takes six minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn replicas_are_turned_on_and_off_under_load() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let on = kept_twice(&[&first, &second, &third]);
    let off = on.changed(|map| map.replicas = 0);
    let proxy = Proxy::start(&off, TIMES);
    let farm = Farm::start(&[&proxy]);
    assert_eq!(proxy.status()["replication"], Value::Null);
    let on = off.changed(|map| map.replicas = 1);
    proxy.change(&on);
    wait_until_whole(&[&proxy]);
    third.kill();
    wait_until_elsewhere(&[&proxy], 3);
    third.restart();
    wait_until_whole(&[&proxy]);
    let off = on.changed(|map| map.replicas = 0);
    proxy.change(&off);
    wait(&[&proxy], "replicas are off", |status| {
        status["replication"].is_null()
    });
    farm.go_on_for(2.0);
    proxy.change(&off.changed(|map| map.replicas = 1));
    wait_until_whole(&[&proxy]);
    farm.go_on_for(2.0);
    assert_nobody_lost_anything("on and off", farm, UNDER_WAY);
}

/// What the replica has and its place has not, or the other way round, is never served as the truth.
#[test]
#[ignore = "takes three minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_proxy_that_is_killed_between_the_two_writes_leaves_nothing_that_is_outdated() {
    let [first, mut second, third] = [(); 3].map(|()| Server::start());
    let mut map = kept_twice(&[&first, &second, &third]);
    let servers = [&first, &second, &third];
    let shims = [1, 2, 3].map(|id| with_shim(&mut map, servers[id - 1], id));
    let mut proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    for shim in shims.iter().chain(&shims) {
        shim.harm_copies(Fate::Unanswered, 1);
        shim.wait_until_harmed(1);
        proxy.kill();
        shim.mend();
        proxy.restart();
        farm.go_on_for(3.0);
    }
    second.kill();
    wait_until_elsewhere(&[&proxy], 2);
    farm.go_on_for(10.0);
    let report = farm.finish();
    eprintln!("{} of {} pages failed", report.failed_pages, report.pages);
    assert_no_wrong_answer(&report);
}

/// What was copied may be gone with its place, as without replicas; nothing else is.
#[test]
#[ignore = "takes two minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_while_copies_are_filled_costs_at_most_what_it_would_have_without() {
    let [mut first, mut second, third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    first.kill();
    wait_until_elsewhere(&[&proxy], 1);
    farm.go_on_for(3.0);
    first.restart();
    farm.go_on_for(10.0);
    second.kill();
    let served = wait(&[&proxy], "all are served again", |status| {
        status["slots"]["suspect"] == 0 && super::backend(status, 2)["slots_first"] == 0
    });
    assert!(has_finding(&served, "failed_over"), "{served:#}");
    farm.go_on_for(5.0);
    let report = farm.finish();
    eprintln!("{} of {} pages failed", report.failed_pages, report.pages);
    crate::support::scene::assert_only_lost(&report);
    assert!(report.failed_pages <= 2 * UNDER_WAY, "{report:#?}");
}
