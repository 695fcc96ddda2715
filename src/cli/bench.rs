//! `staterouter bench`: a simulated web farm against a running proxy or state server.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, output};
use crate::app::signals::StopSignals;
use crate::config;
use crate::farm::{
    self, BodySize, FarmError, FarmOptions, FarmReport, FarmStats, Latency, PageMix, RunEnd, Stop,
};

/// Arguments of `staterouter bench`.
#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    /// Where to send requests; give it several times to alternate between proxies
    #[arg(
        long = "target",
        value_name = "ADDR",
        default_value = "127.0.0.1:42424",
        value_parser = target
    )]
    targets: Vec<SocketAddr>,
    /// Web requests in progress at the same time
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Users, and so sessions, at the same time; with many clients and few sessions they fight
    /// for locks
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// How long to run, for example 30s or 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::parse_duration)]
    duration: Duration,
    /// How many pages to run, instead of a time
    #[arg(long, conflicts_with = "duration")]
    pages: Option<u64>,
    /// Pages per second, whether or not earlier ones are done; without it every client begins a
    /// page when its last one is done
    #[arg(long, value_name = "PAGES_PER_S")]
    rate: Option<f64>,
    /// Size of session bodies in bytes, or a range such as 512..20480
    #[arg(long, value_name = "BYTES", default_value = "2048")]
    body: BodySize,
    /// Timeout of the sessions in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 20)]
    timeout_minutes: u32,
    /// Repeat the choices of the run with this seed; left out, every run is another one
    #[arg(long)]
    seed: Option<u64>,
    /// Shares of the kinds of pages
    #[arg(
        long,
        value_name = "SHARES",
        default_value = "change=55,keep=15,read=20,touch=7,abandon=3",
        value_parser = page_mix
    )]
    mix: PageMix,
    /// Percentage of the users with an abandoned session who come back without a cookie
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    cookieless: u32,
    /// How long a page holds its lock besides the requests it makes
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = config::parse_duration)]
    hold: Duration,
    /// Pause between two requests for a locked session
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = config::parse_duration)]
    poll_interval: Duration,
    /// Age at which a waiting page breaks a lock
    #[arg(long, value_name = "TIME", default_value = "110s", value_parser = config::parse_duration)]
    execution_timeout: Duration,
    /// Longest time for one request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::parse_duration)]
    network_timeout: Duration,
    /// Threads, each with a connection pool of its own
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Threads on which each web server (one for each of --threads) runs its pages at first; it gets
    /// one more every half second while pages wait for one, as ASP.NET does. Left out, no page waits
    /// for a thread
    #[arg(long, value_name = "THREADS")]
    web_threads: Option<usize>,
    /// So many pages in a row are for the same session; with --rate they come at once
    #[arg(long, value_name = "PAGES", default_value_t = 1)]
    burst: usize,
    /// Do not read every session once more at the end
    #[arg(long)]
    no_sweep: bool,
    /// Sessions will be lost, as when a state server is stopped: count them, and exit 0 if nothing
    /// else is wrong
    #[arg(long)]
    expect_loss: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How often there is a line in its place where nobody could see it move.
const PROGRESS_LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the farm until its end or Ctrl-C; report on stdout, errors and progress on stderr.
pub(super) fn run(args: &BenchArgs) -> Exit {
    let stop = Stop::default();
    let stopping = stop.clone();
    stop_on_signal(move || stopping.stop());
    let stats = Arc::new(FarmStats::default());
    let report = match run_with_progress(args.options(), &stop, &stats) {
        Ok(report) => report,
        Err(error) => {
            let wrong_usage = matches!(error, FarmError::Options(_));
            let exit = output::could_not_run(error);
            return if wrong_usage { Exit::Usage } else { exit };
        }
    };
    let mut out = io::stdout().lock();
    output::printed(if args.json {
        print_json(&mut out, &report)
    } else {
        print_table(&mut out, &report, args.expect_loss)
    });
    if report.is_clean() || (args.expect_loss && report.is_clean_but_for_losses()) {
        Exit::Fine
    } else {
        Exit::Finding
    }
}

