//! What the proxy bounds: connections, memory, and how long anybody may keep it waiting.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::answers::{DONE, item, locked_item};
use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{Client, acquire, body, get, put, release, status};
use crate::support::system::{
    open_files, peak_resident_bytes, raise_open_files, reset_on_drop, resident_bytes, wait_until,
};
use crate::support::{Program, admin, proxy};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// More than the kernel buffers on the way to a client that does not read.
const LARGE_BODY_BYTES: usize = 48 << 20;

/// A proxy over one state server.
fn one_server(extra: &str) -> (Program, Program) {
    let server = Program::state_server();
    (proxy(&[server.address], extra), server)
}

/// A proxy over one scripted backend.
fn one_backend(extra: &str) -> (Program, Backend) {
    let backend = Backend::start();
    (proxy(&[backend.address], extra), backend)
}

/// A client that has been answered once.
fn served(proxy: &Program) -> Client {
    let mut client = Client::connect(proxy.address);
    assert_eq!(client.ask(&get(ID)), ABSENT);
    client
}

#[test]
fn thousands_of_idle_connections_cost_little_and_harm_nobody() {
    const CONNECTIONS: usize = 5_000;
    const MAX_BYTES_EACH: u64 = 4096;
    /// Probes and files that may be open at one look and not at the other.
    const PASSING: usize = 16;
    raise_open_files();
    let (proxy, _server) = one_server("");
    let mut client = served(&proxy);
    let (files, bytes) = (open_files(proxy.id()), resident_bytes(proxy.id()));
    let idle: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let stream = TcpStream::connect(proxy.address).unwrap();
            // No thousands of ports that wait for their end after the test.
            reset_on_drop(&stream);
            stream
        })
        .collect();
    wait_until("all are accepted", || {
        open_files(proxy.id()) + PASSING >= files + CONNECTIONS
    });
    let bytes_each = (resident_bytes(proxy.id()) - bytes) / CONNECTIONS as u64;
    println!("{bytes_each} bytes of memory for an idle connection");
    assert!(bytes_each < MAX_BYTES_EACH, "{bytes_each} bytes each");
    assert_eq!(client.ask(&put(ID, 0, b"body")), DONE);
    assert_eq!(body(&served_body(&proxy)), b"body");
    drop(idle);
}

fn served_body(proxy: &Program) -> Vec<u8> {
    Client::connect(proxy.address).ask(&get(ID))
}

#[test]
fn a_connection_over_the_cap_waits_for_a_place() {
    let (proxy, _server) =
        one_server("limits: {client_connections: 3}\ntimeouts: {accept_wait: 1h}");
    let mut clients = [(); 3].map(|()| served(&proxy));
    let mut fourth = Client::connect(proxy.address);
    fourth.send(&get(ID));
    for client in &mut clients {
        assert_eq!(client.ask(&get(ID)), ABSENT);
    }
    assert!(has_nothing_to_read(&fourth.stream));
    let [first, second, third] = clients;
    drop(first);
    assert_eq!(fourth.answer_to(false), ABSENT);
    for mut client in [second, third] {
        assert_eq!(client.ask(&get(ID)), ABSENT);
    }
}

#[test]
fn a_connection_that_got_no_place_in_time_is_refused() {
    let (proxy, _server) =
        one_server("limits: {client_connections: 3}\ntimeouts: {accept_wait: 100ms}");
    let mut clients = [(); 3].map(|()| served(&proxy));
    for _ in 0..4 {
        let mut refused = Client::connect(proxy.address);
        assert_eq!(refused.until_closed(), b"");
        for client in &mut clients {
            assert_eq!(client.ask(&get(ID)), ABSENT);
        }
    }
    let [first, ..] = clients;
    drop(first);
    wait_until("somebody gets the free place", || {
        let mut next = Client::connect(proxy.address);
        // Being refused can be faster than sending.
        let _ = next.stream.write_all(&get(ID));
        let _ = next.stream.shutdown(Shutdown::Write);
        next.until_closed() == ABSENT
    });
    let log = proxy.stop();
    assert!(log.contains("too many connections"), "{log}");
}

fn has_nothing_to_read(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 1]);
    stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn an_idle_client_is_closed() {
    let (proxy, _server) = one_server("timeouts: {client_idle: 2s}");
    assert_eq!(served(&proxy).until_closed(), b"");
    assert_eq!(Client::connect(proxy.address).until_closed(), b"");
}

