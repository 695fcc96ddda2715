//! What can go wrong with an engine, and what it says about the command that was sent.

use std::path::PathBuf;

use super::node::EngineNode;

/// A command has no answer, or one that is an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// A file of the map cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Certificates or keys cannot be used.
    #[error("{reason}")]
    Tls {
        /// Which file, and why not.
        reason: String,
    },
    /// No connection, or no handshake.
    #[error("cannot connect to {node}: {reason}")]
    Connect {
        /// Whom.
        node: EngineNode,
        /// Why not.
        reason: String,
    },
    /// Nobody answered while a connection was made.
    #[error("cannot connect to {node} in time")]
    ConnectLate {
        /// Whom.
        node: EngineNode,
    },
    /// The time was over before the server that has the key was found and connected to.
    #[error("no way to the server that has the key in time: {engine}")]
    Unreached {
        /// The engine.
        engine: String,
    },
    /// The server takes neither user nor password.
    #[error("{node} refuses user or password: {reason}")]
    Denied {
        /// Who.
        node: EngineNode,
        /// What it said.
        reason: String,
    },
    /// No Sentinel knows a master of this name.
    #[error("no Sentinel knows a master named {name}: {reason}")]
    NoMaster {
        /// The name in the map.
        name: String,
        /// What the last one said.
        reason: String,
    },
    /// The server is a replica, and takes no writes.
    #[error("{node} is a replica")]
    Replica {
        /// Who.
        node: EngineNode,
    },
    /// The cluster says that nobody has this slot.
    #[error("no server of the cluster has slot {slot}")]
    NoOwner {
        /// The slot, 0 to 16383.
        slot: u16,
    },
    /// The engine runs the scripts, and not as it must.
    #[error("{node} does not run scripts as it must: {reason}")]
    Unfit {
        /// Who.
        node: EngineNode,
        /// What was tried and what came.
        reason: String,
    },
    /// The connection ended before the answer was whole.
    #[error("the connection to {node} broke: {reason}")]
    Broken {
        /// Whose.
        node: EngineNode,
        /// What the system said.
        reason: String,
    },
    /// No answer in time.
    #[error("{node} has not answered in time")]
    Late {
        /// Who.
        node: EngineNode,
    },
    /// An answer of another shape than the command has.
    #[error("{node} answered what nobody asked")]
    Garbage {
        /// Who.
        node: EngineNode,
    },
    /// Too few replicas have the change.
    #[error("{node}: {have} of {wanted} replicas have the change")]
    Unreplicated {
        /// Who.
        node: EngineNode,
        /// How many have it.
        have: u64,
        /// How many must.
        wanted: u8,
    },
    /// The change was carried out, and what the server says of its replicas is an error.
    #[error("{node} does not say whether replicas have the change: {code} {detail}")]
    Unwaited {
        /// Who.
        node: EngineNode,
        /// The first word of the error.
        code: String,
        /// The rest.
        detail: String,
    },
    /// The server's own error.
    #[error("{node}: {code} {detail}")]
    Answered {
        /// Who.
        node: EngineNode,
        /// Its first word, `OOM` for instance.
        code: String,
        /// The rest.
        detail: String,
    },
}

/// What a failure says about the command, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sequel {
    /// It may have been carried out: send it again and say so.
    Unclear,
    /// It was not carried out. Look where the keys are, and send it again a little later.
    Later,
    /// It was not carried out: this server has the slot for good.
    Moved(u16, EngineNode),
    /// It was not carried out: this server has the key, and must be told that it is asked on
    /// purpose.
    Ask(EngineNode),
    /// It was not carried out: the server does not know the script.
    LoadScript,
    /// It was not carried out: there is no memory for what grows.
    Full,
    /// It was not carried out, and never will be.
    Refused,
}

impl EngineError {
    /// What to do about it.
    pub(super) fn sequel(&self) -> Sequel {
        match self {
            Self::Broken { .. }
            | Self::Late { .. }
            | Self::Garbage { .. }
            | Self::Unreplicated { .. }
            | Self::Unwaited { .. } => Sequel::Unclear,
            Self::Connect { .. }
            | Self::ConnectLate { .. }
            | Self::Unreached { .. }
            | Self::NoMaster { .. }
            | Self::Replica { .. }
            | Self::NoOwner { .. } => Sequel::Later,
            Self::File { .. } | Self::Tls { .. } | Self::Denied { .. } | Self::Unfit { .. } => {
                Sequel::Refused
            }
            Self::Answered { node, code, detail } => answered(node, code, detail),
        }
    }
}

fn answered(node: &EngineNode, code: &str, detail: &str) -> Sequel {
    match code {
        "MOVED" | "ASK" => match redirect(node, detail) {
            Some((slot, to)) if code == "MOVED" => Sequel::Moved(slot, to),
            Some((_, to)) => Sequel::Ask(to),
            None => Sequel::Later,
        },
        "NOSCRIPT" => Sequel::LoadScript,
        "OOM" => Sequel::Full,
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS"
        | "BUSY" | "UNBLOCKED" => Sequel::Later,
        _ => Sequel::Refused,
    }
}

/// `slot host:port`. A server that does not know its own name leaves the host out: it is the one
/// that was asked.
fn redirect(asked: &EngineNode, detail: &str) -> Option<(u16, EngineNode)> {
    let (slot, address) = detail.split_once(' ')?;
    let (host, port) = address.trim().rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { &asked.host } else { host };
    Some((
        slot.parse().ok()?,
        EngineNode::new(host, port.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Sequel {
        let (code, detail) = line.split_once(' ').unwrap();
        let error = EngineError::Answered {
            node: EngineNode::new("10.0.0.1", 7000),
            code: code.to_owned(),
            detail: detail.to_owned(),
        };
        error.sequel()
    }

    #[test]
    fn redirects_name_their_server() {
        let to = |host, port| EngineNode::new(host, port);
        for (line, sequel) in [
            (
                "MOVED 3999 10.0.0.2:7001",
                Sequel::Moved(3999, to("10.0.0.2", 7001)),
            ),
            ("ASK 5 redis-b:7002", Sequel::Ask(to("redis-b", 7002))),
            ("MOVED 5 :7003", Sequel::Moved(5, to("10.0.0.1", 7003))),
            (
                "MOVED 5 fd00::2:7003",
                Sequel::Moved(5, to("fd00::2", 7003)),
            ),
            ("MOVED 5", Sequel::Later),
            ("MOVED 5 nonsense", Sequel::Later),
            ("ASK x 10.0.0.2:7001", Sequel::Later),
        ] {
            assert_eq!(said(line), sequel, "{line}");
        }
    }

    #[test]
    fn what_nobody_knows_is_not_sent_again() {
        assert_eq!(said("NOPERM this user"), Sequel::Refused);
        assert_eq!(said("MISCONF Redis is configured"), Sequel::Refused);
        assert_eq!(said("ERR something else"), Sequel::Refused);
        assert_eq!(said("CLUSTERDOWN Hash slot not served"), Sequel::Later);
    }
}
