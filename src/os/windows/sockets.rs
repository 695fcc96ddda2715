//! Bytes from and to sockets.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Whether a read that leaves room has emptied the socket: then the event queue tells of what comes
/// next.
pub const SHORT_READ_EMPTIES: bool = false;

/// Reads what has arrived into `room`, without waiting.
///
/// # Errors
/// What the system says: [`io::ErrorKind::WouldBlock`] when nothing has.
pub fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(stream)).read(room)
}

/// Writes what the system takes of `bytes` at once.
///
/// # Errors
/// What the system says: [`io::ErrorKind::WouldBlock`] when it takes nothing now.
pub fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(stream).send(bytes)
}
