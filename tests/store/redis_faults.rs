//! What the store on Redis makes of lost answers, lost scripts and servers that are not well.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use staterouter::config::{RedisSpec, RedisUrl};
use staterouter::redis::item_key;
use staterouter::store::{
    Body, LockCookie, Now, SessionCommand, SessionStore, StoreDanger, StoreOutcome, StoreRefusal,
};

use crate::on_redis::OnRedis;
use crate::redis::{RedisClient, RedisServer, has_redis};
use crate::stores::{Ask, TestStore};

pub(crate) const KEY: &[u8] = b"/LM/W3SVC/7/ROOT(hash=)/q3m1zt0xk4vdw2hn5sbyr0ac";
pub(crate) const NOW: Now = Now {
    unix_ms: 1_000_000,
    local_ticks: 638_000_000_000_000_000,
};
pub(crate) const DONE: StoreOutcome = StoreOutcome::Done {
    action_flags: false,
    zero_timeout: false,
};

/// Longer than anything here takes.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// So short that what cannot succeed fails soon.
pub(crate) const SHORT: Duration = Duration::from_millis(1500);

pub(crate) fn put(cookie: u32, body: &[u8]) -> SessionCommand {
    put_with(b"0", cookie, body)
}

fn put_with(flags: &[u8], cookie: u32, body: &[u8]) -> SessionCommand {
    let cookie = cookie.to_string();
    let body = Body::from(body);
    SessionCommand::put(None, Some(flags), Some(cookie.as_bytes()), body).unwrap()
}

fn release(cookie: u32) -> SessionCommand {
    let cookie = LockCookie::Number(cookie);
    SessionCommand::Release { cookie }
}

fn remove(cookie: u32) -> SessionCommand {
    let cookie = LockCookie::Number(cookie);
    SessionCommand::Remove { cookie }
}

pub(crate) fn found(body: &[u8], cookie: Option<u32>, action_flags: bool) -> StoreOutcome {
    StoreOutcome::Found {
        body: Body::from(body),
        timeout_minutes: 20,
        cookie,
        action_flags,
    }
}

/// What happens between the loss of an answer and the end of its connection.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// Stands between store and server, and loses answers.
#[derive(Clone, Default)]
pub(crate) struct Lossy {
    next: Arc<Mutex<Option<Meanwhile>>>,
    /// Nobody gets through.
    is_cut: Arc<AtomicBool>,
}

impl Lossy {
    pub(crate) fn start(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lossy = self.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let lossy = lossy.clone();
                let client = client.unwrap();
                if !lossy.is_cut.load(Ordering::Relaxed) {
                    thread::spawn(move || lossy.relay(client, server));
                }
            }
        });
        address
    }

    /// The answer to the next script is lost, with its connection.
    pub(crate) fn lose_next(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.next.lock().unwrap() = Some(Box::new(meanwhile));
    }

    /// One question, one answer at a time: the store has one command under way.
    fn relay(&self, mut client: TcpStream, server: SocketAddr) {
        let mut server = TcpStream::connect(server).unwrap();
        let mut answers = server.try_clone().unwrap();
        let mut back = client.try_clone().unwrap();
        let swallowing = Arc::new(Mutex::new(None::<Meanwhile>));
        let swallows = Arc::clone(&swallowing);
        thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = answers.read(&mut buffer) {
                if let Some(meanwhile) = swallows.lock().unwrap().take() {
                    meanwhile();
                    break;
                }
                if back.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            if buffer[..count].windows(7).any(|word| word == b"EVALSHA") {
                // Questions that come before the answer is lost do not save it.
                if let Some(lost) = self.next.lock().unwrap().take() {
                    *swallowing.lock().unwrap() = Some(lost);
                }
            }
            if server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }
}

/// A store behind a connection that loses answers, and its server.
struct Scene {
    lossy: Lossy,
    store: OnRedis,
    key: String,
    server: Rc<RedisServer>,
}

