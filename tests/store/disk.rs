//! Sessions on a disk: what is left after a kill, a power cut, a full or a broken disk, and damage.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestRng, TestRunner};
use staterouter::disk::{DiskError, DiskOptions, DiskState, DiskStore, Folder, SyncMode};
use staterouter::store::{
    Body, Now, SessionCommand, SessionStore, StoreOptions, StoreOutcome, StoreRefusal,
};

use crate::fake_disk::{FakeDisk, Op, apply};
use crate::stores::{Ask, wait};

const DONE: StoreOutcome = StoreOutcome::Done {
    action_flags: false,
    zero_timeout: false,
};
const REFUSED: StoreOutcome = StoreOutcome::Refused(StoreRefusal::NotWritable);
const NOW: Now = Now {
    unix_ms: 1_700_000_000_000,
    local_ticks: 0,
};
const KEYS: usize = 5;

/// Small segments, so that the log is cleaned up all the time.
fn options(sync: SyncMode) -> DiskOptions {
    DiskOptions {
        segment_bytes: 1500,
        sync_every: Duration::from_millis(2),
        ..DiskOptions::new(StoreOptions::new([1; 16]), sync)
    }
}

fn open(disk: &FakeDisk, sync: SyncMode) -> Result<DiskStore, DiskError> {
    DiskStore::open(disk.clone(), &options(sync), NOW)
}

fn key(number: usize) -> Vec<u8> {
    format!("session-{number}").into_bytes()
}

fn put(body: &[u8]) -> SessionCommand {
    SessionCommand::put(None, None, None, Body::from(body)).unwrap()
}

/// What a key held from some moment on; `None` for nothing.
#[derive(Debug, Clone)]
struct Version {
    /// Operations on the disk before it was asked for.
    asked_at: usize,
    /// And when it was answered.
    answered_at: usize,
    body: Option<Vec<u8>>,
}

type History = [Vec<Version>; KEYS];

/// Writes and removes at random, and remembers all of it.
fn run(disk: &FakeDisk, sync: SyncMode, steps: &[(usize, Option<usize>)]) -> History {
    let store = open(disk, sync).unwrap();
    let never = Version {
        asked_at: 0,
        answered_at: 0,
        body: None,
    };
    let mut history: History = std::array::from_fn(|_| vec![never.clone()]);
    for (number, (at, length)) in steps.iter().enumerate() {
        let body = length.map(|length| vec![number as u8; length]);
        let asked_at = disk.op_count();
        let outcome = match &body {
            Some(body) => store.ask(&key(*at), put(body), NOW),
            None => store.ask(&key(*at), SessionCommand::remove(None), NOW),
        };
        assert!(
            matches!(outcome, DONE | StoreOutcome::Absent),
            "{outcome:?}"
        );
        let answered_at = disk.op_count();
        history[*at].push(Version {
            asked_at,
            answered_at,
            body,
        });
    }
    store.close().unwrap();
    history
}

/// Opens what is left and looks whether every key holds what it may: nothing older than what was
/// answered before `promised`, nothing that was asked for after `crash`.
fn check(
    files: BTreeMap<u64, Vec<u8>>,
    history: &History,
    promised: usize,
    crash: usize,
    when: &str,
) {
    let disk = FakeDisk::with(files);
    let store = open(&disk, SyncMode::Always);
    let store = store.unwrap_or_else(|error| panic!("{when}: {error}"));
    for (number, versions) in history.iter().enumerate() {
        let found = store.inspect(&key(number), NOW);
        let found = found.map(|item| item.body.to_vec());
        let oldest = versions.iter().rposition(|v| v.answered_at <= promised);
        let newest = versions.iter().rposition(|v| v.asked_at <= crash);
        let legal = &versions[oldest.unwrap()..=newest.unwrap()];
        assert!(
            legal.iter().any(|version| version.body == found),
            "{when}: key {number} holds {found:?}, not one of {legal:?}"
        );
    }
    // What was repaired is good for more.
    assert_eq!(store.ask(&key(0), put(b"after"), NOW), DONE, "{when}");
    store.close().unwrap();
    let store = open(&disk, SyncMode::Always).unwrap();
    let found = store.inspect(&key(0), NOW).unwrap();
    assert_eq!(&*found.body, b"after", "{when}");
}

/// What is there after the first `count` operations, the last one torn at `cut`.
fn after_kill(ops: &[Op], count: usize, cut: Option<usize>) -> BTreeMap<u64, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (at, op) in ops[..count].iter().enumerate() {
        match (op, cut) {
            (Op::Write(number, offset, bytes), Some(cut)) if at + 1 == count => {
                apply(
                    &mut files,
                    &Op::Write(*number, *offset, bytes[..cut].to_vec()),
                );
            }
            _ => apply(&mut files, op),
        }
    }
    files
}

