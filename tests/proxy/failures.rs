//! What a web server sees when a state server fails: its connection closes, and nothing that
//! could be taken for an answer comes before that. Never a 404, a 5xx or an empty 200, because
//! ASP.NET would start an empty session.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::backend::{Backend, BackendConnection};
use crate::support::client::{self, Client};
use crate::support::operations::{self, Exchange};
use crate::support::{Program, proxy, sessions};
use socket2::{Domain, SockRef, Socket, Type};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Budgets that end a test about silence soon.
const SHORT: &str = "timeouts: {connect: 200ms, answer: 300ms}";

/// How a backend ends a connection.
type End = fn(BackendConnection);

/// An orderly end and a reset.
const ENDS: [(&str, End); 2] = [
    ("FIN", BackendConnection::close),
    ("RST", BackendConnection::reset),
];

#[test]
fn a_backend_that_refuses_connections_costs_the_connection() {
    let (_taken, address) = port_without_listener();
    let proxy = proxy(&[address], SHORT);
    for exchange in operations::all(ID) {
        let mut client = Client::connect(proxy.address);
        client.send(&exchange.request.client);
        assert_nothing(&mut client, exchange.name);
    }
}

#[test]
fn a_backend_that_does_not_accept_costs_the_connection() {
    let full = full_listener();
    let proxy = proxy(&[full.address], SHORT);
    let clients = operations::all(ID).map(|exchange| {
        let mut client = Client::connect(proxy.address);
        client.send(&exchange.request.client);
        (exchange.name, client)
    });
    for (name, mut client) in clients {
        assert_nothing(&mut client, name);
    }
    proxy.wait_for_log(|line| line.contains("cannot connect in time"));
}

/// Silence before the answer, in its head, behind its head and in its body.
#[test]
fn a_backend_that_falls_silent_costs_the_connection() {
    let backend = Backend::start();
    // Long enough for all of them to have been asked before the first one's time is up.
    let proxy = proxy(&[backend.address], "timeouts: {answer: 5s}");
    let mut silent = Vec::new();
    for exchange in operations::all(ID) {
        for sent in cuts(&exchange) {
            let mut client = Client::connect(proxy.address);
            client.send(&exchange.request.client);
            let mut connection = backend.accept();
            connection.read(exchange.request.backend.len());
            connection.write(&exchange.answer.backend[..sent]);
            silent.push((exchange.name, sent, client, connection));
        }
    }
    for (name, sent, mut client, mut connection) in silent {
        let exchange = operations::all(ID)
            .into_iter()
            .find(|e| e.name == name)
            .unwrap();
        assert_truncated(&mut client, &exchange, sent);
        let is_late = name == "acquire" && sent == 0;
        if is_late {
            // A server that was only slow has taken the lock all the same.
            connection.write(&exchange.answer.backend);
        }
        assert!(connection.is_closed(), "{name} cut at {sent}");
        if is_late || hands_out_lock(&exchange, sent) {
            expect_release(&backend);
        }
    }
    backend.assert_nobody_connected();
}

/// The first user's request hangs for as long as the others take, whatever they do.
#[test]
fn a_slow_backend_holds_up_nobody_else() {
    let backends = [Backend::start(), Backend::start()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let proxy = proxy(&addresses, "timeouts: {answer: 25s}");
    let slow_ids = sessions::owned_by(0, 2, 1, 2);
    let fast_id = &sessions::owned_by(1, 2, 2, 1)[0];

    let mut waiting = Client::connect(proxy.address);
    waiting.send(&client::get(&slow_ids[0]));
    let mut slow = backends[0].accept();
    slow.read(client::get(&slow_ids[0]).len());

    // Enough connections to meet every worker of the proxy, the one of the slow request too.
    let mut idle = [Vec::new(), Vec::new()];
    for _ in 0..16 {
        for (number, id) in [(1, &slow_ids[1]), (2, fast_id)] {
            let index = usize::from(number) - 1;
            let (backend, idle) = (&backends[index], &mut idle[index]);
            for exchange in operations::all_on(number, id) {
                let mut client = Client::connect(proxy.address);
                client.send(&exchange.request.client);
                let mut connection = backend.next_request(idle);
                connection.expect(&exchange.request.backend, &exchange.answer.backend);
                let answer = client.answer_to(exchange.name == "touch");
                assert_eq!(answer, exchange.answer.client, "{}", exchange.name);
                idle.push(connection);
            }
        }
    }
    let answer = operations::ok("Timeout: 20\r\n", operations::BODY);
    slow.write(&answer);
    assert_eq!(waiting.answer_to(false), answer);
}

#[test]
fn garbage_costs_the_connection_and_never_reaches_the_client() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for (what, garbage) in garbage() {
        for exchange in operations::all(ID) {
            if exchange.name == "touch" && what == "no length" {
                // The answer to a HEAD has no body, so its end is known without a length.
                continue;
            }
            let mut client = Client::connect(proxy.address);
            client.send(&exchange.request.client);
            let mut connection = backend.accept();
            connection.read(exchange.request.backend.len());
            connection.write(&garbage);
            assert_nothing(
                &mut client,
                &format!("{} answered with {what}", exchange.name),
            );
            assert!(connection.is_closed(), "kept after {what}");
        }
    }
    backend.assert_nobody_connected();
}

