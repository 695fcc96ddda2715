//! Files that change, backends that fail and proxies that start again, while a proxy serves.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::support::admin::{self, backend, wait_for};
use crate::support::client::{Client, get, put, status};
use crate::support::{Program, ProxyFiles, run};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Two servers on this machine that nobody is at.
const NOBODY: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2),
];

/// Health by probes, and quickly.
const QUICK: &str = "health: {interval: 100ms, timeout: 1s, fall: 2, rise: 2, flap_window: 100ms}";

fn map(version: u64, backends: usize, extra: &str) -> String {
    let mut text = format!("version: {version}\n{extra}\nbackends:\n");
    for number in 1..=backends {
        let _ = writeln!(
            text,
            "  - {{name: state-{number}, id: {number}, address: \"127.0.0.1:{number}\"}}"
        );
    }
    text
}

#[test]
fn a_new_map_is_taken_by_itself_and_a_faulty_one_changes_nothing() {
    let files = ProxyFiles::new(&NOBODY, "");
    let proxy = files.start();
    let admin = proxy.admin();
    files.replace("map.yaml", &map(2, 3, ""));
    let status = wait_for(admin, "the third backend is there", |status| {
        status["map_version"] == 2
    });
    assert_eq!(status["last_reload"]["result"], "applied");
    assert_eq!(status["backends"].as_array().unwrap().len(), 3);

    files.replace("map.yaml", &map(3, 3, "weigth: 3"));
    let status = wait_for(admin, "the fault was found", |status| {
        status["last_reload"]["result"] == "refused"
    });
    assert_eq!(status["map_version"], 2);
    let fault = status["last_reload"]["faults"][0].as_str().unwrap();
    assert!(fault.contains("map.yaml:2:1: unknown key"), "{fault}");
    let log = proxy.stop();
    assert!(
        log.contains("ERROR") && log.contains("map.yaml:2:1"),
        "{log}"
    );
}

#[test]
fn a_map_that_found_no_room_on_the_disk_is_taken_once_there_is_some() {
    let files = ProxyFiles::new(&NOBODY, "");
    let proxy = files.start();
    let admin = proxy.admin();
    let config = files.config();
    let in_the_way = Path::new(&config).with_file_name("staterouter.state.new");
    fs::create_dir(&in_the_way).unwrap();
    files.replace("map.yaml", &map(2, 3, ""));
    let refused = wait_for(admin, "the map was refused", |status| {
        status["last_reload"]["result"] == "refused"
    });
    let fault = refused["last_reload"]["faults"][0].as_str().unwrap();
    assert!(fault.contains("cannot write the state file"), "{fault}");
    fs::remove_dir(&in_the_way).unwrap();
    let applied = wait_for(admin, "the map is in force", |status| {
        status["map_version"] == 2
    });
    assert_eq!(applied["last_reload"]["result"], "applied");
}

#[test]
fn whoever_asks_for_a_reload_is_told_how_it_ended() {
    let files = ProxyFiles::new(&NOBODY, "");
    let proxy = files.start();
    let admin = proxy.admin();
    let (code, outcome) = admin::reload(admin);
    assert_eq!((code, &outcome["result"]), (200, &"unchanged".into()));
    for (text, wanted) in [
        (map(1, 3, ""), "raise the version"),
        (map(0, 3, ""), "map.yaml:1:10"),
        (
            map(2, 3, "hash_key: \"00112233445566778899aabbccddeeff\""),
            "hash key",
        ),
        (map(2, 3, "").replace("id: 2", "id: 9"), "state-2 has id 9"),
        (
            map(2, 3, "").replace("name: state-2", "name: other"),
            "belongs to state-2",
        ),
        (
            map(2, 3, "").replace("state-1,", "state-1, state: drain,"),
            "accept_moved_share",
        ),
    ] {
        files.replace("map.yaml", &text);
        let (code, outcome) = admin::reload(admin);
        assert_eq!(
            (code, &outcome["result"]),
            (422, &"refused".into()),
            "{text}"
        );
        assert_eq!(outcome["map_version"], 1);
        let fault = outcome["faults"][0].as_str().unwrap();
        assert!(fault.contains(wanted), "{fault}");
    }
    files.replace("map.yaml", &map(2, 3, ""));
    // The proxy may have seen the file before it was told to look.
    let (code, outcome) = admin::reload(admin);
    assert_eq!((code, &outcome["map_version"]), (200, &2.into()));
    files.replace("map.yaml", &map(1, 2, ""));
    let older = admin::reload(admin).1;
    let fault = older["faults"][0].as_str().unwrap();
    assert!(
        fault.contains("version 1") && fault.contains("version 2"),
        "{fault}"
    );
}

