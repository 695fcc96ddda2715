//! What a proxy finds of its web servers and their pages.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::client::{Client, acquire, get, head, put, release, status};
use crate::support::metrics::Scrape;
use crate::support::system::wait_until;
use crate::support::{Program, admin, answers, proxy, sessions};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const APP: &str = "/LM/W3SVC/1/ROOT";

/// The finding with this code, once it is there.
fn finding(proxy: &Program, code: &str) -> Value {
    let find = || {
        let status = admin::status(proxy.admin());
        let findings = status["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|one| one["code"] == code)
    };
    wait_until(code, || find().is_some());
    find().unwrap()
}

#[track_caller]
fn assert_says(finding: &Value, parts: &[&str]) {
    for part in parts {
        let says = finding["says"].as_str().unwrap();
        assert!(says.contains(part), "{part} in: {finding}");
    }
    // No finding shows a secret.
    assert!(!finding.to_string().contains(ID), "{finding}");
}

fn cookie(answer: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("LockCookie:"));
    cookie.unwrap().trim().parse().unwrap()
}

#[test]
fn writes_whose_lock_was_taken_over_are_found_by_application_and_web_server() {
    let backend = Program::state_server();
    let proxy = proxy(&[backend.address], "locks: {wait: 0s}");
    let mut slow = Client::connect_from([127, 0, 0, 2], proxy.address);
    let mut other = Client::connect_from([127, 0, 0, 3], proxy.address);
    assert_eq!(status(&slow.ask(&put(ID, 0, b"old"))), "200");
    for body in [b"late".to_vec(), vec![b'x'; 200_000]] {
        let lock = cookie(&slow.ask(&acquire(ID)));
        assert_eq!(status(&other.ask(&release(ID, lock))), "200");
        let taken_over = cookie(&other.ask(&acquire(ID)));
        assert_eq!(status(&slow.ask(&put(ID, lock, &body))), "423");
        assert_eq!(status(&other.ask(&release(ID, taken_over))), "200");
    }
    wait_until("both are counted", || {
        let finding = finding(&proxy, "writes_taken_over");
        finding["says"].as_str().unwrap().starts_with("2 writes")
    });
    let finding = finding(&proxy, "writes_taken_over");
    assert_says(&finding, &[APP, "127.0.0.2"]);
    assert!(finding["action"].as_str().unwrap().contains("110 s"));
}

#[test]
fn large_sessions_are_found_and_others_are_not() {
    let backend = Program::state_server();
    let proxy = proxy(&[backend.address], "large_session: 100KiB");
    let mut client = Client::connect(proxy.address);
    let ids = sessions::ids(7, 3);
    for (id, kib) in ids.iter().zip([99, 100, 300]) {
        let body = vec![b'x'; kib * 1024];
        assert_eq!(status(&client.ask(&put(id, 0, &body))), "200");
    }
    wait_until("both are known", || {
        let finding = finding(&proxy, "sessions_large");
        finding["says"].as_str().unwrap().contains("at least 2 ")
    });
    assert_says(&finding(&proxy, "sessions_large"), &[APP, "0.3 MiB"]);
    let stored = Scrape::of(proxy.admin()).value("staterouter_large_sessions_stored_total");
    assert_eq!(stored, 2.0);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_told_from_one_that_waits() {
    let backend = Backend::start();
    let times = "timeouts: {connect: 500ms, answer: 1500ms}\nhealth: {fall: 100}";
    let proxy = proxy(&[backend.address], times);
    let mut impatient = Client::connect_from([127, 0, 0, 2], proxy.address);
    impatient.send(&get(ID));
    impatient.close();
    let mut patient = Client::connect_from([127, 0, 0, 3], proxy.address);
    patient.send(&get(ID));
    // The backend takes both requests and answers neither.
    let _taken = [backend.accept(), backend.accept()];
    assert_eq!(patient.until_closed(), b"");
    let abandoned = |by: &str| {
        format!("staterouter_web_server_abandoned_requests_total{{web_server=\"{by}\"}}")
    };
    wait_until("it is counted", || {
        Scrape::of(proxy.admin()).value(&abandoned("127.0.0.2")) == 1.0
    });
    assert_eq!(
        Scrape::of(proxy.admin()).get(&abandoned("127.0.0.3")),
        Some(0.0)
    );
}

#[test]
fn a_client_that_leaves_before_a_long_answer_counts_once() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut client = Client::connect_from([127, 0, 0, 2], proxy.address);
    client.send(&get(ID));
    let mut taken = backend.accept();
    taken.read(get(ID).len());
    client.close();
    // Whoever leaves sooner than in a second is no sign of a short timeout.
    thread::sleep(Duration::from_millis(1_200));
    // That it has left shows before the first part is passed on, and again when another one cannot be.
    let sending = thread::spawn(move || taken.write_until_closed(&answers::item(&[7; 4 << 20])));
    wait_until("the request has failed", || {
        Scrape::of(proxy.admin()).sum("staterouter_failed_requests_total") == 1.0
    });
    sending.join().unwrap();
    let series = "staterouter_web_server_abandoned_requests_total";
    let scrape = || Scrape::of(proxy.admin());
    wait_until("it counts as abandoned", || scrape().sum(series) > 0.0);
    let abandoned = scrape();
    assert_eq!(
        abandoned.non_zero(series),
        [("{web_server=\"127.0.0.2\"}", 1.0)].into()
    );
}

#[test]
fn requests_count_by_web_server() {
    let backend = Program::state_server();
    let proxy = proxy(&[backend.address], "");
    for (host, requests) in [(2, 3), (3, 5), (2, 1)] {
        let mut client = Client::connect_from([127, 0, 0, host], proxy.address);
        for _ in 0..requests {
            assert_eq!(status(&client.ask(&head(ID))), "404");
        }
    }
    let scrape = Scrape::of(proxy.admin());
    let counted = scrape.non_zero("staterouter_web_server_requests_total");
    let expected = [
        ("{web_server=\"127.0.0.2\"}", 4.0),
        ("{web_server=\"127.0.0.3\"}", 5.0),
    ];
    assert_eq!(counted, expected.into());
}

/// A minute long: in every ten seconds of it many requests have to find the session locked.
#[test]
#[ignore = "a minute"]
fn a_session_that_is_locked_all_the_time_is_found() {
    let backend = Program::state_server();
    let proxy = proxy(&[backend.address], "locks: {wait: 0s}");
    let mut holder = Client::connect(proxy.address);
    assert_eq!(status(&holder.ask(&put(ID, 0, b"old"))), "200");
    cookie(&holder.ask(&acquire(ID)));
    let mut contender = Client::connect_from([127, 0, 0, 2], proxy.address);
    let is_contended = || {
        let scrape = Scrape::of(proxy.admin());
        scrape.value("staterouter_contended_sessions") == 1.0
    };
    let begun = std::time::Instant::now();
    while !is_contended() {
        assert!(begun.elapsed().as_secs() < 120, "it was not found");
        assert_eq!(status(&contender.ask(&acquire(ID))), "423");
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    assert_says(&finding(&proxy, "session_contended"), &[APP, "127.0.0.2"]);
}
