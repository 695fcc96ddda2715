//! What is wrong with the pool or going on in it, in words for people: each finding is made here
//! (those about the web servers in `web_farm`, about certificates in `certificates`, about engines in
//! `engine`, of a state server in `state_server`) and nowhere else. The terminal, the page, `/readyz` and
//! the metrics all read the same list.

mod certificates;
pub(crate) mod engine;
mod session_keeper;
mod state_server;
mod web_farm;

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::pool_state::ServerFault;
use crate::control::pulse::Stuck;
use crate::metrics::PoolFinding;
use crate::route::SLOT_COUNT;

pub use session_keeper::SessionKeeper;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Users notice it now, or will within the hour: wake somebody.
    Critical,
    /// Users may notice it, or something that was wanted does not happen: look in working hours.
    Warning,
    /// It goes on as intended.
    Info,
}

impl Level {
    /// As JSON and labels have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident $name:literal $level:ident;)*) => {
        /// What a finding is about. Names are stable; the worst of each level stands first.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $code,)*
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// All that this version knows, in their order.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// As JSON, labels and docs have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                    Self::Unknown => "unknown",
                }
            }

            /// How much findings with this code matter.
            #[must_use]
            pub const fn level(self) -> Level {
                match self {
                    $(Self::$code => Level::$level,)*
                    Self::Unknown => Level::Warning,
                }
            }
        }
    };
}

