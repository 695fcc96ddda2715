//! The admin server over raw sockets, with a control that the test plays.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::system::wait_until;
use serde_json::{Value, json};
use staterouter::admin::{AdminOptions, AdminServer, AdminTls};
use staterouter::config::BackendAddress;
use staterouter::control::contents::ContentsBoard;
use staterouter::control::handle::{AdminAccess, ControlCommand, ControlEnd, Published, handle};
use staterouter::control::peers::report::{self, PeerState};
use staterouter::control::pool_state::{Membership, PeerView};
use staterouter::control::report::finding::{Finding, SessionKeeper};
use staterouter::control::report::replication::{CopiesStatus, ReplicaCounts};
use staterouter::control::report::status::{
    AccountingStatus, BackendHealth, BackendLoad, BackendStatus, LastReload, ReloadOutcome,
    ReloadResult, ServiceState, StageCounts, Status,
};
use staterouter::control::session_timeouts::SeenTimeouts;
use staterouter::handover::{BackendId, SlotState};
use staterouter::metrics::PoolMetrics;
use staterouter::net::Listeners;
use staterouter::net::UnixClock;
use staterouter::route::SLOT_COUNT;

/// No answer after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Times that no test waits for.
pub(super) const UNHURRIED: AdminOptions = AdminOptions {
    max_connections: 64,
    receive: PATIENCE,
    lifetime: PATIENCE,
    shutdown: PATIENCE,
    ask_every: Duration::from_millis(10),
    ask_timeout: PATIENCE,
};

/// Times short enough to be waited for.
const HURRIED: Duration = Duration::from_millis(20);
/// What a test waits for that has to send a request before.
const SHORT: Duration = Duration::from_secs(1);

const INSTANCE: &str = "0123456789abcdef";

/// A running admin server and control's end.
pub(super) struct Admin {
    server: AdminServer,
    peers: Vec<BackendAddress>,
    pub(super) control: ControlEnd,
}

impl Admin {
    pub(super) fn start(options: AdminOptions) -> Self {
        Self::with_peers(&[], options)
    }

    fn with_peers(peers: &[SocketAddr], options: AdminOptions) -> Self {
        let peers: Vec<_> = peers.iter().copied().map(BackendAddress::from).collect();
        let published = Published {
            peers: peers.clone(),
            ..published([BackendHealth::Up, BackendHealth::Down])
        };
        let (control, end) = handle(published, ContentsBoard::new());
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let server = AdminServer::start(
            Some(listeners),
            control,
            Arc::default(),
            options,
            AdminTls::default(),
        )
        .unwrap();
        Self {
            server,
            peers,
            control: end,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address.unwrap()
    }

    pub(super) fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// Sends `request` on a connection of its own; the answer up to its end.
    pub(super) fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        let request = request.replacen(
            "\r\n",
            "\r\nhost: 127.0.0.1\r\nstaterouter-request: 1\r\nconnection: close\r\n",
            1,
        );
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(stream)
    }

    /// Sends nothing but these lines, as a browser or a script would.
    pub(super) fn ask_raw(&self, request: &str, lines: &[&str]) -> Answer {
        let mut stream = self.connect();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("{request} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(stream)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\n\r\n"))
    }

    /// Asks for a reload, which ends as `outcome`.
    fn reload(&mut self, outcome: ReloadOutcome) -> Answer {
        let mut stream = self.connect();
        let request =
            b"POST /reload HTTP/1.1\r\nstaterouter-request: 1\r\nconnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        match self.control.commands.blocking_recv() {
            Some(ControlCommand::Reload(answer)) => answer.send(outcome).unwrap(),
            other => unreachable!("{other:?}"),
        }
        Answer::read(stream)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(super) fn published(verdicts: [BackendHealth; 2]) -> Published {
    let backend = |(id, verdict): (u8, BackendHealth)| BackendStatus {
        name: format!("state-{id}"),
        id,
        address: "127.0.0.1:1".to_owned(),
        address_in_use: None,
        state: ServiceState::Active,
        overridden: None,
        weight: 100,
        verdict,
        reason: (verdict == BackendHealth::Down).then(|| "connection refused".to_owned()),
        since_ms: 5,
        slots_owned: 8192,
        slots_first: 8192,
        slots_waiting: 0,
        slots_refused: 0,
        waits_until_ms: None,
        empty_ms: None,
        slots_in: StageCounts::default(),
        slots_as_replica: ReplicaCounts::default(),
        copies: CopiesStatus::default(),
        slots_unprotected: 0,
        pending_deletes: 0,
        moved_here: 0,
        absent_while_away: 0,
        engine: None,
        load: BackendLoad {
            sessions: Some(8),
            ..BackendLoad::default()
        },
    };
    let status = Status {
        version: "0.0.0".to_owned(),
        instance: INSTANCE.to_owned(),
        host: "web-1".to_owned(),
        listen: "127.0.0.1:42424".to_owned(),
        started_ms: 1,
        now_ms: 9,
        findings: Vec::new(),
        map_version: 3,
        last_reload: Some(LastReload {
            at_ms: 7,
            outcome: ReloadOutcome {
                faults: vec!["no".to_owned()],
                ..outcome(ReloadResult::Refused, 3)
            },
        }),
        backends: (1..).zip(verdicts).map(backend).collect(),
        applications: Vec::new(),
        accounting: AccountingStatus::default(),
        slots: StageCounts {
            steady: 16_384,
            ..StageCounts::default()
        },
        replication: None,
        last_failover: None,
        under_way: Vec::new(),
        longest_session_timeout_minutes: 20,
        peers: Vec::new(),
    };
    Published {
        status,
        history: Arc::default(),
        peer: peer_state(),
        metrics: PoolMetrics::default(),
        access: AdminAccess::default(),
        peers: Vec::new(),
    }
}

