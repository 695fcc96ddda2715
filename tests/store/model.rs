//! The store against a naive model: a list of items and the rules written down one after another,
//! over random operations, time jumps and sweeps.

use std::collections::HashMap;

use proptest::prelude::*;
use staterouter::store::{
    BadHeader, Body, CountedStore, ItemChange, ItemMarks, ItemSnapshot, MemoryStore, Now,
    SessionCommand, StoreOptions, StoreOutcome,
};

use crate::stores::{Ask, TestStore, for_every_store};

const KEYS: usize = 7;
const MINUTE_MS: u64 = 60_000;

/// One item of the model.
#[derive(Clone)]
struct Item {
    key: usize,
    body: Vec<u8>,
    minutes: u32,
    expires_ms: u64,
    cookie: u32,
    lock: Option<Now>,
    uninit: bool,
    /// When a complete sweep at or after this time must have freed it: the latest expiry it was
    /// ever given, plus the lag.
    freed_by_ms: u64,
}

#[derive(Default)]
struct Model {
    items: Vec<Item>,
}

/// A header value: missing, a number, or text that is none.
#[derive(Debug, Clone)]
enum Value {
    Missing,
    Number(u32),
    /// The cookie of the item, if there is one.
    Right,
    Text(&'static str),
}

#[derive(Debug, Clone)]
enum Request {
    Get,
    Acquire,
    Release(Value),
    Put {
        timeout: Value,
        flags: Value,
        cookie: Value,
        body_bytes: usize,
    },
    Remove(Value),
    Touch,
}

#[derive(Debug, Clone)]
enum Step {
    Request(usize, Request),
    Wait(u64),
    Sweep(usize),
    Restart,
}

for_every_store!(the_store_does_what_the_model_does);

fn the_store_does_what_the_model_does<S: TestStore>() {
    let config = ProptestConfig {
        cases: S::MODEL_CASES,
        ..ProptestConfig::default()
    };
    let start_ms = prop_oneof![Just(0), 0u64..10_000, Just(10_000_000_000_000)];
    let steps = prop::collection::vec(step(), 1..150);
    proptest!(config, |(shards in 1usize..5, start_ms in start_ms, steps in steps)| {
        play::<S>(shards, start_ms, steps)?;
    });
}

fn play<S: TestStore>(shards: usize, start_ms: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = S::build(&StoreOptions {
        shards,
        ..StoreOptions::new([9; 16])
    });
    let mut model = Model::default();
    let mut now = Now {
        unix_ms: start_ms,
        local_ticks: 1_000_000,
    };
    for step in steps {
        match step {
            Step::Wait(ms) => {
                let ms = ms + model.clear_of_expiries(now.unix_ms + ms, 2 * S::SLACK_MS);
                now.unix_ms += ms;
                now.local_ticks += ms * 10_000;
            }
            Step::Request(key, request) => {
                let (stored, expected) = both(&store, &mut model, key, &request, now);
                let stored = rounded(stored, &expected, S::SLACK_MS);
                prop_assert_eq!(stored, expected, "{:?} on {}", request, key);
            }
            Step::Restart => {
                if store.restart(now).is_some() {
                    model.restarted(&store, now)?;
                }
            }
            Step::Sweep(max_items) => {
                let sweep = store.sweep(now, max_items);
                prop_assert!(sweep.expired + sweep.kept <= max_items);
                if sweep.complete {
                    model.items.retain(|item| item.freed_by_ms > now.unix_ms);
                    let held = store.stats().items;
                    prop_assert!(held <= model.items.len() as u64);
                    prop_assert!(held >= model.live(now) as u64);
                    prop_assert_eq!(store.sweep(now, 0).complete, true);
                }
            }
        }
        for key in 0..KEYS {
            let expected = model.snapshot(key, now);
            let mut found = store.look(&key_bytes(key), now);
            if let (Some(found), Some(expected)) = (&mut found, &expected)
                && found.expires_ms.abs_diff(expected.expires_ms) <= S::SLACK_MS
            {
                found.expires_ms = expected.expires_ms;
            }
            prop_assert_eq!(found, expected);
        }
    }
    drain(&store, now)
}

/// `stored` with the times that are expected, if they are off by `slack_ms` at most.
fn rounded(mut stored: StoreOutcome, expected: &StoreOutcome, slack_ms: u64) -> StoreOutcome {
    let (
        StoreOutcome::Locked {
            lock_date_ticks,
            lock_age_s,
            ..
        },
        StoreOutcome::Locked {
            lock_date_ticks: expected_ticks,
            lock_age_s: expected_age_s,
            ..
        },
    ) = (&mut stored, expected)
    else {
        return stored;
    };
    if lock_date_ticks.abs_diff(*expected_ticks) <= slack_ms * 10_000 {
        *lock_date_ticks = *expected_ticks;
    }
    let off_ms = u64::from(lock_age_s.abs_diff(*expected_age_s)) * 1000;
    if off_ms <= slack_ms {
        *lock_age_s = *expected_age_s;
    }
    stored
}

/// Whoever keeps a second record of the items, told of every change, keeps the same items.
#[test]
fn what_is_told_of_changes_is_all_that_changes() {
    let config = ProptestConfig {
        cases: MemoryStore::MODEL_CASES,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..150))| {
        let store = MemoryStore::build(&StoreOptions::new([9; 16]));
        let mut record: HashMap<Vec<u8>, (ItemMarks, Body)> = HashMap::new();
        let mut now = Now { unix_ms: 0, local_ticks: 0 };
        for step in steps {
            match step {
                Step::Wait(ms) => now.unix_ms += ms,
                Step::Restart => {}
                Step::Request(key, request) => note(&store, &mut record, key, &request, now)?,
                Step::Sweep(max_items) => {
                    store.sweep_observed(now, max_items, |key| {
                        record.remove(key);
                    });
                }
            }
            for key in (0..KEYS).map(key_bytes) {
                let held = store.inspect(&key, now).map(|item| {
                    let (expires_ms, cookie, uninit) = (item.expires_ms, item.cookie, item.uninit);
                    (ItemMarks { expires_ms, cookie, uninit }, item.body)
                });
                let live = |(marks, _): &&(ItemMarks, Body)| marks.expires_ms > now.unix_ms;
                prop_assert_eq!(held.as_ref(), record.get(&key).filter(live));
            }
            prop_assert_eq!(record.len() as u64, store.stats().items);
        }
    });
}

