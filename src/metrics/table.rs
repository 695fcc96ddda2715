//! Every metric of a proxy and of a state server: name, type, labels, help. Nothing else names one.
//!
//! `docs/metrics.md` has the same rows; a test compares both with each other and with a scrape.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations by size.
    Histogram,
}

impl MetricKind {
    /// Its name in the text format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with all its label values.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it means, one line.
    pub help: &'static str,
}

macro_rules! families {
    ($(#[$list_doc:meta])* $list:ident; $($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Family = Family {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        $(#[$list_doc])*
        pub static $list: &[&Family] = &[$(&$id),*];
    };
}

families! {
    /// Those of a proxy, in the order of a scrape.
    ALL;
    REQUESTS: Counter "staterouter_requests_total" ["backend", "operation", "result"]
        "Requests of clients, each once; backend is the one that gave the final answer or failed to, empty when there was none.";
    FAILED_REQUESTS: Counter "staterouter_failed_requests_total" ["reason"]
        "Requests of clients that got no whole answer, or a 400 from the proxy or a backend.";
    PROXY_OVERHEAD: Histogram "staterouter_proxy_overhead_seconds" []
        "Time from the whole head of a request to its answer being handed to the client's connection, without the time waiting for backends.";
    HELD_REQUESTS: Counter "staterouter_held_requests_total" ["result"]
        "Requests of clients that waited because their backend could not be reached, by how that ended: answered, or failed all the same.";
    WAITING_REQUESTS: Gauge "staterouter_waiting_requests" []
        "Requests of clients that are waiting now because their backend cannot be reached.";
    LOCK_WAITS: Counter "staterouter_lock_waits_total" ["end"]
        "Requests of clients for a locked session, by how their wait for the lock ended: released, expired (locks.wait was over), called_off (its web server needed the thread), left (the client did, or the request failed); or by why they did not wait: refused (too many do, for this lock or in all, or the threads of its web server are busy) or hopeless (by what others have met, the lock is not released within locks.wait).";
    LOCK_WAITING_REQUESTS: Gauge "staterouter_lock_waiting_requests" []
        "Requests of clients that are waiting now for the lock of a session.";
    APPLICATION_REQUESTS: Counter "staterouter_application_requests_total" ["application", "operation", "result"]
        "Requests of clients by the applications of the partition map, and other for the rest; no series without applications there.";
    APPLICATION_SESSIONS: Gauge "staterouter_application_sessions" ["application"]
        "Sessions by the applications of the partition map, and other for the rest, as far as this proxy has seen; no series without applications there, or with accounting off.";
    APPLICATION_SESSION_BYTES: Gauge "staterouter_application_session_bytes" ["application"]
        "Bytes of their bodies.";
    APPLICATION_RENAMED: Counter "staterouter_application_renamed_requests_total" ["application"]
        "Requests that came under another id of the application, and were forwarded under the one that state servers know.";
    CONTENTS_APPLICATION_RATIO: Gauge "staterouter_contents_application_ratio" ["application"]
        "Share of the bytes of all sessions that an application has, of the ten with most; application is its id as web servers send it. No series with contents off.";
    CONTENTS_ITEM_RATIO: Gauge "staterouter_contents_item_ratio" ["application", "item"]
        "Share of the bytes of an application's sessions that an item takes, of the ten that take most, from 1 % on.";
    WEB_SERVER_REQUESTS: Counter "staterouter_web_server_requests_total" ["web_server"]
        "Requests by the address that they came from, and other for those beyond 256 addresses. The series of a web server goes when it has sent nothing for an hour.";
    WEB_SERVER_ABANDONED: Counter "staterouter_web_server_abandoned_requests_total" ["web_server"]
        "Requests whose client left before they were answered, a second or more after they had come: it waits shorter than timeouts.answer, or its process has ended.";
    CONTENDED_SESSIONS: Gauge "staterouter_contended_sessions" []
        "Sessions that most of their requests have found locked for a minute or longer.";
    LARGE_SESSIONS_STORED: Counter "staterouter_large_sessions_stored_total" []
        "Writes of sessions of large_session or more.";
    LOST_WRITES: Counter "staterouter_lost_writes_total" ["backend"]
        "Writes of clients that the backend refused because of a lock; ASP.NET ignores that, so what the page stored is lost.";
    OVERDUE_LOCKS: Counter "staterouter_overdue_locks_total" ["backend"]
        "Acquires refused because of a lock at least handover.takeover old: ASP.NET breaks such a lock next (a takeover), once per waiting page.";

    CLIENT_CONNECTIONS: Gauge "staterouter_client_connections" []
        "Client connections open now.";
    CLIENT_CONNECTIONS_OPENED: Counter "staterouter_client_connections_accepted_total" []
        "Client connections that were taken.";
    CLIENT_CONNECTIONS_REFUSED: Counter "staterouter_client_connections_refused_total" ["reason"]
        "Client connections that were closed unserved.";
    CLIENT_RECEIVED_BYTES: Counter "staterouter_client_received_bytes_total" []
        "Bytes that came from clients.";
    CLIENT_SENT_BYTES: Counter "staterouter_client_sent_bytes_total" []
        "Bytes that went to clients.";

    BACKEND_REQUESTS: Counter "staterouter_backend_requests_total" ["backend", "operation", "result"]
        "Exchanges with a backend: requests of clients, and the proxy's own to find, move and tidy up; without probes and without removals repeated after an outage. Counts by the status of the answer once its head is there.";
    BACKEND_REQUEST_DURATION: Histogram "staterouter_backend_request_duration_seconds" ["backend"]
        "Time from an exchange being ready to be sent to the head of its answer, connecting and a retry included, without the time in which the body is still coming from the client.";
    BACKEND_RETRIES: Counter "staterouter_backend_retries_total" ["backend"]
        "Exchanges that were sent again on a fresh connection because a pooled one was dead.";
    BACKEND_UNFIT_ANSWERS: Counter "staterouter_backend_unfit_answers_total" ["backend"]
        "Answers of a backend that no state server gives to what was asked, and connections on which something came that nobody had asked for. None is passed on.";
    BACKEND_CONNECTIONS: Gauge "staterouter_backend_connections" ["backend", "state"]
        "Connections to a backend: idle ones, exact to 100 ms, and busy ones, on which an answer is awaited.";
    BACKEND_CONNECTIONS_OPENED: Counter "staterouter_backend_connections_opened_total" ["backend"]
        "Connections to a backend that were opened, without those of probes.";
    BACKEND_CONNECT_FAILURES: Counter "staterouter_backend_connect_failures_total" ["backend"]
        "Connections to a backend that could not be opened, without those of probes.";
    BACKEND_RECEIVED_BYTES: Counter "staterouter_backend_received_bytes_total" ["backend"]
        "Bytes that came from a backend.";
    BACKEND_SENT_BYTES: Counter "staterouter_backend_sent_bytes_total" ["backend"]
        "Bytes that went to a backend.";

    BACKEND_UP: Gauge "staterouter_backend_up" ["backend"]
        "1 unless the backend's health says down.";
    BACKEND_ADDRESS: Gauge "staterouter_backend_address_info" ["backend", "address"]
        "1 for the IP address and port where the backend is asked; no series while there is none.";
    BACKEND_STATE: Gauge "staterouter_backend_state" ["backend", "state"]
        "1 for the state the backend is in, 0 for the others: off if the map says so, else down or suspect if its health does, else draining or up.";
    BACKEND_HEALTH_CHANGES: Counter "staterouter_backend_health_changes_total" ["backend", "to"]
        "Changes of a backend's health.";
    BACKEND_PROBES: Counter "staterouter_backend_probes_total" ["backend", "result"]
        "Probes of a backend.";
    BACKEND_SLOTS_OWNED: Gauge "staterouter_backend_slots_owned" ["backend"]
        "Slots that the partition map gives the backend.";
    BACKEND_SLOTS_SERVED: Gauge "staterouter_backend_slots_served" ["backend"]
        "Slots whose sessions are looked for at the backend first; more or fewer than it owns while it is failed over.";
    BACKEND_PENDING_DELETES: Gauge "staterouter_backend_pending_deletes" ["backend"]
        "Deletes that the backend has missed and gets before it is served from again.";

    BACKEND_SESSIONS: Gauge "staterouter_backend_sessions" ["backend"]
        "Sessions that live at the backend, as far as this proxy has seen; an estimate once there are more than it can follow.";
    BACKEND_SESSION_BYTES: Gauge "staterouter_backend_session_bytes" ["backend"]
        "Bytes of their bodies: what the web servers have stored.";
    BACKEND_COPIES: Gauge "staterouter_backend_copies" ["backend"]
        "Sessions of other backends of which the backend keeps the copy; an estimate. No series without replicas in the partition map, or while sessions are not counted.";
    BACKEND_COPY_BYTES: Gauge "staterouter_backend_copy_bytes" ["backend"]
        "Bytes of these copies.";
    BACKEND_CAPACITY_SESSIONS: Gauge "staterouter_backend_capacity_sessions" ["backend"]
        "Sessions that the backend can hold, as the partition map says; no series without a limit.";
    BACKEND_CAPACITY_BYTES: Gauge "staterouter_backend_capacity_bytes" ["backend"]
        "Bytes of sessions' bodies that the backend can hold, as the partition map or the memory of its Redis says; no series without a limit.";
    ENGINE_MEMORY_BYTES: Gauge "staterouter_engine_memory_bytes" ["backend"]
        "Memory that the Redis of the backend uses, all servers together, for whatever; no series for other backends.";
    ENGINE_MAX_MEMORY_BYTES: Gauge "staterouter_engine_max_memory_bytes" ["backend"]
        "Its maxmemory, all servers together; no series if one of them has none.";
    BACKEND_USED_RATIO: Gauge "staterouter_backend_used_ratio" ["backend"]
        "Share of the backend's capacity in use, of sessions or of bytes, whichever is more; 1 is full, and it may be more. No series without a capacity.";
    BACKEND_SECONDS_TO_FULL: Gauge "staterouter_backend_seconds_to_full" ["backend"]
        "Time until the backend's capacity is used up at the pace of the last ten minutes; 0 if it is, +Inf if it is not growing or takes more than 30 days. No series without a capacity, in the first minute, and in a handover.";

    HANDOVER_ACTIVE: Gauge "staterouter_handover_active" []
        "1 while any slot is in a handover (settle, move1, move2, turned).";
    SLOTS: Gauge "staterouter_slots" ["stage"]
        "Slots by what is going on in them; all 16,384 are steady when nothing is.";
    REPLICA_SLOTS: Gauge "staterouter_replica_slots" ["phase"]
        "Slots by how far their replicas are: full ones lose no session with a backend. No series without `replicas` in the partition map.";
    SESSIONS_UNPROTECTED: Gauge "staterouter_sessions_unprotected" []
        "Sessions that would be lost if one backend failed now, the one whose failure would cost most. No series without `replicas` in the partition map, or while sessions are not counted.";
    SESSIONS_MOVED: Counter "staterouter_sessions_moved_total" ["from", "to"]
        "Sessions moved from one backend to another.";
    SESSION_MOVES_FAILED: Counter "staterouter_session_moves_failed_total" ["step"]
        "Moves of a session that failed: at insert the session is whole where it was, and is served there if its new backend has refused it; at take it is whole where it was to go.";
    SESSIONS_OUT_OF_REACH: Counter "staterouter_sessions_out_of_reach_total" ["backend"]
        "Reads and acquires answered 404 because another backend stands in for this one: if it held the session, a user has lost it.";
    SESSIONS_RESTORED: Counter "staterouter_sessions_restored_total" ["backend"]
        "Sessions that this backend had lost, as by a restart, and that were stored there anew from their copies.";

    FINDINGS: Gauge "staterouter_findings" ["code", "level"]
        "Findings of a kind now: what is wrong or going on, as in /status.";

    CERTIFICATE_EXPIRY: Gauge "staterouter_certificate_expiry_timestamp_seconds" ["certificate"]
        "Until when a certificate in force is valid: `listen` and `admin` are what clients are shown, `backends`, `peers` and `backend NAME` what those are shown. Of several in one file, the one that ends first. If nothing is shown, the end of the last authority that is trusted.";

    MAP_VERSION: Gauge "staterouter_map_version" []
        "Version of the partition map in force.";
    MAP_RELOADS: Counter "staterouter_map_reloads_total" ["result"]
        "Times both files were read again.";
    MAP_LAST_RELOAD: Gauge "staterouter_map_last_reload_timestamp_seconds" []
        "When both files were last read again; 0 if that was at the start.";
    MAP_LAST_RELOAD_SUCCESS: Gauge "staterouter_map_last_reload_success" []
        "0 if what the files said then was refused, else 1.";

    BUILD_INFO: Gauge "staterouter_build_info" ["version"]
        "1; version of the program.";
    ADMIN_REFUSED: Counter "staterouter_admin_requests_refused_total" ["reason"]
        "Requests to the admin server that were refused because of who sent them.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "User and system CPU time of the process.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the process was started, Unix time.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Most open file descriptors the system allows.";
    PROCESS_VIRTUAL_MEMORY: Gauge "process_virtual_memory_bytes" []
        "Virtual memory.";
    PROCESS_RESIDENT_MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory.";
}

families! {
    /// Those that only a state server has, in the order of a scrape. It also has some of [`ALL`]: its
    /// findings, its certificate, its version, refused requests to its admin server, its process.
    OF_STATE_SERVER;
    STATE_SERVER_SESSIONS: Gauge "staterouter_state_server_sessions" []
        "Sessions that a state server holds, those included that have expired in the last few seconds.";
    STATE_SERVER_SESSION_BYTES: Gauge "staterouter_state_server_session_bytes" []
        "Bytes of their bodies.";
    STATE_SERVER_MEMORY_BYTES: Gauge "staterouter_state_server_memory_bytes" []
        "What they cost with keys and administration: what --max-memory limits.";
    STATE_SERVER_MAX_MEMORY_BYTES: Gauge "staterouter_state_server_max_memory_bytes" []
        "The limit; no series without --max-memory.";
    STATE_SERVER_REFUSED: Counter "staterouter_state_server_refused_sessions_total" []
        "New sessions refused because of the limit.";
    STATE_SERVER_EXPIRED: Counter "staterouter_state_server_expired_sessions_total" []
        "Sessions expired.";
    STATE_SERVER_DISK_WRITABLE: Gauge "staterouter_state_server_disk_writable" []
        "1 if the disk takes writes, 0 if every write is refused. No series of a disk without --data.";
    STATE_SERVER_DISK_FILE_BYTES: Gauge "staterouter_state_server_disk_file_bytes" []
        "Length of all files of sessions.";
    STATE_SERVER_DISK_LIVE_BYTES: Gauge "staterouter_state_server_disk_live_bytes" []
        "The part of it that sessions need.";
    STATE_SERVER_DISK_FREE_BYTES: Gauge "staterouter_state_server_disk_free_bytes" []
        "How much more fits on the volume; no series where it does not say.";
    STATE_SERVER_DISK_SYNCS: Counter "staterouter_state_server_disk_syncs_total" []
        "Syncs of the disk.";
    STATE_SERVER_DISK_SYNC_SECONDS: Counter "staterouter_state_server_disk_sync_seconds_total" []
        "Time that they took.";
}
