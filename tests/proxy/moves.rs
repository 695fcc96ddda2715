//! Requests that meet the end of a move: two scripted backends, every slot on its way from the
//! first to the second.

use std::time::Duration;

use crate::support::answers::{BAD_REQUEST, DONE, item, locked_item};
use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{Client, acquire, delete, get, head, release};
use crate::support::metrics::Scrape;
use crate::support::system::{wait_until, wait_until_read};
use crate::support::tags::tag;
use crate::support::{Program, ProxyFiles, admin, slots};
use staterouter::handover::{NO_LOCK, Stage};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// A lock that was taken a moment ago.
const JUST_LOCKED: &[u8] = b"423 Locked\r\nX-AspNet-Version: 4.0.30319\r\n\
LockDate: 636000000000000000\r\nLockAge: 0\r\nLockCookie: 2\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

struct Scene {
    proxy: Program,
    client: Client,
    earlier: Backend,
    owner: Backend,
}

impl Scene {
    fn new() -> Self {
        // Idle for ever: a connection that was kept must not be taken for one that was given up.
        Self::with("timeouts: {backend_idle: 1h}")
    }

    fn with(extra: &str) -> Self {
        let [earlier, owner] = [(); 2].map(|()| Backend::start());
        let files = ProxyFiles::new(&[earlier.address, owner.address], extra);
        slots::put_all(&files, Stage::Move2, 2, 1);
        let proxy = files.serve();
        Self {
            client: Client::connect(proxy.address),
            proxy,
            earlier,
            owner,
        }
    }

    /// Has the client remove the session it holds, up to the first look behind.
    fn remove(&mut self) -> BackendConnection {
        self.client.send(&delete(ID, tag(2, 7)));
        let mut behind = self.earlier.accept();
        behind.expect(&delete(ID, NO_LOCK), JUST_LOCKED);
        behind
    }
}

#[test]
fn a_removal_waits_for_the_last_step_of_the_move_that_brought_the_session() {
    let mut scene = Scene::new();
    let mut behind = scene.remove();
    // Meanwhile the mover has removed it.
    behind.expect(&delete(ID, NO_LOCK), ABSENT);
    let mut owner = scene.owner.accept();
    owner.expect(&delete(ID, 7), DONE);
    assert_eq!(scene.client.answer_to(false), DONE);
}

#[test]
fn a_removal_does_not_wait_for_ever_and_removes_nothing_then() {
    let mut scene = Scene::new();
    let mut behind = scene.remove();
    let mut tries = 1;
    let given_up = std::thread::scope(|scope| {
        let client = scope.spawn(|| scene.client.until_closed());
        let again = delete(ID, NO_LOCK);
        while !client.is_finished() {
            behind.stream.set_nonblocking(true).unwrap();
            let waits = behind.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
            behind.stream.set_nonblocking(false).unwrap();
            if waits {
                behind.expect(&again, JUST_LOCKED);
                tries += 1;
            }
            std::thread::yield_now();
        }
        client.join().unwrap()
    });
    assert_eq!(given_up, b"");
    assert!(tries > 2, "{tries}");
    scene.owner.assert_nobody_connected();
}

/// Reads a whole PUT with a body of this length.
fn read_put(connection: &mut BackendConnection, body_bytes: usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(connection.read(1));
    }
    assert!(head.starts_with(b"PUT "));
    connection.read(body_bytes);
}

