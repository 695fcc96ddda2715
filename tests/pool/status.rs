//! `staterouter status` against running proxies.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::admin::{self, backend, wait_for};
use crate::support::client::{Client, put, status};
use crate::support::metrics::Scrape;
use crate::support::system::{ask_page, hold_port};
use crate::support::{Program, ProxyFiles, run};
use serde_json::Value;

/// Health by probes, and quickly.
const QUICK: &str = "health: {interval: 100ms, timeout: 1s, fall: 2, rise: 1, flap_window: 100ms}";

#[test]
fn the_verdict_stands_first_and_is_the_exit_code() {
    let servers = [Program::state_server(), Program::state_server()];
    let [first, second] = &servers;
    let proxy = ProxyFiles::new(&[first.address, second.address], QUICK).serve();
    let admin = proxy.admin().to_string();
    let (code, stdout, stderr) = run(&["status", "--admin", &admin]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(stdout.starts_with("all well: 2 backends up\n"), "{stdout}");
    assert!(stdout.contains(&format!("proxy {admin}")), "{stdout}");
    let line = stdout.lines().find(|line| line.starts_with("state-2"));
    assert!(line.unwrap().contains("active"), "{stdout}");

    let [first, _second] = servers;
    first.kill();
    wait_for(proxy.admin(), "it is down", |status| {
        backend(status, "state-1")["verdict"] == "down"
    });
    let (code, stdout, _) = run(&["status", "--admin", &admin]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(
        stdout.contains("state-1 is down: ") && stdout.contains("users: "),
        "{stdout}"
    );
    let (code, stdout, _) = run(&["status", "--json", "--admin", &admin]);
    let all: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &all["well"]), (Some(1), &false.into()));
    let status = &all["proxies"][0]["status"];
    assert_eq!(backend(status, "state-1")["verdict"], "down");
}

#[test]
fn a_proxy_that_is_not_there_cannot_be_asked() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    let (code, stdout, _) = run(&["status", "--admin", &nobody]);
    assert_eq!(code, Some(3), "{stdout}");
    assert!(stdout.contains("cannot connect"), "{stdout}");
    for hint in [nobody.as_str(), "admin.listen", "--admin"] {
        assert!(stdout.contains(hint), "{hint}: {stdout}");
    }
    let proxy = ProxyFiles::new(&["127.0.0.1:1"], "").serve();
    let there = proxy.admin().to_string();
    let (code, stdout, _) = run(&["status", "--admin", &nobody, "--admin", &there]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(
        stdout.contains(&format!("the proxy at {nobody} does not answer")),
        "{stdout}"
    );
    assert!(stdout.contains(&format!("proxy {there}")), "{stdout}");
}

#[test]
fn one_main_file_lists_every_proxy_and_each_leaves_itself_out() {
    let server = Program::state_server();
    let ports = [(); 2].map(|()| hold_port());
    let admins = ports.each_ref().map(|(_, admin)| *admin);
    let [one, other] = admins;
    let start = |own: SocketAddr| {
        let extra = format!(
            "{QUICK}\ntimeouts: {{connect: 1s, answer: 1s}}\nadmin: {{listen: \"{own}\"}}\n\
             peers: [\"{one}\", \"{other}\"]"
        );
        ProxyFiles::new(&[server.address], &extra).serve()
    };
    let proxies = std::thread::scope(|scope| {
        // Each waits for the other before it serves.
        let second = scope.spawn(|| start(other));
        [start(one), second.join().unwrap()]
    });
    for (proxy, peer) in proxies.iter().zip([other, one]) {
        let status = wait_for(proxy.admin(), "the other is the only peer", |status| {
            let peers = status["peers"].as_array().unwrap();
            peers.len() == 1 && peers[0]["map_version"] == 1
        });
        assert_eq!(status["peers"][0]["address"], peer.to_string());
        proxy.wait_for_log(|line| line.contains("this proxy itself and is left out"));
    }
}

#[test]
fn a_watch_goes_on_until_it_is_ended_and_controls_no_terminal_that_is_none() {
    let server = Program::state_server();
    let proxy = ProxyFiles::new(&[server.address], QUICK).serve();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_staterouter"))
        .args(["status", "--watch", "--admin", &proxy.admin().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| {
        let line = lines.find(|line| line.as_ref().unwrap().starts_with(wanted));
        line.unwrap().unwrap()
    };
    for _ in 0..2 {
        assert_eq!(next("all well"), "all well: 1 backend up");
    }
    server.kill();
    assert!(next("WRONG").chars().all(|c| !c.is_control()));
    let pid = watch.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(watch.wait().unwrap().code(), Some(1));
}

#[test]
fn a_full_state_server_is_a_failure_for_everybody_who_asks() {
    let args = [
        "--workers",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--max-memory",
        "1MiB",
    ];
    let server = Program::start(&[&["state-server"], &args[..]].concat());
    let proxy = ProxyFiles::new(&[server.address], QUICK).serve();
    let mut client = Client::connect(proxy.address);
    let mut store = |number: u32| {
        let id = format!("q3m1zt0xk4vdw2hn5sby{number:04}");
        status(&client.ask(&put(&id, 0, &[7; 100_000]))).to_owned()
    };
    let answers: Vec<_> = (0..20).map(&mut store).collect();
    assert_eq!(answers[0], "200");
    let refused = answers.iter().filter(|answer| *answer == "400").count();
    assert!(refused >= 5, "{answers:?}");

    let found = wait_for(proxy.admin(), "it is found", |status| {
        let finding = &status["findings"][0];
        let says = finding["says"].as_str().unwrap_or_default();
        // A sample may have come between two of them.
        finding["code"] == "backend_refuses" && says.contains(&refused.to_string())
    });
    let finding = &found["findings"][0];
    assert_eq!(finding["about"], "state-1");
    assert_eq!(finding["level"], "critical");
    let (code, stdout, _) = run(&["status", "--admin", &proxy.admin().to_string()]);
    assert_eq!(code, Some(1), "{stdout}");
    let history: Value = serde_json::from_str(&ask_page(proxy.admin(), "/history")).unwrap();
    let samples = history["samples"].as_array().unwrap().iter();
    let failed: u64 = samples.filter_map(|sample| sample["failed"].as_u64()).sum();
    assert_eq!(failed, refused as u64);
    let metrics = Scrape::of(proxy.admin());
    let series = "staterouter_findings{code=\"backend_refuses\",level=\"critical\"}";
    assert_eq!(metrics.value(series), 1.0);
    // Every proxy has this backend: going around this one would help nobody.
    assert_eq!(admin::get(proxy.admin(), "/readyz").0, 200);
    let log = proxy.stop();
    assert!(log.contains("refused the request with status 400"), "{log}");
}
