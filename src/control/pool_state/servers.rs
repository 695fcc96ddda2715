//! Which server each backend is: the address in use, decided once for all workers and, where there
//! are peers, for all proxies.
//!
//! A backend is one server at a time. Another address is another server until shown otherwise, one
//! without the sessions of the first. So the address in use stays in use for as long as it answers,
//! whatever the name service says, unless the operator orders the change.

use std::net::SocketAddr;

use super::persisted_state::GivenUp;
use super::persisted_state::InUse;
use super::server::{listed_in, server_addresses};
use super::server_fault::{ServerFault, Wait};
use super::{Notice, PeerView, PoolMember, PoolState};
use crate::config::{BackendAddress, LogLevel};
use crate::handover::{BackendId, Stage};
use crate::health::{Failure, Health};

/// How often a failover may have taken place before another address of the same name replaces the
/// one in use: by then another backend stands in if one can, which loses less.
const PATIENCE_IN_FAILOVERS: u32 = 2;

/// What another proxy says of the server behind a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerServer {
    /// The backend.
    pub backend_id: BackendId,
    /// The address in the peer's map.
    pub in_map: BackendAddress,
    /// Where the peer asks the backend, with times of this proxy's clock.
    pub in_use: Option<InUse>,
    /// Where it would ask the backend as soon as all others would.
    pub ready: Vec<SocketAddr>,
}

/// Why an address comes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There was none.
    First,
    /// The operator wants it.
    Ordered,
    /// The one before does not answer.
    Down,
    /// The backend held nothing.
    Empty,
    /// The other proxies use it.
    Peers(InUse),
}

impl PoolMember {
    /// Where it is asked; `None` while its name leads to no address that could be used.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.in_use.map(|in_use| in_use.address)
    }

    /// The server it is: the address in use, or that of the map where there is none.
    pub(super) fn identity(&self) -> BackendAddress {
        let in_use = self.address().map(BackendAddress::from);
        in_use.unwrap_or_else(|| self.spec.address.clone())
    }

    /// Whether any of the other addresses has to be probed.
    fn wants_other(&self) -> bool {
        let server = &self.server;
        !server.is_listed() || !self.is_up()
    }
}

impl PoolState {
    /// The backends whose names have to be looked up.
    pub fn names(&self) -> Vec<(BackendId, BackendAddress)> {
        let members = self.members.iter();
        let named = members.filter(|member| listed_in(&member.spec.address).is_empty());
        named
            .map(|member| (member.backend_id, member.spec.address.clone()))
            .collect()
    }

    /// What has to be probed: every server in use, and the addresses that may follow.
    pub fn probe_targets(&self) -> Vec<(BackendId, SocketAddr)> {
        let mut targets = Vec::with_capacity(self.members.len());
        for member in self.members.iter().filter(|member| !member.is_off()) {
            targets.extend(member.address().map(|address| (member.backend_id, address)));
            if member.wants_other() {
                let others = member.server.others();
                targets.extend(others.map(|address| (member.backend_id, address)));
            }
        }
        targets
    }

    /// The name service has said where the name in `in_map` leads.
    pub fn looked_up(
        &mut self,
        backend_id: BackendId,
        in_map: &BackendAddress,
        found: Result<Vec<SocketAddr>, String>,
        now_ms: u64,
    ) {
        let Some(member) = self.member_mut(backend_id) else {
            return;
        };
        if member.spec.address != *in_map {
            return;
        }
        let server = &mut member.server;
        let found = found.map(|found| server_addresses(found, server.in_use));
        match found {
            Ok(listed) if !listed.is_empty() => {
                server
                    .outcomes
                    .retain(|(address, _)| listed.contains(address));
                server.listed = listed;
                server.lookup_failure = None;
                server.drop_order();
            }
            failed => {
                let no_address = "it has no address that a server can have";
                let failure = failed.err().unwrap_or_else(|| no_address.to_owned());
                server.lookup_failure = Some(failure);
                if server.in_use.is_none() {
                    let answered = member.metrics.answered();
                    member
                        .health
                        .probe_failed(Failure::Unresolved, answered, now_ms);
                }
            }
        }
    }

