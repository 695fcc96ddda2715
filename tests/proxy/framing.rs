//! What goes into the proxy comes out again, byte for byte but for the tag of a lock cookie, however
//! it was cut up on the way; and what could be cut up in two ways does not go in at all.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use std::net::SocketAddr;
use std::thread;

use crate::support::answers::{self, BAD_REQUEST, DONE, item, locked_item};
use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{Client, acquire, body, get, head, put, target};
use crate::support::operations::Message;
use crate::support::system::{peak_resident_bytes, resident_bytes, wait_until_read};
use crate::support::tags::{COUNTERS, tagged};
use crate::support::{Program, ProxyFiles, proxy};
use staterouter::config;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Bytes that end a head, start an answer or a request, or look like nothing at all.
const ODD_BYTES: &[u8] = b"\r\n\r\n\0\xff\x80200 OK\r\nGET / HTTP/1.1\r\n\r\n";

/// Size of the proxy's buffers.
const BUFFER_BYTES: usize = 64 * 1024;

/// Limits that the requests of [`bad_requests`] break.
const SMALL_BODIES: &str = "limits: {body: 1KiB}";

/// A state server with the same limits.
const STATE_SERVER: &[&str] = &[
    "state-server",
    "--listen",
    "127.0.0.1:0",
    "--max-body",
    "1KiB",
];

/// For tests that wait for each piece of a message to be read.
const PATIENT: &str = "timeouts: {client_stall: 1h, connect: 1h, answer: 1h}\n\
                       handover: {settle: 2h, failover_after: 2h}";

/// A proxy over one scripted backend.
fn one_backend(extra: &str) -> (Program, Backend) {
    let backend = Backend::start();
    (proxy(&[backend.address], extra), backend)
}

/// Sends `request` through the proxy and answers it; both must arrive as they should.
fn exchange(
    client: &mut Client,
    backend: &mut BackendConnection,
    (request, answer): (&Message, &Message),
) {
    client.send(&request.client);
    backend.expect(&request.backend, &answer.backend);
    let received = client.answer_to(request.client.starts_with(b"HEAD "));
    assert_eq!(
        String::from_utf8_lossy(&received),
        String::from_utf8_lossy(&answer.client)
    );
}

/// A PUT that writes back under a lock of the first backend.
fn store(counter: u32, body: &[u8]) -> Message {
    Message::with_lock(1, counter, |cookie| put(ID, cookie, body))
}

/// What an acquire gets from the first backend.
fn locked(counter: u32, body: &[u8]) -> Message {
    Message::with_lock(1, counter, |cookie| locked_item(cookie, body))
}

/// A client whose first request has been answered, and the connection it was sent over.
fn connected(proxy: &Program, backend: &Backend) -> (Client, BackendConnection) {
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut connection = backend.accept();
    connection.expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);
    (client, connection)
}

fn streams(clients: &[Client]) -> impl Iterator<Item = &std::net::TcpStream> {
    clients.iter().map(|client| &client.stream)
}

#[test]
fn a_request_split_at_any_byte_arrives_whole() {
    let acquire = Message::plain(acquire(ID));
    let everywhere: Vec<usize> = (1..acquire.client.len()).collect();
    // No more at a time than a backend may have waiting for accept.
    everywhere
        .chunks(64)
        .for_each(|cuts| send_cut(&acquire, cuts));
    for counter in COUNTERS {
        let store = store(counter, ODD_BYTES);
        let cuts = cuts(counter, &store.client);
        cuts.chunks(64).for_each(|cuts| send_cut(&store, cuts));
    }
}

/// Where to cut a message with one of [`COUNTERS`]: everywhere if the counter is as short or as
/// long as one can be, else in and around its line, where its length makes a difference.
fn cuts(counter: u32, message: &[u8]) -> Vec<usize> {
    if [COUNTERS.first(), COUNTERS.last()].contains(&Some(&counter)) {
        return (1..message.len()).collect();
    }
    let name = b"LockCookie";
    let windows = &mut message.windows(name.len());
    let line = windows.position(|bytes| bytes == name).unwrap();
    (line - 1..line + 28).collect()
}

