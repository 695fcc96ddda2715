//! The proxy in front of real state servers: who notices that one dies or hangs, what is back
//! when it is back, and that locks and placement hold under many clients.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::client::{self, Client};
use crate::support::{Program, operations, proxy, sessions};
use socket2::{Domain, Socket, Type};

/// Attempts before a test gives up on a service that should be back. Each is a round trip.
const MAX_ATTEMPTS: usize = 10_000;

#[test]
fn a_killed_server_costs_its_own_sessions_only_and_serves_again_once_it_is_back() {
    let [first, killed, third] = [(); 3].map(|()| Program::state_server());
    let address = killed.address;
    let alone = "handover: {failover: off, hold: 0s}";
    let proxy = proxy(&[first.address, address, third.address], alone);
    let increments = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let others = [owned_by(0, 2), owned_by(2, 2)].concat();
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        let survivors: Vec<_> = others
            .iter()
            .map(|id| {
                let (increments, stop) = (&increments, &stop);
                scope.spawn(move || work_until(proxy.address, id, increments, stop))
            })
            .collect();
        wait_for_more(50, &increments, &stop);

        let lost = owned_by(1, 3);
        let mut connected: Vec<Client> = lost.iter().map(|id| create(proxy.address, id)).collect();
        let _port = hold_port(address);
        killed.kill();
        for (client, id) in connected.iter_mut().zip(&lost) {
            client.send(&client::get(id));
            assert_nothing(client, "a connection from before");
        }
        for id in &lost {
            for exchange in operations::all_on(2, id) {
                let mut client = Client::connect(proxy.address);
                client.send(&exchange.request.client);
                assert_nothing(&mut client, "a new connection");
            }
        }
        wait_for_more(50, &increments, &stop);

        let address_text = address.to_string();
        let _back = Program::start(&["state-server", "--listen", &address_text, "--workers", "1"]);
        for id in &lost {
            // It lost its memory, and says so itself.
            let mut client = connection_that_answers(proxy.address, id, "404");
            assert_eq!(
                client::status(&client.ask(&client::put(id, 0, b"new"))),
                "200"
            );
            assert_eq!(client::body(&client.ask(&client::get(id))), b"new");
        }
        wait_for_more(50, &increments, &stop);
        stop.store(true, Ordering::Relaxed);
        let counted: u64 = survivors.into_iter().map(|one| one.join().unwrap()).sum();
        assert_eq!(counted, increments.load(Ordering::Relaxed));
    });
}

#[test]
fn a_hanging_server_costs_its_own_sessions_only_and_leaves_no_lock_that_was_not_asked_for() {
    let servers = [(); 3].map(|()| Program::state_server());
    let addresses = servers.each_ref().map(|server| server.address);
    // What is not to fail goes through one that waits for as long as it may take.
    let patient = proxy(&addresses, "");
    let proxy = proxy(&addresses, "timeouts: {connect: 200ms, answer: 300ms}");
    let (hanging, other) = (owned_by(1, 8), &owned_by(0, 1)[0]);
    let (read, acquired) = hanging.split_at(4);
    for id in hanging.iter().chain([other]) {
        create(patient.address, id);
    }

    servers[1].signal("STOP");
    wait_until_stopped(&servers[1]);
    let ask = |id: &String, request: fn(&str) -> Vec<u8>| {
        let mut client = Client::connect(proxy.address);
        client.send(&request(id));
        client
    };
    let mut waiting: Vec<Client> = Vec::new();
    waiting.extend(read.iter().map(|id| ask(id, client::get)));
    waiting.extend(read.iter().map(|id| ask(id, client::head)));
    waiting.extend(acquired.iter().map(|id| ask(id, client::acquire)));
    let mut meanwhile = Client::connect(patient.address);
    assert_eq!(client::status(&meanwhile.ask(&client::get(other))), "200");
    for client in &mut waiting {
        assert_nothing(client, "the server hangs");
    }

    servers[1].signal("CONT");
    for id in read {
        let mut client = Client::connect(patient.address);
        let answer = client.ask(&client::acquire(id));
        assert_eq!(client::status(&answer), "200", "locked by a read");
        assert_eq!(client::body(&answer), b"0");
    }
    for id in acquired {
        // The server may carry out what it was sent before. Its lock has a cookie like any other.
        let mut client = Client::connect(patient.address);
        let (cookie, counter) = lock_or_take_over(&mut client, id);
        assert_eq!(counter, 0);
        assert!(cookie >= 2);
    }
}

