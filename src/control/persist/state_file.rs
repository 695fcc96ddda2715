//! What must survive the end of the process: where every slot is.
//!
//! One JSON file, replaced as a whole: a reader finds the old content or the new one, whenever the
//! machine stops. It holds the map's hash key, so only its owner may read it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::redis_document::RedisDocument;
use super::slot_groups::{GroupError, SlotGroup, group, ungroup};
use super::tls_document::TrustDocument;
use crate::config::{
    ApplicationSpec, BackendAddress, BackendSpec, BackendState, Faults, PartitionMap,
    derived_backend_id, format_size, parse_size, read_regular,
};
use crate::control::boot_moment::BootMoment;
use crate::control::pool_state::persisted_state::{
    Decision, GivenUp, PersistedState, ServerMemory,
};
use crate::control::pool_state::{FailingMoves, InUse, KnownPeers, Membership};
use crate::control::session_timeouts::SeenTimeout;
use crate::handover::{BackendId, SlotState};
use crate::os;
use crate::usage::Capacity;

/// The format that is written, and the only one that is read.
const FORMAT: u64 = 1;

/// Longest file that is read: more than all slots take, each in a state of its own.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The operating system does not give the file.
    #[error("cannot read the state file {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The file is too long for one that this program wrote.
    #[error("the state file {} is longer than {MAX_FILE_BYTES} bytes; {IF_REMOVED}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what this program writes.
    #[error("the state file {} is damaged: {problem}; {IF_REMOVED}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Damage,
    },
    /// A later version of this program wrote the file.
    #[error(
        "the state file {} has format {format}, this version reads {FORMAT}; run the version that \
         wrote it, or remove the file: {IF_REMOVED}",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The operating system does not take the file.
    #[error("cannot write the state file {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
}

/// What is wrong with a state file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not JSON, or its fields are others.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Its map is not one.
    #[error("its partition map is faulty: {0}")]
    Map(Faults),
    /// Its slots are not all slots.
    #[error("{0}")]
    Slots(#[from] GroupError),
    /// Its slots say more than this version writes.
    #[error("its slots have fields that this version does not know")]
    UnknownFields,
    /// A retired backend is none.
    #[error("the id, address or capacity of retired backend {name:?} cannot be")]
    Retired {
        /// Its name.
        name: String,
    },
    /// An override is about a backend that is not in the map.
    #[error("its partition map has no backend {backend:?}, for which there is an override")]
    Override {
        /// The backend.
        backend: String,
    },
    /// The address of a server that was given up is none.
    #[error("{address:?}, which was given up, is no address")]
    GivenUp {
        /// What stands in its place.
        address: String,
    },
    /// The address of a peer is none.
    #[error("{address:?}, which is said to be a peer, is no address")]
    Peer {
        /// What stands in its place.
        address: String,
    },
    /// Moves are said to fail at a place that no backend can have.
    #[error("moves fail at {id}, which is not the id of a backend")]
    FailingMoves {
        /// What stands in its place.
        id: u8,
    },
    /// A slot is served from a backend that is not in the file.
    #[error("slot {slot} is at backend {id}, which the file does not know")]
    UnknownPlace {
        /// The slot's number.
        slot: usize,
        /// The backend's id.
        id: u8,
    },
}

const IF_REMOVED: &str = "a proxy that starts without it takes every session to be where its peers \
                          have it or, alone, where the partition map says: sessions that are on \
                          their way are lost then";

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    /// `None` in files of versions that trusted the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<MomentDocument>,
    /// With the keys of the partition map itself.
    map: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<OverrideDocument>,
    retired: Vec<BackendDocument>,
    given_up: Vec<GivenUpDocument>,
    /// Of versions that did not know when it was seen.
    #[serde(default, skip_serializing)]
    longest_timeout_minutes: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    servers: Vec<ServerDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failing_moves: Vec<FailingDocument>,
    #[serde(default)]
    session_timeouts: Vec<TimeoutDocument>,
    #[serde(default, skip_serializing_if = "PeersDocument::is_empty")]
    peers: PeersDocument,
    slots: Vec<SlotGroup>,
}

