//! One task per backend, which asks it again and again whether it is there.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::backend::{Connector, Prober};
use crate::config::HealthConfig;
use crate::handover::BackendId;
use crate::health::{self, Failure};
use crate::log::LogLimit;

/// Results that wait for control at most; a task with one more waits itself.
const MAX_RESULTS: usize = 256;

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// The backend.
    pub backend_id: BackendId,
    /// Where it was asked.
    pub address: SocketAddr,
    /// Whether it answered as a state server does.
    pub outcome: Result<(), Failure>,
}

/// The tasks. They end with this.
#[derive(Debug)]
pub struct Probes {
    times: Times,
    tasks: JoinSet<()>,
    running: HashMap<(BackendId, SocketAddr), Running>,
    results: mpsc::Sender<ProbeResult>,
    /// Lines about probes that this machine had nothing left for.
    shortages: LogLimit,
}

/// One of the tasks.
#[derive(Debug)]
struct Running {
    task: AbortHandle,
    way: Connector,
    is_suspect: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    interval: Duration,
    timeout: Duration,
}

impl Probes {
    /// No task yet; results arrive at the receiver.
    pub fn new(config: &HealthConfig) -> (Self, mpsc::Receiver<ProbeResult>) {
        let (results, received) = mpsc::channel(MAX_RESULTS);
        let probes = Self {
            times: Times::of(config),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            results,
            shortages: LogLimit::default(),
        };
        (probes, received)
    }

    /// Asks exactly `backends` from now on, a new one at once. Tasks go on unless the times or the way have
    /// changed. Must be called on a runtime with timers and sockets.
    pub fn follow(
        &mut self,
        config: &HealthConfig,
        backends: impl IntoIterator<Item = (BackendId, SocketAddr)>,
        way_to: impl Fn(BackendId, SocketAddr) -> Connector,
    ) {
        let times = Times::of(config);
        let mut before = std::mem::take(&mut self.running);
        let is_kept = times == self.times;
        self.times = times;
        for (backend_id, address) in backends {
            let key = (backend_id, address);
            let way = way_to(backend_id, address);
            let running = match before.remove(&key) {
                Some(running) if is_kept && running.way == way => running,
                Some(other) => {
                    other.task.abort();
                    self.begin(&key, way, *other.is_suspect.borrow())
                }
                None => self.begin(&key, way, false),
            };
            self.running.insert(key, running);
        }
        before
            .into_values()
            .for_each(|running| running.task.abort());
        // What has ended is only kept until somebody looks.
        while self.tasks.try_join_next().is_some() {}
    }

    fn begin(
        &mut self,
        (backend_id, address): &(BackendId, SocketAddr),
        way: Connector,
        is_suspect: bool,
    ) -> Running {
        let (is_suspect, suspected) = watch::channel(is_suspect);
        let results = self.results.clone();
        let at = (*backend_id, *address, way.clone());
        let ask = ask_for_ever(at, self.times, suspected, results);
        Running {
            task: self.tasks.spawn_local(ask),
            way,
            is_suspect,
        }
    }

    /// Logs that this machine had nothing left for a probe of `backend`.
    pub(crate) fn complain(&self, backend: &str, now_ms: u64) {
        if let Some(suppressed) = self.shortages.allow(now_ms) {
            let reason = Failure::Shortage;
            tracing::warn!(
                backend,
                suppressed,
                "cannot probe: {reason}; what is known of the backend stays"
            );
        }
    }

    /// From now on the backend at `place` is suspect or not, which says how often it is asked.
    pub fn suspect(&self, backend_id: BackendId, is_suspect: bool) {
        let running = self.running.iter();
        for (_, running) in running.filter(|((running, _), _)| *running == backend_id) {
            running.is_suspect.send_replace(is_suspect);
        }
    }
}

impl Times {
    fn of(config: &HealthConfig) -> Self {
        Self {
            interval: config.interval,
            timeout: config.timeout,
        }
    }
}

async fn ask_for_ever(
    (backend_id, address, way): (BackendId, SocketAddr, Connector),
    times: Times,
    mut suspected: watch::Receiver<bool>,
    results: mpsc::Sender<ProbeResult>,
) {
    let mut prober = Prober::new(way, times.timeout);
    loop {
        let outcome = prober.probe().await.map_err(|error| error.failure());
        let result = ProbeResult {
            backend_id,
            address,
            outcome,
        };
        if results.send(result).await.is_err() {
            return;
        }
        pause(
            times.interval,
            &mut suspected,
            RandomState::new().hash_one(backend_id),
        )
        .await;
    }
}

