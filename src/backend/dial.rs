//! Connections to one backend outside of any pool, for what is asked rarely and by one task.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::ConnectError;
use super::resolve::SLOW_LOOKUP;
use crate::config::{BackendAddress, BackendHost};
use crate::health::Failure;
use crate::net;
use crate::wire::{Parsed, ResponseHead, Unfit, WireError};

/// A stock answer without an item has some 200 bytes.
const MAX_HEAD_BYTES: usize = 4096;

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The backend closed the connection before its answer was whole.
    #[error("the backend closed the connection without an answer")]
    Closed,
    /// The connection broke before the answer was whole.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The answer was not whole in time.
    #[error("no answer in time")]
    Late,
    /// The backend took the connection and closed it without a byte.
    #[error(
        "the backend took the connection and closed it without an answer, as a state server does \
         whose registry value AllowRemoteConnection is 0"
    )]
    ClosedAtOnce,
    /// What came cannot be an answer.
    #[error("garbage instead of an answer: {0}")]
    Garbage(#[source] WireError),
    /// What came is HTTP, and cannot be the answer of a state server.
    #[error("a web server answered: {0}")]
    WebServer(#[source] WireError),
    /// What came is no answer to what was asked.
    #[error("{0}")]
    Unfit(#[from] Unfit),
}

/// The way to one server.
#[derive(Debug)]
pub struct Dialer {
    address: BackendAddress,
    /// The lookup of the host name, when the last caller did not live to see its end. There is one
    /// at most: each that hangs keeps a thread.
    looking_up: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// The last good answer, used when the next one fails or is slow.
    known: Vec<SocketAddr>,
    /// Kept the last connection attempt waiting in vain; it is tried last.
    hanging: Option<SocketAddr>,
}

impl Dialer {
    /// To the server at `address`.
    pub fn new(address: BackendAddress) -> Self {
        Self {
            address,
            looking_up: None,
            known: Vec::new(),
            hanging: None,
        }
    }

    /// Opens a connection before `due`, to whichever of the server's addresses answers first in
    /// their order. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&mut self, due: Instant) -> Result<TcpStream, ConnectError> {
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
        Err(ConnectError::refused(refused))
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
        let wait_until = match self.known.is_empty() {
            true => due,
            false => due.min(Instant::now() + SLOW_LOOKUP),
        };
        let failed = match timeout_at(wait_until, lookup).await {
            Ok(ended) => {
                self.looking_up = None;
                match ended.unwrap_or_else(|panicked| Err(panicked.into())) {
                    Ok(found) => {
                        self.known = found;
                        return Ok(self.known.clone());
                    }
                    Err(error) => ConnectError::unresolved(error),
                }
            }
            Err(_elapsed) => ConnectError::TimedOut,
        };
        match self.known.is_empty() {
            true => Err(failed),
            false => Ok(self.known.clone()),
        }
    }
}

/// The addresses that the system knows for a host name.
pub(super) async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, port)).await?;
    Ok(found.collect())
}

/// Sends `request`, and reads what comes until the head of its answer is whole.
pub(super) async fn ask(
    stream: &mut TcpStream,
    request: &[u8],
    due: Instant,
    is_head: bool,
) -> Result<(ResponseHead, Vec<u8>), AskError> {
    let asked = async {
        stream.write_all(request).await.map_err(AskError::Broken)?;
        let mut bytes = Vec::new();
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                // Closing with a request that was not read resets the connection.
                Ok(0) | Err(_) if bytes.is_empty() => return Err(AskError::ClosedAtOnce),
                Ok(0) => return Err(AskError::Closed),
                Err(error) => return Err(AskError::Broken(error)),
            }
            let parsed = ResponseHead::parse(&bytes, MAX_HEAD_BYTES, is_head);
            let parsed = parsed.map_err(|error| match bytes.starts_with(b"HTTP/") {
                true => AskError::WebServer(error),
                false => AskError::Garbage(error),
            })?;
            if let Parsed::Complete(head) = parsed {
                return Ok((head, bytes));
            }
        }
    };
    let answered = timeout_at(due, asked).await;
    answered.unwrap_or(Err(AskError::Late))
}

impl AskError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect(error) => error.failure(),
            Self::ClosedAtOnce => Failure::ClosedAtOnce,
            Self::Broken(error) if net::is_shortage(error) => Failure::Shortage,
            Self::Closed | Self::Broken(_) => Failure::Broken,
            Self::Late => Failure::Late,
            Self::Garbage(_) => Failure::Garbage,
            Self::WebServer(_) => Failure::WebServer,
            Self::Unfit(unfit) => unfit_failure(*unfit),
        }
    }
}

/// What an answer of no state server says about the backend.
pub fn unfit_failure(unfit: Unfit) -> Failure {
    match unfit {
        Unfit::Status(_) => Failure::OtherStatus,
        Unfit::Unversioned => Failure::NoVersion,
        Unfit::NoLock | Unfit::Lock | Unfit::NoItem | Unfit::Body | Unfit::Two => Failure::Unfit,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const PATIENT: Duration = Duration::from_secs(30);

    fn named() -> Dialer {
        Dialer::new(BackendAddress::parse("state-a.invalid:42424").unwrap())
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

    async fn failure(dialer: &mut Dialer, within: Duration) -> Option<Failure> {
        let connected = dialer.connect(Instant::now() + within).await;
        connected.err().map(|error| error.failure())
    }

    #[tokio::test]
    async fn an_address_that_hangs_is_tried_last_from_then_on() {
        let (_listener, _waiting, hanging) = full_listener();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = vec![hanging, good.local_addr().unwrap()];
        let mut dialer = named();
        for (within, expected) in [(SHORT, Some(Failure::ConnectTimedOut)), (PATIENT, None)] {
            let found = found.clone();
            dialer.looking_up = Some(tokio::spawn(async { Ok(found) }));
            assert_eq!(failure(&mut dialer, within).await, expected);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_waited_for_again_and_not_repeated() {
        let mut dialer = named();
        let hanging = tokio::spawn(std::future::pending());
        let id = hanging.id();
        dialer.looking_up = Some(hanging);
        for _ in 0..3 {
            let failure = failure(&mut dialer, SHORT).await;
            assert_eq!(failure, Some(Failure::ConnectTimedOut));
            assert_eq!(dialer.looking_up.as_ref().map(JoinHandle::id), Some(id));
        }
    }

    #[tokio::test]
    async fn the_last_good_answer_outlives_a_name_service_that_fails_or_hangs() {
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = vec![good.local_addr().unwrap()];
        let mut dialer = named();
        for lookup in [
            tokio::spawn(async { Ok(found) }),
            tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) }),
            tokio::spawn(std::future::pending()),
        ] {
            dialer.looking_up = Some(lookup);
            assert_eq!(failure(&mut dialer, PATIENT).await, None);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_fails_is_repeated_with_the_next_connection() {
        let mut dialer = named();
        let failing = tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) });
        dialer.looking_up = Some(failing);
        let failure = failure(&mut dialer, PATIENT).await;
        assert_eq!(failure, Some(Failure::Unresolved));
        assert!(dialer.looking_up.is_none());
    }
}
