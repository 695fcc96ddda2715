//! The partition map, `partition-map.yaml`.

use std::collections::HashMap;

use crate::route::HashKey;
use crate::usage::Capacity;

use super::address::BackendAddress;
use super::applications::{ApplicationSpec, read_applications};
use super::fault::{Fault, FaultReport, Faults, Location};
use super::kinds::{Choice, Integer, Mistake, Sizes, Text, ValueKind};
use super::locations::Pos;
use super::outline::Outline;
use super::printable::quoted;
use super::raw;
use super::reader::{MapReader, Read, read_map, read_nothing};
use super::redis_section::{FILE, read_redis};
use super::redis_spec::RedisSpec;
use super::sections::{NAME, PERCENT, SWITCH, to_percent};
use super::tls_section::{TlsTrust, read_client};

/// Largest id of a backend: lock cookies have 7 bits for it, and 0 means none.
pub const MAX_BACKEND_ID: u8 = 127;

/// The operator's list of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMap {
    /// Counts up with every change of the file; at least 1.
    pub version: u64,
    /// The key under which session ids are hashed to slots.
    pub hash_key: HashKey,
    /// Share of the slots that this map may move, 1 to 100; `None` leaves it to
    /// [`HandoverConfig::max_moved_percent`](super::HandoverConfig::max_moved_percent).
    pub accept_moved_percent: Option<u8>,
    /// On how many backends each session is kept besides its own: 0 or 1.
    pub replicas: u8,
    /// 1 to 127 backends in file order, at least one of them active. Names, ids and addresses
    /// are unique.
    pub backends: Vec<BackendSpec>,
    /// The applications that go by several ids, in file order. Names and ids are unique.
    pub applications: Vec<ApplicationSpec>,
}

/// One backend of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    /// Its name, 1 to 63 characters of `A-Z a-z 0-9 . _ -`. Sessions follow the name.
    pub name: String,
    /// Its tag in lock cookies, 1 to 127.
    pub id: u8,
    /// Whether `id` was derived from the name.
    pub id_is_derived: bool,
    /// Where it listens. An engine has an address of its own here that no server can have: those
    /// who agree about servers do so by their addresses ([`RedisSpec::stand_in`]).
    pub address: BackendAddress,
    /// The engine that keeps its sessions, served in this process; `None` for a state server.
    pub redis: Option<RedisSpec>,
    /// How it is reached with TLS, whatever the main file says of all backends.
    pub tls: Option<TlsTrust>,
    /// Its share of the sessions relative to the other backends, 1 to 1000.
    pub weight: u16,
    /// Whether it takes part.
    pub state: BackendState,
    /// How much it can hold.
    pub capacity: Capacity,
}

impl BackendSpec {
    /// Where its sessions are, for people.
    pub fn shown_address(&self) -> String {
        match &self.redis {
            Some(redis) => redis.to_string(),
            None => self.address.to_string(),
        }
    }
}

/// Whether a backend takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Serves its share.
    Active,
    /// Gets no new sessions; those it has move away over one session lifetime.
    Drain,
    /// Removed at once; what it holds is given up.
    Off,
}

impl BackendState {
    /// As the partition map writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drain => "drain",
            Self::Off => "off",
        }
    }
}

impl PartitionMap {
    /// Reads a partition map from memory. `file_name` is the name in messages.
    ///
    /// # Errors
    /// All faults of the text at once.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<PartitionMap, Faults> {
        let MapFile { draft, report } = MapFile::read(text.as_ref(), file_name);
        Ok(report.finish(draft.map)?.0)
    }
}

/// The partition map as far as it could be read.
pub(crate) struct MapFile<'t> {
    draft: MapDraft,
    report: FaultReport<'t>,
}

#[derive(Default)]
struct MapDraft {
    map: Option<PartitionMap>,
    /// The place of its name: the key itself is not shown.
    hash_key: Option<Location>,
    /// Where the certificates of each backend are named.
    tls_places: Vec<Option<Location>>,
}

/// The key in the example of the docs.
const EXAMPLE_KEY: [u8; 16] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
];