impl BenchArgs {
    fn options(&self) -> FarmOptions {
        FarmOptions {
            targets: self.targets.clone(),
            clients: self.clients,
            sessions: self.sessions,
            end: match self.pages {
                Some(pages) => RunEnd::Pages(pages),
                None => RunEnd::After(self.duration),
            },
            pages_per_s: self.rate,
            body: self.body,
            timeout_minutes: self.timeout_minutes,
            seed: self.seed,
            mix: PageMix {
                cookieless_return_percent: self.cookieless,
                ..self.mix
            },
            hold: self.hold,
            poll_interval: self.poll_interval,
            execution_timeout: self.execution_timeout,
            network_timeout: self.network_timeout,
            threads: self.threads,
            web_threads: self.web_threads,
            burst: self.burst,
            final_sweep: !self.no_sweep,
        }
    }
}

fn run_with_progress(
    options: FarmOptions,
    stop: &Stop,
    stats: &Arc<FarmStats>,
) -> Result<FarmReport, FarmError> {
    let end = options.end;
    let bar = progress_bar(end);
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut told = Instant::now();
            // Ends when the sender is dropped.
            while is_done.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let counts = stats.counts();
                bar.set_position(match end {
                    RunEnd::Pages(_) => counts.pages,
                    _ => bar.elapsed().as_millis() as u64,
                });
                let so_far = format!(
                    "{} pages, {} wrong answers, {} failures",
                    counts.pages, counts.violations, counts.failures
                );
                if bar.is_hidden() && told.elapsed() >= PROGRESS_LINE_INTERVAL {
                    told = Instant::now();
                    let seconds = bar.elapsed().as_secs();
                    let _ = writeln!(io::stderr().lock(), "{seconds} s: {so_far}");
                }
                bar.set_message(so_far);
            }
            bar.finish_and_clear();
        });
        let report = farm::run(options, stop, stats);
        drop(done);
        report
    })
}

/// A bar that draws itself only when stderr is a terminal, and is hidden otherwise.
fn progress_bar(end: RunEnd) -> ProgressBar {
    let length = match end {
        RunEnd::Pages(pages) => Some(pages),
        RunEnd::After(duration) => Some(duration.as_millis() as u64),
        RunEnd::WhenStopped => None,
    };
    let bar = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {wide_bar} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// SIGTERM and Ctrl-C end the run with its report. Without a thread or a handler they just end the
/// process.
pub(super) fn stop_on_signal(stop: impl FnOnce() + Send + 'static) {
    let wait = move || {
        if let Ok(mut signals) = StopSignals::new() {
            signals.wait();
            stop();
        }
    };
    let _ = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
}

fn print_json(out: &mut impl Write, report: &FarmReport) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

fn print_table(out: &mut impl Write, report: &FarmReport, expects_loss: bool) -> io::Result<()> {
    writeln!(
        out,
        "{} pages ({} failed) in {:.1} s: {:.0} pages/s, {:.0} requests/s (seed {})",
        report.pages,
        report.failed_pages,
        report.elapsed_ms as f64 / 1000.0,
        report.pages_per_s,
        report.operations_per_s,
        report.seed
    )?;
    if let Some(lag_ms) = report.worst_lag_ms {
        writeln!(out, "at worst {lag_ms} ms behind the rate")?;
    }
    print_latencies(out, report)?;
    writeln!(
        out,
        "\nnew sessions {}, session starts {}, lock waits {}, takeovers {}",
        report.new_sessions, report.session_starts, report.lock_waits, report.takeovers
    )?;
    if let Some(sweep) = report.sweep {
        writeln!(
            out,
            "final sweep: {} sessions read, {} could not be read",
            sweep.read, sweep.unread
        )?;
    }
    print_failures(out, report)?;
    print_violations(out, report, expects_loss)
}

fn print_latencies(out: &mut impl Write, report: &FarmReport) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "us", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    let mut line = |name: &str, latency: &Latency| {
        writeln!(
            out,
            "{name:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            latency.count,
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p99_9_us,
            latency.max_us
        )
    };
    line("page", &report.page_latency)?;
    if report.lock_wait.count > 0 {
        line("contended", &report.contended_page_latency)?;
        line("lock wait", &report.lock_wait)?;
        line("per page", &report.lock_wait_per_page_ahead)?;
        line("lock held", &report.lock_hold)?;
    }
    for (name, latency) in &report.operation_latency {
        line(name, latency)?;
    }
    Ok(())
}

