//! Log output: one line per event on stderr, text or JSON, and a limit for lines that a peer can
//! provoke. Session ids never appear in full: a fingerprint stands for them.

use std::cell::Cell;
use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Lines per second and limit that get through; the rest is counted.
const LINES_PER_SECOND: u32 = 10;

/// Directs all log lines of the program to stderr. A second call changes nothing.
pub fn init(config: LogConfig) {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Only a test process that starts two servers can have set a logger before.
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
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
