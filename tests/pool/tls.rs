//! TLS between an agent and its state servers, and in front of a proxy: real processes, real
//! certificates.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use staterouter::tls::{BlockingTls, ClientFiles, ClientTls, name_of};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::support::certificates::Authority;
use crate::support::client::{Client, acquire, get, put};
use crate::support::system::hold_port;
use crate::support::{PATIENCE, Program, ProxyFiles, admin, run};

const ID: &str = "abcdefghijklmnopqrstuvwx";
const LOOPBACK: &str = "127.0.0.1";

/// A state server that shows `server.pem` in `folder`, and wants to see certificates of `ca.pem`
/// there if `asks`.
fn state_server(folder: &Path, asks: bool) -> Program {
    let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let mut args = vec!["state-server", "--listen", "127.0.0.1:0", "--workers", "1"];
    args.extend(["--tls-cert", &cert, "--tls-key", &key]);
    if asks {
        args.extend(["--tls-client-ca", &ca]);
    }
    Program::start(&args)
}

/// An agent that trusts `ca.pem` in `folder`, and shows `agent.pem` there if `shows`.
fn agent(folder: &Path, backend: SocketAddr, shows: bool) -> Program {
    let folder = folder.display();
    let own = match shows {
        true => format!(", cert: {folder}/agent.pem, key: {folder}/agent.key"),
        false => String::new(),
    };
    let extra = format!(
        "backend_tls: {{ca: {folder}/ca.pem{own}}}\nhealth: {{interval: 100ms, fall: 100}}\n"
    );
    ProxyFiles::new(&[backend], &extra).serve()
}

/// The status of the answer; nothing if the connection was closed instead.
fn status(answer: &[u8]) -> &str {
    std::str::from_utf8(answer)
        .unwrap()
        .get(..3)
        .unwrap_or_default()
}

/// How often probes ended as `result`.
fn probes(proxy: &Program, result: &str) -> u64 {
    let text = admin::get(proxy.admin(), "/metrics").1;
    let wanted = format!("result=\"{result}\"}} ");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("staterouter_backend_probes_total"));
    let counts = lines.filter_map(|line| line.split_once(&wanted));
    counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

fn wait_for_probes(proxy: &Program, result: &str) {
    let before = probes(proxy, result);
    admin::wait_for(proxy.admin(), "another probe", |_| {
        probes(proxy, result) > before
    });
}

#[test]
fn an_agent_carries_sessions_over_tls_and_a_new_certificate_drops_no_connection() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    authority.write(folder);
    authority.issue(folder, "server", LOOPBACK);
    authority.issue(folder, "agent", "agent.farm.example");
    let server = state_server(folder, true);
    let agent = agent(folder, server.address, true);
    let mut client = Client::connect(agent.address);
    assert_eq!(status(&client.ask(&put(ID, 0, b"one"))), "200");
    let large = vec![b'x'; 3_000_000];
    assert_eq!(status(&client.ask(&put(ID, 0, &large))), "200");
    assert!(client.ask(&get(ID)).ends_with(&large));
    wait_for_probes(&agent, "ok");

    // Half of a new pair changes nothing.
    let old_key = std::fs::read(folder.join("server.key")).unwrap();
    authority.issue(folder, "server", "other.farm.example");
    let new_key = std::fs::read(folder.join("server.key")).unwrap();
    std::fs::write(folder.join("server.key"), old_key).unwrap();
    server.signal("HUP");
    server.wait_for_log(|line| line.contains("stays as it was"));
    assert!(client.ask(&get(ID)).ends_with(&large));
    wait_for_probes(&agent, "ok");

    // The whole one counts for new connections, which it does not fit; the others go on.
    std::fs::write(folder.join("server.key"), new_key).unwrap();
    server.signal("HUP");
    server.wait_for_log(|line| line.contains("new certificate for --listen in force"));
    wait_for_probes(&agent, "untrusted");
    assert!(client.ask(&get(ID)).ends_with(&large));
}

