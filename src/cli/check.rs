//! `staterouter check`.

use std::path::PathBuf;

use super::{Exit, output};
use crate::app::names;
use crate::config::{self, BackendState, Fault, LoadError};
use crate::usage::Capacity;

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &CheckArgs) -> Exit {
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(LoadError::Faults(faults)) => {
            output::line(faults);
            return Exit::Finding;
        }
        Err(error) => return output::could_not_run(error),
    };
    let (config, map) = (&loaded.config, &loaded.partition_map);
    output::line(format_args!("{}: fine", args.config.display()));
    let active = map
        .backends
        .iter()
        .filter(|b| b.state == BackendState::Active)
        .count();
    output::line(format_args!(
        "{}: fine, version {}, backends: {}, {active} active",
        config.partition_map.display(),
        map.version,
        map.backends.len()
    ));
    for backend in &map.backends {
        if let Some(capacity) = describe(backend.capacity) {
            output::line(format_args!("{}: capacity {capacity}", backend.name));
        }
    }
    for backend in map.backends.iter().filter(|backend| backend.id_is_derived) {
        output::line(format_args!(
            "note: backend {} has no id; {} is derived from its name",
            backend.name, backend.id
        ));
    }
    let in_files = loaded.warnings.iter().map(Fault::in_one_line);
    for warning in in_files.chain(names::warnings(config, map)) {
        output::line(format_args!("warning: {warning}"));
    }
    Exit::Fine
}

/// `None` when nothing is limited.
fn describe(capacity: Capacity) -> Option<String> {
    let sessions = capacity.sessions.map(|max| format!("{max} sessions"));
    let memory = capacity.memory_bytes.map(config::format_size);
    match (sessions, memory) {
        (Some(sessions), Some(memory)) => Some(format!("{sessions}, {memory}")),
        (sessions, memory) => sessions.or(memory),
    }
}
