//! What the proxy says about itself: `GET /status`, written by control and read by the terminal.
//! Every field stands here and in docs/status.md; more may come, those that are here keep their
//! meaning.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::finding::{Finding, SessionKeeper};
use super::replication::{CopiesStatus, FailoverStatus, ReplicaCounts, ReplicationStatus};
use crate::config::BackendState;
use crate::control::persist::slot_groups::StageName;
use crate::handover::Stage;

/// The state of the proxy at one moment. Times are Unix time in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Drawn anew at every start.
    pub instance: String,
    /// Name of the machine that it runs on.
    pub host: String,
    /// Where it listens for web servers.
    pub listen: String,
    /// When the program was started.
    pub started_ms: u64,
    /// When this was written down.
    pub now_ms: u64,
    /// What is wrong or going on, the worst first.
    pub findings: Vec<Finding>,
    /// Version of the partition map in force.
    pub map_version: u64,
    /// How the last look at the files ended that found something new or was asked for; none since
    /// the start is `null`.
    pub last_reload: Option<LastReload>,
    /// The backends of the map in its order, behind them those that left it and still hold slots.
    pub backends: Vec<BackendStatus>,
    /// The applications of the partition map in its order, behind them all others together; empty
    /// without applications in the map.
    #[serde(default)]
    pub applications: Vec<ApplicationStatus>,
    /// How the sessions of the backends are counted.
    pub accounting: AccountingStatus,
    /// All slots, by stage.
    pub slots: StageCounts,
    /// The second copies of the sessions; `null` without `replicas` in the partition map.
    #[serde(default)]
    pub replication: Option<ReplicationStatus>,
    /// The last failure since the start after which sessions went on with their copies; `null` if
    /// there was none.
    #[serde(default)]
    pub last_failover: Option<FailoverStatus>,
    /// What is going on in the slots that are not steady, by stage and places.
    pub under_way: Vec<HandoverProgress>,
    /// The longest session timeout seen, here or by a peer, in minutes; 0 for none so far.
    pub longest_session_timeout_minutes: u32,
    /// The other proxies, in the order of the main file.
    pub peers: Vec<PeerStatus>,
}

/// How a look at the files ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When it ended.
    pub at_ms: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: ReloadOutcome,
}

/// The result of reading both files again, whoever asked for it: also the answer of `POST /reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// How it ended.
    pub result: ReloadResult,
    /// Version of the partition map in force now.
    pub map_version: u64,
    /// What is wrong, for people; with places in the files where there are some. Empty unless the
    /// files were refused.
    pub faults: Vec<String>,
    /// Keys of the main file whose new value takes a restart.
    pub needs_restart: Vec<String>,
}

/// How reading both files again ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// Something is new, and in force.
    Applied,
    /// What is in force is what both files say, but for what takes a restart.
    Unchanged,
    /// The files have faults or the change is not allowed: what was in force stays so.
    Refused,
}

/// What became of an order about one backend, or would of one that is not given: the answer of
/// `POST /backends/NAME/STATE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SteerOutcome {
    /// How it ended.
    pub result: SteerResult,
    /// The backend.
    pub backend: String,
    /// The state that was ordered: `active`, `drain`, `off`.
    pub state: &'static str,
    /// Whether an override of the partition map is in force for this backend now, or would be.
    #[serde(rename = "override")]
    pub is_override: bool,
    /// Slots that are to go to another backend than before.
    pub moved_slots: usize,
    /// Why it was refused; else `null`.
    pub reason: Option<String>,
}

/// How an order about one backend ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteerResult {
    /// It is in force, and will be after a restart.
    Applied,
    /// It would be, had it been meant.
    Accepted,
    /// That was in force already.
    Unchanged,
    /// It is not allowed: what was in force stays so.
    Refused,
}

/// What a backend is in the pool for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It serves its share.
    Active,
    /// It lets go of its sessions.
    Drain,
    /// It is given up.
    Off,
    /// It is not in the partition map any more, and lets go of its sessions.
    Removed,
}

impl From<BackendState> for ServiceState {
    fn from(state: BackendState) -> Self {
        match state {
            BackendState::Active => Self::Active,
            BackendState::Drain => Self::Drain,
            BackendState::Off => Self::Off,
        }
    }
}

impl Display for ServiceState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Drain => "drain",
            Self::Off => "off",
            Self::Removed => "removed",
        })
    }
}

