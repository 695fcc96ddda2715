//! Servers, and messages on their way.

use staterouter::handover::{BackendId, NO_LOCK, SubrequestReply};
use staterouter::store::{
    Body, ItemChange, MemoryStore, Now, SessionCommand, StoreOptions, StoreOutcome,
};

use super::plan::{Class, SERVERS};
use super::random::Random;

/// How long a session lives that nobody uses.
pub(crate) const SESSION_TIMEOUT_MINUTES: u32 = 3;
pub(crate) const SESSION_TIMEOUT_MS: u64 = SESSION_TIMEOUT_MINUTES as u64 * 60_000;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Touch,
    Acquire,
    Release(u32),
    Put { cookie: u32, version: u64 },
    Insert { version: u64 },
    Remove(u32),
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// `LockCookie`, [`NO_LOCK`] for none.
    pub(crate) counter: u32,
    pub(crate) flag: bool,
    pub(crate) age_s: u64,
    pub(crate) version: u64,
}

/// Who in a proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Question `ask` of this request of a client.
    Job { job: u64, ask: u32, kind: Asked },
    /// Nobody waits for it.
    Behind,
    /// A removal that the server missed.
    Replay { attempt: u64 },
    /// Step `step` of what keeps this copy alive.
    Refresh { id: u64, step: u32 },
}

/// What a question of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The request itself.
    Own,
    /// A copy, stored anew where its session is lost.
    Restore,
    Other,
}

/// A request on its way to a server, or its answer on the way back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) proxy: usize,
    /// Which life of the proxy.
    pub(crate) boot: u32,
    pub(crate) purpose: Purpose,
    pub(crate) backend_id: BackendId,
    pub(crate) session: usize,
    pub(crate) op: Op,
}

/// Whether a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// It stands still; what arrives stays in its buffers.
    Paused,
    Off,
}

/// One state server.
#[derive(Debug)]
pub(crate) struct Server {
    store: MemoryStore,
    pub(crate) power: Power,
    /// It is full: it refuses what would be a new item.
    pub(crate) is_full: bool,
    /// What has arrived while it stood still.
    pub(crate) buffered: Vec<Message>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let mut options = StoreOptions::new([7; 16]);
        options.shards = 1;
        Self {
            store: MemoryStore::new(&options),
            power: Power::On,
            is_full: false,
            buffered: Vec::new(),
        }
    }

    /// Whether it has an item.
    pub(crate) fn has(&self, key: &[u8], now_ms: u64) -> bool {
        self.store.inspect(key, time(now_ms)).is_some()
    }

    /// The lock of an item.
    pub(crate) fn lock(&self, key: &[u8], now_ms: u64) -> Option<u32> {
        let item = self.store.inspect(key, time(now_ms));
        item.and_then(|item| item.locked.then_some(item.cookie))
    }

    /// What an item says.
    pub(crate) fn version(&self, key: &[u8], now_ms: u64) -> Option<u64> {
        let item = self.store.inspect(key, time(now_ms));
        item.map(|item| version(&item.body))
    }

    /// Whether it has an item that nobody has taken or written since it was created.
    pub(crate) fn is_untouched(&self, key: &[u8], now_ms: u64) -> bool {
        let item = self.store.inspect(key, time(now_ms));
        item.is_some_and(|item| item.uninit && !item.locked)
    }

    /// The item as a text for the trace.
    pub(crate) fn describe(&self, key: &[u8], now_ms: u64) -> String {
        match self.store.inspect(key, time(now_ms)) {
            Some(item) => format!(
                "v{}{}{}",
                version(&item.body),
                if item.locked { " locked " } else { " free " },
                item.cookie
            ),
            None => "-".to_owned(),
        }
    }

    pub(crate) fn apply(&self, key: &[u8], op: Op, now_ms: u64) -> Reply {
        let mut digits = String::new();
        let mut cookie = |cookie: u32| digits = cookie.to_string();
        match op {
            Op::Release(counter) | Op::Remove(counter) => cookie(counter),
            Op::Put {
                cookie: counter, ..
            } => cookie(counter),
            Op::Insert { .. } => cookie(0),
            Op::Read | Op::Touch | Op::Acquire => {}
        }
        let is_store = matches!(op, Op::Put { .. } | Op::Insert { .. });
        if self.is_full && is_store && !self.has(key, now_ms) {
            return Reply::refused();
        }
        let cookie = Some(digits.as_bytes());
        let put = |version: u64, extra_flags| {
            let body = Body::from(version.to_le_bytes().as_slice());
            let minutes = SESSION_TIMEOUT_MINUTES.to_string();
            SessionCommand::put(Some(minutes.as_bytes()), Some(extra_flags), cookie, body)
        };
        let command = match op {
            Op::Read => Ok(SessionCommand::Get),
            Op::Touch => Ok(SessionCommand::Touch),
            Op::Acquire => Ok(SessionCommand::Acquire),
            Op::Release(_) => Ok(SessionCommand::release(cookie)),
            Op::Put { version, .. } => put(version, b"0".as_slice()),
            Op::Insert { version } => put(version, b"1".as_slice()),
            Op::Remove(_) => Ok(SessionCommand::remove(cookie)),
        };
        let now = time(now_ms);
        let observe = |_change: ItemChange<'_>| ();
        let apply = |command| self.store.apply_observed(key, command, now, observe);
        Reply::new(&command.map_or_else(StoreOutcome::Invalid, apply))
    }
}