fn scene() -> Scene {
    scene_within(PATIENT)
}

/// One whose commands take so long at most.
fn scene_within(answer: Duration) -> Scene {
    let server = Rc::new(RedisServer::start(&[]));
    let lossy = Lossy::default();
    let relay = lossy.start(server.address());
    let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{relay}")).unwrap());
    let key = item_key(&spec.prefix, KEY);
    let store = OnRedis::over(Rc::clone(&server), spec, answer);
    // Every script is known, so that a lost answer is that of its run.
    let _ = store.ask(KEY, SessionCommand::Get, NOW);
    Scene {
        lossy,
        store,
        key,
        server,
    }
}

impl Scene {
    /// Asks with an answer that is lost.
    fn ask_losing(&self, command: SessionCommand) -> StoreOutcome {
        self.ask_losing_while(command, || ())
    }

    fn ask_losing_while(
        &self,
        command: SessionCommand,
        meanwhile: impl FnOnce() + Send + 'static,
    ) -> StoreOutcome {
        self.lossy.lose_next(meanwhile);
        let outcome = self.store.ask(KEY, command, NOW);
        assert!(
            self.lossy.next.lock().unwrap().is_none(),
            "nothing was lost"
        );
        outcome
    }

    fn ask(&self, command: SessionCommand) -> StoreOutcome {
        self.store.ask(KEY, command, NOW)
    }

    /// Somebody else's change of the item.
    fn meanwhile(&self, fields: &'static [&'static str]) -> impl FnOnce() + Send + 'static {
        let (address, key) = (self.server.address(), self.key.clone());
        move || {
            let words = [&["HSET", key.as_str()], fields].concat();
            RedisClient::connect(address).expect(&words);
        }
    }
}

#[test]
fn nothing_is_carried_out_twice_when_an_answer_is_lost() {
    if !has_redis() {
        return;
    }
    let scene = scene();
    // A new item, and one that is only to be inserted.
    assert_eq!(scene.ask_losing(put(0, b"first")), DONE);
    assert_eq!(scene.ask(SessionCommand::Get), found(b"first", None, false));
    assert_eq!(scene.ask(remove(0)), DONE);
    assert_eq!(scene.ask_losing(put_with(b"1", 0, b"first")), DONE);
    // The flag is taken by the release or the read whose answer was lost, and told all the same.
    let flagged = StoreOutcome::Done {
        action_flags: true,
        zero_timeout: false,
    };
    assert_eq!(scene.ask_losing(release(1)), flagged);
    assert_eq!(scene.ask(remove(0)), DONE);
    assert_eq!(scene.ask_losing(put_with(b"1", 0, b"first")), DONE);
    let read = scene.ask_losing(SessionCommand::Get);
    assert_eq!(read, found(b"first", None, true));
    assert_eq!(scene.ask(SessionCommand::Get), found(b"first", None, false));
    // A lock is not locked out by its own repeat.
    let locked = scene.ask_losing(SessionCommand::Acquire);
    assert_eq!(locked, found(b"first", Some(2), false));
    let refused = scene.ask(SessionCommand::Acquire);
    assert!(matches!(refused, StoreOutcome::Locked { cookie: 2, .. }));
    assert_eq!(scene.ask_losing(SessionCommand::Touch), DONE);
    assert_eq!(scene.ask_losing(put(2, b"second")), DONE);
    let locked = scene.ask(SessionCommand::Acquire);
    assert_eq!(locked, found(b"second", Some(3), false));
    assert_eq!(scene.ask_losing(release(3)), DONE);
    let locked = scene.ask(SessionCommand::Acquire);
    assert_eq!(locked, found(b"second", Some(4), false));
    assert_eq!(scene.ask_losing(remove(4)), DONE);
    assert_eq!(scene.ask(SessionCommand::Get), StoreOutcome::Absent);
    assert_eq!(
        scene.ask_losing(remove(4)),
        DONE,
        "it may have been its own"
    );
}

