//! Files whose path may lead to anything: a pipe, a device, a directory.

use std::fs::{File, OpenOptions, metadata};
use std::io::{self, Read};
use std::path::Path;

use super::open_without_waiting;

/// Opens the regular file at `path` as `options` say. Anything else that stands there is an error
/// and never a wait: to open a pipe is to wait for its other end.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::InvalidInput`] for anything but a regular file.
pub fn open_regular(path: &Path, options: &OpenOptions) -> io::Result<File> {
    // Asked before opening: to open some devices is to use them.
    match metadata(path) {
        Ok(found) if !found.is_file() => return Err(not_regular()),
        _ => {}
    }
    // What stands there may have become a pipe since.
    let file = open_without_waiting(path, options)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_regular())
    }
}

/// The first bytes of the regular file at `path`: all, or `max_bytes` and one more.
///
/// # Errors
/// Those of [`open_regular`], and what the operating system says.
pub fn read_regular(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path, OpenOptions::new().read(true))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), mode).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for other in [path("pipe"), path("socket"), path(""), "/dev/zero".into()] {
            let mut options = OpenOptions::new();
            for options in [options.read(true).clone(), options.write(true).clone()] {
                let refused = open_regular(&other, &options).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{other:?}");
            }
        }
        std::fs::write(path("file"), "12345").unwrap();
        assert_eq!(read_regular(&path("file"), 9).unwrap(), b"12345");
        assert_eq!(read_regular(&path("file"), 3).unwrap(), b"1234");
        let missing = read_regular(&path("missing"), 9).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
