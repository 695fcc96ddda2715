//! Between the workers, who change items, and the thread that writes the changes down.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::load::{COOKIE_BLOCK, NOTES_PER_TIMEOUT};
use super::record::Record;
use super::waiting::Waiting;
use crate::store::{Item, ItemChange, ItemMarks, KeptItem};

/// Writes are remembered by the hash of their key in a table of so many places.
const PLACES: usize = 4096;

/// Beyond so many waiting entries, uses of items are no longer noted.
const MAX_WAITING_NOTES: usize = 100_000;

/// A batch is taken up to about so many bytes.
const BATCH_BYTES: usize = 8 << 20;

/// Whether the disk takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DiskState {
    /// It does.
    Writable,
    /// It has refused one, and is asked again every second: it may be full.
    Paused,
    /// It has failed in a way after which nothing is certain. Only a new start looks again.
    Failed,
}

/// A change that has not been written yet.
pub(super) enum JournalEntry {
    Stored { key: Box<[u8]>, item: KeptItem },
    Used { key: Box<[u8]>, marks: ItemMarks },
    Gone { key: Box<[u8]> },
}

impl JournalEntry {
    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Stored { key, item } => {
                let item = item.borrowed();
                Record::Stored { key, item }
            }
            Self::Used { key, marks } => Record::Used { key, marks: *marks },
            Self::Gone { key } => Record::Gone { key },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Stored { key, item } => key.len() + item.body.len(),
            Self::Used { key, .. } | Self::Gone { key } => key.len(),
        }
    }
}

/// Changes up to a ticket, in the order in which they were made.
pub(super) struct Batch {
    pub(super) entries: Vec<JournalEntry>,
    pub(super) last_ticket: u64,
}

/// A change that was noted.
#[derive(Default)]
pub(super) struct Noted<'a> {
    /// The ticket of a write, 0 for anything nobody waits for.
    pub(super) ticket: u64,
    /// Calls the writer when it is dropped. Until then other changes join this one.
    pub(super) call: Option<WriterCall<'a>>,
}

/// Whoever has this hands what was noted to the writer.
pub(super) struct WriterCall<'a>(&'a Journal);

impl Drop for WriterCall<'_> {
    fn drop(&mut self) {
        self.0.call_writer();
    }
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<JournalEntry>,
    /// The ticket of the last entry that was added.
    last_ticket: u64,
    /// Somebody has a [`WriterCall`].
    has_caller: bool,
    /// The writer was called, and has not taken the entries yet.
    is_called: bool,
    /// The writer sleeps, and nobody has woken it yet.
    is_asleep: bool,
    /// Set once, at the end.
    closed: bool,
}

/// What workers and writer share.
pub(super) struct Journal {
    queue: Mutex<Queue>,
    wake: Condvar,
    state: AtomicU8,
    committed: AtomicU64,
    /// How often [`Self::latest_write`] was asked: by every command.
    asked: AtomicU64,
    waiting: Waiting,
    /// The ticket of the latest write to any key with this hash: whoever reads what is not
    /// committed yet has to wait for it.
    latest: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            state: AtomicU8::new(DiskState::Writable as u8),
            committed: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            waiting: Waiting::new(),
            latest: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn state(&self) -> DiskState {
        match self.state.load(Ordering::Relaxed) {
            0 => DiskState::Writable,
            1 => DiskState::Paused,
            _ => DiskState::Failed,
        }
    }

    /// Takes note of a change.
    pub(super) fn note(&self, key: &[u8], change: ItemChange<'_>) -> Noted<'_> {
        match change {
            ItemChange::Stored(item) => {
                let item = item.kept();
                let key_bytes = Box::from(key);
                self.write(
                    key,
                    JournalEntry::Stored {
                        key: key_bytes,
                        item,
                    },
                )
            }
            ItemChange::Removed => {
                let key_bytes = Box::from(key);
                self.write(key, JournalEntry::Gone { key: key_bytes })
            }
            ItemChange::Used { before, item } => {
                self.use_of(key, &before, item);
                Noted::default()
            }
            ItemChange::Expired => {
                self.expired(key);
                Noted::default()
            }
        }
    }

    /// Takes note that an item is gone because its time was up.
    pub(super) fn expired(&self, key: &[u8]) {
        if self.state() != DiskState::Failed {
            let key = Box::from(key);
            self.push(JournalEntry::Gone { key }, usize::MAX);
        }
    }

    fn use_of(&self, key: &[u8], before: &ItemMarks, item: &Item) {
        let marks = item.marks();
        let part_ms = u64::from(item.timeout_minutes()) * 60_000 / NOTES_PER_TIMEOUT;
        let is_worth_a_note = before.uninit != marks.uninit
            || before.cookie / COOKIE_BLOCK != marks.cookie / COOKIE_BLOCK
            || before.expires_ms / part_ms != marks.expires_ms / part_ms;
        if is_worth_a_note && self.state() != DiskState::Failed {
            let key = Box::from(key);
            self.push(JournalEntry::Used { key, marks }, MAX_WAITING_NOTES);
        }
    }

    fn write(&self, key: &[u8], entry: JournalEntry) -> Noted<'_> {
        let noted = self.push(entry, usize::MAX);
        self.place_of(key).fetch_max(noted.ticket, Ordering::AcqRel);
        noted
    }