fn peer_state() -> PeerState {
    PeerState {
        instance: INSTANCE.to_owned(),
        map_version: 3,
        decisions: Vec::new(),
        up: vec![place(1)],
        pending: Vec::new(),
        servers: Vec::new(),
        off: Vec::new(),
        gone: Vec::new(),
        timeouts: SeenTimeouts::default(),
        membership: Membership::default(),
        slots: vec![SlotState::steady(place(1), 1_000); SLOT_COUNT].into(),
        clock: UnixClock::start(),
    }
}

pub(super) fn outcome(result: ReloadResult, map_version: u64) -> ReloadOutcome {
    ReloadOutcome {
        result,
        map_version,
        faults: Vec::new(),
        needs_restart: Vec::new(),
    }
}

fn place(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

/// Reads a report that has just arrived; its times are those of the sender.
fn read_report(body: &[u8]) -> PeerView {
    report::read(body, "another", UnixClock::start().now_ms()).unwrap()
}

/// What came back on a connection until it was closed.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        // The server may close while we still send: what it has said counts.
        let _ = stream.read_to_string(&mut text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[test]
fn probes_of_load_balancers_see_life_and_readiness() {
    let admin = Admin::start(UNHURRIED);
    let alive = admin.get("/healthz");
    assert_eq!((alive.status, &*alive.body), (200, "ok\n"));
    assert_eq!(admin.get("/readyz").body, "ready\n");
    // Another proxy would have the same backend: no reason to go around this one.
    for (finding, status) in [
        (
            Finding::backend_down(SessionKeeper::at("state-1", "10.0.0.1:42424"), None, false),
            200,
        ),
        (Finding::no_backend(), 503),
    ] {
        let says = finding.says.clone();
        let mut found = published([BackendHealth::Up, BackendHealth::Down]);
        found.status.findings = vec![finding];
        admin.control.published.send_replace(found.into());
        let ready = admin.get("/readyz");
        assert_eq!(ready.status, status, "{says}");
        assert_eq!(ready.body.contains(&says), status == 503, "{}", ready.body);
    }
}

#[test]
fn status_and_peer_report_are_what_control_has_published() {
    let admin = Admin::start(UNHURRIED);
    let status = admin.get("/status");
    assert_eq!(status.status, 200);
    assert!(status.head.contains("content-type: application/json"));
    let status = status.json();
    assert_eq!(status["map_version"], 3);
    assert_eq!(
        status["last_reload"],
        json!({
            "at_ms": 7, "result": "refused", "map_version": 3, "faults": ["no"],
            "needs_restart": []
        })
    );
    let backend = &status["backends"][1];
    assert_eq!(backend["name"], "state-2");
    assert_eq!(backend["verdict"], "down");
    assert_eq!(backend["reason"], "connection refused");
    assert_eq!(backend["slots_in"]["move1"], 0);
    assert_eq!(status["slots"]["steady"], 16_384);
    let view = read_report(admin.get("/peer").body.as_bytes());
    assert_eq!((view.map_version, view.up), (3, vec![place(1)]));
    assert!(view.slots.iter().all(|slot| slot.first == place(1)));
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let admin = Admin::start(AdminOptions {
        max_connections: 4,
        ..UNHURRIED
    });
    // A browser that keeps its connection, and many that send no head.
    let mut kept = admin.connect();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let silent: Vec<_> = (0..20).map(|_| admin.connect()).collect();
    for path in ["/healthz", "/metrics", "/peer", "/status"] {
        assert_eq!(admin.get(path).status, 200, "{path}");
    }
    drop((kept, silent));
}

#[test]
fn a_control_that_is_silent_is_told_to_everybody_who_would_rely_on_it() {
    let Admin {
        server, control, ..
    } = Admin::start(UNHURRIED);
    let address = server.address.unwrap();
    let get = |path: &str| {
        let mut stream = connect(address);
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(stream)
    };
    assert_eq!(get("/peer").status, 200);
    drop(control);
    for path in ["/readyz", "/peer"] {
        let answer = get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.starts_with("control "), "{}", answer.body);
    }
    let code = &get("/status").json()["findings"][0]["code"];
    assert_eq!(code, "control_stopped");
    assert_eq!(get("/healthz").status, 200);
}

#[test]
fn a_reload_is_answered_with_its_outcome() {
    let mut admin = Admin::start(UNHURRIED);
    let applied = admin.reload(ReloadOutcome {
        needs_restart: vec!["listen".to_owned()],
        ..outcome(ReloadResult::Applied, 4)
    });
    assert_eq!(applied.status, 200);
    assert_eq!(
        applied.json(),
        json!({"result": "applied", "map_version": 4, "faults": [], "needs_restart": ["listen"]})
    );
    let unchanged = admin.reload(outcome(ReloadResult::Unchanged, 4));
    assert_eq!(unchanged.status, 200);
    assert_eq!(unchanged.json()["result"], "unchanged");
    let refused = admin.reload(ReloadOutcome {
        faults: vec!["map.yaml:3:5: bad".to_owned()],
        ..outcome(ReloadResult::Refused, 4)
    });
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["faults"], json!(["map.yaml:3:5: bad"]));
}

