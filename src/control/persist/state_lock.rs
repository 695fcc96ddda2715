//! One state file, one proxy: a second one would go on from where the first was, and each would
//! write over what the other knows.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::open_regular;
use crate::os::{self, NameLock};
use crate::route::HashKey;

/// The right to a state file and what is kept beside it. The kernel takes it back with the process,
/// however that ends.
///
/// The file is locked for all machines and containers that share the disk. It can be deleted, and
/// another one be locked in its place; the name in the kernel cannot.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
    _name: NameLock,
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
        let name = match NameLock::take(path, |bytes| HashKey::DEFAULT.hash(bytes)) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(in_use()),
            Err(error) => return Err(failed(error)),
        };
        // The state file itself cannot be locked: every write replaces it.
        let file = open_regular(lock, &os::to_lock()).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                _file: file,
                _name: name,
            }),
            Err(TryLockError::WouldBlock) => Err(in_use()),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
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
