//! An answer that was meant for another request, as something faulty between store and server may
//! deliver it, shows nobody the session of somebody else.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use staterouter::config::{RedisSpec, RedisUrl};
use staterouter::store::{SessionCommand, SessionStore, StoreDanger, StoreOutcome};

use crate::on_redis::OnRedis;
use crate::redis::{RedisServer, has_redis};
use crate::redis_faults::{DONE, KEY, NOW, PATIENT, SHORT, found, put};
use crate::stores::Ask;

const OTHER: &[u8] = b"/LM/W3SVC/7/ROOT(hash=)/another0xk4vdw2hn5sbyr0ac";

/// What questions are told apart by.
const WORDS: [&str; 2] = ["EVALSHA", "HGET"];

/// Stands between store and server, and sends an answer twice.
#[derive(Clone, Default)]
struct Stammering(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    /// What came for the last question with each word.
    last: BTreeMap<&'static str, Vec<u8>>,
    /// The word of the question before.
    word: &'static str,
    /// That comes once more before the answer to the next question with this word.
    again_at: Option<&'static str>,
}

impl Stammering {
    fn start(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stammering = self.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (stammering, client) = (stammering.clone(), client.unwrap());
                thread::spawn(move || stammering.relay(client, server));
            }
        });
        address
    }

    fn relay(&self, mut client: TcpStream, server: SocketAddr) {
        let mut server = TcpStream::connect(server).unwrap();
        let mut answers = server.try_clone().unwrap();
        let mut back = client.try_clone().unwrap();
        let kept = Arc::clone(&self.0);
        thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = answers.read(&mut buffer) {
                kept.lock().unwrap().keep(&buffer[..count]);
                if back.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let last = self.0.lock().unwrap().last_if_due(&buffer[..count]);
            if client.write_all(&last).is_err() || server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }
}

impl Answers {
    fn keep(&mut self, answer: &[u8]) {
        self.last.entry(self.word).or_default().extend(answer);
    }

    fn last_if_due(&mut self, question: &[u8]) -> Vec<u8> {
        let has = |word: &&str| {
            let mut windows = question.windows(word.len());
            windows.any(|window| window == word.as_bytes())
        };
        self.word = WORDS.into_iter().find(has).unwrap_or_default();
        let last = self.last.remove(self.word).unwrap_or_default();
        match self.again_at.take_if(|word| *word == self.word) {
            Some(_word) => last,
            None => Vec::new(),
        }
    }
}

/// Passes what its clients say on to `server`, but for what `takes` answers itself: `None` passes a
/// question on as it is.
fn stand_before(
    server: SocketAddr,
    takes: impl FnMut(&[u8]) -> Option<(Vec<u8>, Vec<u8>)> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut takes) = (client.unwrap(), takes.clone());
            let mut server = TcpStream::connect(server).unwrap();
            let (mut answers, mut back) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let mut buffer = [0; 64 * 1024];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    let question = &buffer[..count];
                    let (answer, rest) =
                        takes(question).unwrap_or_else(|| (Vec::new(), question.to_vec()));
                    let answered = client.write_all(&answer);
                    if answered.and_then(|()| server.write_all(&rest)).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

/// A slot is on its way to a server whose clock is set while the slot is: only that server's time is
/// asked anew.
#[test]
fn the_clock_of_a_server_that_a_slot_moves_to_may_be_set() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let was_asked = Arc::new(AtomicBool::new(false));
    let target = stand_before(server.address(), move |question| {
        const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
        if question == b"*1\r\n$4\r\nTIME\r\n" && !was_asked.swap(true, Ordering::Relaxed) {
            // An hour before it is set.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let seconds = (now.as_secs() - 3600).to_string();
            let answer = format!("*2\r\n$10\r\n{seconds}\r\n$1\r\n0\r\n");
            return Some((answer.into_bytes(), Vec::new()));
        }
        let rest = question.strip_prefix(ASKING)?;
        Some((b"+OK\r\n".to_vec(), rest.to_vec()))
    });
    let moves = Arc::new(AtomicBool::new(false));
    let is_moving = Arc::clone(&moves);
    let source = stand_before(server.address(), move |question| {
        let is_script = question.windows(7).any(|word| word == b"EVALSHA");
        let is_there = is_moving.load(Ordering::Relaxed) && is_script;
        is_there.then(|| (format!("-ASK 1 {target}\r\n").into_bytes(), Vec::new()))
    });
    let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{source}")).unwrap());
    let store = OnRedis::over(Rc::clone(&server), spec, SHORT);
    assert_eq!(store.ask(KEY, put(0, b"x"), NOW), DONE);
    moves.store(true, Ordering::Relaxed);
    let locked = store.ask(KEY, SessionCommand::Acquire, NOW);
    assert_eq!(locked, found(b"x", Some(2), false));
}

