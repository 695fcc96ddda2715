//! What the terminal shows of one proxy.

use crate::cli::human::{bytes, duration_ms, duration_s, percent};
use crate::cli::table::{Side, Table};
use crate::control::report::status::{BackendStatus, ReloadResult, Status};
use crate::route::SLOT_COUNT;

/// Everything but the verdict, line by line.
pub(super) fn lines(admin: &str, status: &Status) -> Vec<String> {
    let mut lines = vec![format!(
        "proxy {admin} on {}  version {}, running for {}  map version {}  longest session timeout {}",
        status.host,
        status.version,
        duration_ms(status.lasts_ms(status.started_ms)),
        status.map_version,
        match status.longest_session_timeout_minutes {
            0 => "not seen yet".to_owned(),
            minutes => duration_s(60 * u64::from(minutes)),
        }
    )];
    lines.push(String::new());
    lines.extend(backends(status));
    section(&mut lines, "applications", applications(status));
    section(&mut lines, "second copies", copies(status));
    section(&mut lines, "last failover", last_failover(status));
    section(&mut lines, "under way", under_way(status));
    section(&mut lines, "leaving", leaving(status));
    section(&mut lines, "overrides", overrides(status));
    section(&mut lines, "last reload", last_reload(status));
    section(&mut lines, "peers", peers(status));
    lines
}

fn section(lines: &mut Vec<String>, name: &str, content: Vec<String>) {
    if !content.is_empty() {
        lines.push(String::new());
        lines.push(format!("{name}:"));
        lines.extend(content.into_iter().map(|line| format!("  {line}")));
    }
}

fn backends(status: &Status) -> Vec<String> {
    let mut table = Table::new(&[
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("HEALTH", Side::Left),
        ("SINCE", Side::Right),
        ("SHARE", Side::Right),
        ("SLOTS", Side::Right),
        ("NOW HERE", Side::Right),
        ("SESSIONS", Side::Right),
        ("BYTES", Side::Right),
        ("USED", Side::Right),
        ("FULL IN", Side::Right),
        ("MOVED HERE", Side::Right),
        ("PENDING DELETES", Side::Right),
        ("REASON", Side::Left),
    ]);
    for backend in &status.backends {
        table.row(row(status, backend));
    }
    table.lines()
}

fn row(status: &Status, backend: &BackendStatus) -> Vec<String> {
    let mark = backend.overridden.as_ref().map_or("", |_| " (override)");
    let load = &backend.load;
    let full = match load.seconds_to_full {
        Some(left) => duration_s(left),
        None if load.used_percent.is_some() => "-".to_owned(),
        None => String::new(),
    };
    vec![
        backend.name.clone(),
        format!("{}{mark}", backend.state),
        backend.verdict.to_string(),
        duration_ms(status.lasts_ms(backend.since_ms)),
        percent(backend.slots_owned as f64 * 100.0 / SLOT_COUNT as f64),
        backend.slots_owned.to_string(),
        backend.slots_first.to_string(),
        load.sessions
            .map(|count| count.to_string())
            .unwrap_or_default(),
        load.session_bytes.map(bytes).unwrap_or_default(),
        load.used_percent.map(percent).unwrap_or_default(),
        full,
        backend.moved_here.to_string(),
        backend.pending_deletes.to_string(),
        backend.reason.clone().unwrap_or_default(),
    ]
}

fn applications(status: &Status) -> Vec<String> {
    let mut table = Table::new(&[
        ("APPLICATION", Side::Left),
        ("SESSIONS", Side::Right),
        ("BYTES", Side::Right),
        ("REQUESTS", Side::Right),
        ("FAILED", Side::Right),
        ("UNDER ANOTHER ID", Side::Right),
    ]);
    for application in &status.applications {
        let sessions = application.sessions.map(|count| count.to_string());
        table.row(vec![
            application.name.clone(),
            sessions.unwrap_or_default(),
            application.session_bytes.map(bytes).unwrap_or_default(),
            application.requests.to_string(),
            application.requests_failed.to_string(),
            application.requests_renamed.to_string(),
        ]);
    }
    if status.applications.is_empty() {
        return Vec::new();
    }
    table.lines()
}

