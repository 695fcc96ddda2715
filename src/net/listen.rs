//! One address, one listener per worker.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

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

/// Listeners bound to one address; the kernel spreads connections over them.
#[derive(Debug)]
pub struct Listeners {
    /// The address in force: port 0 has become the port that the system chose.
    pub address: SocketAddr,
    /// One listener per worker.
    pub sockets: Vec<TcpListener>,
}

impl Listeners {
    /// Binds `count` listeners to `address`.
    ///
    /// # Errors
    /// [`ListenError`]. A second program of the same user on the same port is refused too, although
    /// `SO_REUSEPORT` alone would let it steal half of the connections.
    pub fn bind(address: SocketAddr, count: usize) -> Result<Self, ListenError> {
        refuse_if_taken(address)?;
        let first = bind_shared(address)?;
        let address = first
            .local_addr()
            .map_err(|source| ListenError::Bind { address, source })?;
        let mut sockets = vec![first];
        while sockets.len() < count {
            sockets.push(bind_shared(address)?);
        }
        Ok(Self { address, sockets })
    }
}

/// Binding without `SO_REUSEPORT` fails while anybody listens on the port.
fn refuse_if_taken(address: SocketAddr) -> Result<(), ListenError> {
    let error = |source| listen_error(address, source);
    let probe = new_socket(address).map_err(error)?;
    probe.bind(&address.into()).map_err(error)
}

fn bind_shared(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        let socket = new_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(|source| listen_error(address, source))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Without it a restart would have to wait for the last connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
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
        for socket in &listeners.sockets {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
        }
        let second = Listeners::bind(listeners.address, 1);
        assert!(
            matches!(second, Err(ListenError::Taken { .. })),
            "{second:?}"
        );
    }
}
