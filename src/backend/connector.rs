//! The way to one server, given from outside: whoever asks it never learns what is behind.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::health::Failure;
use crate::net::{self, Conn, Deadline};

/// Bytes that one end of a connection in memory takes before the other has read them.
const MEMORY_BYTES: usize = 64 * 1024;

/// Connections that a server in this process has not taken yet, at most.
const MAX_WAITING: usize = 128;

/// The backend could not be reached. No byte of a request has been sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name service gave no address.
    #[error("cannot resolve its host name: {0}")]
    Unresolved(#[source] io::Error),
    /// The system or the backend refused.
    #[error("cannot connect: {0}")]
    Refused(#[source] io::Error),
    /// The proxy itself has no port, file or buffer left for one more connection.
    #[error("cannot connect, because this proxy is out of ports, open files or memory: {0}")]
    Shortage(#[source] io::Error),
    /// Nobody answered in time.
    #[error("cannot connect in time")]
    TimedOut,
}

impl ConnectError {
    /// The system or the backend refused a connection.
    pub(super) fn refused(error: io::Error) -> Self {
        match net::is_shortage(&error) {
            true => Self::Shortage(error),
            false => Self::Refused(error),
        }
    }

    /// The name service gave no address.
    pub(super) fn unresolved(error: io::Error) -> Self {
        match net::is_shortage(&error) {
            true => Self::Shortage(error),
            false => Self::Unresolved(error),
        }
    }

    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unresolved(_) => Failure::Unresolved,
            Self::Refused(_) => Failure::Refused,
            Self::Shortage(_) => Failure::Shortage,
            Self::TimedOut => Failure::ConnectTimedOut,
        }
    }
}

/// The way to one server. Two that are equal lead to the same one.
#[derive(Debug, Clone)]
pub enum Connector {
    /// None is known: every connection fails.
    Nowhere,
    /// A TCP address.
    Tcp(SocketAddr),
    /// A server in this process.
    Memory(MemoryServer),
}

/// Where a server in this process takes its connections.
#[derive(Debug, Clone)]
pub struct MemoryServer(mpsc::Sender<Conn>);

/// The server's end of a [`Connector`] in memory.
#[derive(Debug)]
pub struct MemoryListener(mpsc::Receiver<Conn>);

impl Connector {
    /// The way to a server in this process, and its end.
    pub fn memory() -> (Self, MemoryListener) {
        let (connections, waiting) = mpsc::channel(MAX_WAITING);
        let connector = Self::Memory(MemoryServer(connections));
        (connector, MemoryListener(waiting))
    }

    /// Opens a connection before `deadline` passes.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, deadline: &Deadline) -> Result<Conn, ConnectError> {
        match self {
            Self::Nowhere => {
                let nowhere = io::ErrorKind::AddrNotAvailable.into();
                Err(ConnectError::Unresolved(nowhere))
            }
            Self::Tcp(address) => match deadline.guard(TcpStream::connect(*address)).await {
                Ok(connected) => connected.map(Conn::new).map_err(ConnectError::refused),
                Err(_expired) => Err(ConnectError::TimedOut),
            },
            Self::Memory(MemoryServer(server)) => {
                let (ours, theirs) = Conn::pair(MEMORY_BYTES);
                match deadline.guard(server.send(theirs)).await {
                    Ok(Ok(())) => Ok(ours),
                    Ok(Err(_gone)) => {
                        let refused = io::ErrorKind::ConnectionRefused.into();
                        Err(ConnectError::Refused(refused))
                    }
                    Err(_expired) => Err(ConnectError::TimedOut),
                }
            }
        }
    }
}

impl MemoryListener {
    /// The next connection; `None` once nobody can open one any more.
    pub async fn accept(&mut self) -> Option<Conn> {
        self.0.recv().await
    }
}

impl From<Option<SocketAddr>> for Connector {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::Nowhere, Self::Tcp)
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nowhere, Self::Nowhere) => true,
            (Self::Tcp(one), Self::Tcp(other)) => one == other,
            (Self::Memory(one), Self::Memory(other)) => one.0.same_channel(&other.0),
            _ => false,
        }
    }
}
