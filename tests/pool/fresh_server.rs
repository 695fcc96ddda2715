//! A server that was given up, at another address: outdated until an operator says that it is fresh.

use std::net::SocketAddr;

use socket2::Socket;

use crate::support::admin::{self, backend, wait_for, wait_for_finding};
use crate::support::client::{Client, body, get, put, status};
use crate::support::sessions::owned_by;
use crate::support::system::hold_port;
use crate::support::{Program, ProxyFiles, run};

/// A proxy over two state servers, and sessions of the second, which listens at every loopback
/// address.
struct Scene {
    proxy: Program,
    files: ProxyFiles,
    /// The partition map of version 1.
    map: String,
    ids: Vec<String>,
    at_first: SocketAddr,
    later: SocketAddr,
    server: Option<Program>,
    _other: Program,
    _port: Socket,
}

impl Scene {
    fn start() -> Self {
        let other = Program::state_server();
        let (port, at_first) = hold_port();
        let later = SocketAddr::from(([127, 0, 0, 2], at_first.port()));
        let backends = [other.address, at_first];
        let files = ProxyFiles::new(&backends, "health: {interval: 100ms}");
        let mut scene = Self {
            server: None,
            proxy: files.start(),
            map: files.read("map.yaml"),
            files,
            ids: owned_by(1, 2, 47, 14),
            at_first,
            later,
            _other: other,
            _port: port,
        };
        scene.start_server_empty();
        scene
    }

    fn start_server_empty(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let everywhere = format!("0.0.0.0:{}", self.at_first.port());
        let args = ["state-server", "--workers", "1", "--allow", "127.0.0.0/8"];
        self.server = Some(Program::start(
            &[&args[..], &["--listen", &everywhere]].concat(),
        ));
    }

    fn admin(&self) -> SocketAddr {
        self.proxy.admin()
    }

    /// Puts the next version of the map in force.
    fn change(&self, version: u64, address: SocketAddr, state: &str) {
        let line = "state-2, id: 2,";
        let map = self
            .map
            .replace("version: 1", &format!("version: {version}"))
            .replace(&self.at_first.to_string(), &address.to_string())
            .replace(line, &format!("{line} state: {state},"));
        self.files.replace("map.yaml", &map);
        let (_, outcome) = admin::reload(self.admin());
        assert_eq!(outcome["map_version"], version, "{outcome}");
    }

    fn store(&self, contents: &[u8]) {
        let mut client = Client::connect(self.proxy.address);
        for id in &self.ids {
            assert_eq!(status(&client.ask(&put(id, 0, contents))), "200");
        }
    }

    #[track_caller]
    fn assert_contents(&self, contents: &[u8]) {
        let mut client = Client::connect(self.proxy.address);
        for id in &self.ids {
            let answer = client.ask(&get(id));
            assert_eq!((status(&answer), body(&answer)), ("200", contents));
        }
    }

    /// Exit code and output of an order about the second backend.
    fn order(&self, order: &[&str]) -> (Option<i32>, String) {
        let admin = self.admin().to_string();
        let args = ["backend", "state-2", "--admin", &admin];
        let (code, stdout, stderr) = run(&[&args[..], order].concat());
        (code, stdout + &stderr)
    }

    /// It was given up, its sessions went on elsewhere, and it is wanted again at another address.
    fn bring_back_elsewhere(&self) {
        self.store(b"before");
        self.change(2, self.at_first, "off");
        wait_for(self.admin(), "it is left", |status| {
            backend(status, "state-2")["slots_first"] == 0
        });
        self.store(b"after");
        self.change(3, self.later, "off");
        self.change(4, self.later, "active");
        wait_for(self.admin(), "it answers at its new address", |status| {
            let known = backend(status, "state-2");
            known["verdict"] == "up" && known["address_in_use"] == self.later.to_string()
        });
    }
}

#[test]
fn a_server_that_was_given_up_is_outdated_at_another_address_too() {
    let scene = Scene::start();
    scene.bring_back_elsewhere();
    let found = wait_for_finding(scene.admin(), "backend_held_back");
    let action = found["action"].as_str().unwrap_or_default();
    let command = "staterouter backend state-2 activate --fresh";
    assert!(action.contains(command), "{action}");
    let status = admin::status(scene.admin());
    let known = backend(&status, "state-2");
    assert_eq!(known["slots_waiting"], known["slots_owned"], "{known}");
    scene.assert_contents(b"after");
}

#[test]
fn a_server_that_is_said_to_be_fresh_gets_its_share_at_once() {
    let mut scene = Scene::start();
    scene.bring_back_elsewhere();
    scene.start_server_empty();
    let (code, output) = scene.order(&["activate", "--fresh"]);
    assert_eq!(code, Some(1), "{output}");
    for wanted in ["as outdated sessions", "nothing was ordered", "--yes"] {
        assert!(output.contains(wanted), "{output}");
    }
    let (code, output) = scene.order(&["activate", "--fresh", "--yes"]);
    assert_eq!(code, Some(0), "{output}");
    wait_for(scene.admin(), "it gets its share", |status| {
        let owned = &backend(status, "state-2")["slots_owned"];
        owned != 0 && status["slots"]["settle"] == *owned
    });
    scene.assert_contents(b"after");
    let (code, output) = scene.order(&["off", "--fresh"]);
    assert_eq!(code, Some(2), "{output}");
}