#[test]
fn many_clients_fighting_for_few_locks_lose_no_write() {
    const CLIENTS_PER_SESSION: u64 = 20;
    const INCREMENTS: u64 = 5;
    let servers = [(); 3].map(|()| Program::state_server());
    let proxy = proxy(&servers.each_ref().map(|server| server.address), "");
    let ids = sessions::ids(5, 10);
    for id in &ids {
        create(proxy.address, id);
    }
    let fight = |id: &String| {
        let mut client = Client::connect(proxy.address);
        let seen = (0..INCREMENTS).map(|_| increment(&mut client, id).unwrap());
        seen.collect::<Vec<u64>>()
    };
    let mut seen: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS_PER_SESSION)
            .flat_map(|_| &ids)
            .map(|id| (id, scope.spawn(move || fight(id))))
            .collect();
        for (id, client) in clients {
            seen.entry(id).or_default().extend(client.join().unwrap());
        }
    });
    let total = CLIENTS_PER_SESSION * INCREMENTS;
    for (id, mut counters) in seen {
        // Nobody saw a counter that another one had already replaced.
        counters.sort_unstable();
        assert_eq!(counters, (0..total).collect::<Vec<u64>>());
        let mut client = Client::connect(proxy.address);
        assert_eq!(counter_in(&client.ask(&client::get(id))), total);
    }
}

#[test]
fn sessions_spread_evenly_and_each_sits_on_one_server() {
    let servers = [(); 3].map(|()| Program::state_server());
    let proxy = proxy(&servers.each_ref().map(|server| server.address), "");
    let ids = sessions::ids(6, 3000);
    let put_all = |ids: &[String]| {
        let mut client = Client::connect(proxy.address);
        for id in ids {
            assert_eq!(
                client::status(&client.ask(&client::put(id, 0, b"0"))),
                "200"
            );
        }
    };
    let count_on = |server: &Program| {
        let mut client = Client::connect(server.address);
        let held = ids
            .iter()
            .filter(|id| client::status(&client.ask(&client::head(id))) == "200");
        held.count()
    };
    std::thread::scope(|scope| {
        for part in ids.chunks(ids.len() / 3) {
            scope.spawn(move || put_all(part));
        }
    });
    let counts = std::thread::scope(|scope| {
        let counting = servers
            .each_ref()
            .map(|server| scope.spawn(move || count_on(server)));
        counting.map(|one| one.join().unwrap())
    });
    assert_eq!(counts.iter().sum::<usize>(), ids.len(), "{counts:?}");
    let fair = ids.len() as f64 / 3.0;
    for count in counts {
        assert!((0.8..=1.2).contains(&(count as f64 / fair)), "{counts:?}");
    }
}

#[test]
fn each_request_of_a_connection_is_routed_by_its_own_session() {
    let servers = [(); 3].map(|()| Program::state_server());
    let proxy = proxy(&servers.each_ref().map(|server| server.address), "");
    let routed = sessions::route(3, &sessions::ids(7, 50));
    let mut client = Client::connect(proxy.address);
    let mut ask = |request: &[u8]| {
        let answer = client.ask(request);
        assert_eq!(client::status(&answer), "200");
        answer
    };
    for session in &routed {
        ask(&client::put(&session.id, 0, session.id.as_bytes()));
    }
    let mut cookies = BTreeMap::new();
    for session in routed.iter().rev() {
        let locked = ask(&client::acquire(&session.id));
        assert_eq!(client::body(&locked), session.id.as_bytes());
        cookies.insert(&session.id, cookie_in(&locked));
    }
    for session in &routed {
        let body = format!("{} again", session.id);
        ask(&client::put(
            &session.id,
            cookies[&session.id],
            body.as_bytes(),
        ));
    }
    let mut direct = servers
        .each_ref()
        .map(|server| Client::connect(server.address));
    for session in &routed {
        for (index, server) in direct.iter_mut().enumerate() {
            let answer = server.ask(&client::get(&session.id));
            if index == session.owner {
                assert_eq!(
                    client::body(&answer),
                    format!("{} again", session.id).as_bytes()
                );
            } else {
                assert_eq!(client::status(&answer), "404", "also on server {index}");
            }
        }
    }
    for owner in 0..3 {
        assert!(
            routed.iter().any(|session| session.owner == owner),
            "nothing on {owner}"
        );
    }
}