/// Sends `request` once for each of `cuts`, in two segments.
fn send_cut(request: &Message, cuts: &[usize]) {
    let (proxy, backend) = one_backend(PATIENT);
    let mut clients = Vec::new();
    for &at in cuts {
        let mut client = Client::connect(proxy.address);
        client.send(&request.client[..at]);
        clients.push(client);
    }
    wait_until_read(streams(&clients));
    for (&at, client) in cuts.iter().zip(&mut clients) {
        client.send(&request.client[at..]);
    }
    // None is answered before all have come: each has a backend connection of its own.
    let mut connections: Vec<_> = clients.iter().map(|_| backend.accept()).collect();
    let answer = match answers::brings_item(&request.client) {
        true => locked(3, ODD_BYTES),
        false => Message::plain(DONE.to_vec()),
    };
    for connection in &mut connections {
        assert_eq!(connection.read(request.backend.len()), request.backend);
    }
    for connection in &mut connections {
        connection.write(&answer.backend);
    }
    for client in &mut clients {
        assert_eq!(client.answer_to(false), answer.client);
    }
}

#[test]
fn an_answer_split_at_any_byte_arrives_whole() {
    for counter in COUNTERS {
        let answer = locked(counter, ODD_BYTES);
        send_answer_cut(&answer, &cuts(counter, &answer.backend));
    }
}

/// Sends `answer` once for each of `cuts`, in two segments.
fn send_answer_cut(answer: &Message, cuts: &[usize]) {
    let (proxy, backend) = one_backend(PATIENT);
    let request = acquire(ID);
    let mut clients = Vec::new();
    let mut connections = Vec::new();
    for &at in cuts {
        let mut client = Client::connect(proxy.address);
        client.send(&request);
        clients.push(client);
        let mut connection = backend.accept();
        connection.stream.set_nodelay(true).unwrap();
        connection.expect(&request, &answer.backend[..at]);
        connections.push(connection);
    }
    wait_until_read(connections.iter().map(|connection| &connection.stream));
    for (&at, connection) in cuts.iter().zip(&mut connections) {
        connection.write(&answer.backend[at..]);
    }
    for client in &mut clients {
        assert_eq!(client.answer_to(false), answer.client);
    }
}

#[test]
fn a_request_and_an_answer_sent_byte_by_byte_arrive_whole() {
    let (proxy, backend) = one_backend("");
    let request = b"PUT /a/b HTTP/1.1\r\nContent-Length:4\r\n\r\n\r\n\r\n";
    let answer = b"423 Locked\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
    let mut client = Client::connect(proxy.address);
    // The kernel may join a few of them; the tests above hold every single cut.
    for byte in request {
        client.send(&[*byte]);
    }
    let mut connection = backend.accept();
    connection.stream.set_nodelay(true).unwrap();
    assert_eq!(connection.read(request.len()), request);
    for byte in answer {
        connection.write(&[*byte]);
    }
    assert_eq!(client.answer_to(false), answer);
}

#[test]
fn requests_in_one_segment_are_answered_in_order_each_by_its_own_backend() {
    // From some size on, the proxy does not keep a session while its answer is awaited.
    let large = ODD_BYTES.repeat(12 * 1024 / ODD_BYTES.len());
    for (count, session) in [(2, ODD_BYTES), (5, ODD_BYTES), (5, &large)] {
        let backends: Vec<Backend> = (0..count).map(|_| Backend::start()).collect();
        let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
        let files = ProxyFiles::new(&addresses, "");
        let requests: Vec<Vec<u8>> = one_id_of_each(&files, count)
            .iter()
            .enumerate()
            .map(|(number, id)| match number % 2 {
                0 => put(id, number as u32, session),
                _ => acquire(id),
            })
            .collect();
        let proxy = files.serve();
        let mut client = Client::connect(proxy.address);
        client.send(&requests.concat());
        for (number, request) in requests.iter().enumerate() {
            let mut connection = backends[number].accept();
            assert_eq!(connection.read(request.len()), *request);
            for later in &backends[number + 1..] {
                later.assert_nobody_connected();
            }
            let answer = format!("answer {number}");
            let answer = answers::success(request, 2 + number as u32, answer.as_bytes());
            connection.write(&answer);
            assert_eq!(client.answer_to(false), tagged(number as u8 + 1, &answer));
        }
    }
}