codes! {
    /// The control thread has ended.
    ControlStopped "control_stopped" Critical;
    /// The control thread hangs.
    ControlStuck "control_stuck" Critical;
    /// No backend is up.
    NoBackend "no_backend" Critical;
    /// Requests are refused because a backend is down and no other stands in for it yet.
    RequestsRefused "requests_refused" Critical;
    /// This machine has no port, open file or memory left for connections to backends.
    ProxyShortage "proxy_shortage" Critical;
    /// A backend is down.
    BackendDown "backend_down" Critical;
    /// The capacity of a backend is used up.
    BackendFull "backend_full" Critical;
    /// A backend refuses writes.
    BackendRefuses "backend_refuses" Critical;
    /// The Redis that keeps the sessions of a backend cannot be used.
    EngineUnusable "engine_unusable" Critical;
    /// The Redis that keeps the sessions of a backend drops living ones when its memory is full.
    EngineEvicts "engine_evicts" Critical;
    /// The Redis that keeps the sessions of a backend cannot write to its disk.
    EngineDiskFails "engine_disk_fails" Critical;
    /// The Redis that keeps the sessions of a backend takes no writes, because replicas are missing.
    EngineReadOnly "engine_read_only" Critical;
    /// Parts of the Cluster that keeps the sessions of a backend are served by nobody.
    EngineUnserved "engine_unserved" Critical;
    /// The disk of a state server has failed.
    DiskFailed "disk_failed" Critical;
    /// The disk of a state server refuses writes.
    DiskRefuses "disk_refuses" Critical;
    /// The disk of a state server does not answer.
    DiskHangs "disk_hangs" Critical;
    /// The memory of a state server is used up.
    MemoryFull "memory_full" Critical;
    /// Sessions cannot be moved to a backend that is to have them.
    MovesRefused "moves_refused" Critical;
    /// A certificate that this proxy shows has expired, or is not valid yet.
    CertificateExpired "certificate_expired" Critical;

    /// Other backends stand in for one that failed.
    FailedOver "failed_over" Warning;
    /// A backend has returned, and what only it has is refused until every proxy knows.
    Returning "returning" Warning;
    /// A backend, or something before it, gives answers that no state server gives.
    AnswersUnfit "answers_unfit" Warning;
    /// A backend that is to get sessions has not answered yet.
    BackendAwaited "backend_awaited" Warning;
    /// A backend failed lately.
    BackendSuspect "backend_suspect" Warning;
    /// The address of a backend is not as it should be: it has several, a changed one waits, or no
    /// state server is there.
    BackendAddress "backend_address" Warning;
    /// A backend is nearly full, or will be within the hour.
    BackendFillsUp "backend_fills_up" Warning;
    /// A failure of the Redis that keeps the sessions of a backend loses them all.
    EngineUnkept "engine_unkept" Warning;
    /// A replica of the Redis that keeps the sessions of a backend is behind.
    EngineLags "engine_lags" Warning;
    /// What keeps the sessions of a backend may not run scripts alone.
    EngineUnproven "engine_unproven" Warning;
    /// The memory of a state server is nearly used up.
    MemoryFillsUp "memory_fills_up" Warning;
    /// The volume of a state server's files is nearly full.
    DiskFillsUp "disk_fills_up" Warning;
    /// The disk of a state server is slow.
    DiskSlow "disk_slow" Warning;
    /// Requests failed within the last minute.
    RequestsFailed "requests_failed" Warning;
    /// A failure of a backend would lose sessions, although each is to be kept twice.
    SessionsUnprotected "sessions_unprotected" Warning;
    /// Web servers call one application by different ids, so they do not share its sessions.
    ApplicationIdsDiffer "application_ids_differ" Warning;
    /// Web servers send different hashes of one application's id, so they do not share its sessions.
    ApplicationHashesDiffer "application_hashes_differ" Warning;
    /// Writes were refused because somebody else had taken the lock of their page over.
    WritesTakenOver "writes_taken_over" Warning;
    /// A web server does not wait as long for an answer as this proxy does.
    ClientGivesUp "client_gives_up" Warning;
    /// A web server has sent nothing for a while.
    WebServerSilent "web_server_silent" Warning;
    /// Requests of a session find it locked all the time.
    SessionContended "session_contended" Warning;
    /// Large sessions are stored.
    SessionsLarge "sessions_large" Warning;
    /// Sessions live longer than a handover lasts.
    SessionsOutliveHandovers "sessions_outlive_handovers" Warning;
    /// The state file cannot be written.
    StateFileNotWritten "state_file_not_written" Warning;
    /// A handover takes longer than it should.
    HandoverHeldUp "handover_held_up" Warning;
    /// The last change of the files was refused.
    ReloadRefused "reload_refused" Warning;
    /// The files of a certificate cannot be used as they are now.
    CertificateRefused "certificate_refused" Warning;
    /// A certificate ends soon.
    CertificateExpires "certificate_expires" Warning;
    /// Another proxy does not answer.
    ProxySilent "proxy_silent" Warning;
    /// Another proxy has another version of the partition map.
    MapsDiffer "maps_differ" Warning;
    /// Another proxy has other overrides.
    OverridesDiffer "overrides_differ" Warning;

    /// A backend that was given up gets no sessions before those that it held have died.
    BackendHeldBack "backend_held_back" Info;
    /// Sessions were out of reach while a backend was away.
    SessionsLost "sessions_lost" Info;
    /// A backend had lost sessions, and got them back from their copies.
    SessionsRestored "sessions_restored" Info;
    /// A handover is under way.
    Moving "moving" Info;
    /// A backend has returned and serves again, beside the one that stood in.
    Returned "returned" Info;
    /// A changed key takes effect with the next restart.
    RestartNeeded "restart_needed" Info;
}

impl Code {
    /// Whether a proxy with such a finding can serve nobody: a balancer has to go around it.
    #[must_use]
    pub const fn keeps_from_serving(self) -> bool {
        matches!(
            self,
            Self::ControlStopped | Self::ControlStuck | Self::NoBackend
        )
    }

    /// Whether only a state server has such findings.
    #[must_use]
    pub const fn is_of_state_server(self) -> bool {
        matches!(
            self,
            Self::DiskFailed
                | Self::DiskRefuses
                | Self::DiskHangs
                | Self::MemoryFull
                | Self::MemoryFillsUp
                | Self::DiskFillsUp
                | Self::DiskSlow
        )
    }

    /// Whether a state server may have such findings.
    #[must_use]
    pub const fn may_be_of_state_server(self) -> bool {
        self.is_of_state_server()
            || matches!(
                self,
                Self::CertificateExpired | Self::CertificateExpires | Self::CertificateRefused
            )
    }
}

