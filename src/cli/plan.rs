//! `staterouter plan`: what a new partition map would do, and which would be large enough.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::admins::{cannot_ask, client, refusal};
use super::human::{bytes, count, duration_ms, percent};
use super::table::{Side, Table};
use super::tls_args::TlsArgs;
use super::{Exit, output};
use crate::app::signals::StopSignals;
use crate::config::{self, BackendAddress, LoadError};
use crate::control::pool_state::PoolState;
use crate::control::report::load::Loads;
use crate::control::report::plan::{PlanReport, PlanResult, PlannedBackend, PlannedFlow, plan};
use crate::control::report::suggest::{SuggestedBackend, Suggestion};
use crate::route::SLOT_COUNT;

#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// The configuration file, whose partition map is the one before; with --admin it says how the
    /// admin server is reached with TLS (peer_tls)
    #[arg(long, value_name = "FILE", required_unless_present = "admin")]
    config: Option<PathBuf>,
    /// The new partition map
    #[arg(long, value_name = "FILE", required_unless_present = "suggest")]
    map: Option<PathBuf>,
    /// Address of a running proxy's admin server: what it has in force is the state before, and
    /// sessions and bytes are told
    #[arg(long, value_name = "ADDR", value_parser = config::parse_admin)]
    admin: Option<BackendAddress>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Tell which weights, or how many more backends, bring everybody under this share of the
    /// capacity
    #[arg(
        long,
        value_name = "PERCENT",
        conflicts_with = "map",
        requires = "admin",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    suggest: Option<u8>,
    /// The same as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PlanArgs) -> Exit {
    let outcome = match (args.suggest, &args.admin, &args.map, &args.config) {
        (Some(percent), Some(admin), ..) => suggested(args, admin, percent),
        (None, Some(admin), Some(map), _) => {
            planned_there(args, admin, map).map(|plan| show(args, map, &plan))
        }
        (None, None, Some(map), Some(config)) => {
            planned_here(config, map).map(|plan| show(args, map, &plan))
        }
        _ => return Exit::Usage,
    };
    outcome.unwrap_or_else(output::could_not_run)
}

/// Between two files. Nothing is known of sessions, and every slot is taken to be at home.
fn planned_here(config: &Path, map: &Path) -> Result<PlanReport, String> {
    let loaded = config::load(config).map_err(|error| match error {
        LoadError::Faults(faults) => format!("the files before have faults\n{faults}"),
        error => error.to_string(),
    })?;
    let text = read(map)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| since.as_millis() as u64);
    let engine = PoolState::new(loaded.config, loaded.partition_map, now_ms);
    let engine = engine.map_err(|error| error.to_string())?;
    let name = map.to_string_lossy();
    Ok(plan(&engine, &text, &name, &Loads::default()))
}

/// By a running proxy.
fn planned_there(
    args: &PlanArgs,
    admin: &BackendAddress,
    map: &Path,
) -> Result<PlanReport, String> {
    let text = read(map)?;
    let asked = ask(args, admin, "/plan", Some(text))?;
    serde_json::from_slice(&asked).map_err(|error| format!("{admin} answered no plan: {error}"))
}

fn suggested(args: &PlanArgs, admin: &BackendAddress, percent: u8) -> Result<Exit, String> {
    let path = format!("/plan?suggest={percent}");
    let asked = ask(args, admin, &path, None)?;
    let suggestion: Suggestion = serde_json::from_slice(&asked)
        .map_err(|error| format!("{admin} answered no suggestion: {error}"))?;
    if args.json {
        output::line(String::from_utf8_lossy(&asked).trim_end());
    } else {
        describe_suggestion(&suggestion)
            .iter()
            .for_each(output::line);
    }
    let is_possible = suggestion.more.is_some() || suggestion.weights.is_some();
    Ok(match suggestion.fits || is_possible {
        true => Exit::Fine,
        false => Exit::Finding,
    })
}

