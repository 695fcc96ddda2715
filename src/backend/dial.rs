//! Connections to one backend outside of any pool, for what is asked rarely and by one task.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::ConnectError;
use super::resolve::Resolver;
use crate::config::BackendAddress;
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

/// The way to one server that may have a name, and several addresses behind it.
#[derive(Debug)]
pub struct Dialer {
    resolver: Resolver,
    /// Kept the last connection attempt waiting in vain; it is tried last.
    hanging: Option<SocketAddr>,
}

impl Dialer {
    /// To the server at `address`.
    pub fn new(address: BackendAddress) -> Self {
        Self {
            resolver: Resolver::new(address),
            hanging: None,
        }
    }

    /// Opens a connection before `due`, to whichever of the server's addresses answers first in
    /// their order. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&mut self, due: Instant) -> Result<TcpStream, ConnectError> {
        let mut addresses = self.resolver.addresses(due).await?.to_vec();
        addresses.sort_by_key(|address| Some(*address) == self.hanging);
        let mut refused = ConnectError::Refused(io::ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            match connect(address, due).await {
                Ok(stream) => return Ok(stream),
                Err(ConnectError::TimedOut) => {
                    self.hanging = Some(address);
                    return Err(ConnectError::TimedOut);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Opens a connection to one address before `due`. Needs a runtime with timers and sockets.
pub(super) async fn connect(address: SocketAddr, due: Instant) -> Result<TcpStream, ConnectError> {
    match timeout_at(due, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(ConnectError::refused),
        Err(_elapsed) => Err(ConnectError::TimedOut),
    }
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
        let found = [hanging, good.local_addr().unwrap()];
        let name = BackendAddress::parse("state-a.invalid:42424").unwrap();
        let mut dialer = Dialer::new(name);
        for (within, expected) in [(SHORT, Some(Failure::ConnectTimedOut)), (PATIENT, None)] {
            dialer.resolver.will_find(found.to_vec());
            let connected = dialer.connect(Instant::now() + within).await;
            assert_eq!(connected.err().map(|error| error.failure()), expected);
        }
    }
}
