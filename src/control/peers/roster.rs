//! The other proxies, as far as an operator has to know of them.

use tokio::sync::oneshot;

use crate::config::{BackendAddress, BackendState, PEER_SILENCE};
use crate::control::pool_state::persisted_state::Decision;
use crate::control::pool_state::{PeerView, PoolState};
use crate::control::report::status::PeerStatus;

/// A peer that says nothing for this long does not answer, whoever is to blame.
const SILENCE_MS: u64 = PEER_SILENCE.as_millis() as u64;

/// How often what is wrong with a peer is said again.
const REPEAT_MS: u64 = 60_000;

/// The peers of the main file, in its order.
#[derive(Debug)]
pub(crate) struct Peers(Vec<Peer>);

/// What a proxy goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Version of its map.
    map_version: u64,
    /// What was decided besides, by name.
    overrides: Vec<(String, BackendState)>,
}

#[derive(Debug)]
struct Peer {
    address: String,
    /// What it goes by, or why it does not say.
    state: Result<Said, String>,
    /// When it was asked last, as far as that has ended.
    heard_ms: u64,
    /// When it was asked what it has said last.
    said_ms: u64,
    /// Since when it has had other overrides than this proxy.
    differs_since_ms: Option<u64>,
    /// It has not had the time to answer yet.
    is_new: bool,
    /// It is this proxy: one main file for all proxies lists each of them.
    is_itself: bool,
    /// It is gone by order.
    is_gone: bool,
    /// Since when nobody has taken a connection at its address; `None` while somebody does.
    silent_since_ms: Option<u64>,
    /// When a complaint about it is due again; `None` while there is nothing to complain about.
    repeat_ms: Option<u64>,
}

/// What a proxy has to learn before it serves: what the others have under way and what was decided
/// meanwhile, and where the names of its backends lead.
#[derive(Debug)]
pub(crate) struct FirstMeeting {
    /// Nobody is waited for any longer.
    until_ms: u64,
    /// There are peers.
    asks_peers: bool,
    /// Where the slots were when this proxy ended.
    is_remembered: bool,
    over: oneshot::Sender<()>,
}

/// What was asked for at `asked_ms` does not count any more.
pub(crate) const fn is_old(asked_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(asked_ms) >= SILENCE_MS
}

impl FirstMeeting {
    /// A meeting that begins now, and who is told, or finds it dropped, when it is over.
    pub(crate) fn new(
        asks_peers: bool,
        is_remembered: bool,
        now_ms: u64,
    ) -> (Self, oneshot::Receiver<()>) {
        let (over, is_over) = oneshot::channel();
        let meeting = Self {
            until_ms: now_ms + SILENCE_MS,
            asks_peers,
            is_remembered,
            over,
        };
        (meeting, is_over)
    }

    /// Whether this proxy knows itself where its slots were.
    pub(crate) fn is_remembered(&self) -> bool {
        self.is_remembered
    }

    /// Whether all have said what there is to say, or have had their time.
    pub(crate) fn is_over(&self, peers: &Peers, awaits_address: bool, now_ms: u64) -> bool {
        let have_peers_said = !self.asks_peers || peers.all_answer();
        have_peers_said && !awaits_address || now_ms >= self.until_ms
    }

    /// Lets the clients in.
    pub(crate) fn end(self, peers: &Peers) {
        if self.asks_peers && !peers.all_answer() {
            tracing::warn!("clients are served before every peer has said what it has under way");
        }
        // Whoever waits for it may have been stopped.
        let _ = self.over.send(());
    }
}

impl Peers {
    pub(crate) fn new(addresses: &[BackendAddress], now_ms: u64) -> Self {
        let peers = addresses.iter();
        Self(peers.map(|address| Peer::new(address, now_ms)).collect())
    }

