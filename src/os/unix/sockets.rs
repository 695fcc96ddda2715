//! Bytes from and to sockets. The C library's own calls are points where a thread may be cancelled,
//! which costs more instructions than all else of the call.

use std::io;

use rustix::net::{RecvFlags, SendFlags};
use tokio::net::TcpStream;

/// Whether a read that leaves room has emptied the socket: then the event queue tells of what comes
/// next.
pub const SHORT_READ_EMPTIES: bool = true;

/// Reads what has arrived into `room`, without waiting.
///
/// # Errors
/// What the system says: [`io::ErrorKind::WouldBlock`] when nothing has.
#[inline]
pub fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(stream, room, RecvFlags::empty())?.0)
}

/// Writes what the system takes of `bytes` at once.
///
/// # Errors
/// What the system says: [`io::ErrorKind::WouldBlock`] when it takes nothing now.
#[inline]
pub fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}
