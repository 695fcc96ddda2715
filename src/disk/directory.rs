//! The files of a log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::DiskError;
use crate::os;

/// Numbered files that only grow, until they are removed as a whole.
pub trait Directory: Send + 'static {
    /// One of the files.
    type File: LogFile;

    /// The numbers of all files, in any order.
    ///
    /// # Errors
    /// What the system says, here and below.
    fn numbers(&self) -> io::Result<Vec<u64>>;

    /// Makes a file that must not be there yet.
    fn create(&self, number: u64) -> io::Result<Self::File>;

    /// Opens a file to read and write.
    fn open(&self, number: u64) -> io::Result<Self::File>;

    /// Removes a file.
    fn remove(&self, number: u64) -> io::Result<()>;

    /// Returns once the disk knows which files there are.
    fn sync(&self) -> io::Result<()>;

    /// How messages name a file.
    fn name(&self, number: u64) -> String;

    /// How much more fits on the volume; `None` where it does not say.
    fn free_bytes(&self) -> Option<u64>;
}

/// A file of a [`Directory`].
#[allow(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait LogFile: Send + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says, here and below.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on; an error if the file ends before.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` to `offset`. After an error any part of them may be there.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `length`.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns once the disk has all that was written.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system, for one process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Open for as long as the folder is ours: the kernel takes the lock back with the process.
    _lock: File,
}

impl Folder {
    /// Takes the folder at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`DiskError::InUse`] and [`DiskError::System`].
    pub fn take(path: &Path) -> Result<Self, DiskError> {
        let system = |action, file: &Path| {
            let file = file.display().to_string();
            move |source| DiskError::System {
                action,
                file,
                source,
            }
        };
        os::make_private_directory(path, true).map_err(system("make the folder", path))?;
        let lock_path = path.join("lock");
        let lock = os::to_lock().open(&lock_path);
        let lock = lock.map_err(system("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DiskError::InUse {
                folder: path.display().to_string(),
            }),
            Err(TryLockError::Error(error)) => Err(system("lock", &lock_path)(error)),
        }
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("sessions-{number:08}.log"))
    }
}

impl Directory for Folder {
    type File = File;

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name
                .to_str()
                .and_then(|name| name.strip_prefix("sessions-"));
            let digits = name.and_then(|name| name.strip_suffix(".log"));
            numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    fn create(&self, number: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        os::owner_only(&mut options).open(self.file(number))
    }

    fn open(&self, number: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.file(number))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.file(number))
    }

    fn sync(&self) -> io::Result<()> {
        os::SyncedDirectory::open(&self.path)?.sync()
    }

    fn name(&self, number: u64) -> String {
        self.file(number).display().to_string()
    }

    fn free_bytes(&self) -> Option<u64> {
        os::free_bytes(&self.path)
    }
}

impl LogFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        os::read_exact_at(self, buffer, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        os::write_all_at(self, bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
