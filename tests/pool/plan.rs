//! `staterouter plan` and the questions behind it, with real proxies.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{Ipv4Addr, SocketAddr};

use crate::support::admin::{self, backend};
use crate::support::client::{Client, get, put, status};
use crate::support::scene::SHORT_TIMES;
use crate::support::sessions;
use crate::support::{Program, ProxyFiles, run};
use serde_json::Value;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

fn nobody(servers: u16) -> Vec<SocketAddr> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (1..=servers).map(address).collect()
}

/// A proxy over three servers that nobody is at, and the map of four in a file beside its own.
fn scene() -> (ProxyFiles, Program) {
    let files = ProxyFiles::new(&nobody(3), "");
    let proxy = files.start();
    let four = ProxyFiles::new(&nobody(4), "").read("map.yaml");
    files.replace("new.yaml", &four.replace("version: 1", "version: 2"));
    (files, proxy)
}

#[test]
fn a_plan_predicts_to_the_slot_what_a_new_backend_gets() {
    let (files, proxy) = scene();
    let (new, admin) = (files.path("new.yaml"), proxy.admin().to_string());
    admin::wait_for(proxy.admin(), "sessions are counted", |status| {
        status["accounting"]["on"] == true
    });
    let (code, stdout, stderr) = run(&["plan", "--json", "--map", &new, "--admin", &admin]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let there: Value = serde_json::from_str(&stdout).unwrap();
    let config = files.config();
    let (code, stdout, _) = run(&["plan", "--json", "--map", &new, "--config", &config]);
    assert_eq!(code, Some(0), "{stdout}");
    let here: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(slots(&here), slots(&there));
    assert_eq!(
        [&here["sessions"], &there["sessions"]],
        [&Value::Null, &0.into()]
    );

    files.replace("map.yaml", &files.read("new.yaml"));
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 2);
    let status = admin::status(proxy.admin());
    for planned in there["backends"].as_array().unwrap() {
        let name = planned["name"].as_str().unwrap();
        assert_eq!(
            backend(&status, name)["slots_owned"],
            planned["slots_after"]
        );
    }
    let flows = there["flows"].as_array().unwrap();
    let under_way = status["under_way"].as_array().unwrap();
    assert_eq!(flows.len(), 3);
    for (flow, work) in flows.iter().zip(under_way) {
        assert_eq!(
            [&flow["from"], &flow["to"], &flow["slots"]],
            [&work["second"], &work["first"], &work["slots"]]
        );
        let lasts_ms = work["ends_ms"].as_u64().unwrap() - work["began_ms"].as_u64().unwrap();
        assert_eq!(there["handover"]["total_ms"], lasts_ms);
    }
    let (code, stdout, _) = run(&["plan", "--map", &new, "--admin", &admin]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("version 2 is in force already\n"),
        "{stdout}"
    );
}

/// What a plan says without a proxy that counts.
fn slots(plan: &Value) -> Vec<[&Value; 3]> {
    let of = |list: &'static str, keys: [&'static str; 3]| {
        let entries = plan[list].as_array().unwrap().iter();
        entries.map(move |entry| keys.map(|key| &entry[key]))
    };
    let backends = of("backends", ["name", "slots_before", "slots_after"]);
    backends
        .chain(of("flows", ["from", "to", "slots"]))
        .collect()
}

#[test]
fn a_plan_predicts_how_many_sessions_a_new_backend_gets() {
    const SESSIONS: u64 = 4_000;
    let servers = [(); 4].map(|()| {
        let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Program::start(&[&["state-server"], &listen[..]].concat())
    });
    let addresses = servers.each_ref().map(|server| server.address);
    let files = ProxyFiles::new(&addresses[..3], SHORT_TIMES);
    let proxy = files.start();
    let mut client = Client::connect(proxy.address);
    let ids = sessions::ids(7, SESSIONS);
    for id in &ids {
        assert_eq!(status(&client.ask(&put(id, 0, b"what it holds"))), "200");
    }
    admin::wait_for(proxy.admin(), "all are counted", |status| {
        let backends = status["backends"].as_array().unwrap().iter();
        backends
            .filter_map(|backend| backend["sessions"].as_u64())
            .sum::<u64>()
            == SESSIONS
    });

    let four = ProxyFiles::new(&addresses, SHORT_TIMES).read("map.yaml");
    let four = four.replace("version: 1", "version: 2");
    let (code, plan) = admin::post(proxy.admin(), "/plan", &four);
    assert_eq!(code, 200, "{plan}");
    let plan: Value = serde_json::from_str(&plan).unwrap();
    files.replace("map.yaml", &four);
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 2);
    admin::wait_for(
        proxy.admin(),
        "sessions move when they are used",
        |status| {
            let fourth = status["backends"][3]["slots_first"].as_u64();
            fourth > Some(0) && status["slots"]["settle"] == 0
        },
    );
    for id in &ids {
        assert_eq!(status(&client.ask(&get(id))), "200");
    }
    for (server, planned) in servers.iter().zip(plan["backends"].as_array().unwrap()) {
        let found = admin::status(server.admin())["sessions"].as_f64().unwrap();
        let planned = planned["sessions_after"].as_f64().unwrap();
        // The sessions are the same in every run, so this is no matter of luck.
        assert!((found / planned - 1.0).abs() < 0.1, "{found} {plan:#}");
    }
}

