//! What a run of the farm is to do.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::body::MIN_BODY_BYTES;
use super::checker::Rules;

/// Everything that decides a run. [`FarmOptions::default`] is a small, quick, harmless one.
#[derive(Debug, Clone)]
pub struct FarmOptions {
    /// Where the state-server protocol is spoken. With several, every request picks one at random,
    /// so the requests of one session alternate between proxies. Default: 127.0.0.1:42424.
    pub targets: Vec<SocketAddr>,
    /// Web requests in progress at the same time. Default 64.
    pub clients: usize,
    /// Users, and so sessions, at the same time. Default 1000.
    pub sessions: usize,
    /// When the run is over. Default: after 10 s.
    pub end: RunEnd,
    /// Pages per second, whether or not earlier ones have ended (open loop). `None`, the default:
    /// every client begins a page when its last one is done (closed loop).
    pub pages_per_s: Option<f64>,
    /// Sizes of session bodies. Default 2048 bytes.
    pub body: BodySize,
    /// `Timeout` of every session, in minutes, at least 1. Default 20.
    pub timeout_minutes: u32,
    /// What everything random derives from. `None`, the default: another one in every run, so that
    /// two runs against one server do not meet each other's sessions.
    pub seed: Option<u64>,
    /// Which pages the users ask for.
    pub mix: PageMix,
    /// How long a read-write page holds its lock besides the requests it makes. Default 0.
    pub hold: Duration,
    /// Pause between two requests for a locked session. Default 500 ms, as ASP.NET (protocol 6).
    pub poll_interval: Duration,
    /// Age at which a waiting page breaks a lock. Default 110 s, the execution timeout of ASP.NET
    /// (protocol 6). A page that has waited twice as long fails.
    pub execution_timeout: Duration,
    /// Longest time for one request. Default 10 s, as `stateNetworkTimeout` (protocol 1).
    pub network_timeout: Duration,
    /// Threads that simulate web servers, each with a connection pool of its own. Default 1.
    pub threads: usize,
    /// Threads on which each simulated web server runs its pages at first, as many as its cores; it
    /// gets one more every half second while pages wait for one. `None`, the default: a page never
    /// waits for a thread.
    pub web_threads: Option<usize>,
    /// Pages in a row that are for the same session, and in an open loop due at once. Default 1.
    pub burst: usize,
    /// Read every session once at the end, to find losses nobody met. Default true.
    pub final_sweep: bool,
}

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// After this time.
    After(Duration),
    /// After this many pages.
    Pages(u64),
    /// When it is stopped from outside.
    WhenStopped,
}

/// The kinds of pages, as shares of one another. A page on a session that does not exist follows
/// ASP.NET's way of starting it first (protocol 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMix {
    /// Read-write, changes the session: acquire, PUT. Default 55.
    pub change: u32,
    /// Read-write, changes nothing: acquire, release. Default 15.
    pub keep: u32,
    /// Read-only: shared GET. Default 20.
    pub read: u32,
    /// Session disabled: HEAD. Default 7.
    pub touch: u32,
    /// Session.Abandon: acquire, DELETE. Default 3.
    pub abandon: u32,
    /// How many percent of the users whose session was abandoned come back without a cookie and
    /// get a new id; the others start anew under the old one. Default 50.
    pub cookieless_return_percent: u32,
}

/// Sizes of session bodies in bytes, drawn evenly for every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodySize {
    /// The smallest; what is below 112 bytes is taken as 112.
    pub min_bytes: u32,
    /// The largest, inclusive.
    pub max_bytes: u32,
}

/// Why a run cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A number that has to be at least 1 is 0.
    #[error("the farm needs at least one of: {what}")]
    Nothing {
        /// What there is none of.
        what: &'static str,
    },
    /// More of something than the farm can do.
    #[error("the farm takes at most {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The most that is possible.
        limit: u64,
    },
    /// The rate is no positive number.
    #[error("the farm needs a rate above 0 pages per second")]
    Rate,
    /// The text is neither `BYTES` nor `MIN..MAX`.
    #[error("a body size is BYTES or MIN..MAX, for example 2048 or 512..20480")]
    BodySize,
}

/// Largest body in bytes, the server's own limit (protocol 5.5).
pub(crate) const MAX_BODY_BYTES: u32 = 64 * 1024 * 1024;
const MAX_CLIENTS: usize = 65_536;
const MAX_SESSIONS: usize = 10_000_000;
const MAX_THREADS: usize = 256;
/// A year, the server's own limit (protocol 3).
const MAX_TIMEOUT_MINUTES: u32 = 525_600;
/// A session idle for its timeout less this may be gone: one request may take as long.
const EXPIRY_MARGIN: Duration = Duration::from_secs(15);
/// A request whose connection broke may still be on its way: through a proxy's budget and its
/// client's, twice over.
const LATE_EFFECT: Duration = Duration::from_secs(30);

