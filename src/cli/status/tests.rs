use super::*;
use crate::control::report::finding::{Finding, SessionKeeper};
use crate::control::report::status::example::{self, under_way};
use crate::control::report::status::{ApplicationStatus, OverrideStatus, ServiceState};
use crate::handover::Stage;

/// A proxy that says this, with another value here and there.
fn asked(change: impl FnOnce(&mut Status)) -> Asked {
    let mut status = example::status();
    change(&mut status);
    let body = serde_json::to_vec(&status).unwrap();
    Asked {
        admin: "proxy:1".to_owned(),
        answer: read(&body),
    }
}

fn gone() -> Asked {
    Asked {
        admin: "gone:1".to_owned(),
        answer: Err("no".to_owned()),
    }
}

/// The text, and what the command ends with.
fn shown(asked: &[Asked]) -> (String, Exit) {
    let found = verdict::findings(asked);
    (as_text(asked, &found), exit_of(asked, &found))
}

#[test]
fn what_only_goes_on_is_well() {
    let (text, exit) = shown(&[asked(|_| {})]);
    assert!(text.starts_with("all well: 2 backends up\n\n"), "{text}");
    assert_eq!(exit, Exit::Fine);
    let (text, exit) = shown(&[asked(|status| {
        status.findings = vec![Finding::moving(4096).since(500_000).until(1_500_000)];
        status.under_way = vec![under_way(Stage::Move2, 500_000, 1_500_000, Some(1_500_000))];
        let off = &mut status.backends[1];
        off.state = ServiceState::Off;
        off.overridden = Some(OverrideStatus {
            in_map: ServiceState::Active,
            since_ms: 940_000,
        });
    })]);
    assert_eq!(exit, Exit::Fine);
    for wanted in [
        "all well: 1 backend up\n  going on: a handover is under way: 25.0 % of the sessions move \
         (for 8m 20s, over in 8m 20s)\n\n",
        "  moving  ",
        "4096  25.0 %  state-a -> state-b  50.0 %   8m 20s  state-a -> state-b",
        "  state-b: off for 1m, the map says active",
        "off (override)",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn applications_stand_with_what_they_take() {
    let (text, _) = shown(&[asked(|_| {})]);
    assert!(!text.contains("applications:"), "{text}");
    let (text, _) = shown(&[asked(|status| {
        status.applications = vec![ApplicationStatus {
            name: "shop".to_owned(),
            requests: 12_345,
            requests_failed: 7,
            requests_renamed: 345,
            sessions: Some(99),
            session_bytes: Some(2048),
        }];
    })]);
    let line = text.lines().find(|line| line.contains("shop")).unwrap();
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(cells, ["shop", "99", "2.0", "KiB", "12345", "7", "345"]);
}

#[test]
fn what_is_wrong_stands_first_with_what_users_notice_and_what_to_do() {
    let down = || {
        Finding::backend_down(
            SessionKeeper::at("state-a", "10.0.0.1:42424"),
            Some("3 failures in a row"),
            false,
        )
        .since(500_000)
    };
    let (text, exit) = shown(&[asked(|status| status.findings = vec![down()])]);
    assert_eq!(exit, Exit::Finding);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("WRONG: state-a is down: 3 failures in a row (for 8m 20s)")
    );
    assert_eq!(lines.next(), Some(&*format!("  users: {}", down().means)));
    assert_eq!(lines.next(), Some(&*format!("  do:    {}", down().action)));

    let refused = Finding::requests_refused(
        SessionKeeper::at("state-a", "10.0.0.1:42424"),
        4096,
        &["state-b"],
        false,
    )
    .until(1_012_000);
    let (text, _) = shown(&[asked(|status| status.findings = vec![refused, down()])]);
    assert!(
        text.starts_with("WRONG: 2 things\n  requests for 25.0 %"),
        "{text}"
    );
    assert!(text.contains("(over in 12s)\n    users: "), "{text}");
}

#[test]
fn proxies_that_differ_are_wrong_and_one_that_is_gone_is_named() {
    let (text, exit) = shown(&[asked(|_| {}), asked(|status| status.map_version = 8)]);
    assert_eq!(exit, Exit::Finding);
    assert!(
        text.contains("has version 8 of the partition map"),
        "{text}"
    );
    let drained = asked(|status| {
        status.backends[0].state = ServiceState::Drain;
        status.backends[0].overridden = Some(OverrideStatus {
            in_map: ServiceState::Active,
            since_ms: 1,
        });
    });
    let (text, _) = shown(&[asked(|_| {}), drained]);
    assert!(text.contains("other overrides"), "{text}");

    let half = [asked(|_| {}), gone()];
    let (text, exit) = shown(&half);
    assert!(
        text.starts_with("WRONG: gone:1: the proxy at gone:1 does not answer: no\n"),
        "{text}"
    );
    assert_eq!(exit, Exit::Finding);
    let found = verdict::findings(&half);
    let all: Value = serde_json::from_str(&as_json(&half, &found)).unwrap();
    assert_eq!(all["well"], false);
    assert_eq!(all["findings"][0]["admin"], "gone:1");
    assert_eq!(all["findings"][0]["code"], "proxy_silent");
    assert_eq!(all["proxies"][0]["status"]["map_version"], 7);
    assert_eq!(all["proxies"][1]["failure"], "no");
    assert_eq!(shown(&[gone()]).1, Exit::CouldNotRun);
}

#[test]
fn what_is_no_status_does_not_pass_for_a_healthy_proxy() {
    // A version before there were findings.
    let mut status = serde_json::to_value(example::status()).unwrap();
    status.as_object_mut().unwrap().remove("findings");
    let failure = read(status.to_string().as_bytes()).unwrap_err();
    assert!(failure.contains("findings"), "{failure}");
    assert!(read(b"<html>").is_err());
}

#[test]
fn what_several_proxies_find_alike_is_said_once() {
    let at = |admin: &str, findings: Vec<Finding>| Asked {
        admin: admin.to_owned(),
        ..asked(|status| status.findings = findings)
    };
    let down = |since_ms: u64| {
        Finding::backend_down(SessionKeeper::at("state-a", "10.0.0.1:42424"), None, false)
            .since(since_ms)
    };
    let moving = || Finding::moving(4096);
    let (text, _) = shown(&[
        at("one:1", vec![down(500_000), moving()]),
        at("two:1", vec![down(510_000), moving()]),
    ]);
    assert!(
        text.starts_with("WRONG: every proxy: state-a is down: it does not answer (for 8m 20s)\n"),
        "{text}"
    );
    assert_eq!(text.matches("state-a is down").count(), 1, "{text}");
    assert_eq!(text.matches("going on: every proxy: ").count(), 1, "{text}");

    let (text, _) = shown(&[
        at("one:1", vec![down(1)]),
        at("two:1", vec![down(1)]),
        at(
            "three:1",
            vec![Finding::backend_down(
                SessionKeeper::at("state-b", "10.0.0.1:42424"),
                None,
                false,
            )],
        ),
    ]);
    for wanted in [
        "WRONG: 2 things\n",
        "  one:1, two:1: state-a is down",
        "  three:1: state-b is down",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}
