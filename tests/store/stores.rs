//! Every implementation of `SessionStore`, under the same tests.

#![expect(
    clippy::expect_used,
    reason = "a store that does not open fails the test"
)]

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use staterouter::disk::{DiskOptions, DiskStore, SyncMode};
use staterouter::store::{
    BadHeader, CountedStore, ItemSnapshot, MemoryStore, Now, SessionCommand, SessionStore,
    StoreOptions, StoreOutcome, StoreStats, SweepTurn,
};

use crate::fake_disk::FakeDisk;
use crate::faulty_store::{Fault, FaultyStore};

/// A store that a test can build and look into.
pub(crate) trait TestStore: CountedStore {
    /// Random histories that are played on it; the rules in memory are played most.
    const MODEL_CASES: u32;

    /// How far its times may be off; 0 for a store whose clock is the test's.
    const SLACK_MS: u64 = 0;

    /// The counter of locks starts over behind this one.
    const LAST_COOKIE: u32 = 2_147_483_646;

    fn build(options: &StoreOptions) -> Self;

    /// The state of a live item, with nothing touched.
    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot>;

    /// Stops and starts anew, with the same sessions; `None` for a store that loses them.
    fn restart(&mut self, _now: Now) -> Option<()> {
        None
    }
}

impl TestStore for MemoryStore {
    const MODEL_CASES: u32 = 400;

    fn build(options: &StoreOptions) -> Self {
        Self::new(options)
    }

    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        self.inspect(key, now)
    }
}

/// Slow as a rule: no answer is ready when it is first asked for.
impl TestStore for FaultyStore<MemoryStore> {
    const MODEL_CASES: u32 = 50;

    fn build(options: &StoreOptions) -> Self {
        Self::new(MemoryStore::new(options), Fault::Slow)
    }

    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        self.inner.inspect(key, now)
    }
}

/// A store over a disk in memory.
pub(crate) struct OnDisk {
    store: DiskStore,
    disk: FakeDisk,
    options: DiskOptions,
}

impl SessionStore for OnDisk {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        self.store.apply(key, command, now)
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        self.store.sweep(now, max_items)
    }
}

impl CountedStore for OnDisk {
    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

impl TestStore for OnDisk {
    const MODEL_CASES: u32 = 100;

    fn build(options: &StoreOptions) -> Self {
        let disk = FakeDisk::default();
        let options = DiskOptions {
            segment_bytes: 4000,
            ..DiskOptions::new(options.clone(), SyncMode::EverySec)
        };
        let now = Now {
            unix_ms: 0,
            local_ticks: 0,
        };
        let store = DiskStore::open(disk.clone(), &options, now).expect("an empty disk");
        Self {
            store,
            disk,
            options,
        }
    }

    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        self.store.inspect(key, now)
    }

    fn restart(&mut self, now: Now) -> Option<()> {
        self.store.close().expect("a good disk");
        let store = DiskStore::open(self.disk.clone(), &self.options, now);
        self.store = store.expect("what was written");
        Some(())
    }
}

/// Runs each named function, which is generic over the store, once for every store.
macro_rules! for_every_store {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod redis {
            $(#[test] $(#[$attribute])* fn $name() {
                if crate::redis::has_redis() {
                    super::$name::<crate::on_redis::OnRedis>();
                }
            })*
        }
        $crate::stores::for_every_own_store! { $($(#[$attribute])* $name),* }
    };
}
pub(crate) use for_every_store;

/// The same for the stores whose clock is the test's.
macro_rules! for_every_own_store {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod memory {
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<staterouter::store::MemoryStore>(); })*
        }
        mod slow {
            type Slow = crate::faulty_store::FaultyStore<staterouter::store::MemoryStore>;
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<Slow>(); })*
        }
        mod disk {
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<crate::stores::OnDisk>(); })*
        }
    };
}
pub(crate) use for_every_own_store;

/// A command as a test writes it, with header values that may be no good.
pub(crate) trait Asked {
    fn parsed(self) -> Result<SessionCommand, BadHeader>;
}

impl Asked for SessionCommand {
    fn parsed(self) -> Result<SessionCommand, BadHeader> {
        Ok(self)
    }
}

impl Asked for Result<SessionCommand, BadHeader> {
    fn parsed(self) -> Self {
        self
    }
}

/// Asks a store and waits for its answer.
pub(crate) trait Ask: SessionStore {
    fn ask(&self, key: &[u8], asked: impl Asked, now: Now) -> StoreOutcome {
        match asked.parsed() {
            Ok(command) => wait(self.apply(key, command, now)),
            Err(bad) => StoreOutcome::Invalid(bad),
        }
    }
}

impl<S: SessionStore> Ask for S {}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future` on this thread.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}
