//! Removals that a server out of reach has missed: it is told of them when it returns, or a
//! removed session would come back with it.
//!
//! A journal, one JSON line each, beside the state file. A line is in the hands of the operating
//! system before the client has its answer, so it survives the end of the process, by whatever
//! signal. It names the backend: what one has missed must never be removed at another one that has
//! got its id since. Targets are secrets: only the file's owner may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state_file::replace;
use crate::config::{open_regular, read_regular};
use crate::control::file_thread::FileThread;
use crate::handover::BackendId;
use crate::os;

/// Most deletes that are pending at a time; more are refused.
pub const MAX_PENDING: usize = 100_000;

/// Longest journal that is read; it never grows longer.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The deletes that backends have missed, in memory and on disk.
#[derive(Debug)]
pub struct PendingDeletes {
    path: PathBuf,
    thread: FileThread,
    journal: Option<Arc<File>>,
    journal_bytes: u64,
    /// A write has failed half-way and could not be undone, may still be going on, or `journal` is
    /// no longer the file at `path`: nothing can be appended before it has been written anew.
    is_torn: bool,
    by_backend: ByBackend,
    count: usize,
}

type ByBackend = BTreeMap<BackendId, BackendDeletes>;

/// What one backend has missed.
#[derive(Debug)]
struct BackendDeletes {
    /// Its name.
    backend: String,
    /// Not empty.
    targets: BTreeSet<Vec<u8>>,
}

/// Why a delete cannot be noted, or the journal not be used.
#[derive(Debug, thiserror::Error)]
pub enum PendingDeletesError {
    /// The operating system does not give the journal.
    #[error("cannot read the journal of pending deletes {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The journal is not what this program writes.
    #[error(
        "line {line} of the journal of pending deletes {} is damaged; without the file, sessions that \
         ended while their backend was down come back with it",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The operating system does not take a line.
    #[error("cannot write the journal of pending deletes {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The clients have removed too much.
    #[error("{MAX_PENDING} deletes are pending already")]
    Full,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// The id of the backend.
    place: u8,
    /// The name of the backend that had the id then.
    backend: String,
    /// In hexadecimal digits: a target may be any bytes.
    target: String,
}

