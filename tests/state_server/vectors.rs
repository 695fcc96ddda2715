//! Every fixture of the protocol over real sockets: against a state server directly, and through
//! the proxy in front of three of them. Both must answer the same bytes, but that the proxy tags
//! lock cookies.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use crate::support::client::Client;
use crate::support::tags::{tag, with_cookie};
use crate::support::{Program, ProxyFiles, vectors};
use serde_json::Value;
use staterouter::config;
use staterouter::route::{KeyBuffer, Placement, extract};
use staterouter::wire::{self, Operation, Request};

#[test]
fn vectors_hold_against_the_state_server() {
    run_vectors(&Server::alone());
}

#[test]
fn vectors_hold_through_the_proxy() {
    run_vectors(&Server::behind_proxy());
}

#[test]
fn scenarios_hold_against_the_state_server() {
    for scenario in vectors::read("scenarios.jsonl") {
        run_scenario(&Server::alone(), &scenario);
    }
}

#[test]
fn scenarios_hold_through_the_proxy() {
    for scenario in vectors::read("scenarios.jsonl") {
        run_scenario(&Server::behind_proxy(), &scenario);
    }
}

/// A state server, or what looks like one.
struct Server {
    program: Program,
    /// Which backend a proxy asks; `None` without a proxy.
    placement: Option<Placement>,
    _backends: Vec<Program>,
}

impl Server {
    fn alone() -> Self {
        Self {
            program: Program::state_server(),
            placement: None,
            _backends: Vec::new(),
        }
    }

    fn behind_proxy() -> Self {
        let backends: Vec<_> = (0..3).map(|_| Program::state_server()).collect();
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let files = ProxyFiles::new(&addresses, "");
        let loaded = config::load(files.config().as_ref()).unwrap();
        Self {
            placement: Some(loaded.partition_map.placement().unwrap()),
            program: files.serve(),
            _backends: backends,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.program.address)
    }

    /// The server's lock `counter` for `target` as clients know it.
    fn cookie(&self, target: &[u8], counter: u32) -> u32 {
        let Some(placement) = &self.placement else {
            return counter;
        };
        let mut buffer = KeyBuffer::new();
        let key = extract(target, &mut buffer).unwrap();
        let owner = placement.owner(placement.slot(key.session_id())).index();
        tag(owner as u8 + 1, counter)
    }

    /// A fixture's request as a client sends it that got the lock in it from this server.
    fn request(&self, request: &[u8]) -> Vec<u8> {
        with_cookie(request, |counter| match counter {
            0 => 0,
            _ => self.cookie(target_in(request), counter),
        })
    }

    /// A fixture's answer to `request` as a client of this server sees it.
    fn answer(&self, request: &[u8], answer: &[u8]) -> Vec<u8> {
        with_cookie(answer, |counter| self.cookie(target_in(request), counter))
    }
}

/// The target in a request.
fn target_in(request: &[u8]) -> &[u8] {
    let line = request.split(|&byte| byte == b'\r').next().unwrap();
    let first = line.iter().position(|&byte| byte == b' ').unwrap();
    let last = line.iter().rposition(|&byte| byte == b' ').unwrap();
    &line[first + 1..last]
}

/// All vectors against one server: before each, its keys are brought into the state it wants.
fn run_vectors(server: &Server) {
    let vectors = vectors::read("wire.jsonl");
    assert!(vectors.len() >= 42, "only {} vectors", vectors.len());
    for vector in &vectors {
        let mut client = server.connect();
        let request = vectors::bytes(&vector["request"]);
        // What an earlier vector left under the key of this one.
        remove(&mut client, target_in(&request));
        for item in vector["given"].as_array().unwrap() {
            build(&mut client, item);
        }
        let answer = client.ask(&server.request(&request));
        let expected = server.answer(&request, &vectors::bytes(&vector["response"]));
        assert!(
            vectors::matches(&expected, &answer),
            "{}: expected {:?}, got {:?}",
            vector["name"],
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&answer)
        );
        check_body(server, &mut client, vector);
    }
}

