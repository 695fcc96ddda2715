//! One server of an engine.

use std::fmt;
use std::sync::Arc;

use super::shown::shown;
use crate::config::RedisUrl;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EngineNode {
    /// Name or IP address, without brackets.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl EngineNode {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: Arc::from(host),
            port,
        }
    }
}

impl From<&RedisUrl> for EngineNode {
    fn from(url: &RedisUrl) -> Self {
        Self::new(&url.host, url.port)
    }
}

impl fmt::Display for EngineNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Other servers may have named it.
        let host = shown(&self.host);
        match host.contains(':') {
            true => write!(f, "[{host}]:{}", self.port),
            false => write!(f, "{host}:{}", self.port),
        }
    }
}
