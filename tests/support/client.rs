//! A web server's side of a connection, with nothing between the test and the bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// No answer after this long is a failure of the test, not a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// One raw connection.
pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// The same from another address of this machine.
    pub fn connect_from(own: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads one answer: head and as many body bytes as `Content-Length` says (none for HEAD).
    pub fn answer_to(&mut self, is_head: bool) -> Vec<u8> {
        loop {
            if let Some(length) = whole_answer(&self.received, is_head) {
                let rest = self.received.split_off(length);
                return std::mem::replace(&mut self.received, rest);
            }
            let mut chunk = vec![0; 1 << 16];
            let count = self.stream.read(&mut chunk).unwrap();
            let so_far = String::from_utf8_lossy(&self.received);
            assert!(
                count > 0,
                "connection closed instead of an answer, after {so_far:?}"
            );
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        self.answer_to(request.starts_with(b"HEAD "))
    }

    /// Everything until the peer closes; a reset counts as closing.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.received);
        let mut chunk = vec![0; 1 << 16];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("still open, after {} bytes: {error}", bytes.len()),
            }
        }
    }

    /// Closes at once. What the proxy sends next finds the connection ended.
    pub fn close(self) {
        super::system::end(self.stream);
    }

    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

fn whole_answer(bytes: &[u8], is_head: bool) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let body = length.map_or(0, |length| length.trim().parse().unwrap());
    let whole = if is_head { head } else { head + body };
    (bytes.len() >= whole).then_some(whole)
}

/// A target of the .NET 4.x shape for a session id.
pub fn target(session_id: &str) -> String {
    format!(
        "%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2f{session_id}"
    )
}

pub fn get(id: &str) -> Vec<u8> {
    format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(id)).into_bytes()
}

pub fn head(id: &str) -> Vec<u8> {
    format!("HEAD {} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(id)).into_bytes()
}

pub fn acquire(id: &str) -> Vec<u8> {
    let target = target(id);
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: acquire\r\n\r\n").into_bytes()
}

pub fn release(id: &str, cookie: u32) -> Vec<u8> {
    let target = target(id);
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: release\r\nLockCookie: {cookie}\r\n\r\n"
    )
    .into_bytes()
}

pub fn delete(id: &str, cookie: u32) -> Vec<u8> {
    let target = target(id);
    format!("DELETE {target} HTTP/1.1\r\nHost: localhost\r\nLockCookie: {cookie}\r\n\r\n")
        .into_bytes()
}

pub fn put(id: &str, cookie: u32, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nTimeout:20\r\nContent-Length:{}\r\nExtraFlags:0\r\nLockCookie:{cookie}\r\n\r\n",
        target(id),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The status code of an answer.
pub fn status(answer: &[u8]) -> &str {
    std::str::from_utf8(&answer[..3]).unwrap()
}

/// The body of an answer.
pub fn body(answer: &[u8]) -> &[u8] {
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    &answer[head..]
}
