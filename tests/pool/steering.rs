//! Orders of an operator about backends, with real proxies and state servers.

use crate::support;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::admin::{self, backend, wait_for};
use crate::support::{Program, ProxyFiles, run};
use serde_json::{Value, json};
use staterouter::handover::Stage;

/// Three servers on this machine that nobody is at.
fn nobody() -> [SocketAddr; 3] {
    [1, 2, 3].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Gives an order over HTTP; the status code and the outcome.
fn order(proxy: &Program, path: &str) -> (u16, Value) {
    let (code, body) = admin::post(proxy.admin(), path, "");
    (
        code,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

#[test]
fn an_override_shows_as_such_and_is_taken_back() {
    let files = ProxyFiles::new(&nobody(), "");
    let proxy = files.start();
    let map = files.read("map.yaml");
    let (code, drained) = order(&proxy, "/backends/state-1/drain");
    assert_eq!(code, 200, "{drained}");
    let moved = drained["moved_slots"].as_u64().unwrap();
    assert!((3000..8000).contains(&moved), "{drained}");
    assert_eq!(
        drained,
        json!({
            "result": "applied", "backend": "state-1", "state": "drain", "override": true,
            "moved_slots": moved, "reason": null
        })
    );
    let status = admin::status(proxy.admin());
    let first = backend(&status, "state-1");
    assert_eq!(
        (&first["state"], &first["slots_owned"]),
        (&"drain".into(), &0.into())
    );
    assert_eq!(first["override"]["in_map"], "active");
    assert_eq!(backend(&status, "state-2")["override"], Value::Null);
    assert_eq!(
        order(&proxy, "/backends/state-1/drain").1["result"],
        "unchanged"
    );

    let (_, back) = order(&proxy, "/backends/state-1/activate");
    assert_eq!(
        (&back["result"], &back["override"]),
        (&"applied".into(), &false.into())
    );
    let status = admin::status(proxy.admin());
    assert_eq!(backend(&status, "state-1")["override"], Value::Null);
    assert_eq!(
        order(&proxy, "/backends/state-1/activate").1["result"],
        "unchanged"
    );
    assert_eq!(files.read("map.yaml"), map);
    let log = proxy.stop();
    for wanted in [
        "drain overrides the partition map",
        "drain no longer overrides",
    ] {
        assert_eq!(log.matches(wanted).count(), 1, "{log}");
    }
}

#[test]
fn an_order_has_to_pass_what_a_map_has_to_pass() {
    let proxy = ProxyFiles::new(&nobody(), "").serve();
    let (code, refused) = order(&proxy, "/backends/state-4/drain");
    assert_eq!(code, 404, "{refused}");
    assert_eq!(order(&proxy, "/backends/state-1/drian").0, 404);
    assert_eq!(order(&proxy, "/backends/state-1/drain?wirte=true").0, 400);
    assert_eq!(
        order(&proxy, "/backends/state-1/drain?accept_moved_share=101").0,
        400
    );
    assert_eq!(admin::get(proxy.admin(), "/backends/state-1/drain").0, 405);

    assert_eq!(order(&proxy, "/backends/state-1/off").0, 200);
    // The other two have half of the slots each by now.
    let files = ProxyFiles::new(&nobody(), "handover: {max_moved_share: 20}");
    let strict = files.start();
    let (code, refused) = order(&strict, "/backends/state-1/drain");
    assert_eq!((code, &refused["result"]), (422, &"refused".into()));
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("more than the 20 %"), "{reason}");
    let status = admin::status(strict.admin());
    assert_eq!(backend(&status, "state-1")["state"], "active");
    let (code, _) = order(&strict, "/backends/state-1/drain?accept_moved_share=50");
    assert_eq!(code, 200);

    assert_eq!(
        order(&proxy, "/backends/state-2/off?accept_moved_share=100").0,
        200
    );
    let (code, last) = order(&proxy, "/backends/state-3/drain?accept_moved_share=100");
    assert_eq!(code, 422);
    assert!(
        last["reason"]
            .as_str()
            .unwrap()
            .contains("pool would be empty"),
        "{last}"
    );
}

#[test]
fn an_override_outlives_the_process_and_ends_when_the_map_says_the_same() {
    let files = ProxyFiles::new(&nobody(), "");
    let proxy = files.start();
    assert_eq!(order(&proxy, "/backends/state-3/drain").0, 200);
    let before = admin::status(proxy.admin());
    proxy.kill();

    let proxy = files.start();
    let after = admin::status(proxy.admin());
    let (was, is) = (backend(&before, "state-3"), backend(&after, "state-3"));
    assert_eq!(is["override"], was["override"]);
    assert_eq!(
        (&is["state"], &is["slots_owned"]),
        (&"drain".into(), &0.into())
    );
    assert!(
        proxy.logged().contains("drain overrides the partition map"),
        "{}",
        proxy.logged()
    );

    // A map about something else leaves it, one that says the same ends it.
    let second = files.read("map.yaml").replace("version: 1", "version: 2");
    files.replace("map.yaml", &second);
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 2);
    let status = admin::status(proxy.admin());
    assert_eq!(backend(&status, "state-3")["override"]["in_map"], "active");
    let third = second
        .replace("version: 2", "version: 3")
        .replace("state-3,", "state-3, state: drain,");
    files.replace("map.yaml", &third);
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 3);
    let status = admin::status(proxy.admin());
    let third = backend(&status, "state-3");
    assert_eq!(
        (&third["override"], &third["state"]),
        (&Value::Null, &"drain".into())
    );
}

