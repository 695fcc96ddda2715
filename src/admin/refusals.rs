//! What becomes of requests that are refused: counted, one log line a minute for each reason, and
//! wrong tokens slowed down.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;

use super::access::{Denied, shown_token};
use crate::config::AdminToken;
use crate::metrics::{AdminRefusal, AdminRefusals};

/// For how long no other token from there is looked at once one was wrong: a guess a second.
pub(super) const TOKEN_PAUSE: Duration = Duration::from_secs(1);

/// Addresses that are remembered for their wrong tokens. With more than these, the oldest is
/// forgotten early.
const MAX_PAUSED: usize = 4096;

/// Time between two log lines about the same reason.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What was refused so far, shared by all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    counts: Arc<AdminRefusals>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    paused: Paused,
    log: [LogGate; AdminRefusal::ALL.len()],
}

/// Where wrong tokens came from lately, the oldest first, each once.
#[derive(Debug, Default)]
struct Paused(VecDeque<(IpAddr, Instant)>);

/// Lets one log line through now and then.
#[derive(Debug, Default)]
struct LogGate {
    last: Option<Instant>,
    kept_back: u64,
}

impl Refusals {
    /// Counts in `counts`.
    pub(super) fn new(counts: Arc<AdminRefusals>) -> Self {
        Self {
            counts,
            state: Arc::default(),
        }
    }

    /// Whether the request from `peer` shows `token`.
    ///
    /// # Errors
    /// [`Denied`].
    pub(super) fn check_token(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        token: &AdminToken,
        now: Instant,
    ) -> Result<(), Denied> {
        let shown = shown_token(headers).ok_or(Denied::NoToken)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.paused.is_paused(peer, now) {
            return Err(Denied::TooSoon);
        }
        if token.is(shown) {
            return Ok(());
        }
        state.paused.pause(peer, now);
        Err(Denied::WrongToken)
    }

    /// Takes note of a request that was refused.
    pub(super) fn note(&self, denied: &Denied, peer: IpAddr, path: &str, now: Instant) {
        let reason = denied.reason();
        if let Some(more) = self.count(reason, now) {
            let reason = reason.name();
            tracing::warn!(%peer, path, reason, more, "an admin request was refused: {denied}");
        }
    }

    /// Takes note of a client with which no TLS came about.
    pub(super) fn note_untrusted(&self, problem: &str, peer: IpAddr) {
        let reason = AdminRefusal::NoTls;
        if let Some(more) = self.count(reason, Instant::now()) {
            let reason = reason.name();
            tracing::warn!(%peer, reason, more, "an admin connection was refused: no TLS with it: {problem}");
        }
    }

    /// Counts a refusal. How many were not logged since the last one, if this one is to be.
    fn count(&self, reason: AdminRefusal, now: Instant) -> Option<u64> {
        self.counts.add(reason);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.log[reason as usize].pass(now)
    }
}

impl Paused {
    fn is_paused(&mut self, peer: IpAddr, now: Instant) -> bool {
        while let Some((_, since)) = self.0.front()
            && now.saturating_duration_since(*since) >= TOKEN_PAUSE
        {
            self.0.pop_front();
        }
        let network = network_of(peer);
        self.0.iter().any(|(paused, _)| *paused == network)
    }

    fn pause(&mut self, peer: IpAddr, now: Instant) {
        if self.0.len() == MAX_PAUSED {
            self.0.pop_front();
        }
        self.0.push_back((network_of(peer), now));
    }
}

/// Who has one IPv6 address usually has the 2^64 of its network.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) if ip.is_loopback() => ip.into(),
        IpAddr::V6(ip) => {
            const NETWORK: u128 = !0 << 64;
            Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into()
        }
    }
}

impl LogGate {
    /// How many lines were kept back since the last one that passed, if this one passes.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let is_due = |last| now.saturating_duration_since(last) >= LOG_EVERY;
        if self.last.is_none_or(is_due) {
            self.last = Some(now);
            return Some(std::mem::take(&mut self.kept_back));
        }
        self.kept_back += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 8));

    #[test]
    fn a_wrong_token_costs_its_sender_a_second_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let token = AdminToken::read(&path).unwrap();
        let refusals = Refusals::default();
        let check = |text: &'static str, peer, now| {
            let value = HeaderValue::from_static(text);
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            refusals.check_token(&headers, peer, &token, now)
        };
        const WRONG: &str = "Bearer 0123456789abcdeX";
        const RIGHT: &str = "Bearer 0123456789abcdef";
        let start = Instant::now();
        assert_eq!(check(WRONG, A, start), Err(Denied::WrongToken));
        let soon = start + TOKEN_PAUSE / 2;
        // Whether it is the right one cannot be learned in that second.
        assert_eq!(check(WRONG, A, soon), Err(Denied::TooSoon));
        assert_eq!(check(RIGHT, A, soon), Err(Denied::TooSoon));
        assert_eq!(check(RIGHT, B, soon), Ok(()));
        // What was not looked at makes the pause no longer.
        assert_eq!(check(RIGHT, A, start + TOKEN_PAUSE), Ok(()));
        assert_eq!(
            check("Basic eDp5", A, start + TOKEN_PAUSE),
            Err(Denied::NoToken)
        );
    }

    #[test]
    fn an_ipv6_network_is_one_sender_and_their_number_is_bounded() {
        let now = Instant::now();
        let mut paused = Paused::default();
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        paused.pause(at("2001:db8::1"), now);
        assert!(paused.is_paused(at("2001:db8::ffff:1"), now));
        assert!(!paused.is_paused(at("2001:db8:0:1::1"), now));
        paused.pause(at("::ffff:10.0.0.7"), now);
        assert!(paused.is_paused(A, now));
        for n in 0..2 * MAX_PAUSED as u32 {
            paused.pause(std::net::Ipv4Addr::from_bits(n).into(), now);
        }
        assert_eq!(paused.0.len(), MAX_PAUSED);
    }

    #[test]
    fn a_flood_is_one_line_a_minute_that_says_how_many_there_were() {
        let mut gate = LogGate::default();
        let start = Instant::now();
        assert_eq!(gate.pass(start), Some(0));
        for _ in 0..46_000 {
            assert_eq!(gate.pass(start + LOG_EVERY / 2), None);
        }
        assert_eq!(gate.pass(start + LOG_EVERY), Some(46_000));
        assert_eq!(gate.pass(start + LOG_EVERY), None);
    }
}
