//! What `GET /status` says, as far as it is shown. A proxy of another version may leave out
//! everything that is optional here.

use serde::Deserialize;
use serde_json::Value;

/// A proxy at one moment. Times are Unix time in milliseconds, of the proxy's clock.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Report {
    pub(in crate::cli) version: String,
    pub(in crate::cli) started_ms: u64,
    pub(in crate::cli) now_ms: u64,
    pub(in crate::cli) map_version: u64,
    pub(in crate::cli) last_reload: Option<LastReload>,
    pub(in crate::cli) backends: Vec<Backend>,
    #[serde(default)]
    pub(in crate::cli) under_way: Vec<UnderWay>,
    #[serde(default)]
    pub(in crate::cli) longest_session_timeout_minutes: u32,
    #[serde(default)]
    pub(in crate::cli) peers: Vec<Peer>,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct LastReload {
    pub(in crate::cli) at_ms: u64,
    pub(in crate::cli) result: String,
    pub(in crate::cli) faults: Vec<String>,
    #[serde(default)]
    pub(in crate::cli) needs_restart: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Backend {
    pub(in crate::cli) name: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) verdict: String,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) since_ms: u64,
    pub(in crate::cli) slots_owned: usize,
    pub(in crate::cli) slots_first: usize,
    pub(in crate::cli) owed_removals: usize,
    pub(in crate::cli) moved_here: u64,
    #[serde(rename = "override")]
    pub(in crate::cli) overridden: Option<Override>,
    pub(in crate::cli) sessions: Option<u64>,
    pub(in crate::cli) session_bytes: Option<u64>,
    pub(in crate::cli) used_percent: Option<f64>,
    pub(in crate::cli) seconds_to_full: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Override {
    pub(in crate::cli) in_map: String,
    pub(in crate::cli) since_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct UnderWay {
    pub(in crate::cli) stage: String,
    pub(in crate::cli) first: String,
    pub(in crate::cli) second: String,
    pub(in crate::cli) slots: usize,
    pub(in crate::cli) began_ms: u64,
    pub(in crate::cli) stage_ends_ms: Option<u64>,
    pub(in crate::cli) ends_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Peer {
    pub(in crate::cli) address: String,
    pub(in crate::cli) failure: Option<String>,
    pub(in crate::cli) map_version: Option<u64>,
    #[serde(default)]
    pub(in crate::cli) overrides_differ: bool,
}

/// A proxy that was asked, and what it answered.
#[derive(Debug)]
pub(in crate::cli) struct Asked {
    pub(in crate::cli) admin: String,
    /// The report and the JSON it stands in, or why there is none.
    pub(in crate::cli) report: Result<(Report, Value), String>,
}

impl Asked {
    /// The report, if there is one.
    pub(in crate::cli) fn report(&self) -> Option<&Report> {
        self.report.as_ref().ok().map(|(report, _)| report)
    }
}

impl Backend {
    /// Whether the partition map or an order has given it up.
    pub(super) fn is_off(&self) -> bool {
        self.state == "off"
    }

    /// Whether requests are sent to it. The verdict on one that is off is the last one that it had.
    pub(super) fn serves(&self) -> bool {
        !self.is_off() && self.verdict != "down"
    }
}

impl Report {
    /// Reads the body of an answer.
    pub(super) fn read(body: &[u8]) -> Result<(Self, Value), String> {
        let read = |body| {
            let value: Value = serde_json::from_slice(body)?;
            Ok((Self::deserialize(&value)?, value))
        };
        read(body).map_err(|error: serde_json::Error| format!("it answered no status: {error}"))
    }

    /// How long something that began then has lasted.
    pub(super) fn since(&self, at_ms: u64) -> u64 {
        self.now_ms.saturating_sub(at_ms)
    }
}
