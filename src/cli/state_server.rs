//! `staterouter state-server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;

use clap::builder::RangedU64ValueParser;

use super::log_args::LogArgs;
use super::output::ServerOutput;
use super::{Exit, output};
use crate::app::signals::StopSignals;
use crate::app::state_server::{self, DataOptions, StateServer, StateServerOptions};
use crate::config::{self, AllowList, Network};
use crate::disk::SyncMode;
use crate::log;
use crate::metrics;
use crate::tls::ServerFiles;

#[derive(Debug, clap::Args)]
pub(super) struct StateServerArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:42424")]
    listen: SocketAddr,
    /// Address or network that may connect, besides this machine; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = config::parse_network)]
    allow: Vec<Network>,
    /// The file with the certificate that clients are shown, in PEM form: only connections with TLS
    /// are served then
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The file with the authorities of clients: only clients with a certificate from one of them
    /// are served then; --allow counts as well
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Memory for sessions, such as 512MiB or 4GiB; above it new ones are refused. No limit if absent
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size)]
    max_memory: Option<u64>,
    /// Keep sessions in this folder, so that a restart loses none. In memory only if absent
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// When a write is answered and what a failure costs (docs/state-server.md)
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        requires = "data",
        default_value = "everysec"
    )]
    sync: Sync,
    /// Largest session that is accepted
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size, default_value = "64MiB")]
    max_body: u64,
    /// Most connections at a time
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one())]
    max_connections: usize,
    /// Where to answer GET /status, /metrics, /readyz and /healthz over HTTP: how many sessions it holds,
    /// and what is wrong
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Answer there with TLS, too, with the same certificate and authorities
    #[arg(long, requires_all = ["admin", "tls_cert"])]
    admin_tls: bool,
    /// Host name under which monitoring asks there, beside IP addresses, localhost and this machine's
    /// own name; may be given several times
    #[arg(long, value_name = "NAME", requires = "admin", value_parser = config::parse_host_name)]
    admin_host: Vec<String>,
    /// Threads; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256))]
    workers: u16,
    #[command(flatten)]
    log: LogArgs,
}

/// `--sync`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "lower")]
enum Sync {
    /// Once the file has it: a killed process loses nothing, a power cut what the system had not
    /// written yet
    Off,
    /// At once: the file is written when the server stops in good order, and a crash loses all
    Shutdown,
    /// Once the file has it, synced every second: a power cut loses two seconds at most
    EverySec,
    /// Once the disk has it: nothing that was answered is lost
    Always,
}

impl From<Sync> for SyncMode {
    fn from(sync: Sync) -> Self {
        match sync {
            Sync::Off => Self::Off,
            Sync::Shutdown => Self::Shutdown,
            Sync::EverySec => Self::EverySec,
            Sync::Always => Self::Always,
        }
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

impl StateServerArgs {
    fn tls(&self) -> Option<ServerFiles> {
        Some(ServerFiles {
            cert: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
        })
    }
}

fn how_it_is(server: &StateServer) -> String {
    let sessions = server.stats().items;
    let trouble = server.trouble().map(|trouble| format!(", {trouble}"));
    let trouble = trouble.unwrap_or_default();
    format!(
        "listening on {}: {sessions} sessions{trouble}",
        server.address
    )
}

pub(super) fn run(args: &StateServerArgs) -> Exit {
    let allow = AllowList::new(args.allow.clone());
    if !args.listen.ip().to_canonical().is_loopback() && allow.is_loopback_only() {
        return output::could_not_run(
            "listening beyond this machine needs --allow: whoever can store a session here can \
             run code on the web servers, because they deserialise what is stored",
        );
    }
    let _log = log::init(args.log.config());
    let output = ServerOutput(args.log.config().format);
    for network in allow.for_everybody() {
        tracing::warn!(
            "--allow {network} lets every machine in: list the web servers and proxies, whoever can \
             store a session can run code on the web servers"
        );
    }
    let options = StateServerOptions {
        allow,
        workers: usize::from(args.workers),
        max_memory_bytes: args.max_memory,
        max_body_bytes: args.max_body,
        tls: args.tls(),
        max_connections: args.max_connections,
        data: args.data.as_ref().map(|folder| DataOptions {
            folder: folder.clone(),
            sync: args.sync.into(),
        }),
        admin: args.admin,
        admin_tls: args.admin_tls,
        admin_hosts: args.admin_host.clone(),
        ..StateServerOptions::new(args.listen)
    };
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output.could_not_run(error),
    };
    if let Err(error) = signals.catch_reload() {
        return output.could_not_run(error);
    }
    let server = match state_server::start(&options) {
        Ok(started) => started,
        Err(error) => return output.could_not_run(error),
    };
    output.line(format_args!("listening on {}", server.address));
    if let Some(admin) = server.admin() {
        output.line(format_args!("admin on {admin}"));
    }
    tracing::info!(address = %server.address, "serving");
    signals.serve_until_stopped(|| how_it_is(&server), async || server.look_at_certificate());
    let stats = server.stats();
    let process_bytes = metrics::resident_bytes();
    tracing::info!(
        sessions = stats.items,
        bytes = stats.bytes,
        process_bytes,
        "stopping"
    );
    let (sender, stopped) = mpsc::channel();
    signals.stop(move || {
        // Nobody waits for it any more after a second signal.
        let _ = sender.send(server.stop());
    });
    match stopped.try_recv() {
        Ok(Err(error)) => {
            output::could_not_run(format_args!("{error}; what was stored last may be lost"))
        }
        Ok(Ok(())) => Exit::Fine,
        Err(_) if args.data.is_some() => {
            output::could_not_run("stopped before the disk had everything")
        }
        Err(_) => Exit::Fine,
    }
}
