//! TLS between proxies, and between a proxy and whoever asks its admin server: real processes, real
//! certificates.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use staterouter::tls::{BlockingTls, ClientFiles, ClientTls, name_of};
use tempfile::TempDir;

use crate::support::admin;
use crate::support::certificates::Authority;
use crate::support::system::hold_port;
use crate::support::{PATIENCE, Program, ProxyFiles, run};

const LOOPBACK: &str = "127.0.0.1";

/// Keys of a proxy whose admin server at `listen` shows `server.pem` of `folder` and wants to see
/// certificates of `ca.pem`, and that shows its peers `client.pem`.
fn encrypted(folder: &Path, listen: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "admin: {{listen: \"{listen}\", tls: {{cert: {folder}/server.pem, key: {folder}/server.key, \
         client_ca: {folder}/ca.pem}}}}\n\
         peer_tls: {{ca: {folder}/ca.pem, cert: {folder}/client.pem, key: {folder}/client.key}}\n\
         timeouts: {{connect: 1s, answer: 1s}}\n"
    )
}

/// An authority and what it has issued for both ends.
fn issue(folder: &Path) -> Authority {
    let authority = Authority::new();
    authority.write(folder);
    authority.issue(folder, "server", LOOPBACK);
    authority.issue(folder, "client", "proxy.farm.example");
    authority
}

/// A connection to an admin server that stays open.
struct Https(BufReader<BlockingTls>);

impl Https {
    /// Of somebody who trusts `ca.pem` in `folder`, and shows `client.pem` there if `shows`.
    fn connect(folder: &Path, admin: SocketAddr, shows: bool) -> Self {
        let own = shows.then(|| (folder.join("client.pem"), folder.join("client.key")));
        let ca = folder.join("ca.pem");
        let tls = ClientTls::load("test", ClientFiles { ca, own }).unwrap();
        let stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream = tls.connect_blocking(stream, name_of(LOOPBACK).unwrap());
        Self(BufReader::new(stream.unwrap()))
    }

    fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert_ne!(line, "", "the connection has ended");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Asks until `wanted` is true of the status.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let status = serde_json::from_str(&self.get("/status")).unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "never: {what}: {status:#}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn peers_and_commands_speak_tls_and_a_new_certificate_drops_no_connection() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let authority = issue(folder);
    let server = Program::state_server();
    let other_server = Program::state_server();
    let ports = [(); 2].map(|()| hold_port());
    let [one, other] = ports.each_ref().map(|(_, admin)| *admin);
    let files = |own, peer| {
        let extra = encrypted(folder, own) + &format!("peers: [\"{peer}\"]\n");
        ProxyFiles::new(&[server.address, other_server.address], &extra)
    };
    let files = [files(one, other), files(other, one)];
    let [first, _second] = std::thread::scope(|scope| {
        // Each waits for the other before it serves.
        let second = scope.spawn(|| files[1].start());
        [files[0].start(), second.join().unwrap()]
    });
    let mut open = Https::connect(folder, one, true);
    open.wait_for("the peer is heard", |status| {
        status["peers"][0]["map_version"] == 1
    });

