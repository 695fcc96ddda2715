//! What users do with their sessions while a server dies: they only read, only keep alive, abandon,
//! change the timeout, store a megabyte.

use std::thread;

use super::{
    Farm, Proxy, Server, TIMES, UNDER_WAY, assert_nobody_lost_anything, kept_twice,
    wait_until_elsewhere, wait_until_whole,
};
use crate::support::client::{Client, acquire, body, get, status, target};
use crate::support::sessions::owned_by;
use staterouter::farm::{FarmOptions, PageMix};

const NOTHING: PageMix = PageMix {
    change: 0,
    keep: 0,
    read: 0,
    touch: 0,
    abandon: 0,
    cookieless_return_percent: 50,
};

fn dies_under(what: &str, options: &FarmOptions) {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::with(FarmOptions {
        targets: vec![proxy.address],
        ..options.clone()
    });
    // Until copies that nobody writes live by keep-alives alone.
    farm.go_on(options.pages_per_s.unwrap_or(1.0) as u64 * 90);
    third.kill();
    wait_until_elsewhere(&[&proxy], 3);
    farm.go_on(options.pages_per_s.unwrap_or(1.0) as u64 * 20);
    assert!(
        !proxy.logged().contains("has lost its memory"),
        "{}",
        proxy.logged()
    );
    assert_nobody_lost_anything(what, farm, UNDER_WAY);
}

#[test]
#[ignore = "takes four minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_server_that_dies_costs_nothing_whatever_users_do() {
    let of = |mix, pages_per_s| FarmOptions {
        mix,
        pages_per_s: Some(pages_per_s),
        ..Farm::options(&[])
    };
    let large = FarmOptions {
        body: "1048576".parse().unwrap(),
        sessions: 20,
        ..of(PageMix::default(), 5.0)
    };
    let all = [
        ("only read", of(PageMix { read: 1, ..NOTHING }, 30.0)),
        (
            "only kept alive",
            of(
                PageMix {
                    touch: 1,
                    ..NOTHING
                },
                30.0,
            ),
        ),
        (
            "abandoned",
            of(
                PageMix {
                    change: 50,
                    abandon: 50,
                    ..NOTHING
                },
                30.0,
            ),
        ),
        ("a megabyte each", large),
    ];
    thread::scope(|scope| {
        for (what, options) in &all {
            scope.spawn(move || dies_under(what, options));
        }
    });
}

/// The copy has the timeout of its session, however often that changes.
#[test]
#[ignore = "takes two minutes, most of them waiting for sessions to expire: CONTRIBUTING.md has the command"]
fn a_session_whose_timeout_changes_lives_on_with_it() {
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = kept_twice(&[&first, &second, &third]);
    let proxy = Proxy::start(&map, TIMES);
    wait_until_whole(&[&proxy]);
    let farm = Farm::start(&[&proxy]);
    let ids = owned_by(2, 3, 90, 2);
    let mut client = Client::connect(proxy.address);
    let put = |id: &str, cookie: u32, minutes: u32, body: &str| {
        let (target, length) = (target(id), body.len());
        format!(
            "PUT {target} HTTP/1.1\r\nHost: localhost\r\nTimeout:{minutes}\r\n\
             Content-Length:{length}\r\nExtraFlags:0\r\nLockCookie:{cookie}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    for (id, timeouts) in ids.iter().zip([[1, 20, 2], [20, 1, 5]]) {
        assert_eq!(status(&client.ask(&put(id, 0, 3, "first"))), "200");
        for minutes in timeouts {
            let locked = client.ask(&acquire(id));
            let text = String::from_utf8_lossy(&locked).into_owned();
            let mut lines = text.lines();
            let cookie = lines.find_map(|line| line.strip_prefix("LockCookie: "));
            let cookie = cookie.unwrap().parse().unwrap();
            let stored = put(id, cookie, minutes, &format!("for {minutes} minutes"));
            assert_eq!(status(&client.ask(&stored)), "200");
        }
    }
    third.kill();
    wait_until_elsewhere(&[&proxy], 3);
    for (id, minutes) in ids.iter().zip([2, 5]) {
        let answer = client.ask(&get(id));
        assert_eq!(body(&answer), format!("for {minutes} minutes").as_bytes());
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains(&format!("Timeout: {minutes}\r\n")), "{text}");
    }
    assert_nobody_lost_anything("timeouts", farm, UNDER_WAY);
}
