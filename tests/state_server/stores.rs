//! What the service makes of a store that is slow, refuses, or loses its answers.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use staterouter::net::{Listeners, Running};
use staterouter::store::{MemoryStore, StoreOptions};

use crate::faulty_store::{Fault, FaultyStore, Gate};
use crate::server::serve_from;
use crate::support::answers::{BAD_REQUEST, DONE, item};
use crate::support::client::{Client, acquire, get, put, status};
use crate::support::system::wait_until;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const OTHER: &str = "b5k2ye1tqz0mh3wdcx4nvs1g";

/// Longer than any test takes.
const PATIENT: Duration = Duration::from_secs(600);

struct Server {
    store: Arc<FaultyStore<MemoryStore>>,
    address: SocketAddr,
    running: Running,
}

/// One worker, so that whatever waits could hold up everything else.
fn server(stall: Duration) -> Server {
    let memory = MemoryStore::new(&StoreOptions::new([0; 16]));
    let store = Arc::new(FaultyStore::new(memory, Fault::None));
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let running = serve_from(Arc::clone(&store), listeners, stall);
    let address = running.address;
    Server {
        store,
        address,
        running,
    }
}

#[test]
fn a_slow_answer_holds_up_nobody_else() {
    let Server {
        store,
        address,
        running,
    } = server(PATIENT);
    let (mut first, mut second) = (Client::connect(address), Client::connect(address));
    assert_eq!(first.ask(&put(ID, 0, b"slow")), DONE);
    let gate = Gate::default();
    store.then(Fault::HeldAt(gate.clone()));
    first.send(&get(ID));
    wait_until("the answer waits", || gate.waiting() > 0);
    // The same session, and another.
    assert_eq!(second.ask(&get(ID)), item(b"slow"));
    assert_eq!(second.ask(&put(OTHER, 0, b"quick")), DONE);
    gate.open();
    assert_eq!(first.answer_to(false), item(b"slow"));
    assert_eq!(first.ask(&get(OTHER)), item(b"quick"));
    running.stop();
}

#[test]
fn a_refused_write_is_answered_400_and_reads_go_on() {
    let server = server(PATIENT);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"kept")), DONE);
    server.store.then(Fault::RefusesWrites);
    assert_eq!(client.ask(&put(ID, 0, b"refused")), BAD_REQUEST);
    assert_eq!(client.ask(&get(ID)), item(b"kept"));
    server.running.stop();
}

/// Each status would claim to know: 404 that there is no session, 200 that it was stored.
#[test]
fn an_answer_that_the_store_cannot_give_closes_the_connection() {
    let server = server(PATIENT);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"old")), DONE);
    for (fault, request, stored) in [
        (Fault::FailsBefore, get(ID), b"old"),
        (Fault::FailsBefore, put(ID, 0, b"new"), b"old"),
        (Fault::FailsAfter, put(ID, 0, b"new"), b"new"),
    ] {
        server.store.then(fault.clone());
        let mut unlucky = Client::connect(server.address);
        unlucky.send(&request);
        assert!(unlucky.until_closed().is_empty(), "{fault:?}");
        assert_eq!(client.ask(&get(ID)), item(stored), "{fault:?}");
    }
    server.running.stop();
}

#[test]
fn an_acquire_that_failed_after_the_effect_leaves_the_lock_it_took() {
    let server = server(PATIENT);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"x")), DONE);
    server.store.then(Fault::FailsAfter);
    let mut unlucky = Client::connect(server.address);
    unlucky.send(&acquire(ID));
    assert!(unlucky.until_closed().is_empty());
    assert_eq!(status(&client.ask(&acquire(ID))), "423");
    server.running.stop();
}

#[test]
fn a_store_that_never_answers_costs_one_connection() {
    let server = server(Duration::from_millis(200));
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"x")), DONE);
    server.store.then(Fault::HeldAt(Gate::default()));
    let mut unlucky = Client::connect(server.address);
    unlucky.send(&get(ID));
    assert!(unlucky.until_closed().is_empty());
    assert_eq!(client.ask(&get(ID)), item(b"x"));
    server.running.stop();
}

#[test]
fn a_client_that_leaves_takes_nothing_back() {
    let server = server(PATIENT);
    let gate = Gate::default();
    server.store.then(Fault::HeldAt(gate.clone()));
    let mut leaving = Client::connect(server.address);
    leaving.send(&put(ID, 0, b"stored"));
    wait_until("the answer waits", || gate.waiting() > 0);
    leaving.close();
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&get(ID)), item(b"stored"));
    gate.open();
    assert_eq!(client.ask(&get(ID)), item(b"stored"));
    server.running.stop();
}
