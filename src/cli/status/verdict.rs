//! What the proxies that were asked find, and what they say differently of the same thing.

use serde::Serialize;

use super::Asked;
use crate::cli::human::{count, duration_ms};
use crate::control::report::finding::Finding;
use crate::control::report::status::{BackendStatus, Status};

/// A finding, and the proxy that it comes from.
#[derive(Debug, Serialize)]
pub(super) struct Found<'a> {
    /// The admin address of that proxy.
    admin: &'a str,
    #[serde(flatten)]
    finding: Finding,
    /// Its time, which the times of the finding are of; `None` if it is not its own finding.
    #[serde(skip)]
    now_ms: Option<u64>,
}

/// Everything that is wrong or going on at these proxies, the worst first.
pub(super) fn findings(asked: &[Asked]) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    for proxy in asked {
        let admin = proxy.admin.as_str();
        match &proxy.answer {
            Ok((status, _)) => found.extend(status.findings.iter().map(|finding| Found {
                admin,
                finding: finding.clone(),
                now_ms: Some(status.now_ms),
            })),
            Err(failure) => found.push(Found {
                admin,
                finding: Finding::nobody_asked(admin, failure),
                now_ms: None,
            }),
        }
    }
    found.extend(differences(asked));
    found.sort_by_key(|found| (found.finding.level, found.finding.code));
    found
}

/// Proxies that are no peers of each other do not find these themselves.
fn differences(asked: &[Asked]) -> Vec<Found<'_>> {
    let answers: Vec<(&str, &Status)> = asked
        .iter()
        .filter_map(|proxy| Some((proxy.admin.as_str(), proxy.status()?)))
        .collect();
    let differs = |pair: &[(&'_ str, &Status)]| {
        let [(own, status), (other, there)] = pair else {
            return None;
        };
        if [status, there]
            .iter()
            .any(|status| !status.peers.is_empty())
        {
            return None;
        }
        if status.map_version != there.map_version {
            let (own_version, version) = (status.map_version, there.map_version);
            return Some(Finding::maps_differ(other, version, own, own_version));
        }
        let is_same = overrides(status) == overrides(there);
        (!is_same).then(|| Finding::overrides_differ(other, own))
    };
    let pairs = answers.windows(2);
    pairs
        .filter_map(|pair| {
            Some(Found {
                admin: pair[0].0,
                finding: differs(pair)?,
                now_ms: None,
            })
        })
        .collect()
}

/// What was changed by hand, by name.
fn overrides(status: &Status) -> Vec<(&str, String)> {
    let backends = status.backends.iter();
    let overridden = backends.filter(|backend| backend.overridden.is_some());
    let mut overrides: Vec<_> = overridden
        .map(|backend| (backend.name.as_str(), backend.state.to_string()))
        .collect();
    overrides.sort_unstable();
    overrides
}

/// The first lines: whether all is well, then everything that is found.
pub(super) fn lines(asked: &[Asked], found: &[Found<'_>]) -> Vec<String> {
    let said = said_once(found);
    let (wrong, going_on): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.found.is_wrong());
    let mut lines = Vec::new();
    match wrong.as_slice() {
        [] => lines.push(all_well(asked)),
        [only] => {
            lines.push(format!("WRONG: {}", only.headline(asked.len())));
            lines.extend(only.found.advice("  "));
        }
        several => {
            lines.push(format!("WRONG: {} things", several.len()));
            for said in several {
                lines.push(format!("  {}", said.headline(asked.len())));
                lines.extend(said.found.advice("    "));
            }
        }
    }
    let going_on = going_on.iter();
    lines.extend(going_on.map(|said| format!("  going on: {}", said.headline(asked.len()))));
    lines
}

/// What one or several proxies say in the same words.
struct Said<'f> {
    /// As the first of them says it.
    found: &'f Found<'f>,
    /// Who else says so.
    others: Vec<&'f str>,
}

/// Every finding once, whoever has it.
fn said_once<'f>(found: &'f [Found<'f>]) -> Vec<Said<'f>> {
    let mut all: Vec<Said<'f>> = Vec::new();
    for found in found {
        match all.iter_mut().find(|said| said.found.says_the_same(found)) {
            Some(said) => said.others.push(found.admin),
            None => all.push(Said {
                found,
                others: Vec::new(),
            }),
        }
    }
    all
}

impl Said<'_> {
    /// What is the matter, whom it comes from, since when, and when it should be over.
    fn headline(&self, proxies: usize) -> String {
        let whose = match self.others.as_slice() {
            _ if proxies == 1 => String::new(),
            others if others.len() + 1 == proxies => "every proxy: ".to_owned(),
            others => format!("{}: ", [&[self.found.admin], others].concat().join(", ")),
        };
        whose + &self.found.headline()
    }
}

fn all_well(asked: &[Asked]) -> String {
    let up = |status: &Status| {
        let backends = status.backends.iter();
        backends
            .filter(|backend| BackendStatus::serves(backend))
            .count()
    };
    let statuses = asked.iter().filter_map(Asked::status);
    let fewest_up = statuses.map(up).min().unwrap_or(0);
    format!("all well: {} up", count(fewest_up, "backend", "backends"))
}

impl Found<'_> {
    pub(super) fn is_wrong(&self) -> bool {
        self.finding.is_wrong()
    }

    /// Whether another proxy finds the same, since whenever.
    fn says_the_same(&self, other: &Self) -> bool {
        let words = |found: &Self| {
            let Finding {
                code,
                about,
                says,
                means,
                action,
                ..
            } = &found.finding;
            (
                *code,
                about.clone(),
                [says, means, action].map(String::clone),
            )
        };
        self.admin != other.admin && words(self) == words(other)
    }

    /// What is the matter, since when, and when it should be over.
    fn headline(&self) -> String {
        let mut text = self.finding.says.clone();
        let Some(now_ms) = self.now_ms else {
            return text;
        };
        let lasts = self
            .finding
            .since_ms
            .map(|since_ms| now_ms.saturating_sub(since_ms));
        let lasts = lasts.map(|ms| format!("for {}", duration_ms(ms)));
        let left = self
            .finding
            .until_ms
            .map(|until_ms| until_ms.checked_sub(now_ms));
        let left = left.map(|left| match left {
            Some(ms) => format!("over in {}", duration_ms(ms)),
            None => "should be over".to_owned(),
        });
        let times: Vec<_> = lasts.into_iter().chain(left).collect();
        if !times.is_empty() {
            text += &format!(" ({})", times.join(", "));
        }
        text
    }

    /// What users notice, and what to do.
    fn advice(&self, indent: &str) -> [String; 2] {
        let Finding { means, action, .. } = &self.finding;
        [
            format!("{indent}users: {means}"),
            format!("{indent}do:    {action}"),
        ]
    }
}