/// With the keys of a backend in the partition map.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendDocument {
    name: String,
    /// `None` when it is derived from the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u8>,
    /// `None` for one on an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redis: Option<RedisDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<TrustDocument>,
    weight: u16,
    #[serde(with = "StateName")]
    state: BackendState,
    #[serde(default)]
    capacity: CapacityDocument,
}

/// With the keys of a capacity in the partition map.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideDocument {
    backend: String,
    #[serde(with = "StateName")]
    state: BackendState,
    since_ms: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    withdrawn: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    only_here: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fresh_ms: Option<u64>,
}

/// When the file was written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MomentDocument {
    now_ms: u64,
    boot_id: String,
    since_boot_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutDocument {
    minutes: u32,
    seen_ms: u64,
}

/// What is known of the other proxies.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersDocument {
    #[serde(default)]
    membership: u64,
    #[serde(default)]
    by: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

/// Where a backend is asked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerDocument {
    backend: String,
    address: SocketAddr,
    since_ms: u64,
    is_change: bool,
    is_ordered: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenUpDocument {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u8>,
    /// Of versions that knew one.
    #[serde(default, skip_serializing)]
    address: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    since_ms: u64,
}

/// Moves that fail, by ids of backends.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailingDocument {
    from: u8,
    to: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    since_ms: u64,
}

/// What was written down, and whether all its times are certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// With the times that they have by today's clock.
    pub memory: PersistedState,
    /// Nobody knows how long ago it was written: it counts as just now.
    pub is_time_unknown: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BackendState", rename_all = "lowercase")]
pub(crate) enum StateName {
    Active,
    Drain,
    Off,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Reads the state; `None` if there is no file. What happened while the machine was down or the file
/// was elsewhere takes no time: everything waits longer, and nothing ends early because the wall clock
/// is wrong.
///
/// # Errors
/// [`StateFileError`], for everything but a file that is whole: half of the truth loses sessions.
pub fn read(path: &Path, now: &BootMoment) -> Result<Option<Remembered>, StateFileError> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    let damaged = |problem: Damage| StateFileError::Damaged {
        path: path.to_owned(),
        problem,
    };
    // The format decides what else may stand there.
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.into()))?;
    if let Some(format) = value.get("format").and_then(Value::as_u64)
        && format > FORMAT
    {
        return Err(StateFileError::Newer {
            path: path.to_owned(),
            format,
        });
    }
    let slots = value.get("slots").cloned();
    let document: Document =
        serde_json::from_value(value).map_err(|error| damaged(error.into()))?;
    // Of a peer's slots, what is not known is skipped. Here nothing is: half of the truth.
    if serde_json::to_value(&document.slots).ok() != slots {
        return Err(damaged(Damage::UnknownFields));
    }
    document.into_memory(now).map(Some).map_err(damaged)
}

/// Writes the state: when this returns, it survives the end of the machine.
///
/// # Errors
/// [`StateFileError::Write`]; the file is as it was, or, if only the directory could not be written
/// to the disk, it is the new one until the machine ends, and one of both after.
pub fn write(path: &Path, memory: &PersistedState, now: BootMoment) -> Result<(), StateFileError> {
    let failed = |problem: io::Error| StateFileError::Write {
        path: path.to_owned(),
        problem,
    };
    let bytes =
        serde_json::to_vec(&Document::new(memory, now)).map_err(|error| failed(error.into()))?;
    replace(path, &bytes).map_err(failed)
}

/// Puts `bytes` in the place of what the file at `path` holds, all or nothing, for its owner alone.
/// After an error in the last step, the directory's way to the disk, the file is the new one;
/// after any other it is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // One that a crash has left behind may belong to others.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true);
    let mut file = os::owner_only(options).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    // Opened before, so that too many open files leave everything as it was.
    let directory = os::SyncedDirectory::open(directory)?;
    fs::rename(&temporary, path)?;
    directory.sync()
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StateFileError> {
    let path = path.to_owned();
    match read_regular(&path, MAX_FILE_BYTES) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => Err(StateFileError::TooLong { path }),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(problem) => Err(StateFileError::Read { path, problem }),
    }
}