/// The body of an answer to a question about maps: GET, or POST with a map.
fn ask(
    args: &PlanArgs,
    admin: &BackendAddress,
    path: &str,
    map: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let mut signals = StopSignals::new().map_err(|error| error.to_string())?;
    let config = args.config.as_deref().map(config::read_main).transpose();
    let config = config.map_err(|error| error.to_string())?;
    let trust = config.and_then(|config| config.peer_tls);
    let mut client = client(admin, &args.tls, trust.as_ref())?;
    let asked = signals.wait_or(async {
        match map {
            Some(map) => client.post(path, None, map).await,
            None => client.get(path).await,
        }
    });
    match asked.ok_or_else(|| "interrupted".to_owned())? {
        Ok(answer) if matches!(answer.status, 200 | 422) => Ok(answer.body),
        Ok(answer) => Err(format!("{admin}: {}", refusal(&answer))),
        Err(error) => Err(cannot_ask(&admin.to_string(), error)),
    }
}

fn read(map: &Path) -> Result<Vec<u8>, String> {
    config::read_map_text(map).map_err(|error| error.to_string())
}

fn show(args: &PlanArgs, map: &Path, plan: &PlanReport) -> Exit {
    if args.json {
        match serde_json::to_string_pretty(plan) {
            Ok(text) => output::line(text),
            Err(error) => return output::could_not_run(error),
        }
    } else {
        describe(map, plan).iter().for_each(output::line);
    }
    match plan.result {
        PlanResult::Accepted | PlanResult::Unchanged => Exit::Fine,
        PlanResult::Refused => Exit::Finding,
    }
}

fn describe(map: &Path, plan: &PlanReport) -> Vec<String> {
    let mut lines = Vec::new();
    for fault in &plan.faults {
        let (file, line, column) = (map.display(), fault.line, fault.column);
        lines.push(format!(
            "{file}:{line}:{column}: {}; {}",
            fault.problem, fault.help
        ));
    }
    if let Some(refusal) = &plan.refusal {
        lines.push(format!("REFUSED: {refusal}"));
    }
    if plan.result == PlanResult::Unchanged {
        lines.push(format!("version {} is in force already", plan.map_version));
    }
    if !plan.backends.is_empty() {
        let version = plan.new_version.unwrap_or(plan.map_version);
        lines.extend(details(
            &format!("version {version} after {}", plan.map_version),
            plan,
        ));
    }
    lines
}

/// What a change does, which is called `what`.
pub(super) fn details(what: &str, plan: &PlanReport) -> Vec<String> {
    let mut lines = vec![headline(what, plan), String::new()];
    lines.extend(backends(&plan.backends));
    if !plan.flows.is_empty() {
        lines.push(String::new());
        lines.extend(flows(&plan.flows));
    }
    if let Some(times) = plan.handover {
        lines.push(String::new());
        lines.push(format!(
            "the handover takes {}: sessions stay for {}, then move when they are used, for {}",
            duration_ms(times.total_ms),
            duration_ms(times.settle_ms),
            duration_ms(times.move1_ms + times.move2_ms)
        ));
    }
    let warnings = plan.warnings.iter();
    lines.extend(warnings.map(|warning| format!("warning: {warning}")));
    lines
}

fn headline(what: &str, plan: &PlanReport) -> String {
    let slots = count(plan.moved_slots, "slot", "slots");
    let share = percent(plan.moved_percent);
    let sessions = match (plan.sessions, plan.bytes) {
        (Some(sessions), Some(size)) => format!(", {sessions} sessions, {}", bytes(size)),
        _ => String::new(),
    };
    format!("{what}: {slots} ({share}) get another backend{sessions}")
}

