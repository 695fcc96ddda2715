//! Commands: arguments in, an exit code out.
//!
//! Each command is one file. Exit codes: 0 fine, 1 the command's own finding (faults, losses),
//! 2 wrong usage, 3 could not run.

mod admins;
mod backend;
mod bench;
mod check;
mod conformance;
mod contents;
mod demo;
mod human;
mod log_args;
mod manual;
mod output;
mod peer;
mod plan;
mod route;
mod serve;
#[cfg(windows)]
mod service;
mod state_server;
mod status;
mod table;
mod tls_args;

use std::env::consts::{ARCH, OS};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Fine,
    /// The command found what it looks for: faults, losses.
    Finding,
    /// The arguments make no sense together; those that clap refuses end there.
    Usage,
    /// It could not do its work.
    CouldNotRun,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Finding => 1,
            Self::Usage => 2,
            Self::CouldNotRun => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The version, the commit that the program was built from, if the build was told, and the system that
/// it was built for.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    let commit = option_env!("STATEROUTER_COMMIT").unwrap_or("unknown");
    format!("{version}\ncommit: {commit}\ntarget: {ARCH}-{OS}")
});

/// Makes a pool of ASP.NET state servers behave like one.
#[derive(Debug, Parser)]
#[command(name = "staterouter", version, long_version = LONG_VERSION.as_str(), max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy between a web farm and its state servers
    Serve(serve::ServeArgs),
    /// Run one embedded state server: a stand-in for aspnet_state.exe
    StateServer(state_server::StateServerArgs),
    /// Check a configuration file and its partition map; every fault with line and column
    Check(check::CheckArgs),
    /// Show which backends serve the given session ids
    Route(route::RouteArgs),
    /// Three state servers, the proxy and a small web farm on this machine; nothing to configure
    // What goes on is told by the demo itself.
    #[command(mut_arg("log_level", |arg| arg.default_value("error")))]
    Demo(demo::DemoArgs),
    /// Show how running proxies and their backends are; exit 1 if something is wrong
    Status(status::StatusArgs),
    /// Show which items of which application fill the state servers
    Contents(contents::ContentsArgs),
    /// Show what a new partition map would do before it is saved; exit 1 if it would be refused
    Plan(plan::PlanArgs),
    /// Drain a backend, give it up or activate it, whatever the partition map says
    Backend(backend::BackendArgs),
    /// Go on without a proxy that does not run and cannot be started soon
    Peer(peer::PeerArgs),
    /// Simulate a web farm against a running proxy or state server; exit 1 on any wrong answer
    Bench(bench::BenchArgs),
    /// Ask a state server whether it does what docs/protocol.md says; exit 1 on any difference
    Conformance(conformance::ConformanceArgs),
    /// Write the man pages and the shell completions of this program into a folder
    Manual(manual::ManualArgs),
    /// Run the proxy or a state server as a service of Windows
    #[cfg(windows)]
    Service(service::ServiceArgs),
}

/// Runs the command of the process arguments.
pub fn run() -> ExitCode {
    output::end(execute(Arguments::parse().command)).into()
}

fn execute(command: Command) -> Exit {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::StateServer(args) => state_server::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Contents(args) => contents::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Peer(args) => peer::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Manual(args) => manual::run(&args),
        #[cfg(windows)]
        Command::Service(args) => service::run(args),
    }
}

/// The command of a service, if it is one that serves until it is stopped.
#[cfg(windows)]
fn server_command(arguments: &[std::ffi::OsString]) -> Result<Command, String> {
    let parsed = service::ServerArguments::try_parse_from(arguments);
    match parsed.map_err(|error| error.to_string())?.command {
        command @ (Command::Serve(_) | Command::StateServer(_)) => Ok(command),
        _ => Err("a service runs `serve` or `state-server`".to_owned()),
    }
}
