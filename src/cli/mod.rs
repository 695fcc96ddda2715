//! Commands: arguments in, an exit code out.
//!
//! Each command is one file. Exit codes: 0 fine, 1 the command's own finding (faults, losses),
//! 2 wrong usage, 3 could not run.

mod admins;
mod backend;
mod bench;
mod check;
mod demo;
mod human;
mod log_args;
mod output;
mod plan;
mod route;
mod serve;
mod state_server;
mod status;
mod table;

use std::process::ExitCode;

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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Finding => 1,
            Exit::Usage => 2,
            Exit::CouldNotRun => 3,
        })
    }
}

/// Makes a pool of ASP.NET state servers behave like one.
#[derive(Debug, Parser)]
#[command(name = "staterouter", version, max_term_width = 100)]
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
    Demo(demo::DemoArgs),
    /// Show how running proxies and their backends are; exit 1 if something is wrong
    Status(status::StatusArgs),
    /// Show what a new partition map would do before it is saved; exit 1 if it would be refused
    Plan(plan::PlanArgs),
    /// Drain a backend, give it up or activate it, whatever the partition map says
    Backend(backend::BackendArgs),
    /// Simulate a web farm against a running proxy or state server; exit 1 on any wrong answer
    Bench(bench::BenchArgs),
}

/// Runs the command of the process arguments.
pub fn run() -> ExitCode {
    let exit = match Arguments::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::StateServer(args) => state_server::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    output::end(exit).into()
}
