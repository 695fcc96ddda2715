//! `staterouter status` against running proxies.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::admin::{backend, wait_for};
use crate::support::system::hold_port;
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