/// Takes the lock away if there is one, then removes the item.
fn remove(client: &mut Client, target: &[u8]) {
    let locked = ask(client, Operation::Acquire, target, 0, 0, b"");
    let cookie = header(&locked, "LockCookie").unwrap_or(0);
    ask(client, Operation::Remove, target, cookie, 0, b"");
}

/// Brings an item into the `given` state by operations of the protocol alone.
fn build(client: &mut Client, item: &Value) {
    let target = target_of(item);
    let target = target.as_bytes();
    remove(client, target);
    let cookie = item["cookie"].as_u64().unwrap() as u32;
    let (locked, uninit) = (
        item["locked"].as_bool().unwrap(),
        item["uninit"].as_bool().unwrap(),
    );
    let body = vectors::bytes(&item["body"]);
    assert_eq!(item["timeout"], 20, "the helper stores with 20 minutes");
    assert!(!uninit || cookie == 1, "only a fresh item is uninitialised");
    ask(client, Operation::Put, target, 0, u32::from(uninit), &body);
    for taken in 2..=cookie {
        let lock = ask(client, Operation::Acquire, target, 0, 0, b"");
        let lock = header(&lock, "LockCookie").unwrap();
        if taken < cookie || !locked {
            ask(client, Operation::Release, target, lock, 0, b"");
        }
    }
}

/// Reads back what `then` says is stored; a locked item shows its cookie instead.
fn check_body(server: &Server, client: &mut Client, vector: &Value) {
    for item in vector["then"].as_array().unwrap() {
        let target = target_of(item);
        let answer = ask(client, Operation::Get, target.as_bytes(), 0, 0, b"");
        if item["locked"].as_bool().unwrap() {
            assert!(answer.starts_with(b"423"), "{}", vector["name"]);
            let counter = item["cookie"].as_u64().unwrap() as u32;
            assert_eq!(
                header(&answer, "LockCookie").unwrap(),
                server.cookie(target.as_bytes(), counter)
            );
        } else {
            let body = support::client::body(&answer);
            assert_eq!(body, vectors::bytes(&item["body"]), "{}", vector["name"]);
            let flag = header(&answer, "ActionFlags") == Some(1);
            assert_eq!(
                flag,
                item["uninit"].as_bool().unwrap(),
                "{}",
                vector["name"]
            );
            assert_eq!(
                header(&answer, "Timeout").map(u64::from),
                item["timeout"].as_u64()
            );
        }
    }
}

/// The item's key as a request target, every byte encoded.
fn target_of(item: &Value) -> String {
    item["key"]
        .as_str()
        .unwrap()
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect()
}

fn run_scenario(server: &Server, scenario: &Value) {
    let targets = vectors::read("targets.jsonl");
    let first = targets[0]["raw"].as_str().unwrap();
    let second = first.replace("q3m1zt0xk4vdw2hn5sbyr0ac", "b5k2ye1tqz0mh3wdcx4nvs1g");
    // Each web request has a connection of its own, as its turn in the pool may give it.
    let mut clients = std::collections::HashMap::new();
    for step in scenario["steps"].as_array().unwrap() {
        let by = step["by"].as_str().unwrap();
        let client = clients.entry(by).or_insert_with(|| server.connect());
        let text = step["request"]
            .as_str()
            .unwrap()
            .replace("{T1}", first)
            .replace("{T2}", &second);
        let request = vectors::bytes(&Value::String(text));
        let answer = client.ask(&server.request(&request));
        let expected = server.answer(&request, &vectors::bytes(&step["response"]));
        assert!(
            vectors::matches(&expected, &answer),
            "{}: expected {:?}, got {:?}",
            scenario["name"],
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&answer)
        );
    }
}

fn ask(
    client: &mut Client,
    operation: Operation,
    target: &[u8],
    lock_cookie: u32,
    extra_flags: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut request = Vec::new();
    wire::encode_request(
        &mut request,
        &Request {
            operation,
            target,
            lock_cookie,
            timeout_minutes: 20,
            extra_flags,
            body,
        },
    );
    client.ask(&request)
}

fn header(answer: &[u8], name: &str) -> Option<u32> {
    let head = String::from_utf8_lossy(answer).into_owned();
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
    value.parse().ok()
}
