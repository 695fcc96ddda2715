//! The log: segments, what in them is in use, and cleaning up behind.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::io::{self, ErrorKind};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::directory::{Directory, LogFile};
use super::error::DiskError;
use super::record::{HEAD_BYTES, Head, Record};
use super::segment::{SegmentReader, SegmentRecord, system};
use crate::store::{KeptItem, MemoryStore};

/// Bytes of the oldest segment that one step of cleaning looks at.
const CLEAN_STEP_BYTES: u64 = 1 << 20;

/// So many segments are kept, however short they are.
const MANY_SEGMENTS: u64 = 16;

/// A buffer that a large batch has left behind is given back down to this.
const BUFFER_BYTES: usize = 1 << 20;

/// What did not work, and what may be done after it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// Nothing was added; the same may be tried again.
    #[error("{0}")]
    Write(DiskError),
    /// Nobody knows what the disk has. The system may have dropped what it could not write, and
    /// would report success the next time (fsync(2)): it must not be tried again.
    #[error("{0}")]
    Sync(DiskError),
}

impl LogError {
    pub(super) fn into_disk_error(self) -> DiskError {
        match self {
            Self::Write(error) | Self::Sync(error) => error,
        }
    }
}

/// Names a key without holding it; 128 bits under a random key, so that no two keys share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyName(u64, u64);

/// Where the latest whole record of an item is.
struct Place {
    segment: u64,
    bytes: u32,
}

struct Sealed {
    number: u64,
    bytes: u64,
}

struct Active<F> {
    head: Head,
    name: String,
    file: F,
    length: u64,
    synced_length: u64,
    /// What the latest [`Record::Synced`] says.
    marked_length: u64,
}

/// The segments of a folder.
pub(super) struct SessionLog<D: Directory> {
    directory: D,
    run: u64,
    segment_bytes: u64,
    names: SipHasher13,
    live: HashMap<KeyName, Place>,
    live_bytes: u64,
    /// Oldest first.
    sealed: VecDeque<Sealed>,
    sealed_bytes: u64,
    active: Option<Active<D::File>>,
    next_number: u64,
    /// A segment that could neither be begun nor removed again: the next attempt takes its place.
    unbegun: Option<u64>,
    cleaning: Option<SegmentReader<D::File>>,
    buffer: Vec<u8>,
}

impl<D: Directory> SessionLog<D> {
    /// A log without a segment, whose first one gets `next_number`.
    pub(super) fn new(directory: D, run: u64, next_number: u64, segment_bytes: u64) -> Self {
        let random = RandomState::new();
        Self {
            directory,
            run,
            segment_bytes,
            names: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
            live: HashMap::new(),
            live_bytes: 0,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            active: None,
            next_number,
            unbegun: None,
            cleaning: None,
            buffer: Vec::new(),
        }
    }

    pub(super) fn directory(&self) -> &D {
        &self.directory
    }

