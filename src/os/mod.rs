//! What the operating systems do differently; everything else in the program is one code for all.
//!
//! Each system has a folder with the same names in it, and no other module asks which system it
//! runs on, but for `cli`, whose command `service` there is on Windows alone:
//!
//! * `unix`: Linux, which this is written for.
//! * `windows`: files are kept from others by the access list of their folder, and an open lock file
//!   cannot be deleted; there is no shared port, no signal and no limit on open files.

mod regular_file;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub use regular_file::{open_regular, read_regular};
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

use std::io;

/// Fills `bytes` with random ones that nobody can guess.
///
/// # Errors
/// When the system gives none.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}

/// What the program tells the service manager of the system, if that has started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    /// It serves. The line says how it is.
    Ready(&'a str),
    /// It lives, and is as the line says.
    Alive(&'a str),
    /// It reads its files anew, and serves meanwhile.
    Reloading,
    /// It has read them, and is as the line says.
    Reloaded(&'a str),
    /// It ends in good order.
    Stopping,
}
