//! The proxies that a command asks, and the token it shows them.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::tls_args::TlsArgs;
use super::{Exit, output};
use crate::admin::client::{AdminAnswer, AdminClient, AdminError, AdminWay};
use crate::app::signals::StopSignals;
use crate::config::{self, AdminToken, BackendAddress, Config, TlsTrust};

/// Where `admin.listen` is, unless a main file says otherwise.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 42480);

/// How long a proxy may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Where to ask.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AdminArgs {
    /// Address of the proxy's admin server, 127.0.0.1:42480 if left out; give it several times to ask
    /// several proxies
    #[arg(long = "admin", value_name = "ADDR", value_parser = config::parse_admin)]
    admins: Vec<BackendAddress>,
    /// The main file of a proxy: it says where its admin server is, if no --admin does, how admin
    /// servers are reached with TLS (peer_tls), and where the token is
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// What is shown to those that let nobody change something without it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct TokenArgs {
    /// The file with the token of the admin server (`admin.token_file`)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// A client for each, in order.
    pub(super) fn clients(&self) -> Result<Vec<AdminClient>, String> {
        let config = self.config()?;
        let own = match (self.admins.as_slice(), &config) {
            ([], Some(config)) => Some(own_address(config)?),
            ([], None) => Some(BackendAddress::from(DEFAULT_ADMIN)),
            _ => None,
        };
        let trust = config.as_ref().and_then(|config| config.peer_tls.as_ref());
        let addresses = self.admins.iter().chain(&own);
        addresses
            .map(|address| client(address, &self.tls, trust))
            .collect()
    }

    /// The main file, if one is given.
    fn config(&self) -> Result<Option<Config>, String> {
        let read = self.config.as_deref().map(config::read_main).transpose();
        read.map_err(|error| error.to_string())
    }
}

/// Where the proxy with this main file is asked on its own machine.
fn own_address(config: &Config) -> Result<BackendAddress, String> {
    let Some(mut listen) = config.admin.listen else {
        return Err("`admin.listen` in the main file is `off`: nobody can ask".to_owned());
    };
    if config.admin.tls.is_some() && config.peer_tls.is_none() {
        return Err(
            "the admin server of the main file speaks TLS, and the file has no `peer_tls` that says \
             whom to trust: add it, or give --admin and --tls-ca"
                .to_owned(),
        );
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(BackendAddress::from(listen))
}

/// A client for the proxy whose admin server is at `address`. The options count before `trust`, what
/// a main file says.
pub(super) fn client(
    address: &BackendAddress,
    options: &TlsArgs,
    trust: Option<&TlsTrust>,
) -> Result<AdminClient, String> {
    let way = match (options.trust()?, trust) {
        (Some(trust), _) => AdminWay::to(address, Some(&trust)),
        (None, Some(trust)) => {
            let mut trust = trust.clone();
            trust.load("peers").map_err(|error| error.to_string())?;
            AdminWay::to(address, Some(&trust))
        }
        (None, None) => AdminWay::Plain,
    };
    Ok(AdminClient::new(address.clone(), way, ANSWER_LIMIT))
}

impl TokenArgs {
    /// The token, if there is one.
    fn token(&self, admins: &AdminArgs) -> Result<Option<AdminToken>, String> {
        let config = match &self.token_file {
            Some(_) => None,
            None => admins.config()?,
        };
        let known = config.and_then(|config| config.admin.token_file);
        let Some(path) = self.token_file.clone().or(known) else {
            return Ok(None);
        };
        let token = AdminToken::read(&path);
        token
            .map(Some)
            .map_err(|error| format!("no token in {}: {error}", path.display()))
    }
}

/// Runs `order` with the token, unless that cannot be read, until it is done or the command is
/// stopped.
pub(super) fn give_order(
    admins: &AdminArgs,
    args: &TokenArgs,
    order: impl AsyncFnOnce(&mut [AdminClient], Option<&AdminToken>) -> Exit,
) -> Exit {
    let asked = admins
        .clients()
        .and_then(|clients| Ok((clients, args.token(admins)?)));
    let (mut clients, token) = match asked {
        Ok(asked) => asked,
        Err(problem) => return output::could_not_run(problem),
    };
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let ordered = signals.wait_or(order(&mut clients, token.as_ref()));
    ordered.unwrap_or(Exit::CouldNotRun)
}

/// Which address was asked in vain, why, and what to do.
pub(super) fn cannot_ask(admin: &str, failure: impl Display) -> String {
    format!(
        "{admin} does not answer as an admin server: {failure}; check the address: `staterouter \
         serve` prints it as \"admin on\", and the main file has it as admin.listen"
    )
}

/// The text of an answer of which no other form is known, for a message.
pub(super) fn refusal(answer: &AdminAnswer) -> String {
    const MAX_CHARS: usize = 300;
    let text = String::from_utf8_lossy(&answer.body);
    let shown = text.trim().chars().take(MAX_CHARS);
    let shown: String = shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("it answered {}: {shown}", answer.status)
}

/// The body of an answer with status 200.
pub(super) fn body_of(answer: Result<AdminAnswer, AdminError>) -> Result<Vec<u8>, String> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(refusal(&answer)),
        Err(error) => Err(error.to_string()),
    }
}