impl Default for FarmOptions {
    fn default() -> Self {
        Self {
            targets: vec![SocketAddr::from(([127, 0, 0, 1], 42424))],
            clients: 64,
            sessions: 1000,
            end: RunEnd::After(Duration::from_secs(10)),
            pages_per_s: None,
            body: BodySize::default(),
            timeout_minutes: 20,
            seed: None,
            mix: PageMix::default(),
            hold: Duration::ZERO,
            poll_interval: Duration::from_millis(500),
            execution_timeout: Duration::from_secs(110),
            network_timeout: Duration::from_secs(10),
            threads: 1,
            web_threads: None,
            burst: 1,
            final_sweep: true,
        }
    }
}

impl FarmOptions {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let mix = &self.mix;
        let parts = [mix.change, mix.keep, mix.read, mix.touch, mix.abandon];
        let none = [
            ("target", self.targets.is_empty()),
            ("client", self.clients == 0),
            ("session", self.sessions == 0),
            ("thread", self.threads == 0),
            ("thread per web server", self.web_threads == Some(0)),
            ("page in a burst", self.burst == 0),
            ("minute of timeout", self.timeout_minutes == 0),
            (
                "millisecond of network timeout",
                self.network_timeout.is_zero(),
            ),
            (
                "kind of page in the mix",
                parts.iter().all(|&part| part == 0),
            ),
        ];
        if let Some(&(what, _)) = none.iter().find(|(_, is_none)| *is_none) {
            return Err(OptionsError::Nothing { what });
        }
        let most = [
            ("clients", self.clients as u64, MAX_CLIENTS as u64),
            ("sessions", self.sessions as u64, MAX_SESSIONS as u64),
            ("threads", self.threads as u64, MAX_THREADS as u64),
            (
                "minutes of timeout",
                self.timeout_minutes.into(),
                MAX_TIMEOUT_MINUTES.into(),
            ),
            (
                "bytes of body",
                self.body.max_bytes.into(),
                MAX_BODY_BYTES.into(),
            ),
        ];
        if let Some(&(what, _, limit)) = most.iter().find(|(_, wanted, most)| wanted > most) {
            return Err(OptionsError::TooMuch { what, limit });
        }
        match self.pages_per_s {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(OptionsError::Rate),
            _ => Ok(()),
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        let timeout = Duration::from_secs(u64::from(self.timeout_minutes) * 60);
        let idle_limit = timeout.saturating_sub(EXPIRY_MARGIN);
        Rules {
            idle_limit_ns: idle_limit.as_nanos() as u64,
            late_effect_ns: LATE_EFFECT.as_nanos() as u64,
        }
    }
}

impl Default for PageMix {
    fn default() -> Self {
        Self {
            change: 55,
            keep: 15,
            read: 20,
            touch: 7,
            abandon: 3,
            cookieless_return_percent: 50,
        }
    }
}

impl Default for BodySize {
    fn default() -> Self {
        Self {
            min_bytes: 2048,
            max_bytes: 2048,
        }
    }
}

impl FromStr for BodySize {
    type Err = OptionsError;

    /// Reads `BYTES` or `MIN..MAX`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number = |part: &str| part.trim().parse().map_err(|_| OptionsError::BodySize);
        let (min_bytes, max_bytes) = (number(min)?, number(max)?);
        if min_bytes > max_bytes || max_bytes < MIN_BODY_BYTES {
            return Err(OptionsError::BodySize);
        }
        Ok(Self {
            min_bytes,
            max_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_run_and_nothing_can_be_zero() {
        assert_eq!(FarmOptions::default().check(), Ok(()));
        let faults: [fn(&mut FarmOptions); 11] = [
            |options| options.targets.clear(),
            |options| options.clients = 0,
            |options| options.sessions = 0,
            |options| options.threads = 0,
            |options| options.web_threads = Some(0),
            |options| options.burst = 0,
            |options| options.timeout_minutes = 0,
            |options| options.timeout_minutes = 525_601,
            |options| options.body.max_bytes = u32::MAX,
            |options| options.pages_per_s = Some(f64::NAN),
            |options| {
                options.mix = PageMix {
                    change: 0,
                    keep: 0,
                    read: 0,
                    touch: 0,
                    abandon: 0,
                    cookieless_return_percent: 50,
                };
            },
        ];
        for fault in faults {
            let mut options = FarmOptions::default();
            fault(&mut options);
            assert!(options.check().is_err(), "{options:?}");
        }
    }

    #[test]
    fn body_sizes_are_a_number_or_a_range() {
        let size = |min_bytes, max_bytes| {
            Ok(BodySize {
                min_bytes,
                max_bytes,
            })
        };
        assert_eq!("2048".parse(), size(2048, 2048));
        assert_eq!("512..20480".parse(), size(512, 20480));
        for wrong in ["", "5..", "9..8", "20..30", "x", "-1", "99999999999"] {
            assert_eq!(wrong.parse::<BodySize>(), Err(OptionsError::BodySize));
        }
    }
}