#[test]
fn large_sessions_wait_for_the_memory_of_others_and_are_left_where_they_are_without() {
    const PATIENT: &str = "
limits: {body: 100KiB}
timeouts: {connect: 2s, answer: 50s}
handover: {settle: 1m, failover_after: 1m}";
    let body = vec![b'x'; 100 << 10];
    let [earlier, owner] = [(); 2].map(|()| Backend::start());
    let files = ProxyFiles::new(&[earlier.address, owner.address], PATIENT);
    slots::put_all(&files, Stage::Move2, 2, 1);
    let proxy = files.start();
    // Up to the point where the item has to be read.
    let begin = |id: &str| {
        let mut client = Client::connect(proxy.address);
        client.send(&acquire(id));
        let mut at_owner = owner.accept();
        at_owner.expect(&acquire(id), ABSENT);
        let mut at_earlier = earlier.accept();
        at_earlier.expect(&acquire(id), &locked_item(2, &body));
        (client, at_owner)
    };
    let ids = [1, 2, 3, 4, 5].map(|number| format!("q3m1zt0xk4vdw2hn5sbyr0a{number}"));
    let mut moving: Vec<_> = ids[..4].iter().map(|id| begin(id)).collect();
    for (_, at_owner) in &mut moving {
        read_put(at_owner, body.len());
    }

    let main = files.read("staterouter.yaml");
    files.replace(
        "staterouter.yaml",
        &main.replace("answer: 50s", "answer: 3s"),
    );
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    let (mut client, _at_owner) = begin(&ids[4]);
    assert_eq!(client.until_closed(), b"");
    earlier.accept().expect(&release(&ids[4], 2), DONE);
    proxy.wait_for_log(|line| line.contains("too many large sessions"));

    for ((mut client, mut at_owner), id) in moving.into_iter().zip(&ids) {
        at_owner.write(DONE);
        at_owner.expect(&acquire(id), &locked_item(7, &body));
        assert_eq!(client.answer_to(false), locked_item(tag(2, 7), &body));
    }
}

/// A connection per session would use up the ports of the proxy's machine.
#[test]
fn sessions_are_moved_over_the_same_connections() {
    let mut scene = Scene::new();
    let (mut at_owner, mut at_earlier) = (None, None);
    for (number, body_bytes) in (1..).zip([4, 200_000, 0, 4]) {
        let id = format!("q3m1zt0xk4vdw2hn5sbyr0a{number}");
        let body = vec![b'x'; body_bytes];
        scene.client.send(&acquire(&id));
        let at_owner = at_owner.get_or_insert_with(|| scene.owner.accept());
        at_owner.expect(&acquire(&id), ABSENT);
        let at_earlier = at_earlier.get_or_insert_with(|| scene.earlier.accept());
        at_earlier.expect(&acquire(&id), &locked_item(2, &body));
        read_put(at_owner, body_bytes);
        at_owner.write(DONE);
        at_owner.expect(&acquire(&id), &locked_item(7, &body));
        let moved = locked_item(tag(2, 7), &body);
        assert!(scene.client.answer_to(false) == moved, "another answer");
        at_earlier.expect(&delete(&id, 2), DONE);
        // From here on the connection is free.
        wait_until_read([&at_earlier.stream]);
    }
    scene.owner.assert_nobody_connected();
    scene.earlier.assert_nobody_connected();
}

/// It would lock its user out until the takeover, for a request that may not even have asked for a
/// lock.
#[test]
fn a_session_that_does_not_come_whole_stays_where_it_is_without_the_lock() {
    let item = locked_item(2, &[b'x'; 2000]);
    let part = &item[..item.len() - 1000];
    let late = "timeouts: {connect: 1s, answer: 2s}";
    let too_large = "limits: {body: 1KiB}";
    for (extra, request, is_ended_by_proxy) in [
        ("", get(ID), false),
        (late, acquire(ID), true),
        (too_large, get(ID), true),
    ] {
        let mut scene = Scene::with(extra);
        scene.client.send(&request);
        scene.owner.accept().expect(&request, ABSENT);
        let mut at_earlier = scene.earlier.accept();
        at_earlier.expect(&acquire(ID), part);
        if is_ended_by_proxy {
            assert!(at_earlier.is_closed(), "{extra}");
        } else {
            at_earlier.close();
        }
        assert_eq!(scene.client.until_closed(), b"", "{extra}");
        scene.earlier.accept().expect(&release(ID, 2), DONE);
        scene.owner.assert_nobody_connected();
    }
}

