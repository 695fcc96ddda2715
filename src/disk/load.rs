//! From the folder into memory.

use std::time::{Duration, Instant};

use super::directory::{Directory, LogFile};
use super::error::DiskError;
use super::log::SessionLog;
use super::record::{HEAD_BYTES, Head, Record};
use super::segment::{SegmentReader, SegmentRecord, system};
use crate::store::{Item, ItemMarks, MemoryStore, Now, RestoredItem};

/// How often the log says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Counters of locks are noted when they reach a multiple of this.
pub(super) const COOKIE_BLOCK: u32 = 4096;

/// What a counter is ahead by for each process since its last note: the block that it may have
/// used up, and one more that it may have begun in seconds that were lost.
const COOKIES_PER_RUN: u64 = 2 * COOKIE_BLOCK as u64;

/// A counter that would come above this begins anew. The proxy tells cookies of less than 24 bits
/// (docs/handover.md).
const MAX_RESTORED_COOKIE: u64 = 14 << 20;

/// A sliding expiry is noted once in this part of the timeout.
pub(super) const NOTES_PER_TIMEOUT: u64 = 8;

/// What was found.
pub(super) struct Loaded<D: Directory> {
    pub(super) log: SessionLog<D>,
    /// Length of a torn end that was cut off.
    pub(super) cut_bytes: u64,
}

/// Reads the whole log into `memory`, which is empty, and cuts off a torn end.
///
/// # Errors
/// [`DiskError`].
pub(super) fn load<D: Directory>(
    directory: D,
    memory: &MemoryStore,
    now: Now,
    segment_bytes: u64,
) -> Result<Loaded<D>, DiskError> {
    let mut numbers = numbers(&directory)?;
    let mut cut_bytes = 0;
    // A last segment without a head was never written to: its head comes first.
    if let Some(&last) = numbers.last()
        && SegmentReader::open(&directory, last)?.is_none()
    {
        cut_bytes += drop_unbegun(&directory, last)?;
        numbers.pop();
    }
    let heads = heads(&directory, &numbers)?;
    let run = heads.last().map_or(0, |(head, _)| head.run + 1);
    let next_number = numbers.last().map_or(1, |last| last + 1);
    let total_bytes = heads.iter().map(|(_, length)| length).sum();
    let mut progress = Progress::new(total_bytes);
    let mut adopted = Vec::new();
    let mut log = SessionLog::new(directory, run, next_number, segment_bytes);
    for (place, number) in numbers.iter().enumerate() {
        let is_last = place + 1 == numbers.len();
        let restore = Restore { memory, now, run };
        let (bytes, cut) = read(&mut log, *number, is_last, &restore, &mut progress)?;
        adopted.push((*number, bytes));
        cut_bytes += cut;
    }
    for (number, bytes) in adopted {
        log.adopt(number, bytes);
    }
    Ok(Loaded { log, cut_bytes })
}

/// In order and without a gap.
fn numbers<D: Directory>(directory: &D) -> Result<Vec<u64>, DiskError> {
    let numbers = directory.numbers();
    let mut numbers =
        numbers.map_err(|source| system("list the folder of", &directory.name(1), source))?;
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            let file = directory.name(pair[0] + 1);
            return Err(DiskError::Missing { file });
        }
    }
    Ok(numbers)
}

/// The last file has no whole head: it was made just before the end.
fn drop_unbegun<D: Directory>(directory: &D, number: u64) -> Result<u64, DiskError> {
    let name = directory.name(number);
    let file = directory.open(number);
    let file = file.map_err(|source| system("open", &name, source))?;
    let length = file.len().map_err(|source| system("read", &name, source))?;
    // Records are written once the disk has the head.
    if length > HEAD_BYTES as u64 {
        return Err(without_head(directory, number));
    }
    let removed = directory.remove(number).and_then(|()| directory.sync());
    removed.map_err(|source| system("remove", &name, source))?;
    Ok(length)
}

fn heads<D: Directory>(directory: &D, numbers: &[u64]) -> Result<Vec<(Head, u64)>, DiskError> {
    let head = |number: &u64| {
        let reader = SegmentReader::open(directory, *number)?;
        let reader = reader.ok_or_else(|| without_head(directory, *number))?;
        Ok((reader.head, reader.length()))
    };
    numbers.iter().map(head).collect()
}

fn without_head<D: Directory>(directory: &D, number: u64) -> DiskError {
    DiskError::Damaged {
        file: directory.name(number),
        offset: 0,
        fault: "it does not begin as a file of sessions does",
    }
}

/// How items come back.
struct Restore<'a> {
    memory: &'a MemoryStore,
    now: Now,
    run: u64,
}

