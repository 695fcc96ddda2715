//! `staterouter serve`.

use std::path::{Path, PathBuf};
use std::thread;

use super::output::ServerOutput;
use super::{Exit, output};
use crate::app::signals::StopSignals;
use crate::app::{engines, names, proxy_server};
use crate::config::{Config, LoadError, LoadedConfig, PartitionMap};
use crate::control::{self, ControlOptions};
use crate::tls::TlsWatch;
use crate::{config, log};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &ServeArgs) -> Exit {
    let LoadedConfig {
        config,
        partition_map: map,
        warnings,
    } = match to_start_with(&args.config) {
        Ok(loaded) => loaded,
        Err(error) => return output::could_not_run(error),
    };
    let log = log::init(config.log);
    let output = ServerOutput(config.log.format);
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
        Err(error) => return output.could_not_run(error),
    };
    if let Err(error) = signals.catch_reload() {
        return output.could_not_run(error);
    }
    let backends = map.backends.len();
    let options = ControlOptions {
        config,
        map,
        main_file: Some(args.config.clone()),
        level: Some(log.level()),
        // They are read when the proxy starts.
        certificates: TlsWatch::default(),
        engines: engines::connector,
    };
    // A disk that hangs must not keep the program from ending.
    let running = match signals.wait_for(move || proxy_server::start(options)) {
        Some(Ok(running)) => running,
        Some(Err(error)) => return output.could_not_run(error),
        None => {
            tracing::info!("stopped before the first request");
            return Exit::Fine;
        }
    };
    output.line(format_args!("listening on {}", running.address));
    if let Some(address) = running.admin() {
        output.line(format_args!("admin on {address}"));
    }
    tracing::info!(address = %running.address, backends, "serving");
    let status = || {
        let published = running.control.published();
        let worst = published.status.findings.first();
        let is = worst.map_or("all well", |finding| &finding.says);
        format!("listening on {}: {is}", running.address)
    };
    signals.serve_until_stopped(status, async || {
        // How it went is in the log and in the status; of control that has ended, the status says so.
        let _ = running.control.reload().await;
    });
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

/// Both files. If the partition map is faulty, the one that was in force last stands in for it: the
/// proxies that run go on with that, too.
fn to_start_with(main: &Path) -> Result<LoadedConfig, LoadError> {
    let error = match config::load(main) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let Ok((config, warnings)) = config::load_main(main) else {
        return Err(error);
    };
    let partition_map = control::last_map(&config).ok_or(error)?;
    Ok(LoadedConfig {
        config,
        partition_map,
        warnings,
    })
}
