//! The values of labels that are not names of backends.

use crate::handover::Refusal;
use crate::health::{Failure, HealthState};

/// How a request or an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestOutcome {
    /// 200.
    Ok,
    /// 404.
    Absent,
    /// 423.
    Locked,
    /// 400.
    BadRequest,
    /// No answer, not a whole one, or one that the protocol does not have.
    Failed,
}

impl RequestOutcome {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::Absent,
        Self::Locked,
        Self::BadRequest,
        Self::Failed,
    ];

    /// The outcome of an answer with this status code.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            200 => Self::Ok,
            404 => Self::Absent,
            423 => Self::Locked,
            400 => Self::BadRequest,
            _ => Self::Failed,
        }
    }

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Locked => "locked",
            Self::BadRequest => "bad_request",
            Self::Failed => "failed",
        }
    }
}

/// Why a client got no answer, or a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// Bytes that cannot be framed: 400.
    Malformed,
    /// A target that names no session: 400.
    BadTarget,
    /// A body over `limits.body`: 400.
    TooLarge,
    /// The client left or its connection broke.
    ClientLeft,
    /// The client neither sent nor read in time.
    ClientStalled,
    /// A body where the protocol has none, while the session may have to be moved.
    Unrepeatable,
    /// Other sessions that are being moved take all memory there is for that.
    Crowded,
    /// The backend is known to be down.
    BackendDown,
    /// The proxy had no port, file or buffer left to reach the backend.
    Shortage,
    /// No connection to the backend.
    Connect,
    /// The backend did not take the whole request.
    Send,
    /// The backend closed or broke before the whole answer was there.
    Broken,
    /// The backend's answer was late.
    Late,
    /// The backend's answer cannot be framed, or its lock cookie not be tagged.
    Garbage,
    /// The answer was none of a state server, or one to another request.
    Unfit,
    /// The backend answered 400: it refuses what it was asked, a full one a write.
    RefusedByBackend,
    /// The rules of the handover allow no answer.
    Refused(Refusal),
}

impl FailureReason {
    /// All of them, in order.
    pub const ALL: [Self; 23] = [
        Self::Malformed,
        Self::BadTarget,
        Self::TooLarge,
        Self::ClientLeft,
        Self::ClientStalled,
        Self::Unrepeatable,
        Self::Crowded,
        Self::BackendDown,
        Self::Shortage,
        Self::Connect,
        Self::Send,
        Self::Broken,
        Self::Late,
        Self::Garbage,
        Self::Unfit,
        Self::RefusedByBackend,
        Self::Refused(Refusal::Unknown),
        Self::Refused(Refusal::Suspect),
        Self::Refused(Refusal::Returning),
        Self::Refused(Refusal::BegunAnew),
        Self::Refused(Refusal::LockOutOfReach),
        Self::Refused(Refusal::Moving),
        Self::Refused(Refusal::Restless),
    ];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        let found = Self::ALL.iter().position(|reason| *reason == self);
        found.unwrap_or(0)
    }

    /// Whether the client is to blame: it left, stalled, or sent what is no request.
    #[must_use]
    pub const fn is_of_client(self) -> bool {
        matches!(
            self,
            Self::Malformed | Self::BadTarget | Self::ClientLeft | Self::ClientStalled
        )
    }

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadTarget => "bad_target",
            Self::TooLarge => "too_large",
            Self::ClientLeft => "client_left",
            Self::ClientStalled => "client_stalled",
            Self::Unrepeatable => "unrepeatable",
            Self::Crowded => "crowded",
            Self::BackendDown => "backend_down",
            Self::Shortage => "proxy_shortage",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Broken => "broken",
            Self::Late => "late",
            Self::Garbage => "garbage",
            Self::Unfit => "unfit",
            Self::RefusedByBackend => "refused_by_backend",
            Self::Refused(refusal) => match refusal {
                Refusal::Unknown => "unknown",
                Refusal::Suspect => "suspect",
                Refusal::Returning => "returning",
                Refusal::BegunAnew => "begun_anew",
                Refusal::LockOutOfReach => "lock_out_of_reach",
                Refusal::Moving => "moving",
                Refusal::CopyMissed => "copy_missed",
                Refusal::Unheard => "peers_unheard",
                Refusal::CopyLocked => "copy_locked",
                Refusal::Restless => "restless",
            },
        }
    }
}

/// Why a client's connection was closed unserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientRefusal {
    /// Its address is not in `allow`.
    NotAllowed,
    /// Too many connections.
    NoPlace,
    /// No TLS came about with it.
    NoTls,
}

impl ClientRefusal {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::NotAllowed, Self::NoPlace, Self::NoTls];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::NoPlace => "no_place",
            Self::NoTls => "no_tls",
        }
    }
}

/// Why a request to the admin server was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminRefusal {
    /// It asked for a host that the admin server is not known as.
    UnknownHost,
    /// A page in a browser made it.
    WebPage,
    /// It lacked the header that belongs to what changes something or is work.
    NoOwnHeader,
    /// It came from another machine, and there is no token.
    Remote,
    /// It showed no token.
    NoToken,
    /// It showed a wrong token.
    WrongToken,
    /// A wrong token had come from the same address within the second before.
    TooSoon,
    /// No TLS came about: nothing of it was read.
    NoTls,
}