impl Document {
    fn new(memory: &PersistedState, now: BootMoment) -> Self {
        let timeout = |SeenTimeout { minutes, seen_ms }| TimeoutDocument { minutes, seen_ms };
        Self {
            format: FORMAT,
            written: Some(now.into()),
            map: write_map(&memory.map),
            overrides: memory.decisions.iter().map(OverrideDocument::new).collect(),
            retired: memory.retired.iter().map(BackendDocument::new).collect(),
            given_up: memory.given_up.iter().map(GivenUpDocument::new).collect(),
            servers: memory.servers.iter().map(ServerDocument::new).collect(),
            failing_moves: memory.failing.iter().map(FailingDocument::new).collect(),
            longest_timeout_minutes: 0,
            session_timeouts: memory.timeouts.iter().map(timeout).collect(),
            peers: PeersDocument::new(&memory.known_peers),
            slots: group(&memory.slots),
        }
    }

    fn into_memory(self, now: &BootMoment) -> Result<Remembered, Damage> {
        // JSON is YAML: the map is checked as the operator's own.
        let text = self.map.to_string();
        let map = PartitionMap::parse(text, "map").map_err(Damage::Map)?;
        let retired = self.retired.into_iter().map(BackendDocument::into_spec);
        let retired = retired.collect::<Result<Vec<_>, _>>()?;
        let given_up = self.given_up.into_iter().map(GivenUpDocument::into_server);
        let given_up = given_up.collect::<Result<Vec<_>, _>>()?;
        let servers = self.servers.into_iter().map(ServerDocument::into_memory);
        let failing = self.failing_moves.into_iter();
        let failing = failing.map(FailingDocument::into_moves);
        let failing = failing.collect::<Result<Vec<_>, _>>()?;
        let decisions = self.overrides.into_iter();
        let decisions = decisions.map(|known| known.into_decision(&map));
        let decisions = decisions.collect::<Result<Vec<_>, _>>()?;
        let slots = ungroup(&self.slots)?;
        check_places(&map, &retired, &slots)?;
        let timeouts = self.session_timeouts.into_iter();
        let timeouts =
            timeouts.map(|TimeoutDocument { minutes, seen_ms }| SeenTimeout { minutes, seen_ms });
        let mut memory = PersistedState {
            map,
            decisions,
            retired,
            given_up,
            servers: servers.collect(),
            failing,
            timeouts: timeouts.collect(),
            known_peers: self.peers.into_known()?,
            slots: slots.into(),
        };
        let written = self.written.map(BootMoment::from);
        let then_ms = written.as_ref().map_or(0, |written| written.now_ms);
        let then_ms = then_ms.max(memory.latest_ms());
        memory.timeouts.saw(SeenTimeout {
            minutes: self.longest_timeout_minutes,
            seen_ms: then_ms,
        });
        let elapsed_ms = written.and_then(|written| now.since(&written));
        // Both clocks agree: times stay as they were, to the millisecond.
        let by_wall_ms = now.now_ms.saturating_sub(then_ms);
        let elapsed_ms = elapsed_ms.map(|ms| match by_wall_ms.abs_diff(ms) {
            0..1000 => by_wall_ms,
            _ => ms,
        });
        Ok(Remembered {
            memory: memory.at(then_ms, now.now_ms, elapsed_ms.unwrap_or(0)),
            is_time_unknown: elapsed_ms.is_none(),
        })
    }
}

impl PeersDocument {
    fn new(known: &KnownPeers) -> Self {
        let text =
            |addresses: &[BackendAddress]| addresses.iter().map(ToString::to_string).collect();
        Self {
            membership: known.membership.number,
            by: known.membership.by.clone(),
            addresses: text(&known.peers),
            gone: text(&known.gone),
        }
    }

