//! What many requests at a time make of servers that are not well: none of them is asked more for it,
//! and nobody waits behind the others for longer than a command may take.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use staterouter::config::{RedisSpec, RedisUrl};
use staterouter::store::{SessionCommand, SessionStore, StoreOutcome};
use tokio::task::spawn_local;

use crate::on_redis::OnRedis;
use crate::redis::{RedisServer, has_redis};
use crate::redis_faults::{DONE, KEY, Lossy, NOW, PATIENT, SHORT, put};
use crate::stores::Ask;

/// What so many requests at a time are answered, each of them a shared read.
fn ask_at_once(store: &OnRedis, count: usize) -> Vec<StoreOutcome> {
    let all = async {
        let one = |_| {
            let store = store.store.clone();
            spawn_local(async move { store.apply(KEY, SessionCommand::Get, NOW).await })
        };
        let asked: Vec<_> = (0..count).map(one).collect();
        let mut outcomes = Vec::new();
        for asked in asked {
            outcomes.push(asked.await.unwrap());
        }
        outcomes
    };
    let in_time = store.wait(async { tokio::time::timeout(PATIENT, all).await });
    in_time.expect("each of them has its time")
}

/// A server of which each command gets what `answer` says to it, and how many connections and commands
/// it was sent.
#[derive(Clone, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    commands: Arc<AtomicUsize>,
}

impl Counts {
    fn serve(
        &self,
        listener: TcpListener,
        answer: impl Fn(&str) -> String + Clone + Send + 'static,
    ) {
        let counts = self.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, counts, answer) = (client.unwrap(), counts.clone(), answer.clone());
                counts.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || counts.answer_all(client, answer));
            }
        });
    }

    fn answer_all(&self, mut client: TcpStream, answer: impl Fn(&str) -> String) {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            // Each command begins with the number of its words.
            for command in text.split("\r\n*").filter(|command| !command.is_empty()) {
                self.commands.fetch_add(1, Ordering::Relaxed);
                if client.write_all(answer(command).as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn url(address: SocketAddr) -> RedisUrl {
    RedisUrl::parse(&format!("redis://{address}")).unwrap()
}

#[test]
fn nobody_waits_behind_others_for_servers_that_say_nothing() {
    if !has_redis() {
        return;
    }
    // The system takes their connections, and nobody answers.
    let silent = [(); 3].map(|()| listener());
    let mut spec = RedisSpec::new(url(silent[0].1));
    spec.urls = silent.iter().map(|(_, address)| url(*address)).collect();
    let server = Rc::new(RedisServer::start(&[]));
    let store = OnRedis::over_unflushed(server, spec, SHORT);
    let outcomes = ask_at_once(&store, 30);
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == StoreOutcome::Unknown)
    );
}

#[test]
fn a_lost_connection_makes_nobody_but_one_ask_the_sentinels() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let lossy = Lossy::default();
    let relay = lossy.start(server.address());
    let sentinels = Counts::default();
    let (listener, sentinel) = listener();
    let port = relay.port().to_string();
    sentinels.serve(listener, move |command| {
        match command.contains("GET-MASTER-ADDR-BY-NAME") {
            true => format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()),
            false => "+OK\r\n".to_owned(),
        }
    });
    let mut spec = RedisSpec::new(url(sentinel));
    spec.sentinel = Some("sessions".to_owned());
    let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
    assert_eq!(store.ask(KEY, put(0, b"x"), NOW), DONE);
    assert_eq!(sentinels.connections.load(Ordering::Relaxed), 1);
    lossy.lose_next(|| ());
    let outcomes = ask_at_once(&store, 200);
    let found = |outcome: &StoreOutcome| matches!(outcome, StoreOutcome::Found { .. });
    assert!(outcomes.iter().all(found), "{outcomes:?}");
    let connections = sentinels.connections.load(Ordering::Relaxed);
    assert!((2..10).contains(&connections), "{connections} connections");
}

#[test]
fn servers_that_send_a_request_to_each_other_are_asked_now_and_then() {
    if !has_redis() {
        return;
    }
    let counts = Counts::default();
    let (one, other) = (listener(), listener());
    let (one_at, other_at) = (one.1, other.1);
    for ((listener, _), to) in [(one, other_at), (other, one_at)] {
        let port = one_at.port();
        counts.serve(listener, move |command| {
            if command.contains("SLOTS") {
                format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
            } else if command.contains("EVALSHA") {
                let slot = 0;
                format!("-MOVED {slot} {to}\r\n")
            } else {
                "+OK\r\n".to_owned()
            }
        });
    }
    let server = Rc::new(RedisServer::start(&[]));
    let store = OnRedis::over_unflushed(server, RedisSpec::new(url(one_at)), SHORT);
    assert_eq!(
        store.ask(KEY, SessionCommand::Get, NOW),
        StoreOutcome::Unknown
    );
    let commands = counts.commands.load(Ordering::Relaxed);
    assert!((3..100).contains(&commands), "{commands} commands");
}
