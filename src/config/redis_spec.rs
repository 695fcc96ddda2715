//! A backend that is kept on Redis or Valkey and served in this process.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::address::BackendAddress;
use crate::route::HashKey;

/// Where an engine is, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSpec {
    /// One server or several: any nodes of a Cluster, or the Sentinels if `sentinel` names a
    /// master. All with the same scheme and database.
    pub urls: Vec<RedisUrl>,
    /// The name under which Sentinels know the master.
    pub sentinel: Option<String>,
    /// The ACL user; `None` for the default one.
    pub user: Option<String>,
    /// The file whose first line is the password. It is read for every connection, so that a new
    /// password needs no restart.
    pub password_file: Option<PathBuf>,
    /// What the keys of sessions begin with.
    pub prefix: String,
    /// Certificates, for `rediss://`.
    pub tls: RedisTls,
    /// Replicas that must have a change before it is answered.
    pub wait_replicas: u8,
}

/// Files of certificates and keys in PEM format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// The authority that has signed the servers' certificates; `None` for those that the system
    /// trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that this proxy shows, with its key.
    pub identity: Option<RedisIdentity>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisIdentity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `redis://host:port/database`, or `rediss://` for TLS. It never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisUrl {
    /// Whether the connection is encrypted.
    pub is_tls: bool,
    /// Name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The number of the database; 0 in a Cluster.
    pub database: u16,
}

/// What is wrong with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// Neither `redis://` nor `rediss://`.
    #[error("it does not begin with `redis://` or `rediss://`")]
    Scheme,
    /// It holds a user or a password, which would be shown wherever the URL is.
    #[error("user and password do not belong into it: use `user` and `password_file`")]
    Credentials,
    /// There is no host, or it has characters that no host has.
    #[error("it has no host name or IP address")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// The database is no number from 0 to 65535.
    #[error("what follows the port is not the number of a database")]
    Database,
}

/// The port of Redis.
const DEFAULT_PORT: u16 = 6379;

/// What keys begin with when the map says nothing.
pub const DEFAULT_REDIS_PREFIX: &str = "staterouter:";

impl RedisSpec {
    /// One server without TLS and password.
    pub fn new(url: RedisUrl) -> Self {
        Self {
            urls: vec![url],
            sentinel: None,
            user: None,
            password_file: None,
            prefix: DEFAULT_REDIS_PREFIX.to_owned(),
            tls: RedisTls::default(),
            wait_replicas: 0,
        }
    }

    /// The number of the database.
    pub fn database(&self) -> u16 {
        self.urls.first().map_or(0, |url| url.database)
    }

    /// The address that stands for the engine where servers are told apart by their addresses: of
    /// the block that is never routed (RFC 6666), so that it is nobody's, and the same in every
    /// proxy that has the same servers, master and prefix in its map.
    pub fn stand_in(&self) -> BackendAddress {
        let digest = HashKey::DEFAULT.hash(self.to_string().as_bytes());
        let [.., a, b, c, d] =
            [digest >> 48, digest >> 32, digest >> 16, digest].map(|part| part as u16);
        let ip = Ipv6Addr::new(0x0100, 0, 0, 0, a, b, c, d);
        BackendAddress::from(SocketAddr::from((ip, 1)))
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.urls.first().is_some_and(|url| url.is_tls)
    }
}

/// Its servers, and what tells its sessions from others there.
impl fmt::Display for RedisSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut urls = self.urls.iter();
        if let Some(first) = urls.next() {
            first.fmt(f)?;
        }
        urls.try_for_each(|url| write!(f, ",{url}"))?;
        if let Some(sentinel) = &self.sentinel {
            write!(f, " sentinel {sentinel}")?;
        }
        match self.prefix == DEFAULT_REDIS_PREFIX {
            true => Ok(()),
            false => write!(f, " prefix {}", self.prefix),
        }
    }
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`RedisUrlError`].
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let (is_tls, rest) = match (
            text.strip_prefix("redis://"),
            text.strip_prefix("rediss://"),
        ) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(RedisUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(RedisUrlError::Credentials);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(RedisUrlError::Host)?;
                let is_ip = host.parse::<std::net::Ipv6Addr>().is_ok();
                (is_ip.then_some(host).ok_or(RedisUrlError::Host)?, port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                let is_host = (1..=253).contains(&host.len()) && host.bytes().all(fits);
                (is_host.then_some(host).ok_or(RedisUrlError::Host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(RedisUrlError::Port),
            Some(port) => port.parse().map_err(|_| RedisUrlError::Port)?,
        };
        if port == 0 {
            return Err(RedisUrlError::Port);
        }
        let database = match path {
            "" => 0,
            number => number.parse().map_err(|_| RedisUrlError::Database)?,
        };
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port,
            database,
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port)?,
            false => write!(f, "{scheme}://{}:{}", self.host, self.port)?,
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for (text, written) in [
            ("redis://10.0.0.5", "redis://10.0.0.5:6379"),
            ("redis://cache.example:7000/", "redis://cache.example:7000"),
            ("rediss://cache.example/3", "rediss://cache.example:6379/3"),
            ("redis://[fd00::5]:7001/1", "redis://[fd00::5]:7001/1"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(RedisUrl::parse(written), Ok(url));
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (text, error) in [
            ("10.0.0.5:6379", RedisUrlError::Scheme),
            ("http://10.0.0.5", RedisUrlError::Scheme),
            ("redis://user:secret@host", RedisUrlError::Credentials),
            ("redis://", RedisUrlError::Host),
            ("redis://:6379", RedisUrlError::Host),
            ("redis://ho st", RedisUrlError::Host),
            ("redis://[nonsense]:1", RedisUrlError::Host),
            ("redis://[fd00::5", RedisUrlError::Host),
            ("redis://host:0", RedisUrlError::Port),
            ("redis://host:65536", RedisUrlError::Port),
            ("redis://[fd00::5]7", RedisUrlError::Port),
            ("redis://host/x", RedisUrlError::Database),
            ("redis://host/1/2", RedisUrlError::Database),
        ] {
            assert_eq!(RedisUrl::parse(text), Err(error), "{text}");
        }
    }
}
