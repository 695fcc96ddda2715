//! Rules left out or turned round: the simulation has to notice each of them.

use staterouter::handover::{Ask, NO_LOCK, Request, Route, Seen, Stage};

/// One rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// An item that moves past a search is called absent.
    NoSecondLook,
    /// What the second place gave in settle is passed on without a look at the first.
    NoConfirm,
    /// The copy of an item that is being moved passes for a new session.
    NoFlagCheck,
    /// A removal leaves what is at the second place.
    NoClear,
    /// Removals that a server out of reach misses are forgotten.
    NoOwed,
    /// A move whose copy is unknown is answered with the lock of the original.
    OldLock,
    /// Every lock in the way may be broken by a removal, also that of a living mover.
    YoungLocks,
    /// No stage waits for the other proxies.
    NoSettle,
    /// Each proxy decides alone whether a server is down.
    NoPeers,
    /// Restarted proxies have forgotten where the slots are, and no peer tells them.
    NoMemory,
}

impl Broken {
    /// What is taken for the answer to a question that is not asked.
    pub(crate) fn instead(
        self,
        ask: Ask,
        request: Request,
        route: Route,
        is_absent_at_second: bool,
    ) -> Option<Seen> {
        let finds = matches!(request, Request::Acquire | Request::Read);
        let is_skipped = match (self, ask) {
            (Self::NoSecondLook, Ask::Client { at, .. }) => {
                finds && is_absent_at_second && at == route.first
            }
            (Self::NoConfirm, Ask::Look { at }) => {
                finds && route.stage == Stage::Settle && at == route.first
            }
            (Self::NoFlagCheck, Ask::Remove { counter, .. }) => finds && counter == NO_LOCK,
            (Self::NoClear, Ask::Remove { counter, .. }) => {
                matches!(request, Request::Remove(_)) && counter == NO_LOCK
            }
            (Self::NoOwed, Ask::Owe { .. }) => {
                return Some(Seen::Done {
                    counter: 0,
                    flag: false,
                });
            }
            _ => false,
        };
        is_skipped.then_some(Seen::Absent)
    }
}