impl<'t> MapFile<'t> {
    pub(crate) fn read(bytes: &'t [u8], file_name: &str) -> Self {
        let (root, mut report) = raw::parse(bytes, file_name);
        let what = "the partition map";
        let draft = root.map(|root| read_map(&root, what, &mut report.sink, read_partition_map).0);
        Self {
            draft: draft.unwrap_or_default(),
            report,
        }
    }

    /// Warns of a key that everybody knows.
    pub(crate) fn warn_of_known_key(&mut self) {
        let Some(map) = &self.draft.map else {
            return;
        };
        let what = if map.hash_key == HashKey::new(EXAMPLE_KEY) {
            "`hash_key` is the example of the docs, which everybody knows"
        } else if map.hash_key == HashKey::DEFAULT && self.draft.hash_key.is_some() {
            "`hash_key` is the default, which everybody knows"
        } else if map.hash_key == HashKey::DEFAULT {
            "there is no `hash_key`, so the default counts, which everybody knows"
        } else {
            return;
        };
        let place = self.draft.hash_key.unwrap_or(Location::At(Pos::TOP));
        let help = "strangers can choose session ids that crowd one backend: before the farm goes \
                    live, write one of your own (`openssl rand -hex 16`); later, \
                    docs/operations.md says how it can be changed";
        self.report.sink.warn(place, what, help);
    }

    /// Files that give no working end of a connection are faults.
    pub(crate) fn read_certificates(&mut self) {
        let backends = self.draft.map.iter_mut().flat_map(|map| &mut map.backends);
        for (backend, place) in backends.zip(&self.draft.tls_places) {
            if let (Some(trust), Some(place)) = (&mut backend.tls, place)
                && let Err(problem) = trust.load(&format!("backend {}", backend.name))
            {
                let help = "name authorities, a certificate and its key in PEM form, that staterouter \
                            may read";
                self.report.sink.add(*place, problem.to_string(), help);
            }
        }
    }

    /// A backend cannot be reached both with TLS and without.
    pub(crate) fn check_plain(&mut self, plain: &[String]) {
        let backends = self.draft.map.iter().flat_map(|map| &map.backends);
        for (backend, place) in backends.zip(&self.draft.tls_places) {
            if let Some(place) = place
                && plain.contains(&backend.name)
            {
                let name = quoted(&backend.name);
                let problem = format!("`backend_tls.plain` of the main file lists {name}");
                self.report
                    .sink
                    .add(*place, problem, "remove `tls` here, or the name there");
            }
        }
    }

    /// # Errors
    /// All faults at once.
    pub(crate) fn finish(self) -> Result<(PartitionMap, Vec<Fault>), Faults> {
        self.report.finish(self.draft.map)
    }
}

/// The id of a backend that the map gives none: the hash of the name under [`HashKey::DEFAULT`],
/// modulo 127, plus 1. The same in every proxy, whatever the map's own key.
pub fn derived_backend_id(name: &str) -> u8 {
    let below_max = HashKey::DEFAULT.hash(name.as_bytes()) % u64::from(MAX_BACKEND_ID);
    u8::try_from(below_max + 1).unwrap_or(MAX_BACKEND_ID)
}

/// The keys of the partition map.
pub(crate) fn outline() -> Outline {
    read_nothing(read_partition_map).1
}

/// A backend as far as it could be read, with the places of what must be unique.
struct Draft {
    name: Read<String>,
    id: Read<u64>,
    address: Read<BackendAddress>,
    redis: Option<RedisSpec>,
    tls: Option<TlsTrust>,
    tls_place: Option<Location>,
    weight: u64,
    state: BackendState,
    capacity: Capacity,
}

