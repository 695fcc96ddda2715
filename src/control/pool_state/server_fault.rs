//! What can be wrong with the address of a backend, in words.

use std::fmt;
use std::net::SocketAddr;

use super::Notice;
use super::wording::lasting;
use crate::config::LogLevel;
use crate::health::Failure;

/// What is not as it should be with the address of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFault {
    /// Its name leads to no address, and none is in use.
    Unresolved {
        /// What the name service said.
        problem: String,
    },
    /// The name service fails; the address in use stays.
    NameService {
        /// The address in use.
        in_use: SocketAddr,
        /// What the name service said.
        problem: String,
    },
    /// Its name has several addresses.
    Several {
        /// The address in use.
        in_use: SocketAddr,
        /// All of them.
        listed: Vec<SocketAddr>,
    },
    /// Its name leads elsewhere, and the address in use still answers.
    LeadsElsewhere {
        /// The address in use.
        in_use: SocketAddr,
        /// Where its name leads.
        listed: Vec<SocketAddr>,
    },
    /// The map's address is not in force yet.
    Waits {
        /// The address in use.
        in_use: SocketAddr,
        /// The address to be used.
        next: SocketAddr,
        /// What it waits for.
        until: Wait,
    },
    /// Another proxy uses another address.
    PeerDiffers {
        /// The address in use here.
        in_use: SocketAddr,
        /// The address in use there.
        theirs: SocketAddr,
    },
    /// A staterouter proxy answers there.
    Proxy {
        /// The address.
        address: SocketAddr,
    },
    /// Another backend is the same server.
    Shared {
        /// The address.
        address: SocketAddr,
        /// The other backend's name.
        other: String,
    },
}

/// What a change of address waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// An answer to a probe; the last one ended like this.
    Answer(Option<Failure>),
    /// The other proxies.
    Peers,
    /// The death of what the server held when it was given up, in milliseconds from when it was said.
    Outdated(u64),
}

impl ServerFault {
    /// Whether the other one is the same, said with other figures.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Waits { next, until, .. },
                Self::Waits {
                    next: other_next,
                    until: other_until,
                    ..
                },
            ) => next == other_next && until.is_like(other_until),
            _ => self == other,
        }
    }

    /// What is the matter.
    pub fn says(&self) -> String {
        match self {
            Self::Unresolved { problem } => {
                format!("its host name leads to no address ({problem})")
            }
            Self::NameService { in_use, problem } => {
                format!("its host name cannot be looked up ({problem}): {in_use} stays in use")
            }
            Self::Several { in_use, listed } => format!(
                "its host name has {} addresses ({}): {in_use} is in use for as long as it answers",
                listed.len(),
                Listed(listed)
            ),
            Self::LeadsElsewhere { in_use, listed } => format!(
                "its host name leads to {} now, but {in_use} still answers and stays in use",
                Listed(listed)
            ),
            Self::Waits {
                in_use,
                next,
                until,
            } => format!("{in_use} stays in use: its new address {next} {until}"),
            Self::PeerDiffers { in_use, theirs } => {
                format!("this proxy asks it at {in_use}, another proxy at {theirs}")
            }
            Self::Proxy { address } => {
                format!("{address} is the address of a staterouter proxy, not of a state server")
            }
            Self::Shared { address, other } => {
                format!("{address} is the server of backend {other} already")
            }
        }
    }

    /// What users notice of it.
    pub const fn means(&self) -> &'static str {
        match self {
            Self::Unresolved { .. } | Self::Proxy { .. } => {
                "Requests for its sessions are refused: those users see error pages."
            }
            Self::NameService { .. } => {
                "Nothing yet. A change of the backend's address would not be seen."
            }
            Self::Several { .. } => {
                "Nothing while it answers. A backend is one server, so the others get no sessions; \
                 when one of them replaces it, its sessions are lost."
            }
            Self::LeadsElsewhere { .. } | Self::Waits { .. } => {
                "Nothing: its sessions stay where they are."
            }
            Self::PeerDiffers { .. } => {
                "Its sessions are split: users lose them when the balancer changes their proxy."
            }
            Self::Shared { .. } => {
                "One server can be one backend only, so this address is not used: requests that need \
                 it are refused."
            }
        }
    }

    /// What to do about it.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Unresolved { .. } => {
                "Correct the address in the partition map, or mend the name service."
            }
            Self::NameService { .. } => "Mend the name service.",
            Self::Several { .. } => "Give each server a name and a backend of its own.",
            Self::LeadsElsewhere { .. } => {
                "If the change is meant, stop the old server or reload every proxy: sessions that \
                 only the old server holds are lost then. To keep them, add the new server as a \
                 backend of its own and drain this one."
            }
            Self::Waits { until, .. } => match until {
                Wait::Answer(_) => {
                    "Correct the address in the partition map if it is mistyped, else start the \
                     server."
                }
                Wait::Peers => {
                    "Bring the partition map to every proxy; if a host name has changed, reload \
                     every proxy. A proxy that is silent holds the change up."
                }
                Wait::Outdated(_) => "Wait, or give the backend a server that is empty.",
            },
            Self::PeerDiffers { .. } => {
                "Give both proxies the same partition map and the same name service; if only one of \
                 them reaches the server, mend the network."
            }
            Self::Proxy { .. } => "Put the state server's own address into the partition map.",
            Self::Shared { .. } => "Correct the address of one of the two backends.",
        }
    }

    /// How bad it is: a backend that cannot be used, or one that may be wrong.
    const fn level(&self) -> LogLevel {
        match self {
            Self::Unresolved { .. } | Self::Proxy { .. } | Self::Shared { .. } => LogLevel::Error,
            _ => LogLevel::Warn,
        }
    }
}

impl Wait {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer(one), Self::Answer(other)) => one.is_some() == other.is_some(),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(None) => f.write_str("has not answered yet"),
            Self::Answer(Some(failure)) => {
                write!(f, "does not answer as a state server ({failure})")
            }
            Self::Peers => f.write_str("answers, but not every other proxy is ready to use it"),
            Self::Outdated(left_ms) => write!(
                f,
                "was given up, and may hold outdated sessions for {} more",
                lasting(*left_ms)
            ),
        }
    }
}

struct Listed<'a>(&'a [SocketAddr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl Notice {
    pub(super) fn of_fault(name: &str, fault: &ServerFault) -> Self {
        let (says, action) = (fault.says(), fault.action());
        Self {
            level: fault.level(),
            text: format!("{name}: {says}. {action}"),
        }
    }
}
