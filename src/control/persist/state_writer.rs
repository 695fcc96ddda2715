//! Writes the state file without waiting for a disk that hangs.

use std::io;
use std::path::{Path, PathBuf};

use super::state_file::{self, StateFileError};
use crate::control::boot_moment::BootMoment;
use crate::control::file_thread::FileThread;
use crate::control::pool_state::persisted_state::PersistedState;

/// The one writer of a state file.
#[derive(Debug)]
pub(crate) struct StateWriter {
    path: PathBuf,
    thread: FileThread,
    /// The file may hold a state that never came into force.
    is_unsure: bool,
}

impl StateWriter {
    /// For the file at `path`, which need not exist.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(path: &Path) -> io::Result<Self> {
        Ok(Self::with(path, FileThread::start("state file")?))
    }

    pub(crate) fn with(path: &Path, thread: FileThread) -> Self {
        Self {
            path: path.to_owned(),
            thread,
            is_unsure: false,
        }
    }

    /// Writes `memory` down: when this returns, it survives the end of the machine.
    ///
    /// # Errors
    /// Those of [`state_file::write`], and a disk that does not answer in time: it may still take
    /// what was not put in force, so what is in force has to be written again.
    pub(crate) fn write(
        &mut self,
        memory: PersistedState,
        now: BootMoment,
    ) -> Result<(), StateFileError> {
        let path = self.path.clone();
        let written = self
            .thread
            .run(move || state_file::write(&path, &memory, now));
        let written = written.unwrap_or_else(|problem| {
            Err(StateFileError::Write {
                path: self.path.clone(),
                problem,
            })
        });
        self.is_unsure = written.is_err();
        written
    }

    /// Whether the last write has failed: nobody knows what the file holds.
    pub(crate) fn is_unsure(&self) -> bool {
        self.is_unsure
    }
}
