//! Every fixture of the protocol over real sockets: against a state server directly, and through
//! the proxy in front of three of them. Both must answer the same bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

mod support;

use serde_json::Value;
use staterouter::wire::{self, Operation, Request};
use support::client::Client;
use support::{Program, proxy, vectors};

#[test]
fn vectors_hold_against_the_state_server() {
    let server = Program::state_server();
    run_vectors(&server);
}

#[test]
fn vectors_hold_through_the_proxy() {
    let servers = [(); 3].map(|()| Program::state_server());
    run_vectors(&proxy(&servers.each_ref().map(|server| server.address), ""));
}

#[test]
fn scenarios_hold_against_the_state_server() {
    for scenario in vectors::read("scenarios.jsonl") {
        run_scenario(&Program::state_server(), &scenario);
    }
}

#[test]
fn scenarios_hold_through_the_proxy() {
    for scenario in vectors::read("scenarios.jsonl") {
        let servers = [(); 3].map(|()| Program::state_server());
        run_scenario(
            &proxy(&servers.each_ref().map(|server| server.address), ""),
            &scenario,
        );
    }
}

/// All vectors against one server: before each, its keys are brought into the state it wants.
fn run_vectors(server: &Program) {
    let vectors = vectors::read("wire.jsonl");
    assert!(vectors.len() >= 42, "only {} vectors", vectors.len());
    for vector in &vectors {
        let mut client = Client::connect(server.address);
        clear(&mut client, vector);
        for item in vector["given"].as_array().unwrap() {
            build(&mut client, item);
        }
        let request = vectors::bytes(&vector["request"]);
        let answer = client.ask(&request);
        let expected = vectors::bytes(&vector["response"]);
        assert!(
            vectors::matches(&expected, &answer),
            "{}: expected {:?}, got {:?}",
            vector["name"],
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&answer)
        );
        check_body(&mut client, vector);
    }
}

/// Removes what an earlier vector left under the key of this one.
fn clear(client: &mut Client, vector: &Value) {
    let request = vectors::bytes(&vector["request"]);
    let line = request.split(|&byte| byte == b'\r').next().unwrap();
    let first = line.iter().position(|&byte| byte == b' ').unwrap();
    let last = line.iter().rposition(|&byte| byte == b' ').unwrap();
    remove(client, &line[first + 1..last]);
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
        ask(client, Operation::Acquire, target, 0, 0, b"");
        if taken < cookie || !locked {
            ask(client, Operation::Release, target, taken, 0, b"");
        }
    }
}

/// Reads back what `then` says is stored; a locked item shows its cookie instead.
fn check_body(client: &mut Client, vector: &Value) {
    for item in vector["then"].as_array().unwrap() {
        let target = target_of(item);
        let answer = ask(client, Operation::Get, target.as_bytes(), 0, 0, b"");
        if item["locked"].as_bool().unwrap() {
            assert!(answer.starts_with(b"423"), "{}", vector["name"]);
            assert_eq!(
                header(&answer, "LockCookie").map(u64::from),
                item["cookie"].as_u64()
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

fn run_scenario(server: &Program, scenario: &Value) {
    let targets = vectors::read("targets.jsonl");
    let first = targets[0]["raw"].as_str().unwrap();
    let second = first.replace("q3m1zt0xk4vdw2hn5sbyr0ac", "b5k2ye1tqz0mh3wdcx4nvs1g");
    // Each web request has a connection of its own, as its turn in the pool may give it.
    let mut clients = std::collections::HashMap::new();
    for step in scenario["steps"].as_array().unwrap() {
        let by = step["by"].as_str().unwrap();
        let client = clients
            .entry(by)
            .or_insert_with(|| Client::connect(server.address));
        let text = step["request"]
            .as_str()
            .unwrap()
            .replace("{T1}", first)
            .replace("{T2}", &second);
        let answer = client.ask(&vectors::bytes(&Value::String(text)));
        let expected = vectors::bytes(&step["response"]);
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
