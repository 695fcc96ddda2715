//! What commands print.

use std::fmt::Display;
use std::io::Write;

use super::Exit;

/// Prints one line of result. A reader that has gone away is no reason to fail.
pub(super) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints why the command could not run, on one line of stderr.
pub(super) fn could_not_run(reason: impl Display) -> Exit {
    let _ = writeln!(std::io::stderr().lock(), "staterouter: {reason}");
    Exit::CouldNotRun
}