    /// The peers of another main file; of those that it has, too, everything stays known.
    pub(crate) fn follow(&mut self, addresses: &[BackendAddress], now_ms: u64) {
        let mut known = std::mem::take(&mut self.0);
        let peer = |address: &BackendAddress| {
            let text = address.to_string();
            let position = known.iter().position(|peer| peer.address == text);
            position.map_or_else(
                || Peer::new(address, now_ms),
                |position| known.swap_remove(position),
            )
        };
        self.0 = addresses.iter().map(peer).collect();
    }

    /// Which of them are gone by order.
    pub(crate) fn set_gone(&mut self, gone: &[BackendAddress]) {
        for peer in &mut self.0 {
            let mut gone = gone.iter();
            peer.is_gone = gone.any(|gone| gone.to_string() == peer.address);
        }
    }

    /// Whether something took the connection when the peer at this position was asked at `asked_ms`. A
    /// proxy that answers nonsense, or nothing, may serve all the same.
    pub(crate) fn met(&mut self, index: usize, is_there: bool, asked_ms: u64) {
        if let Some(peer) = self.0.get_mut(index) {
            let since_ms = peer.silent_since_ms.unwrap_or(asked_ms);
            peer.silent_since_ms = (!is_there).then_some(since_ms);
        }
    }

    /// How long nobody has been at this peer's address, in milliseconds; `None` if somebody is, or if
    /// it is no peer.
    pub(crate) fn silent_ms(&self, address: &BackendAddress, now_ms: u64) -> Option<u64> {
        let text = address.to_string();
        let peer = self.others().find(|peer| peer.address == text)?;
        Some(now_ms.saturating_sub(peer.silent_since_ms?))
    }

    /// The peer at this position, asked at `asked_ms`, has said what it goes by, or could not be
    /// asked.
    pub(crate) fn heard(&mut self, index: usize, state: Result<Said, String>, asked_ms: u64) {
        if let Some(peer) = self.0.get_mut(index) {
            // It stays itself until it is somebody else.
            peer.is_itself &= state.is_err();
            let is_back = peer.state.is_err() && state.is_ok();
            if state.is_ok() {
                peer.said_ms = asked_ms;
            }
            peer.state = state;
            peer.heard_ms = asked_ms;
            peer.is_new = false;
            if is_back {
                tracing::info!(peer = peer.address, "peer answers");
            }
        }
    }

    /// The peer at this position is this proxy.
    pub(crate) fn heard_itself(&mut self, index: usize) {
        if let Some(peer) = self.0.get_mut(index).filter(|peer| !peer.is_itself) {
            peer.is_itself = true;
            tracing::info!(
                peer = peer.address,
                "this peer is this proxy itself and is left out"
            );
        }
    }

    /// Whether the peer at this address is another proxy, as far as is known.
    pub(crate) fn is_other(&self, address: &BackendAddress) -> bool {
        let text = address.to_string();
        self.others().any(|peer| peer.address == text)
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter().filter(|peer| !peer.is_itself)
    }

    fn all_answer(&self) -> bool {
        self.others().all(|peer| peer.state.is_ok())
    }

    /// Those that have said nothing for too long, by position.
    pub(crate) fn silent(&mut self, now_ms: u64) -> Vec<usize> {
        let mut silent = Vec::new();
        for (index, peer) in self.0.iter_mut().enumerate() {
            if is_old(peer.heard_ms, now_ms) {
                peer.state = Err("nobody has asked it lately".to_owned());
                peer.is_new = false;
            }
            if is_old(peer.said_ms, now_ms) {
                silent.push(index);
            }
        }
        silent
    }

    /// Those that did not answer when they were asked last, by position: what they said before still
    /// counts for a moment, and an order would miss them.
    pub(crate) fn unanswering(&self) -> impl Iterator<Item = usize> {
        let failed = self.0.iter().enumerate();
        failed.filter_map(|(index, peer)| peer.state.is_err().then_some(index))
    }