fn backends(planned: &[PlannedBackend]) -> Vec<String> {
    let has_copies =
        |backend: &PlannedBackend| backend.copies_before.or(backend.copies_after).is_some();
    let shows_copies = planned.iter().any(has_copies);
    let mut columns = vec![
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("SLOTS", Side::Right),
        ("AFTER", Side::Right),
        ("SHARE", Side::Right),
        ("AFTER", Side::Right),
        ("SESSIONS", Side::Right),
        ("AFTER", Side::Right),
        ("BYTES", Side::Right),
        ("AFTER", Side::Right),
        ("USED AFTER", Side::Right),
    ];
    if shows_copies {
        columns.splice(10..10, [("COPIES", Side::Right), ("AFTER", Side::Right)]);
    }
    let mut table = Table::new(&columns);
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let share = |slots: usize| percent(slots as f64 * 100.0 / SLOT_COUNT as f64);
    for backend in planned {
        let mut row = vec![
            backend.name.clone(),
            states(backend),
            backend.slots_before.to_string(),
            backend.slots_after.to_string(),
            share(backend.slots_before),
            share(backend.slots_after),
            number(backend.sessions_before),
            number(backend.sessions_after),
            backend.bytes_before.map(bytes).unwrap_or_default(),
            backend.bytes_after.map(bytes).unwrap_or_default(),
            backend.used_percent_after.map(percent).unwrap_or_default(),
        ];
        if shows_copies {
            let copies = [backend.copies_before, backend.copies_after].map(number);
            row.splice(10..10, copies);
        }
        table.row(row);
    }
    table.lines()
}

fn states(backend: &PlannedBackend) -> String {
    match (&backend.state_before, &backend.state_after) {
        (Some(before), Some(after)) if before == after => after.clone(),
        (Some(before), Some(after)) => format!("{before} -> {after}"),
        (None, Some(after)) => format!("new, {after}"),
        (_, None) => "leaves".to_owned(),
    }
}

fn flows(planned: &[PlannedFlow]) -> Vec<String> {
    let mut table = Table::new(&[
        ("FROM", Side::Left),
        ("TO", Side::Left),
        ("SLOTS", Side::Right),
        ("SHARE", Side::Right),
        ("SESSIONS", Side::Right),
        ("BYTES", Side::Right),
        ("NOTE", Side::Left),
    ]);
    for flow in planned {
        table.row(vec![
            flow.from.clone(),
            flow.to.clone(),
            flow.slots.to_string(),
            percent(flow.slots as f64 * 100.0 / SLOT_COUNT as f64),
            flow.sessions
                .map(|sessions| sessions.to_string())
                .unwrap_or_default(),
            flow.bytes.map(bytes).unwrap_or_default(),
            if flow.lost {
                "lost".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    table.lines()
}

fn describe_suggestion(suggestion: &Suggestion) -> Vec<String> {
    let wanted = suggestion.percent;
    let mut lines = weights(&suggestion.now);
    lines.push(String::new());
    if suggestion.fits {
        lines.push(format!(
            "nobody uses more than {wanted:.0} % of its capacity: nothing to do"
        ));
        return lines;
    }
    match &suggestion.more {
        Some(more) => lines.push(format!(
            "{} like {} would do: the fullest of all would use {}",
            count(more.backends, "more backend", "more backends"),
            more.like,
            percent(more.highest_used_percent)
        )),
        None => lines.push(format!(
            "no number of backends brings everybody under {wanted:.0} %"
        )),
    }
    match &suggestion.weights {
        Some(other) => {
            lines.push("without another backend, these weights would do:".to_owned());
            lines.extend(weights(other));
        }
        None => lines.push(format!(
            "without another backend, no weights bring everybody under {wanted:.0} %"
        )),
    }
    lines
}

fn weights(backends: &[SuggestedBackend]) -> Vec<String> {
    let mut table = Table::new(&[
        ("BACKEND", Side::Left),
        ("WEIGHT", Side::Right),
        ("USED", Side::Right),
    ]);
    for backend in backends {
        table.row(vec![
            backend.name.clone(),
            backend.weight.to_string(),
            percent(backend.used_percent),
        ]);
    }
    table.lines()
}
