//! From what control publishes to what is wrong with it.
//!
//! What shows in no field of the status is found by whoever notices it, and collected in
//! `Control::noticed`.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::finding::engine::FILLS_UP_PERCENT;
use super::history::History;
use super::status::{
    BackendHealth, BackendStatus, FailingStatus, HandoverProgress, PeerStatus, ReloadResult,
    ServiceState, Status,
};
use crate::handover::Stage;

/// A backend whose capacity is used to this share is about to be full.
const NEARLY_FULL_PERCENT: f64 = 90.0;

/// A backend that will be full within this time takes more than a look.
const FULL_SOON_S: u64 = 3_600;

/// A stage that lasts longer than it should by this is held up.
const OVERDUE_MS: u64 = 60_000;

/// Failures of requests are news for this long.
const RECENT_MS: u64 = 60_000;

/// All that the status and the history of the last minutes show.
pub(crate) fn diagnose(status: &Status, history: &History) -> Vec<Finding> {
    let mut found = Vec::new();
    if !status.backends.iter().any(BackendStatus::serves) {
        found.push(Finding::no_backend());
    }
    for backend in &status.backends {
        found.extend(health(backend));
        found.extend(refusal(status, backend));
    }
    found.extend(slots(status));
    found.extend(unprotected(status));
    let recent_ms = status.now_ms.saturating_sub(RECENT_MS);
    found.extend(failures(recent_ms, history));
    found.extend(answers(status, history));
    found.extend(shortage(status.now_ms, history));
    found.extend(reload(status));
    let version = status.map_version;
    found.extend(status.peers.iter().flat_map(|peer| proxy(peer, version)));
    found
}

/// How one backend is, the worst only: of one that is down nobody asks how full it is.
fn health(backend: &BackendStatus) -> Option<Finding> {
    if backend.state == ServiceState::Off {
        return None;
    }
    let reason = backend.reason.as_deref();
    let is_down = backend.verdict == BackendHealth::Down;
    let is_awaited = backend.slots_waiting > 0 && reason.is_some();
    if backend.is_idle() && (is_down || is_awaited) {
        // One that has let go of all its sessions may be stopped.
        let is_wanted = backend.state == ServiceState::Active;
        return is_wanted
            .then(|| Finding::backend_awaited(backend.keeper(), backend.slots_owned, reason));
    }
    if is_down {
        return Some(
            Finding::backend_down(backend.keeper(), reason, backend.loses_nothing())
                .since(backend.since_ms),
        );
    }
    if backend.verdict == BackendHealth::Suspect {
        return Some(Finding::backend_suspect(backend.keeper(), reason).since(backend.since_ms));
    }
    let load = &backend.load;
    // An engine that is nearly full has a finding of its own.
    let fullest = backend
        .engine
        .as_ref()
        .and_then(|known| known.fullest_percent);
    let is_told = fullest.is_some_and(|percent| percent >= FILLS_UP_PERCENT);
    let used = load.used_percent.filter(|_| !is_told);
    let soon = load
        .seconds_to_full
        .filter(|left| *left <= FULL_SOON_S && !is_told);
    match used {
        Some(used) if used >= 100.0 => Some(Finding::backend_full(&backend.name, used)),
        _ if soon.is_some() || used.is_some_and(|used| used >= NEARLY_FULL_PERCENT) => Some(
            Finding::backend_fills_up(&backend.name, load.used_percent, soon),
        ),
        _ => None,
    }
}

/// Whether requests are refused because of this backend, who would stand in, and when.
fn refusal(status: &Status, backend: &BackendStatus) -> Option<Finding> {
    if backend.slots_refused == 0 {
        return None;
    }
    let name = backend.name.as_str();
    if backend.state == ServiceState::Off {
        return Some(Finding::requests_refused_off(name, backend.slots_refused));
    }
    let works = status.under_way.iter();
    let works = works.filter(|work| work.stage == Stage::Suspect && work.second == name);
    let works: Vec<_> = works
        .filter(|work| {
            let mut backends = status.backends.iter();
            backends.any(|other| other.name == work.first && other.serves())
        })
        .collect();
    let stand_ins: Vec<_> = works.iter().map(|work| work.first.as_str()).collect();
    let waits = backend
        .waits_until_ms
        .is_some_and(|until_ms| status.now_ms < until_ms);
    let finding =
        Finding::requests_refused(backend.keeper(), backend.slots_refused, &stand_ins, waits);
    // A peer that is silent holds it up, for however long.
    let is_agreed = status
        .peers
        .iter()
        .all(|peer| peer.failure.is_none() || peer.gone);
    let until_ms = works.iter().map(|work| work.stage_ends_ms).max();
    Some(finding.until(until_ms.filter(|_| is_agreed)))
}

