//! One state file, one proxy: a second one would go on from where the first was, and each would
//! write over what the other knows.

use std::fs::{File, OpenOptions, metadata};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::config::open_regular;
use crate::route::HashKey;

/// The right to a state file and what is kept beside it. The kernel takes it back with the process,
/// however that ends.
///
/// The file is locked for all machines and containers that share the disk. It can be deleted, and
/// another one be locked in its place; the name in the kernel cannot.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
    _name: UnixListener,
}

/// The state file cannot be had for this proxy alone.
#[derive(Debug, thiserror::Error)]
pub enum StateLockError {
    /// Somebody else has it.
    #[error(
        "another proxy that runs uses the state file {}; each needs a handover.state_file of its own",
        path.display()
    )]
    InUse {
        /// The state file.
        path: PathBuf,
    },
    /// The operating system gives no lock.
    #[error("cannot lock the state file {} with {}: {problem}", path.display(), lock.display())]
    Lock {
        /// The state file.
        path: PathBuf,
        /// The file that is locked in its place.
        lock: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
}

impl StateLock {
    /// Takes the state file at `path`, which need not exist, by the file at `lock`. That one stays:
    /// whoever removed it could remove the lock of somebody else.
    ///
    /// # Errors
    /// [`StateLockError`].
    pub(crate) fn take(path: &Path, lock: &Path) -> Result<Self, StateLockError> {
        let failed = |problem| StateLockError::Lock {
            path: path.to_owned(),
            lock: lock.to_owned(),
            problem,
        };
        let in_use = || StateLockError::InUse {
            path: path.to_owned(),
        };
        let name = match name_of(path).and_then(|name| UnixListener::bind_addr(&name)) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(in_use()),
            Err(error) => return Err(failed(error)),
        };
        // The state file itself cannot be locked: every write replaces it.
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = open_regular(lock, options).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                _file: file,
                _name: name,
            }),
            Err(Errno::WOULDBLOCK) => Err(in_use()),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// The name in the kernel for the state file at `path`, by whichever way its directory is reached.
fn name_of(path: &Path) -> io::Result<SocketAddr> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let directory = metadata(directory)?;
    let file = path.file_name().unwrap_or_default().as_bytes();
    let (device, inode) = (directory.dev().to_be_bytes(), directory.ino().to_be_bytes());
    let hash = HashKey::DEFAULT.hash(&[&device, &inode, file].concat());
    SocketAddr::from_abstract_name(format!("staterouter/state/{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_whose_file_was_deleted_is_still_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let lock = StateLock::take(&path("state"), &path("state.lock")).unwrap();
        fs::remove_file(path("state.lock")).unwrap();
        let again = StateLock::take(&path("state"), &path("state.lock"));
        let again = again.unwrap_err();
        assert!(matches!(again, StateLockError::InUse { .. }), "{again}");
        let _other = StateLock::take(&path("other"), &path("other.lock")).unwrap();
        drop(lock);
        StateLock::take(&path("state"), &path("state.lock")).unwrap();
    }
}