/// What is wrong, and the words for it in the logs of agent and state server.
struct Distrust {
    what: &'static str,
    set_up: fn(&Authority, &Path),
    asks: bool,
    shows: bool,
    agent_says: &'static str,
    server_says: &'static str,
}

const DISTRUST: &[Distrust] = &[
    Distrust {
        what: "the state server's authority is unknown",
        set_up: |_, folder| Authority::new().issue(folder, "server", LOOPBACK),
        asks: false,
        shows: false,
        agent_says: "invalid peer certificate: UnknownIssuer",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the state server's certificate has expired",
        set_up: |known, folder| known.issue_until(folder, "server", LOOPBACK, 2020),
        asks: false,
        shows: false,
        agent_says: "certificate expired",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the state server has another name",
        set_up: |known, folder| known.issue(folder, "server", "other.farm.example"),
        asks: false,
        shows: false,
        agent_says: "certificate not valid for name \"127.0.0.1\"",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the agent shows no certificate",
        set_up: |known, folder| known.issue(folder, "server", LOOPBACK),
        asks: true,
        shows: false,
        agent_says: "received fatal alert: ",
        server_says: "peer sent no certificates",
    },
    Distrust {
        what: "the agent's authority is unknown",
        set_up: |known, folder| {
            known.issue(folder, "server", LOOPBACK);
            Authority::new().issue(folder, "agent", "agent.farm.example");
        },
        asks: true,
        shows: true,
        agent_says: "received fatal alert: ",
        server_says: "invalid peer certificate: UnknownIssuer",
    },
];

#[test]
fn without_trust_nothing_is_forwarded_and_both_sides_say_why() {
    for case in DISTRUST {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        let known = Authority::new();
        known.write(folder);
        (case.set_up)(&known, folder);
        let server = state_server(folder, case.asks);
        let agent = agent(folder, server.address, case.shows);
        let mut client = Client::connect(agent.address);
        client.send(&put(ID, 0, b"secret"));
        assert_eq!(status(&client.until_closed()), "", "{}", case.what);
        agent.wait_for_log(|line| line.contains(case.agent_says));
        server.wait_for_log(|line| {
            line.contains("no TLS with it") && line.contains(case.server_says)
        });
        wait_for_probes(&agent, "untrusted");
        let log = server.stop();
        assert!(log.contains("sessions=0"), "{}: {log}", case.what);
    }
}