#[test]
fn a_head_must_be_whole_in_time_even_if_it_keeps_coming() {
    let (proxy, backend) = one_backend("timeouts: {client_stall: 300ms}");
    let mut stalled = Client::connect(proxy.address);
    stalled.send(&get(ID)[..20]);
    assert_eq!(stalled.until_closed(), b"");

    let mut dribbling = Client::connect(proxy.address);
    dribbling.send(b"GET /a HTTP/1.1\r\n");
    let pause = Duration::from_millis(20);
    dribbling.stream.set_read_timeout(Some(pause)).unwrap();
    let since = Instant::now();
    // One whole header line per pause: as much progress as there can be without an end.
    while has_paused(&mut dribbling.stream) {
        assert!(since.elapsed() < Duration::from_secs(10), "still open");
        if dribbling.stream.write_all(b"X: y\r\n").is_err() {
            break;
        }
    }
    backend.assert_nobody_connected();
}

/// False when the peer closed instead of leaving the read to its time limit.
fn has_paused(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => {
            assert_eq!(count, 0, "an answer to half a request");
            false
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

#[test]
fn a_body_that_stops_coming_costs_both_connections() {
    let (proxy, backend) = one_backend("timeouts: {client_stall: 200ms}");
    let store = put(ID, 2, b"a whole body");
    let half = &store[..store.len() - 6];
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut connection = backend.accept();
    connection.expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);
    client.send(half);
    assert_eq!(connection.read(half.len()), half);
    assert_eq!(client.until_closed(), b"");
    assert!(connection.is_closed());

    let mut next = Client::connect(proxy.address);
    next.send(&store);
    backend.accept().expect(&store, DONE);
    assert_eq!(next.answer_to(false), DONE);
}

/// A byte now and then is not progress: the connections would be held for ever.
#[test]
fn a_body_that_trickles_costs_both_connections() {
    let (proxy, backend) = one_backend("timeouts: {client_stall: 300ms}");
    let store = put(ID, 2, &vec![b'x'; 1_000_000]);
    let mut client = Client::connect(proxy.address);
    let begun = &store[..store.len() - 999_990];
    client.send(begun);
    let mut connection = backend.accept();
    assert_eq!(connection.read(begun.len()), begun);
    // Each byte is passed on before the next is sent, until the proxy has had enough.
    let mut passed_on = 0;
    while client.stream.write_all(b"x").is_ok() && connection.stream.read_exact(&mut [0]).is_ok() {
        passed_on += 1;
    }
    assert!(passed_on < 900_000, "the whole body trickled through");
    assert!(connection.is_closed());
}

#[test]
fn a_client_that_stops_reading_is_closed_and_holds_up_nobody() {
    const MAX_GROWTH_BYTES: u64 = 16 << 20;
    let (proxy, backend) = one_backend("timeouts: {client_stall: 500ms}");
    // Without the pages of the program itself.
    let before = resident_bytes(proxy.id());
    let mut lazy = Client::connect(proxy.address);
    lazy.send(&get(ID));
    let mut connection = backend.accept();
    connection.expect(&get(ID), b"");
    let answer = item(&vec![b'x'; LARGE_BODY_BYTES]);
    let answer_bytes = answer.len();
    let sending = thread::spawn(move || connection.stream.write_all(&answer));

    // Enough of them that each worker has some.
    let mut others: Vec<_> = (0..8).map(|_| Client::connect(proxy.address)).collect();
    others.iter_mut().for_each(|client| client.send(&get(ID)));
    let connections: Vec<_> = others.iter().map(|_| backend.accept()).collect();
    for mut connection in connections {
        connection.expect(&get(ID), ABSENT);
    }
    for client in &mut others {
        assert_eq!(client.answer_to(false), ABSENT);
    }

    assert!(sending.join().unwrap().is_err(), "all of it was taken");
    assert!(lazy.until_closed().len() < answer_bytes);
    let growth = peak_resident_bytes(proxy.id()).saturating_sub(before);
    assert!(growth < MAX_GROWTH_BYTES, "{growth} bytes of memory more");
}

#[test]
fn an_answer_over_the_body_limit_costs_both_connections_and_leaves_no_lock() {
    let (proxy, backend) = one_backend("limits: {body: 1KiB}");
    let longest = item(&[b'x'; 1024]);
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut connection = backend.accept();
    connection.expect(&get(ID), &longest);
    assert_eq!(client.answer_to(false), longest);
    connection.close();
    for length in [1025, 1 << 40, u64::MAX] {
        let announced = format!("200 OK\r\nLockCookie: 5\r\nContent-Length: {length}\r\n\r\nx");
        let mut client = Client::connect(proxy.address);
        client.send(&acquire(ID));
        let mut connection = backend.accept();
        connection.expect(&acquire(ID), announced.as_bytes());
        assert_eq!(client.until_closed(), b"", "{length}");
        assert!(connection.is_closed(), "{length}");
        // Nobody learned of the lock.
        let release = release(ID, 5);
        assert_eq!(backend.accept().read(release.len()), release, "{length}");
    }
}

#[test]
fn of_a_client_that_vanishes_within_a_body_nothing_is_stored() {
    let server = Program::state_server();
    // Before there is a proxy, whose first probe would count.
    let files = open_files(server.id());
    let proxy = proxy(&[server.address], "");
    let store = put(ID, 2, &[b'x'; 100_000]);
    for resets in [true, false] {
        let mut client = Client::connect(proxy.address);
        client.send(&store[..store.len() - 1]);
        wait_until("the body is under way", || {
            open_files(server.id()) == files + 1
        });
        if resets {
            reset_on_drop(&client.stream);
        }
        client.close();
        wait_until("its backend connection is closed", || {
            open_files(server.id()) == files
        });
    }
    assert_eq!(status(&served_body(&proxy)), "404");
}

#[test]
fn the_lock_of_a_client_that_vanished_is_released_with_its_cookie() {
    for (resets, body_bytes) in [
        (true, 7),
        (false, 7),
        (true, LARGE_BODY_BYTES),
        (false, LARGE_BODY_BYTES),
    ] {
        let (proxy, backend) = one_backend("");
        let mut client = Client::connect(proxy.address);
        client.send(&acquire(ID));
        let mut connection = backend.accept();
        connection.expect(&acquire(ID), b"");
        if resets {
            reset_on_drop(&client.stream);
        }
        client.close();
        let answer = locked_item(4711, &vec![b'x'; body_bytes]);
        // The proxy need not take all of an answer that nobody waits for.
        let _ = connection.stream.write_all(&answer);
        if body_bytes == LARGE_BODY_BYTES {
            assert!(connection.is_closed());
            connection = backend.accept();
        }
        connection.expect(&release(ID, 4711), DONE);
    }
}

#[test]
fn surplus_idle_backend_connections_are_closed() {
    const CLIENTS: usize = 6;
    const WORKERS: usize = 2;
    let (proxy, backend) =
        one_backend("limits: {idle_backend_connections: 1}\ntimeouts: {backend_idle: 1h}");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| Client::connect(proxy.address))
        .collect();
    clients.iter_mut().for_each(|client| client.send(&get(ID)));
    let mut connections: Vec<_> = clients.iter().map(|_| backend.accept()).collect();
    for connection in &mut connections {
        connection.expect(&get(ID), ABSENT);
    }
    for client in &mut clients {
        assert_eq!(client.answer_to(false), ABSENT);
    }
    wait_until("at most one for each worker is left", || {
        still_open(&connections).count() <= WORKERS
    });
    assert_ne!(still_open(&connections).count(), 0, "none was kept");
}

