//! The log as an operator gets it, and servers that work on whatever becomes of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail"
)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use crate::support::answers::DONE;
use crate::support::backend::ABSENT;
use crate::support::client::{Client, get, put};
use crate::support::system::{has_ended, hold_port, wait_until};
use crate::support::{Program, ProxyFiles, proxy, run, slots};
use serde_json::Value;
use staterouter::handover::Stage;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

const STATE_SERVER: &[&str] = &["state-server", "--listen", "127.0.0.1:0", "--workers", "2"];

/// An address that refuses connections.
const DEAD_BACKEND: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// A server whose stderr the test chooses.
struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(args: &[&str], stderr: impl Into<Stdio>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_staterouter"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            panic!("{line:?} instead of where it listens");
        };
        Self {
            address: address.parse().unwrap(),
            child,
            _stdout: stdout,
        }
    }

    /// Sends SIGTERM and waits for the end.
    fn stop(mut self) -> ExitStatus {
        let pid = self.child.id();
        let kill = Command::new("kill").arg(pid.to_string()).status().unwrap();
        assert!(kill.success());
        wait_until("the server has ended", || has_ended(pid));
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both servers work and end well with such a stderr.
fn works_with(stderr: impl Fn() -> Stdio) {
    let state_server = Server::start(STATE_SERVER, stderr());
    let files = ProxyFiles::new(&[state_server.address], "");
    let proxy = Server::start(&["serve", "--config", &files.config()], stderr());
    // Each of them is a log line, on one of two workers.
    for server in [&state_server, &proxy] {
        for _ in 0..20 {
            let mut refused = Client::connect(server.address);
            refused.send(b"NONSENSE\r\n\r\n");
            refused.until_closed();
        }
    }
    for number in 0..20 {
        let id = format!("{number:02}{}", &ID[2..]);
        let mut client = Client::connect(proxy.address);
        assert_eq!(client.ask(&get(&id)), ABSENT);
        assert_eq!(client.ask(&put(&id, 0, b"state")), DONE);
    }
    for server in [proxy, state_server] {
        let status = server.stop();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn servers_work_with_stderr_on_a_full_disk() {
    works_with(|| {
        let full = OpenOptions::new().write(true).open("/dev/full");
        full.unwrap().into()
    });
}

#[test]
fn servers_work_with_a_stderr_that_nobody_reads() {
    let reader_and_writer = full_stream();
    works_with(|| {
        let writer = reader_and_writer.1.try_clone().unwrap();
        OwnedFd::from(writer).into()
    });
}

#[test]
fn servers_work_with_a_stderr_whose_reader_has_gone() {
    works_with(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    });
}

/// A stream, as a service manager gives one for stderr, on which the next write blocks.
fn full_stream() -> (UnixStream, UnixStream) {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    for chunk in [&[b'x'; 4096][..], b"x"] {
        let full = loop {
            if let Err(error) = writer.write_all(chunk) {
                break error.kind();
            }
        };
        assert_eq!(full, ErrorKind::WouldBlock);
    }
    writer.set_nonblocking(false).unwrap();
    (reader, writer)
}

#[test]
fn json_is_one_object_per_line() {
    let proxy = proxy(&[DEAD_BACKEND], "log: {format: json}");
    fail_a_request(&proxy);
    proxy.signal("TERM");
    let (_, log) = proxy.wait();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |level: &str, key: &str| {
        let mut of_level = lines.iter().filter(|line| line["level"] == level);
        let line = of_level.find(|line| line["fields"].get(key).is_some());
        line.unwrap_or_else(|| panic!("no {level} with {key} in {log}"))
    };
    assert_eq!(
        of("INFO", "backends")["fields"]["message"],
        "serving",
        "{log}"
    );
    let failed = &of("WARN", "session")["fields"];
    for (key, value) in [
        ("operation", "get"),
        ("backend", "state-1"),
        ("phase", "connect"),
        ("sessions", "at rest"),
        ("peer", "127.0.0.1"),
    ] {
        assert_eq!(failed[key], value, "{log}");
    }
    assert!(failed["duration_ms"].as_f64().unwrap() >= 0.0, "{log}");
    assert_eq!(failed["session"].as_str().unwrap().len(), 8, "{log}");
    assert_eq!(failed["suppressed"], 0, "{log}");
    for line in &lines {
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z'), "{log}");
        assert!(line["fields"]["message"].is_string(), "{log}");
    }
    assert!(!log.contains(ID), "{log}");
}

/// A refusal of a slot that has lost its backend names that one, and not the one to stand in.
#[test]
fn a_refused_request_names_the_backend_that_is_missed() {
    let (_held, stands_in) = hold_port();
    let files = ProxyFiles::new(&[stands_in, DEAD_BACKEND], "log: {format: json}");
    slots::put_all(&files, Stage::Suspect, 1, 2);
    let proxy = files.serve();
    fail_a_request(&proxy);
    let log = proxy.wait_for_log(|line| line.contains("request failed"));
    let failed = with_message(&log, "request failed").remove(0);
    assert_eq!(failed["backend"], "state-2", "{log}");
    assert_eq!(failed["phase"], "route", "{log}");
    assert_eq!(failed["sessions"], "refused", "{log}");
}

#[test]
fn a_request_can_be_followed_through_a_handover() {
    let servers = [(); 2].map(|()| Program::state_server());
    let addresses = servers.each_ref().map(|server| server.address);
    let files = ProxyFiles::new(&addresses, "log: {format: json, level: debug}");
    slots::put_all(&files, Stage::Move1, 2, 1);
    let proxy = files.serve();
    assert_eq!(Client::connect(addresses[0]).ask(&put(ID, 0, b"s")), DONE);
    let mut client = Client::connect(proxy.address);
    assert!(client.ask(&get(ID)).ends_with(b"s"));

    let log = proxy.wait_for_log(|line| line.contains("request answered"));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let steps = with_message(&log, "request followed");
    let seen = steps.iter().map(|step| {
        assert_eq!(step["session"], steps[0]["session"], "{log}");
        assert_eq!(step["request"], 1, "{log}");
        assert_eq!(step["stage"], "move1", "{log}");
        ["ask", "backend", "seen"]
            .map(|key| text(&step[key]))
            .join(" | ")
    });
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            "its own request | state-2 | absent",
            "acquire | state-1 | ok",
            "put unless there | state-2 | ok",
            "its own request | state-2 | ok",
            "remove behind | state-1 | moved",
        ]
    );
    let answered = with_message(&log, "request answered").remove(0);
    assert_eq!(answered["session"], steps[0]["session"], "{log}");
    for (key, value) in [
        ("operation", "get"),
        ("backend", "state-2"),
        ("result", "ok"),
    ] {
        assert_eq!(answered[key], value, "{log}");
    }
    assert!(!log.contains(ID), "{log}");
}