/// Waits until the next probe is due. What the last one has shown may come to be known meanwhile.
async fn pause(interval: Duration, suspected: &mut watch::Receiver<bool>, random: u64) {
    let begun = Instant::now();
    loop {
        let is_suspect = *suspected.borrow_and_update();
        let pause_ms = health::pause_ms(interval.as_millis() as u64, is_suspect, random);
        tokio::select! {
            () = sleep_until(begun + Duration::from_millis(pause_ms)) => return,
            // Without a sender the task is about to be ended.
            Ok(()) = suspected.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    const CONFIG: HealthConfig = HealthConfig {
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(30),
        fall: 1,
        rise: 1,
        flap_window: Duration::ZERO,
        max_rise: 1,
    };

    /// A backend that answers every probe with these bytes.
    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // The prober may have left.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer);
                let _ = stream.read(&mut [0; 1024]);
            }
        });
        address
    }

    fn backend_id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn plainly(_id: BackendId, address: SocketAddr) -> Connector {
        Connector::Tcp(address)
    }

    fn run(scene: impl Future<Output = ()>) {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(scene);
    }

    #[test]
    fn every_backend_is_asked_again_and_again() {
        run(async {
            let good =
                answering(b"404 Not Found\r\nX-AspNet-Version: 4.0\r\nContent-Length: 0\r\n\r\n");
            let bad = answering(b"SSH-2.0\r\n\r\n");
            let (mut probes, mut results) = Probes::new(&CONFIG);
            probes.follow(
                &CONFIG,
                [(backend_id(1), good), (backend_id(2), bad)],
                plainly,
            );
            let mut seen = [0; 2];
            while seen.iter().any(|seen| *seen < 2) {
                let result = results.recv().await.unwrap();
                let (address, outcome) = match result.backend_id.id() {
                    1 => (&good, Ok(())),
                    _ => (&bad, Err(Failure::Garbage)),
                };
                assert_eq!((&result.address, result.outcome), (address, outcome));
                seen[usize::from(result.backend_id.id() - 1)] += 1;
            }
        });
    }

    #[test]
    fn a_backend_that_left_or_moved_is_not_asked_there_any_more() {
        run(async {
            let answer = b"404 Not Found\r\nX-AspNet-Version: 4.0\r\nContent-Length: 0\r\n\r\n";
            let (stays, leaves, moves, moved) = (
                answering(answer),
                answering(answer),
                answering(answer),
                answering(answer),
            );
            let (mut probes, mut results) = Probes::new(&CONFIG);
            let first = [
                (backend_id(1), stays),
                (backend_id(2), leaves),
                (backend_id(3), moves),
            ];
            probes.follow(&CONFIG, first, plainly);
            let mut asked = [false; 3];
            while asked.contains(&false) {
                let result = results.recv().await.unwrap();
                asked[usize::from(result.backend_id.id() - 1)] = true;
            }
            let second = [(backend_id(1), stays), (backend_id(3), moved)];
            probes.follow(&CONFIG, second, plainly);
            // Results under way from before may still arrive.
            while !results.is_empty() {
                results.recv().await;
            }
            assert_eq!(probes.running.len(), 2);
            for _ in 0..20 {
                let result = results.recv().await.unwrap();
                assert!([&stays, &moved].contains(&&result.address), "{result:?}");
            }
        });
    }

    /// In virtual time, which goes on when nothing else does.
    fn run_virtually(scene: impl Future<Output = ()>) {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true);
        let runtime = runtime.build_local(LocalOptions::default());
        runtime.unwrap().block_on(scene);
    }

    #[test]
    fn a_pause_is_shorter_as_soon_as_the_backend_is_suspect() {
        const INTERVAL: Duration = Duration::from_secs(10);
        run_virtually(async {
            let (tell, mut suspected) = watch::channel(false);
            for (was_suspect, told_after_s, is_suspect, takes_s) in [
                (false, 9, true, 8),
                (true, 9, false, 2),
                (false, 1, true, 2),
                // The shorter time is over already.
                (false, 5, true, 5),
                (true, 1, false, 8),
            ] {
                tell.send_replace(was_suspect);
                let begun = Instant::now();
                let tells = async {
                    tokio::time::sleep(Duration::from_secs(told_after_s)).await;
                    tell.send_replace(is_suspect);
                    pending::<()>().await;
                };
                tokio::select! {
                    () = pause(INTERVAL, &mut suspected, 0) => {}
                    () = tells => {}
                }
                assert_eq!(begun.elapsed().as_secs(), takes_s);
            }
        });
    }

    #[test]
    fn a_suspect_backend_is_asked_more_often_whatever_the_interval_becomes() {
        run_virtually(async {
            // What a probe finds does not matter here, only how often there is one.
            let every = |interval_s| HealthConfig {
                interval: Duration::from_secs(interval_s),
                timeout: Duration::from_millis(1),
                ..CONFIG
            };
            let nobody = || SocketAddr::from(([127, 0, 0, 1], 1));
            let (mut probes, mut results) = Probes::new(&every(10));
            probes.follow(
                &every(10),
                [1, 2].map(|id| (backend_id(id), nobody())),
                plainly,
            );
            probes.suspect(backend_id(2), true);
            for interval_s in [10, 20] {
                let config = every(interval_s);
                probes.follow(
                    &config,
                    [1, 2].map(|id| (backend_id(id), nobody())),
                    plainly,
                );
                let mut asked = [0; 2];
                while asked[1] < 9 {
                    let result = results.recv().await.unwrap();
                    asked[usize::from(result.backend_id.id() - 1)] += 1;
                }
                assert!(asked[0] < 5, "{asked:?}");
            }
        });
    }

    #[test]
    fn other_times_hold_for_tasks_that_run() {
        run(async {
            let address =
                answering(b"404 Not Found\r\nX-AspNet-Version: 4.0\r\nContent-Length: 0\r\n\r\n");
            let slow = HealthConfig {
                interval: Duration::from_secs(3600),
                ..CONFIG
            };
            let (mut probes, mut results) = Probes::new(&slow);
            probes.follow(&slow, [(backend_id(1), address)], plainly);
            assert!(results.recv().await.is_some());
            probes.follow(&CONFIG, [(backend_id(1), address)], plainly);
            for _ in 0..3 {
                assert!(results.recv().await.is_some());
            }
        });
    }
}