fn read_partition_map(map: &mut MapReader<'_, '_>) -> MapDraft {
    let version = map.required(
        "version",
        "Counts the changes of this file. Raise it with every change: a proxy says which version \
         it runs.",
        &Integer(1..=u64::MAX),
    );
    let hash_key = map.optional(
        "hash_key",
        "Secret key under which session ids are hashed to backends, the same in every proxy. Set \
         one of your own where strangers could choose session ids to crowd one backend; it cannot \
         be changed while there are sessions.",
        &HASH_KEY,
        HashKey::DEFAULT,
    );
    let accept_moved_share = map.derived(
        "accept_moved_share",
        "Percent of the sessions that this map may move. When left out, `handover.max_moved_share` \
         of the main file counts. Remove it with the next change.",
        &PERCENT,
    );
    let replicas = read_replicas(map);
    let check_end = map.optional(
        "check_end",
        "With `on`, the file counts only with `end: on` behind the last backend: half a file, as a \
         slow copy leaves it, is refused.",
        &SWITCH,
        false,
    );
    let backends = map.maps(
        "backends",
        "The state servers. The order does not matter.",
        1..=usize::from(MAX_BACKEND_ID),
        read_backend,
    );
    if let Some((drafts, place)) = backends.found() {
        require_unique_names(map, drafts);
        require_unique_ids(map, drafts);
        require_unique_addresses(map, drafts);
        require_active(map, drafts, place);
    }
    let applications = read_applications(map);
    let end = map.optional(
        "end",
        "`on` ends a file that has `check_end: on`. Write it last.",
        &SWITCH,
        false,
    );
    if check_end.value && !end.value {
        require_end(map);
    }
    let drafts = backends.found().map(|(drafts, _)| drafts.iter());
    let tls_places = drafts.into_iter().flatten().map(|draft| draft.tls_place);
    let tls_places = tls_places.collect();
    let specs = backends
        .value()
        .map(|drafts| drafts.into_iter().map(Draft::into_spec));
    let backends: Option<Vec<BackendSpec>> = specs.and_then(|mut specs| specs.by_ref().collect());
    let read = version.value().zip(backends).zip(applications);
    MapDraft {
        map: read.map(|((version, backends), applications)| PartitionMap {
            version,
            hash_key: hash_key.value,
            accept_moved_percent: accept_moved_share.value().map(to_percent),
            replicas,
            backends,
            applications,
        }),
        hash_key: map.name_place("hash_key"),
        tls_places,
    }
}

fn read_replicas(map: &mut MapReader<'_, '_>) -> u8 {
    let replicas = map.optional(
        "replicas",
        "On how many backends each session is kept besides its own. With `1` a backend that fails \
         costs a pause of seconds and no session; the pool needs twice the memory.",
        &Integer(0..=1),
        0,
    );
    u8::try_from(replicas.value).unwrap_or(0)
}

fn read_backend(map: &mut MapReader<'_, '_>) -> Draft {
    let redis_place = map.name_place("redis");
    let name = map.required(
        "name",
        "Names the backend for good: its sessions follow the name, the address may change.",
        &NAME,
    );
    let id = map.derived(
        "id",
        "The backend's number for life; unique. When left out it is derived from the name, \
         the same way in every proxy. Never change it while the backend holds sessions.",
        &Integer(1..=u64::from(MAX_BACKEND_ID)),
    );
    let address = map.derived(
        "address",
        "Where the state server listens. Each backend has either this or `redis`.",
        &ADDRESS,
    );
    let redis = map.section(
        "redis",
        "The Redis or Valkey that keeps the sessions, instead of a state server: the proxy serves \
         them from there itself.",
        |redis| read_redis(redis, redis_place),
    );
    let tls_place = map.name_place("tls");
    let doc =
        "How this state server is reached with TLS, whatever `backend_tls` of the main file says.";
    let tls = map.section("tls", doc, |map| read_client(map, tls_place, "tls", &FILE));
    if let (Some(place), Some(_)) = (tls_place, redis_place) {
        let help = "write `tls` below `redis`";
        map.fault(place, "`tls` is for state servers", help);
    }
    let weight = map.optional(
        "weight",
        "Share of the sessions, relative to the other backends.",
        &Integer(1..=1000),
        100,
    );
    let state = map.optional(
        "state",
        "`active` serves its share; `drain`: its sessions move away over one session \
         lifetime; `off`: removed at once, what it holds is given up.",
        &STATES,
        BackendState::Active,
    );
    let capacity = map.section(
        "capacity",
        "What the state server can hold. Only the figures and forecasts of `/status` depend on \
         it: nothing is refused.",
        read_capacity,
    );
    Draft {
        address: one_way(map, address, redis.as_ref(), redis_place),
        name,
        id,
        redis,
        tls,
        tls_place,
        weight: weight.value,
        state: state.value,
        capacity,
    }
}

