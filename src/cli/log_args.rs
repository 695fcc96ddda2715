//! Log options of the commands that have no configuration file.

use clap::ValueEnum;

use crate::config::{LogConfig, LogFormat, LogLevel};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// Least severe log lines shown
    #[arg(long, value_enum, default_value = "info")]
    log_level: Level,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl LogArgs {
    pub(super) fn config(&self) -> LogConfig {
        LogConfig {
            level: match self.log_level {
                Level::Error => LogLevel::Error,
                Level::Warn => LogLevel::Warn,
                Level::Info => LogLevel::Info,
                Level::Debug => LogLevel::Debug,
                Level::Trace => LogLevel::Trace,
            },
            format: match self.log_format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            },
        }
    }
}
