//! Looks into bodies that are stored, for what fills the servers: the beginning of a body of each
//! followed session once a minute, copied for a thread that has time. Nothing here makes a request
//! fail, or wait for longer than a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::contents::StoredSample;
use crate::route::{self, KeyBuffer};
use crate::usage;
use crate::wire::{self, RequestHead};

/// How much of a body is copied: names and lengths of its items stand in front.
pub(super) const SAMPLE_BYTES: usize = 16 * 1024;

/// Events that wait to be looked at. What does not fit is left out.
const MAX_EVENTS: usize = 1024;

/// No session is followed, but for the one in 2^64 whose hash is 0.
const FOLLOW_NOTHING: u64 = u64::MAX;

/// Places for sessions that something was done for.
const MARKS: u64 = 1 << 16;

/// What has become of a followed session.
#[derive(Debug)]
pub enum ContentsEvent {
    /// It was stored.
    Stored(Box<StoredSample>),
    /// It was used: the session with this hash.
    Touched(u64),
    /// It has ended.
    Gone(u64),
}

/// Which bodies are looked into.
#[derive(Debug)]
pub struct SampleGate {
    /// What every request reads and nearly nobody writes.
    mask: AtomicU64,
    is_wanted: AtomicBool,
    looked_at: Marks,
    touched: Marks,
}

/// Sessions that something was done for in this minute, by bits of their hash. A few share a place and
/// are taken for each other.
#[derive(Debug)]
struct Marks(Box<[AtomicU64]>);

/// The workers' end.
#[derive(Debug)]
pub struct BodySamples {
    gate: Arc<SampleGate>,
    events: SyncSender<ContentsEvent>,
}

/// The end of whoever adds up.
#[derive(Debug)]
pub struct ContentsEvents {
    /// Says which sessions are followed.
    pub gate: Arc<SampleGate>,
    /// What becomes of them. Ends when no worker is left.
    pub events: Receiver<ContentsEvent>,
}

impl BodySamples {
    /// Both ends. Nothing is looked into before somebody wants that.
    #[must_use]
    pub fn channel() -> (Self, ContentsEvents) {
        let (send, events) = sync_channel(MAX_EVENTS);
        let gate = Arc::new(SampleGate {
            mask: AtomicU64::new(FOLLOW_NOTHING),
            is_wanted: AtomicBool::new(false),
            looked_at: Marks::new(),
            touched: Marks::new(),
        });
        let samples = Self {
            gate: Arc::clone(&gate),
            events: send,
        };
        (samples, ContentsEvents { gate, events })
    }

    /// Looks into bodies from now on, or no longer.
    pub fn switch(&self, is_wanted: bool) {
        self.gate.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// Whether the session with this hash is followed.
    #[inline]
    pub(super) fn follows(&self, hash: u64) -> bool {
        hash & self.gate.mask.load(Ordering::Relaxed) == 0
    }

    /// Whether a body of its session was looked into in this minute.
    #[inline]
    pub(super) fn was_looked_into(&self, hash: u64) -> bool {
        self.gate.looked_at.has(hash)
    }

    /// Whether its body is to be looked into: the first of a minute is.
    pub(super) fn is_due(&self, hash: u64) -> bool {
        self.gate.looked_at.set(hash)
    }

    /// Whether the followed session with this hash was used in this minute.
    #[inline]
    pub(super) fn was_used(&self, hash: u64) -> bool {
        self.gate.touched.has(hash)
    }

    /// The followed session with this hash was used, or has ended.
    pub(super) fn used(&self, hash: u64, has_ended: bool) {
        if has_ended {
            self.tell(ContentsEvent::Gone(hash));
        } else if self.gate.touched.set(hash) {
            self.tell(ContentsEvent::Touched(hash));
        }
    }

    pub(super) fn tell(&self, event: ContentsEvent) {
        // The next minute brings another look.
        let _ = self.events.try_send(event);
    }
}

/// Whether a PUT creates a session that has no contents yet. If there is one already it is answered as
/// if it were stored, and is not (protocol 5.3).
pub(super) fn is_create(head: &RequestHead, received: &[u8]) -> bool {
    let flags = head.extra_flags.map(|flags| flags.of(received));
    flags
        .and_then(wire::signed)
        .is_some_and(|flags| flags & 1 == 1)
}

/// The beginning of the body of the PUT with this head, at the start of `received`.
pub(super) fn take(head: &RequestHead, received: &[u8], hash: u64) -> Option<StoredSample> {
    let mut buffer = KeyBuffer::new();
    let key = route::extract(head.target.of(received), &mut buffer).ok()?;
    let minutes = head
        .timeout
        .and_then(|timeout| wire::signed(timeout.of(received)));
    let body = received.get(head.head_bytes..)?;
    // Behind it the next request may begin.
    let longest = SAMPLE_BYTES.min(usize::try_from(head.body_bytes).unwrap_or(SAMPLE_BYTES));
    Some(StoredSample {
        hash,
        app: key.app().to_vec(),
        timeout_minutes: usage::minutes_or_default(minutes),
        body_bytes: head.body_bytes,
        beginning: body[..body.len().min(longest)].to_vec(),
    })
}

impl SampleGate {
    /// Whether somebody wants to know what fills the servers.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Follows the sessions whose hash has these bits clear; none with `None`.
    pub fn follow(&self, mask: Option<u64>) {
        let mask = mask.unwrap_or(FOLLOW_NOTHING);
        if self.mask.load(Ordering::Relaxed) != mask {
            self.mask.store(mask, Ordering::Relaxed);
        }
    }

    /// Every followed session is looked at once more.
    pub fn look_again(&self) {
        self.looked_at.clear();
        self.touched.clear();
    }
}

impl Marks {
    fn new() -> Self {
        let words = (0..MARKS / 64).map(|_| AtomicU64::new(0));
        Self(words.collect())
    }

    /// Whether a session is marked.
    #[inline]
    fn has(&self, hash: u64) -> bool {
        let (index, mark) = Self::place(hash);
        let word = self.0.get(index);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & mark != 0)
    }

    /// Marks a session; whether it was not marked yet.
    fn set(&self, hash: u64) -> bool {
        let (index, mark) = Self::place(hash);
        let word = self.0.get(index);
        // Nearly always it is: then nothing is written.
        !self.has(hash)
            && word.is_some_and(|word| word.fetch_or(mark, Ordering::Relaxed) & mark == 0)
    }

    #[inline]
    fn place(hash: u64) -> (usize, u64) {
        let place = hash >> 32 & (MARKS - 1);
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}
