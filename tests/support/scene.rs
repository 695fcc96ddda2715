//! A pool that changes while a farm runs on it: state servers, proxies and the farm, each with a
//! handle that outlives its process.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;
use staterouter::farm::{
    self, FarmCounts, FarmOptions, FarmReport, FarmStats, PageMix, RunEnd, Stop,
};
use tempfile::TempDir;

use super::Program;
use super::system::{ask_page, hold_port, wait_up_to};

/// Longest time until something happens that takes a whole handover.
const PATIENCE: Duration = Duration::from_secs(150);

/// Users of a farm: so few that each comes more than once a second.
pub const SESSIONS: usize = 40;
/// Pages at the same time at most.
pub const CLIENTS: usize = 16;
const PAGES_PER_S: f64 = 60.0;

/// A read that comes between the creation of a session and its first lock, in a handover, takes the
/// flag for nothing: stock servers cannot help it (docs/handover.md, 7). Of some fifty new sessions
/// hardly ever one meets it; in runs with many, so many excuse one more.
const MAX_MISSED_STARTS: u64 = 1;
const SESSIONS_PER_MISSED_START: u64 = 100;
/// After a page that failed in between, the first lock is a long time coming: so many failed pages
/// excuse one more.
const FAILED_PAGES_PER_MISSED_START: u64 = 1000;

/// Times for users who never rest: a handover takes 23 s, although no session can have a timeout of
/// less than a minute.
pub const SHORT_TIMES: &str = "
timeouts: {connect: 500ms, answer: 1s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 2s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover_after: 2s}";

/// Nobody leaves a session behind that lives on without its user.
pub const EVERYBODY_KEEPS_THE_COOKIE: PageMix = PageMix {
    change: 55,
    keep: 15,
    read: 20,
    touch: 7,
    abandon: 3,
    cookieless_return_percent: 0,
};

