//! The embedded state server over sockets: bodies nobody has a use for or room for, slow peers,
//! several workers over one store, and its limits on connections.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use staterouter::config::AllowList;
use staterouter::net::{ConnectionCap, Listeners, Running, ServeOptions, spawn_workers};
use staterouter::state_server::{BodyBudget, ServerClock, StateOptions, StateService};
use staterouter::store::{MemoryStore, SessionStore, StoreOptions};
use staterouter::wire::HeadLimits;

use crate::support::answers::{BAD_REQUEST, DONE, item};
use crate::support::backend::ABSENT;
use crate::support::client::{Client, acquire, body, delete, get, put, status, target};
use crate::support::system::{peak_resident_bytes, resident_bytes, wait_until, wait_until_read};
use crate::support::{Program, run};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// A state server with two workers and `extra` options.
fn server(extra: &[&str]) -> Program {
    let mut args = vec!["state-server", "--listen", "127.0.0.1:0", "--workers", "2"];
    args.extend(extra);
    Program::start(&args)
}

fn with_body(method: &str, body: &[u8]) -> Vec<u8> {
    let (target, length) = (target(ID), body.len());
    let head = format!("{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_body_of_anything_but_a_put_is_thrown_away_as_it_comes() {
    const BODY_BYTES: usize = 48 << 20;
    const MAX_GROWTH_BYTES: u64 = 16 << 20;
    let server = server(&[]);
    let mut client = Client::connect(server.address);
    client.send(&get(ID));
    assert_eq!(client.answer_to(false), ABSENT);
    let peak_before = peak_resident_bytes(server.id());
    let body = vec![b'x'; BODY_BYTES];
    for (method, expected) in [
        ("GET", ABSENT),
        ("HEAD", ABSENT),
        ("DELETE", ABSENT),
        ("PATCH", BAD_REQUEST),
    ] {
        let mut requests = with_body(method, &body);
        requests.extend_from_slice(&get(ID));
        client.send(&requests);
        assert_eq!(client.answer_to(method == "HEAD"), expected, "{method}");
        assert_eq!(client.answer_to(false), ABSENT, "behind {method}");
    }
    // What the program itself takes differs from build to build.
    let growth = peak_resident_bytes(server.id()) - peak_before;
    assert!(growth < MAX_GROWTH_BYTES, "{growth} bytes of memory");
}

#[test]
fn bodies_that_are_arriving_share_one_bound_over_all_connections() {
    let server = server(&["--max-body", "1MiB", "--max-memory", "2MiB"]);
    let store = put(ID, 0, &[b'x'; 900_000]);
    let (most, last) = store.split_at(store.len() - 1);
    let mut first = Client::connect(server.address);
    first.send(most);
    wait_until_read([&first.stream]);
    // Enough of them that each worker has some.
    for _ in 0..8 {
        let mut refused = Client::connect(server.address);
        refused.send(&store);
        assert_eq!(refused.until_closed(), BAD_REQUEST);
    }
    // What needs no memory goes on.
    let mut other = Client::connect(server.address);
    assert_eq!(other.ask(&with_body("DELETE", &[b'x'; 900_000])), ABSENT);
    first.send(last);
    assert_eq!(first.answer_to(false), DONE);
    assert_eq!(other.ask(&store), DONE);
    assert_eq!(first.ask(&get(ID)), item(&[b'x'; 900_000]));

    first.send(most);
    wait_until_read([&first.stream]);
    first.close();
    wait_until("the memory of a client that left is free", || {
        let mut next = Client::connect(server.address);
        next.send(&store);
        next.finish_sending();
        next.until_closed() == DONE
    });
    let log = server.stop();
    assert!(log.contains("no memory for the body"), "{log}");
}

/// A state server in this process that gives up on a peer after `stall` without progress.
fn impatient_server(stall: Duration) -> Running {
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    serve(listeners, stall)
}

fn serve(listeners: Listeners, stall: Duration) -> Running {
    let store = Arc::new(MemoryStore::new(&StoreOptions::new([0; 16])));
    serve_from(store, listeners, stall)
}

/// The service over any store.
pub(crate) fn serve_from<S: SessionStore + Send + Sync>(
    store: Arc<S>,
    listeners: Listeners,
    stall: Duration,
) -> Running {
    let state = StateOptions {
        store,
        body_budget: BodyBudget::new(u64::MAX),
        clock: Arc::new(ServerClock::default()),
        allow: AllowList::default(),
        head_limits: HeadLimits::default(),
        idle: Duration::from_secs(60),
        stall,
    };
    let serve = ServeOptions {
        thread_name: "state",
        buffer_bytes: 64 * 1024,
        cap: ConnectionCap::new(100),
        accept_wait: Duration::from_secs(1),
        shutdown: Duration::from_secs(10),
        tls: None,
    };
    spawn_workers(listeners, &serve, move |worker| {
        StateService::new(worker, state.clone())
    })
    .unwrap()
}

/// Two connections are waiting when the only worker begins: one with more requests than may be
/// answered in one go, another with a look at what the last of them stores.
#[test]
fn who_sends_many_requests_at_once_holds_up_nobody_else() {
    const REQUESTS: usize = 240;
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let (mut busy, mut other) = (
        Client::connect(listeners.address),
        Client::connect(listeners.address),
    );
    let id = |number: usize| format!("{number:024}");
    let requests: Vec<u8> = (0..REQUESTS).flat_map(|n| put(&id(n), 0, b"x")).collect();
    assert!(requests.len() < 64 * 1024, "they come in one read");
    busy.send(&requests);
    other.send(&get(&id(REQUESTS - 1)));
    let running = serve(listeners, Duration::from_secs(60));
    assert_eq!(other.answer_to(false), ABSENT);
    for _ in 0..REQUESTS {
        assert_eq!(busy.answer_to(false), DONE);
    }
    other.send(&get(&id(REQUESTS - 1)));
    assert_eq!(status(&other.answer_to(false)), "200");
    running.stop();
}

/// Whether the peer has left the connection open, without an answer, for a pause.
fn pauses(stream: &mut TcpStream) -> bool {
    let read = stream.read(&mut [0; 1]);
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_body_that_trickles_is_given_up() {
    // At the pace below it would take ten seconds.
    const BODY_BYTES: usize = 1_000;
    let server = impatient_server(Duration::from_millis(200));
    for method in ["PUT", "DELETE"] {
        let request = with_body(method, &[b'x'; BODY_BYTES]);
        let (head, body) = request.split_at(request.len() - BODY_BYTES);
        let mut client = Client::connect(server.address);
        client.send(head);
        let pace = Duration::from_millis(10);
        client.stream.set_read_timeout(Some(pace)).unwrap();
        let mut body = body.iter();
        while pauses(&mut client.stream) {
            let byte = body.next();
            if client.stream.write_all(&[*byte.unwrap()]).is_err() {
                break;
            }
        }
        assert_ne!(body.len(), 0, "{method}: it was waited for all of it");
    }
    server.stop();
}

#[test]
fn an_answer_that_is_read_slowly_is_not_cut_off_while_it_is_read() {
    const BODY_BYTES: usize = 16 << 20;
    // Reading at the pace below takes longer than the server waits without progress.
    let stall = Duration::from_secs(5);
    let (pace, part_bytes) = (Duration::from_millis(50), 128 * 1024);
    let server = impatient_server(stall);
    let body = vec![b'x'; BODY_BYTES];
    assert_eq!(
        Client::connect(server.address).ask(&put(ID, 0, &body)),
        DONE
    );

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // What the kernel takes ahead of the reader needs no patience.
    socket.set_recv_buffer_size(1 << 20).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut reader = TcpStream::from(socket);
    reader.write_all(&get(ID)).unwrap();
    let mut silent = Client::connect(server.address);
    silent.stream.set_read_timeout(Some(pace)).unwrap();
    let expected = item(&body);
    let mut answer = Vec::new();
    while answer.len() < expected.len() {
        assert!(pauses(&mut silent.stream));
        let so_far = answer.len();
        let part_bytes = part_bytes.min(expected.len() - so_far);
        let part = (&mut reader)
            .take(part_bytes as u64)
            .read_to_end(&mut answer);
        part.unwrap();
        assert_ne!(answer.len(), so_far, "cut off after {so_far} bytes");
    }
    assert!(answer == expected);
    server.stop();
}

#[test]
fn what_one_connection_stores_is_read_over_all_others() {
    const CONNECTIONS: usize = 64;
    let server = server(&[]);
    let mut clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| Client::connect(server.address))
        .collect();
    let id = |number: usize| format!("session{number:017}");
    for (number, client) in clients.iter_mut().enumerate() {
        let contents = number.to_string();
        assert_eq!(client.ask(&put(&id(number), 0, contents.as_bytes())), DONE);
    }
    for client in &mut clients {
        for number in 0..CONNECTIONS {
            let expected = item(number.to_string().as_bytes());
            assert_eq!(client.ask(&get(&id(number))), expected);
        }
    }
}

/// Each writer reads a number under the lock and stores the next one: without mutual exclusion
/// some of the steps would be lost.
#[test]
fn a_lock_excludes_the_connections_of_all_workers() {
    const WRITERS: usize = 16;
    const STEPS_EACH: u32 = 25;
    let server = server(&[]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"0")), DONE);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            let mut client = Client::connect(server.address);
            scope.spawn(move || (0..STEPS_EACH).for_each(|_| step(&mut client)));
        }
    });
    let expected = item((WRITERS as u32 * STEPS_EACH).to_string().as_bytes());
    assert_eq!(client.ask(&get(ID)), expected);
}