#[test]
fn without_control_there_is_no_reload_and_no_readiness() {
    let Admin {
        server, control, ..
    } = Admin::start(UNHURRIED);
    let mut stream = connect(server.address.unwrap());
    drop(control);
    let request = b"POST /reload HTTP/1.1\r\nstaterouter-request: 1\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let answer = Answer::read(stream);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("control does not answer"));
    let mut stream = connect(server.address.unwrap());
    let request = b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    assert_eq!(Answer::read(stream).status, 503);
    let mut stream = connect(server.address.unwrap());
    let request = b"GET /status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let status = Answer::read(stream).json();
    assert_eq!(status["findings"][0]["code"], "control_stopped");
}

#[test]
fn what_is_not_there_is_told_apart_from_what_is_asked_wrongly() {
    let admin = Admin::start(UNHURRIED);
    assert_eq!(admin.get("/index.html").status, 404);
    assert_eq!(admin.get("/status/").status, 404);
    assert_eq!(admin.get("/status?pretty").status, 200);
    let posted = admin.ask("POST /status HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(posted.status, 405);
    assert!(posted.head.contains("allow: get, head"), "{}", posted.head);
    let got = admin.get("/reload");
    assert_eq!(got.status, 405);
    assert!(got.head.contains("allow: post"), "{}", got.head);
    let head = admin.ask("HEAD /healthz HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(admin.ask("NONSENSE\r\n\r\n").status, 400);
}

#[test]
fn what_is_too_long_is_refused() {
    let admin = Admin::start(UNHURRIED);
    let long = "x".repeat(20_000);
    let head = admin.ask(&format!("GET /healthz HTTP/1.1\r\na: {long}\r\n\r\n"));
    assert_eq!(head.status, 431);
    let announced = admin.ask("POST /reload HTTP/1.1\r\ncontent-length: 4097\r\n\r\n");
    assert_eq!(announced.status, 413);
    let chunk = format!("1001\r\n{}\r\n", &long[..0x1001]);
    let chunked = admin.ask(&format!(
        "POST /reload HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
    ));
    assert_eq!(chunked.status, 413);
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    let admin = Admin::start(UNHURRIED);
    let mut stream = admin.connect();
    let request = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 3\r\n\r\nabc";
    let last = "GET /peer HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    let requests = format!("{request}{request}{last}");
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert!(answers.contains("\"instance\""), "{answers}");
}

#[test]
fn a_client_that_does_not_get_on_is_closed() {
    let admin = Admin::start(AdminOptions {
        receive: SHORT,
        ..UNHURRIED
    });
    let connections = [
        ("", None),
        ("GET /healthz HT", None),
        (
            "POST /reload HTTP/1.1\r\nstaterouter-request: 1\r\ncontent-length: 5\r\n\r\nab",
            Some(408),
        ),
    ]
    .map(|(sent, answer)| {
        let mut stream = admin.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        (sent, answer, stream)
    });
    for (sent, answer, stream) in connections {
        assert_eq!(Answer::read(stream).status, answer.unwrap_or(0), "{sent:?}");
    }
}

#[test]
fn a_connection_does_not_live_for_ever() {
    let admin = Admin::start(AdminOptions {
        lifetime: SHORT,
        ..UNHURRIED
    });
    let mut stream = admin.connect();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(stream).status, 200);
}

#[test]
fn whoever_comes_beyond_the_bound_gets_the_place_of_another() {
    let mut admin = Admin::start(AdminOptions {
        max_connections: 1,
        ..UNHURRIED
    });
    let mut first = admin.connect();
    first
        .write_all(b"POST /reload HTTP/1.1\r\nhost: localhost\r\nstaterouter-request: 1\r\n\r\n")
        .unwrap();
    let Some(ControlCommand::Reload(_reload)) = admin.control.commands.blocking_recv() else {
        unreachable!("nothing else was asked");
    };
    assert_eq!(admin.get("/healthz").status, 200);
    // It is closed without an answer that nobody has given.
    assert_eq!(Answer::read(first).status, 0);
}

#[test]
fn a_stop_lets_the_request_at_hand_end() {
    let mut admin = Admin::start(UNHURRIED);
    let address = admin.address();
    let idle = admin.connect();
    let mut busy = admin.connect();
    busy.write_all(b"POST /reload HTTP/1.1\r\nstaterouter-request: 1\r\n\r\n")
        .unwrap();
    let Some(ControlCommand::Reload(reload)) = admin.control.commands.blocking_recv() else {
        unreachable!("nothing else was asked");
    };
    let server = admin.server;
    let stopping = thread::spawn(move || server.stop());
    wait_until("it no longer listens", || {
        TcpStream::connect(address).is_err()
    });
    reload.send(outcome(ReloadResult::Unchanged, 8)).unwrap();
    assert_eq!(Answer::read(busy).json()["map_version"], 8);
    assert_eq!(Answer::read(idle).status, 0);
    stopping.join().unwrap();
}

#[test]
fn peers_are_asked_and_their_answers_passed_on() {
    let peer = Admin::start(UNHURRIED);
    // One that is there and one that is not, by a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let mut admin = Admin::with_peers(&[nobody, peer.address()], UNHURRIED);
    let failure = admin.news_of(0).unwrap_err();
    assert!(failure.starts_with("cannot connect: "), "{failure}");
    // Again and again.
    for _ in 0..2 {
        assert_eq!(read_report(&admin.news_of(1).unwrap()).map_version, 3);
    }
    peer.server.stop();
    while admin.news_of(1).is_ok() {}
}

#[test]
fn a_peer_that_is_none_costs_a_failure_and_no_memory() {
    let answering = |answer: String| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Whoever asks may have left.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        address
    };
    let long = "x".repeat(5 << 20);
    let peers = [
        answering("SSH-2.0-OpenSSH\r\n".to_owned()),
        answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
        answering(format!("HTTP/1.1 200 OK\r\n\r\n{long}")),
        answering(format!("HTTP/1.1 200 OK\r\na: {long}\r\n\r\n")),
    ];
    let mut admin = Admin::with_peers(&peers, UNHURRIED);
    for (index, wanted) in [
        (0, "no HTTP answer: "),
        (1, "it answered 404"),
        (2, "its answer is longer than 4194304 bytes"),
        (3, "no HTTP answer: "),
    ] {
        let failure = admin.news_of(index).unwrap_err();
        assert!(failure.starts_with(wanted), "{index}: {failure}");
    }
    let peers = [
        answering(String::new()),
        answering("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nabc".to_owned()),
    ];
    let mut admin = Admin::with_peers(
        &peers,
        AdminOptions {
            ask_timeout: HURRIED,
            ..UNHURRIED
        },
    );
    for index in [0, 1] {
        let failure = admin.news_of(index).unwrap_err();
        let late = ["no answer within 20 ms", "cannot connect in time"];
        assert!(late.contains(&&*failure), "{index}: {failure}");
    }
}

impl Admin {
    /// What is told of a peer next.
    fn news_of(&mut self, wanted: usize) -> Result<Vec<u8>, String> {
        let wanted = &self.peers[wanted];
        loop {
            match self.control.commands.blocking_recv() {
                Some(ControlCommand::Peer(news)) if news.address == *wanted => {
                    return news.answer;
                }
                Some(ControlCommand::Peer(_)) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }
}
