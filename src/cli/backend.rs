//! `staterouter backend`: another state for one backend than the partition map gives it.

use serde::Deserialize;

use super::admins::{AdminArgs, TokenArgs, refusal};
use super::status::{Asked, ask_all};
use super::{Exit, output};
use crate::admin::client::AdminClient;
use crate::app::signals::StopSignals;
use crate::config::{self, AdminToken};

#[derive(Debug, clap::Args)]
pub(super) struct BackendArgs {
    /// The backend's name in the partition map
    #[arg(value_name = "NAME", value_parser = config::parse_backend_name)]
    name: String,
    /// The state it is to have; the one that the map says takes an override away
    #[arg(value_enum)]
    state: State,
    #[command(flatten)]
    admins: AdminArgs,
    #[command(flatten)]
    token: TokenArgs,
    /// Percent of the sessions that this may move, if that is more than handover.max_moved_share
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    accept_moved_share: Option<u8>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    /// Its sessions move away over one session lifetime
    Drain,
    /// It serves its share
    Activate,
    /// It is given up at once, with what it holds
    Off,
}

/// What a proxy has answered, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Outcome {
    result: String,
    #[serde(rename = "override")]
    is_override: bool,
    moved_slots: usize,
    reason: Option<String>,
}

pub(super) fn run(args: &BackendArgs) -> Exit {
    let token = match args.token.token() {
        Ok(token) => token,
        Err(problem) => return output::could_not_run(problem),
    };
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let ordered = signals.wait_or(order(args, token.as_ref()));
    ordered.unwrap_or(Exit::CouldNotRun)
}

/// Gives the order to all proxies, or to none if one of them does not answer: an order that only
/// some follow is worse than none.
async fn order(args: &BackendArgs, token: Option<&AdminToken>) -> Exit {
    let mut clients = args.admins.clients();
    let asked = ask_all(&mut clients).await;
    for proxy in &asked {
        if let Err(failure) = &proxy.report {
            let admin = &proxy.admin;
            return output::could_not_run(format_args!(
                "{admin} cannot be asked, so nothing was ordered: {failure}"
            ));
        }
    }
    let mut exit = Exit::Fine;
    for client in &mut clients {
        let told = tell(args, token, client).await;
        match told {
            Ok(outcome) => {
                output::line(describe(args, client.address(), &outcome));
                if outcome.reason.is_some() && exit == Exit::Fine {
                    exit = Exit::Finding;
                }
            }
            Err(problem) => {
                exit = output::could_not_run(format_args!("{}: {problem}", client.address()));
            }
        }
    }
    remind_of_peers(&asked);
    exit
}

async fn tell(
    args: &BackendArgs,
    token: Option<&AdminToken>,
    client: &mut AdminClient,
) -> Result<Outcome, String> {
    let share = args.accept_moved_share;
    let query = share.map_or(String::new(), |percent| {
        format!("?accept_moved_share={percent}")
    });
    let path = format!("/backends/{}/{}{query}", args.name, args.state.word());
    let answer = client.post(&path, token, Vec::new()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match serde_json::from_slice(&answer.body) {
        Ok(outcome) if matches!(answer.status, 200 | 422) => Ok(outcome),
        _ => Err(refusal(&answer)),
    }
}

fn describe(args: &BackendArgs, admin: &str, outcome: &Outcome) -> String {
    let (name, word) = (&args.name, args.state.word());
    let by = match outcome.is_override {
        true => "overrides the map",
        false => "as the map says",
    };
    match (&outcome.reason, outcome.result.as_str()) {
        (Some(reason), _) => format!("{admin}: {name} {word} refused: {reason}"),
        (None, "unchanged") => format!("{admin}: {name} {word}: nothing to change, {by}"),
        (None, _) => {
            let slots = outcome.moved_slots;
            format!("{admin}: {name} {word}: in force, {by}; slots that move: {slots}")
        }
    }
}

/// An order is for one proxy, and the farm may have more of them.
fn remind_of_peers(asked: &[Asked]) {
    let peers = asked.iter().filter_map(Asked::report);
    let farm = peers
        .map(|report| report.peers.len() + 1)
        .max()
        .unwrap_or(1);
    if farm > asked.len() {
        output::line(format_args!(
            "note: the farm has {farm} proxies; give the order to each (--admin once for each): the \
             others go by the map until they have it"
        ));
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Activate => "activate",
            Self::Off => "off",
        }
    }
}
