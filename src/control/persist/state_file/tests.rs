use std::fs::File;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::TlsTrust;
use crate::handover::{Before, Outdated, Stage};
use crate::route::{SLOT_COUNT, Slot};
use crate::tls::{ClientFiles, name_of};

const MAP: &str = "
version: 7
hash_key: 00112233445566778899aabbccddeeff
accept_moved_share: 90
backends:
  - {name: a, id: 1, address: 'a.example:42424', weight: 200, capacity: {sessions: 9, memory: 2GiB}}
  - {name: derived, address: 'c.example:42424', state: 'off'}
  - {name: b, id: 127, address: '[fd00::1]:42424', state: drain}
";

fn backend_id(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

fn retired(id: u8) -> BackendSpec {
    BackendSpec {
        name: "old".to_owned(),
        id,
        id_is_derived: false,
        address: BackendAddress::parse("10.0.0.1:1").unwrap(),
        redis: None,
        tls: Some(TlsTrust {
            files: ClientFiles {
                ca: "/etc/ca.pem".into(),
                own: Some(("/etc/own.pem".into(), "/etc/own.key".into())),
            },
            server_name: name_of("state.farm.example"),
            client: None,
        }),
        weight: 100,
        state: BackendState::Active,
        capacity: Capacity {
            sessions: None,
            memory_bytes: Some(3_000_001),
        },
    }
}

fn timeout(minutes: u32) -> SeenTimeout {
    SeenTimeout {
        minutes,
        seen_ms: 1_700_000_000_000,
    }
}

/// When the file is written, and read again.
fn now() -> BootMoment {
    BootMoment {
        now_ms: 1_700_000_000_000,
        boot_id: "a boot".to_owned(),
        since_boot_ms: 77,
    }
}

fn memory_in(path: &Path) -> Option<PersistedState> {
    read(path, &now()).unwrap().map(|read| read.memory)
}

fn decisions() -> Vec<Decision> {
    vec![
        Decision {
            backend: "a".to_owned(),
            state: BackendState::Active,
            is_withdrawn: true,
            epoch: 7,
            since_ms: 12,
            is_only_here: false,
            fresh_ms: Some(10),
        },
        Decision {
            backend: "b".to_owned(),
            state: BackendState::Off,
            is_withdrawn: false,
            epoch: 6,
            since_ms: 11,
            is_only_here: true,
            fresh_ms: None,
        },
    ]
}

/// A bit of everything.
fn memory() -> PersistedState {
    let state = |slot: Slot| {
        let steady = SlotState::steady(backend_id(1), 1_700_000_000_000);
        let second = Some(backend_id(127));
        let number = slot.number();
        match number % 3 {
            0 => steady,
            1 => SlotState {
                second,
                stage: Stage::Move1,
                since_ms: u64::from(number),
                ..steady
            },
            _ => SlotState {
                first: backend_id(5),
                second,
                stage: Stage::Suspect,
                before: Some(Before {
                    first: backend_id(1),
                    second,
                    stage: Stage::Wait,
                    since_ms: 3,
                }),
                outdated: Outdated::NONE.with([backend_id(1)], u64::from(number)),
                ..steady
            },
        }
    };
    PersistedState {
        map: PartitionMap::parse(MAP, "map").unwrap(),
        decisions: decisions(),
        retired: vec![retired(5)],
        given_up: vec![GivenUp {
            name: "b".to_owned(),
            id: Some(127),
            addresses: ["[fd00::9]:1", "b.example:1"]
                .map(|address| BackendAddress::parse(address).unwrap())
                .to_vec(),
            since_ms: 9,
        }],
        servers: vec![ServerMemory {
            backend: "b".to_owned(),
            in_use: InUse {
                address: SocketAddr::from(([192, 0, 2, 1], 42424)),
                since_ms: 7,
                is_change: true,
            },
            is_ordered: true,
        }],
        failing: vec![FailingMoves {
            from: backend_id(1),
            to: backend_id(2),
            status: Some(400),
            since_ms: 7,
            last_ms: 7,
            moves: 0,
        }],
        timeouts: [timeout(45)].into_iter().collect(),
        known_peers: KnownPeers {
            membership: Membership {
                number: 3,
                by: "0123456789abcdef".to_owned(),
            },
            peers: vec![BackendAddress::parse("10.0.0.6:42480").unwrap()],
            gone: vec![BackendAddress::parse("10.0.0.6:42480").unwrap()],
        },
        slots: Slot::all().map(state).collect(),
    }
}

struct Scene {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staterouter.state");
        Self { directory, path }
    }

    fn written(memory: &PersistedState) -> Self {
        let scene = Self::new();
        write(&scene.path, memory, now()).unwrap();
        scene
    }

    /// The file as JSON, changed.
    fn changed(change: impl FnOnce(&mut Value)) -> StateFileError {
        let mut memory = memory();
        // Short: one group of each kind.
        let kinds = [0, 1, 2].map(|index| memory.slots[index]);
        memory.slots = kinds.into_iter().cycle().take(SLOT_COUNT).collect();
        let scene = Self::written(&memory);
        let mut document = serde_json::from_slice(&fs::read(&scene.path).unwrap()).unwrap();
        change(&mut document);
        fs::write(&scene.path, document.to_string()).unwrap();
        read(&scene.path, &now()).unwrap_err()
    }
}