#[test]
fn a_map_that_takes_a_backend_away_ends_its_override() {
    let files = ProxyFiles::new(&nobody(), "");
    let proxy = files.start();
    assert_eq!(order(&proxy, "/backends/state-3/off").0, 200);
    let map = files.read("map.yaml").replace("version: 1", "version: 2");
    let without: String = map
        .lines()
        .filter(|line| !line.contains("state-3"))
        .map(|line| line.to_owned() + "\n")
        .collect();
    files.replace("map.yaml", &without);
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 2);
    let with = map.replace("version: 2", "version: 3");
    files.replace("map.yaml", &with);
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 3);
    let status = admin::status(proxy.admin());
    assert_eq!(backend(&status, "state-3")["state"], "active");
}

#[test]
fn the_token_is_read_again_with_the_files() {
    let files = ProxyFiles::new(
        &nobody(),
        "admin: {listen: \"127.0.0.1:0\", token_file: token}",
    );
    let (code, _, stderr) = run(&["serve", "--config", &files.config()]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("no token in"), "{stderr}");

    files.replace("token", "too short\n");
    let (code, stdout, _) = run(&["check", "--config", &files.config()]);
    assert_eq!(code, Some(1));
    assert!(
        stdout.contains("16 to 1024 characters") && !stdout.contains("too short"),
        "{stdout}"
    );

    files.replace("token", "0123456789abcdef\n");
    let proxy = files.start();
    let admin = proxy.admin().to_string();
    let token = |name: &str| files.path(name);
    let drain = |token: Option<&str>| {
        let args = ["backend", "state-1", "drain", "--admin", &admin];
        let token = token
            .map(|token| vec!["--token-file", token])
            .unwrap_or_default();
        run(&[&args[..], &token].concat())
    };
    let (code, _, stderr) = drain(None);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("it answered 401"), "{stderr}");
    let (code, stdout, stderr) = drain(Some(&token("token")));
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(
        stdout.contains("state-1 drain: in force, overrides the map"),
        "{stdout}"
    );

    files.replace("old", "0123456789abcdef");
    files.replace("token", "fedcba9876543210");
    proxy.signal("HUP");
    wait_for(proxy.admin(), "the files were read", |status| {
        status["last_reload"]["result"] == "applied"
    });
    assert_eq!(drain(Some(&token("old"))).0, Some(3));
    let (code, stdout, _) = drain(Some(&token("token")));
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("nothing to change"), "{stdout}");

    // A reload that finds no token keeps the one there is.
    files.replace("token", "");
    proxy.signal("HUP");
    wait_for(proxy.admin(), "the files were refused", |status| {
        status["last_reload"]["result"] == "refused"
    });
    files.replace("old", "fedcba9876543210");
    assert_eq!(drain(Some(&token("old"))).0, Some(0));
}

