//! Which clients may connect.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::kinds::{Mistake, Text};
use super::printable::quoted;

/// The clients that may use the proxy: those on loopback, and those in the listed networks.
///
/// An IPv4 client that arrives as an IPv4-mapped IPv6 address is judged by its IPv4 address; so
/// `::/0` allows all IPv6 clients and no IPv4 client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList {
    networks: Vec<IpNet>,
}

impl AllowList {
    /// Loopback and `networks`.
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        AllowList { networks }
    }

    /// Whether the client at `address` may use the proxy.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || self
                .networks
                .iter()
                .any(|network| network.contains(&address))
    }

    /// The networks that let every machine of their family in.
    pub fn for_everybody(&self) -> impl Iterator<Item = &IpNet> {
        self.networks.iter().filter(|network| is_everybody(network))
    }

    /// Whether only loopback clients are allowed.
    pub fn is_loopback_only(&self) -> bool {
        self.networks.is_empty()
    }
}

/// An entry of the list: an address or a network.
pub(crate) const NETWORK: Text<IpNet> = Text {
    wanted: "an IP address or a network, such as `10.0.0.7` or `10.0.0.0/24`",
    pattern: Some("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"),
    parse: parse_network,
    write: IpNet::to_string,
    secret: false,
};

/// Whether a network holds all addresses of its family.
pub(super) fn is_everybody(network: &IpNet) -> bool {
    network.prefix_len() == 0
}

fn parse_network(text: &str) -> Result<IpNet, Mistake> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    if text.contains('%') {
        let problem = format!("{} has an IPv6 zone", quoted(text));
        let help =
            "write the address without `%` and what follows: it is compared without its zone";
        return Err(Mistake::with_help(problem, help));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(Mistake::new(format!(
            "{} is not an IP address or network",
            quoted(text)
        )));
    };
    if network.trunc() != network {
        return Err(Mistake::with_help(
            format!("{} has bits set beyond its prefix", quoted(text)),
            format!(
                "write `{}` for the whole network, or `{}` for this one address",
                network.trunc(),
                network.addr()
            ),
        ));
    }
    Ok(unmapped(network))
}

/// An IPv4-mapped network as the IPv4 network it stands for, because clients are judged so.
fn unmapped(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let mapped = network.prefix_len().checked_sub(MAPPED_PREFIX);
    match (network.addr().to_canonical(), mapped) {
        (IpAddr::V4(address), Some(prefix)) if matches!(network, IpNet::V6(_)) => {
            Ipv4Net::new(address, prefix).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::new(
            entries
                .iter()
                .map(|entry| parse_network(entry).unwrap())
                .collect(),
        )
    }

    #[track_caller]
    fn assert_allows(entries: &[&str], allowed: &[&str], refused: &[&str]) {
        let list = list(entries);
        for address in allowed {
            assert!(list.allows(address.parse().unwrap()), "{address}");
        }
        for address in refused {
            assert!(!list.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_empty_list_allows_loopback_only() {
        assert_allows(
            &[],
            &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"],
            &["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1"],
        );
        assert!(list(&[]).is_loopback_only());
    }

    #[test]
    fn a_bare_address_allows_just_itself() {
        assert_allows(
            &["10.0.0.7", "fd00::7"],
            &["10.0.0.7", "::ffff:10.0.0.7", "fd00::7", "127.0.0.1"],
            &["10.0.0.6", "10.0.0.8", "fd00::8"],
        );
    }

    #[test]
    fn a_network_allows_its_first_and_last_address() {
        assert_allows(
            &["10.0.4.0/22", "fd00:1::/32"],
            &[
                "10.0.4.0",
                "10.0.7.255",
                "::ffff:10.0.5.1",
                "fd00:1::",
                "fd00:1:ffff::1",
            ],
            &["10.0.3.255", "10.0.8.0", "fd00:2::"],
        );
    }

    #[test]
    fn mapped_entries_mean_ipv4_and_all_of_ipv6_does_not() {
        assert_allows(
            &["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"],
            &["10.255.0.1", "192.0.2.1"],
            &["11.0.0.1"],
        );
        assert_allows(
            &["::/0"],
            &["2001:db8::1"],
            &["10.0.0.1", "::ffff:10.0.0.1"],
        );
    }

    #[test]
    fn host_bits_are_refused_with_the_right_network() {
        let help = |text| parse_network(text).unwrap_err().help.unwrap();
        assert!(help("10.0.0.1/8").contains("`10.0.0.0/8`"));
        assert!(help("fd00::1/16").contains("`fd00::/16`"));
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "::/129",
            "example.com",
            "10.0.0.0/",
            "10.0.0.1 ",
        ] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