    fn is_empty(&self) -> bool {
        self.membership == 0 && self.addresses.is_empty()
    }

    fn into_known(self) -> Result<KnownPeers, Damage> {
        let parse = |addresses: Vec<String>| -> Result<Vec<BackendAddress>, Damage> {
            let parsed = addresses.into_iter().map(|address| {
                let parsed = BackendAddress::parse(&address);
                parsed.map_err(|_| Damage::Peer { address })
            });
            parsed.collect()
        };
        Ok(KnownPeers {
            membership: Membership {
                number: self.membership,
                by: self.by,
            },
            peers: parse(self.addresses)?,
            gone: parse(self.gone)?,
        })
    }
}

impl FailingDocument {
    fn new(moves: &FailingMoves) -> Self {
        Self {
            from: moves.from.id(),
            to: moves.to.id(),
            status: moves.status,
            since_ms: moves.since_ms,
        }
    }

    fn into_moves(self) -> Result<FailingMoves, Damage> {
        let backend_id = |id| BackendId::new(id).ok_or(Damage::FailingMoves { id });
        Ok(FailingMoves {
            from: backend_id(self.from)?,
            to: backend_id(self.to)?,
            status: self.status,
            since_ms: self.since_ms,
            last_ms: self.since_ms,
            moves: 0,
        })
    }
}

impl BackendDocument {
    fn new(spec: &BackendSpec) -> Self {
        Self {
            name: spec.name.clone(),
            id: (!spec.id_is_derived).then_some(spec.id),
            address: spec.redis.is_none().then(|| spec.address.to_string()),
            redis: spec.redis.as_ref().map(RedisDocument::from),
            tls: spec.tls.as_ref().map(TrustDocument::from),
            weight: spec.weight,
            state: spec.state,
            capacity: CapacityDocument::new(spec.capacity),
        }
    }

    fn into_spec(self) -> Result<BackendSpec, Damage> {
        let id = self.id.unwrap_or_else(|| derived_backend_id(&self.name));
        let capacity = self.capacity.into_capacity();
        let redis = self.redis.map(RedisDocument::into_spec).transpose();
        let at = match (self.address, redis) {
            (Some(address), Ok(None)) => BackendAddress::parse(&address).ok().zip(Some(None)),
            (None, Ok(Some(redis))) => Some((redis.stand_in(), Some(redis))),
            _ => None,
        };
        // Without what is said of it a backend would be asked in the clear.
        let tls = match self.tls.map(TrustDocument::into_trust) {
            Some(None) => return Err(Damage::Retired { name: self.name }),
            tls => tls.flatten(),
        };
        match (at, capacity) {
            (Some((address, redis)), Ok(capacity)) if BackendId::new(id).is_some() => {
                Ok(BackendSpec {
                    name: self.name,
                    id,
                    id_is_derived: self.id.is_none(),
                    address,
                    redis,
                    tls,
                    weight: self.weight,
                    state: self.state,
                    capacity,
                })
            }
            _ => Err(Damage::Retired { name: self.name }),
        }
    }
}

impl CapacityDocument {
    fn new(capacity: Capacity) -> Self {
        Self {
            sessions: capacity.sessions,
            memory: capacity.memory_bytes.map(format_size),
        }
    }

    fn into_capacity(self) -> Result<Capacity, String> {
        let memory_bytes = self.memory.map(|memory| parse_size(&memory));
        Ok(Capacity {
            sessions: self.sessions,
            memory_bytes: memory_bytes.transpose()?,
        })
    }
}

impl OverrideDocument {
    fn new(known: &Decision) -> Self {
        Self {
            backend: known.backend.clone(),
            state: known.state,
            since_ms: known.since_ms,
            epoch: known.epoch,
            withdrawn: known.is_withdrawn,
            only_here: known.is_only_here,
            fresh_ms: known.fresh_ms,
        }
    }