/// Where a backend is: at its address, or at the one that stands for its engine.
fn one_way(
    map: &mut MapReader<'_, '_>,
    address: Read<BackendAddress>,
    redis: Option<&RedisSpec>,
    redis_place: Option<Location>,
) -> Read<BackendAddress> {
    match (address, redis_place) {
        (Read::Absent, None) => {
            map.missing("address", &ADDRESS.wanted());
            Read::Faulty
        }
        (address, None) => address,
        (Read::Absent, Some(place)) => {
            redis.map_or(Read::Faulty, |redis| Read::Found(redis.stand_in(), place))
        }
        (_, Some(place)) => {
            let problem = "the backend has both `address` and `redis`";
            let help = "keep the one that says where its sessions are";
            map.fault(place, problem, help);
            Read::Faulty
        }
    }
}

fn read_capacity(map: &mut MapReader<'_, '_>) -> Capacity {
    let sessions = map.derived(
        "sessions",
        "Sessions; without limit when left out.",
        &Integer(1..=1_000_000_000),
    );
    let memory = map.derived(
        "memory",
        "Bytes of all sessions' bodies; without limit when left out. Leave room for what the state \
         server needs besides.",
        &Sizes(1 << 20..=16_384 << 30),
    );
    Capacity {
        sessions: sessions.value(),
        memory_bytes: memory.value(),
    }
}

impl Draft {
    fn into_spec(self) -> Option<BackendSpec> {
        let (id, _) = self.effective_id()?;
        Some(BackendSpec {
            id,
            id_is_derived: self.id.found().is_none(),
            name: self.name.value()?,
            address: self.address.value()?,
            redis: self.redis,
            tls: self.tls,
            weight: u16::try_from(self.weight).ok()?,
            state: self.state,
            capacity: self.capacity,
        })
    }

    /// The explicit or derived id, and the place it comes from.
    fn effective_id(&self) -> Option<(u8, Location)> {
        match &self.id {
            Read::Found(id, place) => u8::try_from(*id).ok().map(|id| (id, *place)),
            Read::Absent => self
                .name
                .found()
                .map(|(name, place)| (derived_backend_id(name), place)),
            Read::Faulty => None,
        }
    }

    fn describe_id(&self) -> String {
        let name = self
            .name
            .found()
            .map_or("?".to_owned(), |(name, _)| quoted(name));
        let origin = if self.id.found().is_some() {
            "written"
        } else {
            "derived from the name"
        };
        format!("{name} ({origin})")
    }
}

fn require_unique_names(map: &mut MapReader<'_, '_>, drafts: &[Draft]) {
    let mut firsts: HashMap<&str, Location> = HashMap::new();
    for (name, place) in drafts.iter().filter_map(|draft| draft.name.found()) {
        if let Some(first) = firsts.get(name.as_str()) {
            let problem = format!("the backend name {} is taken", quoted(name));
            map.clash(
                place,
                *first,
                problem,
                "give every backend a name of its own",
            );
        } else {
            firsts.insert(name, place);
        }
    }
}

fn require_unique_ids(map: &mut MapReader<'_, '_>, drafts: &[Draft]) {
    let mut firsts: HashMap<u8, (&Draft, Location)> = HashMap::new();
    let taken: Vec<u8> = drafts
        .iter()
        .filter_map(|draft| Some(draft.effective_id()?.0))
        .collect();
    let free = (1..=MAX_BACKEND_ID).find(|id| !taken.contains(id));
    for draft in drafts {
        let Some((id, place)) = draft.effective_id() else {
            continue;
        };
        let Some((first, first_place)) = firsts.get(&id) else {
            firsts.insert(id, (draft, place));
            continue;
        };
        // Equal names derive equal ids; the name is the fault, and it is reported.
        let same_name =
            first.name.found().map(|(name, _)| name) == draft.name.found().map(|(name, _)| name);
        if same_name && draft.id.found().is_none() && first.id.found().is_none() {
            continue;
        }
        let problem = format!(
            "two backends have the id {id}: {} and {}",
            first.describe_id(),
            draft.describe_id()
        );
        let example = free.map_or(String::new(), |id| format!(", for instance `id: {id}`"));
        map.clash(
            place,
            *first_place,
            problem,
            format!("write `id:` explicitly{example}"),
        );
    }
}

