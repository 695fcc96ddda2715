//! Pooled connections to state servers and the retry rules (protocol 8): a request goes out a
//! second time only when the first cannot have done anything, or when a second one harms nobody.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::Write;

use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{self, Client};
use crate::support::operations::{self, Exchange, Message};
use crate::support::system::wait_until_arrived;
use crate::support::{Program, proxy};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// How a backend ends a connection.
type End = fn(BackendConnection);

/// An orderly end and a reset.
const ENDS: [(&str, End); 2] = [
    ("FIN", BackendConnection::close),
    ("RST", BackendConnection::reset),
];

/// A client whose worker holds one idle connection to the backend.
struct Scene {
    backend: Backend,
    _proxy: Program,
    client: Client,
}

impl Scene {
    fn new(extra: &str) -> (Self, BackendConnection) {
        let backend = Backend::start();
        let proxy = proxy(&[backend.address], extra);
        let mut scene = Self {
            client: Client::connect(proxy.address),
            backend,
            _proxy: proxy,
        };
        let pooled = scene.pool_one();
        (scene, pooled)
    }

    /// Answers one request on a new backend connection, which is idle in the pool then.
    fn pool_one(&mut self) -> BackendConnection {
        self.client.send(&client::get(ID));
        let mut pooled = self.backend.accept();
        pooled.expect(&client::get(ID), ABSENT);
        assert_eq!(self.client.answer_to(false), ABSENT);
        pooled
    }

    /// The proxy sends what the client asked over a new connection, whole, and relays the answer.
    fn expect_on_fresh(&mut self, exchange: &Exchange) -> BackendConnection {
        let mut fresh = self.backend.accept();
        fresh.expect(&exchange.request.backend, &exchange.answer.backend);
        assert_eq!(
            self.client.answer_to(exchange.name == "touch"),
            exchange.answer.client,
            "{}",
            exchange.name
        );
        fresh
    }

    /// The client's connection ends without a byte, and the backend heard no more of it.
    fn expect_failure(&mut self, what: &str) {
        let got = self.client.until_closed();
        assert!(
            got.is_empty(),
            "{what}: {:?}",
            String::from_utf8_lossy(&got)
        );
        self.backend.assert_nobody_connected();
    }
}

/// What the other tests stand on.
#[test]
fn an_answered_connection_serves_the_next_request_of_any_kind() {
    let (mut scene, mut pooled) = Scene::new("");
    for exchange in operations::all(ID) {
        scene.client.send(&exchange.request.client);
        pooled.expect(&exchange.request.backend, &exchange.answer.backend);
        let answer = scene.client.answer_to(exchange.name == "touch");
        assert_eq!(answer, exchange.answer.client, "{}", exchange.name);
    }
    scene.backend.assert_nobody_connected();
}

#[test]
fn a_connection_that_ended_while_idle_is_not_used() {
    let (mut scene, mut pooled) = Scene::new("");
    for (_, end) in ENDS {
        for exchange in operations::all(ID) {
            end(pooled);
            scene.client.send(&exchange.request.client);
            pooled = scene.expect_on_fresh(&exchange);
        }
    }
    scene.backend.assert_nobody_connected();
}

/// All that is left in the pool may be dead, after a restart of the state server for example.
#[test]
fn a_pool_full_of_ended_connections_is_passed_over() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for exchange in operations::all(ID) {
        let (mut clients, pooled) = pool_many(&proxy, &backend);
        pooled.into_iter().for_each(BackendConnection::close);
        for client in &mut clients {
            client.send(&exchange.request.client);
            let mut fresh = backend.accept();
            fresh.expect(&exchange.request.backend, &exchange.answer.backend);
            assert_eq!(
                client.answer_to(exchange.name == "touch"),
                exchange.answer.client
            );
            fresh.close();
        }
    }
}

#[test]
fn a_large_request_survives_a_connection_that_ended_while_idle() {
    let (mut scene, mut pooled) = Scene::new("");
    let body: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
    for (_, end) in ENDS {
        end(pooled);
        let request = Message::with_lock(1, 2, |cookie| client::put(ID, cookie, &body));
        let answer = operations::ok("", b"");
        scene.client.send(&request.client);
        pooled = scene.backend.accept();
        assert!(
            pooled.read(request.backend.len()) == request.backend,
            "the request was changed"
        );
        pooled.write(&answer);
        assert_eq!(scene.client.answer_to(false), answer);
    }
}