#[test]
fn a_request_behind_the_last_part_of_a_body_is_answered_next() {
    let (store, read) = (put(ID, 2, ODD_BYTES), get(ID));
    let both = [&store[..], &read].concat();
    let server = Program::state_server();
    let through = proxy(&[server.address], "");
    for address in [server.address, through.address] {
        // From within the body on, so that the rest comes with what is behind it.
        for at in [1, ODD_BYTES.len() / 2, ODD_BYTES.len()] {
            let mut client = Client::connect(address);
            client.send(&both[..store.len() - at]);
            wait_until_read([&client.stream]);
            client.send(&both[store.len() - at..]);
            assert_eq!(client.answer_to(false), DONE);
            assert_eq!(body(&client.answer_to(false)), ODD_BYTES);
        }
    }
}

/// For each backend a session id that it owns.
fn one_id_of_each(files: &ProxyFiles, backends: usize) -> Vec<String> {
    let loaded = config::load(files.config().as_ref()).unwrap();
    let placement = loaded.partition_map.placement().unwrap();
    let owner = |id: &str| placement.owner(placement.slot(id.as_bytes())).index();
    let mut ids = (0..).map(|number| format!("session{number}"));
    (0..backends)
        .map(|backend| ids.find(|id| owner(id) == backend).unwrap())
        .collect()
}

#[test]
fn odd_but_well_framed_messages_pass_as_they_are() {
    // A scripted backend would be asked again.
    let (proxy, backend) = one_backend("locks: {wait: 0s}");
    let (mut client, mut connection) = connected(&proxy, &backend);
    let requests: &[&[u8]] = &[
        b"GET /a/b HTTP/1.1\r\n\r\n",
        b"GET a HTTP/1.1\r\nhOST:\tLOCALHOST \t\r\nX-Unknown: a:b, \"c\"\r\nEXCLUSIVE:Acquire\r\n\r\n",
        b"GET /caf\xc3\xa9 \xff(x)/ a  b HTTP/1.1\r\nHost: caf\xe9\r\n\r\n",
        b"GET //LM/W3SVC/1/ROOT(x)/a HTTP/1.0\r\nLock-Cookie: 1\r\nExclusive: Release\r\n\r\n",
        b"PUT %zz%u0041+x HTTP/1.1\r\nLockCookie:1\r\nExtraFlags: 2\r\ncontent-length: \t3  \r\nTimeout:x\r\n\r\nabc",
        b"PUT /a HTTP/1.1\r\nContent-Length:000\r\n\r\n",
        b"GET /a HTTP/1.1\r\nContent-Length: 3\r\nVia: x\r\nConnection: close\r\n\r\n\0\0\0",
        b"DELETE /a HTTP/1.1\r\nLockCookie: -1\r\nExpect: 100-continue\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n\r\n",
        b"get /a HTTP/1.1\r\n\r\n",
    ];
    let items: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\n\r\n\r\n",
        b"HTTP/1.0 200 caf\xe9\r\ncONTENT-length:1\t\r\nX-AspNet-Version:2.0.50727\r\n\r\n\0",
    ];
    let locked: &[&[u8]] = &[b"200\r\nLockCookie:\t02\r\ncontent-length:5\r\n\r\n500\r\n"];
    let others: &[&[u8]] = &[
        DONE,
        b"HTTP/1.1 200 OK\r\nContent-Length:0\r\nTimeout:20\r\n\r\n",
    ];
    let any: &[&[u8]] = &[
        b"423 Locked\r\nLockDate: x\r\nLockAge: -1\r\nLockCookie:2\r\nContent-Length: 0\r\n\r\n",
        b"400\r\nContent-Length:5\r\n\r\nouch!",
        b"404\r\nx-aspnet-version:\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ];
    for request in requests {
        let successes = match answers::brings_item(request) {
            true if request.ends_with(b"Acquire\r\n\r\n") => locked,
            true => items,
            false => others,
        };
        for answer in successes.iter().chain(any) {
            client.send(request);
            // After a body that the backend may not have read, its connection is not used again.
            if connection.is_given_up() {
                connection = backend.accept();
            }
            connection.expect(request, answer);
            assert_eq!(client.answer_to(false), tagged(1, answer));
        }
    }
}

