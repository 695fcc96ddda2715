//! The way to one server, given from outside: whoever asks it never learns what is behind.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::health::Failure;
use crate::net::{self, Conn, Deadline};
use crate::store::StoreSurvey;
use crate::tls::TargetTls;

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
    /// The engine that keeps the sessions of a server in this process cannot be used.
    #[error("its Redis cannot be used: {0}")]
    Engine(#[source] io::Error),
    /// The server is not who it should be, or does not trust this proxy.
    #[error("no TLS with it: {0}")]
    Untrusted(#[source] io::Error),
}

impl ConnectError {
    /// The system or the backend refused a connection.
    pub(super) fn refused(error: io::Error) -> Self {
        match net::is_shortage(&error) {
            true => Self::Shortage(error),
            false => Self::Refused(error),
        }
    }

    /// The server in this process did not open a connection.
    pub(super) fn engine(error: io::Error) -> Self {
        match net::is_shortage(&error) {
            true => Self::Shortage(error),
            false => Self::Engine(error),
        }
    }

    /// The server took the connection and did not go on as one with TLS does.
    pub fn untrusted(error: io::Error) -> Self {
        match net::is_shortage(&error) {
            true => Self::Shortage(error),
            false => Self::Untrusted(error),
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
            Self::Engine(_) => Failure::Engine,
            Self::Untrusted(_) => Failure::Untrusted,
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
    /// The same, encrypted.
    Tls(TlsServer),
    /// A server in this process.
    Local(Arc<dyn LocalServer>),
}

/// A server in this process. It serves each connection on the thread that opens it.
pub trait LocalServer: fmt::Debug + Send + Sync {
    /// Opens a connection to it. Must be called where tasks can be spawned that stay on their
    /// thread.
    ///
    /// # Errors
    /// Why it cannot serve now.
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<Conn>>>>;

    /// What there is to say about what keeps its sessions. Must be called as [`Self::open`].
    fn survey(&self) -> Pin<Box<dyn Future<Output = StoreSurvey>>>;
}

/// A server that is reached with TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsServer {
    /// Where it is.
    pub address: SocketAddr,
    /// How this proxy is sure of it.
    pub target: TargetTls,
}

impl Connector {
    /// Whether the server is a part of this process, with an engine behind it.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
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
            Self::Tls(server) => match deadline.guard(Box::pin(server.connect())).await {
                Ok(connected) => connected,
                Err(_expired) => Err(ConnectError::TimedOut),
            },
            Self::Local(server) => match deadline.guard(server.open()).await {
                Ok(opened) => opened.map_err(ConnectError::engine),
                Err(_expired) => Err(ConnectError::TimedOut),
            },
        }
    }
}

impl TlsServer {
    async fn connect(&self) -> Result<Conn, ConnectError> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(ConnectError::refused)?;
        let TargetTls { tls, name } = &self.target;
        let stream = tls.connect(stream, name.clone()).await;
        stream.map(Conn::encrypted).map_err(ConnectError::untrusted)
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nowhere, Self::Nowhere) => true,
            (Self::Tcp(one), Self::Tcp(other)) => one == other,
            (Self::Tls(one), Self::Tls(other)) => one == other,
            (Self::Local(one), Self::Local(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}
