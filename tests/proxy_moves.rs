//! Requests that meet the end of a move: two scripted backends, every slot on its way from the
//! first to the second.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

mod support;

use staterouter::config::{PartitionMap, load_partition_map};
use staterouter::control::clock::Clock;
use staterouter::control::memory::Memory;
use staterouter::control::state_file;
use staterouter::handover::{NO_LOCK, Place, SlotState, Stage};
use staterouter::route::SLOT_COUNT;
use support::answers::DONE;
use support::backend::{ABSENT, Backend, BackendConnection};
use support::client::{Client, delete};
use support::tags::tag;
use support::{Program, ProxyFiles};

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// A lock that was taken a moment ago.
const JUST_LOCKED: &[u8] = b"423 Locked\r\nX-AspNet-Version: 4.0.30319\r\n\
LockDate: 636000000000000000\r\nLockAge: 0\r\nLockCookie: 2\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

struct Scene {
    _proxy: Program,
    client: Client,
    earlier: Backend,
    owner: Backend,
}

impl Scene {
    fn new() -> Self {
        let [earlier, owner] = [(); 2].map(|()| Backend::start());
        let files = ProxyFiles::new(&[earlier.address, owner.address], "");
        let directory = std::path::PathBuf::from(files.config());
        let directory = directory.parent().unwrap();
        let map = load_partition_map(&directory.join("map.yaml")).unwrap();
        state_file::write(&directory.join("staterouter.state"), &all_moving(map)).unwrap();
        let proxy = files.serve();
        Self {
            client: Client::connect(proxy.address),
            _proxy: proxy,
            earlier,
            owner,
        }
    }

    /// Has the client remove the session it holds, up to the first look behind.
    fn remove(&mut self) -> BackendConnection {
        self.client.send(&delete(ID, tag(2, 7)));
        let mut behind = self.earlier.accept();
        behind.expect(&delete(ID, NO_LOCK), JUST_LOCKED);
        behind
    }
}

/// Every slot moves from the first backend to the second.
fn all_moving(map: PartitionMap) -> Memory {
    let moving = SlotState {
        first: Place::new(2).unwrap(),
        second: Place::new(1),
        stage: Stage::Move2,
        since_ms: Clock::start().now_ms(),
        before: None,
    };
    Memory {
        map,
        overrides: Vec::new(),
        retired: Vec::new(),
        given_up: Vec::new(),
        longest_timeout_minutes: 0,
        slots: vec![moving; SLOT_COUNT],
    }
}

#[test]
fn a_removal_waits_for_the_last_step_of_the_move_that_brought_the_session() {
    let mut scene = Scene::new();
    let mut behind = scene.remove();
    // Meanwhile the mover has removed it.
    behind.expect(&delete(ID, NO_LOCK), ABSENT);
    let mut owner = scene.owner.accept();
    owner.expect(&delete(ID, 7), DONE);
    assert_eq!(scene.client.answer_to(false), DONE);
}

#[test]
fn a_removal_does_not_wait_for_ever_and_removes_nothing_then() {
    let mut scene = Scene::new();
    let mut behind = scene.remove();
    let mut tries = 1;
    let given_up = std::thread::scope(|scope| {
        let client = scope.spawn(|| scene.client.until_closed());
        let again = delete(ID, NO_LOCK);
        while !client.is_finished() {
            behind.stream.set_nonblocking(true).unwrap();
            let waits = behind.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
            behind.stream.set_nonblocking(false).unwrap();
            if waits {
                behind.expect(&again, JUST_LOCKED);
                tries += 1;
            }
            std::thread::yield_now();
        }
        client.join().unwrap()
    });
    assert_eq!(given_up, b"");
    assert!(tries > 2, "{tries}");
    scene.owner.assert_nobody_connected();
}