#[test]
fn a_state_server_without_tls_gets_nothing_from_an_agent_that_wants_it() {
    let folder = TempDir::new().unwrap();
    Authority::new().write(folder.path());
    let server = Program::state_server();
    let agent = agent(folder.path(), server.address, false);
    let mut client = Client::connect(agent.address);
    client.send(&put(ID, 0, b"secret"));
    assert_eq!(client.until_closed(), b"");
    wait_for_probes(&agent, "untrusted");
    assert!(server.stop().contains("sessions=0"));
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A connection of a client that trusts `ca.pem` in `folder`.
async fn connect_to(folder: &Path, server: SocketAddr) -> TlsStream<TcpStream> {
    let files = ClientFiles {
        ca: folder.join("ca.pem"),
        own: None,
    };
    let tls = ClientTls::load("test", files).unwrap();
    let stream = TcpStream::connect(server).await.unwrap();
    let name = name_of(LOOPBACK).unwrap();
    tls.connect(stream, name).await.unwrap()
}

/// What such a client gets from `server` for `request`.
fn ask_encrypted(folder: &Path, server: SocketAddr, request: &[u8]) -> Vec<u8> {
    runtime().block_on(async {
        let mut stream = connect_to(folder, server).await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It may end without a farewell: answers are framed.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    })
}

#[test]
fn a_proxy_with_a_certificate_serves_tls_alone_and_tells_when_it_ends() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    authority.write(folder);
    authority.issue(folder, "proxy", LOOPBACK);
    let server = Program::state_server();
    let path = folder.display();
    let extra = format!("tls: {{cert: {path}/proxy.pem, key: {path}/proxy.key}}\n");
    let proxy = ProxyFiles::new(&[server.address], &extra).serve();
    let answer = ask_encrypted(folder, proxy.address, &put(ID, 0, b"one"));
    assert_eq!(status(&answer), "200");
    let mut plain = Client::connect(proxy.address);
    plain.send(&get(ID));
    let answer = plain.until_closed();
    // A TLS alert at most.
    assert!(!answer.ends_with(b"one") && answer.len() < 16, "{answer:?}");
    let refused = "staterouter_client_connections_refused_total{reason=\"no_tls\"} 1\n";
    admin::wait_for(proxy.admin(), "the refusal in the metrics", |_| {
        admin::get(proxy.admin(), "/metrics").1.contains(refused)
    });

    // Nobody would take the new one, so the old one stays, whatever is wrong.
    let refused = |reason: &str| {
        proxy.signal("HUP");
        admin::wait_for(proxy.admin(), reason, |status| {
            let mut findings = status["findings"].as_array().unwrap().iter();
            let refused = findings.find(|finding| finding["code"] == "certificate_refused");
            refused.is_some_and(|finding| finding["says"].as_str().unwrap().contains(reason))
        });
        let answer = ask_encrypted(folder, proxy.address, &get(ID));
        assert!(answer.ends_with(b"one"), "{reason}");
    };
    authority.issue_until(folder, "proxy", LOOPBACK, 2020);
    refused("has expired, on 2020-01-01");
    authority.issue_between(folder, "proxy", LOOPBACK, 3000, 4000);
    refused("is not valid before 3000-01-01");
    std::fs::write(folder.join("proxy.key"), "no key").unwrap();
    refused("no private key");
    let expiry_is = |proxy: &Program, expiry: &str| {
        let series = "staterouter_certificate_expiry_timestamp_seconds{certificate=\"listen\"}";
        let line = format!("{series} {expiry}\n");
        admin::wait_for(proxy.admin(), &line, |_| {
            admin::get(proxy.admin(), "/metrics").1.contains(&line)
        });
    };
    expiry_is(&proxy, "64060588800");

    // One that has expired is better than none at a start, and is told of. Any other replaces it.
    authority.issue_until(folder, "proxy", LOOPBACK, 2020);
    let proxy = ProxyFiles::new(&[server.address], &extra).serve();
    let finding = admin::wait_for_finding(proxy.admin(), "certificate_expired");
    assert!(
        finding["says"].as_str().unwrap().contains("proxy.pem"),
        "{finding}"
    );
    expiry_is(&proxy, "1577836800");
    authority.issue_until(folder, "proxy", LOOPBACK, 2021);
    proxy.signal("HUP");
    expiry_is(&proxy, "1609459200");
}

/// Of a chain what ends first counts, and of several authorities none breaks the others.
#[test]
fn the_end_of_a_chain_and_of_an_authority_among_others_is_told_with_its_name() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let [old, authority] = [Authority::until(2020), Authority::new()];
    authority.issue(folder, "server", LOOPBACK);
    let both = old.pem().to_owned() + authority.pem();
    std::fs::write(folder.join("ca.pem"), both).unwrap();
    let server = state_server(folder, false);
    let agent = agent(folder, server.address, false);
    wait_for_probes(&agent, "ok");
    let finding = admin::wait_for_finding(agent.admin(), "certificate_expires");
    let says = finding["says"].as_str().unwrap();
    assert!(
        says.contains("2020-01-01") && says.contains("CN="),
        "{says}"
    );
    let (status, _) = admin::get(agent.admin(), "/readyz");
    assert_eq!(status, 200);
    let metrics = admin::get(agent.admin(), "/metrics").1;
    let until =
        "staterouter_certificate_expiry_timestamp_seconds{certificate=\"backends\"} 67090118400\n";
    assert!(metrics.contains(until), "{metrics}");

    // Its own certificate, with one behind it that ends before.
    authority.issue(folder, "agent", "agent.farm.example");
    authority.issue_until(folder, "between", "between.farm.example", 2020);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    std::fs::write(
        folder.join("agent.pem"),
        read("agent.pem") + &read("between.pem"),
    )
    .unwrap();
    let agent = self::agent(folder, server.address, true);
    let finding = admin::wait_for_finding(agent.admin(), "certificate_expired");
    assert!(
        finding["says"].as_str().unwrap().contains("2020-01-01"),
        "{finding}"
    );
}