fn note(
    store: &MemoryStore,
    record: &mut HashMap<Vec<u8>, (ItemMarks, Body)>,
    key: usize,
    request: &Request,
    now: Now,
) -> Result<(), TestCaseError> {
    let right = record
        .get(&key_bytes(key))
        .map_or(1, |(marks, _)| marks.cookie);
    let Ok(command) = request.command(right) else {
        return Ok(());
    };
    let name = key_bytes(key);
    let mut wrong = None;
    let _ = store.apply_observed(&name, command, now, |change| match change {
        ItemChange::Stored(item) => {
            record.insert(name.clone(), (item.marks(), item.body().clone()));
        }
        ItemChange::Used { before, item } => match record.get_mut(&name) {
            Some((marks, _)) if *marks == before => *marks = item.marks(),
            known => wrong = Some(format!("{before:?} is told, {known:?} is known")),
        },
        ItemChange::Removed | ItemChange::Expired => {
            record.remove(&name);
        }
    });
    prop_assert_eq!(wrong, None);
    Ok(())
}

/// A year later a complete sweep leaves nothing, and nothing is still accounted for.
fn drain<S: TestStore>(store: &S, now: Now) -> Result<(), TestCaseError> {
    let end_ms = now.unix_ms + 525_600 * MINUTE_MS + MemoryStore::SWEEP_LAG_MS;
    let sweep = store.sweep(
        Now {
            unix_ms: end_ms,
            ..now
        },
        usize::MAX,
    );
    prop_assert!(sweep.complete);
    let left = store.stats();
    prop_assert_eq!((left.items, left.body_bytes, left.bytes), (0, 0, 0));
    Ok(())
}