#[test]
fn the_time_that_a_session_takes_to_arrive_is_not_the_proxys_own() {
    const HELD_UP: Duration = Duration::from_secs(1);
    let mut scene = Scene::new();
    scene.client.send(&acquire(ID));
    let mut at_owner = scene.owner.accept();
    at_owner.expect(&acquire(ID), ABSENT);
    let mut at_earlier = scene.earlier.accept();
    let item = locked_item(2, b"body");
    let (begin, end) = item.split_at(item.len() - 2);
    at_earlier.expect(&acquire(ID), begin);
    // Time itself is what is counted: there is nothing else to wait for.
    std::thread::sleep(HELD_UP);
    at_earlier.write(end);
    read_put(&mut at_owner, 4);
    at_owner.write(DONE);
    at_owner.expect(&acquire(ID), &locked_item(7, b"body"));
    assert_eq!(
        scene.client.answer_to(false),
        locked_item(tag(2, 7), b"body")
    );
    let overhead = |what| {
        let series = format!("staterouter_proxy_overhead_seconds_{what}");
        Scrape::of(scene.proxy.admin()).value(&series)
    };
    wait_until("it counts", || overhead("count") == 1.0);
    let own_s = overhead("sum");
    assert!(own_s < HELD_UP.as_secs_f64(), "{own_s}");
}

/// A body where the protocol has none.
fn with_body(request: &[u8]) -> Vec<u8> {
    let headers = &request[..request.len() - 2];
    [headers, b"Content-Length: 4\r\n\r\nbody"].concat()
}

/// A backend that overlooks the body would take it for a request, and answer it to whoever is next.
#[test]
fn a_search_puts_no_connection_back_after_a_body_that_may_not_have_been_read() {
    for (request, behind_it) in [
        // A read that moves its item asks for it with a request of the proxy's own.
        (with_body(&get(ID)), acquire(ID)),
        (with_body(&acquire(ID)), with_body(&acquire(ID))),
    ] {
        let mut scene = Scene::new();
        scene.client.send(&request);
        let mut first = scene.owner.accept();
        first.expect(&request, ABSENT);
        let mut behind = scene.earlier.accept();
        behind.expect(&behind_it, ABSENT);
        let mut again = scene.owner.accept();
        again.expect(&request, ABSENT);
        assert_eq!(scene.client.answer_to(false), ABSENT);
        assert!(first.is_closed());
        assert!(again.is_closed());
    }
}