fn step(client: &mut Client) {
    loop {
        let answer = client.ask(&acquire(ID));
        if status(&answer) == "423" {
            std::thread::yield_now();
            continue;
        }
        let number: u32 = str::from_utf8(body(&answer)).unwrap().parse().unwrap();
        let next = (number + 1).to_string();
        let store = put(ID, lock_cookie(&answer), next.as_bytes());
        assert_eq!(client.ask(&store), DONE);
        return;
    }
}

fn lock_cookie(answer: &[u8]) -> u32 {
    let text = str::from_utf8(answer).unwrap();
    let cookie = text
        .lines()
        .find_map(|line| line.strip_prefix("LockCookie: "));
    cookie.unwrap().parse().unwrap()
}

#[test]
fn no_more_connections_are_served_than_files_may_be_open() {
    const OPEN_FILES: usize = 160;
    let program = env!("CARGO_BIN_EXE_staterouter");
    let line = format!(
        "ulimit -n {OPEN_FILES}; \
         exec '{program}' state-server --listen 127.0.0.1:0 --workers 1 --max-connections 100000"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("listening on ").unwrap();
    let address = address.parse().unwrap();
    // Those within the cap are served, those above it are closed: none is left in the queue of a
    // process that cannot accept.
    let clients: Vec<_> = (0..OPEN_FILES).map(|_| Client::connect(address)).collect();
    let served = clients
        .into_iter()
        .map(|mut client| {
            // Being refused can be faster than sending.
            let _ = client.stream.write_all(&get(ID));
            let answered = client.stream.peek(&mut [0; 1]).is_ok_and(|count| count > 0);
            (client, answered)
        })
        .collect::<Vec<_>>();
    let served = served.iter().filter(|(_, answered)| *answered).count();
    child.kill().unwrap();
    let log = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(0 < served && served < OPEN_FILES, "{served} served");
    assert!(log.contains(&format!("connections={served} ")), "{log}");
    assert!(log.contains("LimitNOFILE"), "{log}");
    assert!(!log.contains("cannot accept"), "{log}");
}

#[test]
fn a_server_without_a_single_connection_is_wrong_usage() {
    let (code, stdout, stderr) = run(&["state-server", "--max-connections", "0"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("--max-connections"), "{stderr}");
}

#[test]
fn its_status_page_says_what_it_holds() {
    let server = server(&["--admin", "127.0.0.1:0", "--max-memory", "1MiB"]);
    let admin = server.admin();
    let status = || support::admin::status(admin);
    assert_eq!(
        (&status()["sessions"], &status()["session_bytes"]),
        (&0.into(), &0.into())
    );

    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 300])), DONE);
    assert_eq!(
        client.ask(&put("b5k2ye1tqz0mh3wdcx4nvs1g", 0, &[b'x'; 50])),
        DONE
    );
    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 100])), DONE);
    let held = status();
    assert_eq!(
        (&held["sessions"], &held["session_bytes"]),
        (&2.into(), &150.into())
    );
    assert!(held["memory_bytes"].as_u64().unwrap() > 150);
    assert_eq!(held["max_memory_bytes"], 1 << 20);

    for (path, code) in [("/healthz", 200), ("/metrics", 200), ("/reload", 404)] {
        assert_eq!(support::admin::get(admin, path).0, code, "{path}");
    }
    assert_eq!(support::admin::post(admin, "/status", "").0, 405);
}

/// The C library's allocator would keep nearly all of it.
#[test]
fn memory_of_sessions_that_ended_is_given_back() {
    const SESSIONS: usize = 12_000;
    const PER_TURN: usize = 100;
    let server = server(&[]);
    let id = |number: usize| format!("{number:024}");
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(server.address)).collect();
    let count = clients.len();
    let mut all = |request: &dyn Fn(usize) -> Vec<u8>| {
        for first in (0..SESSIONS).step_by(PER_TURN) {
            let client = &mut clients[first / PER_TURN % count];
            let numbers = first..first + PER_TURN;
            client.send(&numbers.flat_map(request).collect::<Vec<_>>());
            for _ in 0..PER_TURN {
                assert_eq!(client.answer_to(false), DONE);
            }
        }
    };
    let idle = resident_bytes(server.id());
    all(&|number| put(&id(number), 0, &[b'x'; 4000]));
    let full = resident_bytes(server.id()) - idle;
    assert!(full > 4000 * SESSIONS as u64);
    all(&|number| delete(&id(number), 0));
    wait_until("most of the memory is given back", || {
        resident_bytes(server.id()).saturating_sub(idle) < full / 3
    });
}
