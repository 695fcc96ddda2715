//! Reading a segment, and telling a torn end from damage.
//!
//! What the process wrote since the last sync may be torn by a power cut in any way: it was never
//! promised, so it is cut off. Everything before was once safely on the disk: a fault there is
//! damage, and no session may vanish because of it without a word. Records of the kind
//! [`Record::Synced`] tell the two apart, and so does the end of a complete segment.

use std::io;

use super::directory::{Directory, LogFile};
use super::error::DiskError;
use super::record::{FRAME_BYTES, HEAD_BYTES, Head, Record, SYNCED_PAYLOAD_BYTES};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// What stands at a place.
pub(super) enum SegmentRecord {
    /// A record of that many bytes.
    Record { bytes: u64 },
    /// The file ends here, behind a whole record.
    End,
    /// No whole record begins here.
    Torn(&'static str),
}

/// Reads the records of one segment, one after another.
pub(super) struct SegmentReader<F> {
    pub(super) head: Head,
    name: String,
    file: F,
    length: u64,
    /// Where the next record begins.
    offset: u64,
    buffer: Vec<u8>,
    /// Where `buffer` begins in the file.
    buffer_offset: u64,
    /// The payload found last, in `buffer`.
    payload: std::ops::Range<usize>,
}

impl<F: LogFile> SegmentReader<F> {
    /// Opens a segment; `None` if it has no whole head.
    ///
    /// # Errors
    /// [`DiskError::System`].
    pub(super) fn open<D: Directory<File = F>>(
        directory: &D,
        number: u64,
    ) -> Result<Option<Self>, DiskError> {
        let name = directory.name(number);
        let file = directory.open(number);
        let file = file.map_err(|source| system("open", &name, source))?;
        let length = file.len().map_err(|source| system("read", &name, source))?;
        let mut head = [0; HEAD_BYTES];
        if length < HEAD_BYTES as u64 {
            return Ok(None);
        }
        file.read(0, &mut head)
            .map_err(|source| system("read", &name, source))?;
        let head = Head::decode(&head).filter(|head| head.number == number);
        Ok(head.map(|head| Self {
            head,
            name,
            file,
            length,
            offset: HEAD_BYTES as u64,
            buffer: Vec::new(),
            buffer_offset: 0,
            payload: 0..0,
        }))
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where the next record begins, or the whole records end.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on to the next record.
    ///
    /// # Errors
    /// [`DiskError::System`].
    pub(super) fn next(&mut self) -> Result<SegmentRecord, DiskError> {
        let offset = self.offset;
        let left = self.length - offset;
        if left == 0 {
            return Ok(SegmentRecord::End);
        }
        if left < FRAME_BYTES as u64 {
            return Ok(SegmentRecord::Torn("a record ends early"));
        }
        let frame = self.bytes(offset, FRAME_BYTES)?;
        let mut length = [0; 4];
        let mut check = [0; 8];
        length.copy_from_slice(&self.buffer[frame.start..frame.start + 4]);
        check.copy_from_slice(&self.buffer[frame.start + 4..frame.end]);
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length as u64 > left - FRAME_BYTES as u64 {
            return Ok(SegmentRecord::Torn("the length of a record is wrong"));
        }
        let payload = self.bytes(offset + FRAME_BYTES as u64, length)?;
        if self.head.check(offset, &self.buffer[payload.clone()]) != u64::from_le_bytes(check) {
            return Ok(SegmentRecord::Torn("the check of a record is wrong"));
        }
        self.payload = payload;
        let bytes = (FRAME_BYTES + length) as u64;
        self.offset += bytes;
        Ok(SegmentRecord::Record { bytes })
    }

    /// The record found last; `None` if a later version has written it.
    pub(super) fn record(&self) -> Option<Record<'_>> {
        Record::decode(&self.buffer[self.payload.clone()])
    }

    /// Whether something behind the fault at [`Self::offset`] says that the disk had it.
    ///
    /// # Errors
    /// [`DiskError::System`].
    pub(super) fn was_synced_beyond(&mut self) -> Result<bool, DiskError> {
        const MARK_BYTES: usize = FRAME_BYTES + SYNCED_PAYLOAD_BYTES as usize;
        let fault = self.offset;
        let mut at = fault + 1;
        while self.length.saturating_sub(at) >= MARK_BYTES as u64 {
            let mark = self.bytes(at, MARK_BYTES)?;
            let mark = &self.buffer[mark];
            if mark[..4] == SYNCED_PAYLOAD_BYTES.to_le_bytes() {
                let (frame, payload) = mark.split_at(FRAME_BYTES);
                let checked = frame[4..] == self.head.check(at, payload).to_le_bytes();
                if let (true, Some(Record::Synced { offset })) = (checked, Record::decode(payload))
                    && offset > fault
                {
                    return Ok(true);
                }
            }
            at += 1;
        }
        Ok(false)
    }

    /// Cuts the file where the whole records end, completes it, and waits for the disk. Returns the
    /// new length.
    ///
    /// # Errors
    /// [`DiskError::System`].
    pub(super) fn complete(&self) -> Result<u64, DiskError> {
        let (file, end) = (&self.file, self.head.end(self.offset));
        let cut = file.truncate(self.offset).and_then(|()| file.sync());
        let written = cut.and_then(|()| file.write(self.offset, &end));
        let done = written.and_then(|()| file.sync());
        done.map_err(|source| system("complete", &self.name, source))?;
        Ok(self.offset + end.len() as u64)
    }

    pub(super) fn damaged(&self, fault: &'static str) -> DiskError {
        DiskError::Damaged {
            file: self.name.clone(),
            offset: self.offset,
            fault,
        }
    }

    /// Sees to it that `count` bytes from `offset` on are in the buffer, and says where.
    fn bytes(&mut self, offset: u64, count: usize) -> Result<std::ops::Range<usize>, DiskError> {
        let end = self.buffer_offset + self.buffer.len() as u64;
        if offset < self.buffer_offset || offset + count as u64 > end {
            let length = (self.length - offset).min(count.max(READ_BYTES) as u64);
            self.buffer.resize(length as usize, 0);
            self.buffer_offset = offset;
            let read = self.file.read(offset, &mut self.buffer);
            read.map_err(|source| system("read", &self.name, source))?;
        }
        let start = (offset - self.buffer_offset) as usize;
        Ok(start..start + count)
    }
}

pub(super) fn system(action: &'static str, file: &str, source: io::Error) -> DiskError {
    DiskError::System {
        action,
        file: file.to_owned(),
        source,
    }
}