    /// Adds an entry unless more than `most` wait; without a ticket if it was not added.
    fn push(&self, entry: JournalEntry, most: usize) -> Noted<'_> {
        let mut queue = self.queue();
        if queue.entries.len() >= most {
            return Noted::default();
        }
        queue.last_ticket += 1;
        queue.entries.push_back(entry);
        let is_caller = !std::mem::replace(&mut queue.has_caller, true);
        Noted {
            ticket: queue.last_ticket,
            // Made only where it is needed: its end would wait for this lock.
            call: is_caller.then(|| WriterCall(self)),
        }
    }

    /// Lets the writer take what there is.
    fn call_writer(&self) {
        let mut queue = self.queue();
        queue.has_caller = false;
        queue.is_called = true;
        let is_asleep = std::mem::take(&mut queue.is_asleep);
        drop(queue);
        if is_asleep {
            self.wake.notify_one();
        }
    }

    /// How many commands have asked for their tickets so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The ticket that an answer about this key has to wait for.
    pub(super) fn latest_write(&self, key: &[u8]) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let ticket = self.place_of(key).load(Ordering::Acquire);
        if ticket <= self.committed.load(Ordering::Acquire) {
            return 0;
        }
        ticket
    }

    fn place_of(&self, key: &[u8]) -> &AtomicU64 {
        &self.latest[self.hasher.hash_one(key) as usize % PLACES]
    }

    /// Waits until a ticket is committed or refused. False if it was refused.
    pub(super) async fn settled(&self, ticket: u64) -> bool {
        self.waiting.settled(ticket).await
    }

    /// Waits for a call, for the end, or for `patience`, and takes what there is. `None` at the
    /// end, once all is taken.
    pub(super) fn take(&self, patience: Duration) -> Option<Batch> {
        let mut queue = self.queue();
        if !queue.is_called && !queue.closed {
            queue.is_asleep = true;
            let waited = self.wake.wait_timeout(queue, patience);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.is_asleep = false;
        }
        if queue.entries.is_empty() && queue.closed {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for entry in &queue.entries {
            count += 1;
            bytes += entry.bytes();
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        let left = queue.entries.len() - count;
        queue.is_called = left > 0;
        let last_ticket = queue.last_ticket - left as u64;
        let entries = queue.entries.drain(..count).collect();
        Some(Batch {
            entries,
            last_ticket,
        })
    }

    /// From here on the promise for tickets up to this one holds.
    pub(super) fn commit(&self, ticket: u64) {
        self.committed.store(ticket, Ordering::Release);
        self.state
            .store(DiskState::Writable as u8, Ordering::Relaxed);
        self.waiting.go_on(|progress| progress.committed = ticket);
    }

    /// Refuses all tickets that have been given and are not committed.
    pub(super) fn refuse(&self, state: DiskState) {
        self.state.store(state as u8, Ordering::Relaxed);
        let last_ticket = self.queue().last_ticket;
        self.waiting
            .go_on(|progress| progress.refused = last_ticket);
    }

    /// Lets the writer end once it has taken everything.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    /// Whether [`Self::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().closed
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test: nobody takes anything because time has passed.
    const PATIENCE: Duration = Duration::from_secs(3600);

    #[test]
    fn changes_join_one_call_and_the_next_one_after_it_calls_anew() {
        let journal = Journal::new();
        let removed = |key| journal.note(key, ItemChange::Removed);
        let (first, second) = (removed(b"a"), removed(b"b"));
        assert!(first.call.is_some() && second.call.is_none());
        drop(first);
        let third = removed(b"c");
        assert!(third.call.is_some());
        let taken = journal
            .take(PATIENCE)
            .map(|batch| (batch.entries.len(), batch.last_ticket));
        assert_eq!(taken, Some((3, 3)));
        drop(third);
        // Also a call whose change was taken before it has to be answered.
        let taken = journal.take(PATIENCE).map(|batch| batch.entries.len());
        assert_eq!(taken, Some(0));
    }

    #[test]
    fn the_writer_sleeps_until_it_is_called_however_much_there_is() {
        let journal = Journal::new();
        let noted = journal.note(b"a", ItemChange::Removed);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| journal.take(PATIENCE).map(|batch| batch.entries.len()));
            while !journal.queue().is_asleep {
                std::thread::yield_now();
            }
            let joined = journal.note(b"b", ItemChange::Removed);
            assert!(joined.call.is_none() && journal.queue().is_asleep);
            drop(noted);
            assert_eq!(writer.join().ok().flatten(), Some(2));
        });
    }
}