    /// Logs what is wrong, at once and then again and again.
    pub(crate) fn complain(&mut self, own: &Said, now_ms: u64) {
        for peer in self
            .0
            .iter_mut()
            .filter(|peer| !peer.is_itself && !peer.is_gone)
        {
            peer.compare(own, now_ms);
            let complaint = peer.complaint(own, now_ms);
            let Some(complaint) = complaint else {
                peer.repeat_ms = None;
                continue;
            };
            if peer.repeat_ms.is_none_or(|due_ms| now_ms >= due_ms) {
                peer.repeat_ms = Some(now_ms + REPEAT_MS);
                tracing::warn!(peer = peer.address, "{complaint}");
            }
        }
    }

    pub(crate) fn status(&self, own: &Said) -> Vec<PeerStatus> {
        let status = |peer: &Peer| PeerStatus {
            address: peer.address.clone(),
            failure: peer.state.as_ref().err().cloned(),
            map_version: peer.state.as_ref().ok().map(|said| said.map_version),
            overrides_differ: peer.differs(own),
            gone: peer.is_gone,
        };
        self.others().map(status).collect()
    }
}

impl Peer {
    fn new(address: &BackendAddress, now_ms: u64) -> Self {
        Self {
            address: address.to_string(),
            state: Err("it has not been asked yet".to_owned()),
            heard_ms: now_ms,
            said_ms: now_ms,
            differs_since_ms: None,
            is_new: true,
            is_itself: false,
            is_gone: false,
            silent_since_ms: Some(now_ms),
            repeat_ms: None,
        }
    }

    /// Whether it goes by other overrides. Those of another map may have ended with it.
    fn differs(&self, own: &Said) -> bool {
        let differs =
            |said: &Said| said.map_version == own.map_version && said.overrides != own.overrides;
        self.state.as_ref().is_ok_and(differs)
    }

    fn compare(&mut self, own: &Said, now_ms: u64) {
        self.differs_since_ms = match self.differs_since_ms {
            _ if !self.differs(own) => None,
            None => Some(now_ms),
            known => known,
        };
    }

    fn complaint(&self, own: &Said, now_ms: u64) -> Option<String> {
        let own_version = own.map_version;
        let differs_ms = self
            .differs_since_ms
            .map(|since_ms| now_ms.saturating_sub(since_ms));
        match &self.state {
            Err(_) if self.is_new => None,
            Err(failure) => Some(format!(
                "peer does not answer, so no handover goes on, no backend is given up and none that is \
                 down is replaced: {failure}. Start that proxy. If it cannot be started soon, tell every \
                 other proxy: staterouter peer {} gone. If it is gone for good, take it out of `peers` \
                 in their main files",
                self.address
            )),
            Ok(said) if said.map_version > own_version => Some(format!(
                "peer has version {} of the partition map, this proxy still has \
                 {own_version}: bring the map to every proxy",
                said.map_version
            )),
            // An order reaches one proxy after the other.
            Ok(_) if differs_ms.is_some_and(|lasts_ms| lasts_ms >= SILENCE_MS) => Some(
                "peer has other overrides of the partition map than this proxy and does not take \
                 over the newer ones: give the order to that proxy, too"
                    .to_owned(),
            ),
            Ok(_) => None,
        }
    }
}

impl Said {
    fn new(map_version: u64, decisions: &[Decision]) -> Self {
        let in_force = decisions.iter().filter(|known| !known.is_withdrawn);
        Self {
            map_version,
            overrides: in_force
                .map(|known| (known.backend.clone(), known.state))
                .collect(),
        }
    }
}

impl From<&PoolState> for Said {
    fn from(pool_state: &PoolState) -> Self {
        Self::new(pool_state.map().version, pool_state.decisions())
    }
}

