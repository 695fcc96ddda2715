//! What proxies of one farm tell each other: `GET /peer`.
//!
//! Nobody goes on alone: a proxy takes a slot to its next stage only when every peer says that it
//! has followed so far.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{BackendAddress, BackendState};
use crate::control::persist::slot_groups::{GroupError, SlotGroup, group, ungroup};
use crate::control::persist::state_file::StateName;
use crate::control::pool_state::persisted_state::Decision;
use crate::control::pool_state::{InUse, Membership, PeerServer, PeerView};
use crate::control::session_timeouts::{SeenTimeout, SeenTimeouts};
use crate::handover::{BackendId, SlotState};
use crate::net::UnixClock;

/// What a proxy tells of itself, as it is in force.
#[derive(Debug, Clone)]
pub struct PeerState {
    /// Drawn anew at every start, 16 hexadecimal digits.
    pub instance: String,
    /// Version of the partition map.
    pub map_version: u64,
    /// What operators have decided besides, by name.
    pub decisions: Vec<Decision>,
    /// The backends that answer.
    pub up: Vec<BackendId>,
    /// The backends that hold what must not be served: removals that they missed, or what was given
    /// up with them.
    pub pending: Vec<BackendId>,
    /// Where it asks its backends.
    pub servers: Vec<PeerServer>,
    /// The backends that its map or its operators have given up, by name.
    pub off: Vec<String>,
    /// The backends that it serves from no more before what they held has died.
    pub gone: Vec<BackendId>,
    /// The session timeouts seen lately.
    pub timeouts: SeenTimeouts,
    /// The farm as it is part of it.
    pub membership: Membership,
    /// Every slot, in order.
    pub slots: Arc<[SlotState]>,
    /// The clock that their times are of.
    pub clock: UnixClock,
}

/// The JSON on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    instance: String,
    map_version: u64,
    /// The sender's time, Unix time in milliseconds: the clocks of two machines need not agree.
    now_ms: u64,
    #[serde(default)]
    overrides: Vec<PeerDecision>,
    /// Ids of the backends that answer.
    up: Vec<u8>,
    /// Ids of the backends that have removals to be told of.
    #[serde(rename = "owed")]
    pending: Vec<u8>,
    /// Names of the backends that were given up.
    #[serde(default)]
    off: Vec<String>,
    /// Ids of the backends that are served from no more.
    #[serde(default)]
    gone: Vec<u8>,
    longest_session_timeout_minutes: u32,
    /// `None` from a version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<ServerReport>>,
    #[serde(default)]
    session_timeouts: Vec<PeerTimeout>,
    #[serde(default)]
    membership: MembershipReport,
    slots: Vec<SlotGroup>,
}

/// Where a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ServerReport {
    id: u8,
    /// The address in the partition map.
    address: String,
    in_use: Option<InUseReport>,
    /// Where it would be asked as soon as all proxies would.
    ready: Vec<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InUseReport {
    address: SocketAddr,
    since_ms: u64,
    is_change: bool,
}

/// How often the farm has gone on without one of its proxies, and which one did so last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct MembershipReport {
    number: u64,
    by: String,
}

/// A state that a backend has by order and not by the partition map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PeerDecision {
    backend: String,
    #[serde(with = "StateName")]
    state: BackendState,
    /// The map's own state counts again.
    #[serde(default)]
    withdrawn: bool,
    #[serde(default)]
    epoch: u64,
    /// When its server was said to hold nothing from before, by the sender's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fresh_ms: Option<u64>,
}

/// A session timeout, and when it was seen last, by the sender's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PeerTimeout {
    minutes: u32,
    seen_ms: u64,
}

/// Decisions and timeouts of a peer that are looked at: more than there can be backends, and more
/// than a proxy tells.
const MAX_LISTED: usize = 256;

/// Characters of another proxy's name that are kept.
const MAX_NAME_CHARS: usize = 64;

/// Characters that are told of what is wrong with a report: it quotes what the peer has sent.
const MAX_TOLD_CHARS: usize = 200;