/// The kernel's log stands in for a disk that does not answer: a regular file whose reader waits.
#[test]
fn a_map_that_cannot_be_read_holds_up_nothing() {
    let kernel_log = Path::new("/proc/kmsg");
    if fs::File::open(kernel_log).is_err() {
        // Only root may: the tests of `control::files` go on without.
        return;
    }
    let server = Program::state_server();
    let files = ProxyFiles::new(&[server.address], QUICK);
    let proxy = files.start();
    let admin = proxy.admin();
    wait_for(admin, "the backend is up", |status| {
        backend(status, "state-1")["verdict"] == "up"
    });
    let map = Path::new(&files.config()).with_file_name("map.yaml");
    fs::remove_file(&map).unwrap();
    std::os::unix::fs::symlink(kernel_log, &map).unwrap();
    let (code, outcome) = admin::reload(admin);
    assert_eq!((code, &outcome["result"]), (422, &"refused".into()));
    server.stop();
    wait_for(admin, "the dead backend is down", |status| {
        backend(status, "state-1")["verdict"] == "down"
    });
    proxy.stop();
}

/// A map that is written in place and stops in the middle for a while.
#[test]
fn half_a_map_does_not_come_into_force() {
    let files = ProxyFiles::new(&NOBODY, "");
    let proxy = files.start();
    let admin = proxy.admin();
    let whole = map(2, 3, "");
    let path = Path::new(&files.config()).with_file_name("map.yaml");
    let half = whole.find("  - {name: state-3").unwrap();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&whole.as_bytes()[..half]).unwrap();
    // Longer than the proxy once waited; that it is half cannot be told from the content.
    std::thread::sleep(std::time::Duration::from_millis(250));
    file.write_all(&whole.as_bytes()[half..]).unwrap();
    drop(file);
    let status = wait_for(admin, "the map is in force", |status| {
        status["map_version"] == 2
    });
    assert_eq!(status["backends"].as_array().unwrap().len(), 3);
}

#[test]
fn a_hangup_has_the_files_read() {
    let files = ProxyFiles::new(&NOBODY, "");
    let proxy = files.start();
    proxy.signal("HUP");
    wait_for(proxy.admin(), "the files were read", |status| {
        status["last_reload"]["result"] == "unchanged"
    });
}

#[test]
fn keys_of_the_main_file_take_effect_or_are_named() {
    let server = Program::state_server();
    let files = ProxyFiles::new(&[server.address], "");
    let proxy = files.start();
    let mut client = Client::connect(proxy.address);
    assert_eq!(status(&client.ask(&put(ID, 0, &[b'x'; 2000]))), "200");
    let main = files.read("staterouter.yaml");
    let changed = main.replace("workers: 2", "workers: 1");
    let changed = format!("{changed}limits: {{body: 1KiB}}\nlog: {{level: debug, format: json}}\n");
    files.replace("staterouter.yaml", &changed);
    let (code, outcome) = admin::reload(proxy.admin());
    assert_eq!(code, 200);
    assert_eq!(
        outcome["needs_restart"],
        serde_json::json!(["workers", "log.format"])
    );
    assert_eq!(status(&client.ask(&put(ID, 0, &[b'x'; 2000]))), "400");

    files.replace(
        "staterouter.yaml",
        &main.replace("workers: 2", "workers: two"),
    );
    let (code, outcome) = admin::reload(proxy.admin());
    assert_eq!((code, &outcome["result"]), (422, &"refused".into()));
    let log = proxy.stop();
    assert!(
        log.contains("workers has changed: that takes a restart"),
        "{log}"
    );
}

