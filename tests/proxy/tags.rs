//! Lock cookies on their way through the proxy: towards the client they get the id of the backend
//! that issued them, towards a backend they lose it, and nothing else of a message changes.

use std::thread;

use crate::support::answers::{DONE, item, locked_item, success};
use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{self, Client, acquire, delete, get, head, put, release, status};
use crate::support::operations::{BODY, Message, ok};
use crate::support::tags::{COUNTERS, tag};
use crate::support::{Program, ProxyFiles, proxy, sessions};
use staterouter::handover::NO_LOCK;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Ids that make cookies of eight, nine and ten digits.
const BACKEND_IDS: [u8; 5] = [1, 5, 6, 60, 127];

/// Ages, in seconds, of a lock that may belong to a request under way, and of one that cannot.
const AGES: [u32; 2] = [9, 10];

/// A lock age that means "just now": a stock server says it while it replaces an item.
const AGE_OF_A_SWAP: u32 = 2_000_000_000;

/// A client of a proxy over one backend, and the connection between those two.
struct Scene {
    _proxy: Program,
    backend: Backend,
    client: Client,
    connection: BackendConnection,
}

impl Scene {
    fn new(backend_id: u8) -> Self {
        let backend = Backend::start();
        // A scripted backend would be asked again.
        let at_once = "locks: {wait: 0s}";
        let proxy = ProxyFiles::with_ids(&[(backend_id, backend.address)], at_once).serve();
        let mut client = Client::connect(proxy.address);
        client.send(&get(ID));
        let mut connection = backend.accept();
        connection.expect(&get(ID), ABSENT);
        assert_eq!(client.answer_to(false), ABSENT);
        Self {
            _proxy: proxy,
            backend,
            client,
            connection,
        }
    }

    fn exchange(&mut self, request: &Message, answer: &Message) {
        self.client.send(&request.client);
        self.connection.expect(&request.backend, &answer.backend);
        assert_text(&self.client.answer_to(false), &answer.client);
    }

    /// Sends what the backend must get as it is, and so the answer the other way round.
    fn passes(&mut self, request: &[u8], answer: &[u8]) {
        let plain = |bytes: &[u8]| Message::plain(bytes.to_vec());
        self.exchange(&plain(request), &plain(answer));
    }
}

fn assert_text(got: &[u8], expected: &[u8]) {
    assert_eq!(
        String::from_utf8_lossy(got),
        String::from_utf8_lossy(expected)
    );
}

