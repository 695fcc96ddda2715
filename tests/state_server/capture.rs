//! `staterouter conformance --capture`: a relay that writes down what may be written down.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::support::client::{Client, acquire, body, get, head, put, status};
use crate::support::{Program, run, start};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const SECRET: &[u8] = b"\x14\0\0\0\x01\0 secret contents \r\n\r\nHTTP/1.1 200 OK\xff";

/// A capture under way, killed when dropped.
struct Relay {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Relay {
    fn start(target: SocketAddr, file: &Path, extra: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staterouter"));
        command
            .args(["conformance", "--listen", "127.0.0.1:0", "--target"])
            .arg(target.to_string())
            .arg("--capture")
            .arg(file)
            .args(extra)
            .stdout(Stdio::piped());
        let mut child = start(&mut command);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        Self {
            address: address.parse().unwrap(),
            child,
            stdout,
        }
    }

    /// Presses Ctrl-C; returns the exit code and what it said last.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-INT", &pid]).status();
        assert!(kill.unwrap().success());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// The five exchanges of the session, in order, under one fingerprint.
#[track_caller]
fn assert_exchanges(lines: &[Value]) {
    let exchanges: Vec<_> = lines
        .iter()
        .filter(|line| line["answer"].is_object())
        .collect();
    let answers: Vec<_> = exchanges
        .iter()
        .map(|line| {
            (
                line["answer"]["line"].as_str().unwrap(),
                line["answer"]["body_bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let item_bytes = SECRET.len() as u64;
    let wanted = [
        ("404 Not Found", 0),
        ("200 OK", 0),
        ("200 OK", item_bytes),
        ("200 OK", 0),
        ("200 OK", 0),
    ];
    assert_eq!(answers[..5], wanted);
    let request = &exchanges[3]["request"];
    assert_eq!(request["body_bytes"], item_bytes);
    let headers: Vec<_> = request["headers"].as_array().unwrap().iter().collect();
    assert!(headers.contains(&&Value::from("LockCookie:2")), "{request}");
    let line = request["line"].as_str().unwrap();
    assert!(
        line.starts_with("PUT %2fLM%2fW3SVC%2f1%2fROOT({hash of 44})%2f{id of 24, "),
        "{line}"
    );
    let targets = exchanges[..5]
        .iter()
        .map(|line| line["request"]["line"].as_str().unwrap());
    let mut ids = targets.map(|line| line.split_once('{').unwrap().1.to_owned());
    let first = ids.next().unwrap();
    assert!(ids.all(|id| id == first), "one session has one fingerprint");
}

#[test]
fn a_capture_has_every_exchange_and_no_session_id_and_no_contents() {
    let server = Program::state_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.jsonl");
    let relay = Relay::start(server.address, &file, &[]);
    let mut client = Client::connect(relay.address);
    assert_eq!(status(&client.ask(&get(ID))), "404");
    assert_eq!(status(&client.ask(&put(ID, 0, SECRET))), "200");
    assert_eq!(body(&client.ask(&acquire(ID))), SECRET);
    // In pieces, and a body that looks like an answer.
    let store = put(ID, 2, SECRET);
    for piece in store.chunks(7) {
        client.send(piece);
    }
    assert_eq!(status(&client.answer_to(false)), "200");
    client.send(&head(ID));
    assert_eq!(status(&client.answer_to(true)), "200");
    client.close();
    let mut stranger = Client::connect(relay.address);
    stranger.send(b"BREW pot\r\n\r\n");
    assert_eq!(status(&stranger.until_closed()), "400");
    let (code, said) = relay.stop();
    assert_eq!(code, Some(0), "{said}");

    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(ID) && !text.contains("secret"), "{text}");
    let lines = lines(&file);
    let written = format!("{} lines written", lines.len());
    assert!(said.contains(&written), "{said}");
    assert_exchanges(&lines);
    let events = lines.iter().filter_map(|line| line["event"].as_str());
    let events: Vec<_> = events.collect();
    assert!(events.contains(&"closed by the web server"), "{events:?}");
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("not understood")),
        "{events:?}"
    );
}

#[test]
fn a_full_capture_goes_on_as_a_relay_and_an_old_one_is_not_overwritten() {
    let server = Program::state_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.jsonl");
    let relay = Relay::start(server.address, &file, &["--max-lines", "3"]);
    let mut client = Client::connect(relay.address);
    for _ in 0..5 {
        assert_eq!(status(&client.ask(&get(ID))), "404");
    }
    let (code, said) = relay.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 lines written; "), "{said}");
    assert_eq!(lines(&file).len(), 3);

    let file = file.to_str().unwrap();
    let target = server.address.to_string();
    let args = [
        "conformance",
        "--listen",
        "127.0.0.1:0",
        "--target",
        &target,
    ];
    let (code, _, error) = run(&[&args[..], &["--capture", file]].concat());
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains(file), "{error}");
    let open = ["conformance", "--listen", "0.0.0.0:0", "--target", &target];
    let (code, _, error) = run(&[&open[..], &["--capture", "x"]].concat());
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("--allow"), "{error}");
}
