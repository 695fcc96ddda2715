//! `staterouter conformance`: does a state server do what docs/protocol.md says?

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::bench::{stop_on_signal, target};
use super::tls_args::TlsArgs;
use super::{Exit, human, output};
use crate::app::signals::StopSignals;
use crate::config::{self, AllowList, BackendHost, Network};
use crate::conformance::{
    self, CaptureOptions, CheckReport, ConformanceError, ConformanceOptions, ConformanceReport,
    SuiteStop, Verdict,
};

/// Arguments of `staterouter conformance`.
#[derive(Debug, clap::Args)]
pub(super) struct ConformanceArgs {
    /// The state server, or a proxy in front of several
    #[arg(long, value_name = "ADDR", value_parser = target)]
    target: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Ask as well what takes minutes, and what no web server sends: for a server without users
    #[arg(long, conflicts_with = "capture")]
    thorough: bool,
    /// Only the check with this name, such as vector-7; may be given several times
    #[arg(long, value_name = "CHECK", conflicts_with = "capture")]
    only: Vec<String>,
    /// Most requests per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long an answer is waited for
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::parse_duration)]
    answer_timeout: Duration,
    /// Print the report as JSON
    #[arg(long, conflicts_with = "capture")]
    json: bool,
    /// Ask nothing: relay a farm to the target, and write down what they say to each other, without
    /// session ids and contents
    #[arg(long, value_name = "FILE", conflicts_with = "tls_ca")]
    capture: Option<PathBuf>,
    /// Where the farm connects for a capture
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:42425")]
    listen: SocketAddr,
    /// Address or network that may connect for a capture, besides this machine; may be given several
    /// times
    #[arg(long, value_name = "CIDR", value_parser = config::parse_network)]
    allow: Vec<Network>,
    /// Most lines of a capture; the relay goes on without
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_lines: u64,
}

