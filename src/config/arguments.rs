//! Values of the files as command line arguments.

use std::time::Duration;

pub use ipnet::IpNet as Network;

use super::address::BackendAddress;
use super::allow::NETWORK;
use super::kinds::{Mistake, Text};
use super::sections::NAME;
use super::sections::{HOST_NAME, PEER};
use super::units::{self, SIZE, TIME};

/// Reads a size with its unit, such as `512MiB`, into bytes.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_size(text: &str) -> Result<u64, String> {
    units::parse(text, SIZE).map_err(|_| "write a number and its unit, such as `512MiB`".to_owned())
}

/// Writes a number of bytes as [`parse_size`] reads it, in the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    units::format(bytes, SIZE)
}

/// Reads a duration with its unit, such as `500ms` or `2m`.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = units::parse(text, TIME).map(Duration::from_millis);
    duration.map_err(|_| "write a number and its unit, such as `500ms`, `10s` or `2m`".to_owned())
}

/// Reads an address or network, such as `10.0.0.7` or `10.0.0.0/24`.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_network(text: &str) -> Result<Network, String> {
    parse(&NETWORK, text)
}

/// Reads the address of an admin server, such as `127.0.0.1:42480`.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_admin(text: &str) -> Result<BackendAddress, String> {
    parse(&PEER, text)
}

/// Reads the name of a host, such as `proxy-a.example`, into lower case.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_host_name(text: &str) -> Result<String, String> {
    parse(&HOST_NAME, text)
}

/// Reads the name of a backend, such as `state-a`.
///
/// # Errors
/// A text for the person who wrote the argument.
pub fn parse_backend_name(text: &str) -> Result<String, String> {
    parse(&NAME, text)
}

fn parse<T>(kind: &Text<T>, text: &str) -> Result<T, String> {
    let mistake = |Mistake { problem, help }| help.unwrap_or(problem);
    (kind.parse)(text).map_err(mistake)
}
