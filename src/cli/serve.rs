//! `staterouter serve`.

use std::path::PathBuf;

use super::{Exit, output};
use crate::app::proxy_server;
use crate::app::signals::StopSignals;
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
    let _log = log::init(config.log);
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
    let running = match proxy_server::start(&config, &map) {
        Ok(running) => running,
        Err(error) => return output::could_not_run(error),
    };
    output::line(format_args!("listening on {}", running.address));
    tracing::info!(address = %running.address, backends = map.backends.len(), "serving");
    signals.wait();
    tracing::info!("stopping");
    signals.stop(vec![running]);
    Exit::Fine
}