impl PendingDeletes {
    /// Opens the journal at `path`, which need not exist. `name_of` gives the name of the backend
    /// that has an id now: what another one has missed that had the id before is forgotten.
    ///
    /// # Errors
    /// [`PendingDeletesError`]. A last line without its end is none: nobody was told that it was kept.
    pub fn open<'m>(
        path: &Path,
        name_of: impl Fn(BackendId) -> Option<&'m str>,
    ) -> Result<Self, PendingDeletesError> {
        let failed = |problem| write_error(path, problem);
        let by_backend = read(path, name_of)?;
        let journal = open(path).map_err(failed)?;
        let mut pending = Self {
            path: path.to_owned(),
            thread: FileThread::start("journal").map_err(failed)?,
            journal: Some(Arc::new(journal)),
            journal_bytes: 0,
            is_torn: false,
            count: by_backend
                .values()
                .map(|deletes| deletes.targets.len())
                .sum(),
            by_backend,
        };
        pending.compact()?;
        Ok(pending)
    }

    /// Keeps a removal for the server at `to`, by its name `backend`. When this returns it survives
    /// the process.
    ///
    /// # Errors
    /// [`PendingDeletesError::Full`], [`PendingDeletesError::Write`]: the removal is not kept.
    pub fn append(
        &mut self,
        to: BackendId,
        backend: &str,
        target: &[u8],
    ) -> Result<(), PendingDeletesError> {
        self.keep(to, Some(backend))?;
        // Then not even what is known must be in the file.
        if self.is_torn {
            return Err(self.write_error(io::ErrorKind::InvalidData.into()));
        }
        if self
            .by_backend
            .get(&to)
            .is_some_and(|deletes| deletes.targets.contains(target))
        {
            return Ok(());
        }
        let line = line(to, backend, target).map_err(|problem| self.write_error(problem))?;
        let bytes = self.journal_bytes + line.len() as u64;
        if self.count >= MAX_PENDING || bytes > MAX_FILE_BYTES {
            return Err(PendingDeletesError::Full);
        }
        let Some(journal) = self.journal.clone() else {
            return Err(self.write_error(io::ErrorKind::NotFound.into()));
        };
        let whole_bytes = self.journal_bytes;
        let written = self.thread.run(move || {
            let written = (&*journal).write_all(&line);
            // The next line must not begin where this one broke off.
            written.map_err(|problem| (problem, journal.set_len(whole_bytes).is_err()))
        });
        // One that the disk has not answered for may come after the next.
        let written = written.unwrap_or_else(|late| Err((late, true)));
        if let Err((problem, is_torn)) = written {
            self.is_torn = is_torn;
            return Err(self.write_error(problem));
        }
        self.journal_bytes = bytes;
        let deletes = self
            .by_backend
            .entry(to)
            .or_insert_with(|| BackendDeletes::to(backend));
        deletes.targets.insert(target.to_vec());
        self.count += 1;
        Ok(())
    }

    /// Writes the journal anew if nothing can be appended. To be called now and then, and not for
    /// each removal: it may be long.
    ///
    /// # Errors
    /// [`PendingDeletesError::Write`]: still nothing can be.
    pub fn mend(&mut self) -> Result<(), PendingDeletesError> {
        if self.is_torn { self.compact() } else { Ok(()) }
    }

    /// The targets to be removed at `backend_id`, in no order that matters.
    pub fn of(&self, backend_id: BackendId) -> impl Iterator<Item = &[u8]> {
        let deletes = self.by_backend.get(&backend_id).into_iter();
        deletes
            .flat_map(|deletes| &deletes.targets)
            .map(Vec::as_slice)
    }

    /// How many deletes `backend_id` has missed.
    #[must_use]
    pub fn count(&self, backend_id: BackendId) -> usize {
        self.by_backend
            .get(&backend_id)
            .map_or(0, |deletes| deletes.targets.len())
    }

    /// The backend `backend_id` has removed `target`. The journal forgets it with the last for that
    /// backend; a process that ends before replays it once more, which does no harm then.
    ///
    /// # Errors
    /// [`PendingDeletesError::Write`]: the journal cannot forget it, so it stays pending.
    pub fn replayed(
        &mut self,
        backend_id: BackendId,
        target: &[u8],
    ) -> Result<(), PendingDeletesError> {
        let Some(BackendDeletes { targets, .. }) = self.by_backend.get_mut(&backend_id) else {
            return Ok(());
        };
        if targets.len() == 1 && targets.contains(target) {
            return self.keep(backend_id, None);
        }
        self.count -= usize::from(targets.remove(target));
        Ok(())
    }

    /// Forgets what `backend_id` has missed, unless it is `backend`, which has the id now.
    ///
    /// # Errors
    /// [`PendingDeletesError::Write`]: the journal cannot forget it; it stays pending if nobody has the id.
    pub fn keep(
        &mut self,
        backend_id: BackendId,
        backend: Option<&str>,
    ) -> Result<(), PendingDeletesError> {
        let Some(deletes) = self.by_backend.remove(&backend_id) else {
            return Ok(());
        };
        if backend == Some(&deletes.backend) {
            self.by_backend.insert(backend_id, deletes);
            return Ok(());
        }
        match self.compact() {
            Err(error) if backend.is_none() => {
                self.by_backend.insert(backend_id, deletes);
                return Err(error);
            }
            // Lines that are left name somebody else than who has the id now.
            _ => {}
        }
        self.count -= deletes.targets.len();
        Ok(())
    }

    /// Writes the journal anew, without what has been replayed.
    fn compact(&mut self) -> Result<(), PendingDeletesError> {
        let mut bytes = Vec::new();
        for (backend_id, deletes) in &self.by_backend {
            for target in &deletes.targets {
                let line = line(*backend_id, &deletes.backend, target);
                bytes.extend(line.map_err(|problem| self.write_error(problem))?);
            }
        }
        let journal_bytes = bytes.len() as u64;
        let (path, mut journal) = (self.path.clone(), self.journal.clone());
        if !os::REPLACES_OPEN_FILES {
            (journal, self.journal) = (None, None);
        }
        let written = self.thread.run(move || {
            let written = replace(&path, &bytes).and_then(|()| open(&path));
            // What failed after the renaming leaves us a file that nobody will read again.
            let is_in_place = |journal: Arc<File>| is_in_place(&path, &journal);
            written.map_err(|problem| (problem, !journal.is_some_and(is_in_place)))
        });
        match written.unwrap_or_else(|late| Err((late, true))) {
            Ok(journal) => {
                self.journal = Some(Arc::new(journal));
                self.journal_bytes = journal_bytes;
                self.is_torn = false;
                Ok(())
            }
            Err((problem, is_torn)) => {
                self.is_torn |= is_torn;
                Err(self.write_error(problem))
            }
        }
    }

    fn write_error(&self, problem: io::Error) -> PendingDeletesError {
        write_error(&self.path, problem)
    }
}

impl BackendDeletes {
    fn to(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            targets: BTreeSet::new(),
        }
    }
}

/// Whether the journal is still the file that is read after a restart.
fn is_in_place(path: &Path, journal: &File) -> bool {
    let id = |found: Metadata| os::file_id(&found);
    let in_place = fs::metadata(path).map(id);
    let ours = journal.metadata().map(id);
    matches!((in_place, ours), (Ok(in_place), Ok(ours)) if in_place == ours)
}

fn write_error(path: &Path, problem: io::Error) -> PendingDeletesError {
    PendingDeletesError::Write {
        path: path.to_owned(),
        problem,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true);
    open_regular(path, os::owner_only(options))
}

fn read<'m>(
    path: &Path,
    name_of: impl Fn(BackendId) -> Option<&'m str>,
) -> Result<ByBackend, PendingDeletesError> {
    let failed = |problem| PendingDeletesError::Read {
        path: path.to_owned(),
        problem,
    };
    let mut by_backend = ByBackend::new();
    let bytes = match read_regular(path, MAX_FILE_BYTES) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(by_backend),
        Err(error) => return Err(failed(error)),
    };
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let Some((backend_id, backend, target)) = parse(line) else {
            return Err(PendingDeletesError::Damaged {
                path: path.to_owned(),
                line: index + 1,
            });
        };
        if name_of(backend_id) == Some(&backend) {
            let deletes = by_backend
                .entry(backend_id)
                .or_insert_with(|| BackendDeletes::to(&backend));
            deletes.targets.insert(target);
        }
    }
    Ok(by_backend)
}

fn line(to: BackendId, backend: &str, target: &[u8]) -> io::Result<Vec<u8>> {
    let line = Line {
        place: to.id(),
        backend: backend.to_owned(),
        target: target.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse(line: &[u8]) -> Option<(BackendId, String, Vec<u8>)> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let Line {
        place,
        backend,
        target,
    } = line;
    let digits = target.as_bytes();
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let target = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
    Some((BackendId::new(place)?, backend, target))
}

#[cfg(test)]
mod tests;
