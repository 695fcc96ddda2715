//! What came of the suite.

use serde::Serialize;

/// What is said of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The server does what docs/protocol.md says.
    AsDescribed,
    /// So it does, in another spelling: other headers, another order.
    SpelledOtherwise,
    /// It does something else that users or the proxy notice.
    Differs,
    /// An open question of docs/protocol.md, and what this server does.
    Observed,
    /// The check could not be carried out.
    NotTold,
}

/// One check by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckInfo {
    /// Its name in reports and in docs/protocol.md.
    pub id: String,
    /// Whether it takes minutes, or sends what no web server sends.
    pub is_thorough: bool,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Its name, as docs/protocol.md has it: `vector-7`, `scenario-2`, `first-lock`.
    pub id: String,
    /// The section of docs/protocol.md that it belongs to.
    pub section: &'static str,
    /// What it is about.
    pub name: String,
    /// What is said of it.
    pub verdict: Verdict,
    /// What differs, what was observed, or why it could not be told. What is spelled otherwise is
    /// in [`ConformanceReport::spelling`].
    pub findings: Vec<String>,
}

/// Something that is spelled otherwise than by a stock server, wherever it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpellingReport {
    /// What.
    pub text: String,
    /// In how many answers.
    pub answers: u64,
    /// The check that met it first.
    pub first: String,
}

/// All that came of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConformanceReport {
    /// The server that was asked, `host:port`.
    pub target: String,
    /// Whether it is a staterouter proxy.
    pub proxy: bool,
    /// Whether the thorough checks were among them.
    pub thorough: bool,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Requests that were sent.
    pub requests: u64,
    /// Every check, in order.
    pub checks: Vec<CheckReport>,
    /// What is spelled otherwise.
    pub spelling: Vec<SpellingReport>,
    /// Items that could not be removed again. They end by themselves within 45 minutes.
    pub left_behind: usize,
}

impl ConformanceReport {
    /// How many checks ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let checks = self.checks.iter();
        checks.filter(|check| check.verdict == verdict).count()
    }
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) findings: Vec<String>,
}

impl Outcome {
    pub(super) fn fine() -> Self {
        Self {
            verdict: Verdict::AsDescribed,
            findings: Vec::new(),
        }
    }

    pub(super) fn differs(finding: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Differs,
            findings: vec![finding.into()],
        }
    }

    pub(super) fn observed(finding: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Observed,
            findings: vec![finding.into()],
        }
    }

    pub(super) fn not_told(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::NotTold,
            findings: vec![reason.into()],
        }
    }

    /// Fine unless there is a finding.
    pub(super) fn of(findings: Vec<String>) -> Self {
        let verdict = match findings.is_empty() {
            true => Verdict::AsDescribed,
            false => Verdict::Differs,
        };
        Self { verdict, findings }
    }
}
