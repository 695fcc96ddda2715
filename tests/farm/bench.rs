//! `staterouter bench` as an operator runs it: through real proxies, over real state servers.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::support::system::{hold_address, hold_port, wait_until};
use crate::support::{Program, proxy, run};
use serde_json::{Map, Value};
use staterouter::farm::checker::ViolationKind;

#[test]
fn a_bench_through_the_proxy_finds_nothing_wrong_and_every_server_has_its_share() {
    let servers = three_servers();
    let proxy = proxy(&addresses(&servers), "");
    let report = clean_report(&["--target", &proxy.address.to_string(), "--pages", "3000"]);
    assert_shape(&report);
    assert_eq!(report["pages"], 3000);
    assert_eq!(report["failures"], Value::Object(Map::new()));
    assert_eq!(report["worst_lag_ms"], Value::Null);
    assert!(number(&report["new_sessions"]) > 0, "{report}");
    assert_eq!(report["session_starts"], report["new_sessions"], "{report}");
    assert_eq!(report["bad_seconds"], Value::Array(Vec::new()));
    assert_eq!(report["first_failed_page_ms"], Value::Null);
    assert!(
        number(&report["operation_latency"]["remove"]["count"]) > 0,
        "nobody abandoned a session: {report}"
    );
    assert!(number(&report["sweep"]["read"]) > 900, "{report}");

    drop(proxy);
    let sessions = servers.map(stop_and_count_sessions);
    let third = sessions.iter().sum::<u64>() as f64 / 3.0;
    for count in sessions {
        let share = count as f64 / third;
        assert!((0.7..=1.3).contains(&share), "{sessions:?}");
    }
}

#[test]
fn hundreds_of_clients_fighting_for_ten_sessions_get_no_wrong_answer() {
    let servers = three_servers();
    let proxy = proxy(&addresses(&servers), "");
    let target = proxy.address.to_string();
    let few_sessions = ["--sessions", "10", "--poll-interval", "5ms"];
    let many_clients = ["--target", &target, "--clients", "300", "--pages", "3000"];
    let report = clean_report(&[&many_clients[..], &few_sessions].concat());
    assert_eq!(report["pages"], 3000);
    assert_eq!(report["failures"], Value::Object(Map::new()));
    assert!(number(&report["lock_waits"]) > 0, "{report}");
}

#[test]
fn requests_that_alternate_between_two_proxies_get_no_wrong_answer() {
    let servers = three_servers();
    let proxies = [(); 2].map(|()| proxy(&addresses(&servers), ""));
    let [one, other] = proxies.each_ref().map(|proxy| proxy.address.to_string());
    let report = clean_report(&[
        "--target",
        &one,
        "--target",
        &other,
        "--sessions",
        "100",
        "--poll-interval",
        "5ms",
        "--pages",
        "2000",
    ]);
    assert_eq!(report["pages"], 2000);
    assert_eq!(report["failures"], Value::Object(Map::new()));
}

#[test]
fn an_open_loop_never_runs_ahead_of_its_rate_and_says_how_far_it_fell_behind() {
    const RATE: u64 = 500;
    let server = Program::state_server();
    let rate = RATE.to_string();
    let target = server.address.to_string();
    let open_loop = ["--target", &target, "--rate", &rate];

    let report = clean_report(&[&open_loop[..], &["--pages", "400"]].concat());
    assert_eq!(report["pages"], 400);
    assert!(report["worst_lag_ms"].is_u64(), "{report}");
    assert_never_ahead(&report, RATE);

    let report = clean_report(&[&open_loop[..], &["--duration", "1s"]].concat());
    assert!(number(&report["pages"]) > 0, "{report}");
    assert!(number(&report["elapsed_ms"]) >= 1000, "{report}");
    assert_never_ahead(&report, RATE);
}

/// The first page is due at once, page n after n / rate.
#[track_caller]
fn assert_never_ahead(report: &Value, rate: u64) {
    let last_due_ms = (number(&report["pages"]) - 1) * 1000 / rate;
    assert!(number(&report["elapsed_ms"]) >= last_due_ms, "{report}");
}

