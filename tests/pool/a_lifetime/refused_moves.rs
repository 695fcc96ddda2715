//! Sessions that their new backend does not take: real proxies over real state servers with limits.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use serde_json::Value;

use crate::support::client::{Client, acquire, body, delete, put, status};
use crate::support::metrics::Scrape;
use crate::support::scene::{Map, Proxy, SHORT_TIMES, Server, number};
use crate::support::sessions::moving;

/// A user's sessions, each used again and again.
struct Users {
    client: Client,
    sessions: Vec<(String, Vec<u8>)>,
}

impl Users {
    /// Sessions with bodies of this length, all of which the second backend is to have.
    fn come(proxy: &Proxy, count: usize, bytes: usize) -> Self {
        let ids = moving(1, count).into_iter();
        let session = |(index, id)| (id, vec![b'a' + index as u8 % 26; bytes]);
        let mut users = Self {
            client: Client::connect(proxy.address),
            sessions: ids.enumerate().map(session).collect(),
        };
        for (id, body) in &users.sessions {
            assert_eq!(status(&users.client.ask(&put(id, 0, body))), "200");
        }
        users
    }

    /// One page of each: nobody is refused, nothing is lost, whatever goes on behind it.
    fn use_all(&mut self) {
        for (id, contents) in &self.sessions {
            let answer = self.client.ask(&acquire(id));
            assert_eq!((status(&answer), body(&answer)), ("200", &contents[..]));
            let stored = self.client.ask(&put(id, lock(&answer), contents));
            assert_eq!(status(&stored), "200");
        }
    }

    /// Some of them log out.
    fn leave(&mut self, keep: usize) {
        for (id, _) in self.sessions.drain(keep..) {
            let lock = lock(&self.client.ask(&acquire(&id)));
            assert_eq!(status(&self.client.ask(&delete(&id, lock))), "200");
        }
    }
}

fn lock(answer: &[u8]) -> u32 {
    let head = String::from_utf8_lossy(answer);
    let mut lines = head.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("LockCookie: "));
    cookie.unwrap().parse().unwrap()
}

fn finding(status: &Value) -> Option<&Value> {
    let mut findings = status["findings"].as_array().unwrap().iter();
    findings.find(|finding| finding["code"] == "moves_refused")
}

/// A backend joins that refuses some of the sessions it is to have, until `mend`.
fn sessions_are_kept(limit: [&'static str; 2], bytes: usize, mend: impl FnOnce(&mut Users)) {
    let old = Server::start();
    let limited = Server::start_with(&limit);
    let map = Map::of(&[&old]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let mut users = Users::come(&proxy, 30, bytes);

    proxy.change(&map.changed(|map| map.add(&limited)));
    let begun = proxy.wait_for_stage("settle");
    let end_ms = number(&begun["under_way"][0]["ends_ms"]);
    // Long after the handover would have ended.
    let late = loop {
        users.use_all();
        let status = proxy.status();
        if number(&status["now_ms"]) > end_ms + 5_000 {
            break status;
        }
    };
    let refused = finding(&late).unwrap();
    assert_eq!(refused["level"], "critical");
    let says = refused["says"].as_str().unwrap();
    assert!(says.contains("from state-1 to state-2"), "{says}");
    assert!(says.contains("400"), "{says}");
    let work = &late["under_way"][0];
    assert_eq!(work["ends_ms"], Value::Null, "{late:#}");
    assert!(number(&work["failing"]["moves"]) > 0, "{late:#}");
    proxy.wait_for_log("sessions cannot be moved from state-1 to state-2");
    let series = "staterouter_session_moves_failed_total{step=\"insert\"}";
    assert!(Scrape::of(proxy.admin).value(series) > 0.0);

    mend(&mut users);
    loop {
        users.use_all();
        let status = proxy.status();
        if status["under_way"] == Value::Array(Vec::new()) {
            assert_eq!(finding(&status), None);
            break;
        }
    }
    users.use_all();
    drop(proxy);
    assert_eq!(old.stop_and_count_sessions(), 0);
    let moved = limited.stop_and_count_sessions();
    assert_eq!(moved, users.sessions.len() as u64);
}

#[test]
#[ignore = "takes a minute, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn sessions_stay_that_a_full_backend_refuses_until_it_has_room() {
    sessions_are_kept(["--max-memory", "1MiB"], 60_000, |users| users.leave(5));
}

#[test]
#[ignore = "takes a minute, most of it waiting for sessions to expire: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn sessions_stay_that_are_too_large_for_their_new_backend_until_they_shrink() {
    sessions_are_kept(["--max-body", "100KiB"], 150_000, |users| {
        for (id, contents) in &mut users.sessions {
            contents.truncate(1_000);
            let lock = lock(&users.client.ask(&acquire(id)));
            let stored = users.client.ask(&put(id, lock, contents));
            assert_eq!(status(&stored), "200");
        }
    });
}