/// One thing that is wrong or going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// Which kind of finding it is.
    pub code: Code,
    /// The backend (its name) or the proxy (its address) that it is about; `null` for the pool.
    pub about: Option<String>,
    /// What is the matter.
    pub says: String,
    /// What users notice of it.
    pub means: String,
    /// What to do about it.
    pub action: String,
    /// Since when, Unix time in milliseconds.
    pub since_ms: Option<u64>,
    /// When it should be over by itself, Unix time in milliseconds; `null` when nobody can say.
    pub until_ms: Option<u64>,
}

/// One constructor per code.
impl Finding {
    /// The control thread of this proxy has ended.
    pub fn control_stopped() -> Self {
        Self::new(
            Code::ControlStopped,
            "control does not answer: this proxy no longer watches its backends and files",
            "Users are served as before until a backend fails or sessions move.",
            "Restart this proxy; its log says why control ended.",
        )
    }

    /// The control thread of this proxy hangs.
    pub fn control_stuck(stuck: Stuck) -> Self {
        Self::new(
            Code::ControlStuck,
            format!("control is {stuck}: this proxy does not watch its backends meanwhile"),
            "Users are served as before until a backend fails or sessions move.",
            "Look at the disk of the state file. If control does not go on, restart this proxy.",
        )
    }

    /// None of the backends is up.
    pub fn no_backend() -> Self {
        Self::new(
            Code::NoBackend,
            "no backend is up",
            "Every page that uses session state is an error page.",
            "Start them. If other proxies reach them, look at this machine's network and take this \
             proxy out of the balancer.",
        )
    }

    /// Requests for the slots of `backend` wait, or are refused, until one of `stand_ins` serves them;
    /// there may be none.
    pub fn requests_refused(
        server: SessionKeeper<'_>,
        slots: usize,
        stand_ins: &[&str],
        wait: bool,
    ) -> Self {
        let backend = server.name;
        let sessions = sessions(slots);
        let until = match stand_ins {
            [] => format!("until {backend} answers: no other backend can stand in"),
            _ => format!("until {backend} answers or {} stands in", names(stand_ins)),
        };
        Self::new(
            Code::RequestsRefused,
            match wait {
                true => format!("requests for {sessions} wait: {backend} is down"),
                false => format!("requests for {sessions} are refused: {backend} is down"),
            },
            match wait {
                true => format!("Their pages wait {until}. After handover.hold they fail."),
                false => format!("Their users see error pages {until}."),
            },
            format!(
                "Start {server}: if it still has its sessions, nobody loses one. \
                 Proxies stand in together: every one of them has to answer."
            ),
        )
        .about(backend)
    }

    /// Requests for the slots of `backend`, which is off by the map or by an order, are refused until
    /// another backend may have them.
    pub fn requests_refused_off(backend: &str, slots: usize) -> Self {
        let sessions = sessions(slots);
        Self::new(
            Code::RequestsRefused,
            format!(
                "requests for {sessions} are refused: {backend} is off, and no other backend may \
                 have them yet"
            ),
            format!(
                "Their users see error pages until another backend may have their sessions, or \
                 {backend} is active again. A backend that was given up may have none until what \
                 it holds has expired."
            ),
            format!(
                "Unless it is over in seconds: activate {backend} again, it still has its sessions if \
                 it was not restarted (staterouter backend {backend} activate). Or, if a backend that \
                 was given up has been started empty since, say so: staterouter backend NAME activate \
                 --fresh"
            ),
        )
        .about(backend)
    }

    /// This machine had nothing left for so many connections to backends.
    pub fn proxy_shortage(count: u64) -> Self {
        Self::new(
            Code::ProxyShortage,
            format!(
                "this proxy has no port, open file or memory left: {count} connections to backends \
                 could not be opened in the last minute"
            ),
            "Pages that need a new connection are error pages. The backends may be well: nothing is \
             concluded about them.",
            "The log names the cause. Raise LimitNOFILE= in the unit, widen \
             net.ipv4.ip_local_port_range, or stop what takes the ports of this machine.",
        )
    }