/// One state server on a port of its own.
pub struct Server {
    pub address: SocketAddr,
    arguments: Vec<&'static str>,
    program: Option<Program>,
    _port: Socket,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with more arguments.
    pub fn start_with(arguments: &[&'static str]) -> Self {
        let (port, address) = hold_port();
        let mut server = Self {
            address,
            arguments: arguments.to_vec(),
            program: None,
            _port: port,
        };
        server.restart();
        server
    }

    /// Starts it anew, empty.
    pub fn restart(&mut self) {
        let listen = self.address.to_string();
        let args = ["state-server", "--workers", "1", "--listen", &listen];
        self.program = Some(Program::start(&[&args, &*self.arguments].concat()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        self.program.as_ref().unwrap().signal(name);
    }

    /// Ends it and returns how many sessions it had.
    pub fn stop_and_count_sessions(mut self) -> u64 {
        let log = self.program.take().unwrap().stop();
        let last = log.lines().find(|line| line.contains("stopping")).unwrap();
        let mut words = last.split_whitespace();
        let sessions = words.find_map(|word| word.strip_prefix("sessions="));
        sessions.unwrap().parse().unwrap()
    }
}

/// What a partition map says of one backend.
#[derive(Debug, Clone)]
pub struct Line {
    pub id: u8,
    /// Its `address` or its `redis`.
    pub place: String,
    pub weight: u32,
    pub state: &'static str,
    /// Its capacity.
    pub max_sessions: Option<u64>,
}

/// A partition map; backends are named `state-ID`.
#[derive(Debug, Clone)]
pub struct Map {
    pub version: u64,
    /// On how many other backends each session is kept.
    pub replicas: u8,
    pub lines: Vec<Line>,
}

impl Map {
    /// Version 1 with these servers, numbered from 1.
    pub fn of(servers: &[&Server]) -> Self {
        let mut map = Self {
            version: 1,
            replicas: 0,
            lines: Vec::new(),
        };
        servers.iter().for_each(|server| map.add(server));
        map
    }

    /// Adds a server under the next number.
    pub fn add(&mut self, server: &Server) {
        self.add_at(format!("address: \"{}\"", server.address));
    }

    /// Adds a backend on Redis under the next number, with these keys below `redis`.
    pub fn add_redis(&mut self, keys: &str) {
        self.add_at(format!("redis: {{{keys}}}"));
    }

    fn add_at(&mut self, place: String) {
        self.lines.push(Line {
            id: self.lines.len() as u8 + 1,
            place,
            weight: 100,
            state: "active",
            max_sessions: None,
        });
    }

    /// The next version, changed.
    pub fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        next.version += 1;
        change(&mut next);
        next
    }

    fn yaml(&self) -> String {
        let mut yaml = format!(
            "version: {}\nreplicas: {}\nbackends:\n",
            self.version, self.replicas
        );
        for line in &self.lines {
            let Line {
                id,
                place,
                weight,
                state,
                max_sessions,
            } = line;
            let capacity = max_sessions.map(|max| format!(", capacity: {{sessions: {max}}}"));
            let capacity = capacity.unwrap_or_default();
            yaml += &format!(
                "  - {{name: state-{id}, id: {id}, {place}, weight: {weight}, state: {state}{capacity}}}\n"
            );
        }
        yaml
    }
}

/// One proxy with its files.
pub struct Proxy {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    directory: TempDir,
    program: Option<Program>,
    _ports: [Socket; 2],
}

impl Proxy {
    /// A proxy with `extra` YAML in its main file.
    pub fn start(map: &Map, extra: &str) -> Self {
        let [proxy] = Self::start_all(map, extra);
        proxy
    }

    /// Proxies with the same files that know of each other, which takes a settle time of 5 s.
    pub fn start_all<const N: usize>(map: &Map, extra: &str) -> [Self; N] {
        let mut proxies = [(); N].map(|()| Self::prepare(map));
        let admins = proxies.each_ref().map(|proxy| proxy.admin);
        for proxy in &mut proxies {
            let others = admins.iter().filter(|&&admin| admin != proxy.admin);
            let others: Vec<_> = others.map(|admin| format!("\"{admin}\"")).collect();
            let mut extra = format!("peers: [{}]\n{extra}", others.join(", "));
            if N > 1 {
                extra = extra.replace("settle: 2s", "settle: 5s");
            }
            proxy.write_main(&extra);
            proxy.restart();
        }
        proxies
    }

    fn prepare(map: &Map) -> Self {
        let (port, address) = hold_port();
        let (admin_port, admin) = hold_port();
        let proxy = Self {
            address,
            admin,
            directory: tempfile::tempdir().unwrap(),
            program: None,
            _ports: [port, admin_port],
        };
        proxy.save(map);
        proxy
    }

    fn write_main(&self, extra: &str) {
        let Self { address, admin, .. } = self;
        let main = format!(
            "listen: {address}\nadmin: {{listen: \"{admin}\"}}\npartition_map: map.yaml\nworkers: 1\n{extra}\n"
        );
        fs::write(self.config(), main).unwrap();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.program.as_ref().unwrap().id()
    }

    /// Path of the main file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("staterouter.yaml")
    }

    /// Puts another map in the place of the one there is, as an editor does.
    pub fn save(&self, map: &Map) {
        self.save_text(&map.yaml());
    }

    /// The same with whatever text.
    pub fn save_text(&self, text: &str) {
        let new = self.directory.path().join("map.yaml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.directory.path().join("map.yaml")).unwrap();
    }

    /// Saves a map and waits until it is in force.
    pub fn change(&self, map: &Map) {
        self.save(map);
        self.wait("the new map is in force", |status| {
            status["map_version"] == map.version
        });
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        self.program.as_ref().unwrap().signal(name);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    /// Starts it again with its files.
    pub fn restart(&mut self) {
        let config = self.config();
        let args = ["serve", "--config", config.to_str().unwrap()];
        self.program = Some(Program::start(&args));
    }

    /// What it says about itself.
    pub fn status(&self) -> Value {
        serde_json::from_str(&ask_page(self.admin, "/status")).unwrap()
    }

    /// Waits until its status makes `wanted` true.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = wait_up_to(PATIENCE, || {
            let status = self.status();
            wanted(&status).then_some(status)
        });
        found.unwrap_or_else(|| panic!("never came true: {what}; {:#}", self.status()))
    }

    /// Waits until no slot is in a handover or failover, and all are where the map wants them.
    pub fn wait_until_settled(&self) -> Value {
        self.wait("the pool has settled", |status| {
            let backends = status["backends"].as_array().unwrap();
            status["slots"]["steady"] == SLOTS
                && backends
                    .iter()
                    .all(|backend| backend["slots_owned"] == backend["slots_first"])
        })
    }

    /// Waits until slots are in this stage.
    pub fn wait_for_stage(&self, stage: &str) -> Value {
        self.wait(stage, |status| status["slots"][stage] != 0)
    }

    /// The log so far.
    pub fn logged(&self) -> String {
        self.program.as_ref().unwrap().logged()
    }

    /// Waits until a line of the log holds `words`.
    pub fn wait_for_log(&self, words: &str) {
        let program = self.program.as_ref().unwrap();
        program.wait_long_for_log(PATIENCE, |line| line.contains(words));
    }
}

/// Number of slots.
pub const SLOTS: u64 = 16_384;

/// What a status says of the backend with this id.
pub fn backend(status: &Value, id: u8) -> &Value {
    let mut backends = status["backends"].as_array().unwrap().iter();
    backends.find(|backend| backend["id"] == id).unwrap()
}

