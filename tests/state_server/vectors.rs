//! The conformance suite, which carries every fixture of the protocol, over real sockets: against a
//! state server directly, and through the proxy in front of three of them. Both must do what is
//! described, but that the proxy tags lock cookies. And against servers with a fault: it is named.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use staterouter::conformance::{
    self, CheckReport, ConformanceOptions, ConformanceReport, SuiteStop, Verdict, all_checks,
};

use crate::broken::{self, Broken};
use crate::support::certificates::Authority;
use crate::support::system::wait_up_to;
use crate::support::{PATIENCE, Program, ProxyFiles, admin, run, start};

/// Those of the thorough checks that take no minutes.
const QUICK: [&str; 9] = [
    "pipelined",
    "timeout-zero",
    "body-empty",
    "body-limit",
    "head-long",
    "bare-line-feed",
    "two-lengths",
    "chunked",
    "get-with-body",
];

fn options(target: SocketAddr) -> ConformanceOptions {
    ConformanceOptions {
        target,
        tls: None,
        rate_per_s: 10_000,
        answer_timeout: Duration::from_secs(30),
        thorough: false,
        only: Vec::new(),
        stop: SuiteStop::default(),
    }
}

fn suite(target: SocketAddr) -> ConformanceReport {
    conformance::run(&options(target), &mut |_| {}).unwrap()
}

fn state_server_with_admin() -> Program {
    let listen = ["state-server", "--listen", "127.0.0.1:0"];
    Program::start(&[&listen[..], &["--admin", "127.0.0.1:0"]].concat())
}

/// How many sessions the server holds.
fn sessions(server: &Program) -> u64 {
    let status = admin::status(server.admin());
    status["sessions"].as_u64().unwrap()
}

fn proxy() -> (Program, [Program; 3]) {
    let backends: [Program; 3] = std::array::from_fn(|_| Program::state_server());
    let addresses = backends.each_ref().map(|backend| backend.address);
    (ProxyFiles::new(&addresses, "").serve(), backends)
}

/// All checks but the thorough ones, each as described but for the open questions.
#[track_caller]
fn assert_conforms(report: &ConformanceReport) {
    let quick = all_checks().filter(|check| !check.is_thorough);
    assert!(report.checks.len() >= 65, "{}", report.checks.len());
    assert_eq!(report.checks.len(), quick.count());
    let is_fine = |verdict| matches!(verdict, Verdict::AsDescribed | Verdict::Observed);
    let wrong = report.checks.iter().find(|check| !is_fine(check.verdict));
    assert_eq!(wrong, None);
    assert_eq!(report.spelling, []);
    assert_eq!(report.left_behind, 0);
}

fn check<'a>(report: &'a ConformanceReport, id: &str) -> &'a CheckReport {
    let mut checks = report.checks.iter();
    checks.find(|check| check.id == id).unwrap()
}

#[test]
fn the_suite_holds_against_the_state_server() {
    let server = Program::state_server();
    let report = suite(server.address);
    assert_conforms(&report);
    assert!(!report.proxy);
    assert_eq!(check(&report, "first-lock").verdict, Verdict::AsDescribed);
}

#[test]
fn the_suite_holds_through_the_proxy() {
    let (proxy, _backends) = proxy();
    let report = suite(proxy.address);
    assert_conforms(&report);
    assert!(report.proxy);
    let first_lock = &check(&report, "first-lock").findings;
    assert!(first_lock[0].contains("of backend "), "{first_lock:?}");
}

#[test]
fn the_suite_holds_over_tls_and_says_why_a_server_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
    let stranger = Authority::new();
    stranger.write(folder.path());
    std::fs::rename(at("ca.pem"), at("stranger.pem")).unwrap();
    let authority = Authority::new();
    authority.write(folder.path());
    authority.issue(folder.path(), "server", "state-1.example");
    authority.issue(folder.path(), "client", "client.example");
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(at);
    let tls = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    let listen = ["state-server", "--listen", "127.0.0.1:0"];
    let server = Program::start(&[&listen[..], &tls].concat());
    let address = server.address.to_string();
    let suite = |trusted: &str, name: &[&str]| {
        let (ca, cert, key) = (at(trusted), at("client.pem"), at("client.key"));
        let target = ["conformance", "--target", &address, "--rate", "10000"];
        let tls = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
        run(&[&target[..], &tls, name].concat())
    };
    let name = ["--tls-name", "state-1.example"];
    let (code, text, error) = suite("ca.pem", &name);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{text}");
    assert!(text.contains("no difference that users"), "{text}");
    for (trusted, name, why) in [
        ("stranger.pem", &name[..], "UnknownIssuer"),
        ("ca.pem", &[], "not valid for name"),
    ] {
        let (code, _, error) = suite(trusted, name);
        assert_eq!(code, Some(3), "{error}");
        assert!(error.contains(&address) && error.contains(why), "{error}");
    }
}

#[test]
fn what_no_web_server_sends_has_the_same_answers_through_the_proxy() {
    let server = Program::state_server();
    let (proxy, _backends) = proxy();
    let findings = [server.address, proxy.address].map(|target| {
        let only = QUICK.map(str::to_owned).to_vec();
        let options = ConformanceOptions {
            only,
            ..options(target)
        };
        let report = conformance::run(&options, &mut |_| {}).unwrap();
        assert_eq!(report.left_behind, 0);
        let checks = report.checks.into_iter();
        checks
            .map(|check| (check.id, check.verdict, check.findings))
            .collect::<Vec<_>>()
    });
    assert_eq!(findings[0].len(), QUICK.len());
    assert_eq!(findings[0], findings[1]);
    let wrong = findings[0]
        .iter()
        .find(|found| found.1 != Verdict::Observed);
    assert_eq!(wrong, None);
}

