//! `staterouter contents`: which items of which application fill the state servers.

use serde_json::from_slice;

use super::admins::{AdminArgs, body_of, cannot_ask};
use super::table::{Side, Table};
use super::{Exit, human, output};
use crate::admin::client::AdminClient;
use crate::app::signals::StopSignals;
use crate::control::report::contents::{AppContents, ContentsReport};

/// Items of one application that are shown.
const ITEMS_SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct ContentsArgs {
    #[command(flatten)]
    admins: AdminArgs,
    /// What the proxies say, as a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ContentsArgs) -> Exit {
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let shown = signals.wait_or(show_all(args));
    shown.unwrap_or(Exit::CouldNotRun)
}

async fn show_all(args: &ContentsArgs) -> Exit {
    let mut clients = match args.admins.clients() {
        Ok(clients) => clients,
        Err(problem) => return output::could_not_run(problem),
    };
    let has_several = clients.len() > 1;
    let mut reports = Vec::new();
    for client in &mut clients {
        let report = match ask(client).await {
            Ok(report) => report,
            Err(problem) => return output::could_not_run(problem),
        };
        if !args.json {
            if has_several {
                output::line(format_args!("{}:", client.address()));
            }
            text(&report).into_iter().for_each(output::line);
        }
        reports.push(report);
    }
    if args.json {
        match serde_json::to_string_pretty(&reports) {
            Ok(text) => output::line(text),
            Err(error) => return output::could_not_run(error),
        }
    }
    Exit::Fine
}

async fn ask(client: &mut AdminClient) -> Result<ContentsReport, String> {
    let answer = client.get("/contents").await;
    let address = client.address();
    let body = body_of(answer).map_err(|problem| cannot_ask(address, problem))?;
    from_slice(&body).map_err(|error| {
        format!("{address} answered nothing that this version of staterouter reads: {error}")
    })
}

fn text(report: &ContentsReport) -> Vec<String> {
    if !report.on {
        return vec!["bodies are not looked into: `contents: off` in the main file".to_owned()];
    }
    if report.sessions == 0 {
        return vec!["no session has been stored yet that was looked into".to_owned()];
    }
    let sessions = human::count(report.sessions as usize, "session", "sessions");
    let one_in = match report.one_in {
        1 => "all that were stored".to_owned(),
        one_in => format!("one in {one_in}"),
    };
    let mut lines = vec![format!("from {sessions}, {one_in}")];
    for app in &report.applications {
        lines.push(String::new());
        lines.extend(app_lines(app));
    }
    lines
}

fn app_lines(app: &AppContents) -> Vec<String> {
    let name = match app.name.is_empty() {
        true => "(no application)",
        false => &app.name,
    };
    let mut lines = vec![format!(
        "{name}: {} of the bytes, {} per session",
        human::percent(app.percent),
        human::bytes(app.mean_bytes)
    )];
    let mut table = Table::new(&[
        ("  ITEM", Side::Left),
        ("BYTES", Side::Right),
        ("IN SESSIONS", Side::Right),
        ("MEAN", Side::Right),
    ]);
    for item in app.items.iter().take(ITEMS_SHOWN) {
        let name = match item.name.is_empty() {
            true => "(no name)",
            false => &item.name,
        };
        table.row(vec![
            format!("  {name}"),
            human::percent(item.percent),
            human::percent(item.sessions_percent),
            human::bytes(item.mean_bytes),
        ]);
    }
    if !app.items.is_empty() {
        lines.extend(table.lines());
    }
    let shown: f64 = app
        .items
        .iter()
        .take(ITEMS_SHOWN)
        .map(|item| item.percent)
        .sum();
    if !app.items.is_empty() && shown < 99.95 {
        lines.push(format!(
            "  everything else {}",
            human::percent(100.0 - shown)
        ));
    }
    let notes = [
        (
            app.compressed,
            "compressed: their items are reckoned in proportion",
        ),
        (
            app.not_understood,
            "not understood: another program than .NET's own wrote them",
        ),
        (
            app.too_long,
            "with more names than fit into the 16 KiB that are looked at",
        ),
    ];
    for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
        let sessions = human::count(*count as usize, "session", "sessions");
        lines.push(format!("  {sessions} {what}"));
    }
    lines
}
