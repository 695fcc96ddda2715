//! What the end-to-end tests share: real processes, raw clients, scripted backends.
//!
//! Everything listens on ports the system chooses, on loopback, and ends with the test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot set up its scene must fail and say why"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of this"
)]

pub mod admin;
pub mod answers;
pub mod backend;
pub mod browser;
pub mod certificates;
pub mod client;
pub mod hosts;
pub mod metrics;
pub mod operations;
pub mod relay;
pub mod scene;
pub mod sessions;
pub mod shim;
pub mod slots;
pub mod system;
pub mod tags;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hosts::Hosts;
use tempfile::TempDir;

/// No sign of it after this long is a failure of the test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `staterouter`, killed when dropped.
pub struct Program {
    child: Child,
    /// Where it listens, from the line it prints once it does.
    pub address: SocketAddr,
    stdout: Mutex<BufReader<ChildStdout>>,
    admin: OnceLock<SocketAddr>,
    stderr: Option<JoinHandle<String>>,
    log: Arc<Log>,
    _files: Option<TempDir>,
}

impl Program {
    /// Starts `staterouter ARGS` and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, None)
    }

    fn start_with(args: &[&str], files: Option<TempDir>) -> Self {
        let program = std::env::var_os("STATEROUTER_PROGRAM");
        let program = program.unwrap_or_else(|| PROGRAM.into());
        Self::start_as(Command::new(program), args, files)
    }

    fn start_as(command: Command, args: &[&str], files: Option<TempDir>) -> Self {
        let mut child = spawn(command, args);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let follow = Arc::clone(&log);
        let stderr = std::thread::spawn(move || follow.read(stderr));
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let said = message_of(&line);
        let Some(address) = said.strip_prefix("listening on ") else {
            let _ = child.kill();
            panic!(
                "{args:?} said {line:?} instead of where it listens: {}",
                stderr.join().unwrap()
            );
        };
        let address = address.parse().unwrap();
        Self {
            child,
            address,
            stdout: Mutex::new(stdout),
            admin: OnceLock::new(),
            stderr: Some(stderr),
            log,
            _files: files,
        }
    }

    /// The same from a shell that has run `limits` before.
    pub fn start_limited(limits: &str, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let line = format!("{limits}; exec '{PROGRAM}' \"$@\"");
        command.args(["-c", &line, "sh"]);
        Self::start_as(command, args, None)
    }

    /// A state server with default settings.
    pub fn state_server() -> Self {
        Self::start(&["state-server", "--listen", "127.0.0.1:0", "--workers", "1"])
    }

    /// Where its admin server listens, from the second line it prints.
    pub fn admin(&self) -> SocketAddr {
        *self.admin.get_or_init(|| {
            let mut line = String::new();
            self.stdout.lock().unwrap().read_line(&mut line).unwrap();
            let line = message_of(&line);
            let address = line.strip_prefix("admin on ");
            address
                .unwrap_or_else(|| panic!("{line:?}"))
                .parse()
                .unwrap()
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, as `kill -NAME` does.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let mut kill = start(Command::new("kill").args([&format!("-{name}"), &pid]));
        assert!(kill.wait().unwrap().success());
        if name == "STOP" {
            // It goes on for a moment: each of its threads stops when its processor hears of it.
            system::wait_until("all threads have stopped", || self.has_stopped());
        }
    }

    fn has_stopped(&self) -> bool {
        let threads = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(threads).unwrap().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            // The name before the state stands in brackets, and may have some of its own.
            stat.rsplit_once(')')
                .is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
        })
    }

    /// Waits until a line of the log makes `wanted` true; returns the log up to there.
    pub fn wait_for_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_long_for_log(PATIENCE, wanted)
    }

    /// The same with another patience.
    pub fn wait_long_for_log(&self, patience: Duration, wanted: impl Fn(&str) -> bool) -> String {
        self.log.wait_for(patience, wanted)
    }

    /// The log so far.
    pub fn logged(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    /// Waits for the end of the process; returns how it ended and what it logged.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.take().unwrap().join().unwrap())
    }

    /// Kills the process at once (SIGKILL); log lines not yet written are lost.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// Ends the process in good order (SIGTERM) and returns all it logged.
    pub fn stop(self) -> String {
        self.signal("TERM");
        self.wait().1
    }
}

/// What a server says on a line of stdout, in either format of its log.
fn message_of(line: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => line["fields"]["message"].as_str().unwrap().to_owned(),
        Err(_) => line.trim().to_owned(),
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(stderr) = self.stderr.take()
            && let Ok(log) = stderr.join()
        {
            eprintln!("{} ended as {ended:?} and logged:\n{log}", self.address);
        }
    }
}

