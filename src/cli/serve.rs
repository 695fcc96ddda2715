//! `staterouter serve`.

use std::path::PathBuf;
use std::thread;

use super::{Exit, output};
use crate::app::signals::StopSignals;
use crate::app::{names, proxy_server};
use crate::config::{Config, Loaded, PartitionMap};
use crate::control::ControlOptions;
use crate::{config, log};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &ServeArgs) -> Exit {
    let Loaded {
        config,
        partition_map: map,
        warnings,
    } = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(error) => return output::could_not_run(error),
    };
    let log = log::init(config.log);
    for warning in &warnings {
        tracing::warn!("{}", warning.in_one_line());
    }
    warn_of_names(&config, &map);
    for backend in map.backends.iter().filter(|backend| backend.id_is_derived) {
        tracing::info!(
            backend = backend.name,
            id = backend.id,
            "id derived from the name"
        );
    }
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    if let Err(error) = signals.catch_hangup() {
        return output::could_not_run(error);
    }
    let backends = map.backends.len();
    let options = ControlOptions {
        config,
        map,
        main_file: Some(args.config.clone()),
        level: Some(log.level()),
    };
    let running = match proxy_server::start(options) {
        Ok(running) => running,
        Err(error) => return output::could_not_run(error),
    };
    output::line(format_args!("listening on {}", running.address));
    if let Some(address) = running.admin() {
        output::line(format_args!("admin on {address}"));
    }
    tracing::info!(address = %running.address, backends, "serving");
    signals.wait_through_hangups(|| running.control.reload_soon());
    tracing::info!("stopping");
    signals.stop(|| running.stop());
    Exit::Fine
}

/// In a thread of its own: a name service that hangs holds up no start.
fn warn_of_names(config: &Config, map: &PartitionMap) {
    let (config, map) = (config.clone(), map.clone());
    let look_up = move || {
        for warning in names::warnings(&config, &map) {
            tracing::warn!("{warning}");
        }
    };
    // Without a thread for it nobody could be served either, and the start says so.
    let _ = thread::Builder::new()
        .name("names".to_owned())
        .spawn(look_up);
}
