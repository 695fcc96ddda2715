//! Limits of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside connections: listeners, event queues, files.
const OTHER_DESCRIPTORS: u64 = 128;

/// Raises the limit on open files as far as the system lets us, and says so when `connections` of
/// all kinds would not fit.
pub fn raise_open_files(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + OTHER_DESCRIPTORS;
    let possible = limit
        .maximum
        .unwrap_or(wanted)
        .max(limit.current.unwrap_or(wanted));
    let raised = Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    let in_force = if setrlimit(Resource::Nofile, raised).is_ok() {
        possible
    } else {
        limit.current.unwrap_or(wanted)
    };
    if in_force < wanted {
        tracing::warn!(
            open_files = in_force,
            wanted,
            "the limit on open files is low for this many connections; raise 'ulimit -n' \
             (LimitNOFILE= in a systemd unit)"
        );
    }
}