impl From<&PeerView> for Said {
    fn from(view: &PeerView) -> Self {
        Self::new(view.map_version, &view.decisions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        Peers::new(&[BackendAddress::parse("10.0.0.6:42480").unwrap()], 1_000)
    }

    fn said(map_version: u64) -> Said {
        Said {
            map_version,
            overrides: Vec::new(),
        }
    }

    fn complaint(peers: &Peers) -> Option<String> {
        peers.0[0].complaint(&said(4), 2_000)
    }

    #[test]
    fn a_peer_that_is_ahead_or_does_not_answer_is_complained_about() {
        let mut peers = peers();
        for (state, complaint_has) in [
            (
                Err("connection refused".to_owned()),
                Some("connection refused"),
            ),
            (Ok(4), None),
            (Ok(5), Some("version 5")),
            (Ok(3), None),
        ] {
            peers.heard(0, state.map(said), 2_000);
            let complaint = complaint(&peers).unwrap_or_default();
            let wanted = complaint_has.unwrap_or_default();
            assert!(complaint.contains(wanted), "{complaint}");
            assert_eq!(complaint.is_empty(), wanted.is_empty(), "{complaint}");
        }
    }

    #[test]
    fn what_was_heard_long_ago_does_not_count() {
        let mut peers = peers();
        peers.heard(0, Ok(said(4)), 2_000);
        assert!(peers.silent(4_999).is_empty());
        assert_eq!(peers.status(&said(4))[0].map_version, Some(4));
        assert_eq!(peers.silent(5_000), [0]);
        assert!(peers.status(&said(4))[0].failure.is_some());
        peers.heard(0, Ok(said(4)), 5_500);
        assert!(peers.silent(6_000).is_empty());
    }

    /// Others wait for it until then: it may have copies that it counts on.
    #[test]
    fn what_a_peer_has_said_counts_until_it_was_silent_for_too_long() {
        let mut peers = peers();
        peers.heard(0, Ok(said(4)), 2_000);
        assert!(peers.unanswering().next().is_none());
        peers.heard(0, Err("no".to_owned()), 4_900);
        assert!(peers.silent(4_999).is_empty());
        // An order would miss it at once.
        assert!(peers.unanswering().eq([0]));
        assert_eq!(peers.silent(5_000), [0]);
        assert_eq!(peers.status(&said(4))[0].failure.as_deref(), Some("no"));
    }

    #[test]
    fn overrides_that_stay_different_are_complained_about() {
        let mut peers = peers();
        let own = Said {
            overrides: vec![("state-a".to_owned(), BackendState::Drain)],
            ..said(4)
        };
        peers.heard(0, Ok(said(4)), 2_000);
        for (now_ms, is_complaint) in [(2_000, false), (4_999, false), (5_000, true)] {
            peers.complain(&own, now_ms);
            let complaint = peers.0[0].complaint(&own, now_ms);
            assert_eq!(complaint.is_some(), is_complaint, "{now_ms}");
            assert!(peers.status(&own)[0].overrides_differ);
        }
        // It has the order now, or another map, which says what it goes by.
        for said in [own.clone(), said(3)] {
            peers.heard(0, Ok(said), 6_000);
            peers.complain(&own, 6_000);
            assert_eq!(peers.0[0].complaint(&own, 6_000), None);
            assert!(!peers.status(&own)[0].overrides_differ);
        }
    }

    #[test]
    fn a_peer_has_some_time_for_its_first_answer() {
        let mut peers = peers();
        assert_eq!(complaint(&peers), None);
        peers.silent(3_999);
        assert_eq!(complaint(&peers), None);
        peers.silent(4_000);
        assert!(complaint(&peers).is_some());
    }

    #[test]
    fn a_complaint_is_repeated_once_a_minute() {
        let mut peers = peers();
        peers.heard(0, Err("no".to_owned()), 2_000);
        peers.complain(&said(4), 2_000);
        assert_eq!(peers.0[0].repeat_ms, Some(62_000));
        peers.complain(&said(4), 61_999);
        assert_eq!(peers.0[0].repeat_ms, Some(62_000));
        peers.complain(&said(4), 62_000);
        assert_eq!(peers.0[0].repeat_ms, Some(122_000));
        peers.heard(0, Ok(said(4)), 63_000);
        peers.complain(&said(4), 63_000);
        assert_eq!(peers.0[0].repeat_ms, None);
    }
}
