//! One state of the world: servers, proxies, web requests, messages, and what is known of it all.

use staterouter::handover::{COPY_LOCK, RequestMachine};

use super::backend::{Answer, Item, Verb};
use super::config::{Budget, PLACES, PROXIES, REQUESTS};

/// Most messages whose asker does not wait for them.
pub(crate) const LATE: usize = 6;
/// Most versions of the session that anybody can still meet.
pub(crate) const VERSIONS: usize = 14;
/// No leg.
pub(crate) const NO_LEG: u8 = u8::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The leg each proxy is in.
    pub(crate) legs: [u8; PROXIES],
    /// Whether a proxy owes a removal.
    pub(crate) owed: [bool; PROXIES],
    pub(crate) items: [Option<Item>; PLACES],
    pub(crate) requests: [WebRequest; REQUESTS],
    pub(crate) late: [Option<Late>; LATE],
    pub(crate) versions: Versions,
    /// Whether it is certain that there is a session.
    pub(crate) exists: bool,
    /// Whether it is more than an empty item that nobody has met: one empty item is as good as
    /// another.
    pub(crate) used: bool,
    pub(crate) budget: Budget,
    /// A server has lost its memory: a copy may have lost what told it from a new item.
    pub(crate) crashed: bool,
    /// A new session that is not announced as new is a fault.
    pub(crate) starts: bool,
    /// A server has lost its memory, and its replica has everything.
    pub(crate) emptied: bool,
    /// The replica has missed something.
    pub(crate) missed: bool,
    /// The replica has a write whose lock was broken, or had it and nothing since.
    pub(crate) tainted: bool,
    /// A proxy knows that the item has been copied since the replica is filled.
    pub(crate) copied: [bool; PROXIES],
    /// The invariant that does not hold.
    pub(crate) fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A superseded version was handed out.
    I1,
    /// Two hold the lock.
    I2,
    /// A session was not found.
    I3,
    /// A removed version was handed out.
    I4,
    /// A broken lock's write inside its successor's was seen.
    I5,
    /// A holder was refused.
    I6,
    /// A session that is in use was handed out as new.
    I7,
    /// A new session was handed out as one that is in use.
    I8,
}

/// A worker of the web farm that serves one page after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WebRequest {
    /// Pages left, this one included.
    pub(crate) rounds: u8,
    pub(crate) page: Page,
    /// The leg in which an acquire began that was answered 404, until the acquire after the create
    /// has its answer.
    pub(crate) chain: u8,
    /// The lock it holds or is giving back.
    pub(crate) lock: Option<Lock>,
    /// Somebody has broken that lock.
    pub(crate) taken: bool,
    /// The session that lock was for is gone.
    pub(crate) outdated: bool,
    pub(crate) op: Option<Op>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Page {
    /// Wants to acquire, or to read.
    Begin,
    /// Found nothing.
    Absent,
    /// Has created it.
    Created,
    /// Runs, with the lock.
    Runs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lock {
    pub(crate) at: u8,
    pub(crate) counter: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Acquire,
    Read,
    /// Keeps the session alive.
    Touch,
    Create,
    /// Stores a new session under no lock.
    Fresh,
    Put,
    Release,
    Delete,
    /// Release of somebody else's lock.
    Break,
}

/// An operation of a client, at a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// The lock it gives back or breaks.
    pub(crate) lock: Option<Lock>,
    /// The proxy, where that matters.
    pub(crate) proxy: u8,
    /// The leg in which it began.
    pub(crate) leg: u8,
    /// `None` when nothing is left to decide.
    pub(crate) search: Option<RequestMachine>,
    pub(crate) now: Now,
    /// The last answer to the client's own request.
    pub(crate) held: Option<Answer>,
    /// What it writes.
    pub(crate) version: u8,
    /// Acquire and read: what was superseded when it began. DELETE: what was finished.
    pub(crate) mask: u16,
    /// Acquire and read: what had been acknowledged when it began.
    pub(crate) acked: u16,
    /// Acquire and read: the session has existed all the time.
    pub(crate) existed: bool,
    /// Nothing has removed the session since it began.
    pub(crate) undisturbed: bool,
    /// The session it found is gone since.
    pub(crate) outdated: bool,
    /// A broken lock's: somebody else has held the lock all the time.
    pub(crate) inside: bool,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Now {
    /// A message is on its way to a server.
    Sent(Message),
    /// The answer is on its way to the client.
    Answered(Answer),
    /// The client's connection is being closed.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) to: u8,
    pub(crate) verb: Verb,
    /// What is to be stored.
    pub(crate) version: u8,
    pub(crate) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The client's own, whose answer is held.
    Client,
    /// The client's own, whose answer is passed on.
    Forward,
    /// The proxy's.
    Proxy,
    /// The proxy's, of what the client stores or removes.
    Copy,
}

/// A message nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Late {
    pub(crate) message: Message,
    pub(crate) leg: u8,
    /// Part of a DELETE of a client.
    pub(crate) removal: bool,
    pub(crate) sender: Sender,
    /// The proxy, where that matters.
    pub(crate) proxy: u8,
    pub(crate) refresh: Refresh,
}