#[test]
fn files_that_are_no_certificate_are_faults_of_the_file_that_names_them() {
    let files = ProxyFiles::new(
        &[LOOPBACK.to_owned() + ":9"],
        "tls: {cert: a.pem, key: a.key}\n",
    );
    let (exit, said, _) = run(&["check", "--config", &files.config()]);
    assert_eq!(exit, Some(1));
    assert!(
        said.contains("cannot read") && said.contains("a.pem"),
        "{said}"
    );
    let path = files.path("a.pem");
    std::fs::write(path, "-----BEGIN NOTHING-----").unwrap();
    std::fs::write(files.path("a.key"), "secret").unwrap();
    let (_, said, _) = run(&["check", "--config", &files.config()]);
    assert!(
        said.contains("a.pem holds no certificate") && !said.contains("secret"),
        "{said}"
    );
    for (keys, fault) in [
        ("tls: {cert: a.pem}", "`cert` has no key"),
        ("tls: {key: a.key}", "`key` has no certificate"),
        ("tls: {client_ca: a.pem}", "`tls` has no certificate"),
        (
            "backend_tls: {plain: [state-1]}",
            "`backend_tls` has no authorities",
        ),
    ] {
        let files = ProxyFiles::new(&[LOOPBACK.to_owned() + ":9"], keys);
        let (exit, said, _) = run(&["check", "--config", &files.config()]);
        assert_eq!(exit, Some(1), "{keys}");
        assert!(said.contains(fault), "{keys}: {said}");
    }
}

/// A proxy over two state servers that show certificates of two authorities; the main file knows the
/// first.
#[test]
fn a_backend_has_a_trust_of_its_own_that_changes_with_the_map_and_outlives_a_faulty_one() {
    let folders = [(); 2].map(|()| TempDir::new().unwrap());
    let [one, other] = folders.each_ref().map(TempDir::path);
    let names = [(one, LOOPBACK), (other, "state-2.farm.example")];
    for (folder, name) in names {
        let authority = Authority::new();
        authority.write(folder);
        authority.issue(folder, "server", name);
    }
    let servers = [one, other].map(|folder| state_server(folder, false));
    let [first, second] = servers.each_ref().map(|server| server.address);
    let extra = format!(
        "backend_tls: {{ca: {}/ca.pem}}\nhealth: {{interval: 100ms, fall: 1, rise: 1}}\n",
        one.display()
    );
    let files = ProxyFiles::new(&[first, second], &extra);
    let map = |version: u32, ca: &Path| {
        format!(
            "version: {version}\nbackends:\n  - {{name: state-1, id: 1, address: \"{first}\"}}\n  \
             - {{name: state-2, id: 2, address: \"{second}\", tls: {{ca: {}/ca.pem, server_name: \
             state-2.farm.example}}}}\n",
            ca.display()
        )
    };
    files.replace("map.yaml", &map(1, other));
    let proxy = files.start();
    let is = |proxy: &Program, health: &str| {
        let what = format!("state-2 is {health}");
        admin::wait_for(proxy.admin(), &what, |status| {
            admin::backend(status, "state-2")["verdict"] == health
                && admin::backend(status, "state-1")["verdict"] == "up"
        });
    };
    is(&proxy, "up");
    let metrics = admin::get(proxy.admin(), "/metrics").1;
    assert!(
        metrics.contains("{certificate=\"backend state-2\"}"),
        "{metrics}"
    );

    files.replace("map.yaml", &map(2, one));
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    is(&proxy, "down");
    wait_for_probes(&proxy, "untrusted");
    files.replace("map.yaml", &map(3, other));
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    is(&proxy, "up");
    let (code, outcome) = {
        files.replace("map.yaml", &map(4, Path::new("/nowhere")));
        admin::reload(proxy.admin())
    };
    assert_eq!(code, 422, "{outcome}");
    assert!(
        outcome["faults"][0]
            .as_str()
            .unwrap()
            .contains("/nowhere/ca.pem"),
        "{outcome}"
    );
    drop(proxy);

    // The map of the last run counts, with all that it said.
    let proxy = files.start();
    is(&proxy, "up");
}