/// A number in a status.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// A farm under way.
pub struct Farm {
    stop: Stop,
    stats: Arc<FarmStats>,
    known_failures: Cell<u64>,
    running: Option<JoinHandle<Result<FarmReport, farm::FarmError>>>,
}

impl Farm {
    /// A farm whose requests alternate between these proxies; returns once all users have come.
    pub fn start(proxies: &[&Proxy]) -> Self {
        Self::with(Self::options(proxies))
    }

    /// The options of [`Self::start`].
    pub fn options(proxies: &[&Proxy]) -> FarmOptions {
        FarmOptions {
            targets: proxies.iter().map(|proxy| proxy.address).collect(),
            clients: CLIENTS,
            sessions: SESSIONS,
            end: RunEnd::WhenStopped,
            pages_per_s: Some(PAGES_PER_S),
            body: "59..4096".parse().unwrap(),
            timeout_minutes: 1,
            poll_interval: Duration::from_millis(20),
            execution_timeout: Duration::from_secs(5),
            ..FarmOptions::default()
        }
    }

    pub fn with(options: FarmOptions) -> Self {
        let (stop, stats) = (Stop::default(), Arc::<FarmStats>::default());
        let sessions = options.sessions as u64;
        let running = {
            let (stop, stats) = (stop.clone(), Arc::clone(&stats));
            thread::spawn(move || farm::run(options, &stop, &stats))
        };
        let farm = Self {
            stop,
            stats,
            known_failures: Cell::new(0),
            running: Some(running),
        };
        farm.go_on(2 * sessions);
        farm
    }

    /// Waits for so many more pages.
    pub fn go_on(&self, pages: u64) {
        let wanted = self.counts().pages + pages;
        let done = wait_up_to(PATIENCE, || (self.counts().pages >= wanted).then_some(()));
        assert!(done.is_some(), "the farm stands still: {:?}", self.counts());
    }

    /// Waits for so many more pages as the farm does in this time.
    pub fn go_on_for(&self, seconds: f64) {
        self.go_on((seconds * PAGES_PER_S) as u64);
    }

    /// Waits until requests fail that are not known yet.
    pub fn wait_for_failures(&self) {
        let failed = wait_up_to(PATIENCE, || (self.new_failures() > 0).then_some(()));
        assert!(failed.is_some(), "nothing fails: {:?}", self.counts());
    }

    /// Waits until every page that was under way has ended; from then on failures are new.
    pub fn forget_failures(&self) {
        self.go_on(2 * CLIENTS as u64);
        self.known_failures.set(self.counts().failures);
    }

    /// Failed requests since the last [`Self::forget_failures`].
    pub fn new_failures(&self) -> u64 {
        self.counts().failures - self.known_failures.get()
    }

    /// What it has counted so far.
    pub fn counts(&self) -> FarmCounts {
        self.stats.counts()
    }

    /// Ends the run and looks at every session once more.
    pub fn finish(mut self) -> FarmReport {
        self.stop.stop();
        self.running.take().unwrap().join().unwrap().unwrap()
    }

    /// [`Self::finish`] with a report in which nothing is wrong and nothing failed.
    #[track_caller]
    pub fn finish_flawless(self) -> FarmReport {
        let report = self.finish();
        assert_no_wrong_answer(&report);
        assert!(report.failures.is_empty(), "{report:#?}");
        assert_eq!(report.failed_pages, 0, "{report:#?}");
        let started = report.session_starts + missed_starts(&report);
        assert_eq!(started, report.new_sessions, "{report:#?}");
        assert!(report.new_sessions > SESSIONS as u64, "{report:#?}");
        report
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn missed_starts(report: &FarmReport) -> u64 {
    report.violations["missed_start"].count
}

#[track_caller]
pub fn assert_no_wrong_answer(report: &FarmReport) {
    assert_only_lost(report);
    assert_eq!(report.violations["lost"].count, 0, "{report:#?}");
}

/// Sessions may be lost; nothing else is wrong, but for what stock servers cannot give.
#[track_caller]
pub fn assert_only_lost(report: &FarmReport) {
    let mut wrong = report.violations.iter();
    let other = wrong
        .find(|(kind, finding)| !matches!(**kind, "lost" | "missed_start") && finding.count > 0);
    assert!(other.is_none(), "{report:#?}");
    let excused = MAX_MISSED_STARTS
        + report.new_sessions / SESSIONS_PER_MISSED_START
        + report.failed_pages / FAILED_PAGES_PER_MISSED_START;
    assert!(missed_starts(report) <= excused, "{report:#?}");
    assert_eq!(report.sweep.unwrap().unread, 0, "{report:#?}");
}