/// What a process has logged so far.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Log {
    /// Follows `stderr` to its end and returns all of it.
    fn read(&self, stderr: impl BufRead) -> String {
        for line in stderr.lines() {
            let mut text = self.text.lock().unwrap();
            text.push_str(&line.unwrap());
            text.push('\n');
            self.grown.notify_all();
        }
        self.text.lock().unwrap().clone()
    }

    fn wait_for(&self, patience: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let text = self.text.lock().unwrap();
        let missing = |text: &mut String| !text.lines().any(&wanted);
        let (text, waited) = self
            .grown
            .wait_timeout_while(text, patience, missing)
            .unwrap();
        let logged = text.clone();
        drop(text);
        assert!(!waited.timed_out(), "not logged; the log is {logged}");
        logged
    }
}

/// A proxy's configuration; `extra` is YAML that is appended to the main file.
pub struct ProxyFiles {
    directory: TempDir,
}

impl ProxyFiles {
    /// A proxy on a free port over `backends`, named `state-1`, `state-2` and so on, with the ids
    /// 1, 2 and so on.
    pub fn new(backends: &[impl std::fmt::Display], extra: &str) -> Self {
        let backends: Vec<_> = (1..).zip(backends).collect();
        Self::with_ids(&backends, extra)
    }

    /// The same with other ids.
    pub fn with_ids(backends: &[(u8, impl std::fmt::Display)], extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut map = String::from("version: 1\nbackends:\n");
        for (number, (id, address)) in (1..).zip(backends) {
            map += &format!("  - {{name: state-{number}, id: {id}, address: \"{address}\"}}\n");
        }
        let mut main =
            format!("listen: 127.0.0.1:0\npartition_map: map.yaml\nworkers: 2\n{extra}\n");
        if !extra.contains("admin:") {
            // The default port belongs to one proxy only.
            main += "admin: {listen: \"127.0.0.1:0\"}\n";
        }
        if !extra.contains("health:") {
            // A test that makes a backend fail wants it to be asked again.
            main += "health: {interval: 1h, fall: 100}\n";
        }
        std::fs::write(directory.path().join("map.yaml"), map).unwrap();
        std::fs::write(directory.path().join("staterouter.yaml"), main).unwrap();
        Self { directory }
    }

    /// Path of the main file.
    pub fn config(&self) -> String {
        self.path("staterouter.yaml")
    }

    /// Path of a file.
    pub fn path(&self, file: &str) -> String {
        let path = self.directory.path().join(file);
        path.to_str().unwrap().to_owned()
    }

    /// Puts `text` in the place of a file, as a deployment tool does: all at once.
    pub fn replace(&self, file: &str, text: &str) {
        let next = self.directory.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.directory.path().join(file)).unwrap();
    }

    /// The content of a file.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(file)).unwrap()
    }

    /// The first map with a third backend.
    pub fn map_with_third(&self, address: SocketAddr) -> String {
        let map = self.read("map.yaml").replace("version: 1", "version: 2");
        format!("{map}  - {{name: state-3, id: 3, address: \"{address}\"}}\n")
    }

    /// Starts the proxy and keeps the files.
    pub fn start(&self) -> Program {
        Program::start(&["serve", "--config", &self.config()])
    }

    /// The same with host names of its own.
    pub fn start_knowing(&self, hosts: &Hosts) -> Program {
        let args = ["serve", "--config", &self.config()];
        Program::start_as(hosts.command(PROGRAM), &args, None)
    }

    /// Starts the proxy.
    pub fn serve(self) -> Program {
        let config = self.config();
        Program::start_with(&["serve", "--config", &config], Some(self.directory))
    }
}

/// A proxy over `backends` with `extra` YAML in its main file.
pub fn proxy(backends: &[SocketAddr], extra: &str) -> Program {
    ProxyFiles::new(backends, extra).serve()
}

static STARTING_CHILD: Mutex<()> = Mutex::new(());

/// While the guard lives no test of this process starts a child. A child holds copies of all our
/// sockets until it has become another program, and a socket closes with its last copy.
fn no_child_is_starting() -> MutexGuard<'static, ()> {
    let guard = STARTING_CHILD.lock();
    guard.unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child; when this returns it has become its program.
pub fn start(command: &mut Command) -> Child {
    let _only_one = no_child_is_starting();
    command.spawn().unwrap()
}

/// What is tested, unless another build of it is named in the environment (.ci/windows/run).
const PROGRAM: &str = env!("CARGO_BIN_EXE_staterouter");

fn spawn(mut command: Command, args: &[&str]) -> Child {
    start(
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
}

/// Runs `staterouter ARGS` to its end: exit code, stdout, stderr.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = spawn(Command::new(PROGRAM), args)
        .wait_with_output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
