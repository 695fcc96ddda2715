//! Notices that a file may have changed: the words of the operating system are hints, and a slow
//! look at the files finds what it does not say.
//!
//! The directory is watched and not the file: editors and deployment tools put a new file in its
//! place, Kubernetes swaps a symbolic link beside it, and a watch on the file would go on watching
//! the old one. Whoever is told of a change reads the file and compares ([`ContentOf`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::read_regular;
use crate::os::{FileId, FileTimes, file_id, file_times};

/// Bytes of a file that are compared; no file that can be loaded is longer.
const MAX_COMPARED_BYTES: u64 = 4 << 20;

/// How a [`Watcher`] watches.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Whether the operating system is asked to tell of changes.
    pub events: bool,
    /// How often the files are looked at, whatever the operating system says.
    pub restat: Duration,
    /// How long nothing may happen before a change is reported: a file that is written in several
    /// steps is read once, at the end.
    pub quiet: Duration,
    /// The same once the length of a file has changed again before that: whoever writes it in
    /// steps may pause for longer.
    pub quiet_growing: Duration,
    /// How long a change is held back at most when it never becomes quiet.
    pub longest_wait: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            events: true,
            restat: Duration::from_secs(5),
            quiet: Duration::from_secs(1),
            quiet_growing: Duration::from_secs(3),
            longest_wait: Duration::from_secs(15),
        }
    }
}

/// Watches some files.
#[derive(Debug)]
pub struct Watcher {
    options: WatchOptions,
    restat: Interval,
    files: Vec<WatchedFile>,
    directories: Vec<WatchedDirectory>,
    /// `None` when the operating system is not asked, or gives no event queue.
    events: Option<RecommendedWatcher>,
    happened: Arc<Notify>,
    unsettled: Option<Unsettled>,
}

/// A change that has not been reported yet.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    first: Instant,
    last: Instant,
    /// The length of a file has changed more than once.
    is_growing: bool,
}

/// What differs from the look before.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    is_changed: bool,
    has_other_length: bool,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    seen: Option<FileStamp>,
}

#[derive(Debug)]
struct WatchedDirectory {
    path: PathBuf,
    /// The directory that is watched, while there is one and the watch stands.
    watched: Option<DirectoryId>,
    is_failure_logged: bool,
}

/// Which directory a path leads to. The inode of a removed one is used again at once; its time of
/// birth, where the file system knows it, is not.
type DirectoryId = (FileId, Option<SystemTime>);

/// What differs after a file was replaced or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    id: FileId,
    len: u64,
    times: FileTimes,
}

