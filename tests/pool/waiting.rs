//! Requests wait for a backend that is down, or for another to stand in for it, instead of failing.

use std::time::Duration;

use crate::support::client::{Client, acquire, get, put, status};
use crate::support::metrics::Scrape;
use crate::support::scene::{Farm, Map, Proxy, Server, assert_only_lost, backend};
use crate::support::sessions::owned_by;
use crate::support::system::wait_up_to;

const PATIENCE: Duration = Duration::from_secs(30);

/// What is down is found to be so at once.
const WATCHFUL: &str = "health: {interval: 100ms, timeout: 1s, fall: 2, rise: 1}";

fn held(proxy: &Proxy, result: &str) -> f64 {
    let series = format!("staterouter_held_requests_total{{result=\"{result}\"}}");
    Scrape::of(proxy.admin).value(&series)
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let seen = wait_up_to(PATIENCE, || is_so().then_some(()));
    assert!(seen.is_some(), "{what}");
}

fn wait_until_down(proxy: &Proxy, id: u8) {
    proxy.wait("it is down", |status| {
        backend(status, id)["verdict"] == "down"
    });
}

#[test]
fn requests_wait_for_a_backend_that_restarts() {
    let mut server = Server::start();
    let times = "timeouts: {answer: 1m}\nhandover: {settle: 5m, hold: 1m}";
    let proxy = Proxy::start(&Map::of(&[&server]), &format!("{WATCHFUL}\n{times}"));
    server.kill();
    let ids = owned_by(0, 1, 7, 3);
    let requests = [put(&ids[0], 0, b"first"), get(&ids[1]), acquire(&ids[2])];
    let mut clients = requests.each_ref().map(|request| {
        let mut client = Client::connect(proxy.address);
        client.send(request);
        client
    });
    let waiting = || Scrape::of(proxy.admin).value("staterouter_waiting_requests");
    wait_for("all wait", || waiting() == 3.0);
    wait_until_down(&proxy, 1);
    assert_eq!(waiting(), 3.0);

    server.restart();
    for (client, expected) in clients.iter_mut().zip(["200", "404", "404"]) {
        assert_eq!(status(&client.answer_to(false)), expected);
    }
    wait_for("all are counted", || held(&proxy, "answered") == 3.0);
    assert_eq!((held(&proxy, "failed"), waiting()), (0.0, 0.0));
    assert_eq!(
        Scrape::of(proxy.admin).sum("staterouter_failed_requests_total"),
        0.0
    );
    assert_eq!(status(&clients[0].ask(&get(&ids[0]))), "200");
    proxy.wait_for_log("requests for state-1 had to wait: 3 were answered after a pause of up to");
}

#[test]
fn who_leaves_waits_no_more_and_what_was_to_be_stored_is() {
    let mut server = Server::start();
    let times = "timeouts: {answer: 1m}\nhandover: {settle: 5m, hold: 1m}";
    let proxy = Proxy::start(&Map::of(&[&server]), &format!("{WATCHFUL}\n{times}"));
    server.kill();
    let ids = owned_by(0, 1, 7, 4);
    let requests = [get(&ids[0]), acquire(&ids[1]), put(&ids[2], 0, b"last")];
    let clients = requests.each_ref().map(|request| {
        let mut client = Client::connect(proxy.address);
        client.send(request);
        client
    });
    let mut stays = Client::connect(proxy.address);
    stays.send(&get(&ids[3]));
    let waiting = || Scrape::of(proxy.admin).value("staterouter_waiting_requests");
    wait_for("all wait", || waiting() == 4.0);
    drop(clients);
    wait_for("who only reads has left", || waiting() == 2.0);
    wait_until_down(&proxy, 1);

    server.restart();
    assert_eq!(status(&stays.answer_to(false)), "404");
    wait_for("it is stored", || {
        status(&Client::connect(proxy.address).ask(&get(&ids[2]))) == "200"
    });
}

