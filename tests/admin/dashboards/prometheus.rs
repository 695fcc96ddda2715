//! Debian's Prometheus: its checker, and a server that scrapes one proxy and one state server and evaluates the rules.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use socket2::Socket;
use tempfile::TempDir;

use super::files;
use crate::support::system::{hold_port, wait_up_to};

/// No sign of it after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two scrapes, and between two evaluations of the rules.
const INTERVAL: &str = "500ms";

/// The label that all proxies of a farm share.
pub(crate) const JOB: &str = "staterouter";

/// Whether it is installed. Where all checks have to run, it must be.
pub(crate) fn is_here() -> bool {
    let mut command = Command::new("prometheus");
    let version = command.arg("--version").stdout(Stdio::null()).status();
    let is_here = version.is_ok_and(|status| status.success());
    assert!(
        is_here || std::env::var_os("CI").is_none(),
        "prometheus is missing: install Debian's package of that name"
    );
    is_here
}

/// What `promtool ARGS` says; it must succeed.
#[track_caller]
pub(crate) fn promtool(args: &[&str]) -> String {
    let output = Command::new("promtool").args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// A running server, killed when dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    server: Child,
    files: TempDir,
    since_s: f64,
    _port: Socket,
}

impl Prometheus {
    /// Scrapes `proxy` and `state_server` and evaluates the rules, alerts after a second. Returns once
    /// the first scrape is in.
    pub(crate) fn start(proxy: SocketAddr, state_server: SocketAddr) -> Self {
        let (port, address) = hold_port();
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("rules.yml"), quick_rules()).unwrap();
        let config = format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}, evaluation_interval: {INTERVAL}}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n  - {{job_name: {JOB}, static_configs: [{{targets: [\"{proxy}\"]}}]}}\n  \
             - {{job_name: state-servers, static_configs: [{{targets: [\"{state_server}\"]}}]}}\n"
        );
        fs::write(path("prometheus.yml"), config).unwrap();
        promtool(&["check", "config", &path("prometheus.yml")]);
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .stderr(log);
        let server = Self {
            address,
            server: crate::support::start(&mut command),
            files,
            since_s: now_s(),
            _port: port,
        };
        server.wait("the first scrape", || {
            server.has_data("staterouter_build_info")
        });
        server
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let found = wait_up_to(PATIENCE, || is_so().then_some(()));
        assert!(found.is_some(), "never came true: {what}; {}", self.log());
    }

    /// Whether an expression has given a number at any time since the start.
    ///
    /// # Panics
    /// If it is no expression.
    pub(crate) fn has_data(&self, expression: &str) -> bool {
        let (start, end) = (self.since_s, now_s());
        let query = encoded(expression);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=0.5");
        let Some(answer) = self.ask(&path) else {
            return false;
        };
        assert_eq!(answer["status"], "success", "{expression}: {answer:#}");
        let series = answer["data"]["result"].as_array().unwrap();
        let points = series
            .iter()
            .flat_map(|one| one["values"].as_array().unwrap());
        let mut numbers = points.map(|point| point[1].as_str().unwrap().parse::<f64>().unwrap());
        numbers.any(f64::is_finite)
    }

    /// The state of an alert about a backend: `pending`, `firing`, or none.
    pub(crate) fn alert(&self, name: &str, backend: &str) -> Option<String> {
        let answer = self.ask("/api/v1/alerts").unwrap();
        let mut alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        let found = alerts.find(|alert| {
            let labels = &alert["labels"];
            labels["alertname"] == name && labels["backend"] == backend
        });
        found.map(|alert| alert["state"].as_str().unwrap().to_owned())
    }

    /// The rules that it could not evaluate, and why.
    pub(crate) fn failing_rules(&self) -> Vec<String> {
        let answer = self.ask("/api/v1/rules").unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap());
        let failing = rules.filter(|rule| rule["health"] != "ok");
        failing.map(|rule| format!("{rule:#}")).collect()
    }

    /// What it has complained about.
    pub(crate) fn log(&self) -> String {
        files::text(&self.files.path().join("log"))
    }

    /// The answer to a question; `None` as long as it does not listen.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The older version of HTTP has no chunks to put together.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The rules with alerts that come after a second.
fn quick_rules() -> String {
    let rules = files::text(&files::rules_path());
    let quick = |line: &str| match line.trim_start().starts_with("for: ") {
        true => "        for: 1s\n".to_owned(),
        false => format!("{line}\n"),
    };
    rules.lines().map(quick).collect()
}

fn now_s() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