    /// A backend does not answer. `is_copied` says whether others have copies of all its sessions.
    pub fn backend_down(server: SessionKeeper<'_>, reason: Option<&str>, is_copied: bool) -> Self {
        let backend = server.name;
        let reason = reason.unwrap_or("it does not answer");
        Self::new(
            Code::BackendDown,
            format!("{backend} is down: {reason}"),
            match is_copied {
                true => {
                    "Users whose sessions it holds wait until the copies serve them; pages that hold \
                     a lock there fail."
                }
                false => {
                    "Users whose sessions it holds see error pages until another backend stands in; \
                     then they start new sessions."
                }
            },
            format!(
                "Start {server} again. If it is gone for good, give it up: \
                 staterouter backend {backend} off"
            ),
        )
        .about(backend)
    }

    /// The address of a backend is not as it should be.
    pub fn backend_address(backend: &str, fault: &ServerFault) -> Self {
        let says = format!("{backend}: {}", fault.says());
        Self::new(Code::BackendAddress, says, fault.means(), fault.action()).about(backend)
    }

    /// A backend holds as much as the partition map says it can.
    pub fn backend_full(backend: &str, used_percent: f64) -> Self {
        Self::new(
            Code::BackendFull,
            format!("{backend} is full: {used_percent:.0} % of its capacity is used"),
            "It may refuse to store sessions: pages that store something then fail.",
            "Add a backend, or give this one less weight. If it can hold more, correct its \
             capacity in the partition map.",
        )
        .about(backend)
    }

    /// A backend answers writes and acquires with 400.
    pub fn backend_refuses(backend: &str, count: u64) -> Self {
        Self::new(
            Code::BackendRefuses,
            format!("{backend} refused {count} writes and reads that lock in the last minute"),
            "Each of them is an error page. A session whose write is refused stays locked for up to \
             110 s.",
            "It is full, or its limit on one session is lower than the web farm needs: its log says \
             which. Add a backend, give this one less weight, or raise the limit.",
        )
        .about(backend)
    }

    /// Sessions that are to go from one backend to another stay where they are.
    pub fn moves_refused(from: &str, to: &str, reason: &str) -> Self {
        Self::new(
            Code::MovesRefused,
            format!("sessions cannot be moved from {from} to {to}: {reason}"),
            format!(
                "Nothing as long as {from} runs: sessions that cannot be moved are served there, and \
                 the handover does not end. Pages that begin a session at {to} may fail."
            ),
            format!(
                "Leave {from} running. If {to} is full or takes only smaller sessions, let sessions \
                 there expire or add another backend; a restart of {to} with other limits loses what \
                 it holds."
            ),
        )
        .about(to)
    }

    /// Sessions of `backend` are served by `stand_ins`.
    pub fn failed_over(server: SessionKeeper<'_>, slots: usize, stand_ins: &[&str]) -> Self {
        let backend = server.name;
        let sessions = sessions(slots);
        let stand_ins = names(stand_ins);
        Self::new(
            Code::FailedOver,
            format!("{backend} is failed over: {stand_ins} stands in for {sessions}"),
            format!("Users whose sessions {backend} holds have to start anew."),
            format!(
                "Start {server}: sessions that were not used meanwhile are \
                 served again."
            ),
        )
        .about(backend)
    }

    /// A failure of `backend` would lose so many sessions, or those of so many slots.
    pub fn sessions_unprotected(backend: &str, lost: Option<u64>, slots: usize) -> Self {
        let lost = match lost {
            Some(1) => "1 session".to_owned(),
            Some(lost) => format!("{lost} sessions"),
            None => sessions(slots),
        };
        Self::new(
            Code::SessionsUnprotected,
            format!(
                "a failure of {backend} would cost {lost}: not every session is kept twice yet"
            ),
            "Nothing as long as no other backend fails.",
            "Wait until the copies are full. If none are being filled, the pool has no backend to \
             spare for them: start those that are down, or add one.",
        )
        .about(backend)
    }