#[test]
fn a_backend_that_stays_away_is_not_waited_for() {
    let mut server = Server::start();
    let proxy = Proxy::start(
        &Map::of(&[&server]),
        &format!("{WATCHFUL}\nhandover: {{hold: 3s}}"),
    );
    let [id] = owned_by(0, 1, 7, 1).try_into().unwrap();
    server.kill();
    let fails = || {
        let mut client = Client::connect(proxy.address);
        client.send(&get(&id));
        assert_eq!(client.until_closed(), b"");
    };
    fails();
    wait_for("it has waited", || held(&proxy, "failed") == 1.0);
    wait_until_down(&proxy, 1);
    wait_for("somebody is refused at once", || {
        let before = held(&proxy, "failed");
        fails();
        held(&proxy, "failed") == before
    });
    let before = held(&proxy, "failed");
    fails();
    assert_eq!(held(&proxy, "failed"), before, "waited again");
}

#[test]
fn nobody_waits_who_is_not_to() {
    let mut server = Server::start();
    let proxy = Proxy::start(
        &Map::of(&[&server]),
        &format!("{WATCHFUL}\nhandover: {{hold: 0s}}"),
    );
    server.kill();
    let mut client = Client::connect(proxy.address);
    client.send(&put(&owned_by(0, 1, 7, 1)[0], 0, b"body"));
    assert_eq!(client.until_closed(), b"");
    let scrape = Scrape::of(proxy.admin);
    assert_eq!(scrape.sum("staterouter_held_requests_total"), 0.0);
}

/// Its answer would be due in an hour.
#[test]
fn what_is_under_way_at_a_backend_that_is_down_is_broken_off() {
    let server = Server::start();
    let times = "timeouts: {answer: 1h}\nhandover: {settle: 2h, hold: 100ms}";
    let proxy = Proxy::start(&Map::of(&[&server]), &format!("{WATCHFUL}\n{times}"));
    let [id, other] = owned_by(0, 1, 7, 2).try_into().unwrap();
    let mut client = Client::connect(proxy.address);
    assert_eq!(status(&client.ask(&put(&id, 0, b"body"))), "200");

    server.signal("STOP");
    client.send(&acquire(&id));
    let mut half_sent = Client::connect(proxy.address);
    let request = put(&other, 0, &[b'x'; 100_000]);
    half_sent.send(&request[..request.len() - 1]);
    assert_eq!(client.until_closed(), b"");
    assert_eq!(half_sent.until_closed(), b"");
    server.signal("CONT");
    proxy.wait("it is up", |status| backend(status, 1)["verdict"] == "up");
    // The lock that nobody has heard of is given back.
    wait_for("the session is free", || {
        status(&Client::connect(proxy.address).ask(&acquire(&id))) == "200"
    });
}

/// A pause of a second or two and no error page, but for those who had something under way at the
/// killed server or a lock of it.
#[test]
fn a_killed_backend_costs_a_pause_and_hardly_a_page() {
    const TIMES: &str = "
timeouts: {connect: 500ms, answer: 8s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2}
handover: {settle: 12s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover_after: 500ms}";
    /// As many as the farm has pages at a time.
    const UNDER_WAY: u64 = 16;
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    let proxies = Proxy::start_all::<2>(&map, TIMES);
    let farm = Farm::start(&[&proxies[0], &proxies[1]]);
    // A slot that has just come to rest may have had something under way elsewhere.
    farm.go_on_for(10.0);

    third.kill();
    for proxy in &proxies {
        proxy.wait_for_stage("away");
    }
    farm.go_on_for(3.0);
    for proxy in &proxies {
        proxy.wait_for_log("requests for state-3 had to wait");
    }
    let report = farm.finish();
    assert_only_lost(&report);
    assert!(report.failed_pages <= UNDER_WAY, "{report:#?}");
    let answered: f64 = proxies.iter().map(|proxy| held(proxy, "answered")).sum();
    // While all pages wait for state-3, nobody else can begin to.
    assert!(answered > 0.0, "nobody waited: {report:#?}");
}
