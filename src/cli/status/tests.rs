use super::*;

/// A status with one more field or another value here and there.
fn asked(change: impl FnOnce(&mut Value)) -> Asked {
    let backend = |name: &str| {
        json!({
            "name": name, "state": "active", "verdict": "up", "reason": null, "since_ms": 500_000,
            "slots_owned": 8192, "slots_first": 8192, "owed_removals": 0, "moved_here": 0,
        })
    };
    let mut status = json!({
        "version": "0.1.0", "instance": "a", "started_ms": 400_000, "now_ms": 1_000_000,
        "map_version": 7, "last_reload": null, "backends": [backend("state-a"), backend("state-b")],
        "under_way": [], "longest_session_timeout_minutes": 20, "peers": [],
    });
    change(&mut status);
    Asked {
        admin: "proxy:1".to_owned(),
        report: Report::read(status.to_string().as_bytes()),
    }
}

fn under_way(stage: &str, began_ms: u64, stage_ends_ms: u64, ends_ms: Option<u64>) -> Value {
    json!([{
        "stage": stage, "first": "state-b", "second": "state-a", "slots": 4096,
        "began_ms": began_ms, "stage_ends_ms": stage_ends_ms, "ends_ms": ends_ms,
    }])
}

#[track_caller]
fn only_problem(asked: Asked) -> String {
    let asked = [asked];
    let problems = assess::problems(&asked);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(exit_of(&asked, &problems), Exit::Finding);
    assert!(as_text(&asked, &problems).starts_with(&format!("WRONG: {}\n", problems[0])));
    problems[0].clone()
}

#[track_caller]
fn text_of_well(asked: Asked) -> String {
    let asked = [asked];
    let problems = assess::problems(&asked);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(exit_of(&asked, &problems), Exit::Fine);
    as_text(&asked, &problems)
}

#[test]
fn what_nobody_has_to_get_up_for_is_well() {
    let text = text_of_well(asked(|_| {}));
    assert!(text.starts_with("all well: 2 backends up\n"), "{text}");
    assert!(!text.contains("SESSIONS"), "nothing is counted: {text}");
    let text = text_of_well(asked(|status| {
        status["backends"][0]["verdict"] = "suspect".into();
        status["under_way"] = under_way("move2", 500_000, 1_500_000, Some(1_500_000));
        let off = &mut status["backends"][1];
        off["state"] = "off".into();
        off["override"] = json!({"in_map": "active", "since_ms": 940_000});
    }));
    assert!(
        text.starts_with("all well: 1 backend up, 4096 slots under way\n"),
        "{text}"
    );
    for wanted in [
        "move2   4096  25.0 %  state-a -> state-b  50.0 %   8m 20s",
        "  state-b: off for 1m, the map says active",
        "off (override)",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_backend_that_is_down_is_named_with_what_that_does() {
    let problem = only_problem(asked(|status| {
        let backend = &mut status["backends"][0];
        backend["verdict"] = "down".into();
        backend["reason"] = "3 failures in a row".into();
        status["under_way"] = under_way("away", 600_000, 700_000, None);
    }));
    assert_eq!(
        problem,
        "state-a is down for 8m 20s: 3 failures in a row; others stand in for 4096 slots (25.0 %), \
         whose users have to start anew"
    );
    let off = text_of_well(asked(|status| {
        status["backends"][0]["verdict"] = "down".into();
        status["backends"][0]["state"] = "off".into();
    }));
    assert!(off.starts_with("all well: 1 backend up\n"), "{off}");
}

#[test]
fn a_pool_that_serves_nothing_says_so_first() {
    // Nobody asks one that is off, so it stays up.
    for (second, count) in [(("active", "down"), 3), (("off", "up"), 2)] {
        let asked = [asked(|status| {
            status["backends"][0]["verdict"] = "down".into();
            let backend = &mut status["backends"][1];
            (backend["state"], backend["verdict"]) = (second.0.into(), second.1.into());
        })];
        let problems = assess::problems(&asked);
        assert_eq!(problems.len(), count, "{problems:?}");
        assert!(problems[0].starts_with("no backend is up"), "{problems:?}");
    }
}

#[test]
fn what_is_full_refused_silent_or_held_up_is_wrong() {
    let problem = only_problem(asked(|status| {
        let backend = &mut status["backends"][1];
        backend["sessions"] = 90_000.into();
        backend["session_bytes"] = (3_u64 << 30).into();
        backend["capacity"] = json!({"sessions": 100_000, "memory_bytes": null});
        backend["used_percent"] = 75.0.into();
        backend["seconds_to_full"] = 1800.5.into();
    }));
    assert!(
        problem.contains("75.0 % of its capacity is used"),
        "{problem}"
    );
    assert!(problem.contains("full in 30m"), "{problem}");
    let problem = only_problem(asked(|status| {
        status["last_reload"] = json!({
            "at_ms": 900_000, "result": "refused", "map_version": 7,
            "faults": ["map.yaml:3:5: bad"], "needs_restart": []
        });
    }));
    assert!(problem.contains("map.yaml:3:5: bad"), "{problem}");
    let problem = only_problem(asked(|status| {
        status["peers"] = json!([{"address": "peer:1", "failure": "gone", "map_version": null}]);
    }));
    assert!(problem.contains("peer:1 does not answer"), "{problem}");
    let problem = only_problem(asked(|status| {
        status["peers"] = json!([{"address": "peer:1", "failure": null, "map_version": 6}]);
    }));
    assert!(problem.contains("peer:1 has version 6"), "{problem}");
    let problem = only_problem(asked(|status| {
        status["under_way"] = under_way("settle", 100_000, 130_000, Some(2_000_000));
    }));
    assert!(
        problem.contains("held up in settle for 14m 30s"),
        "{problem}"
    );
}

#[test]
fn proxies_that_differ_are_wrong_and_one_that_is_gone_is_named() {
    let pair = [
        asked(|_| {}),
        asked(|status| status["map_version"] = 8.into()),
    ];
    let problems = assess::problems(&pair);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let drained = asked(|status| {
        status["backends"][0]["state"] = "drain".into();
        status["backends"][0]["override"] = json!({"in_map": "active", "since_ms": 1});
    });
    let problems = assess::problems(&[asked(|_| {}), drained]);
    assert!(problems[0].contains("different overrides"), "{problems:?}");

    let gone = || Asked {
        admin: "gone:1".to_owned(),
        report: Err("no".to_owned()),
    };
    let half = [asked(|_| {}), gone()];
    let problems = assess::problems(&half);
    assert_eq!(problems, ["gone:1: it cannot be asked: no"]);
    assert_eq!(exit_of(&half, &problems), Exit::Finding);
    let all: Value = serde_json::from_str(&as_json(&half, &problems)).unwrap();
    assert_eq!(all["well"], false);
    assert_eq!(all["proxies"][0]["status"]["map_version"], 7);
    assert_eq!(all["proxies"][1]["failure"], "no");
    assert_eq!(exit_of(&[gone()], &[]), Exit::CouldNotRun);
}
