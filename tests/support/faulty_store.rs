//! A store that is slow, refuses, or loses its answers: what a store over a disk or a network does
//! to those who use it.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use staterouter::store::{
    CountedStore, Now, SessionCommand, SessionStore, StoreOutcome, StoreRefusal, StoreStats,
    SweepTurn,
};

/// What becomes of a command.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// None.
    None,
    /// It is carried out, and its answer is not ready when first asked for.
    Slow,
    /// It is carried out, and its answer waits for the gate.
    HeldAt(Gate),
    /// A write is refused; anything else is carried out.
    RefusesWrites,
    /// It is not carried out, and nobody can tell.
    FailsBefore,
    /// It is carried out, and nobody can tell.
    FailsAfter,
}

/// Holds answers back until it is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    pub(crate) fn open(&self) {
        let mut state = locked(&self.0);
        state.open = true;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// How often an answer that waits here was asked for.
    pub(crate) fn waiting(&self) -> usize {
        locked(&self.0).waiting.len()
    }
}

/// The store `inner` with faults: those given for the next commands, then the usual one.
#[derive(Debug)]
pub(crate) struct FaultyStore<S> {
    pub(crate) inner: S,
    usual: Fault,
    next: Mutex<VecDeque<Fault>>,
}

impl<S> FaultyStore<S> {
    pub(crate) fn new(inner: S, usual: Fault) -> Self {
        let next = Mutex::default();
        Self { inner, usual, next }
    }

    /// Gives the next command this fault, once those given before are used up.
    pub(crate) fn then(&self, fault: Fault) {
        locked(&self.next).push_back(fault);
    }
}

impl<S: SessionStore> SessionStore for FaultyStore<S> {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_, S> {
        let next = locked(&self.next).pop_front();
        let fault = next.unwrap_or_else(|| self.usual.clone());
        let refused = matches!(fault, Fault::RefusesWrites) && command.is_write();
        let done = !refused && !matches!(fault, Fault::FailsBefore);
        let answer = done.then(|| self.inner.apply(key, command, now));
        async move {
            hold_back(&fault).await;
            let outcome = match answer {
                Some(answer) => Some(answer.await),
                None => None,
            };
            match (fault, outcome) {
                (Fault::FailsBefore | Fault::FailsAfter, _) => StoreOutcome::Unknown,
                (_, Some(outcome)) => outcome,
                (_, None) => StoreOutcome::Refused(StoreRefusal::NotWritable),
            }
        }
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        self.inner.sweep(now, max_items)
    }
}

impl<S: CountedStore> CountedStore for FaultyStore<S> {
    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

async fn hold_back(fault: &Fault) {
    let mut asked = false;
    poll_fn(|context| match fault {
        Fault::Slow if !asked => {
            asked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Fault::HeldAt(gate) => {
            let mut state = locked(&gate.0);
            if state.open {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        }
        _ => Poll::Ready(()),
    })
    .await;
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