fn still_open(connections: &[BackendConnection]) -> impl Iterator<Item = &BackendConnection> {
    let is_open = |connection: &&BackendConnection| has_nothing_to_read(&connection.stream);
    connections.iter().filter(is_open)
}

#[test]
fn a_backend_connection_that_nobody_needs_is_closed_and_a_new_one_opened() {
    let (proxy, backend) = one_backend("timeouts: {backend_idle: 200ms}");
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send(&get(ID));
        let mut connection = backend.accept();
        connection.expect(&get(ID), ABSENT);
        assert_eq!(client.answer_to(false), ABSENT);
        assert!(connection.is_closed());
    }
}

/// Every handover would last for as long as anybody cares to say.
#[test]
fn only_the_timeout_of_a_session_that_was_stored_counts() {
    let (proxy, backend) = one_backend("");
    let refused = b"400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let mut client = Client::connect(proxy.address);
    let mut kept = None;
    for (minutes, body_bytes, answer) in [
        (4_000_000_000_u64, 4, &refused[..]),
        (480, 4, refused),
        (4_000_000_000, 4, DONE),
        (525_601, 4, DONE),
        (45, 200_000, DONE),
    ] {
        let text = String::from_utf8(put(ID, 0, &vec![b'x'; body_bytes])).unwrap();
        let request = text.replace("Timeout:20\r\n", &format!("Timeout:{minutes}\r\n"));
        client.send(request.as_bytes());
        let mut connection = kept.take().unwrap_or_else(|| backend.accept());
        connection.expect(request.as_bytes(), answer);
        assert_eq!(client.answer_to(false), answer);
        kept = Some(connection).filter(|_| answer == DONE);
    }
    admin::wait_for(proxy.admin(), "45 minutes", |status| {
        status["longest_session_timeout_minutes"] == 45
    });
}