impl AdminRefusal {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::UnknownHost,
        Self::WebPage,
        Self::NoOwnHeader,
        Self::Remote,
        Self::NoToken,
        Self::WrongToken,
        Self::TooSoon,
        Self::NoTls,
    ];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::WebPage => "web_page",
            Self::NoOwnHeader => "no_own_header",
            Self::Remote => "remote",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::TooSoon => "too_soon",
            Self::NoTls => "no_tls",
        }
    }
}

/// How a request for a locked session has ended its wait for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockWaitEnd {
    /// The lock was released, and it got its answer.
    Released,
    /// `locks.wait` was over.
    Expired,
    /// Its web server needed the thread that waited.
    CalledOff,
    /// Its client left, or it failed.
    Left,
    /// It did not wait: too many did, for this lock, in all, or of its web server.
    Refused,
    /// It did not wait: by what others have met, the lock would not be released in time.
    Hopeless,
}

impl LockWaitEnd {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Released,
        Self::Expired,
        Self::CalledOff,
        Self::Left,
        Self::Refused,
        Self::Hopeless,
    ];

    /// Whether there was a wait that has ended.
    #[must_use]
    pub const fn has_waited(self) -> bool {
        !matches!(self, Self::Refused | Self::Hopeless)
    }

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::CalledOff => "called_off",
            Self::Left => "left",
            Self::Refused => "refused",
            Self::Hopeless => "hopeless",
        }
    }
}

/// How far the move of a session had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveStep {
    /// The copy is being stored at the new place.
    Insert,
    /// The copy is there and is being handed to the client.
    Take,
}

impl MoveStep {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::Insert, Self::Take];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Take => "take",
        }
    }
}

/// What the partition map says of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapState {
    /// It has its share.
    Active,
    /// It is to let go of its sessions, or has left the map and still holds some.
    Draining,
    /// It is out.
    Off,
}

/// The one state of a backend: what the map says if it is out, else its health if that is not good,
/// else what the map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendStateLabel {
    /// It is well and has its share.
    Up,
    /// It failed lately.
    Suspect,
    /// It is not asked.
    Down,
    /// It is well and lets go of its sessions.
    Draining,
    /// It is out.
    Off,
}

impl BackendStateLabel {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Up,
        Self::Suspect,
        Self::Down,
        Self::Draining,
        Self::Off,
    ];

    /// From both that decide it.
    #[must_use]
    pub const fn of(state: MapState, verdict: HealthState) -> Self {
        match (state, verdict) {
            (MapState::Off, _) => Self::Off,
            (_, HealthState::Down) => Self::Down,
            (_, HealthState::Suspect) => Self::Suspect,
            (MapState::Draining, HealthState::Up) => Self::Draining,
            (MapState::Active, HealthState::Up) => Self::Up,
        }
    }

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }
}

/// All verdicts, in the order in which they are counted.
pub(super) const VERDICTS: [HealthState; 3] =
    [HealthState::Up, HealthState::Suspect, HealthState::Down];

/// The label of a verdict.
pub(super) const fn verdict_name(verdict: HealthState) -> &'static str {
    match verdict {
        HealthState::Up => "up",
        HealthState::Suspect => "suspect",
        HealthState::Down => "down",
    }
}

/// The label of a probe's result.
pub(super) const fn probe_name(result: Result<(), Failure>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(Failure::Shortage) => "proxy_shortage",
        Err(Failure::Unresolved) => "unresolved",
        Err(Failure::Refused) => "refused",
        Err(Failure::ConnectTimedOut) => "connect_timed_out",
        Err(Failure::Untrusted) => "untrusted",
        Err(Failure::Engine) => "engine",
        Err(Failure::ClosedAtOnce) => "closed_at_once",
        Err(Failure::Broken) => "broken",
        Err(Failure::Late) => "late",
        Err(Failure::Garbage) => "garbage",
        Err(Failure::WebServer) => "web_server",
        Err(Failure::HttpProxy) => "http_proxy",
        Err(Failure::NoVersion) => "no_version",
        Err(Failure::OtherStatus) => "other_status",
        Err(Failure::Unfit) => "unfit",
        Err(Failure::Staterouter) => "staterouter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_and_a_label_of_its_own() {
        let mut names: Vec<_> = FailureReason::ALL.map(FailureReason::name).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FailureReason::ALL.len());
        for (index, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn what_keeps_a_backend_from_serving_shows_first() {
        use {BackendStateLabel as S, HealthState as V, MapState as M};
        for (map, verdict, state) in [
            (M::Active, V::Up, S::Up),
            (M::Active, V::Suspect, S::Suspect),
            (M::Draining, V::Up, S::Draining),
            (M::Draining, V::Suspect, S::Suspect),
            (M::Draining, V::Down, S::Down),
            (M::Off, V::Up, S::Off),
            (M::Off, V::Down, S::Off),
        ] {
            assert_eq!(
                BackendStateLabel::of(map, verdict),
                state,
                "{map:?} {verdict:?}"
            );
        }
    }
}
