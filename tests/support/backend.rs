//! A backend that does what a test tells it, and remembers what it was sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::system::{end, reset_on_drop};

/// The answer of a state server that has no such session.
pub const ABSENT: &[u8] = b"404 Not Found\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// What no request of a web server begins with.
const PROBE_START: &[u8; 25] = b"HEAD %2fstaterouter-probe";

/// No connection or request after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener whose connections are handed to the test one by one.
pub struct Backend {
    pub address: SocketAddr,
    accepted: Receiver<TcpStream>,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = channel();
        std::thread::spawn(move || accept(&listener, &sender));
        Self { address, accepted }
    }

    /// The next connection the proxy opens for a request. Probes on the way there are answered.
    pub fn accept(&self) -> BackendConnection {
        loop {
            let mut connection = self.accept_any();
            if !connection.answer_if_probe() {
                return connection;
            }
        }
    }

    /// The connection on which the next request comes: one of those that are idle, which it is taken
    /// from, or a new one.
    pub fn next_request(&self, idle: &mut Vec<BackendConnection>) -> BackendConnection {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(at) = idle.iter().position(BackendConnection::has_bytes) {
                return idle.swap_remove(at);
            }
            if let Some(new) = self.has_waiting() {
                return new;
            }
            std::thread::yield_now();
        }
        panic!("no request has come");
    }

    /// The next connection, whatever for.
    pub fn accept_any(&self) -> BackendConnection {
        let stream = self.accepted.recv_timeout(PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BackendConnection { stream }
    }

    /// Fails if the proxy has opened one more connection: connections are accepted in the order
    /// they came, so the test's own must be the next.
    pub fn assert_nobody_connected(&self) {
        let own = TcpStream::connect(self.address).unwrap();
        loop {
            let mut next = self.accept_any();
            if next.stream.peer_addr().unwrap() == own.local_addr().unwrap() {
                return;
            }
            let is_probe = next.answer_if_probe();
            assert!(is_probe, "the proxy opened another connection");
        }
    }

    /// Whether the proxy has opened a connection that was not accepted yet.
    pub fn has_waiting(&self) -> Option<BackendConnection> {
        loop {
            let stream = self.accepted.try_recv().ok()?;
            let mut connection = BackendConnection { stream };
            if !connection.answer_if_probe() {
                return Some(connection);
            }
        }
    }
}

/// Ends by itself when the test, and with it the receiver, is gone and one more client comes.
fn accept(listener: &TcpListener, sender: &Sender<TcpStream>) {
    while let Ok((stream, _)) = listener.accept() {
        if sender.send(stream).is_err() {
            return;
        }
    }
}

/// One connection of the proxy, seen from the backend.
pub struct BackendConnection {
    pub stream: TcpStream,
}

impl BackendConnection {
    /// Whether this was a probe, which is told that all is well. Waits for its first bytes. Without
    /// any it was one as well: the proxy opens no other connection before it has something to send.
    fn answer_if_probe(&mut self) -> bool {
        let mut start = [0; PROBE_START.len()];
        loop {
            let count = self.stream.peek(&mut start).unwrap_or(0);
            if count < start.len() && count > 0 && PROBE_START.starts_with(&start[..count]) {
                std::thread::yield_now();
                continue;
            }
            if count > 0 && start != *PROBE_START {
                return false;
            }
            // It may have been given up.
            let _ = self.stream.read(&mut [0; 1024]);
            let _ = self.stream.write_all(ABSENT);
            return true;
        }
    }

    /// Reads exactly `count` bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Writes as much of this as the proxy takes.
    pub fn write_until_closed(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Reads `request`, byte for byte, and answers it.
    pub fn expect(&mut self, request: &[u8], answer: &[u8]) {
        let got = self.read(request.len());
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(request)
        );
        self.write(answer);
    }

    /// Whether the proxy has sent something that was not read.
    fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(peeked, Ok(1..))
    }

    /// Whether the proxy closed the connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Closes in good order. What the proxy sends next finds the connection ended.
    pub fn close(self) {
        end(self.stream);
    }

    /// Whether the proxy closes this connection instead of sending the next request on it; waits
    /// until it does either.
    pub fn is_given_up(&mut self) -> bool {
        !matches!(self.stream.peek(&mut [0]), Ok(1..))
    }

    /// The same with a reset instead of an orderly end.
    pub fn reset(self) {
        reset_on_drop(&self.stream);
        end(self.stream);
    }
}