/// Nobody can tell what bytes that nobody asked for answer to.
#[test]
fn a_connection_with_unsolicited_bytes_is_not_used() {
    let (mut scene, mut pooled) = Scene::new("");
    for unsolicited in [ABSENT, b"\0", b"200 OK\r\n"] {
        for exchange in operations::all(ID) {
            pooled.write(unsolicited);
            wait_until_arrived(&pooled.stream);
            scene.client.send(&exchange.request.client);
            let fresh = scene.expect_on_fresh(&exchange);
            assert!(pooled.is_closed(), "{}: kept", exchange.name);
            pooled = fresh;
        }
    }
}

#[test]
fn bytes_behind_an_answer_end_the_connection_and_not_the_answer() {
    let (mut scene, mut connection) = Scene::new("");
    for extra in [&b"x"[..], b"\r\n", b"\x16\x03"] {
        for exchange in operations::all(ID) {
            scene.client.send(&exchange.request.client);
            let answer = [&exchange.answer.backend, extra].concat();
            connection.expect(&exchange.request.backend, &answer);
            let answer = scene.client.answer_to(exchange.name == "touch");
            assert_eq!(answer, exchange.answer.client, "{}", exchange.name);
            assert!(connection.is_closed(), "{}: kept", exchange.name);
            // Nothing of the extra bytes may come up in the next answer.
            connection = scene.pool_one();
        }
    }
}

#[test]
fn only_reads_go_out_again_when_a_pooled_connection_ends_instead_of_answering() {
    for (how, end) in ENDS {
        for exchange in operations::all(ID) {
            let (mut scene, mut pooled) = Scene::new("");
            scene.client.send(&exchange.request.client);
            pooled.read(exchange.request.backend.len());
            end(pooled);
            if exchange.is_repeatable {
                scene.expect_on_fresh(&exchange);
                scene.backend.assert_nobody_connected();
            } else {
                scene.expect_failure(&format!("{}, {how}", exchange.name));
            }
        }
    }
}

#[test]
fn nothing_goes_out_a_third_time() {
    for (how, end) in ENDS {
        for exchange in repeatable() {
            let (mut scene, mut pooled) = Scene::new("");
            scene.client.send(&exchange.request.client);
            pooled.read(exchange.request.backend.len());
            end(pooled);
            let mut fresh = scene.backend.accept();
            fresh.read(exchange.request.backend.len());
            end(fresh);
            scene.expect_failure(&format!("{}, {how}", exchange.name));
        }
    }
}

/// Where one pooled connection was dead the others are suspects too.
#[test]
fn the_second_attempt_never_takes_a_pooled_connection() {
    for exchange in repeatable() {
        let backend = Backend::start();
        let proxy = proxy(&[backend.address], "");
        let (mut clients, mut pooled) = pool_many(&proxy, &backend);
        for client in &mut clients[..4] {
            client.send(&exchange.request.client);
            let mut asked = take_asked(&mut pooled);
            asked.read(exchange.request.backend.len());
            asked.close();
            let mut fresh = backend.accept();
            fresh.expect(&exchange.request.backend, &exchange.answer.backend);
            assert_eq!(
                client.answer_to(exchange.name == "touch"),
                exchange.answer.client
            );
            pooled.push(fresh);
        }
    }
}

#[test]
fn nothing_goes_out_again_on_a_fresh_connection() {
    for (how, end) in ENDS {
        for exchange in operations::all(ID) {
            let backend = Backend::start();
            let proxy = proxy(&[backend.address], "");
            let mut client = Client::connect(proxy.address);
            client.send(&exchange.request.client);
            let mut fresh = backend.accept();
            fresh.read(exchange.request.backend.len());
            end(fresh);
            let got = client.until_closed();
            assert!(got.is_empty(), "{}, {how}: {got:?}", exchange.name);
            backend.assert_nobody_connected();
        }
    }
}

