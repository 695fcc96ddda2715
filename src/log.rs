//! Log output: one line per event on stderr, text or JSON, and a limit for lines that a peer can
//! provoke. Session ids never appear in full: a fingerprint stands for them.

mod queue;

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use self::queue::LineQueue;
use crate::config::{LogConfig, LogFormat, LogLevel};

/// Lines per second and limit that get through; the rest is counted.
const LINES_PER_SECOND: u32 = 10;

/// Lines that wait for a slow reader of stderr; those beyond are lost and counted.
const MAX_QUEUED_LINES: usize = 4096;

/// Days of log that are kept where it goes to files.
const MAX_LOG_FILES: usize = 14;

/// How long the end of the program may wait for stderr to take the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Directs all log lines of the program to stderr; the caller keeps the guard to its end. Of two
/// calls in one process the second changes nothing.
///
/// Logging never waits for stderr and never fails: a thread of its own writes the lines. Those
/// that stderr does not take in time, or not at all, are lost.
pub fn init(config: LogConfig) -> LogGuard {
    let (filter, filter_handle) = reload::Layer::new(filter_of(config.level));
    let (out, is_terminal) = output();
    let guard = LogGuard {
        level: LevelHandle(filter_handle),
        lines: LineQueue::start(out, MAX_QUEUED_LINES),
    };
    let lines = fmt::layer()
        .with_writer(guard.lines.clone())
        .with_ansi(is_terminal)
        .with_target(false);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Only a test process that starts two servers can have set a logger before.
    let is_first = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok();
    if is_first && config.format == LogFormat::Json {
        // Whoever reads the lines by machine can read all of them.
        panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    guard
}

/// A folder, and how its files are called.
static FILES: OnceLock<(PathBuf, String)> = OnceLock::new();

/// Directs the log lines to files in `folder`, one a day, in place of stderr: a service has none.
/// To be called before [`init`].
pub fn write_to(folder: PathBuf, name: &str) {
    // Of two names the first counts: a process is one service.
    let _ = FILES.set((folder, name.to_owned()));
}

/// Where the lines go, and whether somebody watches them. What no file can be had for goes to
/// stderr.
fn output() -> (Box<dyn Write + Send>, bool) {
    let files = FILES.get().and_then(|(folder, name)| {
        RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix(name)
            .filename_suffix("log")
            .max_log_files(MAX_LOG_FILES)
            .build(folder)
            .ok()
    });
    match files {
        Some(files) => (Box::new(files), false),
        None => (Box::new(io::stderr()), io::stderr().is_terminal()),
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Changes how important a line must be to be logged.
#[derive(Debug, Clone)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// From now on lines are logged that are at least as important as `level`.
    pub fn set(&self, level: LogLevel) {
        // The filter outlives the handle, unless another logger was set before.
        let _ = self.0.reload(filter_of(level));
    }
}

/// When dropped, waits until the lines logged so far are written, for a second at most.
#[must_use = "the last log lines are lost unless this lives to the end of the command"]
#[derive(Debug)]
pub struct LogGuard {
    level: LevelHandle,
    lines: LineQueue,
}

impl LogGuard {
    /// The way to change the level later.
    pub fn level(&self) -> LevelHandle {
        self.level.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_PATIENCE;
        let lost = self.lines.lost_lines();
        if self.lines.flush(deadline) && lost > 0 {
            tracing::warn!(lost, "log lines were lost: stderr was read too slowly");
            self.lines.flush(deadline);
        }
    }
}

/// Lets a few lines per second through, so that a dead backend or a hostile peer cannot fill the
/// disk. One per worker and kind of line.
#[derive(Debug, Default)]
pub struct LogLimit {
    second: Cell<u64>,
    lines: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    /// Whether a line may be written now; if so, how many were left out since the last one.
    pub fn allow(&self, now_ms: u64) -> Option<u64> {
        if self.second.replace(now_ms / 1000) != now_ms / 1000 {
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_PER_SECOND {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.suppressed.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limit = LogLimit::default();
        let through = (0..100).filter(|_| limit.allow(5_000).is_some()).count();
        assert_eq!(through as u32, LINES_PER_SECOND);
        assert_eq!(limit.allow(6_000), Some(100 - u64::from(LINES_PER_SECOND)));
        assert_eq!(limit.allow(6_001), Some(0));
    }
}
