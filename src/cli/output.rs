//! What commands print.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;

use serde_json::json;

use super::Exit;
use crate::config::LogFormat;

/// Why stdout did not take what was printed.
static REFUSED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints one line of result.
pub(super) fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    printed(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Keeps in mind that stdout did not take a result. A reader that has gone away is no reason to
/// fail.
pub(super) fn printed(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
        && let Ok(mut refused) = REFUSED.lock()
    {
        refused.get_or_insert(error);
    }
}

/// How the command ends: not well if a part of its result is lost.
pub(super) fn end(exit: Exit) -> Exit {
    let refused = REFUSED.lock().ok().and_then(|mut refused| refused.take());
    match refused {
        Some(error) => could_not_run(format_args!("cannot write the result to stdout: {error}")),
        None => exit,
    }
}

/// Prints why the command could not run, on one line of stderr.
pub(super) fn could_not_run(reason: impl Display) -> Exit {
    let _ = writeln!(io::stderr().lock(), "staterouter: {reason}");
    Exit::CouldNotRun
}

/// Where a server says what it has to say besides its log: its stdout and stderr often end in the
/// same journal, so all lines have the format of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerOutput(pub(super) LogFormat);

impl ServerOutput {
    /// Says something to whoever started the server, who may have gone.
    pub(super) fn line(self, text: impl Display) {
        let text = match self.0 {
            LogFormat::Text => text.to_string(),
            LogFormat::Json => {
                json!({"level": "INFO", "fields": {"message": text.to_string()}}).to_string()
            }
        };
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Says why the server does not run. The log is set up.
    pub(super) fn could_not_run(self, reason: impl Display) -> Exit {
        match self.0 {
            LogFormat::Text => could_not_run(reason),
            LogFormat::Json => {
                tracing::error!("{reason}");
                Exit::CouldNotRun
            }
        }
    }
}
