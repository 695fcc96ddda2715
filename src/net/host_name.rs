//! The name that this machine gives itself.

use crate::os;

/// The machine's own host name in lower case; empty if it cannot be told.
#[must_use]
pub fn own_host_name() -> String {
    os::host_name().trim().to_ascii_lowercase()
}
