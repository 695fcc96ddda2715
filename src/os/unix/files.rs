//! Files that are ours alone, and what tells one file from another.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::fs::OFlags;

const OWNER_ONLY: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;

/// Whether a file can be replaced by another one while it is open.
pub const REPLACES_OPEN_FILES: bool = true;

/// Opens what stands at `path`; to open a pipe is no wait for its other end.
///
/// # Errors
/// What the system says, here and below.
pub fn open_without_waiting(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    options.clone().custom_flags(flags).open(path)
}

/// A file that these options make is the owner's alone.
pub fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(OWNER_ONLY)
}

/// How much more the volume of this folder takes, if it says.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(path).ok()?;
    volume.f_bavail.checked_mul(volume.f_frsize)
}

/// Options for a file that is locked as long as it is open.
#[must_use]
pub fn to_lock() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    owner_only(&mut options);
    options
}

/// Makes a folder that is the owner's alone, and the folders above it if `with_parents`.
pub fn make_private_directory(path: &Path, with_parents: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    let builder = builder.recursive(with_parents).mode(OWNER_ONLY_DIRECTORY);
    builder.create(path)
}

/// An open folder, for the order in which the disk learns of changes.
#[derive(Debug)]
pub struct SyncedDirectory(File);

impl SyncedDirectory {
    /// Opens the folder at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Returns once the disk knows which files there are.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Fills `buffer` from `offset` on; an error if the file ends before.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Writes all of `bytes` to `offset`.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Which file it is, by whatever name: device and inode.
pub type FileId = (u64, u64);

/// Which file it is, by whatever name.
#[must_use]
pub fn file_id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// When the content and when anything about a file last changed.
pub type FileTimes = [(i64, i64); 2];

/// When the content and when anything about a file last changed.
#[must_use]
pub fn file_times(found: &Metadata) -> FileTimes {
    [
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    ]
}

/// A name in the kernel that one process has at a time. It goes with the process, and unlike a lock
/// file nobody can delete it.
#[derive(Debug)]
pub struct NameLock {
    _name: UnixListener,
}

impl NameLock {
    /// Takes the name of the file `path`, whose folder `hash` makes short, by whichever way that
    /// folder is reached.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another process has it; else what the system says.
    pub fn take(path: &Path, hash: impl Fn(&[u8]) -> u64) -> io::Result<Self> {
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let (device, inode) = file_id(&fs::metadata(directory)?);
        let (device, inode) = (device.to_be_bytes(), inode.to_be_bytes());
        let file = path.file_name().unwrap_or_default().as_bytes();
        let hash = hash(&[&device, &inode, file].concat());
        let name = SocketAddr::from_abstract_name(format!("staterouter/state/{hash:016x}"))?;
        UnixListener::bind_addr(&name).map(|name| Self { _name: name })
    }
}
