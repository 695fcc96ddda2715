//! What the store promises about memory, expiry sweeps and threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use staterouter::store::{
    Body, CountedStore, MemoryStore, Now, SessionCommand, SessionStore, StoreOptions, StoreOutcome,
    StoreRefusal, StoreStats, SweepTurn,
};

use crate::stores::Ask;

const MINUTE_MS: u64 = 60_000;
const YEAR_MS: u64 = 525_600 * MINUTE_MS;
const DONE: StoreOutcome = StoreOutcome::Done {
    action_flags: false,
    zero_timeout: false,
};

#[test]
fn a_full_budget_refuses_new_items_and_nothing_else() {
    let item = cost("a", 100);
    let store = limited(2 * item);
    assert_eq!(put(&store, "a", "20", 100, 0), DONE);
    assert_eq!(put(&store, "b", "20", 100, 0), DONE);
    assert_eq!(store.stats().bytes, 2 * item);

    assert_eq!(
        put(&store, "c", "20", 0, 0),
        StoreOutcome::Refused(StoreRefusal::MemoryFull)
    );
    assert_eq!(
        insert_only(&store, "c", 0),
        StoreOutcome::Refused(StoreRefusal::MemoryFull)
    );
    assert_eq!(
        store.ask(b"c", SessionCommand::Get, at(0)),
        StoreOutcome::Absent
    );
    assert_eq!(store.stats().refused_new, 2);

    // Existing items may grow, and a full store still serves every other operation.
    assert_eq!(put(&store, "a", "20", 5000, 0), DONE);
    assert_eq!(insert_only(&store, "a", 0), DONE);
    assert_eq!(store.stats().bytes, 2 * item + 4900);
    assert_eq!(store.stats().body_bytes, 200 + 4900);
    assert!(matches!(
        store.ask(b"b", SessionCommand::Acquire, at(0)),
        StoreOutcome::Found { .. }
    ));
    assert_eq!(
        put(&store, "c", "20", 0, 0),
        StoreOutcome::Refused(StoreRefusal::MemoryFull)
    );

    // Shrinking, removal and expiry give room back.
    assert_eq!(put(&store, "a", "20", 100, 0), DONE);
    assert_eq!(store.ask(b"a", SessionCommand::remove(None), at(0)), DONE);
    assert_eq!(put(&store, "c", "20", 100, 0), DONE);
    assert_eq!(
        put(&store, "a", "20", 100, 0),
        StoreOutcome::Refused(StoreRefusal::MemoryFull)
    );
    assert_eq!(put(&store, "b", "20", 100, 20 * MINUTE_MS), DONE);
    assert_eq!(
        store.stats(),
        StoreStats {
            items: 2,
            body_bytes: 200,
            bytes: 2 * item,
            refused_new: 4,
            expired: 1
        }
    );
}

#[test]
fn a_write_refused_by_a_lock_costs_nothing() {
    let store = limited(10_000);
    let _ = put(&store, "a", "20", 10, 0);
    let _ = store.ask(b"a", SessionCommand::Acquire, at(0));
    let before = store.stats();
    assert!(matches!(
        put(&store, "a", "20", 5000, 0),
        StoreOutcome::Locked { .. }
    ));
    assert_eq!(store.stats(), before);
}

#[test]
fn threads_together_never_exceed_the_budget() {
    const THREADS: usize = 8;
    const PER_THREAD: usize = 400;
    let fitting = 700;
    let max = fitting * cost("0-000", 50);
    let store = limited(max);
    let start = Barrier::new(THREADS + 1);
    let running = AtomicBool::new(true);
    let exceeded = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    start.wait();
                    for item in 0..PER_THREAD {
                        let _ = put(store, &format!("{thread}-{item:03}"), "20", 50, 0);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            start.wait();
            while running.load(Ordering::Relaxed) {
                if store.stats().bytes > max {
                    exceeded.store(true, Ordering::Relaxed);
                }
            }
        });
        // The observer must end even if a writer failed.
        let written = writers.into_iter().all(|writer| writer.join().is_ok());
        running.store(false, Ordering::Relaxed);
        assert!(written);
    });
    assert!(!exceeded.load(Ordering::Relaxed));
    let refused = (THREADS * PER_THREAD) as u64 - fitting;
    let expected = StoreStats {
        items: fitting,
        body_bytes: fitting * 50,
        bytes: max,
        refused_new: refused,
        expired: 0,
    };
    assert_eq!(store.stats(), expected);
}