#[test]
fn the_log_level_changes_while_the_proxy_runs() {
    let files = ProxyFiles::new(&NOBODY, "log: {level: error}");
    let proxy = files.start();
    let main = files.read("staterouter.yaml");
    files.replace(
        "staterouter.yaml",
        &main.replace("level: error", "level: info"),
    );
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    let log = proxy.stop();
    assert!(!log.contains("INFO serving"), "{log}");
    assert!(log.contains("INFO stopping"), "{log}");
}

#[test]
fn a_backend_that_fails_is_not_asked_until_it_is_back() {
    let server = Program::state_server();
    let address = server.address;
    let proxy = ProxyFiles::new(&[address], QUICK).serve();
    let admin = proxy.admin();
    assert_eq!(admin::get(admin, "/readyz").0, 200);
    server.kill();
    let down = wait_for(admin, "it is down", |status| {
        backend(status, "state-1")["verdict"] == "down"
    });
    let reason = backend(&down, "state-1")["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(reason.contains("2 failures in a row"), "{reason}");
    assert_eq!(admin::get(admin, "/readyz").0, 503);
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    assert_eq!(client.until_closed(), b"");

    let listen = address.to_string();
    let _again = Program::start(&["state-server", "--workers", "1", "--listen", &listen]);
    wait_for(admin, "it is up", |status| {
        backend(status, "state-1")["verdict"] == "up"
    });
    let mut client = Client::connect(proxy.address);
    assert_eq!(status(&client.ask(&get(ID))), "404");
    assert_eq!(admin::get(admin, "/readyz").0, 200);
    let log = proxy.stop();
    assert_eq!(log.matches("backend is down: ").count(), 1, "{log}");
    assert_eq!(log.matches("backend is up: ").count(), 1, "{log}");
}

#[test]
fn a_handover_goes_on_where_it_was_after_a_restart() {
    let servers: Vec<Program> = (0..3).map(|_| Program::state_server()).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let files = ProxyFiles::new(&addresses[..2], "");
    let proxy = files.start();
    files.replace("map.yaml", &files.map_with_third(addresses[2]));
    assert_eq!(admin::reload(proxy.admin()).1["map_version"], 2);
    let before = wait_for(proxy.admin(), "it has answered", |status| {
        backend(status, "state-3")["slots_in"]["settle"].as_u64() > Some(3000)
    });
    proxy.kill();

    let proxy = files.start();
    let after = admin::status(proxy.admin());
    assert_eq!(after["map_version"], 2);
    assert_eq!(after["slots"], before["slots"]);
    assert_ne!(after["instance"], before["instance"]);
    proxy.kill();

    // A map that may not follow leaves everything as it was.
    files.replace("map.yaml", &map(1, 2, ""));
    let proxy = files.start();
    let after = admin::status(proxy.admin());
    assert_eq!(after["map_version"], 2);
    assert_eq!(after["slots"], before["slots"]);
    assert_eq!(after["last_reload"]["result"], "refused");
}

#[test]
fn without_its_memory_or_a_place_for_it_no_proxy_starts() {
    for (extra, prepare, wanted) in [
        ("", Some("nonsense"), "is damaged"),
        (
            "handover: {state_file: nowhere/state}",
            None,
            "cannot lock the state file",
        ),
    ] {
        let files = ProxyFiles::new(&NOBODY, extra);
        if let Some(content) = prepare {
            files.replace("staterouter.state", content);
        }
        let (code, stdout, stderr) = run(&["serve", "--config", &files.config()]);
        assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
        assert!(stderr.contains(wanted), "{stderr}");
    }
}

#[test]
fn a_faulty_map_does_not_keep_a_proxy_from_starting_again() {
    let files = ProxyFiles::new(&NOBODY, "");
    let faulty = map(2, 3, "weigth: 3");
    // There is no earlier map to go on with.
    files.replace("map.yaml", &faulty);
    let (code, _, stderr) = run(&["serve", "--config", &files.config()]);
    assert_eq!(code, Some(3), "{stderr}");
    files.replace("map.yaml", &map(1, 2, ""));
    files.start().stop();
    for faulty in [Some(faulty), None] {
        match faulty {
            Some(faulty) => files.replace("map.yaml", &faulty),
            None => fs::remove_file(files.path("map.yaml")).unwrap(),
        }
        let proxy = files.start();
        let status = wait_for(proxy.admin(), "the fault is shown", |status| {
            status["last_reload"]["result"] == "refused"
        });
        assert_eq!(status["map_version"], 1);
        let code = |finding: &serde_json::Value| finding["code"] == "reload_refused";
        assert!(status["findings"].as_array().unwrap().iter().any(code));
        let log = proxy.stop();
        assert!(log.contains("ERROR") && log.contains("map.yaml"), "{log}");
    }
    files.replace("map.yaml", &map(3, 3, ""));
    wait_for(files.start().admin(), "the map is in force", |status| {
        status["map_version"] == 3
    });
}

/// To open a pipe is to wait for its other end.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_at_once() {
    for file in [
        "staterouter.state",
        "staterouter.state.lock",
        "staterouter.state.owed",
        "map.yaml",
        "staterouter.yaml",
    ] {
        let files = ProxyFiles::new(&NOBODY, "");
        let path = files.path(file);
        let _ = fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let (code, _, stderr) = run(&["serve", "--config", &files.config()]);
        assert_eq!(code, Some(3), "{stderr}");
        assert!(stderr.contains(file), "{stderr}");
        assert!(stderr.contains("not a regular file"), "{stderr}");
    }
}

