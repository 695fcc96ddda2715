//! `staterouter backend`: another state for one backend than the partition map gives it.

use serde::Deserialize;

use super::admins::{AdminArgs, TokenArgs, cannot_ask, give_order, refusal};
use super::plan;
use super::{Exit, output};
use crate::admin::client::AdminClient;
use crate::config::{self, AdminToken};
use crate::control::report::plan::{PlanReport, PlanResult};

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
    /// Order it although users lose sessions by it or may be refused
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Show what it would do and whether every proxy would take it, and order nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the other proxies of the farm. Say so only of proxies that serve nobody: one
    /// that goes on serving a backend that this one gives up serves outdated sessions
    #[arg(long)]
    only_here: bool,
    /// With activate: its server holds nothing from before it was given up, because it was started
    /// anew and empty, or is another one. It gets sessions at once. If that is not so, users get
    /// outdated sessions
    #[arg(long)]
    fresh: bool,
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

/// What a proxy is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To answer whether it would take the order, from us and as the pool is now.
    Check,
    /// To follow it.
    Give,
}

/// What all proxies together say that an order would do.
#[derive(Debug, Default)]
struct Planned {
    /// For people.
    lines: Vec<String>,
    /// Users would notice it, or would if one more server failed.
    is_dangerous: bool,
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
    if args.fresh && !matches!(args.state, State::Activate) {
        let _ = output::could_not_run("--fresh goes with activate");
        return Exit::Usage;
    }
    give_order(&args.admins, &args.token, async |clients, token| {
        order(args, clients, token).await
    })
}

/// Gives the order to all proxies that were named, or to none if one of them would not take it. Their
/// peers take it over from them.
async fn order(
    args: &BackendArgs,
    clients: &mut [AdminClient],
    token: Option<&AdminToken>,
) -> Exit {
    let planned = match plan_by_all(args, clients).await {
        Ok(planned) => planned,
        Err(problem) => return output::could_not_run(problem + Step::Check.so_far()),
    };
    let checked = tell_all(args, token, clients, Step::Check).await;
    if checked != Exit::Fine {
        return checked;
    }
    planned.lines.iter().for_each(output::line);
    if args.dry_run {
        output::line("dry run: every proxy would take it, nothing was ordered");
        return Exit::Fine;
    }
    if planned.is_dangerous && !args.yes {
        output::line("nothing was ordered: see the warnings, and add --yes if it is meant");
        return Exit::Finding;
    }
    let given = tell_all(args, token, clients, Step::Give).await;
    if given != Exit::Fine && clients.len() > 1 {
        output::line("note: not every proxy has the order; give it again");
    }
    given
}

/// What the order would do by the first proxy, and what others warn of besides.
async fn plan_by_all(args: &BackendArgs, clients: &mut [AdminClient]) -> Result<Planned, String> {
    let what = format!("{} {}", args.name, args.state.word());
    let mut planned = Planned::default();
    let mut known = Vec::new();
    for client in clients {
        let plan = plan_by(args, client).await?;
        // Why it is refused, or that there is nothing to do, is said with the order itself.
        if plan.result != PlanResult::Accepted {
            continue;
        }
        planned.is_dangerous |= plan.is_dangerous;
        if planned.lines.is_empty() {
            planned.lines = plan::details(&what, &plan);
        } else {
            let more = plan.warnings.iter();
            let more = more.filter(|warning| !known.contains(*warning));
            let line = |warning| format!("warning of {}: {warning}", client.address());
            planned.lines.extend(more.map(line));
        }
        known.extend(plan.warnings);
    }
    if args.fresh {
        planned.is_dangerous = true;
        planned.lines.push(format!(
            "warning: {} is taken to hold nothing from before it was given up: what it still holds \
             would reach users as outdated sessions",
            args.name
        ));
    }
    Ok(planned)
}

async fn plan_by(args: &BackendArgs, client: &mut AdminClient) -> Result<PlanReport, String> {
    let share = args.accept_moved_share;
    let share = share.map(|percent| format!("&accept_moved_share={percent}"));
    let (name, word, share) = (&args.name, args.state.word(), share.unwrap_or_default());
    let path = format!("/plan?backend={name}&state={word}{share}");
    let answer = client.get(&path).await;
    let answer = answer.map_err(|error| cannot_ask(client.address(), error))?;
    match serde_json::from_slice(&answer.body) {
        Ok(plan) if matches!(answer.status, 200 | 422) => Ok(plan),
        _ => Err(cannot_ask(client.address(), refusal(&answer))),
    }
}

/// Tells one proxy after the other, and shows what there is to say.
async fn tell_all(
    args: &BackendArgs,
    token: Option<&AdminToken>,
    clients: &mut [AdminClient],
    step: Step,
) -> Exit {
    let mut exit = Exit::Fine;
    for client in clients {
        let told = tell(args, token, client, step).await;
        match told {
            Ok(outcome) => {
                let is_refused = outcome.reason.is_some();
                if is_refused || step == Step::Give {
                    let text = describe(args, client.address(), &outcome);
                    output::line(text + step.so_far());
                }
                if is_refused && exit == Exit::Fine {
                    exit = Exit::Finding;
                }
            }
            Err(problem) => {
                let (admin, so_far) = (client.address(), step.so_far());
                exit = output::could_not_run(format_args!("{admin}: {problem}{so_far}"));
            }
        }
    }
    exit
}

async fn tell(
    args: &BackendArgs,
    token: Option<&AdminToken>,
    client: &mut AdminClient,
    step: Step,
) -> Result<Outcome, String> {
    let share = args.accept_moved_share;
    let share = share.map(|percent| format!("accept_moved_share={percent}"));
    let dry_run = (step == Step::Check).then(|| "dry_run=true".to_owned());
    let only_here = args.only_here.then(|| "only_here=true".to_owned());
    let fresh = args.fresh.then(|| "fresh=true".to_owned());
    let query = [share, dry_run, only_here, fresh].into_iter().flatten();
    let query: Vec<_> = query.collect();
    let query = query.join("&");
    let path = format!("/backends/{}/{}?{query}", args.name, args.state.word());
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

impl Step {
    /// What a failure in this step means, behind the failure itself.
    fn so_far(self) -> &'static str {
        match self {
            Self::Check => "; nothing was ordered",
            Self::Give => "",
        }
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