/// WAIT speaks of the writes of its own connection, and a copy goes over a new one.
#[test]
fn a_copy_of_a_change_writes_all_the_same() {
    if !has_redis() {
        return;
    }
    let scene = scene();
    let address = scene.server.address();
    let changes = move || {
        let text = RedisClient::connect(address)
            .expect(&["INFO", "persistence"])
            .text();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        count.unwrap().parse::<u64>().unwrap()
    };
    let next = scene.meanwhile(&["b", "next", "c", "9"]);
    let mut next = Some(next);
    for (name, command) in [
        ("insert", put_with(b"1", 0, b"first")),
        ("acquire", SessionCommand::Acquire),
        ("release", release(2)),
        ("remove", remove(2)),
        ("store", put(0, b"first")),
        ("store what has changed since", put(2, b"second")),
        ("remove what has changed since", remove(2)),
    ] {
        let before = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&before);
        let change = name.contains("since").then(|| next.take()).flatten();
        let outcome = scene.ask_losing_while(command, move || {
            if let Some(change) = change {
                change();
            }
            *seen.lock().unwrap() = changes();
        });
        assert!(!matches!(outcome, StoreOutcome::Unknown), "{name}");
        assert!(changes() > *before.lock().unwrap(), "{name}");
    }
}

#[test]
fn a_write_sent_again_touches_nothing_that_somebody_else_has_done_since() {
    if !has_redis() {
        return;
    }
    let scene = scene();
    for command in [put(2, b"late"), remove(2)] {
        let _ = scene.ask(remove(9));
        assert_eq!(scene.ask(put(0, b"first")), DONE);
        let _ = scene.ask(SessionCommand::Acquire);
        // The next page has had the lock, and stored.
        let next = scene.meanwhile(&["b", "next", "c", "3", "t", "20"]);
        assert_eq!(scene.ask_losing_while(command, next), DONE);
        let locked = scene.ask(SessionCommand::Acquire);
        assert_eq!(locked, found(b"next", Some(4), false));
        assert_eq!(scene.ask(release(4)), DONE);
    }
}

#[test]
fn a_write_sent_again_was_stored_whoever_has_the_lock_since() {
    if !has_redis() {
        return;
    }
    let scene = scene();
    let _ = scene.ask(put(0, b"first"));
    let _ = scene.ask(SessionCommand::Acquire);
    // The next page has the lock.
    let next = scene.meanwhile(&["c", "8", "l", "1", "n", "another"]);
    assert_eq!(scene.ask_losing_while(put(2, b"late"), next), DONE);
    let next = scene.meanwhile(&["c", "12", "l", "1", "n", "a third"]);
    assert_eq!(scene.ask_losing_while(release(8), next), DONE);
    assert_eq!(scene.ask(release(12)), DONE);
    assert_eq!(scene.ask(SessionCommand::Get), found(b"late", None, false));
    // It has given the lock back to yet another: whether the first copy was carried out nobody can say
    // for sure.
    let _ = scene.ask(SessionCommand::Acquire);
    let next = scene.meanwhile(&["b", "next", "c", "14", "l", "1", "n", "another", "w", "it"]);
    let outcome = scene.ask_losing_while(put(13, b"late"), next);
    assert_eq!(outcome, StoreOutcome::Unknown);
    assert_eq!(scene.ask(release(14)), DONE);
    assert_eq!(scene.ask(SessionCommand::Get), found(b"next", None, false));
}