fn both<S: TestStore>(
    store: &S,
    model: &mut Model,
    key: usize,
    request: &Request,
    now: Now,
) -> (StoreOutcome, StoreOutcome) {
    let item = model.items.iter().find(|item| item.key == key);
    let right = item.map_or(1, |item| item.cookie);
    let stored = store.ask(&key_bytes(key), request.command(right), now);
    let text = |value: &Value| value.text(right);
    let expected = match request {
        Request::Get => model.get(key, None, now),
        Request::Acquire => model.get(key, Some(S::LAST_COOKIE), now),
        Request::Touch => model.touch(key, now),
        Request::Release(cookie) => model.release(key, text(cookie).as_deref(), now),
        Request::Remove(cookie) => model.remove(key, text(cookie).as_deref(), now),
        Request::Put {
            timeout,
            flags,
            cookie,
            body_bytes,
        } => {
            let (timeout, flags, cookie) = (text(timeout), text(flags), text(cookie));
            let headers = [timeout.as_deref(), flags.as_deref(), cookie.as_deref()];
            model.put(key, headers, put_body(*body_bytes), S::LAST_COOKIE, now)
        }
    };
    (stored, expected)
}

impl Value {
    /// `right` is the cookie of the item.
    fn text(&self, right: u32) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Number(number) => Some(number.to_string()),
            Self::Right => Some(right.to_string()),
            Self::Text(text) => Some((*text).to_owned()),
        }
    }
}

impl Request {
    fn command(&self, right: u32) -> Result<SessionCommand, BadHeader> {
        let text = |value: &Value| value.text(right);
        Ok(match self {
            Self::Get => SessionCommand::Get,
            Self::Acquire => SessionCommand::Acquire,
            Self::Touch => SessionCommand::Touch,
            Self::Release(cookie) => {
                SessionCommand::release(text(cookie).as_ref().map(String::as_bytes))
            }
            Self::Remove(cookie) => {
                SessionCommand::remove(text(cookie).as_ref().map(String::as_bytes))
            }
            Self::Put {
                timeout,
                flags,
                cookie,
                body_bytes,
            } => {
                let values = [timeout, flags, cookie].map(text);
                let [timeout, flags, cookie] = values
                    .each_ref()
                    .map(|text| text.as_ref().map(String::as_bytes));
                let body = Body::from(put_body(*body_bytes));
                return SessionCommand::put(timeout, flags, cookie, body);
            }
        })
    }
}

fn put_body(length: usize) -> Vec<u8> {
    vec![length as u8; length]
}

impl Model {
    /// Protocol 5.4: expired is absent, and finding slides.
    fn find(&mut self, key: usize, now: Now) -> Option<usize> {
        self.items
            .retain(|item| item.key != key || item.expires_ms > now.unix_ms);
        let index = self.items.iter().position(|item| item.key == key)?;
        self.items[index].slide(now);
        Some(index)
    }

    /// With the last cookie that there can be, if it takes the lock.
    fn get(&mut self, key: usize, acquire: Option<u32>, now: Now) -> StoreOutcome {
        let Some(index) = self.find(key, now) else {
            return StoreOutcome::Absent;
        };
        let item = &mut self.items[index];
        let action_flags = item.uninit;
        item.uninit = false;
        if item.lock.is_some() {
            return item.locked(now);
        }
        if let Some(last) = acquire {
            item.lock = Some(now);
            item.cookie = if item.cookie >= last {
                2
            } else {
                item.cookie + 1
            };
        }
        StoreOutcome::Found {
            body: Body::from(item.body.as_slice()),
            timeout_minutes: item.minutes,
            cookie: acquire.map(|_| item.cookie),
            action_flags,
        }
    }

    fn release(&mut self, key: usize, cookie: Option<&str>, now: Now) -> StoreOutcome {
        let Some(index) = self.find(key, now) else {
            return StoreOutcome::Absent;
        };
        let item = &mut self.items[index];
        let action_flags = item.uninit;
        item.uninit = false;
        let Some(cookie) = cookie else {
            return StoreOutcome::Invalid(BadHeader::LockCookieMissing);
        };
        let Ok(cookie) = cookie.parse::<i32>() else {
            return StoreOutcome::Invalid(BadHeader::LockCookie);
        };
        if cookie < 0 {
            return StoreOutcome::Invalid(BadHeader::LockCookie);
        }
        if item.lock.is_some() && cookie as u32 != item.cookie {
            return item.locked(now);
        }
        item.lock = None;
        StoreOutcome::Done {
            action_flags,
            zero_timeout: false,
        }
    }