/// Reads one segment. Returns its length, and how much was cut off.
fn read<D: Directory>(
    log: &mut SessionLog<D>,
    number: u64,
    is_last: bool,
    restore: &Restore<'_>,
    progress: &mut Progress,
) -> Result<(u64, u64), DiskError> {
    let Some(mut reader) = SegmentReader::open(log.directory(), number)? else {
        return Err(without_head(log.directory(), number));
    };
    let mut complete = false;
    loop {
        match reader.next()? {
            SegmentRecord::Record { bytes } => {
                let Some(record) = reader.record() else {
                    return Err(reader.damaged("a record of a later version"));
                };
                complete = matches!(record, Record::End);
                restore.record(&record, reader.head.run);
                log.note(number, bytes, &record);
                progress.read(bytes);
            }
            SegmentRecord::End if complete => return Ok((reader.length(), 0)),
            SegmentRecord::End if is_last => break,
            SegmentRecord::End => return Err(reader.damaged("the end of the file is missing")),
            SegmentRecord::Torn(fault) if !is_last || complete || reader.was_synced_beyond()? => {
                return Err(reader.damaged(fault));
            }
            SegmentRecord::Torn(_) => break,
        }
    }
    let cut_bytes = reader.length() - reader.offset();
    Ok((reader.complete()?, cut_bytes))
}

impl Restore<'_> {
    fn record(&self, record: &Record<'_>, run: u64) {
        match record {
            Record::Stored { key, item } => {
                let marks = self.marks(&item.marks, item.timeout_minutes, run);
                self.memory.restore(key, &RestoredItem { marks, ..*item });
            }
            Record::Used { key, marks } => {
                let restored = |item: &Item| self.marks(marks, item.timeout_minutes(), run);
                self.memory.restore_marks(key, restored);
            }
            Record::Gone { key } => self.memory.forget(key),
            Record::Synced { .. } | Record::End => {}
        }
    }

    /// What has not been noted is assumed: that the item was used until the next note, and that as
    /// many locks were taken.
    fn marks(&self, noted: &ItemMarks, timeout_minutes: u32, run: u64) -> ItemMarks {
        let timeout_ms = u64::from(timeout_minutes) * 60_000;
        // The last moment of the part that the note is in: a use beyond it would have been noted, and
        // one up to it counts as noted from here on.
        let part_ms = timeout_ms / NOTES_PER_TIMEOUT;
        let into_part_ms = noted.expires_ms % part_ms.max(1);
        let latest_ms = noted
            .expires_ms
            .saturating_add(part_ms.saturating_sub(into_part_ms + 1));
        // No further than a use at this moment would, wherever the clock stood before.
        let expires_ms = latest_ms.min(self.now.unix_ms.saturating_add(timeout_ms));
        let cookie = restored_cookie(noted.cookie, self.run.saturating_sub(run));
        ItemMarks {
            expires_ms,
            cookie,
            uninit: noted.uninit,
        }
    }
}

/// A counter that no cookie handed out before can equal, whatever was lost: the last one of a
/// block, so that the next lock is noted at once.
fn restored_cookie(noted: u32, runs: u64) -> u32 {
    let end_of_block = |cookie: u64| cookie | u64::from(COOKIE_BLOCK - 1);
    let ahead = COOKIES_PER_RUN.saturating_mul(runs);
    let cookie = end_of_block(u64::from(noted)).saturating_add(ahead);
    let cookie = if cookie > MAX_RESTORED_COOKIE {
        end_of_block(cookie % (MAX_RESTORED_COOKIE / 2))
    } else {
        cookie
    };
    cookie as u32
}

/// Says how far it is, for those who wait.
struct Progress {
    total_bytes: u64,
    read_bytes: u64,
    next_report: Instant,
}

impl Progress {
    fn new(total_bytes: u64) -> Self {
        Self {
            total_bytes,
            read_bytes: 0,
            next_report: Instant::now() + REPORT_EVERY,
        }
    }

    fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        // A look at the clock every MiB or so.
        if self.read_bytes % (1 << 20) < bytes && Instant::now() >= self.next_report {
            self.next_report = Instant::now() + REPORT_EVERY;
            let percent = self.read_bytes * 100 / self.total_bytes.max(1);
            tracing::info!(percent, of_bytes = self.total_bytes, "loading sessions");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_cookie_of_an_earlier_process_is_handed_out_again(
            noted in 1u32..10_000_000,
            lost in 0u32..COOKIE_BLOCK,
            runs in 1u64..100,
        ) {
            // What the first process may have handed out: the block, and what of the next was lost.
            let handed_out = u64::from(noted | (COOKIE_BLOCK - 1)) + u64::from(lost);
            let mut last = handed_out;
            for run in 1..=runs {
                let restored = u64::from(restored_cookie(noted, run));
                prop_assert!(restored < 1 << 24);
                prop_assert_eq!((restored + 1) % u64::from(COOKIE_BLOCK), 0);
                if restored < last {
                    // Begun anew, far from what was handed out lately.
                    prop_assert!(last - restored > 1 << 22);
                    return Ok(());
                }
                prop_assert!(restored >= last);
                last = restored + u64::from(lost);
            }
        }
    }
}
