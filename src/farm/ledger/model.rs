//! Random histories of a correct server: whatever the interleaving, nothing is found.

use super::tests::{ABSENT, Case};
use super::*;
use proptest::prelude::*;

/// The rules of protocol 5.3 for one key.
#[derive(Default)]
struct Item {
    version: Option<u64>,
    uninitialised: bool,
    is_locked: bool,
    cookie: u32,
}

enum Task {
    Read(Option<Begun>),
    Acquire(Option<Begun>),
    Takeover(Option<Begun>, u32),
    Leave(Option<Writing>, Leave, u32),
    Insert(Option<Writing>),
}

struct Running {
    task: Task,
    answer: Option<(Seen, Outcome, Option<u32>)>,
}

impl Item {
    fn apply(&mut self, task: &Task) -> (Seen, Outcome, Option<u32>) {
        match task {
            Task::Read(_) => self.get(false),
            Task::Acquire(_) => self.get(true),
            Task::Takeover(_, cookie) => {
                let done = self.unlock(*cookie);
                (
                    if done == Outcome::Absent {
                        ABSENT
                    } else {
                        Seen::Exists
                    },
                    done,
                    None,
                )
            }
            Task::Leave(writing, leave, cookie) => {
                let version = writing.as_ref().map_or(0, |writing| writing.version);
                let done = if *leave == Leave::Write && self.version.is_none() {
                    *self = Self::new_item(version, false);
                    Outcome::Done
                } else {
                    self.unlock(*cookie)
                };
                if done == Outcome::Done {
                    match leave {
                        Leave::Write => self.version = Some(version),
                        Leave::Remove => *self = Self::default(),
                        Leave::Release => self.uninitialised = false,
                    }
                }
                (Seen::NotSent, done, None)
            }
            Task::Insert(writing) => {
                let version = writing.as_ref().map_or(0, |writing| writing.version);
                if self.version.is_none() {
                    *self = Self::new_item(version, true);
                }
                (Seen::NotSent, Outcome::Done, None)
            }
        }
    }

    fn new_item(version: u64, uninitialised: bool) -> Self {
        Self {
            version: Some(version),
            uninitialised,
            is_locked: false,
            cookie: 1,
        }
    }

    fn get(&mut self, exclusive: bool) -> (Seen, Outcome, Option<u32>) {
        let Some(version) = self.version else {
            return (ABSENT, Outcome::Absent, None);
        };
        if self.is_locked {
            return (Seen::Exists, Outcome::Done, None);
        }
        let flag = std::mem::take(&mut self.uninitialised);
        let mut cookie = None;
        if exclusive {
            self.is_locked = true;
            self.cookie += 1;
            cookie = Some(self.cookie);
        }
        (Seen::Body { version, flag }, Outcome::Done, cookie)
    }

    fn unlock(&mut self, cookie: u32) -> Outcome {
        if self.version.is_none() {
            return Outcome::Absent;
        }
        if self.is_locked && self.cookie != cookie {
            return Outcome::Refused(423);
        }
        self.is_locked = false;
        Outcome::Done
    }
}

/// What the random steps choose between.
struct World {
    case: Case,
    item: Item,
    running: Vec<Running>,
    holders: Vec<Holder>,
}

impl World {
    fn step(&mut self, choice: u8, pick: usize, lose: bool) {
        match choice {
            0..=5 => self.begin(choice, pick),
            6 => self.execute(pick),
            _ => self.finish(pick, lose),
        }
    }

    fn begin(&mut self, choice: u8, pick: usize) {
        let task = match choice {
            0 => Task::Read(Some(self.case.begin())),
            1 | 2 => Task::Acquire(Some(self.case.begin())),
            3 if self.item.is_locked && pick % 4 == 0 => {
                let cookie = self.item.cookie;
                let now = self.case.tick();
                let begun = self.case.ledger.begin_takeover(now, cookie);
                Task::Takeover(Some(begun), cookie)
            }
            4 if self.case.now == 0 => {
                // Nobody else knows a new id, so nothing runs beside its first PUT.
                assert_eq!(self.case.create(Create::Plain), 1);
                self.item = Item::new_item(1, false);
                return;
            }
            4 => Task::Insert(Some(self.case.begin_create(Create::Insert))),
            _ if !self.holders.is_empty() => {
                let holder = self.holders.swap_remove(pick % self.holders.len());
                let leave = [Leave::Write, Leave::Write, Leave::Release, Leave::Remove];
                let leave = leave[pick / 7 % 4];
                let writing = self.case.begin_leave(&holder, leave);
                Task::Leave(Some(writing), leave, holder.cookie)
            }
            _ => return,
        };
        self.running.push(Running { task, answer: None });
    }

    fn execute(&mut self, pick: usize) {
        let waiting = self.running.iter_mut().filter(|run| run.answer.is_none());
        let mut waiting: Vec<_> = waiting.collect();
        if !waiting.is_empty() {
            let at = pick % waiting.len();
            waiting[at].answer = Some(self.item.apply(&waiting[at].task));
        }
    }

    fn finish(&mut self, pick: usize, lose: bool) {
        if self.running.is_empty() {
            return;
        }
        let at = pick % self.running.len();
        if self.running[at].answer.is_none() && !lose {
            return self.execute(pick);
        }
        let run = self.running.swap_remove(at);
        // Lost before or after it was executed; a request never executed stays away for good.
        let lost = (Seen::Nothing, Outcome::Unknown, None);
        let answer = if lose { None } else { run.answer };
        let (seen, outcome, cookie) = answer.unwrap_or(lost);
        let now = self.case.tick();
        let (ledger, found) = (&mut self.case.ledger, &mut self.case.found);
        match run.task {
            Task::Read(begun) => {
                ledger.end_read(begun.unwrap(), now, seen, found);
            }
            Task::Acquire(begun) => {
                let (_, holder) = ledger.end_acquire(begun.unwrap(), now, seen, cookie, found);
                self.holders.extend(holder);
            }
            Task::Takeover(begun, _) => {
                ledger.end_takeover(begun.unwrap(), now, seen, false, found);
            }
            Task::Leave(writing, ..) | Task::Insert(writing) => {
                ledger.end_write(writing.unwrap(), now, outcome, found);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_correct_server_is_never_blamed(
        steps in prop::collection::vec((0u8..10, 0usize..1000, 0u8..20), 1..200)
    ) {
        let mut world = World {
            case: Case::new(),
            item: Item::default(),
            running: Vec::new(),
            holders: Vec::new(),
        };
        for (choice, pick, luck) in steps {
            world.step(choice, pick, luck == 0);
            prop_assert!(world.case.found.is_empty(), "{:#?}", world.case.found);
        }
    }
}
