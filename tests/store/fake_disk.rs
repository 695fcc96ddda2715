//! A folder in memory that remembers every operation: what a kill or a power cut leaves behind can
//! be made from them, at every moment. It can also be full, read-only, or fail to sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use staterouter::disk::{Directory, LogFile};

/// One operation on the folder.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create(u64),
    Write(u64, u64, Vec<u8>),
    Truncate(u64, u64),
    Sync(u64),
    Remove(u64),
    SyncFolder,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    ops: Vec<Op>,
    files: BTreeMap<u64, Vec<u8>>,
    /// Bytes that fit; `None` for no limit.
    room: Option<usize>,
    read_only: bool,
    /// No file can be removed.
    keeps_all: bool,
    sync_fails: bool,
    /// Files cannot be read; how often that was tried.
    failing_reads: Option<usize>,
    /// Writes wait until this is over.
    held: bool,
}

/// See [`FakeDisk::hold`].
pub(crate) struct Held(FakeDisk);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().held = false;
        self.0.0.1.notify_all();
    }
}

#[derive(Debug)]
pub(crate) struct FakeFile {
    disk: FakeDisk,
    number: u64,
}

impl FakeDisk {
    /// A folder with these files.
    pub(crate) fn with(files: BTreeMap<u64, Vec<u8>>) -> Self {
        let disk = Self::default();
        disk.state().files = files;
        disk
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.state().ops.clone()
    }

    pub(crate) fn op_count(&self) -> usize {
        self.state().ops.len()
    }

    pub(crate) fn files(&self) -> BTreeMap<u64, Vec<u8>> {
        self.state().files.clone()
    }

    /// From here on so many bytes fit; `None` for no limit.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    pub(crate) fn set_read_only(&self) {
        self.state().read_only = true;
    }

    pub(crate) fn set_keeps_all(&self, keeps_all: bool) {
        self.state().keeps_all = keeps_all;
    }

    /// Somebody else puts a file there.
    pub(crate) fn put_file(&self, number: u64, bytes: &[u8]) {
        self.state().files.insert(number, bytes.to_vec());
    }

    /// Somebody else takes a file away.
    pub(crate) fn take_file(&self, number: u64) -> Option<Vec<u8>> {
        self.state().files.remove(&number)
    }

    pub(crate) fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// From here on no file can be read.
    pub(crate) fn set_reads_fail(&self) {
        self.state().failing_reads = Some(0);
    }

    /// How often reading was tried since then.
    pub(crate) fn failed_reads(&self) -> usize {
        self.state().failing_reads.unwrap_or(0)
    }

    /// Writes wait until what is returned is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.state().held = true;
        Held(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, op: Op) -> io::Result<()> {
        let (state, over) = (self.state(), &self.0.1);
        let is_held = |state: &mut State| state.held && matches!(op, Op::Write(..));
        let state = over.wait_while(state, is_held);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.read_only {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        if state.keeps_all && matches!(op, Op::Remove(_)) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        if state.sync_fails && matches!(op, Op::Sync(_)) {
            // The attempt counts.
            state.ops.push(op);
            return Err(io::Error::other("the disk is broken"));
        }
        if let (Some(room), Op::Write(number, offset, bytes)) = (state.room, &op)
            && bytes.len() > room
        {
            // Some of it is there.
            let part = Op::Write(*number, *offset, bytes[..room].to_vec());
            apply(&mut state.files, &part);
            state.ops.push(part);
            state.room = Some(0);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if let (Some(room), Op::Write(_, _, bytes)) = (&mut state.room, &op) {
            *room -= bytes.len();
        }
        apply(&mut state.files, &op);
        state.ops.push(op);
        Ok(())
    }
}

/// What an operation does, as every process sees it.
pub(crate) fn apply(files: &mut BTreeMap<u64, Vec<u8>>, op: &Op) {
    match op {
        Op::Create(number) => {
            files.insert(*number, Vec::new());
        }
        Op::Write(number, offset, bytes) => {
            let file = files.entry(*number).or_default();
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            file.resize(file.len().max(end), 0);
            file[start..end].copy_from_slice(bytes);
        }
        Op::Truncate(number, length) => {
            let file = files.entry(*number).or_default();
            file.resize(*length as usize, 0);
        }
        Op::Remove(number) => {
            files.remove(number);
        }
        Op::Sync(_) | Op::SyncFolder => {}
    }
}

impl Directory for FakeDisk {
    type File = FakeFile;

    fn numbers(&self) -> io::Result<Vec<u64>> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn create(&self, number: u64) -> io::Result<FakeFile> {
        if self.state().files.contains_key(&number) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.done(Op::Create(number))?;
        self.open(number)
    }

    fn open(&self, number: u64) -> io::Result<FakeFile> {
        let disk = self.clone();
        match self.state().files.contains_key(&number) {
            true => Ok(FakeFile { disk, number }),
            false => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.done(Op::Remove(number))
    }

    fn sync(&self) -> io::Result<()> {
        self.done(Op::SyncFolder)
    }

    fn name(&self, number: u64) -> String {
        format!("fake/{number}")
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl LogFile for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[&self.number].len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(count) = &mut state.failing_reads {
            *count += 1;
            return Err(io::Error::other("a bad sector"));
        }
        let end = offset as usize + buffer.len();
        let bytes = state.files[&self.number].get(offset as usize..end);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk
            .done(Op::Write(self.number, offset, bytes.to_vec()))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.done(Op::Truncate(self.number, length))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.done(Op::Sync(self.number))
    }
}
