//! Files that are ours alone, and what tells one file from another.
//!
//! Whom a file belongs to is inherited from its folder: the access list of the folder keeps others
//! out.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Others may read and write, and not delete. The system's word is in the Win32 documentation of
/// `CreateFileW`.
const SHARE_READ_AND_WRITE: u32 = 1 | 2;

/// Whether a file can be replaced by another one while it is open. The latest versions can, on some file
/// systems.
pub const REPLACES_OPEN_FILES: bool = false;

/// Opens what stands at `path`. Pipes and devices have names of their own here and are met nowhere
/// else.
///
/// # Errors
/// What the system says, here and below.
pub fn open_without_waiting(path: &Path, options: &OpenOptions) -> io::Result<File> {
    options.open(path)
}

/// A file that these options make is as its folder says.
pub fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// How much more the volume of this folder takes: it does not say.
#[must_use]
pub fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// Options for a file that is locked as long as it is open. Nobody can delete it meanwhile and put
/// another one in its place.
#[must_use]
pub fn to_lock() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.share_mode(SHARE_READ_AND_WRITE);
    options
}

/// Makes a folder, and the folders above it if `with_parents`.
pub fn make_private_directory(path: &Path, with_parents: bool) -> io::Result<()> {
    DirBuilder::new().recursive(with_parents).create(path)
}

/// A folder. The file system writes down on its own, and in order, which files there are.
#[derive(Debug)]
pub struct SyncedDirectory;

impl SyncedDirectory {
    /// Sees that there is a folder at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        match path.metadata()?.is_dir() {
            true => Ok(Self),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Nothing has to be asked for.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills `buffer` from `offset` on; an error if the file ends before.
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = buffer.split_at_mut(count).1;
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Writes all of `bytes` to `offset`.
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = bytes.split_at(count).1;
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Which file it is, as well as can be told without its number: when it was made.
pub type FileId = u64;

/// Which file it is, as well as can be told.
#[must_use]
pub fn file_id(found: &Metadata) -> FileId {
    found.creation_time()
}

/// When the content of a file last changed.
pub type FileTimes = u64;

/// When the content of a file last changed.
#[must_use]
pub fn file_times(found: &Metadata) -> FileTimes {
    found.last_write_time()
}

/// Beside a lock file that nobody can delete there is nothing to lock.
#[derive(Debug)]
pub struct NameLock;

impl NameLock {
    /// Always there.
    ///
    /// # Errors
    /// None.
    pub fn take(_path: &Path, _hash: impl Fn(&[u8]) -> u64) -> io::Result<Self> {
        Ok(Self)
    }
}