    /// A backend has returned, and what only it has is refused until every proxy knows.
    pub fn returning(backend: &str, slots: usize) -> Self {
        let sessions = sessions(slots);
        Self::new(
            Code::Returning,
            format!("{backend} has returned and settles: some of {sessions} are refused"),
            "Users whose sessions only that backend has see error pages until every proxy knows \
             that it is back.",
            "Wait. If it lasts longer than a minute, look for a proxy that does not answer, and for \
             pending deletes that cannot be delivered.",
        )
        .about(backend)
    }

    /// A backend, or something before it, gave answers that no state server gives.
    pub fn answers_unfit(backend: &str, count: u64) -> Self {
        Self::new(
            Code::AnswersUnfit,
            format!(
                "{backend} gave {count} answers in the last minute that no state server gives to what \
                 was asked"
            ),
            "Each of them is an error page instead of a lost session or another user's. If answers \
             are repeated on the way, single ones may still reach the wrong page.",
            format!(
                "The log says what they were. Look at the address of {backend} and at what stands \
                 between it and this proxy: a load balancer, a web server, a device that repeats data."
            ),
        )
        .about(backend)
    }

    /// A backend that is to get sessions has not answered yet.
    pub fn backend_awaited(server: SessionKeeper<'_>, slots: usize, reason: Option<&str>) -> Self {
        let backend = server.name;
        let sessions = sessions(slots);
        let reason = reason.unwrap_or("it has not been asked yet");
        Self::new(
            Code::BackendAwaited,
            format!("{backend} is waited for: {sessions} move to it once it answers ({reason})"),
            "Nothing: these sessions are served where they are.",
            format!("Start {server}, or correct its address in the partition map."),
        )
        .about(backend)
    }

    /// A backend failed lately and is served from.
    pub fn backend_suspect(server: SessionKeeper<'_>, reason: Option<&str>) -> Self {
        let backend = server.name;
        let reason = reason.unwrap_or("it did not answer");
        Self::new(
            Code::BackendSuspect,
            format!("{backend} failed lately: {reason}"),
            "Single pages may have failed. If it goes on failing, it counts as down.",
            format!("Look at the load, memory and network of {server}."),
        )
        .about(backend)
    }

    /// A backend is nearly full, or will be soon.
    pub fn backend_fills_up(
        backend: &str,
        used_percent: Option<f64>,
        seconds_to_full: Option<u64>,
    ) -> Self {
        let used =
            used_percent.map(|used| format!("{:.0} % of its capacity is used", used.floor()));
        let soon = seconds_to_full
            .map(|seconds| format!("at this pace it is full in {} min", seconds.div_ceil(60)));
        let how: Vec<_> = used.into_iter().chain(soon).collect();
        Self::new(
            Code::BackendFillsUp,
            format!("{backend} fills up: {}", how.join(", ")),
            "Nothing yet. Once it is full, it may refuse to store sessions, and pages fail.",
            "Add a backend, or give this one less weight.",
        )
        .about(backend)
    }

    /// Requests failed within the last minute.
    pub fn requests_failed(failed: u64, requests: u64) -> Self {
        Self::new(
            Code::RequestsFailed,
            format!("{failed} of {requests} requests failed in the last minute"),
            "Each of them is an error page.",
            "The log has the reason of each; staterouter_failed_requests_total counts them by reason.",
        )
    }