/// A state that a backend has by an operator's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideStatus {
    /// What the partition map says: `active`, `drain`, `off`.
    pub in_map: ServiceState,
    /// When the order came.
    pub since_ms: u64,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name in the partition map.
    pub name: String,
    /// Its id in the partition map.
    pub id: u8,
    /// Its address in the partition map.
    pub address: String,
    /// Where it is asked: that address, one that its host name leads to, or, while a changed one has
    /// not answered, the one before; `null` while there is none.
    pub address_in_use: Option<String>,
    /// What is in force: `active`, `drain`, `off`; `removed` once it is not in the partition map.
    pub state: ServiceState,
    /// Set if an operator's order and not the partition map has given it that state.
    #[serde(rename = "override")]
    pub overridden: Option<OverrideStatus>,
    /// Its share relative to the other backends, by the partition map.
    pub weight: u16,
    /// What its health says; of one that is off, what it said last.
    pub verdict: BackendHealth,
    /// Why it is not up, or that nobody has asked it yet, in words; else `null`.
    pub reason: Option<String>,
    /// When the verdict began.
    pub since_ms: u64,
    /// Slots that the partition map gives it.
    pub slots_owned: usize,
    /// Slots whose items are all there, or that it serves before the other place.
    pub slots_first: usize,
    /// Slots that the map gives it and that are to move to it, but stay where they are until it
    /// answers and holds nothing outdated.
    pub slots_waiting: usize,
    /// Slots whose requests are refused because it is down and no other backend stands in.
    pub slots_refused: usize,
    /// Until when those requests wait instead; `null` if it is not down, or refuses none.
    #[serde(default)]
    pub waits_until_ms: Option<u64>,
    /// When it should hold no sessions any more, if it is to have none: the end of all handovers
    /// that this takes. `null` if it is to have some, and when nobody can say.
    pub empty_ms: Option<u64>,
    /// Slots with it at either place, by stage.
    pub slots_in: StageCounts,
    /// Slots of which it keeps the copies, by how far it is.
    #[serde(default)]
    pub slots_as_replica: ReplicaCounts,
    /// The copies that it keeps.
    #[serde(default)]
    pub copies: CopiesStatus,
    /// Slots that it serves and of which no other backend has all copies.
    #[serde(default)]
    pub slots_unprotected: usize,
    /// Removals that it has missed and still has to be told of.
    pub pending_deletes: usize,
    /// Sessions moved to it since the start.
    pub moved_here: u64,
    /// Requests answered "no such session" since the start because it was out of reach and another
    /// backend stood in.
    pub absent_while_away: u64,
    /// The memory of the engine that keeps its sessions; `null` without one, and while it does not
    /// tell.
    #[serde(default)]
    pub engine: Option<EngineStatus>,
    /// What lives there.
    #[serde(flatten)]
    pub load: BackendLoad,
}

/// The memory of an engine, by the last look at it, which is at most a minute old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// In use, all servers together, for whatever.
    pub memory_bytes: u64,
    /// Its limit; `null` if a server has none.
    pub max_memory_bytes: Option<u64>,
    /// The server that is nearest to its limit; `null` if none has one.
    pub fullest_server: Option<String>,
    /// How much of it is in use there.
    pub fullest_percent: Option<f64>,
}

impl Status {
    /// For how long something lasts that began then.
    pub fn lasts_ms(&self, since_ms: u64) -> u64 {
        self.now_ms.saturating_sub(since_ms)
    }
}

impl BackendStatus {
    /// It, and what has to be started when it does not answer.
    pub fn keeper(&self) -> SessionKeeper<'_> {
        SessionKeeper::at(&self.name, &self.address)
    }

    /// Whether no slot has it at one of its places: users do not notice how it is.
    pub fn is_idle(&self) -> bool {
        self.slots_in == StageCounts::default()
    }

    /// Whether others have copies of all that it serves, and nobody else stands in for it without.
    pub fn loses_nothing(&self) -> bool {
        let StageCounts {
            away, back, wait, ..
        } = self.slots_in;
        self.slots_unprotected == 0 && away + back + wait == 0
    }

    /// Whether requests are sent to it. One that is off is never probed: its verdict is the last one
    /// that it had.
    pub fn serves(&self) -> bool {
        self.state != ServiceState::Off && self.verdict != BackendHealth::Down
    }
}

/// What lives at a backend, as far as this proxy has seen: estimates, all `null` while nothing is
/// counted.
///
/// The standard errors are in percent of the figure: the truth is within one of them two times out
/// of three, within two of them 19 times out of 20. They are 0 while every session is followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendLoad {
    /// Living sessions.
    pub sessions: Option<u64>,
    /// Standard error of `sessions`.
    pub sessions_error_percent: Option<f64>,
    /// Bytes of their bodies: what the web servers have stored, without keys and what else a state
    /// server needs.
    pub session_bytes: Option<u64>,
    /// Standard error of `session_bytes`.
    pub session_bytes_error_percent: Option<f64>,
    /// Growth of `sessions` over the last ten minutes, at most; negative when they get fewer.
    /// `null` in the first minute, in a handover, and while `accounting.complete` is false.
    pub sessions_per_minute: Option<f64>,
    /// The same of `session_bytes`.
    pub session_bytes_per_minute: Option<f64>,
    /// What the partition map says that it can hold; of bytes no more than its engine has room for.
    pub capacity: CapacityStatus,
    /// Part of the capacity in use, of sessions or of memory, or of the memory of the engine's fullest
    /// server, whichever is most; `null` without a capacity. May exceed 100.
    pub used_percent: Option<f64>,
    /// When the capacity is used up if it goes on as in the last minutes; 0 if it is. `null` without
    /// a capacity, and when that is more than 30 days away or never.
    pub seconds_to_full: Option<u64>,
}

