//! Windows.

mod files;
mod machine;
mod process;
mod service;
mod signals;
mod sockets;

pub use files::{
    FileId, FileTimes, NameLock, REPLACES_OPEN_FILES, SyncedDirectory, file_id, file_times,
    free_bytes, make_private_directory, open_without_waiting, owner_only, read_exact_at, to_lock,
    write_all_at,
};
pub use machine::{host_name, monotonic_ns, since_boot};
pub use process::{SHARES_PORTS, is_shortage, outlive_time_wait, raise_open_files, share_port};
pub use service::{
    ServiceError, ServiceEvent, install_service, log_event, run_as_service, service_folder,
    service_state, start_service, stop_service, tell_manager, uninstall_service,
    wanted_signs_of_life,
};
pub use signals::{ServiceRequest, Signals, control};
pub use sockets::{SHORT_READ_EMPTIES, receive, send};