    fn into_decision(self, map: &PartitionMap) -> Result<Decision, Damage> {
        let backend = self.backend;
        if !map.backends.iter().any(|spec| spec.name == backend) {
            return Err(Damage::Override { backend });
        }
        Ok(Decision {
            backend,
            state: self.state,
            is_withdrawn: self.withdrawn,
            epoch: self.epoch,
            since_ms: self.since_ms,
            is_only_here: self.only_here,
            fresh_ms: self.fresh_ms,
        })
    }
}

impl ServerDocument {
    fn new(known: &ServerMemory) -> Self {
        Self {
            backend: known.backend.clone(),
            address: known.in_use.address,
            since_ms: known.in_use.since_ms,
            is_change: known.in_use.is_change,
            is_ordered: known.is_ordered,
        }
    }

    fn into_memory(self) -> ServerMemory {
        ServerMemory {
            backend: self.backend,
            in_use: InUse {
                address: self.address,
                since_ms: self.since_ms,
                is_change: self.is_change,
            },
            is_ordered: self.is_ordered,
        }
    }
}

impl GivenUpDocument {
    fn new(server: &GivenUp) -> Self {
        Self {
            name: server.name.clone(),
            id: server.id,
            address: None,
            addresses: server.addresses.iter().map(ToString::to_string).collect(),
            since_ms: server.since_ms,
        }
    }

    fn into_server(self) -> Result<GivenUp, Damage> {
        let parse = |address: String| match BackendAddress::parse(&address) {
            Ok(parsed) => Ok(parsed),
            Err(_) => Err(Damage::GivenUp { address }),
        };
        let addresses = self.addresses.into_iter().chain(self.address).map(parse);
        Ok(GivenUp {
            name: self.name,
            id: self.id,
            addresses: addresses.collect::<Result<_, _>>()?,
            since_ms: self.since_ms,
        })
    }
}

impl From<BootMoment> for MomentDocument {
    fn from(moment: BootMoment) -> Self {
        let BootMoment {
            now_ms,
            boot_id,
            since_boot_ms,
        } = moment;
        Self {
            now_ms,
            boot_id,
            since_boot_ms,
        }
    }
}

impl From<MomentDocument> for BootMoment {
    fn from(document: MomentDocument) -> Self {
        Self {
            now_ms: document.now_ms,
            boot_id: document.boot_id,
            since_boot_ms: document.since_boot_ms,
        }
    }
}

/// Every slot is served from backends of the file, and no two of them have one id.
fn check_places(
    map: &PartitionMap,
    retired: &[BackendSpec],
    slots: &[SlotState],
) -> Result<(), Damage> {
    let mut is_known = [false; 256];
    for backend in map.backends.iter().chain(retired) {
        if std::mem::replace(&mut is_known[usize::from(backend.id)], true) {
            let name = backend.name.clone();
            return Err(Damage::Retired { name });
        }
    }
    for (number, slot) in slots.iter().enumerate() {
        for backend_id in slot.serving() {
            if !is_known[usize::from(backend_id.id())] {
                return Err(Damage::UnknownPlace {
                    slot: number,
                    id: backend_id.id(),
                });
            }
        }
    }
    Ok(())
}

fn write_application(application: &ApplicationSpec) -> Value {
    json!({
        "name": application.name,
        "id": application.id,
        "also": application.also,
        "ignore_case": if application.ignore_case { "on" } else { "off" },
        "hash": application.hash,
    })
}

fn write_map(map: &PartitionMap) -> Value {
    let backends = map.backends.iter().map(BackendDocument::new);
    let mut written = json!({
        "version": map.version,
        "hash_key": map.hash_key.to_hex(),
        "backends": backends.collect::<Vec<_>>(),
    });
    if map.replicas > 0 {
        written["replicas"] = map.replicas.into();
    }
    if let Some(percent) = map.accept_moved_percent {
        written["accept_moved_share"] = percent.into();
    }
    if !map.applications.is_empty() {
        let applications = map.applications.iter().map(write_application);
        written["applications"] = applications.collect();
    }
    written
}

#[cfg(test)]
mod tests;
