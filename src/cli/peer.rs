//! `staterouter peer`: go on without a proxy that is gone.

use serde_json::from_slice;

use super::admins::{AdminArgs, TokenArgs, cannot_ask, give_order, refusal};
use super::{Exit, output};
use crate::admin::client::AdminClient;
use crate::config::{self, AdminToken, BackendAddress};
use crate::control::report::status::{SteerPeerOutcome, SteerResult};

#[derive(Debug, clap::Args)]
pub(super) struct PeerArgs {
    /// The proxy's address as `peers` in the main file of the others has it
    #[arg(value_name = "ADDR", value_parser = config::parse_admin)]
    peer: BackendAddress,
    #[arg(value_enum)]
    order: PeerOrder,
    #[command(flatten)]
    admins: AdminArgs,
    #[command(flatten)]
    token: TokenArgs,
    /// It is so: that proxy runs nowhere and serves nobody
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PeerOrder {
    /// It does not run and cannot be started soon: the others go on without it
    Gone,
}

pub(super) fn run(args: &PeerArgs) -> Exit {
    let PeerOrder::Gone = args.order;
    give_order(&args.admins, &args.token, async |clients, token| {
        order(args, clients, token).await
    })
}

/// Tells all proxies that were named, or none if one of them would not take it.
async fn order(args: &PeerArgs, clients: &mut [AdminClient], token: Option<&AdminToken>) -> Exit {
    let checked = tell_all(args, token, clients, true).await;
    if checked != Exit::Fine {
        return checked;
    }
    if !args.yes {
        let peer = &args.peer;
        output::line(format_args!(
            "the others would wait for {peer} no longer. If it runs all the same, cut off from them, \
             its users get outdated sessions and lose what they store. When it starts again, it takes \
             every session to be where the others have it"
        ));
        output::line("nothing was ordered: add --yes if that proxy runs nowhere");
        return Exit::Finding;
    }
    let told = tell_all(args, token, clients, false).await;
    if told == Exit::Fine {
        output::line(
            "note: a proxy that was not named here still waits for it: name each with --admin",
        );
    }
    told
}

async fn tell_all(
    args: &PeerArgs,
    token: Option<&AdminToken>,
    clients: &mut [AdminClient],
    is_dry_run: bool,
) -> Exit {
    let mut exit = Exit::Fine;
    let so_far = if is_dry_run {
        "; nothing was ordered"
    } else {
        ""
    };
    for client in clients {
        match tell(args, token, client, is_dry_run).await {
            Ok(SteerPeerOutcome {
                result,
                peer,
                reason,
            }) => {
                let admin = client.address();
                match (reason, result) {
                    (Some(reason), _) => {
                        output::line(format_args!("{admin}: refused: {reason}{so_far}"));
                        exit = Exit::Finding;
                    }
                    _ if is_dry_run => {}
                    (None, SteerResult::Unchanged) => {
                        output::line(format_args!("{admin}: goes on without {peer} already"));
                    }
                    (None, _) => output::line(format_args!("{admin}: goes on without {peer}")),
                }
            }
            Err(problem) => exit = output::could_not_run(problem + so_far),
        }
    }
    exit
}

async fn tell(
    args: &PeerArgs,
    token: Option<&AdminToken>,
    client: &mut AdminClient,
    is_dry_run: bool,
) -> Result<SteerPeerOutcome, String> {
    let query = if is_dry_run { "?dry_run=true" } else { "" };
    let path = format!("/peers/{}/gone{query}", args.peer);
    let answer = client.post(&path, token, Vec::new()).await;
    let answer = answer.map_err(|error| cannot_ask(client.address(), error))?;
    match from_slice(&answer.body) {
        Ok(outcome) if matches!(answer.status, 200 | 422) => Ok(outcome),
        _ => Err(format!("{}: {}", client.address(), refusal(&answer))),
    }
}
