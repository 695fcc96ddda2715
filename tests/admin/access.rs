//! Who may ask the admin server for what.

use std::io::Write;

use staterouter::config::AdminToken;
use staterouter::control::handle::{AdminAccess, ControlCommand, Published};
use staterouter::control::report::status::{BackendHealth, ReloadResult};

use super::api::{Admin, Answer, UNHURRIED, outcome, published};

#[test]
fn whoever_changes_something_shows_the_token_where_there_is_one() {
    let mut admin = Admin::start(UNHURRIED);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let access = AdminAccess {
        token: Some(AdminToken::read(&path).unwrap()),
        hosts: Vec::new(),
    };
    let with_token = Published {
        access,
        ..published([BackendHealth::Up, BackendHealth::Up])
    };
    admin.control.published.send_replace(with_token.into());
    // Who only looks needs none.
    assert_eq!(admin.get("/status").status, 200);
    let mut stream = admin.connect();
    let request = "POST /reload HTTP/1.1\r\nstaterouter-request: 1\r\nconnection: close\r\n\
                   Authorization: Bearer 0123456789abcdef\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    match admin.control.commands.blocking_recv() {
        Some(ControlCommand::Reload(answer)) => {
            answer.send(outcome(ReloadResult::Unchanged, 3)).unwrap()
        }
        other => unreachable!("{other:?}"),
    }
    assert_eq!(Answer::read(stream).status, 200);
    for (line, error) in [
        ("", false),
        ("authorization: Bearer 0123456789abcdeX\r\n", true),
    ] {
        let answer = admin.ask(&format!("POST /reload HTTP/1.1\r\n{line}\r\n"));
        assert_eq!(answer.status, 401, "{}", answer.head);
        let challenge = "www-authenticate: bearer realm=";
        assert!(answer.head.contains(challenge), "{}", answer.head);
        let is_told = answer.head.contains("error=\"invalid_token\"");
        assert_eq!(is_told, error, "{}", answer.head);
    }
    assert!(admin.control.commands.try_recv().is_err());
}

/// What changes something, and what is work.
const GUARDED: [&str; 4] = [
    "POST /reload",
    "POST /backends/state-1/drain",
    "POST /plan",
    "GET /plan?suggest=50",
];

#[test]
fn no_page_of_another_site_changes_anything_or_makes_work() {
    let mut admin = Admin::start(UNHURRIED);
    let own = format!("Host: {}", admin.address());
    for request in GUARDED {
        for (lines, status, says) in [
            (vec![own.as_str()], 403, "Staterouter-Request: 1"),
            (vec![], 403, "Staterouter-Request: 1"),
            (
                vec!["Host: attacker.example", "Staterouter-Request: 1"],
                421,
                "admin.hosts",
            ),
            (
                vec![&own, "Staterouter-Request: 1", "Referer: http://elsewhere/"],
                403,
                "another site",
            ),
            (
                vec![&own, "Staterouter-Request: 1", "Sec-Fetch-Site: cross-site"],
                403,
                "another site",
            ),
            (
                vec![&own, "Staterouter-Request: 1", "Origin: http://elsewhere"],
                403,
                "another site",
            ),
            (
                vec![&own, "Staterouter-Request: 1", "Origin: null"],
                403,
                "another site",
            ),
        ] {
            let answer = admin.ask_raw(request, &lines);
            let found = (answer.status, answer.body.contains(says));
            assert_eq!(found, (status, true), "{request} {lines:?} {}", answer.body);
        }
    }
    assert!(admin.control.commands.try_recv().is_err());
    let own_origin = format!("Origin: http://{}", admin.address());
    let lines = [&own, &own_origin, "Staterouter-Request: 1"];
    let answer = admin.ask_raw("POST /reload", &lines);
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.body.contains("no web page"), "{}", answer.body);
    let counts = admin.get("/metrics").body;
    for (reason, count) in [("unknown_host", 4), ("web_page", 17), ("no_own_header", 8)] {
        let line =
            format!("staterouter_admin_requests_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(counts.contains(&line), "{line}{counts}");
    }
}

#[test]
fn a_name_that_somebody_else_has_pointed_here_reads_nothing() {
    let admin = Admin::start(UNHURRIED);
    let known = Published {
        access: AdminAccess {
            token: None,
            hosts: vec!["proxy-a.example".to_owned()],
        },
        ..published([BackendHealth::Up, BackendHealth::Up])
    };
    admin.control.published.send_replace(known.into());
    let foreign = ["Host: rebound.attacker.example:42480"];
    for path in [
        "/",
        "/status",
        "/history",
        "/metrics",
        "/peer",
        "/route?id=abcdef",
    ] {
        let answer = admin.ask_raw(&format!("GET {path}"), &foreign);
        assert_eq!(answer.status, 421, "{path}");
        let says = "`rebound.attacker.example:42480` is not a known name";
        assert!(answer.body.contains(says), "{}", answer.body);
        assert!(answer.body.contains("admin.hosts"), "{}", answer.body);
    }
    for host in [
        "proxy-a.example:42480",
        "PROXY-A.example",
        "localhost:1",
        "[::1]:42480",
    ] {
        let line = format!("Host: {host}");
        assert_eq!(admin.ask_raw("GET /status", &[&line]).status, 200, "{host}");
    }
    // Health checks of load balancers ask by whatever name they have, or by none.
    for lines in [&foreign[..], &[]] {
        for path in ["/healthz", "/readyz"] {
            let answer = admin.ask_raw(&format!("GET {path}"), lines);
            assert_eq!(answer.status, 200, "{path} {lines:?}");
        }
    }
}

#[test]
fn a_wrong_token_is_slowed_down_and_counted() {
    let admin = Admin::start(UNHURRIED);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let with_token = Published {
        access: AdminAccess {
            token: Some(AdminToken::read(&path).unwrap()),
            hosts: Vec::new(),
        },
        ..published([BackendHealth::Up, BackendHealth::Up])
    };
    admin.control.published.send_replace(with_token.into());
    let wrong = "POST /reload HTTP/1.1\r\nauthorization: Bearer 0123456789abcdeX\r\n\r\n";
    let first = admin.ask(wrong);
    assert_eq!(first.status, 401, "{}", first.body);
    // Within the second, no matter how many there are.
    let second = admin.ask(wrong);
    assert_eq!(second.status, 429, "{}", second.body);
    assert!(second.head.contains("retry-after: 1"), "{}", second.head);
    assert!(second.head.contains("connection: close"), "{}", second.head);
    let counts = admin.get("/metrics").body;
    for reason in ["wrong_token", "too_soon"] {
        let line = format!("staterouter_admin_requests_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(counts.contains(&line), "{line}{counts}");
    }
}
