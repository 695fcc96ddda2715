//! Removals that a server out of reach has missed: it is told of them when it returns, or a
//! removed session would come back with it.
//!
//! A journal, one JSON line each, beside the state file. A line is in the hands of the operating
//! system before the client has its answer, so it survives the end of the process, by whatever
//! signal. Targets are secrets: only the file's owner may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state_file::replace;
use crate::handover::Place;

/// Most removals that are owed at a time; more are refused.
pub const MAX_OWED: usize = 100_000;

/// Longest journal that is read; it never grows longer.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The removals owed to all servers, in memory and on disk.
#[derive(Debug)]
pub struct Owed {
    path: PathBuf,
    journal: File,
    journal_bytes: u64,
    /// A write has failed half-way and could not be undone, or `journal` is no longer the file at
    /// `path`: nothing can be appended before it has been written anew.
    is_torn: bool,
    targets: BTreeMap<Place, BTreeSet<Vec<u8>>>,
    count: usize,
}

/// Why a removal cannot be owed, or the journal not be used.
#[derive(Debug, thiserror::Error)]
pub enum OwedError {
    /// The operating system does not give the journal.
    #[error("cannot read the journal of removals {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The journal is not what this program writes.
    #[error(
        "line {line} of the journal of removals {} is damaged; without the file, sessions that were \
         removed while their backend was down come back with it",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The operating system does not take a line.
    #[error("cannot write the journal of removals {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The clients have removed too much.
    #[error("{MAX_OWED} removals are owed already")]
    Full,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    place: u8,
    /// In hexadecimal digits: a target may be any bytes.
    target: String,
}

impl Owed {
    /// Opens the journal at `path`, which need not exist.
    ///
    /// # Errors
    /// [`OwedError`]. A last line without its end is none: nobody was told that it was kept.
    pub fn open(path: &Path) -> Result<Self, OwedError> {
        let targets = read(path)?;
        let journal = open(path).map_err(|problem| write_error(path, problem))?;
        let mut owed = Self {
            path: path.to_owned(),
            journal,
            journal_bytes: 0,
            is_torn: false,
            count: targets.values().map(BTreeSet::len).sum(),
            targets,
        };
        owed.compact()?;
        Ok(owed)
    }

    /// Keeps a removal for the server at `to`. When this returns it survives the process.
    ///
    /// # Errors
    /// [`OwedError::Full`], [`OwedError::Write`]: the removal is not kept.
    pub fn append(&mut self, to: Place, target: &[u8]) -> Result<(), OwedError> {
        // Then not even what is known must be in the file.
        if self.is_torn {
            return Err(self.write_error(io::ErrorKind::InvalidData.into()));
        }
        if self
            .targets
            .get(&to)
            .is_some_and(|known| known.contains(target))
        {
            return Ok(());
        }
        let line = line(to, target).map_err(|problem| self.write_error(problem))?;
        let bytes = self.journal_bytes + line.len() as u64;
        if self.count >= MAX_OWED || bytes > MAX_FILE_BYTES {
            return Err(OwedError::Full);
        }
        if let Err(problem) = self.journal.write_all(&line) {
            // The next line must not begin where this one broke off.
            self.is_torn = self.journal.set_len(self.journal_bytes).is_err();
            return Err(self.write_error(problem));
        }
        self.journal_bytes = bytes;
        self.targets.entry(to).or_default().insert(target.to_vec());
        self.count += 1;
        Ok(())
    }

    /// The targets to be removed at `place`, in no order that matters.
    pub fn of(&self, place: Place) -> impl Iterator<Item = &[u8]> {
        self.targets
            .get(&place)
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
    }

    /// How many removals are owed to `place`.
    #[must_use]
    pub fn count(&self, place: Place) -> usize {
        self.targets.get(&place).map_or(0, BTreeSet::len)
    }

    /// The server at `place` has removed `target`. The journal forgets it with the last for that
    /// place; a process that ends before replays it once more, which does no harm then.
    ///
    /// # Errors
    /// [`OwedError::Write`]: the journal cannot forget it, so it stays owed.
    pub fn replayed(&mut self, place: Place, target: &[u8]) -> Result<(), OwedError> {
        let Some(targets) = self.targets.get_mut(&place) else {
            return Ok(());
        };
        if targets.len() == 1 && targets.contains(target) {
            return self.forget(place);
        }
        self.count -= usize::from(targets.remove(target));
        Ok(())
    }

    /// Nothing is owed to `place` any more.
    ///
    /// # Errors
    /// [`OwedError::Write`]: the journal cannot forget it, so it stays owed.
    pub fn forget(&mut self, place: Place) -> Result<(), OwedError> {
        let Some(targets) = self.targets.remove(&place) else {
            return Ok(());
        };
        if let Err(error) = self.compact() {
            self.targets.insert(place, targets);
            return Err(error);
        }
        self.count -= targets.len();
        Ok(())
    }

    /// Writes the journal anew, without what has been replayed.
    fn compact(&mut self) -> Result<(), OwedError> {
        let mut bytes = Vec::new();
        for (place, targets) in &self.targets {
            for target in targets {
                let line = line(*place, target).map_err(|problem| self.write_error(problem))?;
                bytes.extend(line);
            }
        }
        let written = replace(&self.path, &bytes).and_then(|()| open(&self.path));
        let written = written.map_err(|problem| self.write_error(problem));
        // What failed after the renaming leaves us a file that nobody will read again.
        self.is_torn |= written.is_err() && !self.is_in_place();
        self.journal = written?;
        self.journal_bytes = bytes.len() as u64;
        self.is_torn = false;
        Ok(())
    }

    /// Whether the journal is still the file that is read after a restart.
    fn is_in_place(&self) -> bool {
        let id = |found: Metadata| (found.dev(), found.ino());
        let in_place = fs::metadata(&self.path).map(id);
        let ours = self.journal.metadata().map(id);
        matches!((in_place, ours), (Ok(in_place), Ok(ours)) if in_place == ours)
    }

    fn write_error(&self, problem: io::Error) -> OwedError {
        write_error(&self.path, problem)
    }
}

fn write_error(path: &Path, problem: io::Error) -> OwedError {
    OwedError::Write {
        path: path.to_owned(),
        problem,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

fn read(path: &Path) -> Result<BTreeMap<Place, BTreeSet<Vec<u8>>>, OwedError> {
    let failed = |problem| OwedError::Read {
        path: path.to_owned(),
        problem,
    };
    let mut targets: BTreeMap<Place, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let bytes = match fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => fs::read(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(targets),
        Err(error) => return Err(failed(error)),
    };
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let Some((place, target)) = parse(line) else {
            return Err(OwedError::Damaged {
                path: path.to_owned(),
                line: index + 1,
            });
        };
        targets.entry(place).or_default().insert(target);
    }
    Ok(targets)
}

fn line(to: Place, target: &[u8]) -> io::Result<Vec<u8>> {
    let line = Line {
        place: to.id(),
        target: target.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse(line: &[u8]) -> Option<(Place, Vec<u8>)> {
    let Line { place, target } = serde_json::from_slice(line).ok()?;
    let digits = target.as_bytes();
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let target = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
    Some((Place::new(place)?, target))
}

#[cfg(test)]
mod tests;
