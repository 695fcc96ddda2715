//! Values of the files as command line arguments.

pub use ipnet::IpNet as Network;

use super::allow::NETWORK;
use super::units::{self, SIZE};

/// Reads a size with its unit, such as `512MiB`, into bytes.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_size(text: &str) -> Result<u64, String> {
    units::parse(text, SIZE).map_err(|_| "write a number and its unit, such as `512MiB`".to_owned())
}

/// Reads an address or network, such as `10.0.0.7` or `10.0.0.0/24`.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_network(text: &str) -> Result<Network, String> {
    (NETWORK.parse)(text).map_err(|mistake| mistake.help.unwrap_or(mistake.problem))
}
