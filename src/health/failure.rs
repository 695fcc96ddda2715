//! What a probe or a request can meet at a backend that is not well.

use std::fmt;

/// How a backend failed, in the order in which an exchange can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Its host name leads to no address.
    Unresolved,
    /// The connection was refused, or the network knows no way.
    Refused,
    /// Nobody took the connection in time.
    ConnectTimedOut,
    /// The connection broke before the whole answer was there.
    Broken,
    /// The whole answer was not there in time.
    Late,
    /// The answer was not one of a state server.
    Garbage,
}

impl Failure {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Unresolved,
        Self::Refused,
        Self::ConnectTimedOut,
        Self::Broken,
        Self::Late,
        Self::Garbage,
    ];
}

/// A phrase for a log line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unresolved => "host name not resolved",
            Self::Refused => "connection refused",
            Self::ConnectTimedOut => "no connection in time",
            Self::Broken => "connection broken before the answer",
            Self::Late => "no answer in time",
            Self::Garbage => "not the answer of a state server",
        })
    }
}
