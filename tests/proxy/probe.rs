//! Probes against scripted backends and a real state server.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::Client;
use crate::support::{Program, ProxyFiles};
use staterouter::backend::{Connector, PROXY_ANSWER, ProbeError, Prober};
use staterouter::health::Failure;

/// What a probe is on the wire, as a web server would spell it.
const PROBE: &[u8] =
    b"HEAD %2fstaterouter-probe(AAAAAAAAAAAAAAAAAAAAAAAAAAA%3d)%2fprobe HTTP/1.1\r\n\
Host: localhost\r\n\r\n";

/// A probe that ends long before this; one that takes it has failed its test.
const PATIENT: Duration = Duration::from_secs(30);
/// For backends that never answer.
const SHORT: Duration = Duration::from_millis(100);

fn run(prober: &mut Prober) -> Result<(), ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(prober.probe())
}

fn prober(address: SocketAddr, timeout: Duration) -> Prober {
    Prober::new(Connector::Tcp(address), timeout)
}

/// Probes `backend`, which does with the connection what `script` says and holds it open until the
/// probe has ended.
fn probe_with(
    prober: &mut Prober,
    backend: &Backend,
    script: impl FnOnce(BackendConnection) -> Option<BackendConnection>,
) -> Result<(), ProbeError> {
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| run(prober));
        let held = script(backend.accept_any());
        let result = probing.join().unwrap();
        if let Some(mut connection) = held {
            assert!(connection.is_closed(), "a probe leaves no connection");
        }
        backend.assert_nobody_connected();
        result
    })
}

fn probe(
    timeout: Duration,
    script: impl FnOnce(BackendConnection) -> Option<BackendConnection>,
) -> Result<(), ProbeError> {
    let backend = Backend::start();
    probe_with(&mut prober(backend.address, timeout), &backend, script)
}

/// Probes a backend that reads the request and answers `answer`.
fn probe_answered(timeout: Duration, answer: &[u8]) -> Result<(), ProbeError> {
    probe(timeout, |connection| answered(connection, answer))
}

fn answered(mut connection: BackendConnection, answer: &[u8]) -> Option<BackendConnection> {
    connection.expect(PROBE, answer);
    Some(connection)
}

#[track_caller]
fn assert_fails(result: Result<(), ProbeError>, failure: Failure) {
    let error = result.unwrap_err();
    assert_eq!(error.failure(), failure, "{error}");
}

#[test]
fn what_a_state_server_answers_is_good() {
    let answers: [&[u8]; 5] = [
        ABSENT,
        b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nServer: x\r\nx-aspnet-version: 2.0\r\n\r\n",
        b"404 Not Found\r\nX-AspNet-Version:4.0.30319\r\n\r\n",
        // No body is awaited after a HEAD, whatever is announced.
        b"200 OK\r\nContent-Length: 100\r\nX-AspNet-Version: 4.0.30319\r\n\r\n",
    ];
    for answer in answers {
        probe_answered(PATIENT, answer).unwrap();
    }
}

#[test]
fn an_answer_may_come_in_pieces() {
    let result = probe(PATIENT, |mut connection| {
        connection.expect(PROBE, b"");
        for piece in ABSENT.chunks(7) {
            connection.write(piece);
        }
        Some(connection)
    });
    result.unwrap();
}