/// What each backend keeps for others, and what a failure would cost now.
fn copies(status: &Status) -> Vec<String> {
    let Some(replication) = &status.replication else {
        return Vec::new();
    };
    let mut table = Table::new(&[
        ("BACKEND", Side::Left),
        ("COPIES", Side::Right),
        ("BYTES", Side::Right),
        ("FILLED", Side::Right),
        ("FULL IN", Side::Right),
        ("SERVES WITHOUT COPY", Side::Right),
    ]);
    for backend in &status.backends {
        let kept = &backend.copies;
        let full = kept
            .full_ms
            .map(|full_ms| full_ms.saturating_sub(status.now_ms));
        let unprotected = backend.slots_unprotected as f64 * 100.0 / SLOT_COUNT as f64;
        table.row(vec![
            backend.name.clone(),
            kept.sessions
                .map(|count| count.to_string())
                .unwrap_or_default(),
            kept.bytes.map(bytes).unwrap_or_default(),
            kept.filled_percent.map(percent).unwrap_or_default(),
            full.map(duration_ms).unwrap_or_default(),
            percent(unprotected),
        ]);
    }
    let mut lines = table.lines();
    let cost = match (&replication.at_risk_backend, replication.at_risk_sessions) {
        (None, _) | (_, Some(0)) => "one failure would cost no session now".to_owned(),
        (Some(backend), Some(sessions)) => {
            format!("one failure would cost {sessions} sessions now, if it is that of {backend}")
        }
        (Some(backend), None) => format!("a failure of {backend} would cost sessions now"),
    };
    let until = replication
        .full_ms
        .map(|full_ms| full_ms.saturating_sub(status.now_ms));
    lines.push(match until {
        Some(left_ms) => format!("{cost}, and none in {}", duration_ms(left_ms)),
        None => cost,
    });
    lines
}

fn last_failover(status: &Status) -> Vec<String> {
    let Some(failover) = &status.last_failover else {
        return Vec::new();
    };
    let ago = duration_ms(status.lasts_ms(failover.at_ms));
    let (backend, to) = (&failover.backend, failover.to.join(" and "));
    let sessions = match failover.sessions {
        Some(sessions) => format!("about {sessions} sessions"),
        None => format!("the sessions of {} slots", failover.slots),
    };
    let mut line = format!("{ago} ago {backend} failed: {sessions} went on at {to}");
    if let (Some(pause_ms), Some(waited), Some(failed)) =
        (failover.pause_ms, failover.waited, failover.failed)
    {
        let pause_s = pause_ms as f64 / 1000.0;
        line += &format!(
            " after a pause of up to {pause_s:.1} s; {waited} requests waited, {failed} failed"
        );
    }
    vec![line]
}

fn under_way(status: &Status) -> Vec<String> {
    let mut table = Table::new(&[
        ("SESSIONS ARE", Side::Left),
        ("SLOTS", Side::Right),
        ("SHARE", Side::Right),
        ("FROM -> TO", Side::Left),
        ("DONE", Side::Right),
        ("ENDS IN", Side::Right),
        ("MEANING", Side::Left),
    ]);
    for work in &status.under_way {
        let done = work.ends_ms.map(|ends_ms| {
            let whole = ends_ms.saturating_sub(work.began_ms).max(1) as f64;
            percent((status.lasts_ms(work.began_ms) as f64 * 100.0 / whole).min(100.0))
        });
        let left = |ends_ms: u64| duration_ms(ends_ms.saturating_sub(status.now_ms));
        table.row(vec![
            work.label.clone(),
            work.slots.to_string(),
            percent(work.slots as f64 * 100.0 / SLOT_COUNT as f64),
            format!("{} -> {}", work.second, work.first),
            done.unwrap_or_default(),
            work.ends_ms.map(left).unwrap_or_default(),
            work.means.clone(),
        ]);
    }
    if status.under_way.is_empty() {
        return Vec::new();
    }
    table.lines()
}

/// When those that are to hold no sessions any more can be stopped.
fn leaving(status: &Status) -> Vec<String> {
    let line = |backend: &BackendStatus| {
        let left_ms = backend.empty_ms?.saturating_sub(status.now_ms);
        Some(format!(
            "{}: empty in {}",
            backend.name,
            duration_ms(left_ms)
        ))
    };
    status.backends.iter().filter_map(line).collect()
}

fn overrides(status: &Status) -> Vec<String> {
    let line = |backend: &BackendStatus| {
        let Some(overridden) = &backend.overridden else {
            return None;
        };
        Some(format!(
            "{}: {} for {}, the map says {}",
            backend.name,
            backend.state,
            duration_ms(status.lasts_ms(overridden.since_ms)),
            overridden.in_map
        ))
    };
    status.backends.iter().filter_map(line).collect()
}

fn last_reload(status: &Status) -> Vec<String> {
    let Some(last) = &status.last_reload else {
        return Vec::new();
    };
    let outcome = &last.outcome;
    let result = match outcome.result {
        ReloadResult::Applied => "applied",
        ReloadResult::Unchanged => "unchanged",
        ReloadResult::Refused => "refused",
    };
    let ago = duration_ms(status.lasts_ms(last.at_ms));
    let mut lines = vec![format!("{result} {ago} ago")];
    lines.extend(outcome.faults.iter().cloned());
    if !outcome.needs_restart.is_empty() {
        let keys = outcome.needs_restart.join(", ");
        lines.push(format!("takes a restart: {keys}"));
    }
    lines
}

fn peers(status: &Status) -> Vec<String> {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("MAP", Side::Right),
        ("STATE", Side::Left),
    ]);
    for peer in &status.peers {
        table.row(vec![
            peer.address.clone(),
            peer.map_version
                .map(|version| version.to_string())
                .unwrap_or_default(),
            peer.failure.clone().unwrap_or_else(|| "answers".to_owned()),
        ]);
    }
    if status.peers.is_empty() {
        return Vec::new();
    }
    table.lines()
}
