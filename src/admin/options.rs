//! The limits of an admin server, and its certificates.

use std::time::Duration;

use crate::config::TlsTrust;
use crate::tls::ServerTls;

/// How an admin server and its peers are sure of each other.
#[derive(Debug, Clone, Default)]
pub struct AdminTls {
    /// What clients are shown; `None` for connections without TLS.
    pub server: Option<ServerTls>,
    /// How peers are reached with TLS; `None` for without.
    pub peers: Option<TlsTrust>,
}

/// Times and bounds of the admin server.
#[derive(Debug, Clone, Copy)]
pub struct AdminOptions {
    /// Connections at a time: whoever comes then gets the place of one that says nothing, or is
    /// being answered for longest.
    pub max_connections: usize,
    /// How long the head of a request may take to arrive, counted from the end of the answer
    /// before it, and how long a body.
    pub receive: Duration,
    /// How long a connection may live; a request that is being answered then is finished.
    pub lifetime: Duration,
    /// How long requests being answered may go on at the end of a connection's life, or of the
    /// server's.
    pub shutdown: Duration,
    /// How often a peer is asked.
    pub ask_every: Duration,
    /// How long a peer may take to answer, connecting included.
    pub ask_timeout: Duration,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            max_connections: 64,
            receive: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
            shutdown: Duration::from_secs(2),
            ask_every: Duration::from_secs(1),
            ask_timeout: Duration::from_secs(1),
        }
    }
}