#[test]
fn the_state_is_read_as_it_was_written() {
    let memory = memory();
    let scene = Scene::written(&memory);
    assert_eq!(memory_in(&scene.path), Some(memory));
    let mode = fs::metadata(&scene.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(&scene.directory).unwrap().count(), 1);
}

#[test]
fn without_a_file_there_is_no_state() {
    assert_eq!(memory_in(&Scene::new().path), None);
}

#[test]
fn what_a_crash_left_behind_is_in_nobodys_way() {
    let mut memory = memory();
    let scene = Scene::written(&memory);
    // Written in full or in part, and never put in place.
    let temporary = scene.directory.path().join("staterouter.state.new");
    fs::write(&temporary, "{\"format\":1,\"ma").unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(memory_in(&scene.path).as_ref(), Some(&memory));
    memory.timeouts.saw(timeout(46));
    write(&scene.path, &memory, now()).unwrap();
    assert_eq!(memory_in(&scene.path), Some(memory));
    let mode = fs::metadata(&scene.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!temporary.exists());
}

#[test]
fn half_a_file_is_damaged_wherever_it_ends() {
    let scene = Scene::written(&memory());
    let bytes = fs::read(&scene.path).unwrap();
    for len in [0, 1, 40, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&scene.path, &bytes[..len]).unwrap();
        let error = read(&scene.path, &now()).unwrap_err();
        assert!(matches!(error, StateFileError::Damaged { .. }), "{error}");
        let says = error.to_string();
        assert!(
            says.contains("sessions that are on their way are lost"),
            "{says}"
        );
    }
}

#[test]
fn the_file_of_a_later_version_is_left_alone() {
    let later = Scene::changed(|document| {
        document["format"] = 2.into();
        document["slots"] = "written in another way".into();
    });
    assert!(matches!(later, StateFileError::Newer { format: 2, .. }));
}

