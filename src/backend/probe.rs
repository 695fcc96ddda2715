//! Asks a backend whether it answers as a state server does.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::ConnectError;
use crate::config::{BackendAddress, BackendHost};
use crate::health::Failure;
use crate::wire::{Operation, Parsed, Request, ResponseHead, WireError, encode_request};

/// A key that no session has, in stock spelling (protocol 2, 7): a web server that has taken the
/// address refuses a target without a slash, where a state server finds nothing.
const TARGET: &[u8] = b"%2fstaterouter-probe(AAAAAAAAAAAAAAAAAAAAAAAAAAA%3d)%2fprobe";

/// A stock answer to a probe has some 120 bytes.
const MAX_HEAD_BYTES: usize = 4096;

/// A probe that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The backend closed the connection before its answer was whole.
    #[error("the backend closed the connection before its answer was whole")]
    Closed,
    /// The connection broke before the answer was whole.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The answer was not whole in time.
    #[error("no answer in time")]
    Late,
    /// What came cannot be an answer.
    #[error("garbage instead of an answer: {0}")]
    Garbage(#[from] WireError),
    /// An answer that a state server does not give to a HEAD.
    #[error("status {0} instead of 200 or 404")]
    Status(u16),
}

/// The probes of one backend.
///
/// Each goes over a connection of its own. It takes none from the requests, and it meets what the
/// next request without a pooled connection would meet.
#[derive(Debug)]
pub struct Prober {
    address: BackendAddress,
    timeout: Duration,
    request: Vec<u8>,
    /// The lookup of the host name, when the last probe did not live to see its end. There is one
    /// at most: each that hangs keeps a thread.
    looking_up: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// Kept the last connection attempt waiting in vain; it is tried last.
    hanging: Option<SocketAddr>,
}

impl Prober {
    /// For the backend at `address`; a probe takes `timeout` at most, connecting included.
    pub fn new(address: BackendAddress, timeout: Duration) -> Self {
        let mut request = Vec::new();
        encode_request(
            &mut request,
            &Request {
                operation: Operation::Touch,
                target: TARGET,
                lock_cookie: 0,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        Self {
            address,
            timeout,
            request,
            looking_up: None,
            hanging: None,
        }
    }

    /// Asks once. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`ProbeError`], unless the backend answers in time and as a state server does.
    pub async fn probe(&mut self) -> Result<(), ProbeError> {
        let due = Instant::now() + self.timeout;
        let mut stream = self.connect(due).await?;
        let status = timeout_at(due, ask(&mut stream, &self.request))
            .await
            .map_err(|_elapsed| ProbeError::Late)??;
        match status {
            200 | 404 => Ok(()),
            other => Err(ProbeError::Status(other)),
        }
    }

    async fn connect(&mut self, due: Instant) -> Result<TcpStream, ConnectError> {
        let mut addresses = self.addresses(due).await?;
        addresses.sort_by_key(|address| Some(*address) == self.hanging);
        let mut refused = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            match timeout_at(due, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => refused = error,
                Err(_elapsed) => {
                    self.hanging = Some(address);
                    return Err(ConnectError::TimedOut);
                }
            }
        }
        Err(ConnectError::Refused(refused))
    }

    async fn addresses(&mut self, due: Instant) -> Result<Vec<SocketAddr>, ConnectError> {
        let port = self.address.port();
        let name = match self.address.host() {
            BackendHost::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            BackendHost::Name(name) => name,
        };
        let lookup = self
            .looking_up
            .get_or_insert_with(|| tokio::spawn(look_up(name.clone(), port)));
        let found = timeout_at(due, lookup)
            .await
            .map_err(|_elapsed| ConnectError::TimedOut)?;
        self.looking_up = None;
        found
            .unwrap_or_else(|failed| Err(failed.into()))
            .map_err(ConnectError::Unresolved)
    }
}

async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, port)).await?;
    Ok(found.collect())
}

/// The status of the answer to `request`.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> Result<u16, ProbeError> {
    stream
        .write_all(request)
        .await
        .map_err(ProbeError::Broken)?;
    let mut head = Vec::new();
    loop {
        let read = stream.read_buf(&mut head).await;
        if read.map_err(ProbeError::Broken)? == 0 {
            return Err(ProbeError::Closed);
        }
        if let Parsed::Complete(head) = ResponseHead::parse(&head, MAX_HEAD_BYTES, true)? {
            return Ok(head.status);
        }
    }
}

impl ProbeError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect(error) => error.failure(),
            Self::Closed | Self::Broken(_) => Failure::Broken,
            Self::Late => Failure::Late,
            Self::Garbage(_) | Self::Status(_) => Failure::Garbage,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn named(timeout: Duration) -> Prober {
        let address = BackendAddress::parse("state-a.invalid:42424").unwrap();
        Prober::new(address, timeout)
    }

    /// A listener that nobody accepts from, with as many connections waiting as it takes.
    fn full_listener() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&address, SHORT);
        let waiting = std::iter::from_fn(|| connect().ok()).collect();
        (listener, waiting, address)
    }

    #[tokio::test]
    async fn an_address_that_hangs_is_tried_last_from_then_on() {
        let (_listener, _waiting, hanging) = full_listener();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = vec![hanging, good.local_addr().unwrap()];
        let answering = std::thread::spawn(move || {
            use std::io::Write;
            let mut stream = good.accept().unwrap().0;
            stream.write_all(b"404 Not Found\r\n\r\n").unwrap();
            // Read to the end, or closing would reset the connection before its answer is read.
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        });
        let mut prober = named(SHORT);
        let patient = Duration::from_secs(30);
        for (timeout, expected) in [(SHORT, Some(Failure::ConnectTimedOut)), (patient, None)] {
            prober.timeout = timeout;
            let found = found.clone();
            prober.looking_up = Some(tokio::spawn(async { Ok(found) }));
            let failure = prober.probe().await.err().map(|error| error.failure());
            assert_eq!(failure, expected);
        }
        answering.join().unwrap();
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_waited_for_again_and_not_repeated() {
        let mut prober = named(SHORT);
        let hanging = tokio::spawn(std::future::pending());
        let id = hanging.id();
        prober.looking_up = Some(hanging);
        for _ in 0..3 {
            let error = prober.probe().await.unwrap_err();
            assert_eq!(error.failure(), Failure::ConnectTimedOut);
            assert_eq!(prober.looking_up.as_ref().map(JoinHandle::id), Some(id));
        }
    }

    #[tokio::test]
    async fn a_lookup_that_fails_is_repeated_with_the_next_probe() {
        let mut prober = named(Duration::from_secs(30));
        let failing = tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) });
        prober.looking_up = Some(failing);
        let error = prober.probe().await.unwrap_err();
        assert_eq!(error.failure(), Failure::Unresolved);
        assert!(prober.looking_up.is_none());
    }
}
