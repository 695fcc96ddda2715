//! What a probe or a request can meet at a backend that is not well.

use std::fmt;

/// How a backend failed, in the order in which an exchange can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The proxy itself has no port, file or buffer left: that says nothing about the backend.
    Shortage,
    /// Its host name leads to no address.
    Unresolved,
    /// The connection was refused, or the network knows no way.
    Refused,
    /// Nobody took the connection in time.
    ConnectTimedOut,
    /// No TLS came about: the backend is not who it should be, or does not trust this proxy.
    Untrusted,
    /// The engine that keeps its sessions cannot be used, or does not answer.
    Engine,
    /// A connection was taken and closed before a byte of an answer came. A state server that takes
    /// no remote clients does so.
    ClosedAtOnce,
    /// The connection broke before the whole answer was there.
    Broken,
    /// The whole answer was not there in time.
    Late,
    /// What came cannot be framed.
    Garbage,
    /// A web server answered.
    WebServer,
    /// An HTTP proxy or load balancer answered.
    HttpProxy,
    /// The answer had no `X-AspNet-Version`.
    NoVersion,
    /// The answer had a status that says nothing about a session.
    OtherStatus,
    /// The answer belongs to another request.
    Unfit,
    /// A staterouter proxy answered.
    Staterouter,
}

impl Failure {
    /// All of them, in order.
    pub const ALL: [Self; 16] = [
        Self::Shortage,
        Self::Unresolved,
        Self::Refused,
        Self::ConnectTimedOut,
        Self::Untrusted,
        Self::Engine,
        Self::ClosedAtOnce,
        Self::Broken,
        Self::Late,
        Self::Garbage,
        Self::WebServer,
        Self::HttpProxy,
        Self::NoVersion,
        Self::OtherStatus,
        Self::Unfit,
        Self::Staterouter,
    ];

    /// Whether it says that something other than a healthy state server answers there, however many
    /// requests are answered meanwhile: its 404 would pass for a lost session.
    #[must_use]
    pub const fn is_wrong_answer(self) -> bool {
        matches!(
            self,
            Self::Garbage
                | Self::WebServer
                | Self::HttpProxy
                | Self::NoVersion
                | Self::Unfit
                | Self::Staterouter
        )
    }

    /// Whether it says anything about the backend.
    #[must_use]
    pub const fn is_about_backend(self) -> bool {
        !matches!(self, Self::Shortage)
    }
}

/// A phrase for a log line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shortage => "the proxy has no port, file or buffer left",
            Self::Unresolved => "host name not resolved",
            Self::Refused => "connection refused",
            Self::ConnectTimedOut => "no connection in time",
            Self::Untrusted => {
                "no TLS with it: one side does not trust the certificate of the other, or it speaks no TLS"
            }
            Self::Engine => "its Redis cannot be used, or does not answer",
            Self::ClosedAtOnce => {
                "connection closed without an answer, as by a state server that does not take \
                 connections from here (of aspnet_state.exe the registry value \
                 AllowRemoteConnection, of staterouter --allow)"
            }
            Self::Broken => "connection broken before the answer",
            Self::Late => "no answer in time",
            Self::Garbage => "not the answer of a state server",
            Self::WebServer => "the answer of a web server, not of a state server",
            Self::HttpProxy => {
                "the answer of an HTTP proxy or load balancer, not of a state server"
            }
            Self::NoVersion => {
                "an answer without X-AspNet-Version: no state server, or one whose machine.config \
                 says enableVersionHeader=\"false\""
            }
            Self::OtherStatus => "an answer with a status that says nothing about a session",
            Self::Unfit => "the answer to another request",
            Self::Staterouter => "the answer of a staterouter proxy, not of a state server",
        })
    }
}