#[test]
fn a_head_without_end_costs_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for exchange in operations::all(ID) {
        let mut client = Client::connect(proxy.address);
        client.send(&exchange.request.client);
        let mut connection = backend.accept();
        connection.read(exchange.request.backend.len());
        connection.write(b"200 OK\r\n");
        // The proxy ends this: it closes, and the next line or the one after it fails.
        while connection
            .stream
            .write_all(b"Timeout-Of-Somebody: 20\r\n")
            .is_ok()
        {}
        assert_nothing(&mut client, exchange.name);
    }
}

/// Before the answer, in its head, behind its head and in its body.
#[test]
fn a_backend_that_breaks_off_costs_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for (how, end) in ENDS {
        for exchange in operations::all(ID) {
            for sent in cuts(&exchange) {
                let mut client = Client::connect(proxy.address);
                client.send(&exchange.request.client);
                let mut connection = backend.accept();
                connection.read(exchange.request.backend.len());
                connection.write(&exchange.answer.backend[..sent]);
                if sent >= exchange.head_bytes() {
                    // What the client was already given cannot be taken back by the reset.
                    let passed_on = exchange.passed_on(sent);
                    assert_eq!(read(&mut client, passed_on.len()), passed_on, "{how}");
                    end(connection);
                    assert_nothing(
                        &mut client,
                        &format!("{} cut at {sent}, {how}", exchange.name),
                    );
                    if hands_out_lock(&exchange, sent) {
                        expect_release(&backend);
                    }
                } else {
                    end(connection);
                    assert_truncated(&mut client, &exchange, sent);
                }
            }
        }
    }
}

#[test]
fn a_large_answer_that_breaks_off_is_truncated_and_never_made_whole() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    let answer = operations::ok("Timeout: 20\r\n", &body);
    for (how, end) in ENDS {
        let mut client = Client::connect(proxy.address);
        client.send(&client::get(ID));
        let mut connection = backend.accept();
        connection.read(client::get(ID).len());
        connection.write(&answer[..700_000]);
        let first = read(&mut client, 100_000);
        end(connection);
        let got = [first, client.until_closed()].concat();
        assert!(got.len() <= 700_000, "{how}: {} bytes", got.len());
        assert!(answer.starts_with(&got), "{how}: other bytes");
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_arrives_after_it() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let (request, answer) = (client::put(ID, 2, &[7; 500_000]), operations::ok("", b""));
    let mut client = Client::connect(proxy.address);
    client.send(&request[..200_000]);
    let mut connection = backend.accept();
    let mut got = connection.read(200_000);
    connection.write(&answer);
    client.send(&request[200_000..]);
    got.extend(connection.read(300_000 + request.len() - 500_000));
    assert!(got == request, "the request was changed");
    assert_eq!(client.answer_to(false), answer);
}

/// A state server that refuses a body (too large, too late) answers 400 and closes. The client
/// gets that answer or none.
#[test]
fn a_backend_that_breaks_off_in_the_request_costs_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for (how, end) in ENDS {
        for answer in [&b""[..], b"400 Bad Request\r\nContent-Length: 0\r\n\r\n"] {
            let request = client::put(ID, 2, &[7; 500_000]);
            let mut client = Client::connect(proxy.address);
            client.send(&request[..200_000]);
            let mut connection = backend.accept();
            connection.read(1000);
            connection.write(answer);
            end(connection);
            // The proxy may have closed already.
            let _ = client.stream.write_all(&request[200_000..]);
            let got = client.until_closed();
            assert!(got.is_empty() || got == answer, "{how}: {got:?}");
            backend.assert_nobody_connected();
        }
    }
}

