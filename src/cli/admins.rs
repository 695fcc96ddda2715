//! The proxies that a command asks, and the token it shows them.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::{Exit, output};
use crate::admin::client::{AdminAnswer, AdminClient, AdminError};
use crate::app::signals::StopSignals;
use crate::config::{self, AdminToken, BackendAddress};

/// How long a proxy may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Where to ask.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AdminArgs {
    /// Address of the proxy's admin server; give it several times to ask several proxies
    #[arg(
        long = "admin",
        value_name = "ADDR",
        default_value = "127.0.0.1:42480",
        value_parser = config::parse_admin
    )]
    pub(super) admins: Vec<BackendAddress>,
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
    pub(super) fn clients(&self) -> Vec<AdminClient> {
        self.admins.iter().map(client).collect()
    }
}

/// A client for the proxy whose admin server is at `address`.
pub(super) fn client(address: &BackendAddress) -> AdminClient {
    AdminClient::new(address.clone(), ANSWER_LIMIT)
}

impl TokenArgs {
    /// The token, if there is one.
    fn token(&self) -> Result<Option<AdminToken>, String> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let token = AdminToken::read(path);
        token
            .map(Some)
            .map_err(|error| format!("no token in {}: {error}", path.display()))
    }
}

/// Runs `order` with the token, unless that cannot be read, until it is done or the command is
/// stopped.
pub(super) fn give_order(
    args: &TokenArgs,
    order: impl AsyncFnOnce(Option<&AdminToken>) -> Exit,
) -> Exit {
    let token = match args.token() {
        Ok(token) => token,
        Err(problem) => return output::could_not_run(problem),
    };
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let ordered = signals.wait_or(order(token.as_ref()));
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
