//! What the data path tells the control thread. Nothing here makes a request wait, except a
//! removal that must be on disk before its answer goes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::app_names::AppNames;
use super::body_samples::{BodySamples, ContentsEvents};
use super::copies::{CopyTracker, REMEMBERED};
use super::error::ProxyError;
use super::farm_signs::{FarmSign, LockedCounts};
use super::id_watch::{IdUse, IdWatch};
use super::lock_pace::LockPaces;
use super::lock_queue::LockQueues;
use crate::backend;
use crate::handover::BackendId;
use crate::health::Failure;
use crate::net::{self, IoError, UnixClock};
use crate::usage::Account;

/// Reports under way at most. What does not fit is lost: the next failure says the same.
const MAX_REPORTS: usize = 1024;

/// One thing the control thread has to know.
#[derive(Debug)]
pub enum Report {
    /// A request failed because of its backend.
    Failed {
        /// The backend.
        backend_id: BackendId,
        /// In which way.
        failure: Failure,
    },
    /// A web server uses an application id, maybe for a session that had another one before.
    IdUse(IdUse),
    /// A request shows something of the web farm.
    FarmSign(FarmSign),
    /// An item was removed while a server that may have a copy was out of reach.
    MissedDelete(PendingDelete),
}

/// A removal to be repeated at a server that is out of reach.
#[derive(Debug)]
pub struct PendingDelete {
    /// The server.
    pub to: BackendId,
    /// The request target as the client sent it: a secret.
    pub target: Vec<u8>,
    /// To be told true once the note survives this process, false if it cannot be kept.
    pub noted: oneshot::Sender<bool>,
}

/// The workers' end, and what they tell one another.
#[derive(Debug)]
pub struct WorkersShared {
    /// The time that control goes by.
    pub(super) clock: UnixClock,
    /// Which sessions are where, as far as answers tell.
    pub account: Account,
    /// The copies that replicas keep.
    pub copies: CopyTracker,
    /// What sessions consist of.
    pub contents: BodySamples,
    /// How applications are called.
    pub app_names: AppNames,
    pub(super) lock_queues: Arc<LockQueues>,
    pub(super) lock_paces: Arc<LockPaces>,
    pub(super) locked_counts: LockedCounts,
    pub(super) id_watch: IdWatch,
    sender: mpsc::Sender<Report>,
    longest_timeout_minutes: AtomicU32,
}

impl WorkersShared {
    /// All ends; control goes by the same clock.
    pub fn channel(clock: UnixClock) -> (Arc<Self>, mpsc::Receiver<Report>, ContentsEvents) {
        let (sender, received) = mpsc::channel(MAX_REPORTS);
        let (contents, events) = BodySamples::channel();
        let shared = Self {
            clock,
            account: Account::default(),
            copies: CopyTracker::new(clock.now_ms(), REMEMBERED),
            contents,
            app_names: AppNames::default(),
            lock_queues: Arc::default(),
            lock_paces: Arc::default(),
            locked_counts: LockedCounts::default(),
            id_watch: IdWatch::default(),
            sender,
            longest_timeout_minutes: AtomicU32::new(0),
        };
        (Arc::new(shared), received, events)
    }

    /// The longest session timeout any worker has seen since the last call, in minutes; 0 for none.
    pub fn take_longest_timeout(&self) -> u32 {
        match self.longest_timeout_minutes.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.longest_timeout_minutes.swap(0, Ordering::Relaxed),
        }
    }

    /// Nearly always only looks: most sessions have the timeout of the others.
    pub(super) fn saw_timeout(&self, minutes: u32) {
        if minutes > self.longest_timeout_minutes.load(Ordering::Relaxed) {
            self.longest_timeout_minutes
                .fetch_max(minutes, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self, backend_id: BackendId, failure: Failure) {
        let report = Report::Failed {
            backend_id,
            failure,
        };
        // A full channel is full of failures already.
        let _ = self.sender.try_send(report);
    }

    pub(super) fn id_use(&self, seen: IdUse) {
        // The next one says the same.
        let _ = self.sender.try_send(Report::IdUse(seen));
    }

    pub(super) fn farm_sign(&self, sign: FarmSign) {
        // As above.
        let _ = self.sender.try_send(Report::FarmSign(sign));
    }

    /// Whether the removal is on disk.
    pub(super) async fn note_delete(&self, to: BackendId, target: Vec<u8>) -> bool {
        let (noted, is_noted) = oneshot::channel();
        let missed = PendingDelete { to, target, noted };
        self.sender.try_send(Report::MissedDelete(missed)).is_ok()
            && is_noted.await.unwrap_or(false)
    }
}

/// What `error` says against the backend; `None` if it is not the backend's fault.
pub(super) fn failure_of(error: &ProxyError) -> Option<Failure> {
    match error {
        ProxyError::Connect(error) => Some(error.failure()),
        ProxyError::Send(IoError::TimedOut) | ProxyError::Answer(IoError::TimedOut) => {
            Some(Failure::Late)
        }
        ProxyError::Send(IoError::Broken(error)) if net::is_shortage(error) => {
            Some(Failure::Shortage)
        }
        ProxyError::Send(_) | ProxyError::Answer(_) => Some(Failure::Broken),
        ProxyError::Garbage(_) => Some(Failure::Garbage),
        ProxyError::Unfit(unfit) => Some(backend::unfit_failure(*unfit)),
        _ => None,
    }
}
