//! The commands as an operator runs them: exit codes, output, signals.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::support::answers::{BAD_REQUEST, DONE};
use crate::support::backend::{ABSENT, Backend};
use crate::support::client::{Client, body, get, put, target};
use crate::support::system::{has_ended, wait_until};
use crate::support::{Program, ProxyFiles, proxy, run};
use staterouter::config::{application_hash, derived_backend_id};
use tempfile::TempDir;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

const MAP: &str = "version: 7
backends:
  - {name: state-a, id: 1, address: \"127.0.0.1:1\"}
  - {name: state-b, address: \"127.0.0.1:2\"}
  - {name: state-c, address: \"127.0.0.1:3\", state: drain, capacity: {sessions: 9, memory: 2048MiB}}
";

/// A main file and its partition map, in a directory of their own.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new(main: &str, map: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("main.yaml"), main).unwrap();
        std::fs::write(directory.path().join("map.yaml"), map).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command over the main file.
    fn run(&self, command: &str) -> (Option<i32>, String, String) {
        run(&[command, "--config", &self.path("main.yaml")])
    }
}

/// The one line a command that could not run says, and nothing else on either stream.
fn only_reason((code, stdout, stderr): (Option<i32>, String, String)) -> String {
    assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
    let reason = stderr.strip_prefix("staterouter: ").unwrap();
    assert_eq!(reason.lines().count(), 1, "{stderr}");
    reason.to_owned()
}

#[test]
fn check_says_what_is_fine_and_which_ids_are_derived() {
    let files = Files::new("partition_map: map.yaml\n", MAP);
    let (code, stdout, stderr) = files.run("check");
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let derived = |name| {
        let id = derived_backend_id(name);
        format!("note: backend {name} has no id; {id} is derived from its name")
    };
    let expected = [
        format!("{}: fine", files.path("main.yaml")),
        format!(
            "{}: fine, version 7, backends: 3, 2 active",
            files.path("map.yaml")
        ),
        "state-c: capacity 9 sessions, 2GiB".to_owned(),
        derived("state-b"),
        derived("state-c"),
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn check_shows_every_fault_of_both_files_at_its_place() {
    let files = Files::new(
        "listen: nowhere\npartition_map: map.yaml\ntimeouts:\n  answer: 8\nwrokers: 2\n",
        "version: 0\nbackends:\n  - {name: a, id: 1, address: \"127.0.0.1:1\"}\n  - {name: a, id: 200, address: x}\n",
    );
    let (code, stdout, _) = files.run("check");
    assert_eq!(code, Some(1), "{stdout}");
    for (file, places) in [
        ("main.yaml", &["1:9", "4:11", "5:1"][..]),
        ("map.yaml", &["1:10", "4:12", "4:19", "4:33"]),
    ] {
        let prefix = format!("{}:", files.path(file));
        let found: Vec<&str> = stdout
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.split_once(": "))
            .map(|(place, _)| place)
            .collect();
        assert_eq!(found, places, "{stdout}");
    }
}

#[test]
fn check_faults_a_missing_map_and_cannot_run_without_a_main_file() {
    let files = Files::new("workers: 1\npartition_map: gone.yaml\n", "");
    let (code, stdout, _) = files.run("check");
    assert_eq!(code, Some(1));
    let place = format!("{}:2:16: ", files.path("main.yaml"));
    assert!(stdout.starts_with(&place), "{stdout}");
    assert!(stdout.contains("gone.yaml"), "{stdout}");

    let gone = files.path("gone.yaml");
    for command in [&["check"][..], &["serve"], &["route", ID]] {
        let reason = only_reason(run(&[command, &["--config", &gone]].concat()));
        assert!(reason.contains(&gone), "{reason}");
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["check"],
        &["check", "--no-such-flag"],
        &["route", "--config", "file-without-ids.yaml"],
        &["state-server", "--listen", "localhost"],
        &["state-server", "--max-memory", "12"],
        &["state-server", "--allow", "10.0.0.0/33"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert_eq!(stdout, "", "{arguments:?}");
        assert!(
            stderr.contains("Usage:") || stderr.contains("--help"),
            "{stderr}"
        );
    }
}

#[test]
fn route_names_the_backend_that_gets_the_request() {
    let backends = [(); 3].map(|()| Backend::start());
    let files = ProxyFiles::new(&backends.each_ref().map(|backend| backend.address), "");
    let config = files.config();
    let proxy = files.serve();
    let ids: Vec<String> = (0..12).map(|number| format!("{number:02}{ID}")).collect();
    let by_id: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (code, stdout, _) = run(&[&["route", "--config", &config], &by_id[..]].concat());
    assert_eq!(code, Some(0));

    let mut wanted = [(); 3].map(|()| BTreeSet::new());
    let mut clients = Vec::new();
    for (line, id) in stdout.lines().zip(&ids) {
        assert!(!line.contains(id), "{line}");
        assert!(line.starts_with(&id[..4]), "{line}");
        wanted[owner(line) - 1].insert(get(id));
        let mut client = Client::connect(proxy.address);
        client.send(&get(id));
        clients.push(client);
    }
    assert_eq!(clients.len(), ids.len(), "{stdout}");
    for (backend, wanted) in backends.iter().zip(wanted) {
        let accept = |request: &Vec<u8>| backend.accept().read(request.len());
        assert_eq!(wanted.iter().map(accept).collect::<BTreeSet<_>>(), wanted);
        backend.assert_nobody_connected();
    }
}

/// The number of the backend that `line` of the command's output gives a session to.
fn owner(line: &str) -> usize {
    let (_, behind) = line.split_once("state-").unwrap();
    behind.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn route_finds_the_session_in_a_whole_target() {
    let files = Files::new("partition_map: map.yaml\n", MAP);
    let config = files.path("main.yaml");
    let by_id = run(&["route", "--config", &config, ID]);
    let by_target = run(&["route", "--config", &config, "--target", &target(ID)]);
    assert_eq!(by_id, by_target);
    assert_eq!(by_id.0, Some(0));

    let targets = [&*target(""), &target(ID)];
    let (code, stdout, _) =
        run(&[&["route", "--config", &config, "--target"], &targets[..]].concat());
    assert_eq!(code, Some(1), "{stdout}");
    let (bad, good) = stdout.split_once('\n').unwrap();
    assert!(bad.contains("empty session id"), "{bad}");
    assert_eq!(good, by_id.1);
}

#[test]
fn route_says_under_which_id_a_target_is_sent_on() {
    let applications = "applications: [{name: shop, id: /LM/W3SVC/2/ROOT/Shop, \
                        also: [/LM/W3SVC/3/ROOT/Shop]}]\n";
    let files = Files::new(
        "partition_map: map.yaml\n",
        &format!("{MAP}\n{applications}"),
    );
    let config = files.path("main.yaml");
    let route = |app: &str, hash: &str| {
        let target = format!("/{app}({})/{ID}", hash.replace('+', "%2b"));
        let (code, line, _) = run(&["route", "--config", &config, &target]);
        assert_eq!(code, Some(0), "{line}");
        assert!(!line.contains(ID), "{line}");
        line
    };
    let hash = application_hash("/LM/W3SVC/2/ROOT/Shop");
    let other = application_hash("/LM/W3SVC/3/ROOT/Shop");
    let renamed = route("LM/W3SVC/3/ROOT/Shop", &other);
    let sent_on = format!("application shop, sent on as /LM/W3SVC/2/ROOT/Shop({hash})\n");
    assert!(renamed.ends_with(&sent_on), "{renamed}");
    let known = route("LM/W3SVC/2/ROOT/Shop", &hash);
    assert!(
        known.ends_with("application shop, sent on as it is\n"),
        "{known}"
    );
    let unknown = route("LM/W3SVC/4/ROOT/Shop", &other);
    assert!(!unknown.contains("application"), "{unknown}");
}

#[test]
fn route_takes_whatever_has_a_slash_for_a_whole_target() {
    let files = Files::new("partition_map: map.yaml\n", MAP);
    let config = files.path("main.yaml");
    let by_id = run(&["route", "--config", &config, ID]);
    let escaped = target(ID).replace('/', "%2F");
    for target in [target(ID), escaped] {
        assert_eq!(
            run(&["route", "--config", &config, &target]),
            by_id,
            "{target}"
        );
    }
}

#[test]
fn check_and_serve_warn_of_what_is_accepted_and_hardly_meant() {
    let map = "version: 1\nbackends:\n\
               - {name: state-1, id: 1, address: '127.0.0.1:1'}\n\
               - {name: state-2, id: 2, address: 'localhost:1'}\n\
               - {name: state-3, id: 3, address: 'state-3.invalid:1'}\n";
    let main = "listen: 0.0.0.0:0\nadmin: {listen: off}\nallow: [0.0.0.0/0]\n\
                partition_map: map.yaml\n";
    let files = Files::new(main, map);
    let (code, stdout, stderr) = files.run("check");
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let warned = [
        "main.yaml:3:8: `allow` lists 0.0.0.0/0, which lets every machine in",
        "map.yaml:1:1: there is no `hash_key`, so the default counts",
        "state-1 (127.0.0.1:1) and state-2 (localhost:1) are one server, 127.0.0.1:1",
        "the host name of backend state-3 (state-3.invalid:1) cannot be looked up",
    ];
    let warnings = stdout.lines().filter(|line| line.starts_with("warning: "));
    assert_eq!(warnings.count(), warned.len(), "{stdout}");
    for warning in warned {
        assert!(stdout.contains(warning), "{warning}: {stdout}");
    }
    let proxy = Program::start(&["serve", "--config", &files.path("main.yaml")]);
    for warning in warned {
        proxy.wait_for_log(|line| line.contains("WARN") && line.contains(warning));
    }
}

#[test]
fn serve_says_in_one_line_that_the_port_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Program::state_server();
    for taken in [listener.local_addr().unwrap(), running.address] {
        let files = Files::new(
            &format!("listen: {taken}\npartition_map: map.yaml\nlog: {{level: error}}\n"),
            MAP,
        );
        let reason = only_reason(files.run("serve"));
        assert!(reason.contains(&taken.to_string()), "{reason}");
        assert!(reason.contains("taken"), "{reason}");
        let address = taken.to_string();
        let arguments = ["state-server", "--log-level", "error", "--listen", &address];
        let reason = only_reason(run(&arguments));
        assert!(reason.contains("taken"), "{reason}");
    }
}

#[test]
fn nothing_listens_beyond_this_machine_without_a_list_of_who_may_connect() {
    let files = Files::new("listen: 0.0.0.0:0\npartition_map: map.yaml\n", MAP);
    let (code, stdout, stderr) = files.run("serve");
    assert_eq!((code, &*stdout), (Some(3), ""));
    let place = format!("{}:1:9: ", files.path("main.yaml"));
    assert!(
        stderr.contains(&place) && stderr.contains("`allow`"),
        "{stderr}"
    );
    assert_eq!(files.run("check").0, Some(1));

    let open = ["state-server", "--listen", "0.0.0.0:0"];
    let reason = only_reason(run(&open));
    assert!(reason.contains("--allow"), "{reason}");

    let server = Program::start(&[&open[..], &["--allow", "192.0.2.0/24"]].concat());
    let port = server.address.port();
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(client.ask(&get(ID)), ABSENT);
}

#[test]
fn a_full_state_server_refuses_new_sessions_only_and_says_so_in_few_words() {
    const REFUSALS: usize = 1_000;
    let server = Program::start(&[
        "state-server",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--max-memory",
        "1KiB",
    ]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&put(ID, 0, &[b'a'; 500])), DONE);
    client.send(&put("another", 0, &[b'b'; 500]).repeat(REFUSALS));
    for _ in 0..REFUSALS {
        assert_eq!(client.answer_to(false), BAD_REQUEST);
    }
    let larger = [b'c'; 2_000];
    assert_eq!(client.ask(&put(ID, 0, &larger)), DONE);
    assert_eq!(body(&client.ask(&get(ID))), larger);
    let log = server.stop();
    let warnings = log
        .lines()
        .filter(|line| line.contains("memory limit reached"))
        .count();
    assert!(warnings > 0, "{log}");
    assert!(warnings < REFUSALS / 10, "{warnings} lines");
    assert!(!log.contains("another"), "{log}");
}

/// Waits for the end of `program`; it must have been an orderly one. Returns the log.
fn ended(program: Program) -> String {
    wait_until("the process has ended", || has_ended(program.id()));
    let (status, log) = program.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

/// Nobody is accepted any more; each worker has a listener of its own.
fn wait_until_refused(address: SocketAddr) {
    wait_until("new connections are refused", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_signal_ends_idle_connections_and_lets_requests_in_flight_finish() {
    for signal in ["TERM", "INT"] {
        let backend = Backend::start();
        let proxy = proxy(&[backend.address], "");
        let store = put(ID, 2, &[b'x'; 300_000]);
        let mut waiting = Client::connect(proxy.address);
        waiting.send(&store[..200_000]);
        let mut slow = backend.accept();
        assert_eq!(slow.read(1000), store[..1000]);
        let mut idle = Client::connect(proxy.address);
        idle.send(&get(ID));
        backend.accept().expect(&get(ID), ABSENT);
        assert_eq!(idle.answer_to(false), ABSENT);
        let mut never_used = Client::connect(proxy.address);

        proxy.signal(signal);
        assert_eq!(idle.until_closed(), b"");
        assert_eq!(never_used.until_closed(), b"");
        wait_until_refused(proxy.address);
        waiting.send(&store[200_000..]);
        slow.expect(&store[1000..], DONE);
        assert_eq!(waiting.until_closed(), DONE);
        assert!(ended(proxy).contains("stopping"));
    }
}

#[test]
fn a_request_that_is_never_answered_does_not_hold_up_the_end() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "timeouts: {shutdown: 100ms}");
    let mut waiting = Client::connect(proxy.address);
    waiting.send(&get(ID));
    let mut connection = backend.accept();
    connection.expect(&get(ID), b"");
    proxy.signal("TERM");
    assert!(ended(proxy).contains("closing connections with requests in flight"));
    assert_eq!(waiting.until_closed(), b"");
    assert!(connection.is_closed());
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for signals in [["TERM", "TERM"], ["INT", "TERM"]] {
        let backend = Backend::start();
        let proxy = proxy(
            &[backend.address],
            "timeouts: {shutdown: 1h, answer: 1h}\nhandover: {settle: 2h, failover_after: 2h}",
        );
        let mut waiting = Client::connect(proxy.address);
        waiting.send(&get(ID));
        let mut connection = backend.accept();
        connection.expect(&get(ID), b"");
        proxy.signal(signals[0]);
        wait_until_refused(proxy.address);
        assert!(!has_ended(proxy.id()));
        proxy.signal(signals[1]);
        ended(proxy);
        assert_eq!(waiting.until_closed(), b"");
    }
}

#[test]
fn a_signal_ends_the_state_server() {
    for signal in ["TERM", "INT"] {
        let server = Program::state_server();
        let mut client = Client::connect(server.address);
        assert_eq!(client.ask(&put(ID, 0, b"body")), DONE);
        server.signal(signal);
        assert_eq!(client.until_closed(), b"");
        assert!(ended(server).contains("sessions=1"));
    }
}

/// Other servers reload on SIGHUP; an operator who sends it must not lose requests in flight.
#[test]
fn a_hangup_changes_nothing() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut connection = backend.accept();
    proxy.signal("HUP");
    connection.expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);
    client.send(&get(ID));
    connection.expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);
}

#[test]
fn a_result_that_is_lost_is_no_success() {
    let files = Files::new("partition_map: map.yaml\n", MAP);
    let main = files.path("main.yaml");
    for command in ["check", "route"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut lost = Command::new(env!("CARGO_BIN_EXE_staterouter"));
        lost.args([command, "--config", &main]).stdout(full);
        if command == "route" {
            lost.arg(ID);
        }
        let output = lost.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("cannot write the result"), "{stderr}");
    }
}

#[test]
fn signals_that_others_reopen_their_logs_with_do_no_harm() {
    let server = Program::state_server();
    let files = ProxyFiles::new(&[server.address], "");
    let proxy = files.start();
    for program in [&server, &proxy] {
        program.signal("USR1");
        program.signal("USR2");
    }
    let mut client = Client::connect(proxy.address);
    assert_eq!(client.ask(&put(ID, 0, b"state")), DONE);
    for program in [proxy, server] {
        program.signal("QUIT");
        let (status, log) = program.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopping"), "{log}");
    }
}