    fn remove(&mut self, key: usize, cookie: Option<&str>, now: Now) -> StoreOutcome {
        let Some(index) = self.find(key, now) else {
            return StoreOutcome::Absent;
        };
        if let Err(outcome) = self.items[index].admits(cookie, now) {
            return outcome;
        }
        self.items.remove(index);
        StoreOutcome::Done {
            action_flags: false,
            zero_timeout: false,
        }
    }

    fn touch(&mut self, key: usize, now: Now) -> StoreOutcome {
        match self.find(key, now) {
            None => StoreOutcome::Absent,
            Some(_) => StoreOutcome::Done {
                action_flags: false,
                zero_timeout: false,
            },
        }
    }

    fn put(
        &mut self,
        key: usize,
        headers: [Option<&str>; 3],
        body: Vec<u8>,
        last: u32,
        now: Now,
    ) -> StoreOutcome {
        let [timeout, flags, cookie] = headers;
        let Ok(asked @ 0..=525_600) = timeout.unwrap_or("20").parse::<i32>() else {
            return StoreOutcome::Invalid(BadHeader::Timeout);
        };
        let Ok(flags @ 0..) = flags.unwrap_or("0").parse::<i32>() else {
            return StoreOutcome::Invalid(BadHeader::ExtraFlags);
        };
        let minutes = if asked == 0 { 1 } else { asked as u32 };
        let done = StoreOutcome::Done {
            action_flags: false,
            zero_timeout: asked == 0,
        };
        let insert_only = flags % 2 == 1;
        let Some(index) = self.find(key, now) else {
            let (cookie, lock) = (1, None);
            let (expires_ms, freed_by_ms) = (0, 0);
            let uninit = insert_only;
            self.items.push(Item {
                key,
                body,
                minutes,
                expires_ms,
                cookie,
                lock,
                uninit,
                freed_by_ms,
            });
            if let Some(item) = self.items.last_mut() {
                item.slide(now);
            }
            return done;
        };
        if insert_only {
            return done;
        }
        let item = &mut self.items[index];
        let cookie = match item.admits(cookie, now) {
            Ok(cookie) => cookie,
            Err(outcome) => return outcome,
        };
        item.body = body;
        item.lock = None;
        if item.minutes != minutes {
            item.minutes = minutes;
            item.uninit = false;
            // A counter of 31 bits may be one past its last lock.
            let fits = |cookie: &u32| *cookie <= last || last > 1 << 30;
            item.cookie = item.cookie.max(cookie.filter(fits).unwrap_or(0));
            // The new expiry counts alone, also if it is nearer.
            item.freed_by_ms = 0;
        }
        item.slide(now);
        done
    }

    /// All sessions are there and unlocked. What is not noted at every use, expiry and counter, is
    /// not less than it was, and the expiry no more than an eighth of the timeout later.
    fn restarted<S: TestStore>(&mut self, store: &S, now: Now) -> Result<(), TestCaseError> {
        let mut left = Vec::new();
        for mut item in self.items.drain(..) {
            let Some(found) = store.look(&key_bytes(item.key), now) else {
                prop_assert!(item.expires_ms <= now.unix_ms, "a live session is lost");
                continue;
            };
            let late_ms = u64::from(item.minutes) * MINUTE_MS / 8;
            prop_assert!(item.expires_ms <= found.expires_ms);
            prop_assert!(found.expires_ms <= item.expires_ms + late_ms);
            // A counter that leaves the range of the proxy begins anew.
            let in_range = item.cookie < (14 << 20) - 3 * 4096;
            prop_assert!(item.cookie < found.cookie || !in_range);
            prop_assert!(!found.locked);
            prop_assert_eq!(item.uninit, found.uninit);
            (item.expires_ms, item.cookie, item.lock) = (found.expires_ms, found.cookie, None);
            item.freed_by_ms = found.expires_ms + MemoryStore::SWEEP_LAG_MS;
            left.push(item);
        }
        self.items = left;
        Ok(())
    }

