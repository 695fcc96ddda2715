//! What the terminal shows of one proxy.

use super::report::{Backend, Report};
use crate::cli::human::{bytes, count, duration_ms, duration_s, percent};
use crate::cli::table::{Side, Table};
use crate::route::SLOT_COUNT;

/// Everything but the verdict, line by line.
pub(super) fn lines(admin: &str, report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "proxy {admin}  version {}, running for {}  map version {}  longest session timeout {}",
        report.version,
        duration_ms(report.since(report.started_ms)),
        report.map_version,
        match report.longest_session_timeout_minutes {
            0 => "not seen yet".to_owned(),
            minutes => duration_s(60 * u64::from(minutes)),
        }
    )];
    lines.push(String::new());
    lines.extend(backends(report));
    section(&mut lines, "under way", under_way(report));
    section(&mut lines, "overrides", overrides(report));
    section(&mut lines, "last reload", last_reload(report));
    section(&mut lines, "peers", peers(report));
    lines
}

fn section(lines: &mut Vec<String>, name: &str, content: Vec<String>) {
    if !content.is_empty() {
        lines.push(String::new());
        lines.push(format!("{name}:"));
        lines.extend(content.into_iter().map(|line| format!("  {line}")));
    }
}

fn backends(report: &Report) -> Vec<String> {
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
        ("OWED", Side::Right),
        ("REASON", Side::Left),
    ]);
    for backend in &report.backends {
        table.row(row(report, backend));
    }
    table.lines()
}

fn row(report: &Report, backend: &Backend) -> Vec<String> {
    let mark = backend.overridden.as_ref().map_or("", |_| " (override)");
    let full = match backend.seconds_to_full {
        Some(left) => duration_s(left as u64),
        None if backend.used_percent.is_some() => "-".to_owned(),
        None => String::new(),
    };
    vec![
        backend.name.clone(),
        format!("{}{mark}", backend.state),
        backend.verdict.clone(),
        duration_ms(report.since(backend.since_ms)),
        percent(backend.slots_owned as f64 * 100.0 / SLOT_COUNT as f64),
        backend.slots_owned.to_string(),
        backend.slots_first.to_string(),
        backend
            .sessions
            .map(|count| count.to_string())
            .unwrap_or_default(),
        backend.session_bytes.map(bytes).unwrap_or_default(),
        backend.used_percent.map(percent).unwrap_or_default(),
        full,
        backend.moved_here.to_string(),
        backend.owed_removals.to_string(),
        backend.reason.clone().unwrap_or_default(),
    ]
}

fn under_way(report: &Report) -> Vec<String> {
    let mut table = Table::new(&[
        ("STAGE", Side::Left),
        ("SLOTS", Side::Right),
        ("SHARE", Side::Right),
        ("WHAT", Side::Left),
        ("DONE", Side::Right),
        ("ENDS IN", Side::Right),
    ]);
    for work in &report.under_way {
        let (first, second) = (&work.first, &work.second);
        let what = match work.stage.as_str() {
            "suspect" => format!("{second} is down, requests are refused until {first} stands in"),
            "away" => format!("{first} stands in for {second}"),
            "back" => format!("{second} is back, {first} stood in"),
            "wait" => format!("{second} and {first}, which stood in, serve what they have"),
            _ => format!("{second} -> {first}"),
        };
        let done = work.ends_ms.map(|ends_ms| {
            let whole = ends_ms.saturating_sub(work.began_ms).max(1) as f64;
            percent((report.since(work.began_ms) as f64 * 100.0 / whole).min(100.0))
        });
        let left = |ends_ms: u64| duration_ms(ends_ms.saturating_sub(report.now_ms));
        table.row(vec![
            work.stage.clone(),
            work.slots.to_string(),
            percent(work.slots as f64 * 100.0 / SLOT_COUNT as f64),
            what,
            done.unwrap_or_default(),
            work.ends_ms.map(left).unwrap_or_default(),
        ]);
    }
    if report.under_way.is_empty() {
        return Vec::new();
    }
    table.lines()
}

fn overrides(report: &Report) -> Vec<String> {
    let line = |backend: &Backend| {
        let Some(overridden) = &backend.overridden else {
            return None;
        };
        Some(format!(
            "{}: {} for {}, the map says {}",
            backend.name,
            backend.state,
            duration_ms(report.since(overridden.since_ms)),
            overridden.in_map
        ))
    };
    report.backends.iter().filter_map(line).collect()
}

fn last_reload(report: &Report) -> Vec<String> {
    let Some(reload) = &report.last_reload else {
        return Vec::new();
    };
    let ago = duration_ms(report.since(reload.at_ms));
    let mut lines = vec![format!("{} {ago} ago", reload.result)];
    lines.extend(reload.faults.iter().cloned());
    if !reload.needs_restart.is_empty() {
        let keys = reload.needs_restart.join(", ");
        lines.push(format!("takes a restart: {keys}"));
    }
    lines
}

fn peers(report: &Report) -> Vec<String> {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("MAP", Side::Right),
        ("STATE", Side::Left),
    ]);
    for peer in &report.peers {
        table.row(vec![
            peer.address.clone(),
            peer.map_version
                .map(|version| version.to_string())
                .unwrap_or_default(),
            peer.failure.clone().unwrap_or_else(|| "answers".to_owned()),
        ]);
    }
    if report.peers.is_empty() {
        return Vec::new();
    }
    table.lines()
}

/// What is said where nothing is wrong.
pub(super) fn all_well(reports: &[&Report]) -> String {
    let up = |report: &&Report| {
        let backends = report.backends.iter();
        backends.filter(|backend| backend.serves()).count()
    };
    let fewest_up = reports.iter().map(up).min().unwrap_or(0);
    let backends = count(fewest_up, "backend", "backends");
    let moving: usize = reports.first().map_or(0, |report| {
        report.under_way.iter().map(|work| work.slots).sum()
    });
    let moving = match moving {
        0 => String::new(),
        slots => format!(", {} under way", count(slots, "slot", "slots")),
    };
    format!("all well: {backends} up{moving}")
}