#[test]
fn sessions_that_died_with_their_server_are_counted_as_lost_and_nothing_else_is() {
    let (code, stdout) = bench_while_a_server_dies(&["--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(1), "{report:#}");
    assert_shape(&report);
    let counts = violations(&report);
    let found: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    assert_eq!(found.len(), 1, "{report:#}");
    assert!(counts["lost"] > 0, "{report:#}");
    let failures = report["failures"].as_object().unwrap();
    assert!(failures.values().map(number).sum::<u64>() > 0, "{report:#}");
    assert!(number(&report["failed_pages"]) > 0, "{report:#}");
    assert_eq!(
        sum(&report["bad_seconds"], "failed_pages"),
        number(&report["failed_pages"])
    );
    assert_eq!(sum(&report["bad_seconds"], "lost_sessions"), counts["lost"]);
    let example = &report["violations"]["lost"]["examples"][0];
    assert_eq!(example["session"].as_str().unwrap().len(), 8, "{report:#}");
}

#[test]
fn the_printed_report_names_losses_and_failures_apart() {
    let (code, stdout) = bench_while_a_server_dies(&[]);
    assert_eq!(code, Some(1), "{stdout}");
    let (before, wrong) = stdout.split_once("\nWRONG ANSWERS:\n").unwrap();
    let mut failures = before.lines().rev();
    let times = failures.next().unwrap();
    assert!(times.starts_with("pages failed from "), "{stdout}");
    let failures = failures.next().unwrap();
    assert!(failures.starts_with("failures ("), "{stdout}");
    assert!(failures.contains("closed "), "{stdout}");
    let kinds: Vec<&str> = wrong
        .lines()
        .filter(|line| !line.starts_with("    session "))
        .collect();
    assert_eq!(kinds.len(), 1, "{stdout}");
    let lost = kinds[0].strip_prefix("  lost: ").unwrap();
    assert!(lost.parse::<u64>().unwrap() > 0, "{stdout}");
    assert!(!stdout.contains("no wrong answers"), "{stdout}");
    assert!(!stdout.contains("no failures"), "{stdout}");
}

#[test]
fn losses_that_are_expected_are_no_failure() {
    let (code, stdout) = bench_while_a_server_dies(&["--expect-loss"]);
    assert_eq!(code, Some(0), "{stdout}");
    let (_, lost) = stdout.split_once("as expected: ").unwrap();
    assert!(lost.trim().parse::<u64>().unwrap() > 0, "{stdout}");
}

#[test]
fn a_bench_says_how_far_it_is_where_no_bar_can_move() {
    let server = Program::state_server();
    let target = server.address.to_string();
    let args = ["bench", "--target", &target, "--rate=20", "--sessions=10"];
    let (code, _, stderr) = run(&[&args[..], &["--duration=6s"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let line = stderr.lines().next().unwrap();
    assert!(
        line.contains(" s: ") && line.contains(" pages, 0 wrong answers"),
        "{stderr}"
    );
}

#[test]
fn a_target_where_nothing_listens_is_reported_in_one_line() {
    // Bound, so that nobody else listens there, but not listening.
    let (_port, target) = hold_port();
    let target = target.to_string();
    let (code, stdout, stderr) = run(&["bench", "--target", &target, "--json"]);
    assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&target), "{stderr}");
}

#[test]
fn options_that_make_no_sense_are_wrong_usage() {
    let nothing = "--mix=change=0,keep=0,read=0,touch=0,abandon=0";
    for (wrong, names) in [
        (nothing, "mix"),
        ("--clients=0", "client"),
        ("--sessions=0", "session"),
        ("--rate=0", "rate"),
        ("--body=9..1", "body"),
    ] {
        let (code, stdout, stderr) = run(&["bench", "--json", wrong]);
        assert_eq!((code, &*stdout), (Some(2), ""), "{wrong}: {stderr}");
        assert!(stderr.contains(names), "{wrong}: {stderr}");
    }
}

// Running it.

fn three_servers() -> [Program; 3] {
    [(); 3].map(|()| Program::state_server())
}

fn addresses(servers: &[Program; 3]) -> [SocketAddr; 3] {
    servers.each_ref().map(|server| server.address)
}

/// The report of `bench --json ARGS`, which must end with exit code 0, no wrong answer, a whole
/// final sweep, and nothing else on either stream.
#[track_caller]
fn clean_report(args: &[&str]) -> Value {
    // A lock that nobody gives back ends the test soon.
    let common = ["bench", "--json", "--execution-timeout", "10s"];
    let (code, stdout, stderr) = run(&[&common[..], args].concat());
    // A run that takes long says how it goes.
    let is_progress = |line: &str| line.ends_with(" pages, 0 wrong answers, 0 failures");
    let complaints: Vec<_> = stderr.lines().filter(|line| !is_progress(line)).collect();
    assert_eq!((code, complaints), (Some(0), Vec::new()), "{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let wrong: u64 = violations(&report).values().sum();
    assert_eq!(wrong, 0, "{report:#}");
    assert_eq!(report["sweep"]["unread"], 0, "{report:#}");
    report
}

/// Ends a state server and returns how many sessions it says it had.
fn stop_and_count_sessions(server: Program) -> u64 {
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let last = log.lines().find(|line| line.contains("stopping")).unwrap();
    let mut words = last.split_whitespace();
    let sessions = words.find_map(|word| word.strip_prefix("sessions="));
    sessions.unwrap().parse().unwrap()
}

/// Runs `bench EXTRA` through a proxy over three servers, kills one of them once all users have
/// come, starts it anew after the first failure, and ends the bench with Ctrl-C some pages later.
/// Returns the exit code and stdout.
fn bench_while_a_server_dies(extra: &[&str]) -> (Option<i32>, String) {
    const SESSIONS: u64 = 200;
    const BODY_BYTES: u64 = 2048;
    let [first, killed, third] = three_servers();
    let address = killed.address;
    let proxy = proxy(&[first.address, address, third.address], "");
    let traffic = forward_to(proxy.address);
    let bench = Bench::start(traffic.address, SESSIONS, BODY_BYTES, extra);

    // More than all users' first pages can have sent: each stores its session at most once.
    traffic.wait_for_more_bytes(2 * SESSIONS * BODY_BYTES);
    let _port = hold_address(address);
    killed.kill();
    // The proxy closes the connection of a request that failed, and the bench opens another one.
    traffic.wait_for_more_connections(1);
    let text = address.to_string();
    let _back = Program::start(&["state-server", "--listen", &text, "--workers", "1"]);
    traffic.wait_for_more_bytes(2 * SESSIONS * BODY_BYTES);
    bench.interrupt()
}

/// A bench under way, killed when dropped.
struct Bench {
    child: Child,
}

impl Bench {
    fn start(target: SocketAddr, sessions: u64, body_bytes: u64, extra: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staterouter"));
        command
            .args(["bench", "--clients=16", "--duration=10m"])
            .args(["--poll-interval=5ms", "--target"])
            .arg(target.to_string())
            .arg(format!("--sessions={sessions}"))
            .arg(format!("--body={body_bytes}"))
            .args(extra)
            .stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        Self { child }
    }

    /// Presses Ctrl-C and waits for the end.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-INT", &pid]).status();
        assert!(kill.unwrap().success());
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().unwrap();
        pipe.read_to_string(&mut stdout).unwrap();
        (self.child.wait().unwrap().code(), stdout)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What went through a forwarder: the only view of a bench under way that a test has.
struct Traffic {
    address: SocketAddr,
    counts: Arc<TrafficCounts>,
}

#[derive(Default)]
struct TrafficCounts {
    connections: AtomicU64,
    request_bytes: AtomicU64,
}

impl Traffic {
    fn wait_for_more_bytes(&self, bytes: u64) {
        wait_for_more(&self.counts.request_bytes, bytes);
    }

    fn wait_for_more_connections(&self, connections: u64) {
        wait_for_more(&self.counts.connections, connections);
    }
}

fn wait_for_more(counter: &AtomicU64, more: u64) {
    let wanted = counter.load(Ordering::Relaxed) + more;
    wait_until("the bench goes on", || {
        counter.load(Ordering::Relaxed) >= wanted
    });
}

/// Passes connections on to `target` until the test process ends.
fn forward_to(target: SocketAddr) -> Traffic {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(TrafficCounts::default());
    let theirs = Arc::clone(&counts);
    thread::spawn(move || {
        for client in listener.incoming() {
            theirs.connections.fetch_add(1, Ordering::Relaxed);
            let client = client.unwrap();
            // Only when the test is over, and its proxy gone.
            let Ok(server) = TcpStream::connect(target) else {
                return;
            };
            let (answers, answered) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let counts = Arc::clone(&theirs);
            thread::spawn(move || pass_on(client, server, &counts.request_bytes));
            thread::spawn(move || pass_on(answers, answered, &AtomicU64::new(0)));
        }
    });
    Traffic { address, counts }
}

/// Copies until either end is gone; then both are.
fn pass_on(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

// Reading its report.

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The sum of one field over a list of objects.
#[track_caller]
fn sum(list: &Value, field: &str) -> u64 {
    let list = list.as_array().unwrap().iter();
    list.map(|object| number(&object[field])).sum()
}

fn violations(report: &Value) -> BTreeMap<&str, u64> {
    let all = report["violations"].as_object().unwrap();
    all.iter()
        .map(|(kind, finding)| (kind.as_str(), number(&finding["count"])))
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Everything that scripts may look for is there, with the types they may rely on.
#[track_caller]
fn assert_shape(report: &Value) {
    for count in [
        "seed",
        "elapsed_ms",
        "pages",
        "failed_pages",
        "unfinished_pages",
        "operations",
        "new_sessions",
        "session_starts",
        "takeovers",
        "lock_waits",
    ] {
        assert!(report[count].is_u64(), "{count}: {report:#}");
    }
    for rate in ["pages_per_s", "operations_per_s"] {
        assert!(report[rate].as_f64().unwrap() > 0.0, "{rate}: {report:#}");
    }
    assert_latency(&report["page_latency"]);
    assert_latency(&report["begun_page_latency"]);
    let ended = number(&report["page_latency"]["count"]);
    let begun = number(&report["begun_page_latency"]["count"]);
    assert_eq!(begun, ended + number(&report["unfinished_pages"]));
    let operations = ["acquire", "get", "put", "release", "remove", "touch"];
    assert_eq!(keys(&report["operation_latency"]), operations);
    for operation in operations {
        assert_latency(&report["operation_latency"][operation]);
    }
    let mut kinds = ViolationKind::ALL.map(ViolationKind::name);
    kinds.sort_unstable();
    assert_eq!(keys(&report["violations"]), kinds);
    assert_eq!(keys(&report["sweep"]), ["read", "unread"]);
}

#[track_caller]
fn assert_latency(latency: &Value) {
    assert!(number(&latency["count"]) > 0, "{latency}");
    let ascending = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"];
    let times = ascending.map(|percentile| number(&latency[percentile]));
    assert!(times.is_sorted(), "{latency}");
    let mean = number(&latency["mean_us"]);
    assert!(mean > 0 && mean <= times[4], "{latency}");
}