    /// A probe of the backend at `place` has ended, at an address that is not in use.
    pub fn probed_other(
        &mut self,
        backend_id: BackendId,
        address: SocketAddr,
        outcome: Result<(), Failure>,
    ) {
        let Some(member) = self.member_mut(backend_id) else {
            return;
        };
        let server = &mut member.server;
        let is_shortage = outcome.is_err_and(|failure| !failure.is_about_backend());
        if is_shortage || !server.listed.contains(&address) {
            return;
        }
        server.outcomes.retain(|(known, _)| *known != address);
        server.outcomes.push((address, outcome));
    }

    /// The operator wants every name to be followed, also where the address in use still answers.
    pub fn follow_names(&mut self) {
        let is_named = |member: &&mut PoolMember| listed_in(&member.spec.address).is_empty();
        for member in self.members.iter_mut().filter(is_named) {
            // What the name service says next shows whether there is anything to follow.
            member.server.is_ordered |= member.server.in_use.is_some();
        }
    }

    /// Sessions that live at the backend at `place`, as they were counted last.
    pub fn set_sessions(&mut self, backend_id: BackendId, sessions: Option<u64>) {
        if let Some(member) = self.member_mut(backend_id) {
            member.server.sessions = sessions;
        }
    }

    /// Whether waiting may bring an address for a backend that has none.
    pub fn awaits_address(&self) -> bool {
        self.members.iter().any(|member| {
            let server = &member.server;
            let is_unknown = server.listed.is_empty() && server.lookup_failure.is_none();
            let others = || {
                server
                    .others()
                    .filter(|address| self.is_free(member, *address))
            };
            let is_untried = || others().any(|address| server.outcome(address).is_none());
            server.in_use.is_none() && !member.is_off() && (is_unknown || is_untried())
        })
    }

    /// Where this proxy asks its backends, for its peers.
    pub fn servers(&self) -> Vec<PeerServer> {
        let server = |member: &PoolMember| PeerServer {
            backend_id: member.backend_id,
            in_map: member.spec.address.clone(),
            in_use: member.server.in_use,
            ready: self.ready(member),
        };
        self.members.iter().map(server).collect()
    }

    /// What is not as it should be with the backends' addresses, by position among the backends.
    pub fn server_faults(&self, now_ms: u64) -> Vec<(BackendId, ServerFault)> {
        let members = self.members.iter().filter(|member| !member.is_off());
        members
            .flat_map(|member| {
                let faults = self.faults_of(member, now_ms).into_iter();
                faults.map(|fault| (member.backend_id, fault))
            })
            .collect()
    }