/// The answer to whom the lock `cookie`, held for `age_s`, is in the way.
fn refused(cookie: u32, age_s: u32) -> Vec<u8> {
    format!(
        "423 Locked\r\nX-AspNet-Version: 4.0.30319\r\nLockDate: 639000000001234567\r\n\
         LockAge: {age_s}\r\nLockCookie: {cookie}\r\nCache-Control: private\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The requests that name a lock.
const UNDER_LOCK: [fn(&str, u32) -> Vec<u8>; 3] =
    [release, |id, cookie| put(id, cookie, BODY), delete];

/// Every request that a lock can be in the way of, with the lock `counter` where it names one.
fn requests(backend_id: u8, counter: u32) -> Vec<Message> {
    let locked = |request: fn(&str, u32) -> Vec<u8>| {
        Message::with_lock(backend_id, counter, |c| request(ID, c))
    };
    let plain = [acquire(ID), get(ID)].map(Message::plain);
    plain.into_iter().chain(UNDER_LOCK.map(locked)).collect()
}

#[test]
fn a_cookie_gets_its_tag_and_loses_it() {
    for backend_id in BACKEND_IDS {
        let mut scene = Scene::new(backend_id);
        for counter in COUNTERS.into_iter().chain([0, 1, 2]) {
            let with_lock =
                |answer: &dyn Fn(u32) -> Vec<u8>| Message::with_lock(backend_id, counter, answer);
            let locked = [
                with_lock(&|cookie| locked_item(cookie, BODY)),
                with_lock(&|cookie| {
                    let lock = format!("ActionFlags: 1\r\nLockCookie: {cookie}\r\nTimeout: 20\r\n");
                    ok(&lock, BODY)
                }),
            ];
            let done = [ok("ActionFlags: 1\r\n", b""), DONE.to_vec()].map(Message::plain);
            let item = [Message::plain(item(BODY))];
            for request in requests(backend_id, counter) {
                scene.exchange(&request, &with_lock(&|cookie| refused(cookie, 7)));
                let answers = if request.client == acquire(ID) {
                    &locked[..]
                } else if request.client == get(ID) {
                    &item[..]
                } else {
                    &done[..]
                };
                for answer in answers {
                    scene.exchange(&request, answer);
                }
            }
        }
    }
}

#[test]
fn a_cookie_without_a_tag_reaches_the_backend_as_it_is() {
    let mut scene = Scene::new(1);
    let values = [
        0,
        1,
        5,
        tag(1, 0) - 1,
        tag(127, 0xff_ffff) + 1,
        tag(255, 2),
        u32::MAX,
    ];
    for value in values {
        for request in UNDER_LOCK {
            scene.passes(&request(ID, value), DONE);
        }
    }
}

/// Any of them gets its answer from the state server.
#[test]
fn what_is_no_cookie_passes_both_ways_as_it_is() {
    let mut scene = Scene::new(1);
    let target = client::target(ID);
    let values = [
        "",
        "-1",
        "-4",
        "x",
        "++16777218",
        "0x1000002",
        "16777218.0",
        "1 6777218",
        "\"16777218\"",
        "4294967298",
        "18446744073709551618",
    ];
    let requests = [
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: release\r\n"),
        format!("DELETE {target} HTTP/1.1\r\nHost: localhost\r\n"),
        format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\nTimeout:20\r\nContent-Length:0\r\n"),
    ];
    for request in requests {
        scene.passes(format!("{request}\r\n").as_bytes(), DONE);
        for value in values {
            let request = format!("{request}LockCookie:{value}\r\n\r\n");
            scene.passes(request.as_bytes(), DONE);
        }
    }
    for value in values {
        let length = "Content-Length: 0\r\n\r\n";
        for answer in [
            format!("200 OK\r\nLockCookie: {value}\r\n{length}"),
            format!("423 Locked\r\nLockCookie: {value}\r\nLockAge: 1\r\n{length}"),
        ] {
            scene.passes(&acquire(ID), answer.as_bytes());
        }
    }
    let answer = "423 Locked\r\nLockAge: 1\r\nContent-Length: 0\r\n\r\n";
    scene.passes(&acquire(ID), answer.as_bytes());
}

/// State servers read a plus sign as what it is.
#[test]
fn a_cookie_with_a_plus_sign_loses_its_tag_as_well() {
    let mut scene = Scene::new(1);
    let with_sign = |request: Vec<u8>| {
        let at = request.windows(11).position(|name| name == b"LockCookie:");
        let (start, rest) = request.split_at(at.map_or(0, |at| at + 11));
        [start, b" +", rest.trim_ascii_start()].concat()
    };
    for request in UNDER_LOCK {
        let signed = Message {
            client: with_sign(request(ID, tag(1, 42))),
            backend: without_sign(with_sign(request(ID, 42))),
        };
        scene.exchange(&signed, &Message::plain(DONE.to_vec()));
    }
}

/// The sign is part of the number that is replaced.
fn without_sign(mut request: Vec<u8>) -> Vec<u8> {
    request.retain(|&byte| byte != b'+');
    request
}

#[test]
fn only_the_digits_of_a_cookie_change() {
    let mut scene = Scene::new(60);
    let target = client::target(ID);
    for line in [
        "LockCookie:{}",
        "LockCookie: {}",
        "LockCookie: \t {} \t",
        "lOCKcOOKIE:{}",
        "X-LockCookie: 1006632963\r\nLockCookie:{}\r\nCookie: 1006632963",
    ] {
        let line = |cookie: u32| line.replace("{}", &cookie.to_string());
        let request = Message::with_lock(60, 3, |cookie| {
            let line = line(cookie);
            format!("DELETE {target} HTTP/1.1\r\n{line}\r\nHost: localhost\r\n\r\n").into_bytes()
        });
        let answer = Message::with_lock(60, 4, |cookie| {
            let line = line(cookie);
            format!("423 Locked\r\n{line}\r\nContent-Length: 4\r\n\r\nbody").into_bytes()
        });
        scene.exchange(&request, &answer);
    }
    // The name that the published protocol gives it in requests.
    let request = Message::with_lock(60, 3, |cookie| {
        format!("DELETE {target} HTTP/1.1\r\nLock-Cookie: {cookie}\r\n\r\n").into_bytes()
    });
    scene.exchange(&request, &Message::plain(DONE.to_vec()));
}

/// Without its tag it could be taken for a lock of another backend. Nobody knows of the lock, so it
/// is given back.
#[test]
fn a_counter_that_leaves_no_room_for_a_tag_costs_the_connection() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    for counter in [0x100_0000, tag(1, 2), tag(127, 0xff_ffff), u32::MAX] {
        for request in requests(1, 2) {
            let locked = locked_item(counter, BODY);
            let locked = Some(locked).filter(|_| request.client == acquire(ID));
            for answer in &Vec::from_iter([refused(counter, 7)].into_iter().chain(locked)) {
                let mut client = Client::connect(proxy.address);
                client.send(&request.client);
                let mut connection = backend.accept();
                connection.expect(&request.backend, answer);
                assert_text(&client.until_closed(), b"");
                assert!(connection.is_closed());
                if request.client == acquire(ID) && status(answer) == "200" {
                    let mut connection = backend.accept();
                    connection.expect(&release(ID, counter), DONE);
                    connection.close();
                }
            }
        }
    }
    backend.assert_nobody_connected();
    proxy.wait_for_log(|line| line.contains("lock cookie 16777216"));
}

#[test]
fn a_lock_of_a_backend_that_nobody_knows_opens_nothing() {
    let server = Program::state_server();
    let proxy = proxy(&[server.address], "");
    let mut client = Client::connect(proxy.address);
    assert_eq!(client.ask(&put(ID, 0, BODY)), DONE);
    assert_eq!(client.ask(&acquire(ID)), locked_item(tag(1, 2), BODY));
    for request in UNDER_LOCK {
        let answer = client.ask(&request(ID, tag(99, 2)));
        assert_eq!(status(&answer), "423");
    }
    let answer = client.ask(&get(ID));
    assert_eq!(status(&answer), "423", "the lock is gone");
    assert_eq!(client.ask(&put(ID, tag(1, 2), b"mine")), DONE);
    assert_eq!(client::body(&client.ask(&get(ID))), b"mine");
}

#[test]
fn requests_in_one_segment_lose_their_tags_each() {
    for backend_id in BACKEND_IDS {
        let mut scene = Scene::new(backend_id);
        let requests: Vec<Message> = COUNTERS
            .into_iter()
            .flat_map(|counter| requests(backend_id, counter))
            .collect();
        let all: Vec<&[u8]> = requests.iter().map(|one| one.client.as_slice()).collect();
        scene.client.send(&all.concat());
        for (request, counter) in requests.iter().zip(2..) {
            let answer = Message::with_lock(backend_id, counter, |cookie| refused(cookie, 0));
            scene.connection.expect(&request.backend, &answer.backend);
            assert_text(&scene.client.answer_to(false), &answer.client);
        }
    }
}

#[test]
fn a_large_write_loses_its_tag_and_is_followed_by_the_next_request() {
    let body: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    for backend_id in BACKEND_IDS {
        let mut scene = Scene::new(backend_id);
        for counter in COUNTERS {
            let store = Message::with_lock(backend_id, counter, |cookie| put(ID, cookie, &body));
            let next = Message::with_lock(backend_id, counter, |cookie| release(ID, cookie));
            scene
                .client
                .send(&[&store.client[..], &next.client].concat());
            // Not assert_eq: nobody could read it.
            let got = scene.connection.read(store.backend.len());
            assert!(got == store.backend, "the request was changed");
            scene.connection.write(DONE);
            assert_eq!(scene.client.answer_to(false), DONE);
            scene.connection.expect(&next.backend, DONE);
            assert_eq!(scene.client.answer_to(false), DONE);
        }
    }
}

#[test]
fn what_follows_a_read_that_went_out_twice_is_not_changed_twice() {
    for request in requests(5, 42) {
        let mut scene = Scene::new(5);
        scene.client.send(&[&get(ID)[..], &request.client].concat());
        scene.connection.read(get(ID).len());
        scene.connection.close();
        let mut fresh = scene.backend.accept();
        fresh.expect(&get(ID), ABSENT);
        assert_eq!(scene.client.answer_to(false), ABSENT);
        let answer = |cookie| success(&request.backend, cookie, BODY);
        let answer = Message::with_lock(5, 2, answer);
        fresh.expect(&request.backend, &answer.backend);
        assert_text(&scene.client.answer_to(false), &answer.client);
    }
}

/// Two backends, a session of the first, and a client that has a lock of the second.
struct Foreign {
    owner: Backend,
    issuer: Backend,
    _proxy: Program,
    client: Client,
    id: String,
}

/// The lock, as the issuer counts.
const FOREIGN: u32 = 5;

impl Foreign {
    fn new() -> Self {
        let (owner, issuer) = (Backend::start(), Backend::start());
        let proxy = proxy(&[owner.address, issuer.address], "");
        Self {
            client: Client::connect(proxy.address),
            owner,
            issuer,
            _proxy: proxy,
            id: sessions::owned_by(0, 2, 1, 1).remove(0),
        }
    }

    /// Sends `request` under the lock.
    fn send(&mut self, request: fn(&str, u32) -> Vec<u8>) {
        self.client.send(&request(&self.id, tag(2, FOREIGN)));
    }

    /// The issuer gets `request` with its own lock, and its answer reaches the client.
    fn expect_at_issuer(
        &mut self,
        connection: &mut BackendConnection,
        request: fn(&str, u32) -> Vec<u8>,
    ) {
        let answer = Message::with_lock(2, 9, |cookie| refused(cookie, 7));
        connection.expect(&request(&self.id, FOREIGN), &answer.backend);
        assert_text(&self.client.answer_to(false), &answer.client);
    }

    fn expect_failure(&mut self) {
        assert_text(&self.client.until_closed(), b"");
    }
}

/// More than a buffer: it comes while its place is looked for.
fn put_much(id: &str, cookie: u32) -> Vec<u8> {
    put(id, cookie, &[7; 300_000])
}

#[test]
fn a_release_of_a_foreign_lock_goes_straight_to_its_backend() {
    let mut scene = Foreign::new();
    scene.send(release);
    let mut connection = scene.issuer.accept();
    scene.expect_at_issuer(&mut connection, release);
    scene.owner.assert_nobody_connected();
}

#[test]
fn a_write_under_a_foreign_lock_goes_where_the_item_is() {
    for request in [UNDER_LOCK[1], put_much] {
        let mut scene = Foreign::new();
        scene.send(request);
        let mut connection = scene.issuer.accept();
        connection.expect(&head(&scene.id), DONE);
        scene.expect_at_issuer(&mut connection, request);
        scene.owner.assert_nobody_connected();

        let mut scene = Foreign::new();
        scene.send(request);
        scene.issuer.accept().expect(&head(&scene.id), ABSENT);
        // It opens no lock here, and is stored if there is none.
        let mut connection = scene.owner.accept();
        let answer = Message::with_lock(1, 3, |cookie| refused(cookie, 7));
        connection.expect(&request(&scene.id, NO_LOCK), &answer.backend);
        assert_text(&scene.client.answer_to(false), &answer.client);
    }
}

#[test]
fn a_write_under_a_foreign_lock_fails_when_its_backend_does_not_say_whether_it_has_the_item() {
    for answer in [
        &refused(5, 7)[..],
        b"500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
    ] {
        let mut scene = Foreign::new();
        scene.send(UNDER_LOCK[1]);
        scene.issuer.accept().expect(&head(&scene.id), answer);
        scene.expect_failure();
        scene.owner.assert_nobody_connected();
    }
}

#[test]
fn a_removal_under_a_foreign_lock_clears_the_place_of_the_session_first() {
    for cleared in [DONE, ABSENT] {
        let mut scene = Foreign::new();
        scene.send(delete);
        let clear = delete(&scene.id, NO_LOCK);
        scene.owner.accept().expect(&clear, cleared);
        let mut connection = scene.issuer.accept();
        scene.expect_at_issuer(&mut connection, delete);
    }
}

#[test]
fn a_removal_under_a_foreign_lock_waits_for_a_request_that_may_be_moving_the_session() {
    // Each waits until its time is up.
    thread::scope(|all| {
        for age_s in [0, AGES[0], AGE_OF_A_SWAP] {
            all.spawn(move || {
                let mut scene = Foreign::new();
                scene.send(delete);
                let clear = delete(&scene.id, NO_LOCK);
                scene.owner.accept().expect(&clear, &refused(8, age_s));
                scene.expect_failure();
                scene.issuer.assert_nobody_connected();
            });
        }
    });
}

#[test]
fn a_removal_under_a_foreign_lock_takes_what_was_left_locked_with_it() {
    let looked_at = |answer| {
        let mut scene = Foreign::new();
        scene.send(delete);
        let mut debris = scene.owner.accept();
        debris.expect(&delete(&scene.id, NO_LOCK), &refused(8, AGES[1]));
        let mut connection = scene.issuer.accept();
        connection.expect(&head(&scene.id), answer);
        (scene, debris, connection)
    };
    let (mut scene, mut debris, mut connection) = looked_at(DONE);
    debris.expect(&delete(&scene.id, 8), DONE);
    scene.expect_at_issuer(&mut connection, delete);

    // Nothing left to remove: what is at the place of the session is somebody's.
    let (mut scene, debris, mut connection) = looked_at(ABSENT);
    scene.expect_at_issuer(&mut connection, delete);
    scene.owner.assert_nobody_connected();
    drop(debris);
}
