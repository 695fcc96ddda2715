//! Every implementation of `SessionStore`, under the same tests.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use staterouter::store::{
    BadHeader, ItemSnapshot, MemoryStore, Now, Outcome, SessionCommand, SessionStore, StoreOptions,
};

use crate::faulty_store::{Fault, FaultyStore};

/// A store that a test can build and look into.
pub(crate) trait TestStore: SessionStore {
    /// Random histories that are played on it; the rules in memory are played most.
    const MODEL_CASES: u32;

    fn build(options: &StoreOptions) -> Self;

    /// The state of a live item, with nothing touched.
    fn look(&self, key: &[u8], now: Now) -> Option<ItemSnapshot>;
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

/// Runs each named function, which is generic over the store, once for every store.
macro_rules! for_every_store {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod memory {
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<staterouter::store::MemoryStore>(); })*
        }
        mod slow {
            type Slow = crate::faulty_store::FaultyStore<staterouter::store::MemoryStore>;
            $(#[test] $(#[$attribute])* fn $name() { super::$name::<Slow>(); })*
        }
    };
}
pub(crate) use for_every_store;

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
    fn ask(&self, key: &[u8], asked: impl Asked, now: Now) -> Outcome {
        match asked.parsed() {
            Ok(command) => wait(self.apply(key, command, now)),
            Err(bad) => Outcome::Invalid(bad),
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