    /// Length of all segments, and of what in them is in use.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let active = self.active.as_ref().map_or(0, |active| active.length);
        (self.sealed_bytes + active, self.live_bytes)
    }

    /// A segment that was there before, behind those that are known.
    pub(super) fn adopt(&mut self, number: u64, bytes: u64) {
        self.sealed.push_back(Sealed { number, bytes });
        self.sealed_bytes += bytes;
    }

    /// Takes note of a record of `bytes` in `segment`.
    pub(super) fn note(&mut self, segment: u64, bytes: u64, record: &Record<'_>) {
        let (key, place) = match record {
            Record::Stored { key, .. } => {
                let bytes = bytes as u32;
                (key, Some(Place { segment, bytes }))
            }
            Record::Gone { key } => (key, None),
            Record::Used { .. } | Record::Synced { .. } | Record::End => return,
        };
        let name = self.name_of(key);
        self.live_bytes += place.as_ref().map_or(0, |place| u64::from(place.bytes));
        let before = match place {
            Some(place) => self.live.insert(name, place),
            None => self.live.remove(&name),
        };
        self.live_bytes -= before.map_or(0, |place| u64::from(place.bytes));
    }

    /// Begins a new segment, for the first time or behind one that is complete.
    ///
    /// # Errors
    /// [`LogError`].
    pub(super) fn begin_segment(&mut self) -> Result<(), LogError> {
        let number = self.next_number;
        let name = self.directory.name(number);
        let head = Head {
            number,
            run: self.run,
            salt: RandomState::new().hash_one(number),
        };
        let write = |action, source| LogError::Write(system(action, &name, source));
        if self.unbegun == Some(number) {
            self.remove_unbegun(number)
                .map_err(|source| write("remove", source))?;
        }
        let file = self.directory.create(number);
        let file = file.map_err(|source| match source.kind() {
            // Nothing is written to what somebody else has made.
            ErrorKind::AlreadyExists => LogError::Write(DiskError::InTheWay { file: name.clone() }),
            _ => write("make", source),
        })?;
        if let Err(source) = file.write(0, &head.encode()) {
            // Whatever it has left would be in the way of the next attempt.
            self.unbegun = Some(number);
            let _ = self.remove_unbegun(number);
            return Err(write("write", source));
        }
        let synced = file.sync().and_then(|()| self.directory.sync());
        synced.map_err(|source| LogError::Sync(system("sync", &name, source)))?;
        self.next_number = number + 1;
        let length = HEAD_BYTES as u64;
        self.active = Some(Active {
            head,
            name,
            file,
            length,
            synced_length: length,
            marked_length: length,
        });
        Ok(())
    }

    /// Removes a segment of ours that never had a record.
    fn remove_unbegun(&mut self, number: u64) -> io::Result<()> {
        match self.directory.remove(number) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => {
                self.unbegun = None;
                Ok(())
            }
        }
    }

    /// Adds records, all of them or none.
    ///
    /// # Errors
    /// [`LogError`].
    pub(super) fn append<'r>(
        &mut self,
        records: impl Iterator<Item = Record<'r>> + Clone,
    ) -> Result<(), LogError> {
        if self.active.is_none() {
            self.begin_segment()?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let added = self.append_through(&mut buffer, records);
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES);
        self.buffer = buffer;
        added?;
        let is_full = |active: &Active<_>| active.length >= self.segment_bytes;
        if self.active.as_ref().is_some_and(is_full) {
            self.seal()?;
        }
        Ok(())
    }

    fn append_through<'r>(
        &mut self,
        buffer: &mut Vec<u8>,
        records: impl Iterator<Item = Record<'r>> + Clone,
    ) -> Result<(), LogError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if active.marked_length < active.synced_length {
            let offset = active.synced_length;
            let mark = Record::Synced { offset };
            active.head.append(buffer, active.length, &mark);
        }
        let mut ends = Vec::new();
        for record in records.clone() {
            let before = buffer.len();
            active.head.append(buffer, active.length, &record);
            ends.push(buffer.len() - before);
        }
        write_at_end(active, buffer)?;
        active.marked_length = active.synced_length;
        let segment = active.head.number;
        for (record, bytes) in records.zip(ends) {
            self.note(segment, bytes as u64, &record);
        }
        Ok(())
    }

    /// Waits until the disk has everything.
    ///
    /// # Errors
    /// [`LogError::Sync`].
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if active.synced_length < active.length {
            let synced = active.file.sync();
            synced.map_err(|source| LogError::Sync(system("sync", &active.name, source)))?;
            active.synced_length = active.length;
        }
        Ok(())
    }

    /// Completes the segment: from here on a fault in it is damage.
    ///
    /// # Errors
    /// [`LogError`].
    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        // The disk has all of it before the end says so.
        self.sync()?;
        if let Some(active) = &mut self.active {
            let end = active.head.end(active.length);
            write_at_end(active, &end)?;
        }
        self.sync()?;
        if let Some(active) = self.active.take() {
            self.adopt(active.head.number, active.length);
        }
        Ok(())
    }

    /// Copies on a part of the oldest segment, if less than half of the log is in use. True if
    /// there is more to do.
    ///
    /// What is copied is the item as `memory` has it: of several records of an item, the last one
    /// counts, and what waits to be written comes behind.
    ///
    /// # Errors
    /// [`LogError`].
    pub(super) fn clean(&mut self, memory: &MemoryStore) -> Result<bool, LogError> {
        let mut reader = match self.cleaning.take() {
            Some(reader) => reader,
            None => match self.next_to_clean()? {
                Some(reader) => reader,
                None => return Ok(false),
            },
        };
        let segment = reader.head.number;
        let stop = reader.offset() + CLEAN_STEP_BYTES;
        let mut kept: Vec<(Box<[u8]>, KeptItem)> = Vec::new();
        let mut at_end = false;
        while !at_end && reader.offset() < stop {
            match reader.next().map_err(LogError::Write)? {
                SegmentRecord::Record { .. } => {}
                SegmentRecord::End => at_end = true,
                SegmentRecord::Torn(fault) => return Err(LogError::Sync(reader.damaged(fault))),
            }
            if let Some(Record::Stored { key, .. }) = reader.record()
                && !at_end
                && self.is_latest_in(segment, key)
                // What is not there has expired or was removed: that comes behind.
                && let Some(item) = memory.peek(key)
            {
                kept.push((Box::from(key), item));
            }
        }
        self.append(kept.iter().map(|(key, item)| {
            let item = item.borrowed();
            Record::Stored { key, item }
        }))?;
        if at_end {
            self.remove_oldest()?;
        } else {
            self.cleaning = Some(reader);
        }
        Ok(true)
    }

    fn next_to_clean(&self) -> Result<Option<SegmentReader<D::File>>, LogError> {
        let (all, live) = self.bytes();
        let Some(oldest) = self.sealed.front() else {
            return Ok(None);
        };
        // Short segments come from many starts.
        let many = self.sealed.len() as u64 > MANY_SEGMENTS + 2 * all / self.segment_bytes;
        if !many && all <= 2 * live + 2 * self.segment_bytes {
            return Ok(None);
        }
        let reader = SegmentReader::open(&self.directory, oldest.number);
        let reader = reader.map_err(LogError::Write)?;
        let gone = || DiskError::Damaged {
            file: self.directory.name(oldest.number),
            offset: 0,
            fault: "the head is not what was written",
        };
        reader.ok_or_else(|| LogError::Sync(gone())).map(Some)
    }

    fn is_latest_in(&self, segment: u64, key: &[u8]) -> bool {
        let place = self.live.get(&self.name_of(key));
        place.is_some_and(|place| place.segment == segment)
    }

    /// Removes the oldest segment once the disk has what was copied from it.
    fn remove_oldest(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let Some(oldest) = self.sealed.front() else {
            return Ok(());
        };
        let name = self.directory.name(oldest.number);
        let removed = self.directory.remove(oldest.number);
        removed.map_err(|source| LogError::Write(system("remove", &name, source)))?;
        self.sealed_bytes -= oldest.bytes;
        self.sealed.pop_front();
        // Before the next one goes: a gap between segments would look like a loss.
        let synced = self.directory.sync();
        synced.map_err(|source| LogError::Sync(system("sync the removal of", &name, source)))
    }

    /// Removes every segment.
    ///
    /// # Errors
    /// [`LogError`].
    pub(super) fn remove_all(&mut self) -> Result<(), LogError> {
        self.seal()?;
        while !self.sealed.is_empty() {
            self.remove_oldest()?;
        }
        self.live_bytes = 0;
        self.live = HashMap::new();
        Ok(())
    }

    fn name_of(&self, key: &[u8]) -> KeyName {
        let mut hasher = self.names;
        key.hash(&mut hasher);
        let name = hasher.finish128();
        KeyName(name.h1, name.h2)
    }
}

/// Writes behind the last record. After an error the segment is as long as before, or the log is
/// at an end.
fn write_at_end<F: LogFile>(active: &mut Active<F>, bytes: &[u8]) -> Result<(), LogError> {
    if let Err(source) = active.file.write(active.length, bytes) {
        let error = system("write to", &active.name, source);
        return Err(match active.file.truncate(active.length) {
            Ok(()) => LogError::Write(error),
            Err(_) => LogError::Sync(error),
        });
    }
    active.length += bytes.len() as u64;
    Ok(())
}