#[test]
fn a_run_that_is_stopped_leaves_nothing_behind() {
    let server = state_server_with_admin();
    let options = options(server.address);
    let stop = options.stop.clone();
    // In the middle of it, with items stored and locked.
    let mut told = |check: &CheckReport| {
        if check.id == "vector-10" {
            stop.stop();
        }
    };
    let report = conformance::run(&options, &mut told).unwrap();
    assert!(report.stopped);
    assert_eq!(report.checks.len(), 10);
    assert_eq!(report.left_behind, 0);
    assert_eq!(sessions(&server), 0);

    let target = server.address.to_string();
    let args = ["conformance", "--target", &target, "--only", "sliding"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_staterouter"));
    let mut child = start(command.args(args).stdout(Stdio::piped()));
    let all_stored = || (sessions(&server) == 6).then_some(());
    wait_up_to(PATIENCE, all_stored).unwrap();
    let pid = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &pid]).status();
    assert!(kill.unwrap().success());
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("stopped before the end"), "{said}");
    assert_eq!(sessions(&server), 0);
}

/// Each fault is named in words, by the checks that are about it, and what has nothing to do with it
/// is as described.
#[test]
fn every_fault_of_a_broken_server_is_named() {
    for (broken, names, by, unharmed) in [
        (
            Broken::KeepsFlag,
            "does not clear the flag: Session_Start runs again",
            "flag-once",
            "lock-race",
        ),
        (
            Broken::TakesAnyCookie,
            "what the holder of the lock writes or reads is overwritten",
            "vector-19",
            "flag-once",
        ),
        (
            Broken::WideCookies,
            "have more than 24 bits",
            "lock-room",
            "flag-once",
        ),
    ] {
        let server = broken::start(broken);
        let report = suite(server.address);
        let found = check(&report, by);
        assert_eq!(found.verdict, Verdict::Differs, "{broken:?}: {found:?}");
        assert!(
            found.findings.iter().any(|text| text.contains(names)),
            "{broken:?}: {found:?}"
        );
        assert_eq!(
            check(&report, unharmed).verdict,
            Verdict::AsDescribed,
            "{broken:?}"
        );
        assert_eq!(report.left_behind, 0, "{broken:?}");
        server.stop();
    }
}

#[test]
fn a_server_that_sends_no_version_is_named_in_every_answer() {
    let server = Program::state_server();
    let report = suite(broken::without_version(server.address));
    let exchanges = report
        .checks
        .iter()
        .filter(|check| check.id.starts_with("vector-") || check.id.starts_with("scenario-"));
    for found in exchanges {
        // Where the real server's answer is not known, a difference is no fault.
        let is_open = found.findings.iter().any(|text| text.starts_with("open: "));
        assert!(is_open || found.verdict == Verdict::Differs, "{found:?}");
        assert!(
            found.findings[0].contains("no `X-AspNet-Version"),
            "{found:?}"
        );
    }
}

#[test]
fn the_command_says_what_it_found_and_leaves_nothing_behind() {
    let server = state_server_with_admin();
    let target = server.address.to_string();
    let args = ["conformance", "--rate", "10000", "--target", &target];
    let (code, text, error) = run(&args);
    assert_eq!((code, &*error), (Some(0), ""), "{text}");
    assert!(text.contains("by section of docs/protocol.md"), "{text}");
    assert!(
        text.contains("everything that was stored is removed again"),
        "{text}"
    );
    assert!(
        text.ends_with("no difference that users or the proxy notice\n"),
        "{text}"
    );
    assert_eq!(sessions(&server), 0);

    let broken = broken::start(Broken::TakesAnyCookie);
    let target = broken.address.to_string();
    let args = [
        "conformance",
        "--rate",
        "10000",
        "--json",
        "--target",
        &target,
    ];
    let (code, json, error) = run(&args);
    assert_eq!((code, &*error), (Some(1), ""), "{json}");
    let report: Value = serde_json::from_str(&json).unwrap();
    let mut checks = report["checks"].as_array().unwrap().iter();
    let late_write = checks.find(|check| check["id"] == "vector-19").unwrap();
    assert_eq!(late_write["verdict"], "differs", "{late_write}");
    assert_eq!(late_write["section"], "5.3", "{late_write}");
    broken.stop();
}

#[test]
fn what_is_no_state_server_gets_one_head_and_nothing_more() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let web_server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut client, _) = listener.accept().unwrap();
        client
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        heard
    });
    let (code, _, error) = run(&["conformance", "--target", &target]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("is no state server"), "{error}");
    let heard = web_server.join().unwrap();
    assert!(
        heard.starts_with("HEAD %2fstaterouter%2fconformance("),
        "{heard}"
    );
    assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");

    let (code, _, error) = run(&["conformance", "--target", "127.0.0.1:1"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("took no connection"), "{error}");
    let (code, _, error) = run(&["conformance", "--target", &target, "--only", "vector-99"]);
    assert_eq!(code, Some(2), "{error}");
}