    /// Sessions have a timeout of `minutes`, longer than `longest`, which is how long a handover waits
    /// for them.
    pub fn sessions_outlive_handovers(minutes: u32, longest: Duration) -> Self {
        let waits = match longest.as_secs() {
            0 => format!("{} ms", longest.as_millis()),
            waits_s @ 1..120 => format!("{waits_s} s"),
            waits_s => format!("{} min", waits_s / 60),
        };
        Self::new(
            Code::SessionsOutliveHandovers,
            format!(
                "sessions have a timeout of up to {minutes} min, and handover.max_session_timeout is \
                 {waits}"
            ),
            format!(
                "In a handover, users who do nothing for {waits} lose their sessions. A backend that \
                 was left or has returned waits until what is outdated there has died, for up to \
                 {minutes} min."
            ),
            format!(
                "Set handover.max_session_timeout to at least {minutes}m in the main file of every \
                 proxy, or give the web applications a shorter session timeout. If such sessions are \
                 not wanted, look for the page that makes them."
            ),
        )
    }

    /// What is to change cannot be written down.
    pub fn state_file_not_written(error: &str) -> Self {
        Self::new(
            Code::StateFileNotWritten,
            format!("cannot write the state file: {error}"),
            "Nothing while all backends answer. If one fails, no other stands in for it, and with \
             `replicas: 1` writes that it was to copy fail; handovers are paused.",
            "Make room on its disk, or give this proxy the right to write it.",
        )
    }

    /// A stage of a handover should have ended.
    pub fn handover_held_up(from: &str, to: &str, slots: usize, due_ms: u64) -> Self {
        let sessions = sessions(slots);
        Self::new(
            Code::HandoverHeldUp,
            format!("the handover of {sessions} from {from} to {to} is held up"),
            "Nothing: the sessions are served where they are.",
            "Look for a proxy that does not answer or has another partition map, and for a state \
             file that cannot be written.",
        )
        .about(to)
        .since(due_ms)
    }

    /// What the files said last was refused.
    pub fn reload_refused(faults: &[String], map_version: u64) -> Self {
        let fault = faults.first().and_then(|fault| fault.lines().next());
        let more = match faults.len() {
            0 | 1 => String::new(),
            faults => format!(" (and {} more)", faults - 1),
        };
        let fault = fault.unwrap_or("it has faults");
        Self::new(
            Code::ReloadRefused,
            format!("the last change of the files was refused: {fault}{more}"),
            format!("Nothing: version {map_version} of the partition map stays in force."),
            "Correct the files; staterouter check shows all faults.",
        )
    }

    /// A proxy does not answer.
    pub fn proxy_silent(address: &str, failure: &str) -> Self {
        Self::new(
            Code::ProxySilent,
            format!("the proxy at {address} does not answer: {failure}"),
            "Nothing while all backends answer and keep their sessions. If one fails, no other \
             stands in for it; handovers are paused. A session that its backend has lost is not \
             restored from its copy: its requests wait, then fail.",
            format!(
                "Start that proxy. If it cannot be started soon, tell every other proxy: staterouter \
                 peer {address} gone. This ends all of it. If the proxy is gone for good, take it out \
                 of peers in the main files of the others."
            ),
        )
        .about(address)
    }

    /// Nobody answers where a command was told to ask.
    pub fn nobody_asked(address: &str, failure: &str) -> Self {
        Self::new(
            Code::ProxySilent,
            format!("the proxy at {address} does not answer: {failure}"),
            "Not known: nothing was learned about this proxy.",
            "Check the address: `staterouter serve` prints it as \"admin on\", and the main file has \
             it as admin.listen. Name it with --admin. If it is right, start that proxy.",
        )
        .about(address)
    }

    /// A proxy has another version of the partition map than this one.
    pub fn maps_differ(address: &str, version: u64, own: &str, own_version: u64) -> Self {
        Self::new(
            Code::MapsDiffer,
            format!(
                "the proxy at {address} has version {version} of the partition map, {own} version \
                 {own_version}"
            ),
            "Nothing: the change waits until every proxy has it.",
            "Bring the newest partition map to every proxy.",
        )
        .about(address)
    }

    /// A proxy has other overrides than this one.
    pub fn overrides_differ(address: &str, own: &str) -> Self {
        Self::new(
            Code::OverridesDiffer,
            format!("the proxy at {address} has other overrides than {own}"),
            "Nothing: the change waits until every proxy has it.",
            "Give each override to every proxy: staterouter backend takes --admin once for each.",
        )
        .about(address)
    }