#[test]
fn other_answers_say_what_was_met() {
    let version = "X-AspNet-Version: 4.0.30319\r\n";
    for status in ["400 Bad Request", "423 Locked", "500 Error", "301 Moved"] {
        let answer = format!("{status}\r\n{version}Content-Length: 0\r\n\r\n");
        assert_fails(
            probe_answered(PATIENT, answer.as_bytes()),
            Failure::OtherStatus,
        );
        let answer = format!("{status}\r\nContent-Length: 0\r\n\r\n");
        assert_fails(
            probe_answered(PATIENT, answer.as_bytes()),
            Failure::NoVersion,
        );
    }
    for (answer, failure) in [
        // A state server whose machine.config says enableVersionHeader="false".
        (
            "404 Not Found\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n",
            Failure::NoVersion,
        ),
        // python3 -m http.server
        (
            "HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6 Python/3.13.5\r\n\
             Date: Sat, 28 Nov 2026 18:00:00 GMT\r\nConnection: close\r\n\
             Content-Type: text/html;charset=utf-8\r\nContent-Length: 335\r\n\r\n",
            Failure::WebServer,
        ),
        // nginx, and IIS before it hands anything to ASP.NET
        (
            "HTTP/1.1 400 Bad Request\r\nServer: nginx/1.26.3\r\nContent-Type: text/html\r\n\
             Content-Length: 157\r\nConnection: close\r\n\r\n",
            Failure::WebServer,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Failure::WebServer,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", Failure::WebServer),
        (
            "HTTP/1.1 404 Not Found\r\nVia: 1.1 varnish\r\nContent-Length: 0\r\n\r\n",
            Failure::HttpProxy,
        ),
        (
            "HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\n\r\n",
            Failure::HttpProxy,
        ),
    ] {
        assert_fails(probe_answered(PATIENT, answer.as_bytes()), failure);
    }
    let endless = vec![b'4'; 5_000];
    let garbage: [&[u8]; 3] = [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"404 Not Found\n\n",
        &endless[..],
    ];
    for answer in garbage {
        assert_fails(probe_answered(PATIENT, answer), Failure::Garbage);
    }
}

#[test]
fn a_backend_that_says_nothing_or_half_an_answer_is_late() {
    for answer in [&b""[..], &ABSENT[..ABSENT.len() - 1]] {
        assert_fails(probe_answered(SHORT, answer), Failure::Late);
    }
}

#[test]
fn a_connection_that_ends_before_the_answer_is_broken() {
    let halfway = probe(PATIENT, |mut connection| {
        connection.expect(PROBE, &ABSENT[..20]);
        connection.close();
        None
    });
    assert_fails(halfway, Failure::Broken);
}

/// A stock state server does that to clients of other machines while AllowRemoteConnection is 0.
#[test]
fn a_connection_that_is_taken_and_closed_at_once_says_so() {
    let closed = probe(PATIENT, |connection| {
        connection.close();
        None
    });
    assert!(
        closed
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("AllowRemoteConnection"),
        "{closed:?}"
    );
    assert_fails(closed, Failure::ClosedAtOnce);
    let reset = probe(PATIENT, |mut connection| {
        connection.expect(PROBE, b"");
        connection.reset();
        None
    });
    assert_fails(reset, Failure::ClosedAtOnce);
}

#[test]
fn every_probe_has_a_connection_of_its_own() {
    let backend = Backend::start();
    let mut prober = prober(backend.address, PATIENT);
    for _ in 0..3 {
        let answer = |connection| answered(connection, ABSENT);
        probe_with(&mut prober, &backend, answer).unwrap();
    }
}

#[test]
fn a_state_server_is_good_until_it_is_gone() {
    let server = Program::state_server();
    let mut prober = prober(server.address, PATIENT);
    for _ in 0..3 {
        run(&mut prober).unwrap();
    }
    server.kill();
    assert_fails(run(&mut prober), Failure::Refused);
}

/// Whoever takes a proxy for a state server learns that it is none, and nothing goes round in
/// circles: the proxy answers a probe by itself.
#[test]
fn a_proxy_says_what_it_is_and_passes_no_probe_on() {
    let backend = Backend::start();
    let proxy = ProxyFiles::new(&[backend.address], "").serve();
    // Its own probe has come, and may be answered.
    let own = backend.accept_any();
    let mut prober = prober(proxy.address, PATIENT);
    for _ in 0..3 {
        assert_fails(run(&mut prober), Failure::Staterouter);
    }
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send(PROBE);
        assert_eq!(client.answer_to(true), PROXY_ANSWER);
    }
    drop(own);
    backend.assert_nobody_connected();
}