    // What the main file says is enough, and so are the options.
    let config = files[0].config();
    let (code, stdout, stderr) = run(&["status", "--config", &config]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let (address, peer) = (one.to_string(), other.to_string());
    let shown = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let with_tls = |args: &[&str]| run(&[args, &["--admin", &address], &shown].concat());
    let (code, stdout, stderr) = with_tls(&["backend", "state-2", "drain", "--yes"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    open.wait_for("both follow the order", |status| {
        status["backends"][1]["state"] == "drain" && status["peers"][0]["overrides_differ"] == false
    });
    let (code, stdout, _) = with_tls(&["peer", &peer, "gone", "--yes"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("refused"), "{stdout}");
    let (code, _, stderr) = with_tls(&["contents"]);
    assert_eq!(code, Some(0), "{stderr}");
    let map = files[0].path("map.yaml");
    let (code, _, stderr) = with_tls(&["plan", "--map", &map]);
    assert_eq!(code, Some(0), "{stderr}");

    // A new certificate counts for new connections, which it does not fit; the others go on.
    authority.issue(folder, "server", "other.farm.example");
    first.signal("HUP");
    first.wait_for_log(|line| line.contains("new certificate for admin in force"));
    let (code, stdout, _) = run(&["status", "--config", &config]);
    assert_eq!(code, Some(3), "{stdout}");
    let metrics = open.get("/metrics");
    for end in ["admin", "peers"] {
        let expiry =
            format!("staterouter_certificate_expiry_timestamp_seconds{{certificate=\"{end}\"}}");
        assert!(metrics.contains(&expiry), "{end}: {metrics}");
    }
}

/// What is wrong with the admin server's certificate or the client's, and who says what.
struct Distrust {
    what: &'static str,
    server: fn(&Authority, &Path),
    shows: Option<fn(&Authority, &Path)>,
    client_says: &'static str,
    server_says: &'static str,
}

fn good(known: &Authority, folder: &Path) {
    known.issue(folder, "server", LOOPBACK);
}

fn good_client(known: &Authority, folder: &Path) {
    known.issue(folder, "client", "operator.farm.example");
}

const DISTRUST: &[Distrust] = &[
    Distrust {
        what: "the authority of the admin server is unknown",
        server: |_, folder| Authority::new().issue(folder, "server", LOOPBACK),
        shows: Some(good_client),
        client_says: "invalid peer certificate: UnknownIssuer",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the certificate of the admin server has expired",
        server: |known, folder| known.issue_until(folder, "server", LOOPBACK, 2020),
        shows: Some(good_client),
        client_says: "certificate expired",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the admin server has another name",
        server: |known, folder| known.issue(folder, "server", "other.farm.example"),
        shows: Some(good_client),
        client_says: "certificate not valid for name \"127.0.0.1\"",
        server_says: "received fatal alert: ",
    },
    Distrust {
        what: "the client shows no certificate",
        server: good,
        shows: None,
        client_says: "received fatal alert: ",
        server_says: "peer sent no certificates",
    },
    Distrust {
        what: "the authority of the client is unknown",
        server: good,
        shows: Some(|_, folder| {
            Authority::new().issue(folder, "client", "operator.farm.example");
        }),
        client_says: "received fatal alert: ",
        server_says: "invalid peer certificate: UnknownIssuer",
    },
];

#[test]
fn without_trust_an_admin_server_answers_nothing_and_both_sides_say_why() {
    let server = Program::state_server();
    for case in DISTRUST {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        let known = issue(folder);
        (case.server)(&known, folder);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy = ProxyFiles::new(&[server.address], &encrypted(folder, any)).serve();
        let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
        let (admin, ca) = (proxy.admin().to_string(), path("ca.pem"));
        let (cert, key) = (path("client.pem"), path("client.key"));
        let mut args = vec!["status", "--admin", &admin, "--tls-ca", &ca];
        if let Some(set_up) = case.shows {
            set_up(&known, folder);
            args.extend(["--tls-cert", &cert, "--tls-key", &key]);
        }
        let (code, stdout, _) = run(&args);
        assert_eq!(code, Some(3), "{}: {stdout}", case.what);
        assert!(stdout.contains(case.client_says), "{}: {stdout}", case.what);
        proxy.wait_for_log(|line| line.contains("no_tls") && line.contains(case.server_says));
        // In the clear it answers nobody either.
        let (code, stdout, _) = run(&["status", "--admin", &admin]);
        assert_eq!(code, Some(3), "{}: {stdout}", case.what);
        assert!(stdout.contains("--tls-ca"), "{}: {stdout}", case.what);
    }
}

#[test]
fn a_peer_that_is_not_trusted_is_told_apart_from_one_that_is_dead() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    issue(folder);
    let server = Program::state_server();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let asked = ProxyFiles::new(&[server.address], &encrypted(folder, any)).serve();
    let peer = asked.admin();
    // It shows no certificate.
    let extra = format!(
        "peers: [\"{peer}\"]\npeer_tls: {{ca: {}/ca.pem}}\ntimeouts: {{connect: 1s, answer: 1s}}\n",
        folder.display()
    );
    let proxy = ProxyFiles::new(&[server.address], &extra).serve();
    asked.wait_for_log(|line| line.contains("no_tls") && line.contains("sent no certificates"));
    let failure = |wanted: &'static str| {
        move |status: &Value| {
            let failure = status["peers"][0]["failure"].as_str();
            failure.is_some_and(|failure| failure.contains(wanted))
        }
    };
    admin::wait_for(
        proxy.admin(),
        "it is refused",
        failure("received fatal alert"),
    );
    let metrics = Https::connect(folder, peer, true).get("/metrics");
    let refused = "staterouter_admin_requests_refused_total{reason=\"no_tls\"} 0\n";
    assert!(!metrics.contains(refused), "{metrics}");

    Authority::new().issue(folder, "server", LOOPBACK);
    asked.signal("HUP");
    admin::wait_for(
        proxy.admin(),
        "it is of another authority",
        failure("UnknownIssuer"),
    );
}

#[test]
fn a_state_server_answers_about_itself_with_its_certificate() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    issue(folder);
    let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (cert, key) = (path("server.pem"), path("server.key"));
    let mut args = vec!["state-server", "--listen", "127.0.0.1:0", "--workers", "1"];
    args.extend(["--tls-cert", &cert, "--tls-key", &key]);
    args.extend(["--admin", "127.0.0.1:0", "--admin-tls"]);
    let server = Program::start(&args);
    assert_eq!(
        Https::connect(folder, server.admin(), false).get("/healthz"),
        "ok\n"
    );
}