/// What goes on in the slots: one finding for each backend that failed or has returned, one for
/// each handover that is held up, one for all handovers.
fn slots(status: &Status) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut failed = BTreeMap::<(Stage, &str), Vec<&HandoverProgress>>::new();
    let mut refused = BTreeMap::<(&str, &str), &FailingStatus>::new();
    for work in &status.under_way {
        if !work.stage.is_handover() {
            let group = (work.stage, work.second.as_str());
            failed.entry(group).or_default().push(work);
        } else if let Some(failing) = &work.failing {
            refused
                .entry((&work.second, &work.first))
                .or_insert(failing);
        } else if status.now_ms > work.stage_ends_ms + OVERDUE_MS {
            let (from, to) = (&work.second, &work.first);
            found.push(Finding::handover_held_up(
                from,
                to,
                work.slots,
                work.stage_ends_ms,
            ));
        }
    }
    found.extend(refused.into_iter().map(|((from, to), failing)| {
        Finding::moves_refused(from, to, &failing.reason).since(failing.since_ms)
    }));
    found.extend(failed.into_iter().filter_map(|((stage, backend), works)| {
        let finding = failure(status, (stage, backend), &works)?;
        let began_ms = works.iter().map(|work| work.began_ms).min();
        Some(finding.since(began_ms))
    }));
    found.extend(moving(status));
    found
}

/// What a failure would cost now that each session is to be kept twice.
fn unprotected(status: &Status) -> Option<Finding> {
    let replication = status.replication.as_ref()?;
    let name = replication.at_risk_backend.as_ref()?;
    let backend = status
        .backends
        .iter()
        .find(|backend| backend.name == *name)?;
    let lost = replication.at_risk_sessions;
    let finding = Finding::sessions_unprotected(name, lost, backend.slots_unprotected);
    let is_wanted = replication.replicas > 0 && lost != Some(0);
    is_wanted.then(|| finding.until(replication.full_ms))
}

/// What the failure or the return of one backend means for the slots in one stage.
fn failure(
    status: &Status,
    (stage, backend): (Stage, &str),
    works: &[&HandoverProgress],
) -> Option<Finding> {
    let slots = works.iter().map(|work| work.slots).sum();
    let stand_ins: Vec<_> = works.iter().map(|work| work.first.as_str()).collect();
    let finding = match stage {
        Stage::Away => {
            let mut backends = status.backends.iter();
            let failed = backends.find(|known| known.name == backend)?;
            Finding::failed_over(failed.keeper(), slots, &stand_ins)
        }
        Stage::Back => Finding::returning(backend, slots),
        Stage::Wait => Finding::returned(backend, slots),
        _ => return None,
    };
    // One that is away stays so until it answers.
    let ends_ms = match stage {
        Stage::Away => None,
        Stage::Wait => works.iter().filter_map(|work| work.ends_ms).max(),
        _ => works.iter().map(|work| work.stage_ends_ms).max(),
    };
    Some(finding.until(ends_ms))
}

fn moving(status: &Status) -> Option<Finding> {
    let works = status.under_way.iter();
    let works: Vec<_> = works.filter(|work| work.stage.is_handover()).collect();
    let began_ms = works.iter().map(|work| work.began_ms).min()?;
    let finding = Finding::moving(works.iter().map(|work| work.slots).sum()).since(began_ms);
    // Nobody can say when one ends whose sessions cannot be moved.
    let ends_ms = works.iter().map(|work| work.ends_ms);
    let ends_ms = ends_ms.collect::<Option<Vec<_>>>();
    Some(finding.until(ends_ms.and_then(|ends| ends.into_iter().max())))
}

fn failures(since_ms: u64, history: &History) -> Option<Finding> {
    let (failed, requests) = history.failed_since(since_ms);
    (failed > 0).then(|| Finding::requests_failed(failed, requests))
}

fn shortage(now_ms: u64, history: &History) -> Option<Finding> {
    let count = history.shortages_since(now_ms.saturating_sub(RECENT_MS));
    (count > 0).then(|| Finding::proxy_shortage(count))
}

/// What backends answered lately instead of what they were asked for.
fn answers(status: &Status, history: &History) -> Vec<Finding> {
    let since_ms = status.now_ms.saturating_sub(RECENT_MS);
    let mut found = Vec::new();
    for backend in &status.backends {
        let (refused, unfit) = history.refused_and_unfit_since(backend.id, since_ms);
        if refused > 0 {
            found.push(Finding::backend_refuses(&backend.name, refused));
        }
        if unfit > 0 {
            found.push(Finding::answers_unfit(&backend.name, unfit));
        }
    }
    found
}

fn reload(status: &Status) -> Option<Finding> {
    let last = status.last_reload.as_ref()?;
    let outcome = &last.outcome;
    if outcome.result == ReloadResult::Refused {
        let refused = Finding::reload_refused(&outcome.faults, status.map_version);
        return Some(refused.since(last.at_ms));
    }
    let keys = &outcome.needs_restart;
    (!keys.is_empty()).then(|| Finding::restart_needed(keys).since(last.at_ms))
}

fn proxy(peer: &PeerStatus, own_version: u64) -> Option<Finding> {
    const OWN: &str = "this one";
    let address = &peer.address;
    if peer.gone {
        return None;
    }
    if let Some(failure) = &peer.failure {
        return Some(Finding::proxy_silent(address, failure));
    }
    let other = peer.map_version.filter(|version| *version != own_version);
    if let Some(version) = other {
        return Some(Finding::maps_differ(address, version, OWN, own_version));
    }
    peer.overrides_differ
        .then(|| Finding::overrides_differ(address, OWN))
}

#[cfg(test)]
mod tests;