#[test]
fn bodies_of_every_critical_length_pass_both_ways() {
    let (proxy, backend) = one_backend("");
    let (mut client, mut connection) = connected(&proxy, &backend);
    let heads = [store(2, b""), locked(3, b"")]
        .into_iter()
        .flat_map(|message| [message.client.len(), message.backend.len()]);
    // Around the buffer: bodies that fill it exactly, and messages that do with their heads.
    let around = |bytes: usize| [bytes - 1, bytes, bytes + 1];
    let bodies = [BUFFER_BYTES, 2 * BUFFER_BYTES]
        .into_iter()
        .flat_map(around);
    // Five digits of Content-Length instead of the one that was counted.
    let messages = heads.flat_map(|head| {
        let whole = BUFFER_BYTES - (head + 4);
        around(whole)
    });
    for length in [1].into_iter().chain(bodies).chain(messages) {
        let body: Vec<u8> = ODD_BYTES.iter().copied().cycle().take(length).collect();
        let done = Message::plain(DONE.to_vec());
        exchange(&mut client, &mut connection, (&store(2, &body), &done));
        let acquire = Message::plain(acquire(ID));
        let locked = locked(3, &body);
        exchange(&mut client, &mut connection, (&acquire, &locked));
    }
}

#[test]
fn a_body_of_50_mib_passes_both_ways_in_little_memory() {
    const BODY_BYTES: usize = 50 << 20;
    const MAX_GROWTH_BYTES: u64 = 16 << 20;
    let (proxy, backend) = one_backend("");
    // Without the pages of the program itself.
    let before = resident_bytes(proxy.id());
    let body = ODD_BYTES.repeat(BODY_BYTES.div_ceil(ODD_BYTES.len()));
    let (store, stored) = (put(ID, 2, &body), item(&body));
    let (store, stored) = (&store, &stored);
    let mut client = Client::connect(proxy.address);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut connection = backend.accept();
            // Not assert_eq: nobody could read 50 MiB.
            assert!(
                connection.read(store.len()) == *store,
                "the request changed"
            );
            connection.write(DONE);
            connection.expect(&get(ID), stored);
        });
        assert_eq!(client.ask(store), DONE);
        client.send(&get(ID));
        assert!(read_exactly(&mut client, stored.len()) == *stored);
    });
    let growth = peak_resident_bytes(proxy.id()).saturating_sub(before);
    assert!(growth < MAX_GROWTH_BYTES, "{growth} bytes of memory more");
}

fn read_exactly(client: &mut Client, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    std::io::Read::read_exact(&mut client.stream, &mut bytes).unwrap();
    bytes
}

#[test]
fn no_body_is_awaited_after_head_and_none_passes_for_another_answer() {
    let (proxy, backend) = one_backend("");
    let (mut client, mut connection) = connected(&proxy, &backend);
    let touch = Message::plain(head(ID));
    let done = Message::plain(DONE.to_vec());
    exchange(&mut client, &mut connection, (&touch, &done));
    let announced = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nContent-Length: 42\r\n\r\n";
    let announced = Message::plain(announced.to_vec());
    exchange(&mut client, &mut connection, (&touch, &announced));
    // Whether the 42 bytes come or not, they have no one to go to.
    client.send(&get(ID));
    let mut next = backend.accept();
    next.expect(&get(ID), &item(b"next"));
    assert_eq!(client.answer_to(false), item(b"next"));
    assert!(connection.is_closed());
}

