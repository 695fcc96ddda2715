//! Requests for a locked session that wait for the lock in the proxy.

#![expect(
    clippy::unwrap_used,
    reason = "an answer without a lock cookie must fail its test"
)]

use std::net::SocketAddr;

use crate::support::client::{
    self, Client, acquire, body, delete, get, head, put, release, status,
};
use crate::support::metrics::Scrape;
use crate::support::system::wait_until;
use crate::support::{Program, ProxyFiles, slots};
use staterouter::handover::Stage;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Nobody's wait ends by time.
const LONG: &str = "locks: {wait: 5s}";

struct Scene {
    proxy: Program,
    _backend: Program,
    /// Half of a web server's connections may wait.
    _idle: Vec<Client>,
}

/// So many that nobody lacks one of them.
fn idle_connections(proxy: &Program) -> Vec<Client> {
    (0..24)
        .map(|_| accepted(Client::connect(proxy.address)))
        .collect()
}

/// A connection that counts as one of its web server: its worker has it.
fn accepted(mut client: Client) -> Client {
    client.send(&head("q3m1zt0xk4vdw2hn5sbyr0zz"));
    assert_eq!(status(&client.answer_to(true)), "404");
    client
}

impl Scene {
    fn new(extra: &str) -> Self {
        let backend = Program::state_server();
        let files = ProxyFiles::new(&[backend.address], extra);
        let proxy = files.start();
        let scene = Self {
            _idle: idle_connections(&proxy),
            proxy,
            _backend: backend,
        };
        assert_eq!(status(&scene.client().ask(&put(ID, 0, b"old"))), "200");
        scene
    }

    fn client(&self) -> Client {
        Client::connect(self.proxy.address)
    }

    /// A client that has the lock, and its cookie.
    fn holder(&self) -> (Client, u32) {
        let mut client = self.client();
        let cookie = locked(&client.ask(&acquire(ID)));
        (client, cookie)
    }

    /// A client whose request waits for the lock behind `others`.
    fn waits(&self, others: usize, request: &[u8]) -> Client {
        let mut client = self.client();
        client.send(request);
        self.wait_until_waiting(others + 1);
        client
    }

    fn wait_until_waiting(&self, count: usize) {
        let series = "staterouter_lock_waiting_requests";
        let admin = self.proxy.admin();
        wait_until("as many wait for the lock", || {
            Scrape::of(admin).value(series) == count as f64
        });
    }

    fn assert_ended(&self, ends: &[(&str, usize)]) {
        assert_ended(self.proxy.admin(), ends);
    }
}

/// Waits until all have ended, and how is known.
fn assert_ended(admin: SocketAddr, ends: &[(&str, usize)]) {
    wait_until("nobody waits", || {
        Scrape::of(admin).value("staterouter_lock_waiting_requests") == 0.0
    });
    let scrape = Scrape::of(admin);
    for end in [
        "released",
        "expired",
        "called_off",
        "left",
        "refused",
        "hopeless",
    ] {
        let expected = ends.iter().find(|(name, _)| *name == end);
        let expected = expected.map_or(0, |(_, count)| *count);
        let series = format!("staterouter_lock_waits_total{{end=\"{end}\"}}");
        assert_eq!(scrape.value(&series), expected as f64, "{end}");
    }
}

/// The cookie of an answer that hands out the lock.
#[track_caller]
fn locked(answer: &[u8]) -> u32 {
    assert_eq!(status(answer), "200");
    cookie(answer)
}