fn refusal(status: &str) -> Vec<u8> {
    format!("{status}\r\nX-AspNet-Version: 4.0.30319\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Up to the answer to the copy: the connections to the new backend and to the earlier one.
fn answer_copy(
    scene: &mut Scene,
    request: &[u8],
    body: &[u8],
    answer: &[u8],
) -> (BackendConnection, BackendConnection) {
    scene.client.send(request);
    let mut at_owner = scene.owner.accept();
    at_owner.expect(request, ABSENT);
    let mut at_earlier = scene.earlier.accept();
    at_earlier.expect(&acquire(ID), &locked_item(2, body));
    read_put(&mut at_owner, body.len());
    at_owner.write(answer);
    (at_owner, at_earlier)
}

fn failed_inserts(scene: &Scene) -> f64 {
    let series = "staterouter_session_moves_failed_total{step=\"insert\"}";
    Scrape::of(scene.proxy.admin()).value(series)
}

/// It is served where it is, with the lock it has there: nobody is locked out, and nothing is lost.
#[test]
fn a_session_that_its_new_backend_refuses_is_served_where_it_is() {
    let large = vec![b'x'; 200_000];
    for (status, body) in [
        ("400 Bad Request", &b"body"[..]),
        ("404 Not Found", b"body"),
        ("423 Locked", b""),
        ("413 Too Large", &large),
        ("501 Unsupported method", b"body"),
    ] {
        let mut scene = Scene::new();
        let (mut at_owner, _at_earlier) =
            answer_copy(&mut scene, &acquire(ID), body, &refusal(status));
        if !status.starts_with("423") {
            // It may not have been read whole.
            assert!(at_owner.is_closed(), "{status}");
            at_owner = scene.owner.accept();
        }
        at_owner.expect(&head(ID), ABSENT);
        let answer = scene.client.answer_to(false);
        assert!(answer == locked_item(tag(1, 2), body), "{status}");
        assert_eq!(failed_inserts(&scene), 1.0, "{status}");
    }
}

/// Nobody has asked for the lock under which it was to be moved.
#[test]
fn a_read_of_a_session_that_cannot_be_moved_leaves_no_lock() {
    let mut scene = Scene::new();
    let (_, mut at_earlier) = answer_copy(&mut scene, &get(ID), b"body", BAD_REQUEST);
    let mut at_owner = scene.owner.accept();
    at_owner.expect(&head(ID), ABSENT);
    at_earlier.expect(&release(ID, 2), DONE);
    assert_eq!(scene.client.answer_to(false), item(b"body"));
    // A keep-alive is put to the old backend itself.
    scene.client.send(&head(ID));
    at_owner.expect(&head(ID), ABSENT);
    at_earlier.expect(&acquire(ID), &locked_item(3, b"body"));
    read_put(&mut at_owner, 4);
    at_owner.write(BAD_REQUEST);
    let mut at_owner = scene.owner.accept();
    at_owner.expect(&head(ID), ABSENT);
    at_earlier.expect(&release(ID, 3), DONE);
    at_earlier.expect(&head(ID), DONE);
    assert_eq!(scene.client.answer_to(true), DONE);
    assert_eq!(failed_inserts(&scene), 2.0);
}

/// It has it already: that one is the true one.
#[test]
fn a_backend_that_refuses_what_it_has_is_asked_for_it() {
    let mut scene = Scene::new();
    let (_, mut at_earlier) = answer_copy(&mut scene, &acquire(ID), b"body", BAD_REQUEST);
    let mut at_owner = scene.owner.accept();
    at_owner.expect(&head(ID), DONE);
    at_owner.expect(&acquire(ID), &locked_item(7, b"newer"));
    let newer = locked_item(tag(2, 7), b"newer");
    assert_eq!(scene.client.answer_to(false), newer);
    at_earlier.expect(&delete(ID, 2), DONE);
    assert_eq!(failed_inserts(&scene), 0.0);
}

/// It said that it has stored the session, and does not have it.
#[test]
fn a_backend_that_stores_nothing_gets_no_session() {
    let mut scene = Scene::new();
    let (mut at_owner, mut at_earlier) = answer_copy(&mut scene, &acquire(ID), b"body", DONE);
    at_owner.expect(&acquire(ID), ABSENT);
    at_earlier.expect(&release(ID, 2), DONE);
    at_earlier.expect(&acquire(ID), &locked_item(3, b"body"));
    at_owner.expect(&head(ID), ABSENT);
    let stays = locked_item(tag(1, 3), b"body");
    assert_eq!(scene.client.answer_to(false), stays);
    assert_eq!(failed_inserts(&scene), 1.0);
}

/// What something in between says of a backend that may store it yet is no refusal: the copy would
/// cover what is written where the session was.
#[test]
fn a_copy_that_may_be_stored_yet_is_waited_out() {
    for status in ["500 Oops", "503 Busy", "504 Gateway Timeout", "408 Timeout"] {
        let mut scene = Scene::new();
        let _at_both = answer_copy(&mut scene, &acquire(ID), b"body", &refusal(status));
        assert_eq!(scene.client.until_closed(), b"", "{status}");
        assert_eq!(failed_inserts(&scene), 1.0, "{status}");
    }
}

/// A backend that removes nothing keeps nobody from beginning a session.
#[test]
fn a_new_session_begins_although_its_old_backend_refuses_removals() {
    let mut scene = Scene::new();
    scene.client.send(&acquire(ID));
    let mut at_owner = scene.owner.accept();
    let new = new_item(7);
    at_owner.expect(&acquire(ID), &new);
    let mut at_earlier = scene.earlier.accept();
    at_earlier.expect(&delete(ID, NO_LOCK), &refusal("400 Bad Request"));
    at_earlier.expect(&head(ID), ABSENT);
    assert_eq!(scene.client.answer_to(false), new_item(tag(2, 7)));
}

/// The answer to the first acquire of a session.
fn new_item(cookie: u32) -> Vec<u8> {
    format!(
        "200 OK\r\nX-AspNet-Version: 4.0.30319\r\nActionFlags: 1\r\nLockCookie: {cookie}\r\n\
         Timeout: 20\r\nCache-Control: private\r\nContent-Length: 4\r\n\r\nbody"
    )
    .into_bytes()
}