#[test]
fn no_two_threads_hold_the_same_lock() {
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 3000;
    const KEYS: [&str; 3] = ["x", "y", "z"];
    let store = MemoryStore::new(&StoreOptions {
        shards: 2,
        ..StoreOptions::new([5; 16])
    });
    for key in KEYS {
        let _ = put(&store, key, "20", 0, 0);
    }
    let holders: [AtomicU64; 3] = Default::default();
    let acquired: [AtomicU64; 3] = Default::default();
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, holders, acquired, start) = (&store, &holders, &acquired, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let at_key = ((thread + round) % 3) as usize;
                    let key = KEYS[at_key].as_bytes();
                    let outcome = store.ask(key, SessionCommand::Acquire, at(round));
                    let StoreOutcome::Found {
                        body,
                        cookie: Some(cookie),
                        ..
                    } = outcome
                    else {
                        assert!(matches!(outcome, StoreOutcome::Locked { .. }));
                        continue;
                    };
                    assert_eq!(holders[at_key].fetch_add(1, Ordering::SeqCst), 0);
                    thread::yield_now();
                    // Each holder adds a byte to what it read: a lost write would show.
                    let mut grown = body.to_vec();
                    grown.push(0);
                    acquired[at_key].fetch_add(1, Ordering::SeqCst);
                    holders[at_key].fetch_sub(1, Ordering::SeqCst);
                    let cookie = cookie.to_string();
                    let operation =
                        SessionCommand::put(None, None, Some(cookie.as_bytes()), Body::from(grown));
                    assert_eq!(store.ask(key, operation, at(round)), DONE);
                }
            });
        }
    });
    for (key, acquired) in KEYS.iter().zip(acquired) {
        let item = store.inspect(key.as_bytes(), at(ROUNDS)).unwrap();
        let acquired = acquired.into_inner();
        assert_eq!(item.body.len() as u64, acquired, "{key}");
        assert_eq!(u64::from(item.cookie), 1 + acquired, "{key}");
        assert!(!item.locked, "{key}");
    }
}

#[test]
fn a_sweep_frees_what_expired_and_keeps_what_slid() {
    let store = store();
    for item in 0..1000 {
        assert_eq!(put(&store, &format!("s{item}"), "20", 10, item), DONE);
    }
    for item in 0..400 {
        let _ = store.ask(
            format!("s{item}").as_bytes(),
            SessionCommand::Touch,
            at(10 * MINUTE_MS),
        );
    }
    let end = 20 * MINUTE_MS + 1000 + MemoryStore::SWEEP_LAG_MS;
    assert_eq!(store.sweep(at(20 * MINUTE_MS - 1), usize::MAX).expired, 0);
    assert_eq!(
        store.sweep(at(end), usize::MAX),
        SweepTurn {
            expired: 600,
            kept: 400,
            complete: true
        }
    );
    assert_eq!(store.stats().items, 400);
    assert_eq!(store.stats().expired, 600);
    assert_eq!(
        store.sweep(at(end + 10 * MINUTE_MS), usize::MAX).expired,
        400
    );
    assert_eq!((store.stats().items, store.stats().bytes), (0, 0));
}

#[test]
fn an_item_with_a_year_to_live_outlives_every_round_of_the_wheel() {
    let store = store();
    let _ = put(&store, "year", "525600", 10, 0);
    let mut kept = 0;
    for time in (0..YEAR_MS).step_by(7 * MINUTE_MS as usize) {
        kept += store.sweep(at(time), usize::MAX).kept;
        assert_eq!(store.stats().items, 1);
    }
    // Looked at about once a round (34 minutes), not at every sweep.
    assert!((10_000..20_000).contains(&kept), "{kept}");
    assert!(store.inspect(b"year", at(YEAR_MS - 1)).is_some());
    assert_eq!(
        store
            .sweep(at(YEAR_MS + MemoryStore::SWEEP_LAG_MS), usize::MAX)
            .expired,
        1
    );
}

#[test]
fn one_sweep_after_a_very_long_pause_does_it_all() {
    let store = store();
    let _ = put(&store, "short", "1", 10, 0);
    let _ = put(&store, "hour", "60", 10, 0);
    let _ = put(&store, "year", "525600", 10, 0);
    let sweep = store.sweep(at(YEAR_MS - 1), usize::MAX);
    assert_eq!((sweep.expired, sweep.complete), (2, true));
    assert!(store.inspect(b"year", at(YEAR_MS - 1)).is_some());
    assert_eq!(store.sweep(at(1000 * YEAR_MS), usize::MAX).expired, 1);
    assert_eq!(put(&store, "new", "1", 10, 1000 * YEAR_MS), DONE);
    let end = 1000 * YEAR_MS + MINUTE_MS + MemoryStore::SWEEP_LAG_MS;
    assert_eq!(store.sweep(at(end), usize::MAX).expired, 1);
}

