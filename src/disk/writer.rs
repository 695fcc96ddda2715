//! The thread that writes changes down.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::error::DiskError;
use super::figures::Figures;
use super::journal::{Batch, DiskState, Journal};
use super::log::{LogError, SessionLog};
use super::options::SyncMode;
use crate::store::MemoryStore;

/// A write that the disk has refused is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// Cleaning up that has failed is tried again after so long.
const CLEAN_RETRY: Duration = Duration::from_secs(10);

/// How often it looks how much room the volume has.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// So long the writer waits for something to do at most.
const IDLE: Duration = Duration::from_secs(1);

/// Writes until the journal is closed.
pub(super) struct Writer<D: Directory> {
    pub(super) log: SessionLog<D>,
    pub(super) memory: Arc<MemoryStore>,
    pub(super) journal: Arc<Journal>,
    pub(super) figures: Arc<Figures>,
    pub(super) sync: SyncMode,
    pub(super) sync_every: Duration,
}

impl<D: Directory> Drop for Writer<D> {
    fn drop(&mut self) {
        // After a panic nobody would answer those who wait.
        if thread::panicking() {
            self.journal.refuse(DiskState::Failed);
        }
    }
}

impl<D: Directory> Writer<D> {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`DiskError::Thread`].
    pub(super) fn spawn(self) -> Result<JoinHandle<Result<(), LogError>>, DiskError> {
        let thread = thread::Builder::new().name("sessions".to_owned());
        thread.spawn(move || self.run()).map_err(DiskError::Thread)
    }

    fn run(mut self) -> Result<(), LogError> {
        let written = match self.sync {
            SyncMode::Shutdown => self.write_at_the_end(),
            _ => self.write_until_closed(),
        };
        if let Err(error) = &written {
            tracing::error!(
                "{error}; sessions are no longer stored: every write is refused with 400 until the \
                 state server is started anew"
            );
            self.journal.refuse(DiskState::Failed);
            // Those who write from now on are refused before they get here.
            while let Some(_batch) = self.journal.take(IDLE) {
                self.journal.refuse(DiskState::Failed);
            }
        }
        written
    }

    fn write_until_closed(&mut self) -> Result<(), LogError> {
        let mut sync_due = Instant::now() + self.sync_every;
        let mut room_due = Instant::now();
        let mut clean_due = Instant::now();
        let mut cleaning = false;
        loop {
            let patience = if cleaning {
                Duration::ZERO
            } else {
                self.patience(sync_due)
            };
            let Some(batch) = self.journal.take(patience) else {
                break;
            };
            if !batch.entries.is_empty() {
                self.write(&batch)?;
                if self.sync == SyncMode::Always {
                    self.sync()?;
                }
                self.journal.commit(batch.last_ticket);
            }
            if self.sync == SyncMode::EverySec && Instant::now() >= sync_due {
                self.sync()?;
                sync_due = Instant::now() + self.sync_every;
            }
            if Instant::now() >= room_due {
                self.figures.free(self.log.directory().free_bytes());
                room_due = Instant::now() + ROOM_EVERY;
            }
            if Instant::now() >= clean_due {
                cleaning = self.clean(&mut clean_due)?;
            }
            self.figures.log(self.log.bytes());
        }
        self.log.seal()
    }

    /// Takes a step of cleaning up. True if there is more to do. One that has failed is `due` again after
    /// a while: each batch would read the same file otherwise.
    fn clean(&mut self, due: &mut Instant) -> Result<bool, LogError> {
        let (log, figures) = (&mut self.log, &self.figures);
        match figures.time(|| log.clean(&self.memory)) {
            Err(LogError::Write(error)) => {
                tracing::warn!("{error}; the files of sessions are not cleaned up now");
                *due = Instant::now() + CLEAN_RETRY;
                Ok(false)
            }
            cleaned => cleaned,
        }
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let log = &mut self.log;
        self.figures.time_sync(|| log.sync())
    }

    fn patience(&self, sync_due: Instant) -> Duration {
        match self.sync {
            SyncMode::EverySec => sync_due.saturating_duration_since(Instant::now()),
            _ => IDLE,
        }
    }

    /// Writes a batch, however often it takes. While the disk refuses it, writes are refused.
    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        let mut refused = false;
        loop {
            let records = batch.entries.iter().map(|entry| entry.record());
            let log = &mut self.log;
            match self.figures.time(|| log.append(records)) {
                Err(LogError::Write(error)) => {
                    if !refused {
                        tracing::error!(
                            "{error}; every write is refused with 400 until this works again"
                        );
                    }
                    refused = true;
                    self.journal.refuse(DiskState::Paused);
                    if self.journal.is_closed() {
                        return Err(LogError::Write(error));
                    }
                    thread::sleep(RETRY);
                }
                written => {
                    if refused && written.is_ok() {
                        tracing::info!("sessions are stored again");
                    }
                    return written;
                }
            }
        }
    }

    /// Waits for the end, then writes down all that memory has.
    fn write_at_the_end(&mut self) -> Result<(), LogError> {
        while self.journal.take(IDLE).is_some() {}
        let log = &mut self.log;
        self.memory.try_for_each(|key, item| {
            let item = item.kept();
            let item = item.borrowed();
            log.append(std::iter::once(super::record::Record::Stored { key, item }))
        })?;
        log.seal()
    }
}
