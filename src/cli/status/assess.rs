//! What is wrong, in words for somebody who was woken by it.

use super::report::{Asked, Backend, Report, UnderWay};
use crate::cli::human::{count, duration_ms, duration_s, percent};
use crate::route::SLOT_COUNT;

/// A backend whose capacity is used to this share is about to be full.
const FULL_PERCENT: f64 = 90.0;

/// A backend that will be full within this time takes more than a look.
const FULL_SOON_S: f64 = 3600.0;

/// A stage that lasts longer than it should by this is held up.
const OVERDUE_MS: u64 = 60_000;

/// Everything that is wrong with these proxies, the worst of each first; empty if all is well.
pub(super) fn problems(asked: &[Asked]) -> Vec<String> {
    let mut problems = Vec::new();
    for proxy in asked {
        let found = match &proxy.report {
            Ok((report, _)) => of_proxy(report),
            Err(failure) => vec![format!("it cannot be asked: {failure}")],
        };
        let prefix = match asked.len() {
            1 => String::new(),
            _ => format!("{}: ", proxy.admin),
        };
        problems.extend(found.into_iter().map(|text| prefix.clone() + &text));
    }
    problems.extend(disagreements(asked));
    problems
}

fn of_proxy(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    if !report.backends.is_empty() && !report.backends.iter().any(Backend::serves) {
        problems.push("no backend is up: every request is refused".to_owned());
    }
    let is_missed = |backend: &&Backend| !backend.is_off() && !backend.serves();
    let down = report.backends.iter().filter(is_missed);
    problems.extend(down.map(|backend| is_down(report, backend)));
    problems.extend(report.backends.iter().filter_map(is_full));
    if let Some(reload) = &report.last_reload
        && reload.result == "refused"
    {
        let faults = reload.faults.join("; ");
        problems.push(format!(
            "the last reload was refused, version {} of the map stays: {faults}",
            report.map_version
        ));
    }
    for peer in &report.peers {
        if let Some(failure) = &peer.failure {
            problems.push(format!(
                "peer {} does not answer, so no handover goes on and no backend is replaced: {failure}",
                peer.address
            ));
        }
    }
    problems.extend(
        report
            .under_way
            .iter()
            .filter_map(|work| held_up(report, work)),
    );
    problems
}

fn is_down(report: &Report, backend: &Backend) -> String {
    let name = &backend.name;
    let since = duration_ms(report.since(backend.since_ms));
    let reason = backend.reason.as_deref().unwrap_or("it does not answer");
    let in_stage = |stage: &str| -> usize {
        let its = |work: &&UnderWay| work.stage == stage && work.second == *name;
        report
            .under_way
            .iter()
            .filter(its)
            .map(|work| work.slots)
            .sum()
    };
    let (refused, away) = (in_stage("suspect"), in_stage("away"));
    let mut text = format!("{name} is down for {since}: {reason}");
    if refused > 0 {
        text += &format!("; requests for {} are refused", share(refused));
    }
    if away > 0 {
        text += &format!(
            "; others stand in for {}, whose users have to start anew",
            share(away)
        );
    }
    text
}

fn is_full(backend: &Backend) -> Option<String> {
    let name = &backend.name;
    let used = backend.used_percent.filter(|used| *used >= FULL_PERCENT);
    let left = backend.seconds_to_full.filter(|left| *left <= FULL_SOON_S);
    if used.is_none() && left.is_none() {
        return None;
    }
    let mut text = format!("{name} is filling up");
    if let Some(used) = backend.used_percent {
        text += &format!(": {} of its capacity is used", percent(used));
    }
    if let Some(left) = backend.seconds_to_full {
        text += &format!(", at this rate it is full in {}", duration_s(left as u64));
    }
    Some(text)
}

fn held_up(report: &Report, work: &UnderWay) -> Option<String> {
    let due_ms = work.stage_ends_ms?;
    // Those two are told of with the backend that is down.
    let is_failure = matches!(work.stage.as_str(), "suspect" | "away");
    if is_failure || report.now_ms < due_ms + OVERDUE_MS {
        return None;
    }
    Some(format!(
        "the handover of {} from {} to {} is held up in {} for {}",
        share(work.slots),
        work.second,
        work.first,
        work.stage,
        duration_ms(report.since(due_ms))
    ))
}

/// What the proxies say differently of the same thing.
fn disagreements(asked: &[Asked]) -> Vec<String> {
    let reports: Vec<(&str, &Report)> = asked
        .iter()
        .filter_map(|proxy| Some((proxy.admin.as_str(), proxy.report()?)))
        .collect();
    if let [(_, only)] = reports.as_slice() {
        return with_peers(only);
    }
    let mut problems = Vec::new();
    for pair in reports.windows(2) {
        let [(admin, report), (other_admin, other)] = pair else {
            continue;
        };
        if report.map_version != other.map_version {
            problems.push(format!(
                "{admin} has version {} of the map, {other_admin} version {}: bring the map to \
                 every proxy",
                report.map_version, other.map_version
            ));
        } else if overrides(report) != overrides(other) {
            problems.push(format!(
                "{admin} and {other_admin} have different overrides: give each of them to every \
                 proxy"
            ));
        }
    }
    problems
}

/// The same for those that were not asked themselves.
fn with_peers(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    for peer in &report.peers {
        let address = &peer.address;
        if let Some(version) = peer.map_version
            && version != report.map_version
        {
            problems.push(format!(
                "peer {address} has version {version} of the map, this proxy {}: bring the map to \
                 every proxy",
                report.map_version
            ));
        }
        if peer.overrides_differ {
            problems.push(format!(
                "peer {address} has other overrides: give each of them to every proxy"
            ));
        }
    }
    problems
}

/// What was changed by hand, by name.
fn overrides(report: &Report) -> Vec<(&str, &str)> {
    let backends = report.backends.iter();
    let overridden = backends.filter(|backend| backend.overridden.is_some());
    let mut overrides: Vec<_> = overridden
        .map(|backend| (backend.name.as_str(), backend.state.as_str()))
        .collect();
    overrides.sort_unstable();
    overrides
}

fn share(slots: usize) -> String {
    let of_all = slots as f64 * 100.0 / SLOT_COUNT as f64;
    format!("{} ({})", count(slots, "slot", "slots"), percent(of_all))
}
