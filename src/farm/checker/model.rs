//! Random histories of a correct server: whatever the interleaving, it is not blamed.

use super::case::{ABSENT, Case};
use super::*;
use proptest::prelude::*;

/// One request, as the server gets it.
#[derive(Debug, Clone, Copy)]
enum Act {
    Read,
    Acquire,
    Takeover { cookie: u32 },
    Write { cookie: u32, version: u64 },
    Release { cookie: u32 },
    Remove { cookie: u32 },
    Insert { version: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Reply {
    seen: SeenContents,
    outcome: CheckedOutcome,
    cookie: Option<u32>,
    flag: bool,
}

/// The rules of protocol 5.3 for one key.
#[derive(Default)]
struct Item {
    version: Option<u64>,
    uninitialised: bool,
    is_locked: bool,
    cookie: u32,
}

impl Item {
    fn apply(&mut self, act: Act) -> Reply {
        match act {
            Act::Read => self.get(false),
            Act::Acquire => self.get(true),
            Act::Takeover { cookie } | Act::Release { cookie } => self.release(cookie),
            Act::Write { cookie, version } => self.write(cookie, version),
            Act::Remove { cookie } => {
                let mut reply = self.release(cookie);
                reply.flag = false;
                if reply.outcome == CheckedOutcome::Done {
                    *self = Self::default();
                }
                reply
            }
            Act::Insert { version } => {
                if self.version.is_none() {
                    *self = Self::holding(version, true);
                }
                Reply::new(SeenContents::Exists, CheckedOutcome::Done)
            }
        }
    }

    fn holding(version: u64, uninitialised: bool) -> Self {
        Self {
            version: Some(version),
            uninitialised,
            is_locked: false,
            cookie: 1,
        }
    }

    fn get(&mut self, exclusive: bool) -> Reply {
        let Some(version) = self.version else {
            return Reply::new(ABSENT, CheckedOutcome::Absent);
        };
        if self.is_locked {
            return Reply::new(SeenContents::Exists, CheckedOutcome::Done);
        }
        let flag = std::mem::take(&mut self.uninitialised);
        let mut reply = Reply::new(SeenContents::Body { version, flag }, CheckedOutcome::Done);
        if exclusive {
            self.is_locked = true;
            self.cookie += 1;
            reply.cookie = Some(self.cookie);
        }
        reply
    }

    fn write(&mut self, cookie: u32, version: u64) -> Reply {
        if self.version.is_none() {
            *self = Self::holding(version, false);
        } else if self.is_locked && self.cookie != cookie {
            return Reply::new(SeenContents::Exists, CheckedOutcome::Refused(423));
        }
        self.version = Some(version);
        self.is_locked = false;
        Reply::new(SeenContents::Exists, CheckedOutcome::Done)
    }

    fn release(&mut self, cookie: u32) -> Reply {
        if self.version.is_none() {
            return Reply::new(ABSENT, CheckedOutcome::Absent);
        }
        let mut reply = Reply::new(SeenContents::Exists, CheckedOutcome::Done);
        reply.flag = std::mem::take(&mut self.uninitialised);
        if self.is_locked && self.cookie != cookie {
            reply.outcome = CheckedOutcome::Refused(423);
        } else {
            self.is_locked = false;
        }
        reply
    }
}

impl Reply {
    const LOST: Self = Self::new(SeenContents::Nothing, CheckedOutcome::Unknown);

    const fn new(seen: SeenContents, outcome: CheckedOutcome) -> Self {
        Self {
            seen,
            outcome,
            cookie: None,
            flag: false,
        }
    }
}

enum Token {
    Begun(Begun),
    Writing(Writing),
}

struct Running {
    act: Act,
    token: Token,
    reply: Option<Reply>,
}

/// What the random steps choose between.
struct World {
    case: Case,
    item: Item,
    running: Vec<Running>,
    /// Requests whose senders have given up, but which may still arrive.
    on_their_way: Vec<Act>,
    holders: Vec<Holder>,
}

impl World {
    /// One session, stored or not.
    fn new(is_stored: bool) -> Self {
        let mut case = Case::new();
        let mut item = Item::default();
        if is_stored {
            let version = case.create(Create::Plain);
            item = Item::holding(version, false);
        }
        Self {
            case,
            item,
            running: Vec::new(),
            on_their_way: Vec::new(),
            holders: Vec::new(),
        }
    }

    fn step(&mut self, choice: u8, pick: usize, is_lost: bool) {
        match choice {
            0 => self.begin_reading(Act::Read),
            1 | 2 => self.begin_reading(Act::Acquire),
            3 if self.item.is_locked && pick.is_multiple_of(4) => {
                let cookie = self.item.cookie;
                let now = self.case.tick();
                let begun = self.case.ledger.begin_takeover(now, cookie);
                self.start(Act::Takeover { cookie }, Token::Begun(begun));
            }
            4 => {
                let writing = self.case.begin_create(Create::Insert);
                let version = writing.version;
                self.start(Act::Insert { version }, Token::Writing(writing));
            }
            5 => self.begin_leaving(pick),
            6 => self.execute(pick),
            _ => self.finish(pick, is_lost),
        }
    }

    fn begin_reading(&mut self, act: Act) {
        let begun = self.case.begin();
        self.start(act, Token::Begun(begun));
    }

    fn begin_leaving(&mut self, pick: usize) {
        if self.holders.is_empty() {
            return;
        }
        let holder = self.holders.swap_remove(pick % self.holders.len());
        let leaves = [Leave::Write, Leave::Write, Leave::Release, Leave::Remove];
        let leave = leaves[pick / 7 % 4];
        let writing = self.case.begin_leave(&holder, leave);
        let (cookie, version) = (holder.cookie, writing.version);
        let act = match leave {
            Leave::Write => Act::Write { cookie, version },
            Leave::Release => Act::Release { cookie },
            Leave::Remove => Act::Remove { cookie },
        };
        self.start(act, Token::Writing(writing));
    }

    fn start(&mut self, act: Act, token: Token) {
        let reply = None;
        self.running.push(Running { act, token, reply });
    }

    fn execute(&mut self, pick: usize) {
        let waiting = self.running.iter_mut().filter(|run| run.reply.is_none());
        let mut waiting: Vec<_> = waiting.collect();
        let choices = waiting.len() + self.on_their_way.len();
        if choices == 0 {
            return;
        }
        match waiting.get_mut(pick % choices) {
            Some(run) => run.reply = Some(self.item.apply(run.act)),
            None => {
                let late = self
                    .on_their_way
                    .swap_remove(pick % choices - waiting.len());
                self.item.apply(late);
            }
        }
    }

    fn finish(&mut self, pick: usize, is_lost: bool) {
        if self.running.is_empty() {
            return;
        }
        let at = pick % self.running.len();
        if self.running[at].reply.is_none() && !is_lost {
            return self.execute(pick);
        }
        let run = self.running.swap_remove(at);
        if run.reply.is_none() {
            self.on_their_way.push(run.act);
        }
        let reply = run.reply.filter(|_| !is_lost).unwrap_or(Reply::LOST);
        let now = self.case.tick();
        let (ledger, found) = (&mut self.case.ledger, &mut self.case.found);
        match (run.token, run.act) {
            (Token::Begun(begun), Act::Acquire) => {
                let (_, holder) = ledger.end_acquire(begun, now, reply.seen, reply.cookie, found);
                self.holders.extend(holder);
            }
            (Token::Begun(begun), Act::Takeover { .. }) => {
                ledger.end_takeover(begun, now, reply.seen, reply.flag, found);
            }
            (Token::Begun(begun), _) => {
                ledger.end_read(begun, now, reply.seen, found);
            }
            (Token::Writing(writing), _) => ledger.end_write(writing, now, reply.outcome, found),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    #[test]
    fn a_correct_server_is_never_blamed(
        is_stored: bool,
        steps in prop::collection::vec((0u8..10, 0usize..1000, 0u8..20), 1..400)
    ) {
        let mut world = World::new(is_stored);
        for (choice, pick, luck) in steps {
            world.step(choice, pick, luck == 0);
            prop_assert!(world.case.found.is_empty(), "{:#?}", world.case.found);
        }
    }
}
