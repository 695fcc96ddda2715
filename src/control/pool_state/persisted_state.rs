//! What a proxy has to remember over a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{BackendAddress, BackendHost, BackendSpec, BackendState, PartitionMap};
use crate::control::pool_state::{FailingMoves, KnownPeers};
use crate::control::session_timeouts::SeenTimeouts;
use crate::handover::SlotState;

/// The pool as it was when it was last written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistedState {
    /// The partition map in force, as the file says it.
    pub map: PartitionMap,
    /// What operators have decided about its backends besides, by name.
    pub decisions: Vec<Decision>,
    /// Backends that are no longer in it and still hold slots.
    pub retired: Vec<BackendSpec>,
    /// Servers that were given up with what they held, as long as that may live.
    pub given_up: Vec<GivenUp>,
    /// Where backends are asked, if that is not what the map says.
    pub servers: Vec<ServerMemory>,
    /// Moves that fail, by where the sessions are and where they are to go.
    pub failing: Vec<FailingMoves>,
    /// The session timeouts seen lately.
    pub timeouts: SeenTimeouts,
    /// The other proxies.
    pub known_peers: KnownPeers,
    /// Every slot, in order.
    pub slots: Arc<[SlotState]>,
}

/// What an operator has decided about a backend, at this proxy or another one. All proxies come to
/// go by the newest decision about each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backend's name.
    pub backend: String,
    /// The state it has, whatever the partition map says.
    pub state: BackendState,
    /// The map's own state counts again.
    pub is_withdrawn: bool,
    /// Grows from decision to decision in the whole farm: clocks need not agree.
    pub epoch: u64,
    /// When it came into force here, Unix time in milliseconds.
    pub since_ms: u64,
    /// The operator has said that no other proxy has to be waited for.
    pub is_only_here: bool,
    /// When the operator said last that its server holds nothing from before, Unix time in
    /// milliseconds.
    pub fresh_ms: Option<u64>,
}

/// An address that a backend is asked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// The address.
    pub address: SocketAddr,
    /// Since when.
    pub since_ms: u64,
    /// It has replaced another one.
    pub is_change: bool,
}

/// The address at which a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMemory {
    /// The backend's name.
    pub backend: String,
    /// The address.
    pub in_use: InUse,
    /// The operator wants another one, also while this one answers.
    pub is_ordered: bool,
}

/// A server whose slots went to others at once: what it held is lost, and must not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The backend's name then.
    pub name: String,
    /// Its id then; `None` where only the address was given up, and the backend has another one.
    pub id: Option<u8>,
    /// Where the server is: the address then, and those that the backend has been given since.
    pub addresses: Vec<BackendAddress>,
    /// When it was last served from, Unix time in milliseconds.
    pub since_ms: u64,
}

/// Addresses of one server that are remembered.
const MAX_ADDRESSES: usize = 16;

impl PersistedState {
    /// The same with all times of another clock, which shows `now_ms`; they were written down when it
    /// showed `then_ms`.
    #[must_use]
    pub fn at(mut self, then_ms: u64, now_ms: u64, elapsed_ms: u64) -> Self {
        let here_ms = now_ms.saturating_sub(elapsed_ms);
        // What lies in the future is from a clock that was wrong.
        let time = |ms: u64| here_ms.saturating_sub(then_ms.saturating_sub(ms));
        for slot in Arc::make_mut(&mut self.slots) {
            slot.since_ms = time(slot.since_ms);
            if let Some(before) = &mut slot.before {
                before.since_ms = time(before.since_ms);
            }
            slot.outdated = slot.outdated.since(time(slot.outdated.since_ms()));
            if let Some(replica) = &mut slot.replica {
                replica.since_ms = time(replica.since_ms);
            }
        }
        for decision in &mut self.decisions {
            decision.since_ms = time(decision.since_ms);
            decision.fresh_ms = decision.fresh_ms.map(time);
        }
        for server in &mut self.given_up {
            server.since_ms = time(server.since_ms);
        }
        for moves in &mut self.failing {
            moves.since_ms = time(moves.since_ms);
        }
        for server in &mut self.servers {
            server.in_use.since_ms = time(server.in_use.since_ms);
        }
        self.timeouts = self.timeouts.with_times(time);
        self
    }

    /// The latest time that it knows of: it was written down no earlier.
    pub fn latest_ms(&self) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.since_ms);
        let given_up = self.given_up.iter().map(|server| server.since_ms);
        slots.chain(given_up).max().unwrap_or(0)
    }
}

impl Decision {
    /// Whether this counts and `other` does not. Of two that were made at the same time at two
    /// proxies, the one that serves from less.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let rank = |decision: &Self| {
            let state = match decision.state {
                _ if decision.is_withdrawn => 0,
                BackendState::Active => 1,
                BackendState::Drain => 2,
                BackendState::Off => 3,
            };
            (decision.epoch, state)
        };
        rank(self) > rank(other)
    }
}

impl GivenUp {
    /// A backend that is given up with what it holds, asked last at `in_use`.
    pub fn backend(spec: &BackendSpec, in_use: &BackendAddress, since_ms: u64) -> Self {
        let mut server = Self {
            name: spec.name.clone(),
            id: Some(spec.id),
            addresses: vec![spec.address.clone()],
            since_ms,
        };
        server.also_at(in_use);
        server
    }

    /// The server that a backend had before it was asked elsewhere.
    pub fn server(name: &str, address: BackendAddress, since_ms: u64) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            addresses: vec![address],
            since_ms,
        }
    }

    /// Whether a backend that is asked at `in_use` may be this server: what nobody can exclude counts.
    pub fn may_be(&self, spec: &BackendSpec, in_use: &BackendAddress) -> bool {
        let is_at = |at: &BackendAddress| {
            let mut addresses = self.addresses.iter();
            addresses.any(|address| may_be_same(address, at))
        };
        let is_there = is_at(in_use);
        match self.id {
            Some(id) => is_there || is_at(&spec.address) || id == spec.id || self.is_of(spec),
            None => is_there,
        }
    }

    /// Whether it is a backend of this name that was given up.
    pub fn is_of(&self, spec: &BackendSpec) -> bool {
        self.name == spec.name
    }

    /// The backend has another address now, which may be the same server's.
    pub fn also_at(&mut self, address: &BackendAddress) {
        if !self.addresses.contains(address) {
            self.addresses.push(address.clone());
            let excess = self.addresses.len().saturating_sub(MAX_ADDRESSES);
            self.addresses.drain(..excess);
        }
    }
}

/// Whether both lead to one server, as far as their texts tell.
fn may_be_same(one: &BackendAddress, other: &BackendAddress) -> bool {
    let is_loopback = |host: &BackendHost| match host {
        BackendHost::Ip(ip) => ip.is_loopback(),
        BackendHost::Name(name) => name == "localhost",
    };
    let is_name = |host: &BackendHost| matches!(host, BackendHost::Name(_));
    let (host, other_host) = (one.host(), other.host());
    let is_spelled_otherwise =
        (is_name(host) || is_name(other_host)) && is_loopback(host) && is_loopback(other_host);
    one.port() == other.port() && (host == other_host || is_spelled_otherwise)
}
