//! What a state server says of itself: findings, metrics, and who may ask.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;
use staterouter::metrics::table;
use tempfile::TempDir;

use crate::support::answers::{BAD_REQUEST, DONE, item};
use crate::support::certificates::Authority;
use crate::support::client::{Client, get, put};
use crate::support::metrics::Scrape;
use crate::support::system::wait_until;
use crate::support::{Program, admin, start};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const OTHER_ID: &str = "b5k2ye1tqz0mh3wdcx4nvs1g";

const SERVER: [&str; 7] = [
    "state-server",
    "--listen",
    "127.0.0.1:0",
    "--workers",
    "1",
    "--admin",
    "127.0.0.1:0",
];

fn server(more: &[&str]) -> Program {
    Program::start(&[&SERVER, more].concat())
}

fn finding(status: &Value, code: &str) -> Option<Value> {
    let findings = status["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["code"] == code);
    found.cloned()
}

fn series(code: &str, level: &str) -> String {
    format!("staterouter_findings{{code=\"{code}\",level=\"{level}\"}}")
}

#[test]
fn full_memory_is_a_finding_and_leaves_those_that_live_alone() {
    let server = server(&["--max-memory", "1MiB", "--max-body", "1MiB"]);
    let mut client = Client::connect(server.address);
    assert_eq!(
        admin::status(server.admin())["findings"],
        Value::Array(Vec::new())
    );
    assert_eq!(
        admin::get(server.admin(), "/readyz"),
        (200, "ready\n".to_owned())
    );

    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 860_000])), DONE);
    let found = admin::wait_for_finding(server.admin(), "memory_fills_up");
    assert_eq!(found["level"], "warning");
    assert_eq!(client.ask(&put(OTHER_ID, 0, &[b'x'; 300_000])), BAD_REQUEST);
    let found = admin::wait_for_finding(server.admin(), "memory_full");
    assert_eq!(found["level"], "critical");
    let says = found["says"].as_str().unwrap();
    assert!(says.contains("1 new sessions were refused"), "{says}");
    let status = admin::status(server.admin());
    assert_eq!(finding(&status, "memory_fills_up"), None);
    assert_eq!(client.ask(&put(ID, 0, b"smaller")), DONE);

    let (code, text) = admin::get(server.admin(), "/readyz");
    assert_eq!(code, 200);
    assert!(text.contains("memory for sessions is full"), "{text}");
    let scrape = Scrape::of(server.admin());
    assert_eq!(scrape.value(&series("memory_full", "critical")), 1.0);
    assert_eq!(scrape.value(&series("memory_fills_up", "warning")), 0.0);
    let refused = "staterouter_state_server_refused_sessions_total";
    assert_eq!(scrape.value(refused), 1.0);
    server.wait_for_log(|line| line.contains("WARN") && line.contains("is full"));
}

/// A limit on the size of a file is a volume that is full, for which nobody has to be root.
#[test]
fn a_disk_that_is_full_is_a_finding_until_there_is_room() {
    let folder = TempDir::new().unwrap();
    let data = ["--data", folder.path().to_str().unwrap()];
    // In blocks of 512 bytes; who ignores the signal gets an error instead.
    let limits = "trap '' XFSZ; ulimit -S -f 200";
    let server = Program::start_limited(limits, &[&SERVER[..], &data].concat());
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, b"kept")), DONE);
    assert_eq!(client.ask(&put(OTHER_ID, 0, &[b'x'; 400_000])), BAD_REQUEST);

    let found = admin::wait_for_finding(server.admin(), "disk_refuses");
    assert_eq!(found["level"], "critical");
    let says = found["says"].as_str().unwrap().to_owned();
    assert!(
        says.contains(data[1]) && says.contains("MiB are free"),
        "{says}"
    );
    let status = admin::status(server.admin());
    assert_eq!(status["disk"]["state"], "paused");
    let (code, text) = admin::get(server.admin(), "/readyz");
    assert_eq!((code, text.trim()), (503, says.as_str()));
    let scrape = Scrape::of(server.admin());
    let writable = "staterouter_state_server_disk_writable";
    assert_eq!(scrape.value(writable), 0.0);
    assert_eq!(scrape.value(&series("disk_refuses", "critical")), 1.0);
    assert_eq!(client.ask(&get(ID)), item(b"kept"));
    assert_eq!(client.ask(&put(ID, 0, b"new")), BAD_REQUEST);

    let pid = server.id().to_string();
    let mut raise = Command::new("prlimit");
    raise.args(["--pid", &pid, "--fsize=unlimited"]);
    assert!(start(&mut raise).wait().unwrap().success());
    wait_until("it takes writes again", || {
        let status = admin::status(server.admin());
        finding(&status, "disk_refuses").is_none()
    });
    server.wait_for_log(|line| line.contains("over: ") && line.contains("refuses writes"));
    assert_eq!(client.ask(&put(ID, 0, b"new")), DONE);
    assert_eq!(admin::get(server.admin(), "/readyz").0, 200);
}

