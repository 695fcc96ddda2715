//! Opening a connection to a backend.

use std::io;

use tokio::net::TcpStream;

use crate::config::{BackendAddress, BackendHost};
use crate::net::{Conn, Deadline};

/// The backend could not be reached. No byte of a request has been sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system or the backend refused.
    #[error("cannot connect: {0}")]
    Refused(#[source] io::Error),
    /// Nobody answered in time.
    #[error("cannot connect in time")]
    TimedOut,
}

/// Connects to `address` before `deadline` passes. Host names are resolved anew each time, so a
/// backend may change its address behind its name.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(address: &BackendAddress, deadline: &Deadline) -> Result<Conn, ConnectError> {
    let connecting = async {
        match address.host() {
            BackendHost::Ip(ip) => TcpStream::connect((*ip, address.port())).await,
            BackendHost::Name(name) => TcpStream::connect((name.as_str(), address.port())).await,
        }
    };
    match deadline.guard(connecting).await {
        Ok(Ok(stream)) => Ok(Conn::new(stream)),
        Ok(Err(error)) => Err(ConnectError::Refused(error)),
        Err(_expired) => Err(ConnectError::TimedOut),
    }
}
