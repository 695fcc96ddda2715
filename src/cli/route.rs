//! `staterouter route`.

use std::path::PathBuf;

use super::{Exit, output};
use crate::config;
use crate::config::{PartitionMap, SentOn};
use crate::route::{KeyBuffer, Placement, extract};

/// Characters of a session id that are shown, at most and never more than a quarter of it: enough
/// to recognise a line, too few to use the id.
const MAX_SHOWN_CHARS: usize = 4;

#[derive(Debug, clap::Args)]
pub(super) struct RouteArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The arguments are whole request targets as they go over the wire; those with a slash (or %2f)
    /// are taken for targets anyway
    #[arg(long)]
    target: bool,
    /// Session ids, or whole request targets
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) fn run(args: &RouteArgs) -> Exit {
    let map = match config::load(&args.config) {
        Ok(loaded) => loaded.partition_map,
        Err(error) => return output::could_not_run(error),
    };
    let placement = match map.placement() {
        Ok(placement) => placement,
        Err(error) => return output::could_not_run(error),
    };
    let mut exit = Exit::Fine;
    let mut key_buffer = KeyBuffer::new();
    for id in &args.ids {
        if !args.target && !is_target(id) && !id.is_empty() {
            output::line(describe(&map, &placement, id.as_bytes()));
            continue;
        }
        match extract(id.as_bytes(), &mut key_buffer) {
            Ok(key) => {
                let line = describe(&map, &placement, key.session_id());
                let application = application(&map, id.as_bytes());
                output::line(line + &application.unwrap_or_default());
            }
            Err(error) => {
                output::line(format_args!("not a session: {error}"));
                exit = Exit::Finding;
            }
        }
    }
    exit
}

/// Whether this is a whole request target, as logs and traces of the protocol show it. No session id
/// has a slash.
fn is_target(text: &str) -> bool {
    text.contains('/') || text.to_ascii_lowercase().contains("%2f")
}

/// Which application of the map a target belongs to, and the id that state servers are given.
fn application(map: &PartitionMap, target: &[u8]) -> Option<String> {
    let SentOn { name, renamed_to } = config::sent_on(&map.applications, target)?;
    let renamed_to = renamed_to.unwrap_or_else(|| "it is".to_owned());
    Some(format!("  application {name}, sent on as {renamed_to}"))
}

/// One line: whom, where, and who would take over.
fn describe(map: &PartitionMap, placement: &Placement, session_id: &[u8]) -> String {
    let located = placement.hash_key().locate(session_id);
    let names: Vec<&str> = placement
        .candidates(located.slot)
        .iter()
        .map(|backend| map.backends[backend.index()].name.as_str())
        .collect();
    let id = String::from_utf8_lossy(session_id);
    let shown_chars = MAX_SHOWN_CHARS.min(id.chars().count() / 4);
    let shown: String = id.chars().take(shown_chars).collect();
    let (owner, next) = names.split_first().unwrap_or((&"nobody", &[]));
    let mut line = format!(
        "{shown}…  fingerprint {}  slot {:>5}  {owner}",
        located.fingerprint, located.slot
    );
    if !next.is_empty() {
        line += &format!("  (next: {})", next.join(", "));
    }
    line
}