/// What the disk may hold when the power goes after the first `count` operations: everything that
/// was synced, and of the rest whatever chance has left.
fn after_power_cut(ops: &[Op], count: usize, rng: &mut TestRng) -> BTreeMap<u64, Vec<u8>> {
    let mut synced: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut open_ops: Vec<&Op> = Vec::new();
    for op in &ops[..count] {
        match op {
            Op::Sync(number) => {
                // The content of one file; whether its name stays is the folder's business.
                open_ops.retain(|open| match open {
                    Op::Write(of, ..) | Op::Truncate(of, _) if of == number => {
                        apply(&mut synced, open);
                        false
                    }
                    _ => true,
                });
            }
            Op::SyncFolder => open_ops.retain(|open| match open {
                Op::Create(number) => {
                    synced.entry(*number).or_default();
                    false
                }
                Op::Remove(_) => {
                    apply(&mut synced, open);
                    false
                }
                _ => true,
            }),
            _ => open_ops.push(op),
        }
    }
    let mut vanished = Vec::new();
    for op in open_ops {
        match op {
            Op::Create(number) if rng.random_bool(0.5) => vanished.push(*number),
            Op::Create(number) => {
                synced.entry(*number).or_default();
            }
            Op::Write(number, offset, bytes) => match rng.random_range(0..4) {
                0 => {}
                1 => apply(&mut synced, op),
                2 => {
                    let cut = rng.random_range(0..=bytes.len());
                    apply(
                        &mut synced,
                        &Op::Write(*number, *offset, bytes[..cut].to_vec()),
                    );
                }
                // The length is there, the bytes are not.
                _ => apply(
                    &mut synced,
                    &Op::Write(*number, *offset, vec![0; bytes.len()]),
                ),
            },
            _ if rng.random_bool(0.5) => apply(&mut synced, op),
            _ => {}
        }
    }
    synced.retain(|number, _| !vanished.contains(number));
    synced
}