#[test]
fn a_plan_that_would_be_refused_is_a_finding() {
    let (files, proxy) = scene();
    let (new, admin) = (files.path("new.yaml"), proxy.admin().to_string());
    let config = files.config();
    let sound = files.read("new.yaml");
    for (text, wanted) in [
        (
            sound.replace("version: 2", "version: 1"),
            "REFUSED: the partition map has changed",
        ),
        (
            sound.replace("id: 3", "id: 9"),
            "REFUSED: backend state-3 has id 9",
        ),
        (
            sound.replace("name:", "nmae:"),
            "new.yaml:3:6: unknown key `nmae`",
        ),
        (String::from("- {"), "new.yaml:"),
    ] {
        files.replace("new.yaml", &text);
        for arguments in [["--admin", &admin], ["--config", &config]] {
            let (code, stdout, _) = run(&[&["plan", "--map", &new], &arguments[..]].concat());
            assert_eq!(code, Some(1), "{stdout}");
            assert!(stdout.contains(wanted), "{stdout}");
        }
        let (code, _) = admin::post(proxy.admin(), "/plan", &text);
        assert_eq!(code, 422);
    }
    assert_eq!(admin::status(proxy.admin())["map_version"], 1);
}

#[test]
fn a_plan_is_a_table_for_people() {
    let (files, _proxy) = scene();
    let (new, config) = (files.path("new.yaml"), files.config());
    let (_, stdout, _) = run(&["plan", "--map", &new, "--config", &config]);
    assert!(stdout.starts_with("version 2 after 1: "), "{stdout}");
    for wanted in [
        "BACKEND  STATE        SLOTS  AFTER   SHARE   AFTER",
        "state-4  new, active      0",
        "the handover takes 23m 20s: sessions stay for 30s, then move when they are used, for 22m 50s",
    ] {
        assert!(stdout.contains(wanted), "{stdout}");
    }
}

#[test]
fn a_plan_needs_both_maps() {
    let (files, proxy) = scene();
    let (new, admin) = (files.path("new.yaml"), proxy.admin().to_string());
    for arguments in [
        &["plan"][..],
        &["plan", "--map", &new],
        &["plan", "--admin", &admin],
        &["plan", "--suggest", "50"],
        &["plan", "--suggest", "0", "--admin", &admin],
    ] {
        assert_eq!(run(arguments).0, Some(2), "{arguments:?}");
    }
    let gone = files.path("gone.yaml");
    for arguments in [
        &["plan", "--map", &gone, "--admin", &admin][..],
        &["plan", "--map", &new, "--config", &gone],
        &["plan", "--map", &new, "--admin", "127.0.0.1:1"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, &*stdout), (Some(3), ""), "{arguments:?}");
        assert!(stderr.starts_with("staterouter: "), "{stderr}");
    }
}

#[test]
fn a_map_in_a_request_has_a_bound() {
    let (_files, proxy) = scene();
    let longest = "#".repeat(1 << 20);
    assert_eq!(admin::post(proxy.admin(), "/plan", &longest).0, 422);
    let (code, _) = admin::post(proxy.admin(), "/plan", &(longest + "#"));
    assert_eq!(code, 413);
    assert_eq!(admin::post(proxy.admin(), "/plan?suggest=3", "").0, 400);
}

#[test]
fn what_cannot_be_suggested_is_told() {
    let (_files, proxy) = scene();
    for (path, status) in [
        ("/plan", 400),
        ("/plan?suggest=0", 400),
        ("/plan?suggest=many", 400),
        ("/plan?suggest=50&suggest=60", 400),
    ] {
        assert_eq!(admin::get(proxy.admin(), path).0, status, "{path}");
    }
    let admin = proxy.admin().to_string();
    let (code, stdout, stderr) = run(&["plan", "--suggest", "50", "--admin", &admin]);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert!(stderr.contains("counted no sessions"), "{stderr}");
}

#[test]
fn a_session_is_found_and_its_id_is_not_told() {
    let servers = [(); 3].map(|()| Program::state_server());
    let files = ProxyFiles::new(&servers.each_ref().map(|server| server.address), "");
    let proxy = files.start();
    let (code, body) = admin::get(proxy.admin(), &format!("/route?id={ID}"));
    assert_eq!(code, 200, "{body}");
    assert!(!body.contains(ID), "{body}");
    let found: Value = serde_json::from_str(&body).unwrap();
    let (_, line, _) = run(&["route", "--config", &files.config(), ID]);
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(found["fingerprint"], words[2]);
    assert_eq!(found["slot"].to_string(), words[4]);
    assert_eq!(found["candidates"][0], words[5]);
    assert_eq!(
        (&found["first"], &found["second"]),
        (&words[5].into(), &Value::Null)
    );
    assert_eq!(found["stage"], "steady");

    let owner = words[5];
    let (code, _) = admin::post(proxy.admin(), &format!("/backends/{owner}/drain"), "");
    assert_eq!(code, 200);
    admin::wait_for(proxy.admin(), "all of it moves", |status| {
        admin::backend(status, owner)["slots_in"]["steady"] == 0
    });
    let (_, body) = admin::get(proxy.admin(), &format!("/route?id={ID}"));
    let moving: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&moving["stage"], &moving["second"]),
        (&"settle".into(), &owner.into())
    );
    assert_eq!(moving["first"], found["candidates"][1]);

    // Every spelling of an id is the same session.
    let escaped: String = ID.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let (_, body) = admin::get(proxy.admin(), &format!("/route?id={escaped}"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), moving);
    for path in ["/route", "/route?id=", "/route?ID=1"] {
        assert_eq!(admin::get(proxy.admin(), path).0, 400, "{path}");
    }
    let log = proxy.stop();
    assert!(!log.contains(ID), "{log}");
}