/// An error bears no nonce. What is taken for one's own would say that a write was not carried out.
#[test]
fn an_error_that_was_meant_for_another_command_is_no_refusal_of_this_one() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    for error in ["-ERR of another", "-NOPERM of another", "-OOM of another"] {
        let is_due = Arc::new(AtomicBool::new(false));
        let sends = Arc::clone(&is_due);
        let relay = stand_before(server.address(), move |question| {
            let is_script = question.windows(7).any(|word| word == b"EVALSHA");
            let is_now = is_script && sends.swap(false, Ordering::Relaxed);
            is_now.then(|| (format!("{error}\r\n").into_bytes(), question.to_vec()))
        });
        let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{relay}")).unwrap());
        let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
        assert_eq!(store.ask(KEY, put(0, b"old"), NOW), DONE);
        is_due.store(true, Ordering::Relaxed);
        assert_eq!(store.ask(KEY, put(0, b"new"), NOW), DONE, "{error}");
        assert!(!is_due.load(Ordering::Relaxed));
        let read = store.ask(KEY, SessionCommand::Get, NOW);
        assert_eq!(read, found(b"new", None, false), "{error}");
    }
}

/// Passes everything on but WAIT, whose answer is `said` first and one replica from then on.
fn stand_for_replicas(server: SocketAddr, said: Arc<Mutex<Option<&'static str>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, said) = (client.unwrap(), Arc::clone(&said));
            thread::spawn(move || {
                let mut server = TcpStream::connect(server).unwrap();
                let (mut question, mut answer) = ([0; 64 * 1024], [0; 64 * 1024]);
                while let Ok(count @ 1..) = client.read(&mut question) {
                    let question = &question[..count];
                    let mut windows = question.windows(WAIT.len());
                    let wait = windows.position(|words| words == WAIT);
                    let before = &question[..wait.unwrap_or(count)];
                    server.write_all(before).unwrap();
                    let count = match before.is_empty() {
                        true => 0,
                        false => server.read(&mut answer).unwrap(),
                    };
                    let of_wait = wait.map(|_| said.lock().unwrap().take().unwrap_or(":1\r\n"));
                    let of_wait = of_wait.unwrap_or_default().as_bytes();
                    let all = [&answer[..count], of_wait].concat();
                    if client.write_all(&all).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n";

/// A server that becomes a replica says UNBLOCKED, and one that forbids WAIT says NOPERM: the change
/// before it was carried out all the same.
#[test]
fn an_error_to_the_wait_for_replicas_does_not_say_that_nothing_was_changed() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let said = Arc::new(Mutex::new(None));
    let relay = stand_for_replicas(server.address(), Arc::clone(&said));
    let mut spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{relay}")).unwrap());
    spec.wait_replicas = 1;
    let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
    for error in [
        "-UNBLOCKED of a master that was\r\n",
        "-NOPERM no permission\r\n",
    ] {
        assert_eq!(store.ask(KEY, put(0, b"old"), NOW), DONE);
        *said.lock().unwrap() = Some(error);
        let removed = store.ask(KEY, SessionCommand::remove(None), NOW);
        assert_eq!(removed, DONE, "{error}");
        assert!(said.lock().unwrap().is_none());
    }
}

/// The path of a file of its own may be in any encoding.
#[test]
fn dangers_are_seen_in_a_survey_that_is_not_all_text() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let surveyed = |info: &'static [u8]| {
        let relay = stand_before(server.address(), move |question| {
            let is_info = question == b"*1\r\n$4\r\nINFO\r\n";
            is_info.then(|| (info.to_vec(), Vec::new()))
        });
        let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{relay}")).unwrap());
        let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
        store.wait(store.store.survey()).dangers
    };
    let dangers = surveyed(b"$41\r\ndir:/caf\xe9\r\nmaxmemory_policy:allkeys-lru\r\n\r\n");
    assert!(
        matches!(dangers[..], [StoreDanger::Evicts { .. }]),
        "{dangers:?}"
    );
    // No text at all: nobody knows of a danger.
    let dangers = surveyed(b":1\r\n");
    assert!(
        matches!(dangers[..], [StoreDanger::Unusable { .. }]),
        "{dangers:?}"
    );
}

#[test]
fn an_answer_that_comes_twice_is_nobody_elses() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let stammering = Stammering::default();
    let relay = stammering.start(server.address());
    let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{relay}")).unwrap());
    let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
    let long = |byte: u8| vec![byte; 70_000];
    for (own, others, word) in [
        (b"own".to_vec(), b"of another".to_vec(), "EVALSHA"),
        (long(1), long(2), "HGET"),
    ] {
        assert_eq!(store.ask(KEY, put(0, &own), NOW), DONE);
        assert_eq!(store.ask(OTHER, put(0, &others), NOW), DONE);
        let read = |key| store.ask(key, SessionCommand::Get, NOW);
        let again = || stammering.0.lock().unwrap().again_at = Some(word);
        assert!(read(OTHER) == found(&others, None, false));
        again();
        assert!(read(KEY) == found(&own, None, false), "{word}");
        assert!(stammering.0.lock().unwrap().again_at.is_none());
        assert!(read(OTHER) == found(&others, None, false));
        // Nor is there no session because another has none.
        assert_eq!(
            store.ask(b"none", SessionCommand::Get, NOW),
            StoreOutcome::Absent
        );
        again();
        assert!(read(KEY) == found(&own, None, false), "{word}");
        stammering.0.lock().unwrap().again_at = None;
    }
}