/// One byte of an answer proves that the backend had the request.
#[test]
fn nothing_goes_out_again_once_the_answer_has_begun() {
    for exchange in operations::all(ID) {
        for begun in [1, exchange.head_bytes() - 1] {
            let (mut scene, mut pooled) = Scene::new("");
            scene.client.send(&exchange.request.client);
            pooled.read(exchange.request.backend.len());
            pooled.write(&exchange.answer.backend[..begun]);
            pooled.close();
            scene.expect_failure(&format!("{} after {begun} bytes", exchange.name));
        }
        let (mut scene, mut pooled) = Scene::new("");
        scene.client.send(&exchange.request.client);
        pooled.expect(&exchange.request.backend, b"garbage\r\n\r\n");
        scene.expect_failure(&format!("{} after garbage", exchange.name));
    }
}

/// The backend may still be at work on the first one.
#[test]
fn nothing_goes_out_again_after_a_timeout() {
    let scenes: Vec<(Scene, BackendConnection, Exchange)> = operations::all(ID)
        .into_iter()
        .map(|exchange| {
            let (mut scene, mut pooled) = Scene::new("timeouts: {answer: 2s}");
            scene.client.send(&exchange.request.client);
            pooled.read(exchange.request.backend.len());
            (scene, pooled, exchange)
        })
        .collect();
    for (mut scene, mut pooled, exchange) in scenes {
        scene.expect_failure(exchange.name);
        if exchange.name == "acquire" {
            // Its late answer is waited for, in case it took a lock.
            pooled.write(ABSENT);
        }
        assert!(pooled.is_closed(), "{}: kept", exchange.name);
    }
}

/// A read may announce a body. It goes out again with all of it, or not at all.
#[test]
fn a_read_with_a_body_goes_out_again_only_while_the_body_is_at_hand() {
    let head = |length: usize| {
        let announced = format!("\r\nContent-Length: {length}\r\n\r\n");
        let plain = String::from_utf8(client::get(ID)).unwrap();
        plain.replacen("\r\n\r\n", &announced, 1).into_bytes()
    };
    let answer = operations::ok("Timeout: 20\r\n", operations::BODY);
    for (how, end) in ENDS {
        let small = [head(5), b"hello".to_vec()].concat();
        let (mut scene, mut pooled) = Scene::new("");
        scene.client.send(&small);
        pooled.read(small.len());
        end(pooled);
        let mut fresh = scene.backend.accept();
        fresh.expect(&small, &answer);
        assert_eq!(scene.client.answer_to(false), answer);

        // More than a buffer, so its start is gone when the failure shows.
        let large = [head(300_000), vec![7; 300_000]].concat();
        let (mut scene, mut pooled) = Scene::new("");
        scene.client.send(&large);
        assert!(pooled.read(large.len()) == large, "the request was changed");
        end(pooled);
        scene.expect_failure(&format!("large body, {how}"));

        // The end shows while the body is still on its way.
        let (mut scene, mut pooled) = Scene::new("");
        scene.client.send(&large[..100_000]);
        pooled.read(100_000);
        end(pooled);
        // The proxy may have closed already.
        let _ = scene.client.stream.write_all(&large[100_000..]);
        scene.expect_failure(&format!("half a body, {how}"));
    }
}

fn repeatable() -> impl Iterator<Item = Exchange> {
    let all = operations::all(ID).into_iter();
    all.filter(|exchange| exchange.is_repeatable)
}

/// As many idle connections in the pools of `proxy` as there are clients.
fn pool_many(proxy: &Program, backend: &Backend) -> (Vec<Client>, Vec<BackendConnection>) {
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(proxy.address)).collect();
    for client in &mut clients {
        client.send(&client::get(ID));
    }
    let mut pooled: Vec<BackendConnection> = clients.iter().map(|_| backend.accept()).collect();
    for connection in &mut pooled {
        connection.expect(&client::get(ID), ABSENT);
    }
    for client in &mut clients {
        assert_eq!(client.answer_to(false), ABSENT);
    }
    (clients, pooled)
}

/// Takes out the connection on which a request has arrived, as soon as there is one.
fn take_asked(connections: &mut Vec<BackendConnection>) -> BackendConnection {
    for connection in &*connections {
        connection.stream.set_nonblocking(true).unwrap();
    }
    let asked = loop {
        let arrived = |connection: &BackendConnection| connection.stream.peek(&mut [0]).is_ok();
        if let Some(asked) = connections.iter().position(arrived) {
            break asked;
        }
        std::thread::yield_now();
    };
    for connection in &*connections {
        connection.stream.set_nonblocking(false).unwrap();
    }
    connections.swap_remove(asked)
}
