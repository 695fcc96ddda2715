//! Web servers that have sent requests all the time and send none any more, while the others go on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::finding::Finding;
use crate::metrics::WebServers;

/// How often it is looked.
const STEP_MS: u64 = 10_000;

/// What lies further back than this counts little.
const MEMORY_MS: f64 = 300_000.0;

/// Nobody is silent before this.
const MIN_SILENT_MS: u64 = 60_000;

/// Nor before it has left out so many requests, at its pace.
const MIN_MISSED: f64 = 30.0;

/// Nor if it was not active for this part of the time.
const MIN_ACTIVE: f64 = 0.5;

/// Nor if the others do not do this part of what they did: then it is the night.
const MIN_OTHERS: f64 = 0.25;

/// One that is silent for so long is forgotten.
const FORGET_MS: u64 = 60 * 60 * 1000;

/// How active each web server is.
#[derive(Debug, Default)]
pub(crate) struct SilentServers {
    due_ms: u64,
    known: BTreeMap<IpAddr, Activity>,
}

#[derive(Debug, Clone, Copy)]
struct Activity {
    requests: u64,
    /// When there were requests last, or when it was met first.
    last_ms: u64,
    /// Requests per ms until then, and the part of the steps that had any.
    pace: f64,
    active: f64,
    /// Which part of [`MEMORY_MS`] these are of.
    known: f64,
    /// Requests per ms of the last minute or so.
    pace_now: f64,
}

impl SilentServers {
    /// Takes note of what each web server has sent until now; forgets those that are long silent.
    pub(crate) fn follow(&mut self, web_servers: &WebServers, now_ms: u64) {
        if now_ms < self.due_ms {
            return;
        }
        self.due_ms = now_ms + STEP_MS;
        for web_server in web_servers.told_apart() {
            let (Some(address), requests) = (web_server.address, web_server.requests()) else {
                continue;
            };
            let known = self.known.entry(address).or_insert(Activity {
                requests: 0,
                last_ms: now_ms,
                pace: 0.0,
                active: 0.0,
                known: 0.0,
                pace_now: 0.0,
            });
            known.step(requests, now_ms);
            if known.last_ms + FORGET_MS <= now_ms {
                web_servers.forget(address);
                self.known.remove(&address);
            }
        }
    }

    /// Those that are silent at `now_ms`.
    pub(crate) fn findings(&self, now_ms: u64) -> impl Iterator<Item = Finding> {
        let all: f64 = self.known.values().map(|known| known.pace).sum();
        let all_now: f64 = self.known.values().map(|known| known.pace_now).sum();
        self.known.iter().filter_map(move |(address, known)| {
            let (others, others_now) = (all - known.pace, all_now - known.pace_now);
            let go_on = others > 0.0 && others_now >= MIN_OTHERS * others;
            let silent_ms = now_ms.saturating_sub(known.last_ms);
            (go_on && known.is_silent(silent_ms)).then(|| {
                let per_minute = known.pace / known.known * 60_000.0;
                let silent = Duration::from_millis(silent_ms);
                Finding::web_server_silent(*address, silent, per_minute).since(known.last_ms)
            })
        })
    }
}

impl Activity {
    fn step(&mut self, requests: u64, now_ms: u64) {
        let came = requests.saturating_sub(self.requests) as f64;
        self.requests = requests;
        let step_ms = STEP_MS as f64;
        let weight = 1.0 - (-step_ms / MIN_SILENT_MS as f64).exp();
        self.pace_now += weight * (came / step_ms - self.pace_now);
        if came > 0.0 {
            // The steps without any since the last one belong to its pace.
            let passed_ms = (now_ms.saturating_sub(self.last_ms) as f64).max(step_ms);
            let weight = 1.0 - (-passed_ms / MEMORY_MS).exp();
            self.pace += weight * (came / passed_ms - self.pace);
            self.active += weight * (step_ms / passed_ms - self.active);
            self.known += weight * (1.0 - self.known);
            self.last_ms = now_ms;
        }
    }

    fn is_silent(&self, silent_ms: u64) -> bool {
        let missed = self.pace * silent_ms as f64;
        silent_ms >= MIN_SILENT_MS && missed >= MIN_MISSED && self.active >= MIN_ACTIVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_800_000_000_000;
    const STEPS_PER_MINUTE: u64 = 60_000 / STEP_MS;

    /// A farm and its time.
    struct Scene {
        web_servers: WebServers,
        silent: SilentServers,
        now_ms: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                web_servers: WebServers::default(),
                silent: SilentServers::default(),
                now_ms: START_MS,
            }
        }

        /// So many minutes in which each web server sends so many requests every ten seconds.
        fn pass(&mut self, minutes: u64, requests: &[u64]) -> Vec<String> {
            for _ in 0..minutes * STEPS_PER_MINUTE {
                for (number, requests) in (1..).zip(requests).filter(|(_, some)| **some > 0) {
                    let web_server = self.web_servers.at(IpAddr::from([10, 0, 0, number]));
                    web_server.shard(0).requests.add(*requests);
                }
                self.silent.follow(&self.web_servers, self.now_ms);
                self.now_ms += STEP_MS;
            }
            let found = self.silent.findings(self.now_ms);
            found.map(|finding| finding.about.unwrap()).collect()
        }
    }

    #[test]
    fn a_web_server_that_stops_while_the_others_go_on_is_found_within_two_minutes() {
        let mut scene = Scene::new();
        assert!(scene.pass(5, &[100, 100, 100]).is_empty());
        assert_eq!(scene.pass(2, &[150, 0, 150]), ["10.0.0.2"]);
        assert_eq!(scene.pass(2, &[300, 0, 0]), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(scene.pass(1, &[150, 100, 0]), ["10.0.0.3"]);
        let finding = scene.silent.findings(scene.now_ms).next().unwrap();
        for part in ["10.0.0.3", "for 3 min", "after 731 requests"] {
            assert!(finding.says.contains(part), "{part} in: {finding:?}");
        }
        assert!(finding.since_ms.unwrap() < scene.now_ms - 60_000);
        // An hour after its last request it is none of the farm any more.
        assert!(scene.pass(60, &[150, 100, 0]).is_empty());
        assert_eq!(scene.web_servers.told_apart().len(), 2);
    }

    #[test]
    fn the_night_a_rare_visitor_and_a_new_web_server_are_no_findings() {
        let mut scene = Scene::new();
        scene.pass(10, &[100, 100]);
        assert!(scene.pass(10, &[3, 0]).is_empty(), "the night");
        let mut scene = Scene::new();
        for _ in 0..10 {
            scene.pass(1, &[100, 100, 0]);
            scene.pass(3, &[100, 0, 0]);
            scene.pass(1, &[100, 0, 50]);
        }
        assert!(
            scene.pass(3, &[100, 0, 0]).is_empty(),
            "jobs that come and go"
        );
        let mut scene = Scene::new();
        scene.pass(10, &[100, 0]);
        scene.pass(1, &[100, 100]);
        assert!(scene.pass(5, &[100, 0]).is_empty(), "a new one");
        let mut scene = Scene::new();
        scene.pass(10, &[100]);
        assert!(scene.pass(10, &[0]).is_empty(), "there are no others");
    }
}