/// What follows on a message, if it is one of those that keep a copy alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refresh {
    Nothing,
    /// If there is no copy, one of what is there; `anew` says that there is none.
    Touched {
        replica: u8,
        from: Option<u8>,
        anew: bool,
    },
    /// A copy of what was found.
    Fetched {
        replica: u8,
        anew: bool,
    },
    /// What was found is given back.
    Stored {
        from: u8,
        counter: u8,
    },
}

/// Why nobody waits for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sender {
    /// Nobody needs its answer.
    Behind,
    /// Its asker has given up.
    GaveUp,
    /// Its asker is dead, and may have died before the message left.
    Dead,
    /// Its server was found to be down, and its asker has given up.
    BrokenOff,
}

/// What is known of the versions of the session, by their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Versions {
    pub(crate) count: u8,
    /// Empty items of a create.
    pub(crate) created: u16,
    /// Their write can have no effect any more that it has not had yet.
    pub(crate) finished: u16,
    /// Must not be handed out to who asks from now on.
    pub(crate) superseded: u16,
    /// Empty items that must not have taken effect: there was a session all the time.
    pub(crate) masked: u16,
    /// Superseded because of a DELETE.
    pub(crate) deleted: u16,
    /// Must never be seen.
    pub(crate) hidden: u16,
    /// Empty items that have been handed out as new.
    pub(crate) initialised: u16,
    /// Their write was acknowledged.
    pub(crate) acked: u16,
    /// What is superseded once a version is known to have been stored.
    pub(crate) before: [u16; VERSIONS],
}

impl WebRequest {
    pub(crate) fn new(rounds: u8) -> Self {
        Self {
            rounds,
            page: Page::Begin,
            chain: NO_LEG,
            lock: None,
            taken: false,
            outdated: false,
            op: None,
        }
    }

    /// Whether it has a lock that is nobody else's.
    pub(crate) fn holds(&self) -> bool {
        self.page == Page::Runs && self.op.is_none() && !self.taken && !self.outdated
    }

    /// The page is over, whether it went well or not.
    pub(crate) fn end_page(&mut self) {
        *self = Self::new(self.rounds - 1);
    }
}

impl Op {
    /// Whether this writes a version of the session.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Create | Kind::Fresh)
    }
}

impl Message {
    /// Whether it stores what a client sent, rather than a copy.
    pub(crate) fn is_clients_write(&self) -> bool {
        self.is_clients() && matches!(self.verb, Verb::Put(_) | Verb::Insert)
    }

    /// Whether it is the client's own request.
    pub(crate) fn is_clients(&self) -> bool {
        matches!(self.role, Role::Client | Role::Forward)
    }

    /// Whether it changes what a replica has.
    pub(crate) fn is_copy(&self) -> bool {
        let is_locked_by = |counter| counter == COPY_LOCK;
        matches!(self.verb, Verb::Put(counter) | Verb::Delete(counter) if is_locked_by(counter))
            || self.role == Role::Copy
    }
}