#[test]
fn wrong_tokens_are_one_log_line_and_the_right_one_waits_its_second() {
    let files = ProxyFiles::new(
        &nobody(),
        "admin: {listen: \"127.0.0.1:0\", token_file: token}",
    );
    files.replace("token", "0123456789abcdef\n");
    files.replace("wrong", "fedcba9876543210\n");
    let proxy = files.start();
    let admin = proxy.admin().to_string();
    let drain = |token: &str| {
        let token = files.path(token);
        let args = ["backend", "state-1", "drain", "--admin", &admin];
        run(&[&args[..], &["--token-file", &token]].concat())
    };
    for _ in 0..2 {
        let (code, _, stderr) = drain("wrong");
        assert_eq!(code, Some(3), "{stderr}");
        assert!(
            stderr.contains("this is not the token of admin.token_file"),
            "{stderr}"
        );
    }
    let (code, stdout, stderr) = drain("token");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let log = proxy.stop();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("wrong_token"))
        .collect();
    assert!(
        matches!(lines[..], [line] if line.contains("this is not the token")),
        "{lines:?}"
    );
}

#[test]
fn the_command_gives_an_order_to_all_or_to_none() {
    let files: Vec<_> = (0..2).map(|_| ProxyFiles::new(&nobody(), "")).collect();
    let [first, second] = [files[0].start(), files[1].start()];
    let admins = [first.admin().to_string(), second.admin().to_string()];
    let both = ["--admin", &admins[0], "--admin", &admins[1]];
    let give = |args: &[&str]| run(&[&["backend", "state-2"], args, &both[..]].concat());
    let (code, stdout, stderr) = give(&["drain"]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    for proxy in [&first, &second] {
        let line = format!("{}: state-2 drain: in force", proxy.admin());
        assert!(stdout.contains(&line), "{stdout}");
        assert_eq!(
            backend(&admin::status(proxy.admin()), "state-2")["state"],
            "drain"
        );
    }
    let (code, stdout, _) = give(&["off", "--yes", "--accept-moved-share", "100"]);
    assert_eq!(code, Some(0), "{stdout}");
    second.kill();
    let (code, stdout, stderr) = give(&["activate"]);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert!(stderr.contains("nothing was ordered"), "{stderr}");
    assert_eq!(
        backend(&admin::status(first.admin()), "state-2")["state"],
        "off"
    );

    let only = ["--admin", &admins[0]];
    let (code, stdout, _) = run(&[&["backend", "state-9", "off"], &only[..]].concat());
    assert_eq!(code, Some(3), "{stdout}");
    let (code, ..) = run(&[&["backend", "state/9", "off"], &only[..]].concat());
    assert_eq!(code, Some(2));
}

#[test]
fn the_command_shows_what_users_would_notice_and_asks_whether_it_is_meant() {
    let server = Program::state_server();
    let backends = [server.address, SocketAddr::from(([127, 0, 0, 1], 1))];
    let files = ProxyFiles::new(&backends, "");
    let proxy = files.start();
    let admin = proxy.admin().to_string();
    let give = |args: &[&str]| {
        let all = ["--admin", &admin, "--accept-moved-share", "100"];
        run(&[&["backend"], args, &all[..]].concat())
    };
    let is_untouched = || {
        let status = admin::status(proxy.admin());
        backend(&status, "state-1")["state"] == "active"
    };
    let lost = "warning: state-1 would be given up, with ";
    let only = "warning: state-2 would be the only backend: nobody could stand in for it";
    for (state, warnings) in [("off", &[lost, only][..]), ("drain", &[only])] {
        let (code, stdout, stderr) = give(&["state-1", state]);
        assert_eq!((code, &*stderr), (Some(1), ""), "{stdout}");
        assert!(
            stdout.starts_with(&format!("state-1 {state}: ")),
            "{stdout}"
        );
        for wanted in warnings.iter().chain(&["nothing was ordered", "--yes"]) {
            assert!(stdout.contains(wanted), "{wanted}: {stdout}");
        }
        assert!(is_untouched());

        let (code, stdout, _) = give(&["state-1", state, "--dry-run"]);
        assert_eq!(code, Some(0), "{stdout}");
        for wanted in warnings
            .iter()
            .chain(&["dry run: every proxy would take it"])
        {
            assert!(stdout.contains(wanted), "{wanted}: {stdout}");
        }
        assert!(is_untouched());
    }
    let (code, stdout, _) = give(&["state-1", "off", "--yes"]);
    assert_eq!(code, Some(0), "{stdout}");
    for wanted in [lost, "state-1 off: in force, overrides the map"] {
        assert!(stdout.contains(wanted), "{wanted}: {stdout}");
    }
    // What harms nobody asks nothing, but shows what moves.
    let (code, stdout, _) = give(&["state-1", "activate"]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("off -> active"), "{stdout}");
    // Nothing to do is no reason to ask.
    let (code, stdout, _) = give(&["state-1", "activate"]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("nothing to change"), "{stdout}");
    let (code, ..) = give(&["state-1", "off", "--yes", "--dry-run"]);
    assert_eq!(code, Some(2));
}

#[test]
fn a_dry_run_says_what_an_order_would_do_and_does_nothing() {
    let files = ProxyFiles::new(&nobody(), "handover: {max_moved_share: 50}");
    let proxy = files.start();
    let decisions = || {
        let state: Value = serde_json::from_str(&files.read("staterouter.state")).unwrap();
        (state["overrides"].clone(), state["slots"].clone())
    };
    let before = decisions();
    let (code, would) = order(&proxy, "/backends/state-1/drain?dry_run=true");
    let moved = would["moved_slots"].as_u64().unwrap();
    assert!((3000..8000).contains(&moved), "{would}");
    assert_eq!(
        (code, would),
        (
            200,
            json!({
                "result": "accepted", "backend": "state-1", "state": "drain", "override": true,
                "moved_slots": moved, "reason": null
            })
        )
    );
    let (_, same) = order(&proxy, "/backends/state-1/activate?dry_run=true");
    assert_eq!(same["result"], "unchanged");
    let status = admin::status(proxy.admin());
    assert_eq!(backend(&status, "state-1")["state"], "active");
    assert_eq!(decisions(), before);

    assert_eq!(order(&proxy, "/backends/state-1/drain?dry_run=yes").0, 400);
    assert_eq!(order(&proxy, "/backends/state-4/drain?dry_run=true").0, 404);
    // What stands in the way of the order stands in the way here: a limit, and the disk.
    assert_eq!(
        order(&proxy, "/backends/state-1/drain").1["result"],
        "applied"
    );
    let (code, refused) = order(&proxy, "/backends/state-2/off?dry_run=true");
    assert_eq!((code, &refused["result"]), (422, &"refused".into()));
    std::fs::create_dir(files.path("staterouter.state.new")).unwrap();
    let (code, refused) = order(&proxy, "/backends/state-1/activate?dry_run=true");
    assert_eq!(code, 422, "{refused}");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("cannot write the state file"), "{reason}");
    assert_eq!(refused["override"], true);
}

