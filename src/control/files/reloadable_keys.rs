//! Which keys of the main file take effect while the proxy runs.

use crate::config::Config;

/// The config to go on with after the main file has changed from `old` to `new`: what takes a
/// restart stays as it was, and is named.
pub fn merge(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let mut merged = new;
    let mut kept = Vec::new();
    let mut keep = |key, differs: bool| {
        if differs {
            kept.push(key);
        }
        differs
    };
    // Sockets, threads and files are opened once.
    if keep("listen", merged.listen != old.listen) {
        merged.listen = old.listen;
    }
    if keep("tls", merged.tls != old.tls) {
        merged.tls.clone_from(&old.tls);
    }
    keep("backend_tls", merged.backend_tls != old.backend_tls);
    keep("peer_tls", merged.peer_tls != old.peer_tls);
    // With what was made of the files.
    merged.backend_tls.clone_from(&old.backend_tls);
    merged.peer_tls.clone_from(&old.peer_tls);
    if keep("admin.tls", merged.admin.tls != old.admin.tls) {
        merged.admin.tls.clone_from(&old.admin.tls);
    }
    if keep("partition_map", merged.partition_map != old.partition_map) {
        merged.partition_map.clone_from(&old.partition_map);
    }
    if keep("workers", merged.workers != old.workers) {
        merged.workers = old.workers;
    }
    if keep("admin.listen", merged.admin.listen != old.admin.listen) {
        merged.admin.listen = old.admin.listen;
    }
    let state_file = &old.handover.state_file;
    if keep(
        "handover.state_file",
        merged.handover.state_file != *state_file,
    ) {
        merged.handover.state_file.clone_from(state_file);
    }
    if keep("log.format", merged.log.format != old.log.format) {
        merged.log.format = old.log.format;
    }
    // What a worker needs before it knows which request it serves.
    let connections = old.limits.client_connections;
    let differs = merged.limits.client_connections != connections;
    if keep("limits.client_connections", differs) {
        merged.limits.client_connections = connections;
    }
    let accept_wait = old.timeouts.accept_wait;
    if keep(
        "timeouts.accept_wait",
        merged.timeouts.accept_wait != accept_wait,
    ) {
        merged.timeouts.accept_wait = accept_wait;
    }
    let shutdown = old.timeouts.shutdown;
    if keep("timeouts.shutdown", merged.timeouts.shutdown != shutdown) {
        merged.timeouts.shutdown = shutdown;
    }
    (merged, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "partition_map: map.yaml\n";

    fn config(text: &str) -> Config {
        Config::parse(text, "/etc/staterouter/main.yaml").unwrap()
    }

    #[test]
    fn what_takes_a_restart_stays_and_is_named() {
        let old = config(OLD);
        for (key, yaml) in [
            ("listen", "listen: 127.0.0.1:1"),
            ("workers", "workers: 3"),
            ("admin.listen", "admin: {listen: off}"),
            ("tls", "tls: {cert: c, key: k}"),
            ("backend_tls", "backend_tls: {ca: ca}"),
            ("peer_tls", "peer_tls: {ca: ca}"),
            ("admin.tls", "admin: {tls: {cert: c, key: k}}"),
            ("handover.state_file", "handover: {state_file: other}"),
            ("log.format", "log: {format: json}"),
            (
                "limits.client_connections",
                "limits: {client_connections: 5}",
            ),
            ("timeouts.accept_wait", "timeouts: {accept_wait: 3s}"),
            ("timeouts.shutdown", "timeouts: {shutdown: 3s}"),
        ] {
            let new = config(&format!("{OLD}{yaml}"));
            assert_ne!(new, old, "{key}");
            assert_eq!(merge(&old, new), (old.clone(), vec![key]));
        }
        let new = config("partition_map: other.yaml");
        assert_eq!(merge(&old, new), (old.clone(), vec!["partition_map"]));
        assert_eq!(merge(&old, old.clone()), (old, vec![]));
    }

    #[test]
    fn everything_else_is_taken_over() {
        let old = config(OLD);
        for yaml in [
            "allow: [10.0.0.0/8]",
            "limits: {head: 1KiB, body: 1MiB, idle_backend_connections: 1}",
            "timeouts: {connect: 1s, answer: 3s, client_idle: 3s, client_stall: 3s, backend_idle: 3s}",
            "health: {interval: 3s, fall: 1}",
            "handover: {settle: 50s, failover: off, max_moved_share: 3}",
            "locks: {wait: 0s}",
            "accounting: off",
            "contents: off",
            "peers: [\"10.0.0.6:42480\"]",
            "log: {level: debug}",
            "admin: {token_file: token}",
        ] {
            let new = config(&format!("{OLD}{yaml}"));
            assert_ne!(new, old, "{yaml}");
            assert_eq!(merge(&old, new.clone()), (new, vec![]), "{yaml}");
        }
        // The rest of a file that also changes what cannot be.
        let (merged, kept) = merge(
            &old,
            config(&format!("{OLD}workers: 3\nlog: {{level: debug}}")),
        );
        assert_eq!(kept, ["workers"]);
        assert_eq!(merged, config(&format!("{OLD}log: {{level: debug}}")));
    }
}
