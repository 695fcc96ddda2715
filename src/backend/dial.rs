//! Connections to one server that may have a name, outside of any pool: for other proxies.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::connector::ConnectError;
use super::resolve::Resolver;
use crate::config::BackendAddress;

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
async fn connect(address: SocketAddr, due: Instant) -> Result<TcpStream, ConnectError> {
    match timeout_at(due, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(ConnectError::refused),
        Err(_elapsed) => Err(ConnectError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::health::Failure;

    const SHORT: Duration = Duration::from_millis(100);
    const PATIENT: Duration = Duration::from_secs(30);

    /// A listener that nobody accepts from, with as many connections waiting as it takes.
    fn full_listener() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // On a busy machine a connection takes a while, too.
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
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