#[test]
fn a_backend_that_stops_reading_costs_the_connection_and_no_memory() {
    const BODY_BYTES: usize = 60_000_000;
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], SHORT);
    let before = peak_memory_bytes(&proxy);
    let (head, part) = (client::put(ID, 2, &[]), vec![7; 1 << 20]);
    let length = format!("Content-Length:{BODY_BYTES}");
    let head = String::from_utf8(head)
        .unwrap()
        .replace("Content-Length:0", &length);
    let mut client = Client::connect(proxy.address);
    client.send(head.as_bytes());
    let mut connection = backend.accept();
    connection.read(head.len());
    let mut sent = 0;
    while sent < BODY_BYTES && client.stream.write_all(&part).is_ok() {
        sent += part.len();
    }
    assert!(sent < BODY_BYTES, "the proxy swallowed the whole body");
    assert_nothing(&mut client, "put");
    let grown = peak_memory_bytes(&proxy) - before;
    assert!(grown < 8 << 20, "the proxy took {grown} bytes more");
}

/// The lock of a client that is gone would make the user wait for the takeover.
#[test]
fn the_lock_of_a_client_that_vanished_is_released() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let [_, acquire, ..] = operations::all(ID);
    for linger in [None, Some(Duration::ZERO)].repeat(4) {
        let mut client = Client::connect(proxy.address);
        client.send(&acquire.request.client);
        let mut connection = backend.accept();
        connection.read(acquire.request.backend.len());
        SockRef::from(&client.stream).set_linger(linger).unwrap();
        client.close();
        connection.write(&acquire.answer.backend);
        // The answer was whole, so its connection is free again and takes the release.
        let release = client::release(ID, operations::COUNTER);
        connection.expect(&release, &operations::ok("", b""));
        // Not for the next one.
        connection.close();
    }
}

/// Operators find what failed, and nobody who reads the log can take over a session.
#[test]
fn a_failure_is_logged_with_backend_operation_and_fingerprint() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "log: {level: trace}");
    let session = format!(
        "session={}",
        sessions::route(1, &[ID.to_owned()])[0].fingerprint
    );
    for exchange in operations::all(ID) {
        let mut client = Client::connect(proxy.address);
        client.send(&exchange.request.client);
        backend.accept().read(exchange.request.backend.len());
        assert_nothing(&mut client, exchange.name);
        let operation = format!("operation=\"{}\"", exchange.name);
        proxy.wait_for_log(|line| {
            let said = [&operation, &session, "backend=\"state-1\"", "WARN"];
            said.iter().all(|word| line.contains(*word))
        });
    }
    // An answer that repeats the id, and a request that cannot be framed.
    let mut client = Client::connect(proxy.address);
    client.send(&client::get(ID));
    let mut connection = backend.accept();
    connection.read(client::get(ID).len());
    connection.write(format!("{ID}\r\n{}: 1\r\n\r\n", client::target(ID)).as_bytes());
    assert_nothing(&mut client, "get");
    let mut client = Client::connect(proxy.address);
    client.send(format!("GET {} {ID}\r\n{ID}\r\n\r\n", client::target(ID)).as_bytes());
    assert_eq!(client::status(&client.until_closed()), "400");
    proxy.wait_for_log(|line| line.contains("request refused"));
    let log = proxy.stop();
    for secret in [ID, &client::target(ID)] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_flood_of_failures_is_cut_in_the_log_and_counted() {
    let (_taken, address) = port_without_listener();
    let proxy = proxy(&[address], &format!("{SHORT}\nhandover: {{hold: 0s}}"));
    let suppressed = |line: &str| -> Option<u64> {
        let count = line.split_once("suppressed=")?.1;
        count.split_whitespace().next().unwrap().parse().ok()
    };
    // Until the limit has been reached and a later second has told how many lines it took.
    let mut failures = 0;
    loop {
        for _ in 0..20 {
            let mut client = Client::connect(proxy.address);
            client.send(&client::get(ID));
            assert_nothing(&mut client, "get");
            failures += 1;
        }
        if proxy
            .logged()
            .lines()
            .any(|line| suppressed(line) > Some(0))
        {
            break;
        }
        assert!(failures < 1_000_000, "nothing was suppressed");
    }
    let log = proxy.stop();
    let counts: Vec<u64> = log.lines().filter_map(suppressed).collect();
    let accounted = counts.len() as u64 + counts.iter().sum::<u64>();
    assert!(accounted <= failures, "{accounted} of {failures}");
    assert!(
        counts.len() as u64 <= failures / 2,
        "{} lines",
        counts.len()
    );
}

/// Nothing but the end of the connection.
fn assert_nothing(client: &mut Client, what: &str) {
    let got = client.until_closed();
    assert!(
        got.is_empty(),
        "{what}: {:?}",
        String::from_utf8_lossy(&got)
    );
}