/// stdout and stderr of a server often end in the same journal.
#[test]
fn with_a_json_log_every_line_of_a_server_is_json() {
    let files = ProxyFiles::new(&[DEAD_BACKEND], "log: {format: json}");
    let first = Command::new(env!("CARGO_BIN_EXE_staterouter"))
        .args(["serve", "--config", &files.config()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut first = first.unwrap();
    let mut stdout = BufReader::new(first.stdout.take().unwrap());
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    stdout.read_line(&mut said).unwrap();
    // The state file is in use.
    let (code, out, log) = run(&["serve", "--config", &files.config()]);
    assert_eq!((code, &*out), (Some(3), ""), "{log}");
    assert!(log.contains("another proxy"), "{log}");
    first.kill().unwrap();
    let output = first.wait_with_output().unwrap();
    said += &String::from_utf8(output.stderr).unwrap();
    said += &log;
    for line in said.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

/// The fields of the lines of a JSON log whose message begins so.
fn with_message(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let fields = lines.map(|line: Value| line["fields"].clone());
    let is_meant = |fields: &Value| fields["message"].as_str().unwrap().starts_with(message);
    fields.filter(is_meant).collect()
}

#[test]
fn the_level_hides_what_is_less_important() {
    for (level, has_info, has_warn) in [
        ("info", true, true),
        ("warn", false, true),
        ("error", false, false),
    ] {
        let proxy = proxy(&[DEAD_BACKEND], &format!("log: {{level: {level}}}"));
        fail_a_request(&proxy);
        proxy.signal("TERM");
        let (status, log) = proxy.wait();
        assert_eq!(status.code(), Some(0));
        // The last line there is comes from the moment before the end.
        assert_eq!(log.contains("INFO stopping"), has_info, "{level}: {log}");
        assert_eq!(log.contains(" WARN "), has_warn, "{level}: {log}");
        assert_eq!(log.is_empty(), !has_info && !has_warn, "{level}: {log}");
    }
}

fn fail_a_request(proxy: &Program) {
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    client.until_closed();
}
