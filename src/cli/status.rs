//! `staterouter status`: how the proxies and their backends are.

mod assess;
mod page;
mod report;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::admins::{AdminArgs, body_of};
use super::{Exit, output};
use crate::admin::client::AdminClient;
use crate::app::signals::StopSignals;

pub(super) use report::{Asked, Report};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// To the upper left corner, and everything away.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admins: AdminArgs,
    /// Show it again every 2 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Everything the proxies say, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Exit {
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let mut clients = args.admins.clients();
    let mut exit = Exit::Fine;
    while let Some(asked) = signals.wait_or(ask_all(&mut clients)) {
        let problems = assess::problems(&asked);
        exit = exit_of(&asked, &problems);
        let text = if args.json {
            as_json(&asked, &problems)
        } else {
            as_text(&asked, &problems)
        };
        // Whoever read it may have left.
        if show(args.watch, &text).is_err() || !args.watch {
            break;
        }
        // Made where there is a clock to sleep by.
        let rest = async { tokio::time::sleep(WATCH_INTERVAL).await };
        if signals.wait_or(rest).is_none() {
            break;
        }
    }
    exit
}

/// What each of them says now, asked one after the other.
pub(super) async fn ask_all(clients: &mut [AdminClient]) -> Vec<Asked> {
    let mut asked = Vec::with_capacity(clients.len());
    for client in clients {
        let body = body_of(client.get("/status").await);
        asked.push(Asked {
            admin: client.address().to_owned(),
            report: body.and_then(|body| Report::read(&body)),
        });
    }
    asked
}

fn exit_of(asked: &[Asked], problems: &[String]) -> Exit {
    if asked.iter().all(|proxy| proxy.report.is_err()) {
        Exit::CouldNotRun
    } else if problems.is_empty() {
        Exit::Fine
    } else {
        Exit::Finding
    }
}

fn as_json(asked: &[Asked], problems: &[String]) -> String {
    let proxy = |proxy: &Asked| {
        let (status, failure) = match &proxy.report {
            Ok((_, status)) => (status, None),
            Err(failure) => (&Value::Null, Some(failure)),
        };
        json!({"admin": proxy.admin, "status": status, "failure": failure})
    };
    let proxies: Vec<Value> = asked.iter().map(proxy).collect();
    let all = json!({
        "well": problems.is_empty(),
        "problems": problems,
        "proxies": proxies,
    });
    format!("{all:#}")
}

fn as_text(asked: &[Asked], problems: &[String]) -> String {
    let reports: Vec<&Report> = asked.iter().filter_map(Asked::report).collect();
    let mut lines = match problems {
        [] => vec![page::all_well(&reports)],
        [only] => vec![format!("WRONG: {only}")],
        several => {
            let mut lines = vec![format!("WRONG: {} things", several.len())];
            lines.extend(several.iter().map(|problem| format!("  {problem}")));
            lines
        }
    };
    for proxy in asked {
        if let Some(report) = proxy.report() {
            lines.push(String::new());
            lines.extend(page::lines(&proxy.admin, report));
        }
    }
    lines.join("\n")
}

/// On a terminal, what was shown before goes.
fn show(again: bool, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if again && out.is_terminal() {
        write!(out, "{CLEAR}")?;
    }
    let end = if again { "\n\n" } else { "\n" };
    write!(out, "{text}{end}")?;
    out.flush()
}

#[cfg(test)]
mod tests;