    /// A backend that was given up holds outdated sessions.
    pub fn backend_held_back(backend: &str) -> Self {
        Self::new(
            Code::BackendHeldBack,
            format!("{backend} was given up and gets no sessions yet: what it holds is outdated"),
            "Nothing: the other backends serve its share.",
            format!(
                "Wait. It gets its share by itself. If its server was started empty since, say so: \
                 staterouter backend {backend} activate --fresh"
            ),
        )
        .about(backend)
    }

    /// Requests found no session because a backend was away.
    pub fn sessions_lost(backend: &str, requests: u64) -> Self {
        Self::new(
            Code::SessionsLost,
            format!("sessions were out of reach while {backend} was away: {requests} requests"),
            "Their users have started anew: what they had in their sessions is lost to them.",
            "Nothing is left to do. This notice goes a day after the last of them.",
        )
        .about(backend)
    }

    /// A backend had lost sessions that had a copy elsewhere.
    pub fn sessions_restored(backend: &str, sessions: u64) -> Self {
        let came_back = match sessions {
            1 => "1 came back from its copy".to_owned(),
            sessions => format!("{sessions} came back from their copies"),
        };
        Self::new(
            Code::SessionsRestored,
            format!("{backend} had lost sessions, as by a restart: {came_back}"),
            "Nothing: their users go on. The other sessions come back when they are used.",
            format!(
                "Find out why the server of {backend} has restarted. This notice goes a day after the \
                 last of them."
            ),
        )
        .about(backend)
    }

    /// Sessions move to where the partition map wants them.
    pub fn moving(slots: usize) -> Self {
        let sessions = sessions(slots);
        Self::new(
            Code::Moving,
            format!("a handover is under way: {sessions} move"),
            "Nothing: a session moves when it is used, or expires where it is.",
            "Wait. Leave the old backends running until it is over.",
        )
    }

    /// A backend has returned and is served from, beside the one that stood in.
    pub fn returned(backend: &str, slots: usize) -> Self {
        let sessions = sessions(slots);
        Self::new(
            Code::Returned,
            format!("{backend} has returned: {sessions} are served where they are"),
            "Nothing: new sessions begin at that backend again.",
            "Wait. Leave the backends that stood in running until it is over.",
        )
        .about(backend)
    }

    /// Keys of the main file have changed that are read at the start only.
    pub fn restart_needed(keys: &[String]) -> Self {
        Self::new(
            Code::RestartNeeded,
            format!("a restart is needed for {}", keys.join(", ")),
            "Nothing: the former values stay in force.",
            "Restart this proxy when it suits.",
        )
    }
}

impl Finding {
    fn new(
        code: Code,
        says: impl Into<String>,
        means: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self {
            level: code.level(),
            code,
            about: None,
            says: says.into(),
            means: means.into(),
            action: action.into(),
            since_ms: None,
            until_ms: None,
        }
    }

    fn about(self, about: &str) -> Self {
        Self {
            about: Some(about.to_owned()),
            ..self
        }
    }

    /// The same, there since then.
    #[must_use]
    pub fn since(self, since_ms: impl Into<Option<u64>>) -> Self {
        Self {
            since_ms: since_ms.into(),
            ..self
        }
    }

    /// The same, over by then.
    #[must_use]
    pub fn until(self, until_ms: impl Into<Option<u64>>) -> Self {
        Self {
            until_ms: until_ms.into(),
            ..self
        }
    }

    /// Whether something is wrong, and not only going on.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.level != Level::Info
    }
}

/// Keeps in mind since when each finding has been there.
#[derive(Debug, Default)]
pub struct Findings {
    since_ms: HashMap<(Code, Option<String>), u64>,
}

