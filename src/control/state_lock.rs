//! One state file, one proxy: a second one would go on from where the first was, and each would
//! write over what the other knows.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The right to a state file and what is kept beside it. The kernel takes it back with the process,
/// however that ends.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
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
    pub(super) fn take(path: &Path, lock: &Path) -> Result<Self, StateLockError> {
        let failed = |problem| StateLockError::Lock {
            path: path.to_owned(),
            lock: lock.to_owned(),
            problem,
        };
        // The state file itself cannot be locked: every write replaces it.
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(lock).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(StateLockError::InUse {
                path: path.to_owned(),
            }),
            Err(error) => Err(failed(error.into())),
        }
    }
}