/// Why a peer's answer is no report.
#[derive(Debug, thiserror::Error)]
pub enum PeerReportError {
    /// The peer sent something else.
    #[error("it sent no report of a proxy: {}", start_of(.0))]
    Malformed(#[from] serde_json::Error),
    /// The peer sent slots that cannot be.
    #[error("it sent no report of a proxy: {0}")]
    Slots(#[from] GroupError),
    /// The address in the main file is our own.
    #[error("it is this proxy itself")]
    Itself,
}

fn start_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let shown = text.chars().take(MAX_TOLD_CHARS);
    shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl PeerState {
    /// What to send now.
    pub fn report(&self) -> PeerReport {
        PeerReport {
            instance: self.instance.clone(),
            map_version: self.map_version,
            now_ms: self.clock.now_ms(),
            overrides: self.decisions.iter().map(PeerDecision::from).collect(),
            up: ids(&self.up),
            pending: ids(&self.pending),
            servers: Some(self.servers.iter().map(ServerReport::from).collect()),
            off: self.off.clone(),
            gone: ids(&self.gone),
            longest_session_timeout_minutes: self.timeouts.longest_minutes(),
            session_timeouts: self.timeouts.iter().map(PeerTimeout::from).collect(),
            membership: MembershipReport {
                number: self.membership.number,
                by: self.membership.by.clone(),
            },
            slots: group(&self.slots),
        }
    }
}

impl From<&Decision> for PeerDecision {
    fn from(known: &Decision) -> Self {
        Self {
            backend: known.backend.clone(),
            state: known.state,
            withdrawn: known.is_withdrawn,
            epoch: known.epoch,
            fresh_ms: known.fresh_ms,
        }
    }
}

impl PeerDecision {
    /// `here` gives times of this proxy's clock.
    fn into_decision(self, here: impl Fn(u64) -> u64) -> Decision {
        Decision {
            backend: self.backend,
            state: self.state,
            is_withdrawn: self.withdrawn,
            epoch: self.epoch,
            since_ms: 0,
            is_only_here: false,
            fresh_ms: self.fresh_ms.map(here),
        }
    }
}

impl From<SeenTimeout> for PeerTimeout {
    fn from(SeenTimeout { minutes, seen_ms }: SeenTimeout) -> Self {
        Self { minutes, seen_ms }
    }
}

impl From<&PeerServer> for ServerReport {
    fn from(server: &PeerServer) -> Self {
        let in_use = server.in_use.map(|in_use| InUseReport {
            address: in_use.address,
            since_ms: in_use.since_ms,
            is_change: in_use.is_change,
        });
        Self {
            id: server.backend_id.id(),
            address: server.in_map.to_string(),
            in_use,
            ready: server.ready.clone(),
        }
    }
}

impl ServerReport {
    /// `None` for a backend or an address that cannot be. `here` gives times of this proxy's clock.
    fn into_server(self, here: impl Fn(u64) -> u64) -> Option<PeerServer> {
        Some(PeerServer {
            backend_id: BackendId::new(self.id)?,
            in_map: BackendAddress::parse(&self.address).ok()?,
            in_use: self.in_use.map(|in_use| InUse {
                address: in_use.address,
                since_ms: here(in_use.since_ms),
                is_change: in_use.is_change,
            }),
            ready: self.ready,
        })
    }
}

fn ids(places: &[BackendId]) -> Vec<u8> {
    places.iter().map(|backend_id| backend_id.id()).collect()
}

fn places(ids: Vec<u8>) -> Vec<BackendId> {
    ids.into_iter().filter_map(BackendId::new).collect()
}

/// Reads what a peer has sent, which arrived at `now_ms` at the proxy `own_instance`. Fields that a
/// later version may add are skipped.
///
/// # Errors
/// [`PeerReportError`].
pub fn read(body: &[u8], own_instance: &str, now_ms: u64) -> Result<PeerView, PeerReportError> {
    let report: PeerReport = serde_json::from_slice(body)?;
    if report.instance == own_instance {
        return Err(PeerReportError::Itself);
    }
    // What was under way for a while looks younger than it is, and everybody waits a little longer.
    let here = |at_ms: u64| now_ms.saturating_sub(report.now_ms.saturating_sub(at_ms));
    let slots = ungroup(&report.slots)?;
    let slots = slots.into_iter().map(|slot| slot.read_by(here)).collect();
    Ok(PeerView {
        map_version: report.map_version,
        slots,
        up: places(report.up),
        pending: places(report.pending),
        off: report.off,
        gone: places(report.gone).into_iter().collect(),
        decisions: report
            .overrides
            .into_iter()
            .take(MAX_LISTED)
            .map(|heard| heard.into_decision(here))
            .collect(),
        timeouts: report
            .session_timeouts
            .into_iter()
            .take(MAX_LISTED)
            .map(|seen| SeenTimeout {
                minutes: seen.minutes,
                seen_ms: here(seen.seen_ms),
            })
            .collect(),
        servers: report.servers.map(|servers| {
            let servers = servers.into_iter();
            servers
                .filter_map(|server| server.into_server(here))
                .collect()
        }),
        membership: Membership {
            number: report.membership.number,
            by: report.membership.by.chars().take(MAX_NAME_CHARS).collect(),
        },
        heard_ms: now_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::{Before, Outdated, Stage};
    use crate::route::SLOT_COUNT;

    fn state(slots: Vec<SlotState>) -> PeerState {
        PeerState {
            instance: "them".to_owned(),
            map_version: 7,
            decisions: Vec::new(),
            up: vec![BackendId::new(1).unwrap(), BackendId::new(127).unwrap()],
            pending: vec![BackendId::new(127).unwrap()],
            servers: vec![PeerServer {
                backend_id: BackendId::new(1).unwrap(),
                in_map: BackendAddress::parse("state-1.example:42424").unwrap(),
                in_use: Some(InUse {
                    address: SocketAddr::from(([192, 0, 2, 1], 42424)),
                    since_ms: 400,
                    is_change: true,
                }),
                ready: vec![SocketAddr::from(([192, 0, 2, 2], 42424))],
            }],
            off: vec!["b".to_owned()],
            gone: vec![BackendId::new(127).unwrap()],
            timeouts: [SeenTimeout {
                minutes: 60,
                seen_ms: 990,
            }]
            .into_iter()
            .collect(),
            membership: Membership::default(),
            slots: slots.into(),
            clock: UnixClock::start(),
        }
    }

    fn suspect(since_ms: u64) -> SlotState {
        SlotState {
            second: BackendId::new(127),
            stage: Stage::Suspect,
            before: Some(Before {
                first: BackendId::new(127).unwrap(),
                second: None,
                stage: Stage::Steady,
                since_ms: since_ms - 40,
            }),
            outdated: Outdated::NONE.with(BackendId::new(3), since_ms - 50),
            ..SlotState::steady(BackendId::new(1).unwrap(), since_ms)
        }
    }

    #[test]
    fn of_a_report_that_is_none_only_the_start_is_told() {
        let long = "x".repeat(1 << 20);
        let slots =
            format!(r#"[{{"first": 1, "stage": "\n{long}", "since_ms": 1, "slots": "0"}}]"#);
        let body = format!(
            r#"{{"instance": "them", "map_version": 1, "now_ms": 1, "up": [], "owed": [], "longest_session_timeout_minutes": 0, "slots": {slots}}}"#
        );
        let error = read(body.as_bytes(), "us", 1).unwrap_err().to_string();
        assert!(error.contains("unknown variant `?xxx"), "{error}");
        assert!(error.len() < 300, "{} bytes", error.len());
    }

    #[test]
    fn a_report_says_how_long_things_last_and_not_what_a_clock_shows() {
        let mut slots = vec![SlotState::steady(BackendId::new(1).unwrap(), 5); SLOT_COUNT];
        let sent = PeerReport {
            now_ms: 1_000,
            ..state(Vec::new()).report()
        };
        slots[3] = suspect(900);
        let sent = PeerReport {
            slots: group(&slots),
            ..sent
        };
        let body = serde_json::to_vec(&sent).unwrap();
        let view = read(&body, "us", 50_000).unwrap();
        assert_eq!((view.map_version, view.heard_ms), (7, 50_000));
        assert_eq!(view.up, state(Vec::new()).up);
        assert_eq!(view.timeouts.longest_minutes(), 60);
        assert_eq!(view.timeouts.last_seen_ms(60), Some(49_990));
        assert_eq!(view.off, ["b"]);
        assert!(view.gone.contains(BackendId::new(127).unwrap()));
        assert_eq!(view.slots[3], suspect(49_900));
        assert_eq!(view.slots[4].since_ms, 50_000 - 995);
        let mut servers = state(Vec::new()).servers;
        servers[0].in_use.as_mut().unwrap().since_ms = 49_400;
        assert_eq!(view.servers, Some(servers));
    }

    #[test]
    fn a_proxy_does_not_agree_with_itself() {
        let slots = vec![SlotState::steady(BackendId::new(1).unwrap(), 5); SLOT_COUNT];
        let body = serde_json::to_vec(&state(slots).report()).unwrap();
        assert!(read(&body, "us", 1).is_ok());
        let error = read(&body, "them", 1).unwrap_err();
        assert!(matches!(error, PeerReportError::Itself), "{error}");
    }

    #[test]
    fn what_a_later_version_says_besides_is_skipped() {
        let slots = vec![suspect(900); SLOT_COUNT];
        let report = state(slots).report();
        let mut sent = serde_json::to_value(&report).unwrap();
        for more in [
            "/more",
            "/slots/0/more",
            "/slots/0/before/more",
            "/slots/0/outdated/more",
        ] {
            let (parent, key) = more.rsplit_once('/').unwrap();
            sent.pointer_mut(parent).unwrap()[key] = "new".into();
        }
        let read = |sent: &[u8]| read(sent, "us", 50_000).unwrap();
        let (more, same) = (
            read(sent.to_string().as_bytes()),
            read(&serde_json::to_vec(&report).unwrap()),
        );
        assert_eq!(more.slots, same.slots);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let report = |slots: &str| {
            format!(
                r#"{{"instance":"a","map_version":1,"now_ms":9,"up":[0,1,200],"owed":[1,0],"longest_session_timeout_minutes":0,"new":1,"slots":{slots}}}"#
            )
        };
        let all =
            r#"[{"first":1,"stage":"steady","since_ms":18446744073709551615,"slots":"0-16383"}]"#;
        let view = read(report(all).as_bytes(), "us", 5).unwrap();
        assert_eq!(view.up, [BackendId::new(1).unwrap()]);
        assert_eq!(view.slots[0].since_ms, 5, "the future is now");
        for body in [
            "",
            "[]",
            "{}",
            &report("[]"),
            &report(&all.replace("16383", "16384")),
            &report(&all.replace("steady", "settle")),
        ] {
            assert!(read(body.as_bytes(), "us", 5).is_err(), "{body}");
        }
    }
}