/// A backend that overlooks the body would take it for a request, and its second answer would go
/// to whoever is next.
#[test]
fn a_backend_connection_is_not_used_again_after_a_body_that_may_not_have_been_read() {
    // Idle for ever: a connection that was kept must not be taken for one that was given up.
    let (proxy, backend) = one_backend("timeouts: {backend_idle: 1h}");
    let refused_put = put(ID, 2, b"body");
    let with_body = |request: Vec<u8>| {
        let text = String::from_utf8(request).unwrap();
        text.replacen("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody", 1)
            .into_bytes()
    };
    let cases = [
        (with_body(get(ID)), item(b"x")),
        (with_body(head(ID)), DONE.to_vec()),
        (with_body(acquire(ID)), ABSENT.to_vec()),
        (
            refused_put,
            b"400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
    ];
    for (request, answer) in cases {
        let (mut client, mut connection) = connected(&proxy, &backend);
        let (request, answer) = (Message::plain(request), Message::plain(answer));
        exchange(&mut client, &mut connection, (&request, &answer));
        assert!(
            connection.is_closed(),
            "{}",
            String::from_utf8_lossy(&request.client)
        );
    }
}

/// Requests that two readers could frame differently, that are too large, or that name no
/// session.
fn bad_requests() -> Vec<(&'static str, Vec<u8>)> {
    let with = |headers: &str, body: &str| {
        let target = target(ID);
        format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
    };
    let of = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let long = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
    vec![
        ("no session", of("/").into_bytes()),
        ("empty session id", of(&target("")).into_bytes()),
        ("empty target", of("").into_bytes()),
        ("no version", b"GET /a\r\n\r\n".to_vec()),
        (
            "two lengths",
            with("Content-Length:2\r\nContent-Length:3\r\n", "abc"),
        ),
        (
            "one length twice",
            with("Content-Length:2\r\ncontent-length: 2\r\n", "ab"),
        ),
        ("no number", with("Content-Length:0x2\r\n", "ab")),
        ("signed number", with("Content-Length:+2\r\n", "ab")),
        (
            "chunked",
            with("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
        ),
        (
            "chunked and length",
            with("Content-Length:2\r\nTransfer-Encoding:x\r\n", "ab"),
        ),
        ("long head", with(&long(17 << 10), "")),
        (
            "endless line",
            with(&long(17 << 10), "")[..17 << 10].to_vec(),
        ),
        ("many headers", with(&long(1).repeat(65), "")),
        ("NUL", with("X: a\0b\r\n", "")),
        ("NUL in the target", of("/a\0b").into_bytes()),
        ("bare line feed", with("X: a\nContent-Length:2\r\n", "ab")),
        ("line feeds only", b"GET /a HTTP/1.1\n\n".to_vec()),
        (
            "bare carriage return",
            with("X: a\rContent-Length:2\r\n", ""),
        ),
        ("space before colon", with("Content-Length :2\r\n", "ab")),
        ("folded header", with("X: a\r\n Content-Length:2\r\n", "ab")),
        ("header without name", with(": a\r\n", "")),
        ("header without colon", with("Host\r\n", "")),
        (
            "large body",
            with("Content-Length:1025\r\n", &"x".repeat(1025)),
        ),
        (
            "huge body",
            with("Content-Length:18446744073709551615\r\n", "x"),
        ),
        (
            "overflow",
            with("Content-Length:18446744073709551616\r\n", "x"),
        ),
    ]
}

#[test]
fn what_cannot_be_framed_gets_a_400_and_never_reaches_a_backend() {
    let (proxy, backend) = one_backend(SMALL_BODIES);
    for (name, request) in bad_requests() {
        let mut client = Client::connect(proxy.address);
        client.send(&request);
        assert_refused(name, &mut client);
    }
    backend.assert_nobody_connected();
}

#[test]
fn a_good_request_is_answered_before_the_bad_one_behind_it() {
    let good = put(ID, 2, b"body");
    for (name, request) in bad_requests() {
        let (proxy, backend) = one_backend(SMALL_BODIES);
        let mut client = Client::connect(proxy.address);
        client.send(&[&good[..], &request].concat());
        let mut connection = backend.accept();
        connection.expect(&good, DONE);
        assert_eq!(client.answer_to(false), DONE, "{name}");
        assert_refused(name, &mut client);
        proxy.kill();
        assert!(connection.is_closed(), "{name}: some of it was sent on");
        backend.assert_nobody_connected();
    }
}

#[test]
fn the_state_server_refuses_what_the_proxy_refuses() {
    let server = Program::start(STATE_SERVER);
    for (name, request) in bad_requests() {
        let mut client = Client::connect(server.address);
        client.send(&request);
        assert_refused(name, &mut client);

        let mut client = Client::connect(server.address);
        client.send(&[&put(ID, 0, name.as_bytes())[..], &request].concat());
        assert_eq!(client.answer_to(false), DONE, "{name}");
        assert_refused(name, &mut client);
        let stored = Client::connect(server.address).ask(&get(ID));
        assert_eq!(body(&stored), name.as_bytes());
    }
}

#[test]
fn a_client_that_is_still_sending_can_read_why_it_is_refused() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], SMALL_BODIES);
    let server = Program::start(STATE_SERVER);
    // More than the kernel takes before somebody reads.
    let store = put(ID, 2, &vec![b'x'; 48 << 20]);
    for address in [proxy.address, server.address] {
        let mut client = Client::connect(address);
        client.send(&store);
        assert_refused("large body", &mut client);
    }
    backend.assert_nobody_connected();
}