/// A client with TLS that stays connected.
struct Encrypted(BlockingTls);

impl Encrypted {
    fn connect(folder: &Path, proxy: SocketAddr) -> Self {
        let files = ClientFiles {
            ca: folder.join("ca.pem"),
            own: None,
        };
        let tls = ClientTls::load("test", files).unwrap();
        let stream = std::net::TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = name_of(LOOPBACK).unwrap();
        Self(tls.connect_blocking(stream, name).unwrap())
    }

    fn send(&mut self, request: &[u8]) {
        self.0.write_all(request).unwrap();
        self.0.flush().unwrap();
    }

    /// Sends a request whose answer has no more than a head and a short body.
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        let mut answer = vec![0; 4096];
        let length = self.0.read(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }
}

/// A proxy that its clients reach with TLS.
fn encrypted_proxy(folder: &Path, backend: SocketAddr, extra: &str) -> Program {
    let authority = Authority::new();
    authority.write(folder);
    authority.issue(folder, "proxy", LOOPBACK);
    let path = folder.display();
    let tls = format!("tls: {{cert: {path}/proxy.pem, key: {path}/proxy.key}}\n{extra}\n");
    ProxyFiles::new(&[backend], &tls).serve()
}

fn wait_for_series(proxy: &Program, series: &str) {
    admin::wait_for(proxy.admin(), series, |_| {
        let text = admin::get(proxy.admin(), "/metrics").1;
        text.lines().any(|line| line == series)
    });
}

#[test]
fn a_client_with_tls_that_leaves_gives_up_its_place_in_front_of_a_lock() {
    let folder = TempDir::new().unwrap();
    let server = Program::state_server();
    let proxy = encrypted_proxy(folder.path(), server.address, "locks: {wait: 5s}");
    let connect = || Encrypted::connect(folder.path(), proxy.address);
    // As many connections as let one of them wait.
    let _idle = [(); 6].map(|()| {
        let mut idle = connect();
        idle.ask(&get("bcdefghijklmnopqrstuvwxy"));
        idle
    });
    let mut holder = connect();
    assert_eq!(status(&holder.ask(&put(ID, 0, b"one"))), "200");
    assert_eq!(status(&holder.ask(&acquire(ID))), "200");
    let waiting = "staterouter_lock_waiting_requests 1";
    let left = |times: u32| format!("staterouter_lock_waits_total{{end=\"left\"}} {times}");
    let mut leaver = connect();
    leaver.send(&acquire(ID));
    wait_for_series(&proxy, waiting);
    leaver.0.socket().shutdown(Shutdown::Both).unwrap();
    wait_for_series(&proxy, &left(1));

    // With a farewell, and the connection goes on.
    let runtime = runtime();
    let mut leaver = runtime.block_on(async {
        let mut leaver = connect_to(folder.path(), proxy.address).await;
        leaver.write_all(&acquire(ID)).await.unwrap();
        leaver
    });
    wait_for_series(&proxy, waiting);
    runtime.block_on(async {
        leaver.get_mut().1.send_close_notify();
        leaver.flush().await.unwrap();
    });
    wait_for_series(&proxy, &left(2));
}

#[test]
fn a_client_with_tls_that_leaves_waits_for_no_server_any_more() {
    let folder = TempDir::new().unwrap();
    let (_nobody, backend) = hold_port();
    let long = "timeouts: {answer: 1h}\nhealth: {interval: 100ms, fall: 1}\n\
                handover: {hold: 1m, failover: off, settle: 2h}";
    let proxy = encrypted_proxy(folder.path(), backend, long);
    let mut client = Encrypted::connect(folder.path(), proxy.address);
    client.send(&acquire(ID));
    wait_for_series(&proxy, "staterouter_waiting_requests 1");
    client.0.socket().shutdown(Shutdown::Both).unwrap();
    wait_for_series(&proxy, "staterouter_waiting_requests 0");
}