impl Watcher {
    /// Watches `files`, which need not exist. Must be called on a tokio runtime with a clock. What
    /// the operating system refuses costs time only, and is logged.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, options: WatchOptions) -> Self {
        let happened = Arc::new(Notify::new());
        let events = if options.events {
            open_events(&happened)
        } else {
            None
        };
        let mut restat = interval(options.restat);
        restat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick of an interval comes at once.
        restat.reset();
        let mut watcher = Self {
            options,
            restat,
            files: Vec::new(),
            directories: Vec::new(),
            events,
            happened,
            unsettled: None,
        };
        for path in files {
            let directory = directory_of(&path).to_owned();
            if watcher
                .directories
                .iter()
                .all(|known| known.path != directory)
            {
                watcher.directories.push(WatchedDirectory {
                    path: directory,
                    watched: None,
                    is_failure_logged: false,
                });
            }
            watcher.files.push(WatchedFile { path, seen: None });
        }
        watcher.look();
        watcher
    }

    /// Waits until a file may have changed since the last call has returned, and then until it is
    /// quiet. May be dropped at any point without losing a change.
    pub async fn changed(&mut self) {
        loop {
            let due = self.unsettled.map(|unsettled| self.due(unsettled));
            tokio::select! {
                // First, so that a flood of events cannot hold the report up.
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let seen = self.look();
                    if seen.is_changed && !self.has_waited_longest() {
                        self.note_change(seen);
                        continue;
                    }
                    self.unsettled = None;
                    return;
                }
                () = self.happened.notified() => {
                    let seen = self.look();
                    // Other files of the directory prolong no wait.
                    if seen.is_changed || self.unsettled.is_none() {
                        self.note_change(seen);
                    }
                }
                _ = self.restat.tick() => {
                    let seen = self.look();
                    if seen.is_changed {
                        self.note_change(seen);
                    }
                }
            }
        }
    }

    /// The files may have changed before they were watched: that is a change like any other, and may not
    /// be over yet.
    pub fn expect_change(&mut self) {
        self.note_change(Seen::default());
    }

    fn due(&self, unsettled: Unsettled) -> Instant {
        let quiet = if unsettled.is_growing {
            self.options.quiet_growing
        } else {
            self.options.quiet
        };
        (unsettled.last + quiet).min(unsettled.first + self.options.longest_wait)
    }

    fn has_waited_longest(&self) -> bool {
        let longest = self.options.longest_wait;
        self.unsettled
            .is_some_and(|unsettled| unsettled.first.elapsed() >= longest)
    }

    fn note_change(&mut self, seen: Seen) {
        let now = Instant::now();
        self.unsettled = Some(match self.unsettled {
            None => Unsettled {
                first: now,
                last: now,
                is_growing: false,
            },
            Some(before) => Unsettled {
                last: now,
                is_growing: before.is_growing || seen.has_other_length,
                ..before
            },
        });
    }

    /// Sees to it that the directories now at their paths are watched, and tells what is another
    /// than at the last look.
    fn look(&mut self) -> Seen {
        // The directories first: what changes after the look at the files is an event.
        if let Some(events) = &mut self.events {
            for directory in &mut self.directories {
                directory.watch(events);
            }
        }
        let mut seen = Seen::default();
        for file in &mut self.files {
            let found = stamp(&file.path);
            let before = std::mem::replace(&mut file.seen, found);
            seen.is_changed |= before != found;
            let len = |stamp: Option<FileStamp>| stamp.map(|stamp| stamp.len);
            seen.has_other_length |= len(before) != len(found);
        }
        seen
    }
}

impl WatchedDirectory {
    /// A directory that was replaced has another identity, and the watch stayed with the old one.
    fn watch(&mut self, events: &mut RecommendedWatcher) {
        let id = |found: fs::Metadata| (file_id(&found), found.created().ok());
        let found = fs::metadata(&self.path).ok().map(id);
        if found == self.watched {
            return;
        }
        if self.watched.take().is_some() {
            // The watch of a directory that was removed is gone already.
            let _ = events.unwatch(&self.path);
        }
        if found.is_none() {
            return;
        }
        match events.watch(&self.path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched = found;
                self.is_failure_logged = false;
            }
            Err(error) if !self.is_failure_logged => {
                self.is_failure_logged = true;
                let directory = self.path.display();
                tracing::warn!(%directory, "cannot watch, changes are seen later: {error}");
            }
            Err(_) => {}
        }
    }
}

/// The event queue of the operating system.
fn open_events(happened: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let happened = Arc::clone(happened);
    let on_event = move |event: notify::Result<notify::Event>| {
        // Events were lost after an error: anything may have happened.
        if event.map_or(true, |event| may_change_content(&event.kind)) {
            happened.notify_one();
        }
    };
    notify::recommended_watcher(on_event)
        .inspect_err(|error| tracing::warn!("cannot watch files, changes are seen later: {error}"))
        .ok()
}

/// Opening and reading are events, too: ours would make us read again for ever.
fn may_change_content(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let found = fs::metadata(path).ok()?;
    Some(FileStamp {
        id: file_id(&found),
        len: found.len(),
        times: file_times(&found),
    })
}

/// The content of one file, to tell a change from a hint.
#[derive(Debug)]
pub struct ContentOf {
    path: PathBuf,
    last: Content,
}

/// What was found in a file; why there was nothing to find counts as well.
type Content = Result<Vec<u8>, io::ErrorKind>;

impl ContentOf {
    /// Remembers what the file at `path` holds now.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let last = read(&path);
        Self { path, last }
    }

    /// Whether the file holds something else than at the last call, as far as its first 4 MiB go.
    pub fn has_changed(&mut self) -> bool {
        let now = read(&self.path);
        let has_changed = now != self.last;
        self.last = now;
        has_changed
    }
}

fn read(path: &Path) -> Content {
    read_regular(path, MAX_COMPARED_BYTES).map_err(|error| error.kind())
}

#[cfg(test)]
mod tests;