impl Reply {
    fn refused() -> Self {
        Self {
            status: 400,
            counter: NO_LOCK,
            flag: false,
            age_s: 0,
            version: 0,
        }
    }

    fn new(outcome: &StoreOutcome) -> Self {
        let mut reply = Self {
            status: 200,
            counter: NO_LOCK,
            flag: false,
            age_s: 0,
            version: 0,
        };
        match outcome {
            StoreOutcome::Found {
                body,
                cookie,
                action_flags,
                ..
            } => {
                reply.version = version(body);
                reply.counter = cookie.unwrap_or(NO_LOCK);
                reply.flag = *action_flags;
            }
            StoreOutcome::Done { action_flags, .. } => reply.flag = *action_flags,
            StoreOutcome::Absent => reply.status = 404,
            StoreOutcome::Locked {
                lock_age_s, cookie, ..
            } => {
                reply.status = 423;
                reply.counter = *cookie;
                reply.age_s = u64::from(*lock_age_s);
            }
            StoreOutcome::Invalid(_) | StoreOutcome::Refused(_) | StoreOutcome::Unknown => {
                reply.status = 400
            }
        }
        reply
    }

    /// What a decision has to know of it.
    pub(crate) fn seen(&self) -> SubrequestReply {
        match self.status {
            200 => SubrequestReply::Done {
                counter: self.counter,
                flag: self.flag,
            },
            404 => SubrequestReply::Absent,
            423 => SubrequestReply::Locked {
                counter: self.counter,
                age_s: self.age_s,
            },
            _ => SubrequestReply::Refused,
        }
    }
}

fn version(body: &Body) -> u64 {
    body[..].try_into().map_or(0, u64::from_le_bytes)
}

fn time(now_ms: u64) -> Now {
    Now {
        unix_ms: now_ms,
        local_ticks: 0,
    }
}

/// Who reaches whom, and how fast.
#[derive(Debug)]
pub(crate) struct Links {
    random: Random,
    losses: u64,
    latest_ms: u64,
    /// Cuts between each proxy and each server; they may overlap.
    servers: Vec<[u32; SERVERS as usize]>,
    /// Cuts between each proxy and each other one.
    peers: Vec<Vec<u32>>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives after so long.
    After(u64),
    Lost,
}

impl Links {
    pub(crate) fn new(class: &Class, proxies: usize, seed: u64) -> Self {
        Self {
            random: Random::new(seed, 2),
            losses: class.losses,
            latest_ms: class.latest_ms,
            servers: vec![[0; SERVERS as usize]; proxies],
            peers: vec![vec![0; proxies]; proxies],
        }
    }

    pub(crate) fn cut(&mut self, proxy: usize, server: u8, is_cut: bool) {
        count(&mut self.servers[proxy][usize::from(server) - 1], is_cut);
    }

    pub(crate) fn cut_peers(&mut self, one: usize, other: usize, is_cut: bool) {
        count(&mut self.peers[one][other], is_cut);
        count(&mut self.peers[other][one], is_cut);
    }

    pub(crate) fn reaches(&self, proxy: usize, backend_id: BackendId) -> bool {
        self.servers[proxy][usize::from(backend_id.id()) - 1] == 0
    }

    pub(crate) fn hears(&self, one: usize, other: usize) -> bool {
        self.peers[one][other] == 0
    }

    /// A message between a proxy and a server that reach each other. What nobody waits for belongs
    /// to an operation under way, and is over with it.
    pub(crate) fn fate(&mut self, purpose: Purpose) -> Fate {
        if self.random.chance(self.losses) {
            return match self.random.below(3) {
                0 => Fate::Lost,
                _ if purpose == Purpose::Behind => Fate::After(self.random.between(400, 2_000)),
                1 => Fate::After(self.random.between(400, 6_000)),
                // The answer's time is over by then.
                _ => Fate::After(self.random.between(6_000, self.latest_ms)),
            };
        }
        Fate::After(match self.random.below(8) {
            0 => self.random.between(50, 400),
            _ => self.random.between(1, 40),
        })
    }

    /// A message between a client and a proxy, or between proxies.
    pub(crate) fn near_ms(&mut self) -> u64 {
        self.random.between(1, 30)
    }

    /// Whether messages may be lost.
    pub(crate) fn is_lossy(&self) -> bool {
        self.losses > 0
    }

    /// No message is lost any more.
    pub(crate) fn calm(&mut self) {
        self.losses = 0;
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

fn count(cuts: &mut u32, is_cut: bool) {
    *cuts = if is_cut { *cuts + 1 } else { *cuts - 1 };
}
