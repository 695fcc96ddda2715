//! A state server that keeps its sessions on disk: killed under load, stopped, started twice.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::answers::{DONE, item};
use crate::support::backend::ABSENT;
use crate::support::client::{Client, acquire, body, delete, get, put, status};
use crate::support::{self, Program, run};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

fn server(folder: &Path, sync: &str) -> Program {
    let folder = folder.to_str().unwrap();
    let listen = ["state-server", "--listen", "127.0.0.1:0", "--workers", "2"];
    let admin = ["--admin", "127.0.0.1:0"];
    let data = ["--data", folder, "--sync", sync];
    Program::start(&[&listen[..], &admin, &data].concat())
}

/// What a client knows of its session.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The number whose write was answered last.
    answered: u64,
    /// The number whose write was sent last.
    sent: u64,
}

/// Counts a session up under its lock, as pages do, until the server is gone.
fn count_up(server: &Program, id: &str, known: &mut Known, steps: &AtomicUsize) {
    let Ok(mut stream) = TcpStream::connect(server.address) else {
        return;
    };
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    loop {
        let cookie = if known.sent == 0 {
            0
        } else {
            let Some(answer) = try_ask(&mut stream, &acquire(id)) else {
                return;
            };
            let is_absent = status(&answer) == "404";
            let found = if is_absent { 0 } else { number(&answer) };
            assert!(
                found == known.answered || found == known.sent,
                "{id} holds {found}, of which {known:?} is known"
            );
            // The kill may have come before its first write was answered.
            if is_absent { 0 } else { lock_cookie(&answer) }
        };
        known.sent = known.sent.max(known.answered) + 1;
        let body = known.sent.to_string();
        match try_ask(&mut stream, &put(id, cookie, body.as_bytes())) {
            Some(answer) => assert_eq!(answer, DONE),
            None => return,
        }
        known.answered = known.sent;
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// `None` once the server is gone.
fn try_ask(stream: &mut TcpStream, request: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut byte = [0; 4096];
    loop {
        let count = stream.read(&mut byte).ok().filter(|count| *count > 0)?;
        answer.extend_from_slice(&byte[..count]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let text = str::from_utf8(&answer[..head]).unwrap();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            if answer.len() == head + 4 + length.unwrap().parse::<usize>().unwrap() {
                return Some(answer);
            }
        }
    }
}

fn number(answer: &[u8]) -> u64 {
    assert_eq!(status(answer), "200", "{}", String::from_utf8_lossy(answer));
    str::from_utf8(body(answer)).unwrap().parse().unwrap()
}

fn lock_cookie(answer: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("LockCookie: "));
    cookie.unwrap().parse().unwrap()
}

/// Each round begins with the sessions as the kill left them: none is lost, none is older than what
/// was answered, and none is locked.
#[test]
fn a_kill_under_load_loses_nothing_that_was_answered() {
    const ROUNDS: usize = 4;
    const CLIENTS: usize = 6;
    for sync in ["off", "everysec", "always"] {
        let folder = TempDir::new().unwrap();
        let mut known = [Known::default(); CLIENTS];
        for round in 1..=ROUNDS {
            let server = server(folder.path(), sync);
            let steps = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for (number, known) in known.iter_mut().enumerate() {
                    let (server, steps) = (&server, &steps);
                    let id = format!("session{number:017}");
                    scope.spawn(move || count_up(server, &id, known, steps));
                }
                while steps.load(Ordering::Relaxed) < 60 * round {
                    std::thread::yield_now();
                }
                server.signal("KILL");
            });
        }
        let server = server(folder.path(), sync);
        let mut client = Client::connect(server.address);
        for (number, known) in known.iter().enumerate() {
            let id = format!("session{number:017}");
            let answer = client.ask(&acquire(&id));
            let found = match status(&answer) {
                "404" => 0,
                _ => self::number(&answer),
            };
            assert!(found == known.answered || found == known.sent, "{sync}");
        }
    }
}

#[test]
fn a_stop_in_good_order_loses_nothing_in_any_mode() {
    for sync in ["off", "shutdown", "everysec", "always"] {
        let folder = TempDir::new().unwrap();
        let first = server(folder.path(), sync);
        let mut client = Client::connect(first.address);
        assert_eq!(client.ask(&put(ID, 0, b"kept")), DONE);
        assert_eq!(client.ask(&put("gone00000000000000000000", 0, b"x")), DONE);
        assert_eq!(client.ask(&delete("gone00000000000000000000", 0)), DONE);
        assert_eq!(status(&client.ask(&acquire(ID))), "200");
        let log = first.stop();
        assert!(!log.contains("ERROR"), "{log}");

        let second = server(folder.path(), sync);
        let mut client = Client::connect(second.address);
        assert_eq!(client.ask(&get(ID)), item(b"kept"), "{sync}");
        assert_eq!(client.ask(&get("gone00000000000000000000")), ABSENT);
        second.wait_for_log(|line| line.contains("sessions are loaded"));
    }
}

#[test]
fn its_status_page_says_what_the_disk_is_like() {
    let folder = TempDir::new().unwrap();
    let server = server(folder.path(), "always");
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 1000])), DONE);
    support::system::wait_until("the writer tells", || {
        let status = support::admin::status(server.admin());
        let disk = &status["disk"];
        let number = |key: &str| disk[key].as_u64().unwrap();
        disk["state"] == "writable"
            && number("live_bytes") > 1000
            && number("file_bytes") > number("live_bytes")
    });
    assert_eq!(support::admin::get(server.admin(), "/readyz").0, 200);
}

#[test]
fn a_second_server_on_one_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let _first = server(folder.path(), "everysec");
    let path = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = run(&["state-server", "--listen", "127.0.0.1:0", "--data", path]);
    assert_eq!((code, stdout.as_str()), (Some(3), ""));
    assert!(
        stderr.contains(path) && stderr.contains("another process"),
        "{stderr}"
    );
}

#[test]
fn damage_is_refused_at_the_start_with_its_place() {
    let folder = TempDir::new().unwrap();
    let first = server(folder.path(), "always");
    let mut client = Client::connect(first.address);
    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 1000])), DONE);
    first.stop();
    let file = folder.path().join("sessions-00000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, _, stderr) = run(&["state-server", "--listen", "127.0.0.1:0", "--data", path]);
    assert_eq!(code, Some(3));
    let place = format!("{} is damaged at byte 48", file.display());
    assert!(stderr.contains(&place), "{stderr}");
}

#[test]
fn modes_need_a_folder() {
    let (code, _, stderr) = run(&["state-server", "--sync", "always"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--data"), "{stderr}");
}
