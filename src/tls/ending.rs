//! Whether the peer of an encrypted connection has ended it, told without taking what it has sent.

use std::io::{self, Read};
use std::ops::DerefMut;
use std::task::{Context, Poll, ready};

use rustls::{ConnectionCommon, SideData};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// The socket as the library reads it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

/// Waits until the peer ends the connection, with or without a farewell. Bytes that came before stay
/// where they are and hide the end: then it is waited for in vain.
pub fn poll_ended(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<()> {
    match stream {
        TlsStream::Client(stream) => {
            let (socket, session) = stream.get_mut();
            poll(socket, session, cx)
        }
        TlsStream::Server(stream) => {
            let (socket, session) = stream.get_mut();
            poll(socket, session, cx)
        }
    }
}

/// The end is a record like any other: what has arrived is decrypted, of which the library keeps no
/// more than its bound.
fn poll<S: SideData>(
    socket: &TcpStream,
    session: &mut impl DerefMut<Target = ConnectionCommon<S>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() > 0 => return Poll::Pending,
            Ok(state) if !state.peer_has_closed() => {}
            // What it sends makes no sense: nothing more will come of it.
            Ok(_) | Err(_) => return Poll::Ready(()),
        }
        if ready!(socket.poll_read_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        match session.read_tls(&mut Socket(socket)) {
            Ok(1..) => {}
            // Nothing after all: the next look waits for it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return Poll::Ready(()),
        }
    }
}