#[test]
fn a_lock_is_not_taken_for_somebody_who_has_given_up() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&["--enable-debug-command", "yes"]));
    let store = OnRedis::over(Rc::clone(&server), spec_of(&server), SHORT);
    assert_eq!(store.ask(KEY, put(0, b"x"), NOW), DONE);
    let mut sleeper = TcpStream::connect(server.address()).unwrap();
    sleeper.write_all(b"DEBUG SLEEP 5\r\n").unwrap();
    wait_until_silent(server.address());
    let locked = store.ask(KEY, SessionCommand::Acquire, NOW);
    assert_eq!(locked, StoreOutcome::Unknown);
    assert!(sleeper.read(&mut [0; 16]).unwrap() > 0);
    // What it had got meanwhile is behind it once it answers.
    let mut client = server.connect();
    client.expect(&["PING"]);
    let found = store.look(KEY, NOW).unwrap();
    assert!(!found.locked, "a late copy has taken the lock");
}

#[test]
fn a_lock_that_was_taken_without_an_answer_is_given_back_and_no_other() {
    if !has_redis() {
        return;
    }
    let scene = scene_within(SHORT);
    let is_locked = || {
        let words = ["HEXISTS", scene.key.as_str(), "l"];
        scene.server.connect().expect(&words).number() == 1
    };
    let lose_the_answer_and_the_way = |meanwhile: &'static [&'static str]| {
        let (is_cut, change) = (Arc::clone(&scene.lossy.is_cut), scene.meanwhile(meanwhile));
        let outcome = scene.ask_losing_while(SessionCommand::Acquire, move || {
            is_cut.store(true, Ordering::Relaxed);
            change();
        });
        assert_eq!(outcome, StoreOutcome::Unknown);
        assert!(is_locked());
        scene.lossy.is_cut.store(false, Ordering::Relaxed);
    };
    // Its flag was told to nobody.
    assert_eq!(scene.ask(put_with(b"1", 0, b"first")), DONE);
    lose_the_answer_and_the_way(&["b", "first"]);
    let since = Instant::now();
    scene.store.wait(async {
        while is_locked() {
            assert!(since.elapsed() < PATIENT, "it is not given back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let locked = scene.ask(SessionCommand::Acquire);
    assert_eq!(locked, found(b"first", Some(3), true));
    assert_eq!(scene.ask(release(3)), DONE);
    // Somebody else has the lock by the time it could be given back: it stays.
    lose_the_answer_and_the_way(&["n", "another", "c", "9"]);
    let asked = async {
        let mut stats = scene.server.connect();
        let releases = |stats: &mut RedisClient| {
            let text = stats.expect(&["INFO", "commandstats"]).text();
            let evals = text
                .lines()
                .find(|line| line.starts_with("cmdstat_evalsha:"));
            evals.unwrap_or_default().to_owned()
        };
        let before = releases(&mut stats);
        while releases(&mut stats) == before {
            assert!(
                since.elapsed() < 2 * PATIENT,
                "nobody tries to give it back"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    scene.store.wait(asked);
    assert!(is_locked());
    assert_eq!(scene.ask(release(9)), DONE);
}

/// Waits until the server answers nobody.
fn wait_until_silent(server: SocketAddr) {
    loop {
        let mut asked = TcpStream::connect(server).unwrap();
        let patience = Some(Duration::from_millis(500));
        asked.set_read_timeout(patience).unwrap();
        asked.write_all(b"PING\r\n").unwrap();
        if asked.read(&mut [0; 16]).is_err() {
            return;
        }
    }
}

#[test]
fn a_full_server_refuses_new_sessions_and_serves_those_it_has() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&["--maxmemory-policy", "noeviction"]));
    let store = OnRedis::over(Rc::clone(&server), spec_of(&server), PATIENT);
    assert_eq!(store.ask(KEY, put(0, b"x"), NOW), DONE);
    let mut client = server.connect();
    client.expect(&["CONFIG", "SET", "maxmemory", "1000"]);
    let full = StoreOutcome::Refused(StoreRefusal::MemoryFull);
    assert_eq!(store.ask(b"another", put(0, b"new"), NOW), full);
    let read = store.ask(KEY, SessionCommand::Acquire, NOW);
    assert_eq!(read, found(b"x", Some(2), false));
    let large = vec![7; 100_000];
    assert_eq!(store.ask(KEY, put(2, &large), NOW), DONE);
    let read = store.ask(KEY, SessionCommand::Get, NOW);
    assert_eq!(read, found(&large, None, false));
    assert_eq!(store.ask(KEY, remove(2), NOW), DONE);
}

#[test]
fn a_server_that_takes_no_writes_loses_none() {
    if !has_redis() {
        return;
    }
    let refused = StoreOutcome::Refused(StoreRefusal::NotWritable);
    for words in [
        ["CONFIG", "SET", "min-replicas-to-write", "1"].as_slice(),
        &["REPLICAOF", "127.0.0.1", "1"],
    ] {
        let server = Rc::new(RedisServer::start(&[]));
        let store = OnRedis::over(Rc::clone(&server), spec_of(&server), SHORT);
        assert_eq!(store.ask(KEY, put(0, b"kept"), NOW), DONE);
        let mut client = server.connect();
        client.expect(words);
        assert_eq!(store.ask(KEY, put(0, b"new"), NOW), refused, "{words:?}");
        assert_eq!(store.ask(KEY, remove(0), NOW), refused, "{words:?}");
        let locked = store.ask(KEY, SessionCommand::Acquire, NOW);
        assert_eq!(locked, StoreOutcome::Unknown, "{words:?}");
        client.ask(&["REPLICAOF", "NO", "ONE"]);
        client.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        let read = store.ask(KEY, SessionCommand::Acquire, NOW);
        assert_eq!(read, found(b"kept", Some(2), false), "{words:?}");
    }
}

#[test]
fn scripts_that_the_server_has_lost_are_given_to_it_again() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let store = OnRedis::over(Rc::clone(&server), spec_of(&server), PATIENT);
    let mut client = server.connect();
    for command in [
        put(0, b"x"),
        SessionCommand::Acquire,
        put(2, b"x"),
        release(2),
        SessionCommand::Touch,
        remove(2),
    ] {
        client.expect(&["SCRIPT", "FLUSH"]);
        let shown = format!("{command:?}");
        let outcome = store.ask(KEY, command, NOW);
        let is_done = matches!(
            outcome,
            StoreOutcome::Done { .. } | StoreOutcome::Found { .. }
        );
        assert!(is_done, "{shown}: {outcome:?}");
    }
}

#[test]
fn long_bodies_come_back_as_they_went() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let store = OnRedis::over(Rc::clone(&server), spec_of(&server), PATIENT);
    let mut cookie = 0;
    for length in [64 * 1024, 64 * 1024 + 1, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        assert_eq!(store.ask(KEY, put(cookie, &body), NOW), DONE);
        let read = store.ask(KEY, SessionCommand::Get, NOW);
        assert!(read == found(&body, None, false), "{length}");
        cookie = cookie.max(1) + 1;
        let read = store.ask(KEY, SessionCommand::Acquire, NOW);
        assert!(read == found(&body, Some(cookie), false), "{length}");
    }
}

#[test]
fn a_server_that_cannot_be_used_is_said_to_be_so_and_no_password_is_shown() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    server
        .connect()
        .expect(&["CONFIG", "SET", "requirepass", "right"]);
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "wr0ng-one\n").unwrap();
    let mut spec = spec_of(&server);
    let ready = |spec: &RedisSpec| {
        let store = OnRedis::over_unflushed(Rc::clone(&server), spec.clone(), SHORT);
        let dangers = store.wait(store.store.survey()).dangers;
        let ready = store.wait(store.store.ready());
        let reason = ready.clone().err();
        match &dangers[..] {
            [StoreDanger::Unusable { reason: told }, ..] => assert_eq!(Some(told), reason.as_ref()),
            _ => assert_eq!(reason, None),
        }
        ready
    };
    let error = ready(&spec).unwrap_err();
    assert!(
        error.contains("NOAUTH") && error.contains(&server.port.to_string()),
        "{error}"
    );
    spec.password_file = Some(password_file.clone());
    let error = ready(&spec).unwrap_err();
    assert!(error.contains("refuses user or password"), "{error}");
    assert!(!error.contains("wr0ng"), "{error}");
    // A new password needs no restart.
    std::fs::write(&password_file, "right\nsecond line\n").unwrap();
    assert_eq!(ready(&spec), Ok(()));
    spec.password_file = Some(folder.path().join("missing"));
    let error = ready(&spec).unwrap_err();
    assert!(error.contains("missing: No such file"), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{nobody}")).unwrap());
    let error = ready(&spec).unwrap_err();
    assert!(
        error.contains(&format!("cannot connect to {nobody}")),
        "{error}"
    );
}

