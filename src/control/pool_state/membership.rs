//! Proxies that are gone: whoever goes on without one, and what becomes of it when it starts again.
//!
//! A proxy that was left behind knows where every slot was when it ended, and the others may have
//! taken the slots elsewhere since, without its agreement. What it has written down must not be served
//! from. So each time the farm goes on without a proxy its [`Membership`] gets a higher number, which
//! the others take over and write down. Whoever starts and hears of a higher one than its own was not
//! there: it takes every slot to be where its peers have it, as one without a state file does.

use super::{Notice, PoolState};
use crate::config::BackendAddress;
use crate::handover::SlotState;

/// How often the farm has gone on without one of its proxies, as far as a proxy knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// Counts.
    pub number: u64,
    /// The proxy that went on: two that do so apart from each other must not pass for one.
    pub by: String,
}

/// What a proxy writes down about the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPeers {
    /// The farm as this proxy is part of it.
    pub membership: Membership,
    /// The peers of its main file.
    pub peers: Vec<BackendAddress>,
    /// Those of them that an operator has said to be gone, until they have joined again.
    pub gone: Vec<BackendAddress>,
}

/// What is so far ahead of the own number is no count: those of orders and of proxies that were left
/// behind rise by one with an order of an operator. One that was taken over from a faulty peer could not
/// be raised any more.
pub(super) const MAX_AHEAD: u64 = 1 << 20;

/// A proxy cannot be left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGone {
    /// No peer has this address.
    #[error("`peers` of the main file has no {peer}")]
    Unknown {
        /// The address.
        peer: BackendAddress,
    },
    /// It answers, or is this proxy itself.
    #[error(
        "the proxy at {peer} answers, or something else does there: stop it first, or it would serve \
         outdated sessions"
    )]
    Answers {
        /// Its address.
        peer: BackendAddress,
    },
}

impl PoolState {
    /// The farm as this proxy is part of it.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The peers that are gone by order and have not joined again.
    pub fn gone_peers(&self) -> &[BackendAddress] {
        &self.gone_peers
    }

    pub(super) fn known_peers(&self) -> KnownPeers {
        KnownPeers {
            membership: self.membership.clone(),
            peers: self.config.peers.clone(),
            gone: self.gone_peers.clone(),
        }
    }

    /// Goes on with what was written down. A peer that is in the main file no more was taken out of it
    /// since.
    pub(super) fn resume_peers(&mut self, known: KnownPeers, now_ms: u64) {
        let stays = |peer: &BackendAddress| self.config.peers.contains(peer);
        let is_taken_out = !known.peers.iter().all(stays);
        self.gone_peers = known.gone.into_iter().filter(stays).collect();
        self.membership = known.membership;
        if is_taken_out {
            self.go_on_without(&format!("{now_ms:x}"));
        }
        self.leave_gone_out();
    }

    /// Goes on without the peer at this address, as the proxy `by`; false if it does already.
    ///
    /// # Errors
    /// [`NotGone`], with nothing changed.
    pub fn leave_behind(&mut self, peer: &BackendAddress, by: &str) -> Result<bool, NotGone> {
        let known = self.config.peers.iter().position(|known| known == peer);
        let unknown = || NotGone::Unknown { peer: peer.clone() };
        let index = known.ok_or_else(unknown)?;
        if self.gone_peers.contains(peer) {
            return Ok(false);
        }
        self.check_is_silent(index, peer)?;
        self.gone_peers.push(peer.clone());
        self.go_on_without(by);
        self.leave_gone_out();
        Ok(true)
    }

    /// The peers that `peers` has no more are waited for no longer.
    ///
    /// # Errors
    /// [`NotGone`] for one that answers, with nothing changed.
    pub fn take_peers_out(&mut self, peers: &[BackendAddress], by: &str) -> Result<(), NotGone> {
        let known = self.config.peers.iter().enumerate();
        let mut is_one_out = false;
        for (index, peer) in known.filter(|(_, peer)| !peers.contains(peer)) {
            let is_itself = self.peer_positions.get(index) == Some(&None);
            if !is_itself {
                self.check_is_silent(index, peer)?;
            }
            is_one_out |= !is_itself || self.gone_peers.contains(peer);
        }
        self.gone_peers.retain(|gone| peers.contains(gone));
        if is_one_out {
            self.go_on_without(by);
        }
        Ok(())
    }

    fn check_is_silent(&self, index: usize, peer: &BackendAddress) -> Result<(), NotGone> {
        let position = self.peer_positions.get(index).copied().flatten();
        match position.and_then(|position| self.peers.get(position)) {
            Some(None) => Ok(()),
            _ => Err(NotGone::Answers { peer: peer.clone() }),
        }
    }

    fn go_on_without(&mut self, by: &str) {
        let heard = self.peers.iter().flatten().map(|peer| &peer.membership);
        let counted = heard.filter(|heard| self.counts(heard));
        let known = counted.chain([&self.membership]).map(|known| known.number);
        self.membership = Membership {
            number: known.max().unwrap_or(0).saturating_add(1),
            by: by.to_owned(),
        };
    }

    fn counts(&self, theirs: &Membership) -> bool {
        theirs.number <= self.membership.number.saturating_add(MAX_AHEAD)
    }

    pub(super) fn leave_gone_out(&mut self) {
        for index in 0..self.config.peers.len() {
            if self.gone_peers.contains(&self.config.peers[index]) {
                self.set_left_out(index, true);
            }
        }
    }

    /// Whether a proxy that says this was left behind and has not joined again: what it has must not
    /// be gone by.
    pub fn is_left_behind(&self, theirs: &Membership) -> bool {
        *theirs < self.membership
    }

    /// The peer at this position of the main file has joined again, or was never away.
    pub fn has_joined(&mut self, index: usize) {
        let peer = self.config.peers.get(index).cloned();
        self.gone_peers.retain(|gone| Some(gone) != peer.as_ref());
        self.set_left_out(index, false);
    }

    /// Takes over what the peer at this position says of the farm. True if this proxy may be the one
    /// that the others have gone on without: it did not hear that peer when they did.
    pub fn learn_membership(&mut self, index: usize, theirs: &Membership) -> bool {
        if *theirs <= self.membership || !self.counts(theirs) {
            return false;
        }
        let position = self.peer_positions.get(index).copied().flatten();
        let peer = position.and_then(|position| self.peers.get(position)?.as_ref());
        let was_heard = peer.is_some();
        self.membership = theirs.clone();
        !was_heard
    }

    /// Takes over what all peers say that are heard at the start. True if they have gone on since this
    /// proxy ended.
    pub fn learn_memberships(&mut self) -> bool {
        let heard = self.peers.iter().flatten().map(|peer| &peer.membership);
        let counted = heard.filter(|heard| self.counts(heard));
        let highest = counted.max().filter(|heard| **heard > self.membership);
        let Some(highest) = highest.cloned() else {
            return false;
        };
        self.membership = highest;
        true
    }

    /// Forgets where the slots were, and takes each to be where the peers have it.
    pub fn join_anew(&mut self, now_ms: u64) -> Vec<Notice> {
        let slots = self.scope();
        let slots = slots.map(|slot| SlotState::steady(self.target(slot), now_ms));
        self.slots = slots.collect();
        self.handovers = Default::default();
        self.failing = Default::default();
        let mut notices = vec![Notice::left_behind()];
        notices.extend(self.join_peers(now_ms));
        notices
    }
}
