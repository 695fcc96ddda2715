//! A backend in words of what to do about it.

use std::fmt;

/// A backend, and what has to be started when it does not answer.
#[derive(Debug, Clone, Copy)]
pub struct SessionKeeper<'a> {
    /// The name of the backend.
    pub name: &'a str,
    /// Whether an engine keeps its sessions: then this proxy is its state server.
    by_engine: bool,
}

impl<'a> SessionKeeper<'a> {
    /// The backend at `address`, as people see it: that of an engine is a URL.
    pub fn at(name: &'a str, address: &str) -> Self {
        Self {
            name,
            by_engine: address.contains("://"),
        }
    }
}

impl fmt::Display for SessionKeeper<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by_engine {
            true => write!(f, "the Redis of {}", self.name),
            false => write!(f, "the state server {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SessionKeeper;

    #[test]
    fn what_has_to_be_started_is_what_keeps_the_sessions() {
        for (address, words) in [
            ("10.0.0.1:42424", "the state server a"),
            ("[fd00::1]:42424", "the state server a"),
            ("redis://10.0.0.1:6379", "the Redis of a"),
            (
                "rediss://one.example:6379,rediss://two.example:6379",
                "the Redis of a",
            ),
        ] {
            assert_eq!(
                SessionKeeper::at("a", address).to_string(),
                words,
                "{address}"
            );
        }
    }
}