/// Exactly the 400 of the protocol, then the end of the connection.
fn assert_refused(name: &str, client: &mut Client) {
    let answer = client.until_closed();
    assert_eq!(
        String::from_utf8_lossy(&answer),
        String::from_utf8_lossy(BAD_REQUEST),
        "{name}"
    );
}

#[test]
fn no_log_line_holds_a_session_id() {
    let (proxy, backend) = one_backend(&format!("log: {{level: trace}}\n{SMALL_BODIES}"));
    let ask = |proxy: &Program, request: &[u8]| {
        let mut client = Client::connect(proxy.address);
        client.send(request);
        client
    };
    // A backend that leaves, one that talks nonsense, one that stops in the middle.
    let half = b"200 OK\r\nContent-Length: 9\r\n\r\nx";
    for answer in [&b""[..], b"nonsense\r\n\r\n", half] {
        let mut client = ask(&proxy, &acquire(ID));
        let mut connection = backend.accept();
        connection.expect(&acquire(ID), answer);
        drop(connection);
        client.until_closed();
    }
    // A client that leaves in the middle of a body, and some that cannot be understood.
    let store = put(ID, 2, b"a whole body");
    drop(ask(&proxy, &store[..store.len() - 1]));
    let mut left = backend.accept();
    left.read(store.len() - 1);
    assert!(left.is_closed());
    for (_, request) in bad_requests() {
        ask(&proxy, &request).until_closed();
    }
    // A backend that says nothing, and one that cannot be reached.
    let (impatient, silent) = one_backend("timeouts: {connect: 100ms, answer: 100ms}");
    ask(&impatient, &get(ID)).until_closed();
    drop(silent);
    let nowhere = support::proxy(&[nobody()], "");
    ask(&nowhere, &get(ID)).until_closed();
    for proxy in [proxy, impatient, nowhere] {
        let log = proxy.stop();
        assert!(log.contains("request failed"), "nothing was logged: {log}");
        assert!(!log.contains(ID), "{log}");
    }
}

/// An address where nobody listens, and nobody will: port 1 is never given out.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}
