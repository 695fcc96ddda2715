//! One address for all workers: a listener for each of them where the kernel spreads connections over
//! several, else one whose connections are handed round.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::os;

/// Connections the kernel queues per listener before it refuses more.
const BACKLOG: i32 = 4096;

/// Listening failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket listens there already.
    #[error("cannot listen on {address}: the port is taken by another program")]
    Taken {
        /// The wanted address.
        address: SocketAddr,
    },
    /// Anything else the kernel said.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The wanted address.
        address: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
}

/// One bound address.
#[derive(Debug)]
pub struct Listeners {
    /// The address in force: port 0 has become the port that the system chose.
    pub address: SocketAddr,
    pub(super) sockets: Sockets,
}

/// How the connections of one address reach several workers.
#[derive(Debug)]
pub(super) enum Sockets {
    /// A listener per worker; the kernel spreads the connections over them.
    EachWorker(Vec<TcpListener>),
    /// One listener, whose connections are handed to this many workers.
    HandedRound(TcpListener, usize),
}

impl Listeners {
    /// Binds `address` for this many workers.
    ///
    /// # Errors
    /// [`ListenError`]. A second program of the same user on the same port is refused too, although
    /// `SO_REUSEPORT` alone would let it steal half of the connections.
    pub fn bind(address: SocketAddr, workers: usize) -> Result<Self, ListenError> {
        if !os::SHARES_PORTS {
            return Self::bind_one(address, workers);
        }
        refuse_if_taken(address)?;
        let first = listen(address, os::share_port)?;
        let address = bound_to(&first, address)?;
        let mut listeners = vec![first];
        while listeners.len() < workers {
            listeners.push(listen(address, os::share_port)?);
        }
        let sockets = Sockets::EachWorker(listeners);
        Ok(Self { address, sockets })
    }

    /// The listeners, for a server that serves all of them in one thread.
    #[must_use]
    pub fn into_sockets(self) -> Vec<TcpListener> {
        match self.sockets {
            Sockets::EachWorker(listeners) => listeners,
            Sockets::HandedRound(listener, _) => vec![listener],
        }
    }

    /// Binds one listener to `address`, whose connections are handed to this many workers in turn.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind_one(address: SocketAddr, workers: usize) -> Result<Self, ListenError> {
        let listener = listen(address, |_| Ok(()))?;
        let address = bound_to(&listener, address)?;
        let sockets = Sockets::HandedRound(listener, workers);
        Ok(Self { address, sockets })
    }
}

/// Binding without `SO_REUSEPORT` fails while anybody listens on the port.
fn refuse_if_taken(address: SocketAddr) -> Result<(), ListenError> {
    let error = |source| listen_error(address, source);
    let probe = new_socket(address).map_err(error)?;
    probe.bind(&address.into()).map_err(error)
}

fn listen(
    address: SocketAddr,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> Result<TcpListener, ListenError> {
    let bind = || {
        let socket = new_socket(address)?;
        prepare(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(|source| listen_error(address, source))
}

fn bound_to(listener: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, ListenError> {
    let address = listener.local_addr();
    address.map_err(|source| listen_error(wanted, source))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    os::outlive_time_wait(&socket)?;
    Ok(socket)
}

fn listen_error(address: SocketAddr, source: io::Error) -> ListenError {
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::Taken { address }
    } else {
        ListenError::Bind { address, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listeners_share_the_port_the_system_chose() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(any, 3).unwrap();
        assert_ne!(listeners.address.port(), 0);
        let Sockets::EachWorker(sockets) = &listeners.sockets else {
            panic!("{listeners:?}");
        };
        assert_eq!(sockets.len(), 3);
        for socket in sockets {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
        }
        let second = Listeners::bind(listeners.address, 1);
        assert!(
            matches!(second, Err(ListenError::Taken { .. })),
            "{second:?}"
        );
    }
}