fn steps() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    let length = prop_oneof![5 => (0usize..300).prop_map(Some), 1 => Just(None)];
    prop::collection::vec((0..KEYS, length), 1..60)
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_answered() {
    for sync in [SyncMode::Off, SyncMode::EverySec, SyncMode::Always] {
        let config = ProptestConfig::with_cases(6);
        proptest!(config, |(steps in steps())| {
            let disk = FakeDisk::default();
            let history = run(&disk, sync, &steps);
            let ops = disk.ops();
            for count in 0..=ops.len() {
                let when = format!("{sync:?}, killed after operation {count}");
                check(after_kill(&ops, count, None), &history, count, count, &when);
                if let Some(Op::Write(_, _, bytes)) = ops[..count].last() {
                    for cut in [0, 1, 11, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                        let cut = cut.min(bytes.len());
                        let when = format!("{when}, which was torn at {cut}");
                        let left = after_kill(&ops, count, Some(cut));
                        check(left, &history, count - 1, count, &when);
                    }
                }
            }
        });
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_promised() {
    for sync in [SyncMode::EverySec, SyncMode::Always] {
        let config = ProptestConfig::with_cases(6);
        let rng = RefCell::new(TestRunner::deterministic().new_rng());
        proptest!(config, |(steps in steps())| {
            let disk = FakeDisk::default();
            let history = run(&disk, sync, &steps);
            let ops = disk.ops();
            for count in 0..=ops.len() {
                let synced = ops[..count].iter().rposition(|op| matches!(op, Op::Sync(_)));
                let promised = match sync {
                    SyncMode::Always => count,
                    // What was answered before the last sync began.
                    _ => synced.unwrap_or(0),
                };
                for chance in 0..4 {
                    let left = after_power_cut(&ops, count, &mut rng.borrow_mut());
                    let when = format!("{sync:?}, cut after operation {count}, chance {chance}");
                    check(left, &history, promised, count, &when);
                }
            }
        });
    }
}

/// A fault in what the disk once had is never taken for the end of a file.
#[test]
fn damage_is_refused_with_its_place() {
    let disk = FakeDisk::default();
    let steps: Vec<_> = (0..20).map(|step| (step % KEYS, Some(100))).collect();
    let history = run(&disk, SyncMode::Always, &steps);
    let files = disk.files();
    let (mut refused, mut unnoticed) = (0, 0);
    for (number, file) in &files {
        for at in 0..file.len() {
            let mut damaged = files.clone();
            damaged.get_mut(number).unwrap()[at] ^= 0x40;
            let left = damaged.clone();
            match open(&FakeDisk::with(damaged), SyncMode::Always) {
                Err(DiskError::Damaged { file, offset, .. }) => {
                    assert_eq!(file, format!("fake/{number}"));
                    assert!(offset as usize <= at, "{offset} is behind {at}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
                // The end of the last file, without which nothing is missing.
                Ok(_) => {
                    let when = format!("byte {at} of {number} is damaged, and nobody says so");
                    check(left, &history, usize::MAX, usize::MAX, &when);
                    unnoticed += 1;
                }
            }
        }
    }
    assert!(
        refused > 0 && unnoticed < 50,
        "{refused} refused, {unnoticed} not"
    );
    check(files, &history, usize::MAX, usize::MAX, "undamaged");
}

#[test]
fn a_file_that_is_missing_or_short_is_refused() {
    let disk = FakeDisk::default();
    let steps: Vec<_> = (0..60).map(|step| (step % KEYS, Some(200))).collect();
    run(&disk, SyncMode::Always, &steps);
    let files = disk.files();
    let inner: Vec<_> = files.keys().copied().collect();
    assert!(inner.len() > 2, "{inner:?}");
    for number in &inner[1..inner.len() - 1] {
        let mut left = files.clone();
        left.remove(number);
        let error = open(&FakeDisk::with(left), SyncMode::Always).unwrap_err();
        assert!(matches!(error, DiskError::Missing { .. }), "{error}");
        let mut left = files.clone();
        let file = left.get_mut(number).unwrap();
        file.truncate(file.len() - 1);
        let error = open(&FakeDisk::with(left), SyncMode::Always).unwrap_err();
        assert!(matches!(error, DiskError::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_log_stays_in_proportion_to_the_sessions() {
    let disk = FakeDisk::default();
    let steps: Vec<_> = (0..3000).map(|step| (step % KEYS, Some(100))).collect();
    run(&disk, SyncMode::Off, &steps);
    let bytes: usize = disk.files().values().map(Vec::len).sum();
    // Five sessions of 150 bytes; twice that, and some segments of 1,500.
    assert!(bytes < 10_000, "{bytes}");
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_once_there_is_room() {
    for sync in [SyncMode::EverySec, SyncMode::Always] {
        let disk = FakeDisk::default();
        let store = open(&disk, sync).unwrap();
        assert_eq!(store.ask(&key(1), put(b"before"), NOW), DONE);
        disk.set_room(Some(50));
        assert_eq!(store.ask(&key(2), put(&[7; 100]), NOW), REFUSED);
        assert_eq!(store.disk_stats().state, DiskState::Paused);
        assert_eq!(store.ask(&key(1), put(b"refused"), NOW), REFUSED);
        assert_eq!(
            store.ask(&key(1), SessionCommand::remove(None), NOW),
            REFUSED
        );
        let StoreOutcome::Found { body, .. } = store.ask(&key(1), SessionCommand::Acquire, NOW)
        else {
            panic!("reads and locks go on");
        };
        assert_eq!(&*body, b"before");
        disk.set_room(None);
        while store.disk_stats().state != DiskState::Writable {
            std::thread::yield_now();
        }
        assert_eq!(store.ask(&key(3), put(b"again"), NOW), DONE);
        store.close().unwrap();
        let store = open(&disk, sync).unwrap();
        for (number, expected) in [(1, b"before".as_slice()), (3, b"again")] {
            let found = store.inspect(&key(number), NOW).unwrap();
            assert_eq!(&*found.body, expected);
        }
    }
}

fn wait_until_writable(store: &DiskStore) {
    while store.disk_stats().state != DiskState::Writable {
        std::thread::yield_now();
    }
}

#[test]
fn a_file_of_somebody_else_in_the_way_is_left_alone_and_loses_nothing() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Always).unwrap();
    let last = disk.files().into_keys().max().unwrap();
    disk.put_file(last + 1, b"not ours");
    let body = |step: usize| vec![step as u8; 600];
    // The segment in use is full soon.
    let refused = (0..KEYS).find(|&step| store.ask(&key(step), put(&body(step)), NOW) == REFUSED);
    let refused = refused.unwrap();
    assert_eq!(store.disk_stats().state, DiskState::Paused);
    assert_eq!(disk.take_file(last + 1).unwrap(), b"not ours");
    wait_until_writable(&store);
    assert_eq!(store.ask(&key(refused), put(&body(refused)), NOW), DONE);
    store.close().unwrap();
    let store = open(&disk, SyncMode::Always).unwrap();
    for step in 0..=refused {
        let found = store.inspect(&key(step), NOW).unwrap();
        assert_eq!(&*found.body, &body(step)[..]);
    }
}

#[test]
fn a_file_in_the_way_is_told_of_with_what_to_do() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Always).unwrap();
    let last = disk.files().into_keys().max().unwrap();
    disk.put_file(last + 1, b"not ours");
    while store.ask(&key(1), put(&[7; 600]), NOW) == DONE {}
    let error = store.close().unwrap_err().to_string();
    assert!(error.contains("move the file away"), "{error}");
}

/// The disk was full, and the file that was begun could not be removed again.
#[test]
fn a_file_that_was_begun_and_could_not_be_removed_is_not_in_the_way_for_ever() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Always).unwrap();
    disk.set_keeps_all(true);
    let segments = disk.files().len();
    while disk.files().len() == segments {
        // The last segment is full: the next one gets no further than its head.
        let room = disk.files().into_values().last().unwrap().len() > 1500;
        disk.set_room(room.then_some(5));
        let _ = store.ask(&key(1), put(&[7; 600]), NOW);
    }
    assert_eq!(store.disk_stats().state, DiskState::Paused);
    disk.set_room(None);
    disk.set_keeps_all(false);
    wait_until_writable(&store);
    assert_eq!(store.ask(&key(1), put(b"again"), NOW), DONE);
    store.close().unwrap();
    let store = open(&disk, SyncMode::Always).unwrap();
    assert_eq!(&*store.inspect(&key(1), NOW).unwrap().body, b"again");
}

/// Each write would read the file once more otherwise, and say so in the log.
#[test]
fn a_file_that_cannot_be_read_again_is_left_for_a_while_and_writes_go_on() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Off).unwrap();
    disk.set_reads_fail();
    for step in 0..400 {
        assert_eq!(store.ask(&key(step % KEYS), put(&[7; 100]), NOW), DONE);
    }
    store.close().unwrap();
    let failed = disk.failed_reads();
    assert!((1..100).contains(&failed), "{failed} times");
}

/// After a failed fsync the system may have dropped what it could not write, and the next one would
/// report success.
#[test]
fn a_failed_sync_is_never_repeated_and_no_write_is_taken_after_it() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Always).unwrap();
    assert_eq!(store.ask(&key(1), put(b"before"), NOW), DONE);
    disk.set_sync_fails(true);
    assert_eq!(store.ask(&key(2), put(b"lost"), NOW), REFUSED);
    let attempts = disk.op_count();
    disk.set_sync_fails(false);
    assert_eq!(store.disk_stats().state, DiskState::Failed);
    assert_eq!(store.ask(&key(2), put(b"lost"), NOW), REFUSED);
    assert!(matches!(
        store.ask(&key(1), SessionCommand::Get, NOW),
        StoreOutcome::Found { .. }
    ));
    let error = store.close().unwrap_err().to_string();
    assert!(
        error.contains("fake/1") && error.contains("the disk is broken"),
        "{error}"
    );
    assert_eq!(disk.op_count(), attempts, "the disk is left alone");
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    let disk = FakeDisk::default();
    disk.set_read_only();
    let error = open(&disk, SyncMode::EverySec).unwrap_err();
    assert!(error.to_string().contains("fake/1"), "{error}");
}

