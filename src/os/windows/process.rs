//! Limits of the process.

use std::io;

use socket2::Socket;

/// Whether the kernel spreads the connections of one port over several listeners.
pub const SHARES_PORTS: bool = false;

/// Winsock's and the system's words for "none left": no socket, no buffer, no port (a connection
/// that is opened gets two different answers), no memory.
const SHORTAGES: [i32; 6] = [10024, 10055, 10049, 10048, 8, 14];

/// Never asked, see [`SHARES_PORTS`].
///
/// # Errors
/// Always.
pub fn share_port(_listener: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A port is free at once here. The option of that name would let other programs take it.
///
/// # Errors
/// None.
pub fn outlive_time_wait(_listener: &Socket) -> io::Result<()> {
    Ok(())
}

/// There is no limit on open files but memory: as many as are wanted.
#[must_use]
pub fn raise_open_files(wanted: u64) -> u64 {
    wanted
}

/// Whether a socket could not be had or used because this machine or process has none left: no port,
/// socket, buffer or memory. It says nothing about the peer.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| SHORTAGES.contains(&code))
}
