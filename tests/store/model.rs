//! The store against a naive model: a list of items and the rules written down one after another,
//! over random operations, time jumps and sweeps.

use proptest::prelude::*;
use staterouter::store::{BadHeader, Body, Now, Operation, Outcome, Snapshot, Store, StoreOptions};

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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(
        shards in 1usize..5,
        start_ms in prop_oneof![Just(0), 0u64..10_000, Just(10_000_000_000_000)],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let store = Store::new(&StoreOptions { shards, ..StoreOptions::new([9; 16]) });
        let mut model = Model::default();
        let mut now = Now { monotonic_ms: start_ms, local_ticks: 1_000_000 };
        for step in steps {
            match step {
                Step::Wait(ms) => {
                    now.monotonic_ms += ms;
                    now.local_ticks += ms * 10_000;
                }
                Step::Request(key, request) => {
                    let (stored, expected) = both(&store, &mut model, key, &request, now);
                    prop_assert_eq!(stored, expected, "{:?} on {}", request, key);
                }
                Step::Sweep(max_items) => {
                    let sweep = store.sweep(now, max_items);
                    prop_assert!(sweep.expired + sweep.kept <= max_items);
                    if sweep.complete {
                        model.items.retain(|item| item.freed_by_ms > now.monotonic_ms);
                        let held = store.stats().items;
                        prop_assert!(held <= model.items.len() as u64);
                        prop_assert!(held >= model.live(now) as u64);
                        prop_assert_eq!(store.sweep(now, 0).complete, true);
                    }
                }
            }
            for key in 0..KEYS {
                prop_assert_eq!(store.inspect(&key_bytes(key), now), model.snapshot(key, now));
            }
        }
        drain(&store, now)?;
    }
}

/// A year later a complete sweep leaves nothing, and nothing is still accounted for.
fn drain(store: &Store, now: Now) -> Result<(), TestCaseError> {
    let end_ms = now.monotonic_ms + 525_600 * MINUTE_MS + Store::SWEEP_LAG_MS;
    let sweep = store.sweep(
        Now {
            monotonic_ms: end_ms,
            ..now
        },
        usize::MAX,
    );
    prop_assert!(sweep.complete);
    let left = store.stats();
    prop_assert_eq!((left.items, left.body_bytes, left.bytes), (0, 0, 0));
    Ok(())
}

fn both(
    store: &Store,
    model: &mut Model,
    key: usize,
    request: &Request,
    now: Now,
) -> (Outcome, Outcome) {
    let right = model
        .items
        .iter()
        .find(|item| item.key == key)
        .map_or(1, |item| item.cookie);
    let raw = |value: &Value| match value {
        Value::Missing => None,
        Value::Number(number) => Some(number.to_string()),
        Value::Right => Some(right.to_string()),
        Value::Text(text) => Some((*text).to_owned()),
    };
    let name = key_bytes(key);
    match request {
        Request::Get => (
            store.apply(&name, Operation::Get, now),
            model.get(key, false, now),
        ),
        Request::Acquire => (
            store.apply(&name, Operation::Acquire, now),
            model.get(key, true, now),
        ),
        Request::Touch => (
            store.apply(&name, Operation::Touch, now),
            model.touch(key, now),
        ),
        Request::Release(cookie) => {
            let cookie = raw(cookie);
            let operation = Operation::Release {
                cookie: cookie.as_ref().map(String::as_bytes),
            };
            (
                store.apply(&name, operation, now),
                model.release(key, cookie.as_deref(), now),
            )
        }
        Request::Remove(cookie) => {
            let cookie = raw(cookie);
            let operation = Operation::Remove {
                cookie: cookie.as_ref().map(String::as_bytes),
            };
            (
                store.apply(&name, operation, now),
                model.remove(key, cookie.as_deref(), now),
            )
        }
        Request::Put {
            timeout,
            flags,
            cookie,
            body_bytes,
        } => {
            let (timeout, flags, cookie) = (raw(timeout), raw(flags), raw(cookie));
            let body = vec![*body_bytes as u8; *body_bytes];
            let operation = Operation::Put {
                timeout: timeout.as_ref().map(String::as_bytes),
                extra_flags: flags.as_ref().map(String::as_bytes),
                cookie: cookie.as_ref().map(String::as_bytes),
                body: Body::from(body.clone()),
            };
            let stored = store.apply(&name, operation, now);
            let headers = [timeout.as_deref(), flags.as_deref(), cookie.as_deref()];
            (stored, model.put(key, headers, body, now))
        }
    }
}

impl Model {
    /// Protocol 5.4: expired is absent, and finding slides.
    fn find(&mut self, key: usize, now: Now) -> Option<usize> {
        self.items
            .retain(|item| item.key != key || item.expires_ms > now.monotonic_ms);
        let index = self.items.iter().position(|item| item.key == key)?;
        self.items[index].slide(now);
        Some(index)
    }