/// At most the first `sent` bytes of the answer, and nothing before its head was whole.
fn assert_truncated(client: &mut Client, exchange: &Exchange, sent: usize) {
    let got = client.until_closed();
    assert_eq!(
        String::from_utf8_lossy(&got),
        String::from_utf8_lossy(exchange.passed_on(sent)),
        "{} cut at {sent}",
        exchange.name
    );
}

/// Where to cut an answer: nowhere may it be whole.
fn cuts(exchange: &Exchange) -> Vec<usize> {
    let head = exchange.head_bytes();
    let cuts = [
        0,
        1,
        8,
        head / 2,
        head - 1,
        head,
        head + 1,
        exchange.answer.backend.len() - 1,
    ];
    let mut cuts: Vec<usize> = cuts
        .into_iter()
        .filter(|&cut| cut < exchange.answer.backend.len())
        .collect();
    cuts.dedup();
    cuts
}

/// What no state server answers. Most of it would be taken for an answer by a lenient reader.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    const REST: &str = "X-AspNet-Version: 4.0.30319\r\nContent-Length: 0\r\n\r\n";
    let long = "x".repeat(20_000);
    let many = "A: b\r\n".repeat(100);
    let digits = "9".repeat(100);
    let heads = [
        ("no status line", "\r\n"),
        ("a header instead of a status line", ""),
        ("an unknown version", "HTTP/9 200 OK\r\n"),
        ("a version without status", "HTTP/1.1\r\n"),
        ("two digits", "20 OK\r\n"),
        ("four digits", "2000 OK\r\n"),
        ("status 100", "100 Continue\r\n\r\n200 OK\r\n"),
        ("status 101", "101 Switching Protocols\r\n"),
        ("status 999", "999 What\r\n"),
        ("a bare line feed", "200 OK\n"),
        ("bare line feeds only", "200 OK\nContent-Length: 0\n\n"),
        ("a NUL in the status line", "200 O\0K\r\n"),
        ("a NUL in a header", "200 OK\r\nTimeout: 2\x000\r\n"),
        ("two lengths", "200 OK\r\nContent-Length: 5\r\n"),
        ("a length in words", "200 OK\r\nContent-Length: two\r\n\r\n"),
        ("a negative length", "200 OK\r\nContent-Length: -1\r\n\r\n"),
        ("chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n"),
        ("a folded header", "200 OK\r\nTimeout:\r\n 20\r\n"),
        ("another protocol", "\x16\x03\x01\x02\0\x01\0\x01\n"),
    ];
    let whole = [
        (
            "no length",
            "200 OK\r\nX-AspNet-Version: 4.0.30319\r\n\r\n".to_owned(),
        ),
        (
            "a huge length",
            format!("200 OK\r\nContent-Length: {digits}\r\n\r\n"),
        ),
        (
            "too large a head",
            format!("200 OK\r\nTimeout: {long}\r\n{REST}"),
        ),
        ("too large a status line", format!("200 {long}")),
        ("too many headers", format!("200 OK\r\n{many}{REST}")),
    ];
    let heads = heads.map(|(what, head)| (what, format!("{head}{REST}")));
    let all = heads.into_iter().chain(whole);
    all.map(|(what, text)| (what, text.into_bytes())).collect()
}

/// Whether the first `sent` bytes of the answer name a lock: the client will not hold it, because
/// it never has the whole answer.
fn hands_out_lock(exchange: &Exchange, sent: usize) -> bool {
    exchange.name == "acquire" && sent >= exchange.head_bytes()
}

/// The proxy gives back the lock of an acquire whose answer broke off.
fn expect_release(backend: &Backend) {
    let answer = operations::ok("", b"");
    let release = client::release(ID, operations::COUNTER);
    let mut connection = backend.accept();
    connection.expect(&release, &answer);
    // The next request comes on one of its own.
    connection.close();
}

/// Reads exactly `count` bytes past what `client` has taken apart itself.
fn read(client: &mut Client, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A bound socket that nobody listens on: the port refuses, and nobody else can take it.
fn port_without_listener() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener that nobody accepts from, with as many connections waiting as it takes.
struct FullListener {
    address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

fn full_listener() -> FullListener {
    let (listener, address) = port_without_listener();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    // The kernel drops what does not fit, so the first attempt that hangs shows it is full.
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => waiting.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => break,
            Err(error) => panic!("a full listener must not answer: {error}"),
        }
    }
    FullListener {
        address,
        _listener: listener,
        _waiting: waiting,
    }
}

/// The most memory the process has had, `VmHWM` of the kernel.
fn peak_memory_bytes(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kib * 1024
}