impl Findings {
    /// What is found now, the worst first. What does not say since when it has been there has been
    /// there since it was found first.
    pub fn found(&mut self, mut found: Vec<Finding>, now_ms: u64) -> Vec<Finding> {
        let mut since_ms = HashMap::with_capacity(found.len());
        for finding in &mut found {
            let key = (finding.code, finding.about.clone());
            let first_ms = self.since_ms.get(&key).copied().unwrap_or(now_ms);
            let began_ms = *finding.since_ms.get_or_insert(first_ms);
            since_ms.insert(key, began_ms);
        }
        self.since_ms = since_ms;
        // Stable: backends stay in the order of the map.
        found.sort_by_key(|finding| (finding.level, finding.code));
        found
    }
}

/// How many findings there are of each code that a proxy can have.
pub(crate) fn counted(findings: &[Finding]) -> Vec<PoolFinding> {
    counted_of(findings, |code| !code.is_of_state_server())
}

/// How many findings there are of each code that a state server can have.
pub(crate) fn counted_of_state_server(findings: &[Finding]) -> Vec<PoolFinding> {
    counted_of(findings, Code::may_be_of_state_server)
}

fn counted_of(findings: &[Finding], can_be: impl Fn(Code) -> bool) -> Vec<PoolFinding> {
    let codes = Code::ALL.iter().filter(|code| can_be(**code));
    let count = |code: &Code| PoolFinding {
        code: code.name(),
        level: code.level().name(),
        count: findings.iter().filter(|found| found.code == *code).count(),
    };
    codes.map(count).collect()
}

/// Slots as a share of the sessions.
fn sessions(slots: usize) -> String {
    let percent = slots as f64 * 100.0 / SLOT_COUNT as f64;
    match percent {
        p if p > 0.0 && p < 0.05 => "less than 0.1 % of the sessions".to_owned(),
        _ => format!("{percent:.1} % of the sessions"),
    }
}

/// A few names, and how many more there are.
fn names(names: &[&str]) -> String {
    const NAMED: usize = 3;
    match names {
        [] => "another backend".to_owned(),
        [only] => (*only).to_owned(),
        _ if names.len() <= NAMED => names.join(" or "),
        _ => format!(
            "{} or one of {} more",
            names[..NAMED].join(", "),
            names.len() - NAMED
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_there_since_it_was_found_first_and_the_worst_stands_first() {
        let mut findings = Findings::default();
        let suspect = || Finding::backend_suspect(SessionKeeper::at("a", "10.0.0.1:42424"), None);
        let found = findings.found(vec![suspect(), Finding::no_backend()], 100);
        let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::NoBackend, Code::BackendSuspect]);
        assert_eq!(findings.found(vec![suspect()], 200)[0].since_ms, Some(100));
        let known = suspect().since(50);
        assert_eq!(findings.found(vec![known], 300)[0].since_ms, Some(50));
        let other = Finding::backend_suspect(SessionKeeper::at("b", "10.0.0.1:42424"), None);
        assert_eq!(findings.found(vec![other], 400)[0].since_ms, Some(400));
        // It was gone in between.
        assert_eq!(findings.found(vec![suspect()], 500)[0].since_ms, Some(500));
    }

    #[test]
    fn sessions_that_came_back_are_counted_in_words_that_fit() {
        let says = |sessions| Finding::sessions_restored("a", sessions).says;
        assert_eq!(
            [1, 2].map(says),
            [
                "a had lost sessions, as by a restart: 1 came back from its copy",
                "a had lost sessions, as by a restart: 2 came back from their copies"
            ]
        );
    }

    #[test]
    fn whoever_waits_for_a_silent_proxy_is_told_what_fails_and_what_ends_it() {
        let silent = Finding::proxy_silent("10.0.0.6:42480", "refused");
        assert!(silent.means.contains("not restored from its copy"));
        assert!(
            silent
                .action
                .contains("staterouter peer 10.0.0.6:42480 gone")
        );
    }

    #[test]
    fn codes_have_names_of_their_own_and_stand_in_the_order_of_their_levels() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted_by_key(|code| (code.level(), *code)));
        for code in Code::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.name()));
        }
        let later: Code = serde_json::from_str("\"of_a_later_version\"").unwrap();
        assert_eq!(later, Code::Unknown);
    }
}