/// What a backend can hold; `null` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityStatus {
    /// Sessions.
    pub sessions: Option<u64>,
    /// Bytes of their bodies.
    pub memory_bytes: Option<u64>,
}

/// One application of the partition map, or all others together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationStatus {
    /// Its name in the partition map; `other` for all others.
    pub name: String,
    /// Its requests since it is in the map, or since the start.
    pub requests: u64,
    /// Those of them that brought no whole answer, or 400.
    pub requests_failed: u64,
    /// Those that came under another id than the one that state servers know.
    pub requests_renamed: u64,
    /// Its living sessions, an estimate; `null` while nothing is counted.
    pub sessions: Option<u64>,
    /// Bytes of their bodies, an estimate; `null` while nothing is counted.
    pub session_bytes: Option<u64>,
}

/// How the sessions of the backends are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountingStatus {
    /// Whether they are.
    pub on: bool,
    /// Whether all living sessions are counted: false for up to one session timeout after the start,
    /// when those that nobody has used since are missing.
    pub complete: bool,
    /// When they were counted last; they are every 5 s. 0 while they are not.
    pub at_ms: u64,
    /// Sessions that are followed.
    pub followed: usize,
    /// One in so many sessions is followed and stands for the others: a power of two.
    pub one_in: u64,
}

/// What a backend's health says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendHealth {
    /// It answers.
    Up,
    /// It failed lately, not often enough to be down; it is served from.
    Suspect,
    /// Nothing is sent to it but probes.
    Down,
}

impl Display for BackendHealth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// How many slots are in which stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCounts {
    /// Everything is at one place.
    pub steady: usize,
    /// Handover, before anything moves.
    pub settle: usize,
    /// Handover, new items are created at the earlier place.
    pub move1: usize,
    /// Handover, new items are created at the new place.
    pub move2: usize,
    /// A handover that has stopped, because the new place is to be left.
    #[serde(default)]
    pub turned: usize,
    /// Requests are refused: the place is down.
    pub suspect: usize,
    /// Another backend stands in.
    pub away: usize,
    /// The failed backend is back, its items are still refused.
    pub back: usize,
    /// The failed backend is back, everything is served where it is.
    pub wait: usize,
}

/// Slots with the same places in the same stage. `docs/handover.md` explains stages and places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverProgress {
    /// The stage.
    #[serde(with = "StageName")]
    pub stage: Stage,
    /// The stage in words for people.
    pub label: String,
    /// What that means for the sessions of these slots.
    pub means: String,
    /// Name of the first place: where sessions move to, or who stands in.
    pub first: String,
    /// Name of the second place: where sessions move from, or who failed.
    pub second: String,
    /// How many slots.
    pub slots: usize,
    /// When it began in the first of them: the handover as a whole, the stage of a failure.
    pub began_ms: u64,
    /// When the stage should end in the first of them; those of a failure end when the backend
    /// answers, too.
    pub stage_ends_ms: u64,
    /// When it ends in the last of them if nothing holds it up: the handover as a whole, of the
    /// stages of a failure `wait`; `null` for the others, and while sessions cannot be moved. Where
    /// the slots are to go on from there, the next handover counts, too.
    pub ends_ms: Option<u64>,
    /// Set while sessions stay at the second place because they cannot be moved.
    pub failing: Option<FailingStatus>,
}

/// Sessions that cannot be moved: the handover does not end before they have moved or expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingStatus {
    /// Why, in words.
    pub reason: String,
    /// When the first move failed.
    pub since_ms: u64,
    /// When the last one did.
    pub last_ms: u64,
    /// Moves that failed at this proxy since its start.
    pub moves: u64,
}

/// Another proxy of the farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its admin address.
    pub address: String,
    /// Why it is not reachable; `null` when it is.
    pub failure: Option<String>,
    /// Version of its partition map, if it is reachable.
    pub map_version: Option<u64>,
    /// Whether it is reachable and has other overrides than this proxy.
    pub overrides_differ: bool,
    /// Whether it is gone by order: nobody waits for it before it has joined again.
    #[serde(default)]
    pub gone: bool,
}

/// How the order to go on without a proxy has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteerPeerOutcome {
    /// How.
    pub result: SteerResult,
    /// The proxy's address.
    pub peer: String,
    /// Why it was refused.
    pub reason: Option<String>,
}

#[cfg(test)]
pub(crate) mod example;

#[cfg(test)]
mod tests;