fn print_failures(out: &mut impl Write, report: &FarmReport) -> io::Result<()> {
    if report.failures.is_empty() {
        return writeln!(out, "no failures");
    }
    write!(
        out,
        "failures ({} pages failed, {} unfinished):",
        report.failed_pages, report.unfinished_pages
    )?;
    for (kind, count) in &report.failures {
        write!(out, " {kind} {count}")?;
    }
    writeln!(out)?;
    let (Some(first_ms), Some(last_ms)) = (report.first_failed_page_ms, report.last_failed_page_ms)
    else {
        return Ok(());
    };
    writeln!(
        out,
        "pages failed from {:.1} s to {:.1} s of the run",
        first_ms as f64 / 1000.0,
        last_ms as f64 / 1000.0
    )
}

fn print_violations(
    out: &mut impl Write,
    report: &FarmReport,
    expects_loss: bool,
) -> io::Result<()> {
    if report.is_clean() {
        return writeln!(out, "no wrong answers");
    }
    if expects_loss && report.is_clean_but_for_losses() {
        let lost = report.lost();
        return writeln!(
            out,
            "no wrong answers but for lost sessions, as expected: {lost}"
        );
    }
    writeln!(out, "WRONG ANSWERS:")?;
    for (kind, finding) in &report.violations {
        if finding.count == 0 {
            continue;
        }
        writeln!(out, "  {kind}: {}", finding.count)?;
        for example in &finding.examples {
            writeln!(
                out,
                "    session {} at {:.1} s: expected {}; got {}",
                example.session,
                example.at_ms as f64 / 1000.0,
                example.expected,
                example.got
            )?;
        }
    }
    Ok(())
}

/// Reads `host:port`, with or without the `tcpip=` of a stateConnectionString.
pub(super) fn target(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("tcpip=").unwrap_or(text);
    let resolved = address.to_socket_addrs();
    let first = resolved.ok().and_then(|mut addresses| addresses.next());
    first.ok_or_else(|| "write host and port, such as `127.0.0.1:42424`".to_owned())
}

/// Reads `kind=share,...`; kinds left out have no share.
fn page_mix(text: &str) -> Result<PageMix, String> {
    let mut mix = PageMix {
        change: 0,
        keep: 0,
        read: 0,
        touch: 0,
        abandon: 0,
        ..PageMix::default()
    };
    for part in text.split(',') {
        let (kind, share) = part
            .split_once('=')
            .ok_or("shares look like change=70,read=30")?;
        let place = match kind.trim() {
            "change" => &mut mix.change,
            "keep" => &mut mix.keep,
            "read" => &mut mix.read,
            "touch" => &mut mix.touch,
            "abandon" => &mut mix.abandon,
            _ => return Err("the kinds are change, keep, read, touch, abandon".to_owned()),
        };
        *place = share
            .trim()
            .parse()
            .map_err(|_| "a share is a whole number")?;
    }
    Ok(mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn options(args: &[&str]) -> Result<FarmOptions, clap::Error> {
        let args = ["bench"].iter().chain(args);
        Command::try_parse_from(args).map(|command| command.bench.options())
    }

    #[test]
    fn the_defaults_of_the_command_are_those_of_the_farm() {
        let by_command = options(&[]).unwrap();
        assert_eq!(
            format!("{by_command:?}"),
            format!("{:?}", FarmOptions::default())
        );
    }

    #[test]
    fn arguments_reach_the_options() {
        let args = [
            "--target=127.0.0.1:1",
            "--target=127.0.0.1:2",
            "--pages=9",
            "--mix=change=1,read=2",
            "--cookieless=7",
            "--body=512..600",
            "--hold=20ms",
            "--no-sweep",
        ];
        let options = options(&args).unwrap();
        assert_eq!(options.targets.len(), 2);
        assert_eq!(options.end, RunEnd::Pages(9));
        assert_eq!((options.mix.change, options.mix.read), (1, 2));
        assert_eq!((options.mix.touch, options.mix.abandon), (0, 0));
        assert_eq!(options.mix.cookieless_return_percent, 7);
        assert_eq!(options.body, "512..600".parse().unwrap());
        assert_eq!(options.hold, Duration::from_millis(20));
        assert!(!options.final_sweep);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            "--duration=10",
            "--duration=xs",
            "--duration=99999999999999999999s",
            "--mix=change",
            "--mix=walk=3",
            "--mix=read=x",
            "--body=x",
            "--target=nowhere",
        ] {
            assert!(options(&[wrong]).is_err(), "{wrong}");
        }
    }
}
