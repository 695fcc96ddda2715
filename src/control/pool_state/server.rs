//! One server behind a backend: the address in use, and what may follow it.

use std::net::{IpAddr, SocketAddr};

use super::persisted_state::{InUse, ServerMemory};
use super::server_fault::ServerFault;
use crate::config::{BackendAddress, BackendHost};
use crate::health::Failure;

/// Addresses of one name that count, the lowest first.
const MAX_ADDRESSES: usize = 16;

/// Choices of two proxies within this time were made at the same time: proxies hear each other
/// once a second, and their clocks are compared no more exactly than that.
const SAME_TIME_MS: u64 = 3_000;

/// The server behind a backend.
#[derive(Debug, Clone, Default)]
pub struct Server {
    pub(super) in_use: Option<InUse>,
    /// What the map's address leads to, lowest first: the last good answer of the name service.
    pub(super) listed: Vec<SocketAddr>,
    /// Why the name service gives no answer now.
    pub(super) lookup_failure: Option<String>,
    /// How the last probe of each listed address that is not in use ended.
    pub(super) outcomes: Vec<(SocketAddr, Result<(), Failure>)>,
    /// The operator wants another address than the one in use, also while that one answers.
    pub(super) is_ordered: bool,
    /// The address in use is that of a staterouter proxy.
    pub(super) is_proxy: bool,
    /// Living sessions there, as they were last counted.
    pub(super) sessions: Option<u64>,
    /// What has been said of it.
    pub(super) told: Vec<ServerFault>,
}

impl Server {
    /// At `address`, if that needs no name service.
    pub(super) fn at(address: &BackendAddress, now_ms: u64) -> Self {
        let listed = listed_in(address);
        let in_use = listed.first().map(|address| InUse {
            address: *address,
            since_ms: now_ms,
            is_change: false,
        });
        Self {
            in_use,
            listed,
            ..Self::default()
        }
    }

    /// The map has another address for it. The one in use stays for now.
    pub(super) fn follow(&mut self, address: &BackendAddress) {
        self.listed = listed_in(address);
        self.lookup_failure = None;
        self.outcomes.clear();
        self.is_ordered = self.in_use.is_some();
        self.drop_order();
    }

    /// Goes on at the address that was in use before this proxy was stopped.
    pub(super) fn resume(&mut self, memory: &ServerMemory, now_ms: u64) {
        self.in_use = Some(InUse {
            since_ms: memory.in_use.since_ms.min(now_ms),
            ..memory.in_use
        });
        self.is_ordered = memory.is_ordered;
        self.drop_order();
    }

    /// What must be remembered of it: nothing where the map says the same.
    pub(super) fn memory(&self, backend: &str, in_map: &BackendAddress) -> Option<ServerMemory> {
        let in_use = self.in_use?;
        let is_said = listed_in(in_map) == [in_use.address];
        (!is_said).then(|| ServerMemory {
            backend: backend.to_owned(),
            in_use,
            is_ordered: self.is_ordered,
        })
    }

    /// A probe of the address in use has ended.
    pub(super) fn probed(&mut self, outcome: Result<(), Failure>) {
        self.is_proxy = outcome == Err(Failure::Staterouter);
    }

    pub(super) fn is_listed(&self) -> bool {
        let in_use = self.in_use;
        in_use.is_some_and(|in_use| self.listed.contains(&in_use.address))
    }

    pub(super) fn drop_order(&mut self) {
        self.is_ordered &= !self.is_listed();
    }

    pub(super) fn outcome(&self, address: SocketAddr) -> Option<Result<(), Failure>> {
        let mut outcomes = self.outcomes.iter();
        let known = outcomes.find(|(known, _)| *known == address)?;
        Some(known.1)
    }

    /// The addresses that are not in use.
    pub(super) fn others(&self) -> impl Iterator<Item = SocketAddr> {
        let in_use = self.in_use.map(|in_use| in_use.address);
        let others = self.listed.iter().copied();
        others.filter(move |address| Some(*address) != in_use)
    }

    /// The address to begin with: the only one, else the lowest that answers, else, if none does,
    /// the lowest. `None` while that is not known.
    pub(super) fn first_choice(&self, is_free: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let free: Vec<_> = self.others().filter(|address| is_free(*address)).collect();
        let [lowest, more @ ..] = free.as_slice() else {
            return None;
        };
        if more.is_empty() {
            return Some(*lowest);
        }
        for address in &free {
            match self.outcome(*address) {
                None => return None,
                Some(Ok(())) => return Some(*address),
                Some(Err(_)) => {}
            }
        }
        Some(*lowest)
    }
}

/// The address itself where it is one.
pub(super) fn listed_in(address: &BackendAddress) -> Vec<SocketAddr> {
    match address.host() {
        BackendHost::Ip(ip) => vec![SocketAddr::new(*ip, address.port())],
        BackendHost::Name(_) => Vec::new(),
    }
}

impl InUse {
    /// Whether a proxy that uses `self` has to follow one that uses `theirs`. A change that was
    /// agreed on counts more than a first choice, a later change more than an earlier one, and an
    /// earlier first choice, which has more sessions, more than a later one.
    pub(super) fn yields_to(self, theirs: Self) -> bool {
        if self.address == theirs.address {
            return false;
        }
        if self.is_change != theirs.is_change {
            return theirs.is_change;
        }
        if self.since_ms.abs_diff(theirs.since_ms) <= SAME_TIME_MS {
            return theirs.address < self.address;
        }
        (theirs.since_ms > self.since_ms) == theirs.is_change
    }
}

/// The addresses of a name that a server can have, each once, the lowest first. The one in use is
/// kept whatever their number.
pub(super) fn server_addresses(found: Vec<SocketAddr>, in_use: Option<InUse>) -> Vec<SocketAddr> {
    let canonical = |address: SocketAddr| match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    };
    let mut listed: Vec<_> = found.into_iter().map(canonical).collect();
    listed.retain(|address| !address.ip().is_unspecified() && !address.ip().is_multicast());
    listed.sort_unstable();
    listed.dedup();
    let in_use = in_use.map(|in_use| in_use.address);
    let is_beyond = |address: &SocketAddr| {
        let position = listed.iter().position(|known| known == address);
        position.is_some_and(|position| position >= MAX_ADDRESSES)
    };
    let beyond = in_use.filter(is_beyond);
    listed.truncate(MAX_ADDRESSES);
    listed.extend(beyond);
    listed
}
