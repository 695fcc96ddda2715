//! Limits of the process.

use crate::os;

/// Descriptors of the process beside those of its workers: standard streams, signals, files.
const OTHER_DESCRIPTORS: u64 = 64;

/// Descriptors of one worker beside its connections: listener, event queue, name lookups, a
/// connection that waits for its place.
const WORKER_DESCRIPTORS: u64 = 16;

/// What a server needs open files for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Client connections wanted at a time.
    pub(super) connections: usize,
    /// Descriptors each of them takes while its request is in progress.
    pub(super) per_connection: u64,
    /// Connections that may be kept idle beside those, at most one per client connection is
    /// counted.
    pub(super) idle: u64,
    /// Threads.
    pub(super) workers: usize,
    /// Connections that have nothing to do with clients: what is asked of this process as a program,
    /// and what it asks of others by itself.
    pub(super) own: usize,
}

/// Raises the limit on open files as far as the system lets us: one process may hold several
/// servers. Returns how many client connections fit, at least 1 and at most those wanted, and says
/// so when it is fewer.
pub(super) fn connections_that_fit(descriptors: &Descriptors) -> usize {
    let wanted = descriptors.for_connections(descriptors.connections as u64);
    let open_files = os::raise_open_files(wanted);
    let fitting = descriptors.connections_within(open_files);
    if fitting < descriptors.connections {
        tracing::warn!(
            connections = fitting,
            configured = descriptors.connections,
            open_files,
            wanted,
            "fewer connections are served than configured, for the limit on open files is too low; \
             raise 'ulimit -n' (LimitNOFILE= in a systemd unit)"
        );
    }
    fitting
}

impl Descriptors {
    /// Open files for `connections` clients.
    ///
    /// An idle connection was in use before, by a client that was served, so that more of them than
    /// clients come only from peaks at one backend after another within seconds. Counting every
    /// place in every pool instead would leave no room for clients where backends are many.
    fn for_connections(&self, connections: u64) -> u64 {
        self.fixed() + self.per_connection * connections + self.idle.min(connections)
    }

    /// The most connections whose open files are within `open_files`; at least 1.
    fn connections_within(&self, open_files: u64) -> usize {
        let free = open_files.saturating_sub(self.fixed());
        let each_with_idle = free / (self.per_connection + 1);
        let fitting = if each_with_idle <= self.idle {
            each_with_idle
        } else {
            (free - self.idle) / self.per_connection
        };
        usize::try_from(fitting)
            .unwrap_or(usize::MAX)
            .clamp(1, self.connections.max(1))
    }

    fn fixed(&self) -> u64 {
        OTHER_DESCRIPTORS + WORKER_DESCRIPTORS * self.workers as u64 + self.own as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_many_fit_as_the_limit_allows_and_not_one_more(
            connections in 1usize..100_000,
            per_connection in 1u64..=2,
            idle in 0u64..200_000,
            workers in 1usize..=256,
            own in 0usize..=500,
            open_files in 0u64..1_000_000,
        ) {
            let descriptors = Descriptors { connections, per_connection, idle, workers, own };
            let fitting = descriptors.connections_within(open_files) as u64;
            prop_assert!((1..=connections as u64).contains(&fitting));
            if fitting > 1 {
                prop_assert!(descriptors.for_connections(fitting) <= open_files);
            }
            if fitting < connections as u64 {
                prop_assert!(descriptors.for_connections(fitting + 1) > open_files);
            }
        }
    }
}
