//! Removals that a backend missed, against scripted backends and a real state server.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::Program;
use crate::support::answers::{BAD_REQUEST, DONE};
use crate::support::backend::{ABSENT, Backend, BackendConnection};
use crate::support::client::{Client, acquire, delete, get, put, status, target};
use staterouter::backend::{AskError, Connector, RemoveError, Remover};
use staterouter::wire::Unfit;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// Opens no lock.
const NO_LOCK: u32 = 0xf0_0000;

/// A removal ends long before this; one that takes it has failed its test.
const PATIENT: Duration = Duration::from_secs(30);

fn locked(cookie: &str) -> Vec<u8> {
    format!(
        "423 Locked\r\nX-AspNet-Version: 4.0.30319\r\nLockDate: 636000000000000000\r\n\
         LockAge: 7\r\n{cookie}Cache-Control: private\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Removes the item `times` times.
fn remove(address: SocketAddr, times: usize) -> Vec<Result<(), RemoveError>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut remover = Remover::new(Connector::Tcp(address), PATIENT);
    runtime.block_on(async {
        let mut results = Vec::new();
        for _ in 0..times {
            results.push(remover.remove(target(ID).as_bytes()).await);
        }
        results
    })
}

/// Removes the item `times` times at a backend that does what `script` says.
fn remove_at(
    times: usize,
    script: impl FnOnce(&Backend) -> Option<BackendConnection>,
) -> Vec<Result<(), RemoveError>> {
    let backend = Backend::start();
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| remove(backend.address, times));
        let held = script(&backend);
        let results = removing.join().unwrap();
        drop(held);
        backend.assert_nobody_connected();
        results
    })
}

#[test]
fn a_locked_item_goes_like_a_free_one_and_an_absent_one() {
    let server = Program::state_server();
    let mut client = Client::connect(server.address);
    for prepare in [
        &[][..],
        &[put(ID, 0, b"x")],
        &[put(ID, 0, b"x"), acquire(ID)],
    ] {
        for request in prepare {
            assert_eq!(status(&client.ask(request)), "200");
        }
        assert!(remove(server.address, 1)[0].is_ok());
        assert_eq!(status(&client.ask(&get(ID))), "404");
    }
}

#[test]
fn all_removals_go_over_one_connection() {
    let results = remove_at(3, |backend| {
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), DONE);
        connection.expect(&delete(ID, NO_LOCK), ABSENT);
        connection.expect(&delete(ID, NO_LOCK), &locked("LockCookie: 5\r\n"));
        connection.expect(&delete(ID, 5), DONE);
        Some(connection)
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn a_connection_that_died_between_two_removals_is_replaced() {
    let results = remove_at(2, |backend| {
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), DONE);
        connection.close();
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), DONE);
        Some(connection)
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn a_connection_with_bytes_behind_the_answer_is_not_used_again() {
    let results = remove_at(2, |backend| {
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), &[DONE, b"\r\n"].concat());
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), DONE);
        Some(connection)
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn of_two_answers_none_says_that_the_item_is_gone() {
    let results = remove_at(2, |backend| {
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), &[DONE, ABSENT].concat());
        let mut connection = backend.accept();
        connection.expect(&delete(ID, NO_LOCK), DONE);
        Some(connection)
    });
    let is_two = |error| matches!(error, RemoveError::Ask(AskError::Unfit(Unfit::Two)));
    let [first, second] = <[_; 2]>::try_from(results).unwrap();
    assert!(is_two(first.unwrap_err()));
    second.unwrap();
}

#[test]
fn whatever_else_a_backend_says_the_item_is_not_gone() {
    let failure = |answer: &[u8]| {
        let mut results = remove_at(1, |backend| {
            let mut connection = backend.accept();
            connection.expect(&delete(ID, NO_LOCK), answer);
            Some(connection)
        });
        results.remove(0).unwrap_err()
    };
    let broken = failure(b"500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let is_unfit =
        |error, unfit| matches!(error, RemoveError::Ask(AskError::Unfit(found)) if found == unfit);
    assert!(is_unfit(broken, Unfit::Status(500)));
    let web_server = failure(b"404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert!(is_unfit(web_server, Unfit::Unversioned));
    let refused = failure(BAD_REQUEST);
    assert!(matches!(refused, RemoveError::Status(400)), "{refused}");
    let unnamed = failure(&locked(""));
    assert!(matches!(unnamed, RemoveError::Locked), "{unnamed}");
    let garbage = failure(b"SSH-2.0\r\n\r\n");
    assert!(
        matches!(garbage, RemoveError::Ask(AskError::Garbage(_))),
        "{garbage}"
    );

    let mut closed = remove_at(1, |backend| {
        backend.accept().close();
        None
    });
    let closed = closed.remove(0).unwrap_err();
    let is_closed = matches!(closed, RemoveError::Ask(AskError::ClosedAtOnce));
    assert!(is_closed, "{closed}");
}

#[test]
fn an_item_that_is_locked_anew_every_time_is_given_up() {
    let results = remove_at(1, |backend| {
        let mut connection = backend.accept();
        for (cookie, next) in [(NO_LOCK, 1), (1, 2), (2, 3), (3, 4)] {
            let locked = locked(&format!("LockCookie: {next}\r\n"));
            connection.expect(&delete(ID, cookie), &locked);
        }
        Some(connection)
    });
    assert!(
        matches!(results[..], [Err(RemoveError::Locked)]),
        "{results:?}"
    );
}
