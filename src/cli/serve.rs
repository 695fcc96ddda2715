//! `staterouter serve`.

use std::path::PathBuf;

use super::{Exit, output};
use crate::app::proxy_server;
use crate::app::signals::StopSignals;
use crate::control::ControlOptions;
use crate::{config, log};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &ServeArgs) -> Exit {
    let (config, map) = match config::load(&args.config) {
        Ok(loaded) => (loaded.config, loaded.partition_map),
        Err(error) => return output::could_not_run(error),
    };
    let log = log::init(config.log);
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