#[test]
fn what_does_not_fit_together_is_damage() {
    type Change = fn(&mut Value);
    let changes: [Change; 16] = [
        |document| document["format"] = "1".into(),
        |document| document["more"] = 1.into(),
        |document| document["retired"][0]["more"] = 1.into(),
        |document| document["retired"][0]["capacity"]["more"] = 1.into(),
        |document| document["given_up"][0]["more"] = 1.into(),
        |document| document["given_up"][0]["addresses"][1] = "nowhere".into(),
        |document| document["written"]["more"] = 1.into(),
        |document| document["slots"][0]["more"] = 1.into(),
        |document| document["slots"][2]["before"]["more"] = 1.into(),
        |document| document["slots"][2]["outdated"]["more"] = 1.into(),
        |document| document["map"]["backends"] = json!([]),
        |document| document["map"]["hash_key"] = "secret".into(),
        |document| document["retired"][0]["id"] = 1.into(),
        |document| document["retired"][0]["address"] = "nowhere".into(),
        |document| document["slots"][1]["first"] = 6.into(),
        |document| document["slots"][0]["slots"] = "0-1".into(),
    ];
    for change in changes {
        let error = Scene::changed(change);
        assert!(matches!(error, StateFileError::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// A backend was added and removed before this proxy heard of it, and others stand there.
#[test]
fn a_slot_may_wait_for_a_backend_that_only_other_proxies_know() {
    let unknown = PersistedState {
        retired: Vec::new(),
        ..memory()
    };
    assert!(unknown.slots.iter().any(|slot| slot.first == backend_id(5)));
    let scene = Scene::written(&unknown);
    assert_eq!(memory_in(&scene.path), Some(unknown));
}

#[test]
fn a_file_that_never_ends_is_not_read_to_its_end() {
    let scene = Scene::new();
    let file = File::create(&scene.path).unwrap();
    file.set_len(MAX_FILE_BYTES + 1).unwrap();
    let error = read(&scene.path, &now()).unwrap_err();
    assert!(matches!(error, StateFileError::TooLong { .. }), "{error}");
}

#[test]
fn what_the_system_refuses_is_said() {
    let scene = Scene::new();
    let in_the_way = scene.directory.path();
    let error = read(in_the_way, &now()).unwrap_err();
    assert!(matches!(error, StateFileError::Read { .. }), "{error}");
    let nowhere = scene.directory.path().join("none").join("state");
    let error = write(&nowhere, &memory(), now()).unwrap_err();
    assert!(matches!(error, StateFileError::Write { .. }), "{error}");
    assert!(error.to_string().contains("none/state"), "{error}");
}

#[test]
fn a_failed_write_leaves_the_old_state() {
    let memory = memory();
    let scene = Scene::written(&memory);
    // Neither a file nor removable as one.
    fs::create_dir(scene.directory.path().join("staterouter.state.new")).unwrap();
    let mut newer = memory.clone();
    newer.slots = vec![SlotState::steady(backend_id(1), 0); SLOT_COUNT].into();
    assert!(write(&scene.path, &newer, now()).is_err());
    assert_eq!(memory_in(&scene.path), Some(memory));
}

#[test]
fn a_wall_clock_that_is_wrong_ends_nothing_early() {
    const HOUR_MS: u64 = 3_600_000;
    let scene = Scene::written(&memory());
    let as_of = |boot_id: &str, since_boot_ms: u64| {
        let later = BootMoment {
            now_ms: now().now_ms + HOUR_MS,
            boot_id: boot_id.to_owned(),
            since_boot_ms,
        };
        let read = read(&scene.path, &later).unwrap().unwrap();
        let ages = read.memory.slots[0..3]
            .iter()
            .map(|slot| later.now_ms - slot.since_ms);
        (ages.collect::<Vec<_>>(), read.is_time_unknown)
    };
    let ages = [0, now().now_ms - 1, now().now_ms];
    // The machine has run on, and knows for how long.
    let later = [1000, ages[1] + 1000, now().now_ms + 1000];
    let (seen, is_unknown) = as_of("a boot", 1077);
    assert_eq!((&seen[..2], is_unknown), (&later[..2], false));
    // It was down, or this is another one: what nobody knows has taken no time.
    let (seen, is_unknown) = as_of("another", 1077);
    assert_eq!((&seen[..2], is_unknown), (&ages[..2], true));
}

#[test]
fn the_file_of_a_version_that_trusted_the_clock_counts_as_just_written() {
    let scene = Scene::written(&memory());
    let mut document: Value = serde_json::from_slice(&fs::read(&scene.path).unwrap()).unwrap();
    let fields = document.as_object_mut().unwrap();
    fields.remove("written");
    fields.remove("session_timeouts");
    fields.insert("longest_timeout_minutes".to_owned(), 45.into());
    fields["given_up"] = json!([{"address": "10.0.0.9:1", "since_ms": 9}]);
    fs::write(&scene.path, document.to_string()).unwrap();
    let later = BootMoment {
        now_ms: now().now_ms * 2,
        ..now()
    };
    let read = read(&scene.path, &later).unwrap().unwrap();
    assert!(read.is_time_unknown);
    assert_eq!(read.memory.slots[0].since_ms, later.now_ms);
    assert_eq!(read.memory.timeouts.last_seen_ms(45), Some(later.now_ms));
    assert_eq!(read.memory.given_up.len(), 1);
}