    fn get(&mut self, key: usize, acquire: bool, now: Now) -> Outcome {
        let Some(index) = self.find(key, now) else {
            return Outcome::Absent;
        };
        let item = &mut self.items[index];
        let action_flags = item.uninit;
        item.uninit = false;
        if item.lock.is_some() {
            return item.locked(now);
        }
        if acquire {
            item.lock = Some(now);
            item.cookie = match item.cookie {
                2_147_483_646 | 2_147_483_647 => 2,
                cookie => cookie + 1,
            };
        }
        Outcome::Found {
            body: Body::from(item.body.as_slice()),
            timeout_minutes: item.minutes,
            cookie: acquire.then_some(item.cookie),
            action_flags,
        }
    }

    fn release(&mut self, key: usize, cookie: Option<&str>, now: Now) -> Outcome {
        let Some(index) = self.find(key, now) else {
            return Outcome::Absent;
        };
        let item = &mut self.items[index];
        let action_flags = item.uninit;
        item.uninit = false;
        let Some(cookie) = cookie else {
            return Outcome::Invalid(BadHeader::LockCookieMissing);
        };
        let Ok(cookie) = cookie.parse::<i32>() else {
            return Outcome::Invalid(BadHeader::LockCookie);
        };
        if cookie < 0 {
            return Outcome::Invalid(BadHeader::LockCookie);
        }
        if item.lock.is_some() && cookie as u32 != item.cookie {
            return item.locked(now);
        }
        item.lock = None;
        Outcome::Done {
            action_flags,
            zero_timeout: false,
        }
    }

    fn remove(&mut self, key: usize, cookie: Option<&str>, now: Now) -> Outcome {
        let Some(index) = self.find(key, now) else {
            return Outcome::Absent;
        };
        if let Err(outcome) = self.items[index].admits(cookie, now) {
            return outcome;
        }
        self.items.remove(index);
        Outcome::Done {
            action_flags: false,
            zero_timeout: false,
        }
    }

    fn touch(&mut self, key: usize, now: Now) -> Outcome {
        match self.find(key, now) {
            None => Outcome::Absent,
            Some(_) => Outcome::Done {
                action_flags: false,
                zero_timeout: false,
            },
        }
    }

    fn put(&mut self, key: usize, headers: [Option<&str>; 3], body: Vec<u8>, now: Now) -> Outcome {
        let [timeout, flags, cookie] = headers;
        let Ok(asked @ 0..=525_600) = timeout.unwrap_or("20").parse::<i32>() else {
            return Outcome::Invalid(BadHeader::Timeout);
        };
        let Ok(flags @ 0..) = flags.unwrap_or("0").parse::<i32>() else {
            return Outcome::Invalid(BadHeader::ExtraFlags);
        };
        let minutes = if asked == 0 { 1 } else { asked as u32 };
        let done = Outcome::Done {
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
            item.cookie = item.cookie.max(cookie.unwrap_or(0));
            // The new expiry counts alone, also if it is nearer.
            item.freed_by_ms = 0;
        }
        item.slide(now);
        done
    }

    fn live(&self, now: Now) -> usize {
        self.items
            .iter()
            .filter(|item| item.expires_ms > now.monotonic_ms)
            .count()
    }

    fn snapshot(&self, key: usize, now: Now) -> Option<Snapshot> {
        let alive = |item: &&Item| item.key == key && item.expires_ms > now.monotonic_ms;
        self.items.iter().find(alive).map(|item| Snapshot {
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
        self.expires_ms = now.monotonic_ms + u64::from(self.minutes) * MINUTE_MS;
        self.freed_by_ms = self.freed_by_ms.max(self.expires_ms + Store::SWEEP_LAG_MS);
    }

    /// The cookie, if the item is unlocked or it is the lock's.
    fn admits(&self, cookie: Option<&str>, now: Now) -> Result<Option<u32>, Outcome> {
        let cookie = match cookie.map(str::parse::<i32>) {
            None => None,
            Some(Ok(number @ 0..)) => Some(number as u32),
            Some(_) => return Err(Outcome::Invalid(BadHeader::LockCookie)),
        };
        match (self.lock, cookie) {
            (None, _) => Ok(cookie),
            (Some(_), Some(number)) if number == self.cookie => Ok(cookie),
            (Some(_), _) => Err(self.locked(now)),
        }
    }

    fn locked(&self, now: Now) -> Outcome {
        let since = self.lock.unwrap_or(now);
        let age_s = (now.monotonic_ms - since.monotonic_ms) / 1000;
        Outcome::Locked {
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
        Just(Value::Text("-1")),
        Just(Value::Text("x")),
        Just(Value::Text("2147483648")),
    ]
}
