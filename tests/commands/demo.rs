//! `staterouter demo` as somebody meets it who has just built the program.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::run;

const FREE_PORT: &str = "127.0.0.1:0";

/// What the demo ends with when all went well.
const ALL_WELL: &str = "0 wrong answers, 0 failed requests";

#[test]
fn it_runs_by_itself_and_ends_with_what_it_found() {
    let (code, stdout, _) = run(&["demo", "--seconds", "1", "--listen", FREE_PORT]);
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(stdout.lines().last(), Some(ALL_WELL), "{stdout}");
    let mut addresses = vec![address_of("proxy", &stdout)];
    addresses.extend(["state-a", "state-b", "state-c"].map(|name| address_of(name, &stdout)));
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4, "{stdout}");
    assert!(!stdout.contains("is taken"), "{stdout}");

    let pages = stdout.lines().find(|line| line.contains("median page"));
    let pages = pages.unwrap().split_once(" pages,").unwrap().0;
    assert!(pages.parse::<u64>().unwrap() > 0, "{stdout}");
    let sessions = stdout.lines().rfind(|line| line.starts_with("sessions: "));
    let sessions = sessions.unwrap().strip_prefix("sessions: ").unwrap();
    let counts: Vec<u64> = sessions
        .split(", ")
        .map(|server| server.split_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(
        counts.len() == 3 && counts.iter().all(|&count| count > 0),
        "{stdout}"
    );
}

#[test]
fn a_taken_port_is_named_and_another_one_is_found() {
    let taken = TcpListener::bind(FREE_PORT).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let demo = Demo::start(&["--listen", &taken.1.to_string()]);
    let proxy = demo.proxy();
    assert_ne!(proxy, taken.1);
    TcpStream::connect(proxy).unwrap();
    let notice = format!("{} is taken", taken.1);
    assert!(demo.introduction.contains(&notice), "{}", demo.introduction);
    assert_ends_well(demo.interrupt());
}

#[test]
fn ctrl_c_ends_it_in_order_with_the_summary() {
    let demo = Demo::start(&["--listen", FREE_PORT]);
    let proxy = demo.proxy();
    assert_ends_well(demo.interrupt());
    TcpStream::connect(proxy).unwrap_err();
}

#[test]
#[ignore = "takes the two minutes that the story lasts: CONTRIBUTING.md has the command"]
fn its_story_adds_a_server_takes_one_away_and_has_one_down_and_loses_no_session() {
    let mut demo = Demo::start(&["--listen", FREE_PORT, "--rate", "100", "--sessions", "100"]);
    let mut told = String::new();
    while !told.contains("That was all") {
        let read = demo.stdout.read_line(&mut told).unwrap();
        assert_ne!(read, 0, "{told}");
    }
    let scenes = [
        "A fourth server, state-d, is added",
        "state-d has its share",
        "state-a is drained",
        "state-a is empty",
        "state-b goes down",
        "state-b is started again",
    ];
    let at: Vec<_> = scenes.iter().map(|scene| told.find(scene)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{told}");
    let (code, rest) = demo.interrupt();
    // Pages waited while a server was down. Those that it was answering may have failed.
    let last = rest.lines().last().unwrap();
    assert!(last.starts_with("0 wrong answers, "), "{rest}");
    assert_eq!(code, Some(0), "{rest}");
    let sessions = rest.lines().rfind(|line| line.starts_with("sessions: "));
    let sessions = sessions.unwrap();
    assert!(
        !sessions.contains("state-a") && sessions.contains("state-d"),
        "{rest}"
    );
}

#[test]
fn the_commands_it_suggests_work_as_printed() {
    let demo = Demo::start(&["--listen", FREE_PORT]);
    let suggested: Vec<&str> = demo
        .introduction
        .lines()
        .filter(|line| line.contains(" bench "))
        .collect();
    assert_eq!(suggested.len(), 2, "{}", demo.introduction);
    for line in suggested {
        let shell = Command::new("sh")
            .args(["-c", &format!("{line} --pages 200")])
            .output()
            .unwrap();
        let stdout = String::from_utf8(shell.stdout).unwrap();
        assert_eq!(shell.status.code(), Some(0), "{line}: {stdout}");
        assert!(
            stdout.starts_with("200 pages (0 failed) in "),
            "{line}: {stdout}"
        );
        assert!(stdout.ends_with("no wrong answers\n"), "{line}: {stdout}");
    }
    assert_ends_well(demo.interrupt());
}

#[test]
fn options_that_make_no_sense_are_wrong_usage() {
    for (wrong, names) in [
        ("--rate=0", "rate"),
        ("--rate=NaN", "rate"),
        ("--rate=inf", "rate"),
        ("--sessions=0", "session"),
        ("--sessions=99999999999", "sessions"),
    ] {
        let (code, stdout, stderr) = run(&["demo", "--seconds=1", "--listen", FREE_PORT, wrong]);
        assert_eq!((code, &*stdout), (Some(2), ""), "{wrong}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{wrong}: {stderr}");
        assert!(stderr.contains(names), "{wrong}: {stderr}");
    }
}

/// A demo under way, killed when dropped.
struct Demo {
    child: Child,
    stdout: BufReader<ChildStdout>,
    introduction: String,
}

impl Demo {
    /// Starts `demo ARGS` and reads its introduction.
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_staterouter"))
            .arg("demo")
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let introduction = String::new();
        let mut demo = Self {
            child,
            stdout,
            introduction,
        };
        while !demo.introduction.ends_with("Ctrl-C ends the demo.\n") {
            let read = demo.stdout.read_line(&mut demo.introduction).unwrap();
            assert_ne!(read, 0, "{}", demo.introduction);
        }
        demo
    }

    fn proxy(&self) -> SocketAddr {
        address_of("proxy", &self.introduction)
    }

    /// Presses Ctrl-C; returns the exit code and the rest of stdout.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-INT", &pid]).status();
        assert!(kill.unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_ends_well((code, stdout): (Option<i32>, String)) {
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains(" median page "), "{stdout}");
    assert_eq!(stdout.lines().last(), Some(ALL_WELL), "{stdout}");
}

/// The address after `name` on its own line of the introduction.
fn address_of(name: &str, text: &str) -> SocketAddr {
    let mut lines = text.lines().map(str::split_whitespace);
    let address =
        lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()).flatten());
    address.unwrap().parse().unwrap()
}