#[test]
fn an_order_that_one_proxy_would_not_take_is_given_to_none() {
    let willing = ProxyFiles::new(&nobody(), "").serve();
    let with_token = ProxyFiles::new(
        &nobody(),
        "admin: {listen: \"127.0.0.1:0\", token_file: token}",
    );
    with_token.replace("token", "0123456789abcdef\n");
    let guarded = with_token.start();
    let strict = ProxyFiles::new(&nobody(), "handover: {max_moved_share: 20}").serve();
    let give = |other: &Program| {
        let [first, second] = [&willing, other].map(|proxy| proxy.admin().to_string());
        run(&[
            "backend", "state-1", "off", "--yes", "--admin", &first, "--admin", &second,
        ])
    };
    let is_untouched = |proxy: &Program| {
        let status = admin::status(proxy.admin());
        backend(&status, "state-1")["state"] == "active"
    };
    let (code, stdout, stderr) = give(&guarded);
    assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
    for wanted in ["it answered 401", "nothing was ordered"] {
        assert!(stderr.contains(wanted), "{stderr}");
    }
    assert!(is_untouched(&willing) && is_untouched(&guarded));
    let (code, stdout, stderr) = give(&strict);
    assert_eq!((code, &*stderr), (Some(1), ""), "{stdout}");
    for wanted in ["more than the 20 %", "nothing was ordered"] {
        assert!(stdout.contains(wanted), "{stdout}");
    }
    assert!(is_untouched(&willing) && is_untouched(&strict));
}