#[test]
fn a_shortened_timeout_is_swept_in_time() {
    let store = store();
    let _ = put(&store, "a", "525600", 10, 0);
    let _ = put(&store, "a", "1", 10, 0);
    assert_eq!(
        store
            .sweep(at(MINUTE_MS + MemoryStore::SWEEP_LAG_MS), usize::MAX)
            .expired,
        1
    );
}

#[test]
fn an_item_stored_by_a_clock_behind_the_sweep_is_freed_by_the_next_one() {
    let store = store();
    assert!(store.sweep(at(10 * MINUTE_MS), usize::MAX).complete);
    let _ = put(&store, "a", "1", 10, 0);
    let next = at(10 * MINUTE_MS + MemoryStore::SWEEP_LAG_MS);
    assert_eq!(store.sweep(next, usize::MAX).expired, 1);
}

#[test]
fn a_limited_sweep_goes_on_where_it_stopped() {
    let store = store();
    for item in 0..300 {
        let _ = put(&store, &format!("s{item}"), "1", 10, 0);
    }
    let mut left = 300;
    while left > 0 {
        assert_eq!(store.stats().items, left);
        let sweep = store.sweep(at(10 * MINUTE_MS), 7);
        let expired = left.min(7);
        assert_eq!(
            sweep,
            SweepTurn {
                expired: expired as usize,
                kept: 0,
                complete: left <= 6
            }
        );
        left -= expired;
    }
    assert_eq!(store.stats().items, 0);
}

#[test]
fn keys_differ_by_any_byte_and_may_hold_any_byte() {
    let store = store();
    let keys: [&[u8]; 5] = [b"/ROOT/a", b"/Root/a", b"/ROOT/a\0", b"\xff\xfe", b""];
    for (index, key) in keys.iter().enumerate() {
        let body = Body::from(vec![index as u8]);
        let put = SessionCommand::put(None, None, None, body);
        assert_eq!(store.ask(key, put, at(0)), DONE);
    }
    assert_eq!(store.stats().items, 5);
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(&*store.inspect(key, at(0)).unwrap().body, [index as u8]);
    }
}

#[test]
fn any_number_of_shards_works() {
    for (shards, used) in [(0, 1), (1, 1), (3, 4), (64, 64), (usize::MAX, 65_536)] {
        let store = MemoryStore::new(&StoreOptions {
            shards,
            ..StoreOptions::new([8; 16])
        });
        assert_eq!(
            format!("{store:?}"),
            format!("MemoryStore {{ shards: {used}, .. }}")
        );
        for item in 0..50 {
            assert_eq!(put(&store, &item.to_string(), "20", item, 0), DONE);
        }
        assert_eq!(store.stats().items, 50);
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let options = StoreOptions::new([0xAB; 16]);
    let store = MemoryStore::new(&options);
    let _ = put(&store, "secret-session-id", "20", 3, 0);
    let shown = format!("{options:?} {store:?}");
    assert!(
        !shown.contains("171") && !shown.contains("secret"),
        "{shown}"
    );
}

fn store() -> MemoryStore {
    MemoryStore::new(&StoreOptions {
        shards: 4,
        ..StoreOptions::new([4; 16])
    })
}

fn limited(max_memory_bytes: u64) -> MemoryStore {
    let max_memory_bytes = Some(max_memory_bytes);
    MemoryStore::new(&StoreOptions {
        shards: 8,
        max_memory_bytes,
        hash_key: [6; 16],
    })
}

fn cost(key: &str, body_bytes: u64) -> u64 {
    key.len() as u64 + body_bytes + MemoryStore::ITEM_OVERHEAD_BYTES
}

fn put(store: &MemoryStore, key: &str, timeout: &str, body_bytes: u64, ms: u64) -> StoreOutcome {
    let put = SessionCommand::put(
        Some(timeout.as_bytes()),
        None,
        None,
        Body::from(vec![1; body_bytes as usize]),
    );
    store.ask(key.as_bytes(), put, at(ms))
}

fn insert_only(store: &MemoryStore, key: &str, ms: u64) -> StoreOutcome {
    let body = Body::default();
    let put = SessionCommand::put(None, Some(b"1"), None, body);
    store.ask(key.as_bytes(), put, at(ms))
}

fn at(ms: u64) -> Now {
    Now {
        unix_ms: ms,
        local_ticks: ms * 10_000,
    }
}