#[test]
fn shutdown_writes_at_the_stop_and_leaves_nothing_stale_after_a_kill() {
    let disk = FakeDisk::default();
    let store = open(&disk, SyncMode::Shutdown).unwrap();
    assert_eq!(store.ask(&key(1), put(b"first"), NOW), DONE);
    let files = disk.files();
    assert!(files.values().all(Vec::is_empty), "{files:?}");
    store.close().unwrap();

    let store = open(&disk, SyncMode::Shutdown).unwrap();
    let found = store.inspect(&key(1), NOW).unwrap();
    assert_eq!(&*found.body, b"first");
    assert_eq!(store.ask(&key(1), put(b"second"), NOW), DONE);
    // Killed here, it must not come back with the first.
    let killed = open(&FakeDisk::with(disk.files()), SyncMode::Shutdown).unwrap();
    assert!(killed.inspect(&key(1), NOW).is_none());
}

#[test]
fn a_lock_does_not_outlive_a_restart_and_its_cookie_opens_no_later_one() {
    let mut disk = FakeDisk::default();
    let mut cookies = Vec::new();
    let store = open(&disk, SyncMode::EverySec).unwrap();
    assert_eq!(store.ask(&key(1), put(b"x"), NOW), DONE);
    store.close().unwrap();
    for _restart in 0..5 {
        let store = open(&disk, SyncMode::EverySec).unwrap();
        let outcome = store.ask(&key(1), SessionCommand::Acquire, NOW);
        let StoreOutcome::Found {
            cookie: Some(cookie),
            ..
        } = outcome
        else {
            panic!("it is locked: {outcome:?}");
        };
        for old in &cookies {
            let old: &u32 = old;
            let put = SessionCommand::put(
                None,
                None,
                Some(old.to_string().as_bytes()),
                Body::default(),
            );
            let outcome = store.ask(&key(1), put, NOW);
            assert!(
                matches!(outcome, StoreOutcome::Locked { .. }),
                "{old} opens {cookie}"
            );
        }
        cookies.push(cookie);
        // Killed here: of the lock there is a note, or not even that.
        disk = FakeDisk::with(disk.files());
    }
}