#[track_caller]
fn cookie(answer: &[u8]) -> u32 {
    let answer = String::from_utf8_lossy(answer);
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("LockCookie:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn who_waits_gets_the_lock_when_it_is_released_and_in_the_order_they_came() {
    let scene = Scene::new(LONG);
    let (mut holder, mut cookie) = scene.holder();
    let waiting: Vec<_> = (0..6)
        .map(|others| scene.waits(others, &acquire(ID)))
        .collect();
    for (number, mut next) in waiting.into_iter().enumerate() {
        let body_before = number.to_string();
        assert_eq!(
            status(&holder.ask(&put(ID, cookie, body_before.as_bytes()))),
            "200"
        );
        // Whoever is not the first waits on, and would be told that the session is locked.
        let answer = next.answer_to(false);
        cookie = locked(&answer);
        assert_eq!(body(&answer), body_before.as_bytes());
        holder = next;
    }
    assert_eq!(status(&holder.ask(&release(ID, cookie))), "200");
    scene.assert_ended(&[("released", 6)]);
}

#[test]
fn a_release_and_a_removal_let_the_next_one_on_as_a_write_does() {
    let scene = Scene::new(LONG);
    let (mut holder, cookie) = scene.holder();
    let mut next = scene.waits(0, &acquire(ID));
    let mut last = [1, 2, 3].map(|others| scene.waits(others, &acquire(ID)));
    assert_eq!(status(&holder.ask(&release(ID, cookie))), "200");
    let cookie = locked(&next.answer_to(false));
    assert_eq!(status(&next.ask(&delete(ID, cookie))), "200");
    for client in &mut last {
        assert_eq!(status(&client.answer_to(false)), "404");
    }
    scene.assert_ended(&[("released", 4)]);
}

#[test]
fn a_read_waits_as_well_and_keeps_nobody_from_his_turn() {
    let scene = Scene::new(LONG);
    let (mut holder, cookie) = scene.holder();
    let mut readers = [0, 1].map(|others| scene.waits(others, &get(ID)));
    let mut writer = scene.waits(2, &acquire(ID));
    assert_eq!(status(&holder.ask(&put(ID, cookie, b"new"))), "200");
    for reader in &mut readers {
        assert_eq!(body(&reader.answer_to(false)), b"new");
    }
    locked(&writer.answer_to(false));
    scene.assert_ended(&[("released", 3)]);
}

#[test]
fn when_the_time_is_up_the_answer_is_that_of_the_backend_and_allows_a_takeover() {
    let scene = Scene::new("locks: {wait: 200ms}");
    let (_holder, held) = scene.holder();
    let mut other = scene.client();
    let answer = other.ask(&acquire(ID));
    assert_eq!(status(&answer), "423");
    assert_eq!(cookie(&answer), held, "the tag of the backend is on it");
    let text = String::from_utf8(answer).unwrap();
    assert!(
        text.contains("LockAge:") && text.contains("LockDate:"),
        "{text}"
    );
    scene.assert_ended(&[("expired", 1)]);
    assert_eq!(status(&other.ask(&release(ID, held))), "200");
    locked(&other.ask(&acquire(ID)));
}

#[test]
fn a_client_that_leaves_waits_no_more_and_takes_no_lock() {
    let scene = Scene::new(LONG);
    let (mut holder, cookie) = scene.holder();
    let leaver = scene.waits(0, &acquire(ID));
    let mut next = scene.waits(1, &acquire(ID));
    leaver.close();
    scene.wait_until_waiting(1);
    assert_eq!(status(&holder.ask(&put(ID, cookie, b"new"))), "200");
    let cookie = locked(&next.answer_to(false));
    assert_eq!(status(&next.ask(&put(ID, cookie, b"newer"))), "200");
    locked(&scene.client().ask(&acquire(ID)));
    scene.assert_ended(&[("released", 1), ("left", 1)]);
}

#[test]
fn what_takes_no_lock_does_not_wait_and_other_applications_are_not_called() {
    let scene = Scene::new(LONG);
    let of_other = |request: Vec<u8>| {
        let request = String::from_utf8(request).unwrap();
        request
            .replacen("%2f1%2fROOT", "%2f2%2fROOT", 1)
            .into_bytes()
    };
    let mut of_its_own = scene.client();
    assert_eq!(
        status(&of_its_own.ask(&of_other(put(ID, 0, b"other")))),
        "200"
    );
    let (mut holder, cookie) = scene.holder();
    let mut waiting = scene.waits(0, &acquire(ID));
    assert_eq!(status(&scene.client().ask(&head(ID))), "200");
    assert_eq!(status(&scene.client().ask(&put(ID, 1, b"x"))), "423");
    assert_eq!(status(&scene.client().ask(&release(ID, 1))), "423");
    let of_others = locked(&of_its_own.ask(&of_other(acquire(ID))));
    assert_eq!(
        status(&of_its_own.ask(&of_other(release(ID, of_others)))),
        "200"
    );
    scene.wait_until_waiting(1);
    assert_eq!(status(&holder.ask(&put(ID, cookie, b"new"))), "200");
    locked(&waiting.answer_to(false));
    scene.assert_ended(&[("released", 1)]);
}

#[test]
fn nobody_waits_when_that_is_off() {
    let scene = Scene::new("locks: {wait: 0s}");
    let (_holder, _) = scene.holder();
    assert_eq!(status(&scene.client().ask(&acquire(ID))), "423");
    assert_eq!(status(&scene.client().ask(&get(ID))), "423");
    scene.assert_ended(&[]);
}

#[test]
fn a_session_that_is_on_the_move_is_waited_for_as_well() {
    let [earlier, owner] = [(); 2].map(|()| Program::state_server());
    assert_eq!(
        status(&Client::connect(earlier.address).ask(&put(ID, 0, b"old"))),
        "200"
    );
    let files = ProxyFiles::new(&[earlier.address, owner.address], LONG);
    slots::put_all(&files, Stage::Move2, 2, 1);
    let proxy = files.start();
    let scene = Scene {
        _idle: idle_connections(&proxy),
        proxy,
        _backend: owner,
    };
    let (mut holder, cookie) = scene.holder();
    let mut writer = scene.waits(0, &acquire(ID));
    let mut reader = scene.waits(1, &get(ID));
    assert_eq!(status(&holder.ask(&put(ID, cookie, b"new"))), "200");
    let answer = writer.answer_to(false);
    assert_eq!(client::body(&answer), b"new");
    assert_eq!(status(&writer.ask(&release(ID, locked(&answer)))), "200");
    assert_eq!(client::body(&reader.answer_to(false)), b"new");
    scene.assert_ended(&[("released", 2)]);
}

#[test]
fn half_of_a_web_servers_connections_may_wait_and_the_rest_is_told_at_once() {
    let scene = Scene::new(LONG);
    let from = || accepted(Client::connect_from([127, 0, 0, 2], scene.proxy.address));
    let (mut holder, cookie) = scene.holder();
    let mut connections = [(); 4].map(|()| from());
    let [first, second, third, fourth] = &mut connections;
    first.send(&acquire(ID));
    scene.wait_until_waiting(1);
    second.send(&acquire(ID));
    scene.wait_until_waiting(2);
    for refused in [third, fourth] {
        assert_eq!(status(&refused.ask(&acquire(ID))), "423");
    }
    // Another web server has its own.
    let mut other = scene.waits(2, &acquire(ID));
    assert_eq!(status(&holder.ask(&release(ID, cookie))), "200");
    for waiting in [first, second, &mut other] {
        let cookie = locked(&waiting.answer_to(false));
        assert_eq!(status(&waiting.ask(&release(ID, cookie))), "200");
    }
    scene.assert_ended(&[("released", 3), ("refused", 2)]);
}

#[test]
fn nobody_waits_while_most_threads_of_the_web_server_have_locks_of_their_own() {
    let scene = Scene::new(LONG);
    let from = |host| Client::connect_from([127, 0, 0, host], scene.proxy.address);
    let (mut holder, mut held) = scene.holder();
    // Four threads count for each web server, and three of them may be busy.
    let mut pages = from(2);
    let own = ["a", "b", "c"].map(|start| format!("{start}{}", &ID[1..]));
    let mut cookie = 0;
    for id in &own {
        assert_eq!(status(&pages.ask(&put(id, 0, b"created"))), "200");
        cookie = locked(&pages.ask(&acquire(id)));
    }
    let last = &own[2];
    let gives_up: [fn(&str, u32) -> Vec<u8>; 3] = [
        |id, cookie| put(id, cookie, b"written"),
        release,
        // The last one, for nothing can be locked after it.
        delete,
    ];
    for (number, gives_up) in gives_up.into_iter().enumerate() {
        if number > 0 {
            cookie = locked(&pages.ask(&acquire(last)));
        }
        // Nobody waits for a lock that is a second old.
        assert_eq!(status(&holder.ask(&release(ID, held))), "200");
        held = locked(&holder.ask(&acquire(ID)));
        assert_eq!(status(&from(2).ask(&acquire(ID))), "423", "{number}");
        assert_eq!(status(&pages.ask(&gives_up(last, cookie))), "200");
        let mut waiting = from(2);
        waiting.send(&acquire(ID));
        scene.wait_until_waiting(1);
        drop(waiting);
        scene.wait_until_waiting(0);
    }
    scene.assert_ended(&[("refused", 3), ("left", 3)]);
}

#[test]
fn who_waits_is_told_that_the_session_is_locked_once_its_web_server_needs_the_thread() {
    let scene = Scene::new(LONG);
    let from = || accepted(Client::connect_from([127, 0, 0, 2], scene.proxy.address));
    let (mut holder, held) = scene.holder();
    // Four threads count, one of which has to be idle.
    let [mut first, mut second, mut pages, _idle] = [(); 4].map(|()| from());
    first.send(&acquire(ID));
    scene.wait_until_waiting(1);
    second.send(&acquire(ID));
    scene.wait_until_waiting(2);
    let own = ["a", "b"].map(|start| format!("{start}{}", &ID[1..]));
    for id in &own {
        assert_eq!(status(&pages.ask(&put(id, 0, b"created"))), "200");
        locked(&pages.ask(&acquire(id)));
    }
    let answer = second.answer_to(false);
    assert_eq!((status(&answer), cookie(&answer)), ("423", held));
    scene.wait_until_waiting(1);
    assert_eq!(status(&holder.ask(&release(ID, held))), "200");
    locked(&first.answer_to(false));
    scene.assert_ended(&[("released", 1), ("called_off", 1)]);
}

#[test]
fn nobody_waits_for_a_lock_that_others_have_waited_for_in_vain() {
    let scene = Scene::new("locks: {wait: 200ms}");
    let (mut holder, cookie) = scene.holder();
    assert_eq!(status(&scene.client().ask(&acquire(ID))), "423");
    // A lock that is a second old is not waited for anyway.
    assert_eq!(status(&holder.ask(&release(ID, cookie))), "200");
    locked(&holder.ask(&acquire(ID)));
    assert_eq!(status(&scene.client().ask(&acquire(ID))), "423");
    scene.assert_ended(&[("expired", 1), ("hopeless", 1)]);
}
