//! Limits of the process.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::Socket;

/// Whether the kernel spreads the connections of one port over several listeners.
pub const SHARES_PORTS: bool = true;

/// Lets further listeners of this process share the port.
///
/// # Errors
/// What the system says, here and below.
pub fn share_port(listener: &Socket) -> io::Result<()> {
    listener.set_reuse_port(true)
}

/// Lets a restart have the port before the last connections have left `TIME_WAIT`.
pub fn outlive_time_wait(listener: &Socket) -> io::Result<()> {
    listener.set_reuse_address(true)
}

/// Raises the limit on open files as far as the system lets us. The limit in force afterwards;
/// `wanted` stands for "no limit".
#[must_use]
pub fn raise_open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(wanted);
    let possible = limit.maximum.unwrap_or(wanted).max(current);
    let raised = Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => possible,
        Err(_) => current,
    }
}

/// Whether a socket could not be had or used because this machine or process has none left: no port,
/// open file, buffer or memory. It says nothing about the peer.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        matches!(
            errno,
            Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM
        )
    })
}