    /// Decides which address each backend is asked at from now on; what is new for the log.
    pub(super) fn settle_servers(&mut self, now_ms: u64) -> Vec<Notice> {
        let mut notices = self.change_servers(false, now_ms);
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let mut faults = match member.is_off() {
                true => Vec::new(),
                false => self.faults_of(member, now_ms),
            };
            let told = std::mem::take(&mut self.members[index].server.told);
            let name = &self.members[index].spec.name;
            let is_new = |fault: &&ServerFault| !told.iter().any(|told| told.is_like(fault));
            let new = faults.iter().filter(is_new);
            notices.extend(new.map(|fault| Notice::of_fault(name, fault)));
            // A fault that lasts keeps the words in which it was said.
            for fault in &mut faults {
                if let Some(before) = told.iter().find(|told| told.is_like(fault)) {
                    *fault = before.clone();
                }
            }
            self.members[index].server.told = faults;
        }
        notices
    }

    /// The same for a proxy that remembers nothing, and takes every server to be where its peers
    /// have it.
    pub(super) fn join_servers(&mut self, now_ms: u64) -> Vec<Notice> {
        self.change_servers(true, now_ms)
    }

    fn change_servers(&mut self, is_joining: bool, now_ms: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let Some((address, why)) = self.next_server(member, is_joining, now_ms) else {
                continue;
            };
            let before = member.server.in_use;
            // A proxy that remembers nothing has asked nobody yet.
            let left = before.filter(|_| !is_joining && self.is_needed(member));
            notices.push(Notice::of_change(
                member,
                before,
                (address, why),
                left.is_some(),
            ));
            self.leave(index, left, address, now_ms);
            self.change_server(index, address, why, now_ms);
        }
        notices
    }

    fn next_server(
        &self,
        member: &PoolMember,
        is_joining: bool,
        now_ms: u64,
    ) -> Option<(SocketAddr, Why)> {
        let server = &member.server;
        if let Some(theirs) = self.choice_of_peers(member, is_joining) {
            return Some((theirs.address, Why::Peers(theirs)));
        }
        if server.in_use.is_none() {
            let first = server.first_choice(|address| self.is_free(member, address));
            return first.map(|address| (address, Why::First));
        }
        // The usual case ends here.
        if !member.wants_other() || server.others().next().is_none() {
            return None;
        }
        if !self.is_needed(member) {
            let others = server.others();
            let mut free = others.filter(|address| self.is_free(member, *address));
            let is_asked = server.is_listed();
            return free
                .find(|address| !is_asked || server.outcome(*address) == Some(Ok(())))
                .map(|address| (address, Why::Empty));
        }
        let why = self.reason_to_change(member, now_ms)?;
        let mut fit = self.fit(member);
        fit.find(|address| self.peers_follow(member.backend_id, *address))
            .map(|address| (address, why))
    }

    /// Why the backend, which holds sessions, may be asked elsewhere.
    fn reason_to_change(&self, member: &PoolMember, now_ms: u64) -> Option<Why> {
        let server = &member.server;
        if !server.is_listed() {
            return match (server.is_ordered, member.is_up()) {
                (true, _) => Some(Why::Ordered),
                (false, false) => Some(Why::Down),
                (false, true) => None,
            };
        }
        let handover = &self.config.handover;
        let timeouts = &self.config.timeouts;
        let operation = timeouts.connect + timeouts.answer;
        let patience = handover.failover_after.max(operation) * PATIENCE_IN_FAILOVERS;
        let down_ms = now_ms.saturating_sub(member.health.since_ms());
        let is_over =
            !member.is_up() && handover.failover && u128::from(down_ms) >= patience.as_millis();
        (is_over && self.is_without_stand_in(member.backend_id)).then_some(Why::Down)
    }

    /// Whether requests of a slot are refused because of this place.
    fn is_without_stand_in(&self, backend_id: BackendId) -> bool {
        self.slots.iter().any(|slot| {
            slot.first == backend_id
                || (slot.stage == Stage::Suspect && slot.second == Some(backend_id))
        })
    }

    /// The other addresses that answer as a state server with nothing outdated.
    fn fit<'a>(&'a self, member: &'a PoolMember) -> impl Iterator<Item = SocketAddr> + 'a {
        member.server.others().filter(|address| {
            member.server.outcome(*address) == Some(Ok(()))
                && self.is_free(member, *address)
                && self.outdated_until(*address).is_none()
        })
    }

    /// Where the backend would be asked if all proxies agreed.
    fn ready(&self, member: &PoolMember) -> Vec<SocketAddr> {
        // What it takes longer to see is that no other backend can stand in: each proxy sees to that
        // by itself.
        let is_willing =
            !member.is_up() || (member.server.is_ordered && !member.server.is_listed());
        match is_willing {
            true => self.fit(member).collect(),
            false => Vec::new(),
        }
    }

    /// No other backend is this server.
    fn is_free(&self, member: &PoolMember, address: SocketAddr) -> bool {
        self.holder(member, address).is_none()
    }

    fn holder(&self, member: &PoolMember, address: SocketAddr) -> Option<&PoolMember> {
        let mut others = self.members.iter();
        others
            .find(|other| other.backend_id != member.backend_id && other.address() == Some(address))
    }

    /// Until when the server may hold outdated items, if it does.
    fn outdated_until(&self, address: SocketAddr) -> Option<u64> {
        let identity = BackendAddress::from(address);
        let mut given_up = self.given_up.iter();
        let server = given_up.find(|server| server.addresses.contains(&identity))?;
        Some(server.since_ms + self.times().lifetime_ms)
    }

    /// Every other proxy is heard, and asks the backend there already, or is ready to.
    fn peers_follow(&self, backend_id: BackendId, address: SocketAddr) -> bool {
        self.peers.iter().all(|peer| {
            let servers = peer.as_deref().and_then(|peer| peer.servers.as_ref());
            servers.is_some_and(|servers| {
                let mut servers = servers.iter();
                let server = servers.find(|server| server.backend_id == backend_id);
                server.is_none_or(|server| {
                    let in_use = server.in_use.map(|in_use| in_use.address);
                    in_use == Some(address) || server.ready.contains(&address)
                })
            })
        })
    }

    /// The address that the backend has at other proxies, if this one has to follow. Those with
    /// another address in their map go by another order, but for a proxy that is `is_joining`: it
    /// knows of no session, and they do.
    fn choice_of_peers(&self, member: &PoolMember, is_joining: bool) -> Option<InUse> {
        let ours = member.server.in_use;
        let theirs = self.in_use_at_peers(member, is_joining);
        let theirs = theirs.reduce(|one, other| if one.yields_to(other) { other } else { one })?;
        let is_followed = match ours {
            None => true,
            Some(ours) if is_joining => ours.address != theirs.address,
            Some(ours) => ours.yields_to(theirs),
        };
        let may_follow = is_followed
            && self.is_free(member, theirs.address)
            && self.outdated_until(theirs.address).is_none();
        may_follow.then_some(theirs)
    }

    fn in_use_at_peers(
        &self,
        member: &PoolMember,
        is_any_map: bool,
    ) -> impl Iterator<Item = InUse> {
        let heard = self.peers.iter().flatten();
        let servers =
            heard.flat_map(|peer: &std::sync::Arc<PeerView>| peer.servers.iter().flatten());
        let same = servers.filter(move |server| {
            server.backend_id == member.backend_id
                && (is_any_map || server.in_map == member.spec.address)
        });
        same.filter_map(|server| server.in_use)
    }

    /// Asks a backend elsewhere from now on.
    fn change_server(&mut self, index: usize, address: SocketAddr, why: Why, now_ms: u64) {
        let mut health = Health::new(self.config.health.thresholds(), now_ms);
        let member = &mut self.members[index];
        let server = &mut member.server;
        if server.outcome(address) == Some(Ok(())) {
            health.probe_ok(now_ms);
        } else {
            health.ask_anew(member.metrics.answered());
        }
        member.health = health;
        server.in_use = Some(match why {
            Why::Peers(theirs) => theirs,
            _ => InUse {
                address,
                since_ms: now_ms,
                is_change: !matches!(why, Why::First),
            },
        });
        // What the map itself says is an order, whoever has not followed it yet.
        server.is_ordered |= !listed_in(&member.spec.address).is_empty();
        server.drop_order();
        server.outcomes.clear();
        server.is_proxy = false;
        server.sessions = None;
    }

    /// What the server before holds is lost to its sessions, and must not come back with its
    /// address. What a backend that was given up holds stays outdated if the new address is one of
    /// the same server.
    fn leave(&mut self, index: usize, left: Option<InUse>, next: SocketAddr, now_ms: u64) {
        let member = &self.members[index];
        let (spec, identity) = (&member.spec, member.identity());
        let next = BackendAddress::from(next);
        for known in &mut self.given_up {
            if known.id.is_some() && known.may_be(spec, &identity) {
                known.also_at(&next);
            }
        }
        if let Some(left) = left.map(|left| BackendAddress::from(left.address)) {
            let is_it = |known: &GivenUp| known.id.is_none() && known.addresses.contains(&left);
            self.given_up.retain(|known| !is_it(known));
            self.given_up
                .push(GivenUp::server(&spec.name, left, now_ms));
        }
    }

    fn faults_of(&self, member: &PoolMember, now_ms: u64) -> Vec<ServerFault> {
        let server = &member.server;
        let mut faults = Vec::new();
        let mut others = server.others();
        let shared = others.find_map(|address| Some((address, self.holder(member, address)?)));
        if let Some((address, other)) = shared {
            let other = other.spec.name.clone();
            faults.push(ServerFault::Shared { address, other });
        }
        let Some(InUse {
            address: in_use, ..
        }) = server.in_use
        else {
            let problem = server.lookup_failure.clone();
            faults.extend(problem.map(|problem| ServerFault::Unresolved { problem }));
            return faults;
        };
        if server.is_proxy {
            faults.push(ServerFault::Proxy { address: in_use });
        }
        if let Some(problem) = server.lookup_failure.clone() {
            faults.push(ServerFault::NameService { in_use, problem });
        }
        let listed = || server.listed.clone();
        if !server.is_listed() && server.is_ordered {
            faults.extend(self.wait_of(member, in_use, now_ms));
        } else if !server.is_listed() && !server.listed.is_empty() {
            let listed = listed();
            faults.push(ServerFault::LeadsElsewhere { in_use, listed });
        } else if server.listed.len() > 1 {
            let listed = listed();
            faults.push(ServerFault::Several { in_use, listed });
        }
        let mut theirs = self.in_use_at_peers(member, false);
        if let Some(theirs) = theirs.find(|theirs| theirs.address != in_use) {
            let theirs = theirs.address;
            faults.push(ServerFault::PeerDiffers { in_use, theirs });
        }
        faults
    }

    /// What the ordered change of a backend's address waits for.
    fn wait_of(&self, member: &PoolMember, in_use: SocketAddr, now_ms: u64) -> Option<ServerFault> {
        let server = &member.server;
        let next = self.fit(member).next().or(server.others().next())?;
        let until = match (server.outcome(next), self.outdated_until(next)) {
            (_, Some(until_ms)) => Wait::Outdated(until_ms.saturating_sub(now_ms)),
            (Some(Ok(())), None) => Wait::Peers,
            (outcome, None) => Wait::Answer(outcome.and_then(Result::err)),
        };
        Some(ServerFault::Waits {
            in_use,
            next,
            until,
        })
    }
}

impl Notice {
    /// A backend is asked at another address; `is_loss` says whether it may have had sessions.
    fn of_change(
        member: &PoolMember,
        before: Option<InUse>,
        (address, why): (SocketAddr, Why),
        is_loss: bool,
    ) -> Self {
        let name = &member.spec.name;
        let Some(InUse { address: left, .. }) = before else {
            let in_map = &member.spec.address;
            return Self {
                level: LogLevel::Info,
                text: format!("{name} is the server at {address}, which {in_map} leads to"),
            };
        };
        let why = match why {
            Why::First | Why::Empty => "which held no sessions",
            Why::Ordered => "as the operator wants it",
            Why::Down => "which does not answer",
            Why::Peers(_) => "as its peers have it",
        };
        let lost = match member.server.sessions.filter(|sessions| *sessions > 0) {
            _ if !is_loss => String::new(),
            Some(sessions) => {
                format!(": about {sessions} sessions are lost unless both are the same server")
            }
            None => format!(": sessions that only {left} holds are lost"),
        };
        Self {
            level: if is_loss {
                LogLevel::Warn
            } else {
                LogLevel::Info
            },
            text: format!(
                "{name} is asked at {address} from now on instead of {left}, {why}{lost}"
            ),
        }
    }
}