/// What is no line of its own in a log, and none for the service manager.
#[test]
fn what_a_server_says_is_one_short_line_wherever_it_is_shown() {
    if !has_redis() {
        return;
    }
    let said = format!("-ERR no\nSTOPPING=1\u{1b}[2J{}\r\n", "x".repeat(60_000));
    let error = why_unusable(liar(said.into_bytes()));
    assert!(error.contains("STOPPING=1"), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.len() < 1000, "{}", error.len());
}

/// A server that gives each command this answer.
fn liar(said: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, said) = (client.unwrap(), said.clone());
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    let commands = buffer[..count].iter().filter(|byte| **byte == b'*').count();
                    let _ = client.write_all(&said.repeat(commands));
                }
            });
        }
    });
    address
}

/// Why a store whose server is there cannot be used.
fn why_unusable(address: SocketAddr) -> String {
    let server = Rc::new(RedisServer::start(&[]));
    let spec = RedisSpec::new(RedisUrl::parse(&format!("redis://{address}")).unwrap());
    let store = OnRedis::over_unflushed(server, spec, SHORT);
    store.wait(store.store.ready()).unwrap_err()
}

#[test]
fn an_answer_without_end_is_not_waited_for_and_its_server_is_named() {
    if !has_redis() {
        return;
    }
    let line = format!("+{}", "x".repeat(70_000));
    for (said, reason) in [
        ("$99999999999\r\n", "more than 512 MiB"),
        ("*9223372036854775807\r\n", "more than a million values"),
        (&line, "a line of more than 64 KiB"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "none of Redis"),
    ] {
        let address = liar(said.as_bytes().to_vec());
        let error = why_unusable(address);
        let names = error.contains(&address.to_string());
        assert!(names && error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_server_that_runs_no_script_for_lack_of_memory_is_not_used() {
    if !has_redis() {
        return;
    }
    let said = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let error = why_unusable(liar(said.to_vec()));
    assert!(error.contains("OOM"), "{error}");
}

#[test]
fn what_endangers_sessions_is_found() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&["--maxmemory-policy", "volatile-lru"]));
    let store = OnRedis::over(Rc::clone(&server), spec_of(&server), PATIENT);
    let found = store.wait(store.store.survey());
    let name = format!("127.0.0.1:{}", server.port);
    let expected = [
        StoreDanger::Evicts {
            server: name.clone(),
            policy: "volatile-lru".to_owned(),
            evicted: 0,
        },
        StoreDanger::Unkept { server: name },
    ];
    assert_eq!(found.dangers, expected);
    assert!(found.memory.is_some_and(|memory| memory.used_bytes > 0));
    let mut client = server.connect();
    client.expect(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    client.expect(&["CONFIG", "SET", "appendonly", "yes"]);
    let found = store.wait(store.store.survey());
    assert_eq!(found.dangers, []);
}

fn spec_of(server: &RedisServer) -> RedisSpec {
    RedisSpec::new(RedisUrl::parse(&server.url()).unwrap())
}