#[test]
fn a_certificate_that_has_expired_is_a_finding() {
    let folder = TempDir::new().unwrap();
    Authority::new().issue_until(folder.path(), "server", "localhost", 2000);
    let [cert, key] = ["server.pem", "server.key"].map(|file| folder.path().join(file));
    let [cert, key] = [&cert, &key].map(|path| path.to_str().unwrap());
    let server = server(&["--tls-cert", cert, "--tls-key", key]);
    let found = admin::wait_for_finding(server.admin(), "certificate_expired");
    assert!(found["says"].as_str().unwrap().contains(cert), "{found}");
    let expiry = "staterouter_certificate_expiry_timestamp_seconds";
    assert_eq!(Scrape::of(server.admin()).non_zero(expiry).len(), 1);
}

#[test]
fn every_metric_is_given_as_it_is_declared() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let more = ["--data", data, "--sync", "always", "--max-memory", "1GiB"];
    let server = server(&more);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, &[b'x'; 1000])), DONE);
    let syncs = "staterouter_state_server_disk_syncs_total";
    wait_until("the writer tells", || {
        let scrape = Scrape::of(server.admin());
        scrape.value(syncs) >= 1.0
            && scrape.value("staterouter_state_server_disk_live_bytes") > 1000.0
    });
    let scrape = Scrape::of(server.admin());
    let types = scrape.types();
    for family in table::OF_STATE_SERVER {
        assert_eq!(
            types.get(family.name),
            Some(&family.kind.name()),
            "{}",
            family.name
        );
    }
    for (series, value) in [
        ("staterouter_state_server_sessions", 1.0),
        ("staterouter_state_server_session_bytes", 1000.0),
        (
            "staterouter_state_server_max_memory_bytes",
            f64::from(1 << 30),
        ),
        ("staterouter_state_server_disk_writable", 1.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    assert!(scrape.value("process_resident_memory_bytes") > 0.0);
    assert!(scrape.value("staterouter_state_server_disk_sync_seconds_total") > 0.0);
    // What only a proxy can have is not said to be well.
    assert_eq!(scrape.get(&series("backend_down", "critical")), None);
}

/// The status line of the answer to a request for `path` under the name `host`.
fn ask_as(admin: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[test]
fn who_asks_under_a_name_that_is_not_its_own_learns_no_more_than_that_it_lives() {
    let server = server(&["--admin-host", "state-a.example"]);
    let ask = |host, path| ask_as(server.admin(), host, path);
    for path in ["/status", "/metrics"] {
        assert!(ask("attacker.example", path).contains("421"), "{path}");
        assert!(ask("state-a.example", path).contains("200"), "{path}");
        assert_eq!(admin::post(server.admin(), path, "").0, 405, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert!(ask("attacker.example", path).contains("200"), "{path}");
    }
    let refused = "staterouter_admin_requests_refused_total";
    assert_eq!(Scrape::of(server.admin()).sum(refused), 2.0);
}
