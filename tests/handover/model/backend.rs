//! One item of a state server, by the table of protocol 5.3.

use staterouter::handover::{NO_LOCK, SubrequestReply};

/// Age of a lock in seconds that a request under way may still have taken.
const YOUNG_S: u64 = 0;
/// Age of a lock at which movers are dead and pages break it.
const OLD_S: u64 = 1_000;

/// What an answer without a body carries.
pub(crate) const NO_VERSION: u8 = u8::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) version: u8,
    pub(crate) counter: u8,
    pub(crate) locked: bool,
    pub(crate) uninit: bool,
    /// The operations and late messages that were under way when the lock was taken and still are.
    /// While there is one, the lock is young.
    pub(crate) young: u16,
    /// Whether an operation that began in the stage under way, which lasts a lifetime, has found it:
    /// at the place that is being left with an answer 200 to a read or acquire. The locks that were
    /// handed out there have come back at the beginning of that stage.
    pub(crate) touched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verb {
    Read,
    Acquire,
    Look,
    Release(u32),
    Put(u32),
    Insert,
    Delete(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Status {
    Done,
    Absent,
    Locked,
    /// It takes nothing that is to be stored.
    Refused,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) at: u8,
    pub(crate) status: Status,
    pub(crate) counter: u8,
    pub(crate) flag: bool,
    /// Whether the lock in the way is old enough to be broken.
    pub(crate) old: bool,
    pub(crate) version: u8,
}

impl Answer {
    /// What a server says that takes nothing.
    pub(crate) fn refused(at: u8) -> Self {
        Self {
            at,
            status: Status::Refused,
            counter: 0,
            flag: false,
            old: false,
            version: NO_VERSION,
        }
    }

    pub(crate) fn seen(self) -> SubrequestReply {
        let counter = u32::from(self.counter);
        match self.status {
            Status::Done => SubrequestReply::Done {
                counter,
                flag: self.flag,
            },
            Status::Absent => SubrequestReply::Absent,
            Status::Locked => SubrequestReply::Locked {
                counter,
                age_s: if self.old { OLD_S } else { YOUNG_S },
            },
            Status::Refused => SubrequestReply::Refused,
        }
    }
}

/// The answer of the server `at` to `verb`, and what becomes of its item. `version` is what is to
/// be stored, `active` the operations under way, `old` whether a lock in the way is old.
pub(crate) fn answer(
    slot: &mut Option<Item>,
    at: u8,
    verb: Verb,
    version: u8,
    active: u16,
    old: bool,
) -> Answer {
    let reply = |status, counter, flag, version| Answer {
        at,
        status,
        counter,
        flag,
        old: old && status == Status::Locked,
        version,
    };
    let done = reply(Status::Done, 0, false, NO_VERSION);
    let Some(item) = slot else {
        return match verb {
            Verb::Put(_) => {
                *slot = Some(Item::new(version, false));
                done
            }
            Verb::Insert => {
                *slot = Some(Item::new(version, true));
                done
            }
            _ => reply(Status::Absent, 0, false, NO_VERSION),
        };
    };
    let fits = |counter| !item.locked || u32::from(item.counter) == counter;
    let refused = reply(Status::Locked, item.counter, false, NO_VERSION);
    match verb {
        Verb::Look | Verb::Insert => done,
        Verb::Read | Verb::Acquire if item.locked => refused,
        Verb::Read | Verb::Acquire => {
            let flag = std::mem::take(&mut item.uninit);
            if verb == Verb::Read {
                return reply(Status::Done, 0, flag, item.version);
            }
            item.counter += 1;
            item.locked = true;
            item.young = active;
            reply(Status::Done, item.counter, flag, item.version)
        }
        Verb::Release(counter) if fits(counter) => {
            // Released through a GET: the flag goes with the answer, which nobody reads.
            item.uninit = false;
            item.unlock();
            done
        }
        Verb::Put(counter) if fits(counter) => {
            // In place, and what is in place keeps its flag.
            item.version = version;
            item.unlock();
            done
        }
        Verb::Delete(counter) if fits(counter) => {
            *slot = None;
            done
        }
        Verb::Release(_) | Verb::Put(_) | Verb::Delete(_) => refused,
    }
}

impl Item {
    pub(crate) fn new(version: u8, uninit: bool) -> Self {
        Self {
            version,
            counter: 1,
            locked: false,
            uninit,
            young: 0,
            touched: false,
        }
    }

    fn unlock(&mut self) {
        self.locked = false;
        self.young = 0;
    }
}

#[test]
fn answers_follow_the_table() {
    let unlocked = || Some(Item::new(0, false));
    let fresh = || Some(Item::new(0, true));
    let locked = || {
        let mut item = Item::new(0, false);
        (item.locked, item.counter) = (true, 2);
        Some(item)
    };
    for (mut item, verb, status, counter, flag, left) in [
        (None, Verb::Read, Status::Absent, 0, false, "A"),
        (None, Verb::Put(7), Status::Done, 0, false, "U1"),
        (None, Verb::Insert, Status::Done, 0, false, "I1"),
        (None, Verb::Release(2), Status::Absent, 0, false, "A"),
        (None, Verb::Delete(2), Status::Absent, 0, false, "A"),
        (unlocked(), Verb::Read, Status::Done, 0, false, "U1"),
        (unlocked(), Verb::Acquire, Status::Done, 2, false, "L2"),
        (unlocked(), Verb::Release(7), Status::Done, 0, false, "U1"),
        (unlocked(), Verb::Put(7), Status::Done, 0, false, "U1"),
        (unlocked(), Verb::Insert, Status::Done, 0, false, "U1"),
        (unlocked(), Verb::Delete(7), Status::Done, 0, false, "A"),
        (fresh(), Verb::Read, Status::Done, 0, true, "U1"),
        (fresh(), Verb::Acquire, Status::Done, 2, true, "L2"),
        (fresh(), Verb::Look, Status::Done, 0, false, "I1"),
        (fresh(), Verb::Put(1), Status::Done, 0, false, "I1"),
        (locked(), Verb::Read, Status::Locked, 2, false, "L2"),
        (locked(), Verb::Acquire, Status::Locked, 2, false, "L2"),
        (locked(), Verb::Look, Status::Done, 0, false, "L2"),
        (locked(), Verb::Insert, Status::Done, 0, false, "L2"),
        (locked(), Verb::Release(2), Status::Done, 0, false, "U2"),
        (locked(), Verb::Release(1), Status::Locked, 2, false, "L2"),
        (locked(), Verb::Put(2), Status::Done, 0, false, "U2"),
        (locked(), Verb::Put(NO_LOCK), Status::Locked, 2, false, "L2"),
        (locked(), Verb::Delete(1), Status::Locked, 2, false, "L2"),
        (locked(), Verb::Delete(2), Status::Done, 0, false, "A"),
    ] {
        let answer = answer(&mut item, 0, verb, 1, 0, false);
        let said = (answer.status, answer.counter, answer.flag);
        assert_eq!(said, (status, counter, flag), "{verb:?}");
        let name = item.map_or("A".to_owned(), |item| {
            let kind = match item {
                Item { locked: true, .. } => "L",
                Item { uninit: true, .. } => "I",
                _ => "U",
            };
            format!("{kind}{}", item.counter)
        });
        assert_eq!(name, left, "{verb:?}");
    }
}