#[test]
fn what_cannot_be_written_down_does_not_come_into_force() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let extra = format!("handover: {{state_file: \"{}/file\"}}", state.display());
    let files = ProxyFiles::new(&NOBODY, &extra);
    let proxy = files.start();
    fs::remove_dir_all(&state).unwrap();
    files.replace("map.yaml", &map(2, 3, ""));
    let (code, outcome) = admin::reload(proxy.admin());
    assert_eq!((code, &outcome["map_version"]), (422, &1.into()));
    let fault = outcome["faults"][0].as_str().unwrap();
    assert!(fault.contains("cannot write the state file"), "{fault}");

    fs::create_dir(&state).unwrap();
    let (code, outcome) = admin::reload(proxy.admin());
    assert_eq!((code, &outcome["map_version"]), (200, &2.into()));
    assert!(fs::exists(state.join("file")).unwrap());
}

#[test]
fn an_admin_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let files = ProxyFiles::new(&NOBODY, &format!("admin: {{listen: \"{address}\"}}"));
    let (code, _, stderr) = run(&["serve", "--config", &files.config()]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains(&address.to_string()), "{stderr}");
}

/// As docs/operations.md says it.
#[test]
fn another_hash_key_takes_a_start_without_state_files() {
    let files = ProxyFiles::new(&NOBODY, "");
    let state = files.path("staterouter.state");
    files.start().stop();
    let key = "hash_key: 3f1d0c7a52c94be2a0c1b7f2f6b1c9d4";
    files.replace("map.yaml", &map(2, 2, key));

    let proxy = files.start();
    let reload = admin::status(proxy.admin())["last_reload"].clone();
    assert_eq!(
        (&reload["result"], &reload["map_version"]),
        (&"refused".into(), &1.into())
    );
    let fault = reload["faults"][0].as_str().unwrap();
    assert!(
        fault.contains("hash key") && fault.contains("docs/operations.md"),
        "{fault}"
    );
    proxy.stop();

    fs::remove_file(&state).unwrap();
    fs::remove_file(state + ".owed").unwrap();
    let proxy = files.start();
    let status = admin::status(proxy.admin());
    assert_eq!(
        (&status["map_version"], &status["last_reload"]),
        (&2.into(), &().into())
    );
}