/// Two proxies of one farm, and their files.
fn farm_of_two() -> [(ProxyFiles, Program); 2] {
    let ports = [(); 2].map(|()| support::system::hold_port());
    let [(_, one), (_, other)] = &ports;
    let [first, second] = [(one, other), (other, one)].map(|(own, peer)| {
        let extra = format!(
            "timeouts: {{connect: 1s, answer: 1s}}\nadmin: {{listen: \"{own}\"}}\npeers: [\"{peer}\"]"
        );
        ProxyFiles::new(&nobody(), &extra)
    });
    let (one, other) = std::thread::scope(|scope| {
        // Each waits for the other before it serves.
        let starting = scope.spawn(|| second.start());
        let begun = first.start();
        let other = starting.join();
        (
            begun,
            other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    [(first, one), (second, other)]
}

fn is_left(status: &Value) -> bool {
    let known = backend(status, "state-2");
    known["state"] == "off" && known["slots_first"] == 0
}

#[test]
fn an_order_at_one_proxy_is_taken_over_by_the_other() {
    let [(_first_files, first), (_second_files, second)] = farm_of_two();
    let agreed = |status: &Value| status["peers"][0]["failure"].is_null();
    wait_for(first.admin(), "the peer answers", agreed);
    let (code, outcome) = order(&first, "/backends/state-2/off");
    assert_eq!(code, 200, "{outcome}");
    for proxy in [&first, &second] {
        wait_for(proxy.admin(), "both have left it", is_left);
    }
    second.wait_for_log(|line| line.contains("off overrides the partition map"));
    let status = admin::status(second.admin());
    assert_eq!(backend(&status, "state-2")["override"]["in_map"], "active");
}

#[test]
fn an_order_that_a_dead_proxy_misses_is_refused_or_insisted_on_and_met_at_its_start() {
    let [(_first_files, first), (files, second)] = farm_of_two();
    second.kill();
    wait_for(first.admin(), "the peer is silent", |status| {
        !status["peers"][0]["failure"].is_null()
    });
    let (code, refused) = order(&first, "/backends/state-2/off");
    assert_eq!((code, &refused["result"]), (422, &"refused".into()));
    let reason = refused["reason"].as_str().unwrap();
    for wanted in ["does not answer", "--only-here"] {
        assert!(reason.contains(wanted), "{reason}");
    }
    let (code, outcome) = order(&first, "/backends/state-2/off?only_here=true");
    assert_eq!(code, 200, "{outcome}");
    wait_for(first.admin(), "it has left it", is_left);
    // It has written down that the backend serves, and does not serve before it knows better.
    let second = files.start();
    assert!(is_left(&admin::status(second.admin())));
}

#[test]
fn a_clock_that_is_an_hour_ahead_ends_no_handover() {
    let files = ProxyFiles::new(&nobody(), "");
    support::slots::put_all(&files, Stage::Move2, 1, 2);
    // As of a machine that was booted since, an hour before what its clock shows now.
    let path = files.path("staterouter.state");
    let mut document: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let ago = |time: &mut Value| *time = (time.as_u64().unwrap() - 3_600_000).into();
    ago(&mut document["written"]["now_ms"]);
    ago(&mut document["slots"][0]["since_ms"]);
    document["written"]["boot_id"] = "another".into();
    std::fs::write(&path, document.to_string()).unwrap();
    let proxy = files.start();
    let status = admin::status(proxy.admin());
    assert_eq!(status["slots"]["move2"], 16_384, "{}", status["slots"]);
}