pub(super) fn run(args: &ConformanceArgs) -> Exit {
    if let Some(file) = &args.capture {
        return capture(args, file.clone());
    }
    let tls = match args.tls.trust() {
        Ok(trust) => trust.and_then(|trust| trust.target(&BackendHost::Ip(args.target.ip()))),
        Err(problem) => return output::could_not_run(problem),
    };
    let options = ConformanceOptions {
        target: args.target,
        tls,
        rate_per_s: args.rate,
        answer_timeout: args.answer_timeout,
        thorough: args.thorough,
        only: args.only.clone(),
        stop: SuiteStop::default(),
    };
    let stop = options.stop.clone();
    stop_on_signal(move || stop.stop());
    let is_watched = io::stderr().is_terminal();
    let mut told = |check: &CheckReport| {
        if is_watched {
            let _ = write!(io::stderr(), "\r\x1b[K{} {}", check.section, check.id);
        }
    };
    let report = conformance::run(&options, &mut told);
    if is_watched {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    match report {
        Ok(report) => conclude(args, &report),
        Err(error @ ConformanceError::NoSuchCheck(_)) => {
            let _ = output::could_not_run(error);
            Exit::Usage
        }
        Err(error) => output::could_not_run(error),
    }
}

fn conclude(args: &ConformanceArgs, report: &ConformanceReport) -> Exit {
    match args.json {
        true => match serde_json::to_string_pretty(report) {
            Ok(text) => output::line(text),
            Err(error) => return output::could_not_run(error),
        },
        false => show(report),
    }
    let is_told = report.count(Verdict::NotTold) == 0;
    match report.count(Verdict::Differs) {
        0 if report.stopped => Exit::CouldNotRun,
        0 if is_told && report.left_behind == 0 => Exit::Fine,
        _ => Exit::Finding,
    }
}

fn show(report: &ConformanceReport) {
    output::line(format_args!(
        "{}: {} with {} requests",
        report.target,
        human::count(report.checks.len(), "check", "checks"),
        report.requests
    ));
    output::line("");
    output::line("by section of docs/protocol.md");
    for (section, (fine, all)) in by_section(report) {
        output::line(format_args!("  {section:<4} {fine} of {all} as described"));
    }
    list(report, Verdict::Differs, "what differs");
    if !report.spelling.is_empty() {
        output::line("");
        output::line("what is spelled otherwise, and makes no difference to ASP.NET and the proxy");
        for seen in &report.spelling {
            let answers = human::count(seen.answers as usize, "answer", "answers");
            let first = &seen.first;
            output::line(format_args!("  {}: {answers}, first in {first}", seen.text));
        }
    }
    list(
        report,
        Verdict::Observed,
        "open questions, and what this server does",
    );
    list(report, Verdict::NotTold, "what could not be told");
    output::line("");
    match report.left_behind {
        0 => output::line("everything that was stored is removed again"),
        items => output::line(format_args!(
            "{} could not be removed; what is left ends by itself within 45 minutes",
            human::count(items, "item", "items")
        )),
    }
    if report.stopped {
        output::line("stopped before the end");
    }
    output::line(match report.count(Verdict::Differs) {
        0 => "no difference that users or the proxy notice".to_owned(),
        count => human::count(count, "check differs", "checks differ"),
    });
}

/// How many checks of each section found what is described, and of how many that could tell.
fn by_section(report: &ConformanceReport) -> BTreeMap<Section, (usize, usize)> {
    let mut sections = BTreeMap::new();
    for check in &report.checks {
        let (fine, all) = sections.entry(Section::of(check.section)).or_insert((0, 0));
        if check.verdict != Verdict::Observed {
            let is_fine = matches!(
                check.verdict,
                Verdict::AsDescribed | Verdict::SpelledOtherwise
            );
            *fine += usize::from(is_fine);
            *all += 1;
        }
    }
    sections.retain(|_, (_, all)| *all > 0);
    sections
}

/// A section number, in the order of numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Section(Vec<u32>);

impl Section {
    fn of(text: &str) -> Self {
        Self(
            text.split('.')
                .filter_map(|part| part.parse().ok())
                .collect(),
        )
    }
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&parts.join("."))
    }
}

fn list(report: &ConformanceReport, verdict: Verdict, title: &str) {
    let mut checks = report.checks.iter();
    let mut checks = checks
        .by_ref()
        .filter(|check| check.verdict == verdict)
        .peekable();
    if checks.peek().is_none() {
        return;
    }
    output::line("");
    output::line(title);
    for check in checks {
        output::line(format_args!(
            "  {} ({}) {}",
            check.id, check.section, check.name
        ));
        for finding in &check.findings {
            output::line(format_args!("      {finding}"));
        }
    }
}

fn capture(args: &ConformanceArgs, file: PathBuf) -> Exit {
    let allow = AllowList::new(args.allow.clone());
    if !args.listen.ip().to_canonical().is_loopback() && allow.is_loopback_only() {
        return output::could_not_run(
            "listening beyond this machine needs --allow: whoever can store a session through the relay \
             can run code on the web servers",
        );
    }
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let started = conformance::capture(&CaptureOptions {
        listen: args.listen,
        target: args.target,
        allow,
        file: file.clone(),
        max_lines: args.max_lines,
    });
    let capture = match started {
        Ok(capture) => capture,
        Err(error) => return output::could_not_run(error),
    };
    output::line(format_args!("listening on {}", capture.address));
    output::line(format_args!(
        "relaying to {} and writing to {} until Ctrl-C",
        args.target,
        file.display()
    ));
    if let Some(Err(error)) = signals.wait_or(capture.relay()) {
        return output::could_not_run(error);
    }
    match capture.finish() {
        Ok(counts) => {
            let left_out = match counts.left_out {
                0 => String::new(),
                left_out => format!("; {left_out} more were left out"),
            };
            output::line(format_args!("{} lines written{left_out}", counts.lines));
            Exit::Fine
        }
        Err(error) => output::could_not_run(error),
    }
}
