//! The name that this machine gives itself.

use std::{env, fs};

/// The machine's own host name in lower case; empty if it cannot be told.
#[must_use]
pub fn own_host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.or_else(|_| env::var("COMPUTERNAME").map_err(|_| ()));
    name.unwrap_or_default().trim().to_ascii_lowercase()
}