/// `count` sessions of one server of three.
fn owned_by(owner: usize, count: usize) -> Vec<String> {
    sessions::owned_by(owner, 3, 4, count)
}

/// Stores a counter at 0; returns the connection.
fn create(address: SocketAddr, id: &str) -> Client {
    let mut client = Client::connect(address);
    assert_eq!(
        client::status(&client.ask(&client::put(id, 0, b"0"))),
        "200"
    );
    client
}

/// What a page does to a counter in its session: lock, read, write back. Returns what it read.
/// `None` when another one held the lock for all attempts.
fn increment(client: &mut Client, id: &str) -> Option<u64> {
    for _ in 0..MAX_ATTEMPTS {
        let answer = client.ask(&client::acquire(id));
        if client::status(&answer) == "200" {
            let counter = counter_in(&answer);
            let body = (counter + 1).to_string();
            let stored = client.ask(&client::put(id, cookie_in(&answer), body.as_bytes()));
            assert_eq!(client::status(&stored), "200");
            return Some(counter);
        }
        assert_eq!(client::status(&answer), "423");
        std::thread::yield_now();
    }
    None
}

/// The only user of session `id` until `stop`; every answer must be right. Returns how often.
fn work_until(address: SocketAddr, id: &str, increments: &AtomicU64, stop: &AtomicBool) -> u64 {
    // Also when an answer was wrong: the test ends then.
    let _stop = SetOnDrop(stop);
    let mut client = create(address, id);
    let mut counter = 0;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(increment(&mut client, id), Some(counter));
        counter += 1;
        increments.fetch_add(1, Ordering::Relaxed);
    }
    counter
}

/// Waits until `count` more increments have been made.
fn wait_for_more(count: u64, increments: &AtomicU64, stop: &AtomicBool) {
    let goal = increments.load(Ordering::Relaxed) + count;
    while increments.load(Ordering::Relaxed) < goal {
        assert!(
            !stop.load(Ordering::Relaxed),
            "a session of another server failed"
        );
        std::thread::yield_now();
    }
}

/// Locks the session; takes over the lock of somebody who is gone, as ASP.NET does.
fn lock_or_take_over(client: &mut Client, id: &str) -> (u32, u64) {
    for _ in 0..MAX_ATTEMPTS {
        let answer = client.ask(&client::acquire(id));
        let cookie = cookie_in(&answer);
        match client::status(&answer) {
            "200" => return (cookie, counter_in(&answer)),
            "423" => client.ask(&client::release(id, cookie)),
            other => panic!("acquire answered {other}"),
        };
    }
    panic!("the session stays locked");
}

/// Asks on new connections until one is answered with `status`; those before must end without
/// a byte.
fn connection_that_answers(address: SocketAddr, id: &str, status: &str) -> Client {
    for _ in 0..MAX_ATTEMPTS {
        let mut client = Client::connect(address);
        client.send(&client::get(id));
        match client.stream.peek(&mut [0]) {
            Ok(0) => {}
            Ok(_) => {
                assert_eq!(client::status(&client.answer_to(false)), status);
                return client;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    panic!("no answer although the server is back");
}

fn cookie_in(answer: &[u8]) -> u32 {
    let head = String::from_utf8_lossy(answer);
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix("LockCookie: "));
    value.unwrap().parse().unwrap()
}

fn counter_in(answer: &[u8]) -> u64 {
    std::str::from_utf8(client::body(answer))
        .unwrap()
        .parse()
        .unwrap()
}

fn assert_nothing(client: &mut Client, what: &str) {
    let got = client.until_closed();
    assert!(
        got.is_empty(),
        "{what}: {:?}",
        String::from_utf8_lossy(&got)
    );
}

/// A signal takes effect thread by thread; one that is late would still answer.
fn wait_until_stopped(program: &Program) {
    let is_stopped = |thread: std::fs::DirEntry| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        status.lines().any(|line| line.starts_with("State:\tT"))
    };
    let threads = format!("/proc/{}/task", program.id());
    while !std::fs::read_dir(&threads)
        .unwrap()
        .all(|thread| is_stopped(thread.unwrap()))
    {
        std::thread::yield_now();
    }
}

/// Keeps the port of a server that is about to end from being given to somebody else. Without
/// listening on it: connections are refused.
fn hold_port(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Ends all threads of a test when one of them has failed; the others would go on for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
