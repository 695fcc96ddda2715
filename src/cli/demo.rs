//! `staterouter demo`.

mod story;

use std::fmt::Write;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use story::Story;

use super::log_args::LogArgs;
use super::{Exit, output};
use crate::app::demo::{self, Demo, Pace};
use crate::app::signals::StopSignals;
use crate::farm::{self, FarmCounts, FarmOptions, FarmReport, FarmStats, RunEnd, Stop};
use crate::log;

/// How often the summary line is renewed on a terminal.
const LIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Without a terminal: one summary line per this many intervals.
const PLAIN_LINE_EVERY: u32 = 5;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Where the proxy listens; another port if this one is taken
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:42424")]
    listen: SocketAddr,
    /// Change nothing while the farm runs
    #[arg(long)]
    steady: bool,
    /// End by itself after this many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Pages per second of the web farm
    #[arg(long, value_name = "N", default_value_t = 300.0)]
    rate: f64,
    /// Users of the web farm
    #[arg(long, value_name = "N", default_value_t = 500)]
    sessions: usize,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(args: &DemoArgs) -> Exit {
    let _log = log::init(args.log.config());
    if !args.listen.ip().to_canonical().is_loopback() {
        let _ =
            output::could_not_run("the demo stays on this machine: --listen takes loopback only");
        return Exit::Usage;
    }
    if let Err(error) = args.farm_options(args.listen).check() {
        let _ = output::could_not_run(error);
        return Exit::Usage;
    }
    let mut signals = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => return output::could_not_run(error),
    };
    let pace = match args.steady {
        true => Pace::Steady,
        false => Pace::Story,
    };
    let mut demo = match demo::start(args.listen, pace) {
        Ok(demo) => demo,
        Err(error) => return output::could_not_run(error),
    };
    introduce(args, &demo);
    let exit = browse(args, &mut demo, &mut signals);
    signals.stop(|| demo.stop());
    exit
}

impl DemoArgs {
    fn farm_options(&self, proxy: SocketAddr) -> FarmOptions {
        FarmOptions {
            targets: vec![proxy],
            clients: 32,
            sessions: self.sessions,
            end: self.seconds.map_or(RunEnd::WhenStopped, |s| {
                RunEnd::After(Duration::from_secs(s))
            }),
            pages_per_s: Some(self.rate),
            timeout_minutes: demo::SESSION_MINUTES,
            ..FarmOptions::default()
        }
    }
}

fn introduce(args: &DemoArgs, demo: &Demo) {
    let wanted = args.listen;
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "staterouter".to_owned());
    let proxy = demo.proxy.address;
    let mut text = format!(
        "Three state servers, the proxy and a small web farm, all on this machine.\n\n  \
         proxy    {proxy}   where the web farm sends everything\n"
    );
    for server in &demo.servers {
        let _ = writeln!(text, "  {}  {}", server.name, server.address);
    }
    if let Some(admin) = demo.proxy.admin() {
        let _ = writeln!(text, "  admin    {admin}   see it all on http://{admin}/");
    }
    if wanted.port() != 0 && wanted != proxy {
        let _ = writeln!(text, "\n{wanted} is taken, so the proxy has another port.");
    }
    if !args.steady {
        text += "\nIn the next two minutes a server is added, one leaves, and one goes down for a \
                 moment.\nWatch the counts of wrong answers and failed requests.\n";
    }
    let _ = write!(
        text,
        "\nTry in another terminal:\n  \
         {program} bench --target {proxy}\n      \
         more load; every lost, stale or mixed-up session is counted\n  \
         {program} bench --target {proxy} --clients 300 --sessions 10 --poll-interval 20ms\n      \
         300 browsers fight for the locks of ten sessions\n\nCtrl-C ends the demo.\n"
    );
    output::line(text);
}

/// Lets the farm run until its time is over or a signal comes.
fn browse(args: &DemoArgs, demo: &mut Demo, signals: &mut StopSignals) -> Exit {
    let options = args.farm_options(demo.proxy.address);
    let (stop, stats) = (Stop::default(), Arc::new(FarmStats::default()));
    let farm = {
        let (stop, stats) = (stop.clone(), Arc::clone(&stats));
        thread::spawn(move || farm::run(options, &stop, &stats))
    };
    let mut live = LiveLine::new();
    let mut story = (!args.steady).then(Story::new);
    let begun = Instant::now();
    while !farm.is_finished() {
        if signals
            .wait_or(async { tokio::time::sleep(LIVE_INTERVAL).await })
            .is_none()
        {
            stop.stop();
            break;
        }
        let told = story
            .as_mut()
            .map(|story| story.advance(demo, begun.elapsed()));
        match told.transpose() {
            Ok(says) => says.flatten().into_iter().for_each(|says| live.tell(&says)),
            Err(error) => {
                stop.stop();
                // What it was doing is not what the story says any more.
                let _ = farm.join();
                return output::could_not_run(error);
            }
        }
        live.show(demo, stats.counts());
    }
    live.clear();
    match farm.join() {
        Ok(Ok(report)) => conclude(demo, &report),
        Ok(Err(error)) => output::could_not_run(error),
        Err(_panic) => output::could_not_run("the web farm ended unexpectedly"),
    }
}

fn conclude(demo: &Demo, report: &FarmReport) -> Exit {
    let wrong: u64 = report
        .violations
        .values()
        .map(|finding| finding.count)
        .sum();
    output::line(format_args!(
        "{} pages, {} requests, median page {:.1} ms, 99 of 100 within {:.1} ms",
        report.pages,
        report.operations,
        report.page_latency.p50_us as f64 / 1000.0,
        report.page_latency.p99_us as f64 / 1000.0
    ));
    output::line(format_args!("sessions: {}", sessions(demo)));
    for (kind, finding) in &report.violations {
        if finding.count > 0 {
            output::line(format_args!("{kind}: {}", finding.count));
        }
    }
    let failures: u64 = report.failures.values().sum();
    output::line(format_args!(
        "{wrong} wrong answers, {failures} failed requests"
    ));
    if report.is_clean() {
        Exit::Fine
    } else {
        Exit::Finding
    }
}

/// How many sessions live where.
fn sessions(demo: &Demo) -> String {
    let server = |server: &demo::DemoServer| match server.stats() {
        Some(stats) => format!("{} {}", server.name, stats.items),
        None => format!("{} down", server.name),
    };
    demo.servers
        .iter()
        .map(server)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The one line that says how it goes.
struct LiveLine {
    bar: ProgressBar,
    is_terminal: bool,
    shown: u32,
    last: (Instant, FarmCounts),
}

impl LiveLine {
    fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            is_terminal,
            shown: 0,
            last: (Instant::now(), FarmCounts::default()),
        }
    }

    /// Says what is done next, above the line.
    fn tell(&self, says: &str) {
        self.bar.suspend(|| output::line(format_args!("\n{says}")));
    }

    fn show(&mut self, demo: &Demo, counts: FarmCounts) {
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), counts));
        let seconds = since.elapsed().as_secs_f64();
        let per_second = |now: u64, before: u64| ((now - before) as f64 / seconds).round();
        let line = format!(
            "{} pages/s  {} requests/s  {} wrong answers  {} failed  sessions: {}",
            per_second(counts.pages, before.pages),
            per_second(counts.operations, before.operations),
            counts.violations,
            counts.failures,
            sessions(demo)
        );
        self.shown += 1;
        if self.is_terminal {
            self.bar.set_message(line);
            self.bar.tick();
        } else if self.shown % PLAIN_LINE_EVERY == 1 {
            output::line(line);
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
