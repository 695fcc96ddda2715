//! Where a backend listens.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The host of a backend: an address, or a name to be resolved when connecting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendHost {
    /// An address; never an IPv4-mapped IPv6 address.
    Ip(IpAddr),
    /// A host name by RFC 1123, underscores allowed, in lower case, without a dot at its end.
    Name(String),
}

/// Host and port of a backend, in one normal form: equal addresses compare equal however they
/// were written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendAddress {
    host: BackendHost,
    port: u16,
}

/// Why a text is not a backend address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No colon, or nothing after the last one.
    #[error("it has no port")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    BadPort,
    /// An IPv6 address without brackets: its last part could be meant as the port.
    #[error("an IPv6 address needs brackets, as in `[fd00::1]:42424`")]
    NoBrackets,
    /// What stands in brackets is not an IPv6 address.
    #[error("what stands in brackets is not an IPv6 address")]
    BadIpv6,
    /// Neither an IPv4 address nor a host name.
    #[error("its host is neither an IPv4 address nor a host name")]
    BadHost,
    /// What stands in brackets has a zone.
    #[error(
        "an IPv6 address with a zone (`%` and an interface) is not supported here: write a host name \
         or an address that is not link-local"
    )]
    Zone,
    /// An address nobody can connect to: unspecified, broadcast or multicast.
    #[error("no server can be reached at this IP address")]
    NotAHost,
}

impl BackendAddress {
    /// Reads `host:port`, `ipv4:port` or `[ipv6]:port`, each with or without the `tcpip=` of a
    /// stateConnectionString before it.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.strip_prefix("tcpip=").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::NoBrackets);
        }
        // A closing bracket after the last colon: that colon belongs to the address.
        if port.is_empty() || port.ends_with(']') {
            return Err(AddressError::NoPort);
        }
        Ok(BackendAddress {
            host: BackendHost::parse(host)?,
            port: parse_port(port)?,
        })
    }

    /// The host.
    pub fn host(&self) -> &BackendHost {
        &self.host
    }

    /// Whether its host can only be the machine that asks.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match &self.host {
            BackendHost::Ip(ip) => ip.is_loopback(),
            BackendHost::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// Whether connections to it reach who listens on `listen`, as far as the address alone tells.
    pub fn reaches(&self, listen: SocketAddr) -> bool {
        let own = listen.ip().to_canonical();
        let is_host = match &self.host {
            BackendHost::Ip(ip) => *ip == own || (ip.is_loopback() && own.is_unspecified()),
            BackendHost::Name(name) => {
                name == "localhost" && (own.is_loopback() || own.is_unspecified())
            }
        };
        is_host && self.port == listen.port()
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        let host = BackendHost::Ip(address.ip().to_canonical());
        BackendAddress {
            host,
            port: address.port(),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            BackendHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            BackendHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl BackendHost {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let inner = bracketed.strip_suffix(']').ok_or(AddressError::BadIpv6)?;
            if inner.contains('%') {
                return Err(AddressError::Zone);
            }
            let address: Ipv6Addr = inner.parse().map_err(|_| AddressError::BadIpv6)?;
            return BackendHost::reachable(IpAddr::V6(address).to_canonical());
        }
        if let Ok(address) = text.parse() {
            return BackendHost::reachable(IpAddr::V4(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if !is_host_name(name) {
            return Err(AddressError::BadHost);
        }
        Ok(BackendHost::Name(name.to_ascii_lowercase()))
    }

    fn reachable(ip: IpAddr) -> Result<Self, AddressError> {
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || broadcast {
            return Err(AddressError::NotAHost);
        }
        Ok(BackendHost::Ip(ip))
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::BadPort);
    }
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or(AddressError::BadPort)
}

/// RFC 1123 section 2.1, and the underscores that Windows and container networks put into names. A
/// last label of digits alone would be a mistyped IPv4 address.
fn is_host_name(name: &str) -> bool {
    const MAX_NAME: usize = 253;
    const MAX_LABEL: usize = 63;
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= MAX_NAME
        && name.split('.').all(is_label)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Result<String, AddressError> {
        BackendAddress::parse(text).map(|address| address.to_string())
    }

    #[test]
    fn every_accepted_form_has_one_normal_form() {
        for (text, normal) in [
            ("10.0.0.11:42424", "10.0.0.11:42424"),
            ("tcpip=10.0.0.11:42424", "10.0.0.11:42424"),
            ("[::ffff:10.0.0.11]:42424", "10.0.0.11:42424"),
            ("[FD00:0::1]:1", "[fd00::1]:1"),
            ("State-A.Example.COM.:65535", "state-a.example.com:65535"),
            ("tcpip=3com.example:00080", "3com.example:80"),
            ("WEB_FARM_state-1:1", "web_farm_state-1:1"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(normal));
        }
    }

    #[test]
    fn faulty_addresses_say_what_is_wrong() {
        for (text, error) in [
            ("10.0.0.11", AddressError::NoPort),
            ("host:", AddressError::NoPort),
            ("[::1]", AddressError::NoPort),
            ("host:0", AddressError::BadPort),
            ("host:65536", AddressError::BadPort),
            ("host:+80", AddressError::BadPort),
            ("host:8a", AddressError::BadPort),
            ("fd00::1:42424", AddressError::NoBrackets),
            ("[fe80::1%eth0]:1", AddressError::Zone),
            ("[10.0.0.1]:1", AddressError::BadIpv6),
            ("[::1:1", AddressError::BadIpv6),
            ("10.0.0.256:1", AddressError::BadHost),
            ("010.0.0.1:1", AddressError::BadHost),
            (":1", AddressError::BadHost),
            ("-a.b:1", AddressError::BadHost),
            ("a..b:1", AddressError::BadHost),
            ("TCPIP=host:1", AddressError::BadHost),
            ("0.0.0.0:1", AddressError::NotAHost),
            ("[::]:1", AddressError::NotAHost),
            ("224.0.0.1:1", AddressError::NotAHost),
            ("255.255.255.255:1", AddressError::NotAHost),
        ] {
            assert_eq!(shown(text), Err(error), "{text}");
        }
        assert_eq!(
            shown(&format!("{}:1", "a".repeat(64))),
            Err(AddressError::BadHost)
        );
        assert_eq!(
            shown(&format!("{}b:1", "a.".repeat(127))),
            Err(AddressError::BadHost)
        );
    }

    #[test]
    fn who_listens_is_reached_at_its_address_and_over_loopback() {
        for (address, listen, reaches) in [
            ("10.0.0.5:1", "10.0.0.5:1", true),
            ("10.0.0.5:1", "10.0.0.5:2", false),
            ("10.0.0.6:1", "10.0.0.5:1", false),
            ("127.0.0.7:1", "0.0.0.0:1", true),
            ("[::1]:1", "[::]:1", true),
            ("10.0.0.5:1", "0.0.0.0:1", false),
            ("127.0.0.7:1", "127.0.0.1:1", false),
            ("localhost:1", "127.0.0.1:1", true),
            ("localhost:1", "10.0.0.5:1", false),
            ("state-a.example:1", "127.0.0.1:1", false),
        ] {
            let address = BackendAddress::parse(address).unwrap();
            assert_eq!(
                address.reaches(listen.parse().unwrap()),
                reaches,
                "{address} {listen}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_reads_back(text in "(tcpip=)?([a-zA-Z0-9.-]{1,12}|[0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9a-f:]{2,12}\\]):[0-9]{1,5}") {
            if let Ok(address) = BackendAddress::parse(&text) {
                prop_assert_eq!(BackendAddress::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