#[test]
fn a_session_lives_no_shorter_for_restarts_between_its_uses() {
    let mut disk = FakeDisk::default();
    let timeout_ms = 20 * 60_000;
    let at = |ms: u64| Now {
        unix_ms: NOW.unix_ms + ms,
        ..NOW
    };
    let open_at = |disk: &FakeDisk, now| {
        DiskStore::open(disk.clone(), &options(SyncMode::EverySec), now).unwrap()
    };
    let store = open_at(&disk, at(0));
    assert_eq!(store.ask(&key(1), put(b"x"), at(0)), DONE);
    store.close().unwrap();
    let mut used_ms = 0;
    for pause_ms in [150_001, 1, 149_999, 75_000, 150_001, 299_999] {
        disk = FakeDisk::with(disk.files());
        used_ms += pause_ms;
        let store = open_at(&disk, at(used_ms));
        let _ = store.ask(&key(1), SessionCommand::Touch, at(used_ms));
        store.close().unwrap();
        disk = FakeDisk::with(disk.files());
        let last_moment = at(used_ms + timeout_ms - 1);
        let store = open_at(&FakeDisk::with(disk.files()), last_moment);
        let outcome = store.ask(&key(1), SessionCommand::Get, last_moment);
        assert!(
            matches!(outcome, StoreOutcome::Found { .. }),
            "used at {used_ms} ms: {outcome:?}"
        );
    }
}

#[test]
fn two_processes_cannot_have_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Folder::take(folder.path()).unwrap();
    let error = Folder::take(folder.path()).unwrap_err();
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&folder.path().display().to_string())
    );
    drop(first);
    assert!(Folder::take(folder.path()).is_ok());
}

/// What an answer has shown must not be gone after a crash: a read waits for the write that it has
/// seen. Nobody else does.
#[test]
fn a_read_waits_for_a_write_of_its_session_that_is_under_way() {
    for sync in [SyncMode::Off, SyncMode::EverySec, SyncMode::Always] {
        let disk = FakeDisk::default();
        let store = open(&disk, sync).unwrap();
        assert_eq!(store.ask(&key(1), put(b"other"), NOW), DONE);
        let held = disk.hold();
        let mut writing = pin!(store.apply(&key(2), put(b"new"), NOW));
        let mut reading = pin!(store.apply(&key(2), SessionCommand::Get, NOW));
        let mut locking = pin!(store.apply(&key(1), SessionCommand::Acquire, NOW));
        let mut context = Context::from_waker(Waker::noop());
        assert!(writing.as_mut().poll(&mut context).is_pending());
        assert!(reading.as_mut().poll(&mut context).is_pending());
        assert!(locking.as_mut().poll(&mut context).is_ready());
        drop(held);
        let (written, read) = wait(async { tokio::join!(writing, reading) });
        assert_eq!(written, DONE);
        assert!(matches!(read, StoreOutcome::Found { .. }));
    }
}

/// The files as they are on a real file system.
#[test]
fn sessions_come_back_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3u8 {
        let disk = Folder::take(folder.path()).unwrap();
        let store = DiskStore::open(disk, &options(SyncMode::Always), NOW).unwrap();
        for number in 0..KEYS {
            let found = store.inspect(&key(number), NOW);
            let expected = (round > 0).then(|| Body::from(vec![round; 700]));
            assert_eq!(found.map(|item| item.body), expected);
            let next = put(&[round + 1; 700]);
            assert_eq!(store.ask(&key(number), next, NOW), DONE);
        }
        store.close().unwrap();
    }
}
