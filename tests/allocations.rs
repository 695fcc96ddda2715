//! A request on a steady slot allocates nothing. A binary of its own: its allocator counts.
#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::{fs, thread};

use staterouter::app::{engines, proxy_server};
use staterouter::config;
use staterouter::control::ControlOptions;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 2000;

const TARGET: &str = "%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2fq3m1zt0xk4vdw2hn5sbyr0ac";

#[test]
fn a_request_on_a_steady_slot_allocates_nothing() {
    let backend = backend();
    let files = tempfile::tempdir().unwrap();
    let (main, map) = (
        files.path().join("main.yaml"),
        files.path().join("map.yaml"),
    );
    let backends = format!("backends:\n  - {{name: a, id: 1, address: \"{backend}\"}}\n");
    fs::write(&map, format!("version: 1\n{backends}")).unwrap();
    let text = "listen: 127.0.0.1:0\nworkers: 1\npartition_map: map.yaml\nadmin: {listen: off}\n";
    fs::write(&main, text).unwrap();
    let loaded = config::load(&main).unwrap();
    let running = proxy_server::start(ControlOptions {
        config: loaded.config,
        map: loaded.partition_map,
        main_file: None,
        level: None,
        certificates: Default::default(),
        engines: engines::connector,
    });
    let running = running.unwrap();
    let mut client = TcpStream::connect(running.address).unwrap();
    client.set_nodelay(true).unwrap();
    let body = "x".repeat(2048);
    let requests = [
        format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nExclusive: acquire\r\n\r\n"),
        format!(
            "PUT {TARGET} HTTP/1.1\r\nHost: localhost\r\nTimeout:20\r\nContent-Length:2048\r\n\
             ExtraFlags:0\r\nLockCookie:7\r\n\r\n{body}"
        ),
        format!("HEAD {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ];
    let mut rounds = |count| {
        for request in requests.iter().cycle().take(count * requests.len()) {
            client.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 4096];
            assert!(client.read(&mut answer).unwrap() > 0);
            assert!(answer.starts_with(b"200 OK\r\n"));
        }
    };
    rounds(10);
    let before = ALLOCATOR.stats();
    rounds(ROUNDS);
    let counted = ALLOCATOR.stats() - before;
    running.stop();
    // Control goes on beside it: it probes the backend, adds up the account.
    let allocations = counted.allocations + counted.reallocations;
    assert!(allocations < ROUNDS, "{allocations} in {ROUNDS} rounds");
}

/// A state server that answers everything with 200 and allocates nothing per request.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || answer_all(stream));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) {
    const DONE: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nCache-Control: private\r\n\
        Content-Length: 0\r\n\r\n";
    const LOCKED: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nLockCookie: 7\r\n\
        Timeout: 20\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n";
    const ITEM: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nTimeout: 20\r\n\
        Cache-Control: private\r\nContent-Length: 0\r\n\r\n";
    let mut request = [0; 4096];
    // Nothing here is longer than a segment on loopback, so a read gets a whole request.
    while let Ok(1..) = stream.read(&mut request) {
        let is_acquire = request.windows(8).any(|part| part == b" acquire");
        let answer = match request.starts_with(b"GET ") {
            true if is_acquire => LOCKED,
            true => ITEM,
            false => DONE,
        };
        let sent = stream.write_all(answer);
        request.fill(0);
        if sent.is_err() {
            return;
        }
    }
}