fn require_unique_addresses(map: &mut MapReader<'_, '_>, drafts: &[Draft]) {
    let mut firsts: HashMap<&BackendAddress, Location> = HashMap::new();
    for draft in drafts {
        let Some((address, place)) = draft.address.found() else {
            continue;
        };
        if let Some(first) = firsts.get(address) {
            let (problem, help) = match &draft.redis {
                None => (
                    format!("two backends have the address `{address}`"),
                    "write each state server once; use `weight` to give it a larger share",
                ),
                Some(_) => (
                    "two backends have the same Redis and the same prefix".to_owned(),
                    "write each Redis once, or give each backend a `prefix` of its own",
                ),
            };
            map.clash(place, *first, problem, help);
        } else {
            firsts.insert(address, place);
        }
    }
}

fn require_active(map: &mut MapReader<'_, '_>, drafts: &[Draft], place: Location) {
    // A faulty state counts as the default, active: its own fault is enough.
    let is_active = |draft: &Draft| draft.state == BackendState::Active;
    if !drafts.iter().any(is_active) {
        map.fault(
            place.start(),
            "the pool would be empty: no backend is active",
            "set `state: active` for at least one backend",
        );
    }
}

fn require_end(map: &mut MapReader<'_, '_>) {
    let place = map
        .name_place("check_end")
        .unwrap_or(Location::At(Pos::TOP));
    map.fault(
        place.start(),
        "the file ends before its last line: it has `check_end: on` and no `end: on`",
        "write the whole file; `end: on` is its last line",
    );
}

const STATES: Choice<BackendState> = Choice(&[
    ("active", BackendState::Active),
    ("drain", BackendState::Drain),
    ("off", BackendState::Off),
]);

const ADDRESS: Text<BackendAddress> = Text {
    wanted: "host and port, such as `10.0.0.11:42424`, `state-a.example:42424` or \
             `\"[fd00::11]:42424\"`",
    pattern: Some(r"^(tcpip=)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]+$"),
    parse: |text| {
        BackendAddress::parse(text)
            .map_err(|error| Mistake::new(format!("{} is not an address: {error}", quoted(text))))
    },
    write: BackendAddress::to_string,
    secret: false,
};

const HASH_KEY: Text<HashKey> = Text {
    wanted: "a key of 32 hexadecimal digits",
    pattern: Some("^[0-9A-Fa-f]{32}$"),
    parse: |text| parse_key(text).ok_or_else(|| Mistake::new("this is not a key")),
    write: HashKey::to_hex,
    secret: true,
};

fn parse_key(text: &str) -> Option<HashKey> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0; 16];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(HashKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_full() {
        let key = parse_key("73746174656F726f757465722f6b6579").unwrap();
        assert_eq!(key, HashKey::new(*b"stateorouter/key"));
        assert_eq!(
            parse_key(&HashKey::DEFAULT.to_hex()),
            Some(HashKey::DEFAULT)
        );
        for text in [
            "",
            "00",
            "+0000000000000000000000000000000",
            "zz000000000000000000000000000000",
        ] {
            assert_eq!(parse_key(text), None, "{text}");
        }
    }

    /// Derived ids are written into lock cookies: a later version must not derive others.
    #[test]
    fn derived_ids_are_frozen() {
        let ids = ["state-a", "state-b", "state-c", "10.0.0.11"].map(derived_backend_id);
        assert_eq!(ids, [81, 100, 102, 98]);
    }
}
