//! `staterouter status`: how the proxies and their backends are.

mod page;
mod verdict;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use verdict::Found;

use super::admins::{AdminArgs, body_of};
use super::{Exit, output};
use crate::admin::client::AdminClient;
use crate::app::signals::StopSignals;
use crate::control::report::status::Status;

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

/// A proxy that was asked, and what it answered.
#[derive(Debug)]
pub(super) struct Asked {
    admin: String,
    /// What it says, as this version reads it and as it came, or why there is nothing.
    answer: Result<(Box<Status>, Value), String>,
}

impl Asked {
    /// What it says, if it does.
    pub(super) fn status(&self) -> Option<&Status> {
        self.answer.as_ref().ok().map(|(status, _)| status.as_ref())
    }
}

pub(super) fn run(args: &StatusArgs) -> Exit {
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let mut clients = match args.admins.clients() {
        Ok(clients) => clients,
        Err(problem) => return output::could_not_run(problem),
    };
    let mut exit = Exit::Fine;
    while let Some(asked) = signals.wait_or(ask_all(&mut clients)) {
        let found = verdict::findings(&asked);
        exit = exit_of(&asked, &found);
        let text = if args.json {
            as_json(&asked, &found)
        } else {
            as_text(&asked, &found)
        };
        let shown = show(args.watch, &text);
        let is_last = shown.is_err() || !args.watch;
        output::printed(shown);
        if is_last {
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
            answer: body.and_then(|body| read(&body)),
        });
    }
    asked
}

/// Reads the body of an answer.
fn read(body: &[u8]) -> Result<(Box<Status>, Value), String> {
    let read = |body| {
        let value: Value = serde_json::from_slice(body)?;
        Ok((Box::deserialize(&value)?, value))
    };
    read(body).map_err(|error: serde_json::Error| {
        format!("it answered no status that this version of staterouter reads: {error}")
    })
}

fn exit_of(asked: &[Asked], found: &[Found<'_>]) -> Exit {
    if asked.iter().all(|proxy| proxy.answer.is_err()) {
        Exit::CouldNotRun
    } else if found.iter().any(Found::is_wrong) {
        Exit::Finding
    } else {
        Exit::Fine
    }
}

fn as_json(asked: &[Asked], found: &[Found<'_>]) -> String {
    let proxy = |proxy: &Asked| {
        let (status, failure) = match &proxy.answer {
            Ok((_, status)) => (status, None),
            Err(failure) => (&Value::Null, Some(failure)),
        };
        json!({"admin": proxy.admin, "status": status, "failure": failure})
    };
    let proxies: Vec<Value> = asked.iter().map(proxy).collect();
    let all = json!({
        "well": !found.iter().any(Found::is_wrong),
        "findings": found,
        "proxies": proxies,
    });
    format!("{all:#}")
}

fn as_text(asked: &[Asked], found: &[Found<'_>]) -> String {
    let mut lines = verdict::lines(asked, found);
    for proxy in asked {
        if let Some(status) = proxy.status() {
            lines.push(String::new());
            lines.extend(page::lines(&proxy.admin, status));
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
