//! `staterouter service`: the program as a service of Windows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use super::{Exit, output};
use crate::log;
use crate::os::{self, ServiceError, ServiceEvent};

/// The main file in the folder of the services.
const CONFIG_FILE: &str = "staterouter.yaml";

#[derive(Debug, clap::Args)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have Windows run the proxy, or another server, whenever the machine runs
    Install {
        #[command(flatten)]
        service: Name,
        /// The configuration file of the proxy; %ProgramData%\staterouter\staterouter.yaml if absent
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// In place of the proxy: `-- state-server` with its options
        #[arg(last = true, value_name = "COMMAND", conflicts_with = "config")]
        command: Vec<OsString>,
    },
    /// Stop the service and remove it; its files stay
    Uninstall(Name),
    /// Start the service and wait until it serves
    Start(Name),
    /// Stop the service in good order and wait until it has ended
    Stop(Name),
    /// Show whether the service runs; exit 1 if it does not
    Status(Name),
    /// What Windows starts
    #[command(hide = true)]
    Run {
        #[command(flatten)]
        service: Name,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct Name {
    /// Name of the service
    #[arg(long, value_name = "NAME", default_value = "staterouter", value_parser = parse_name)]
    name: String,
}

/// A name that is the same in a path, an account and a message.
fn parse_name(text: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match text.chars().all(is_fine) && (1..=64).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err("a name has up to 64 letters, digits, `-` and `_`".to_owned()),
    }
}

pub(super) fn run(args: ServiceArgs) -> Exit {
    let done = match args.action {
        Action::Install {
            service,
            config,
            command,
        } => return install(&service.name, config, command),
        Action::Run { service, command } => return run_as_service(&service.name, command),
        Action::Status(Name { name }) => {
            return match os::service_state(&name) {
                Ok(state) => {
                    output::line(format_args!("{name} is {state}"));
                    if state == "running" {
                        Exit::Fine
                    } else {
                        Exit::Finding
                    }
                }
                Err(error) => output::could_not_run(error),
            };
        }
        Action::Uninstall(Name { name }) => os::uninstall_service(&name),
        Action::Start(Name { name }) => os::start_service(&name),
        Action::Stop(Name { name }) => os::stop_service(&name),
    };
    ended(done)
}

fn ended(done: Result<(), ServiceError>) -> Exit {
    match done {
        Ok(()) => Exit::Fine,
        Err(error) => output::could_not_run(error),
    }
}

fn install(name: &str, config: Option<PathBuf>, command: Vec<OsString>) -> Exit {
    let command = match command.is_empty() {
        true => serve(&config.unwrap_or_else(|| os::service_folder().join(CONFIG_FILE))),
        false => Ok(command),
    };
    let command = match command {
        Ok(command) => command,
        Err(error) => return output::could_not_run(error),
    };
    if let Err(error) = super::server_command(&command) {
        let _ = output::could_not_run(error);
        return Exit::Usage;
    }
    let mut arguments: Vec<OsString> = ["service", "run", "--name", name, "--"]
        .map(OsString::from)
        .to_vec();
    arguments.extend(command);
    let display_name = format!("{name} (ASP.NET sessions)");
    match os::install_service(name, &display_name, arguments) {
        Ok(unrepaired) => {
            let installed = format!("The service {name} was installed.");
            os::log_event(ServiceEvent::Information, &installed);
            if let Some(reason) = unrepaired {
                output::line(format_args!(
                    "{name} is installed, but Windows will not start it again when it fails: \
                     {reason}"
                ));
            }
            Exit::Fine
        }
        Err(error) => output::could_not_run(error),
    }
}

/// A service starts in another folder: the path has to say it all.
fn serve(config: &Path) -> Result<Vec<OsString>, String> {
    let full = std::path::absolute(config);
    let full = full.map_err(|error| format!("cannot find {}: {error}", config.display()))?;
    Ok(vec!["serve".into(), "--config".into(), full.into()])
}

fn run_as_service(name: &str, command: Vec<OsString>) -> Exit {
    log::write_to(os::service_folder().join("log"), name);
    ended(os::run_as_service(
        name,
        move || match super::server_command(&command) {
            Ok(command) => super::execute(command).code().into(),
            Err(error) => {
                os::log_event(ServiceEvent::Error, &error);
                Exit::Usage.code().into()
            }
        },
    ))
}

/// The commands that a service can run.
#[derive(Debug, Parser)]
#[command(name = "staterouter", no_binary_name = true)]
pub(super) struct ServerArguments {
    #[command(subcommand)]
    pub(super) command: super::Command,
}