    /// How much longer to wait, so that no item expires about `at_ms`.
    fn clear_of_expiries(&self, mut at_ms: u64, slack_ms: u64) -> u64 {
        let begun_ms = at_ms;
        let is_near = |at_ms: u64| {
            let mut items = self.items.iter();
            items.any(|item| item.expires_ms.abs_diff(at_ms) < slack_ms)
        };
        while is_near(at_ms) {
            at_ms += slack_ms;
        }
        at_ms - begun_ms
    }

    fn live(&self, now: Now) -> usize {
        self.items
            .iter()
            .filter(|item| item.expires_ms > now.unix_ms)
            .count()
    }

    fn snapshot(&self, key: usize, now: Now) -> Option<ItemSnapshot> {
        let alive = |item: &&Item| item.key == key && item.expires_ms > now.unix_ms;
        self.items.iter().find(alive).map(|item| ItemSnapshot {
            timeout_minutes: item.minutes,
            cookie: item.cookie,
            locked: item.lock.is_some(),
            uninit: item.uninit,
            body: Body::from(item.body.as_slice()),
            expires_ms: item.expires_ms,
        })
    }
}

impl Item {
    fn slide(&mut self, now: Now) {
        self.expires_ms = now.unix_ms + u64::from(self.minutes) * MINUTE_MS;
        self.freed_by_ms = self
            .freed_by_ms
            .max(self.expires_ms + MemoryStore::SWEEP_LAG_MS);
    }

    /// The cookie, if the item is unlocked or it is the lock's.
    fn admits(&self, cookie: Option<&str>, now: Now) -> Result<Option<u32>, StoreOutcome> {
        let cookie = match cookie.map(str::parse::<i32>) {
            None => None,
            Some(Ok(number @ 0..)) => Some(number as u32),
            Some(_) => return Err(StoreOutcome::Invalid(BadHeader::LockCookie)),
        };
        match (self.lock, cookie) {
            (None, _) => Ok(cookie),
            (Some(_), Some(number)) if number == self.cookie => Ok(cookie),
            (Some(_), _) => Err(self.locked(now)),
        }
    }

    fn locked(&self, now: Now) -> StoreOutcome {
        let since = self.lock.unwrap_or(now);
        let age_s = (now.unix_ms - since.unix_ms) / 1000;
        StoreOutcome::Locked {
            lock_date_ticks: since.local_ticks,
            lock_age_s: age_s.min(31_535_999) as u32,
            cookie: self.cookie,
        }
    }
}

fn key_bytes(key: usize) -> Vec<u8> {
    format!("/LM/W3SVC/7/ROOT(hash=)/session-{key}").into_bytes()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..KEYS, request()).prop_map(|(key, request)| Step::Request(key, request)),
        2 => (0u64..3000).prop_map(Step::Wait),
        2 => (0..25 * MINUTE_MS).prop_map(Step::Wait),
        1 => (0..2 * 525_600 * MINUTE_MS).prop_map(Step::Wait),
        2 => (0usize..4).prop_map(Step::Sweep),
        2 => Just(Step::Sweep(usize::MAX)),
        1 => Just(Step::Restart),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        2 => Just(Request::Get),
        3 => Just(Request::Acquire),
        2 => cookie().prop_map(Request::Release),
        4 => (timeout(), flags(), cookie(), 0usize..300).prop_map(
            |(timeout, flags, cookie, body_bytes)| Request::Put { timeout, flags, cookie, body_bytes }
        ),
        1 => cookie().prop_map(Request::Remove),
        1 => Just(Request::Touch),
    ]
}

fn cookie() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => Just(Value::Right),
        2 => (0u32..5).prop_map(Value::Number),
        1 => (2_147_483_640u32..2_147_483_652).prop_map(Value::Number),
        1 => Just(Value::Missing),
        1 => unusable(),
    ]
}

fn timeout() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(Value::Missing),
        4 => Just(Value::Number(20)),
        2 => (0u32..60).prop_map(Value::Number),
        1 => (525_590u32..525_610).prop_map(Value::Number),
        1 => unusable(),
    ]
}

fn flags() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Missing),
        8 => (0u32..4).prop_map(Value::Number),
        1 => unusable(),
    ]
}

fn unusable() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Text("")),
        Just(Value::Text("-2")),
        Just(Value::Text("x")),
        Just(Value::Text("2147483648")),
    ]
}
