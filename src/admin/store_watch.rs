//! What is wrong with a state server: looked at every second by a thread of its own, whether anybody
//! asks or not, and said in its log when it begins and ends.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::control::report::finding::{Code, Finding, Findings, Level};
use crate::disk::{DiskState, DiskStats, DiskStore};
use crate::store::StoreStats;
use crate::tls::{CertificateState, TlsWatch};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What happens now and then is told of for so long after the last time.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A write or sync that takes so long is slow.
const SLOW_MS: u64 = 1_000;

/// One that has not ended after so long hangs.
const HANGS_MS: u64 = 5_000;

/// A volume that has less room than this fills up, ...
const LITTLE_ROOM_BYTES: u64 = 512 << 20;

/// ... and so does one that has less than this part of what the files take.
const LITTLE_ROOM_PART: u64 = 4;

/// From here on memory counts as full: a new session may be larger than the rest.
const FULL_PERCENT: f64 = 98.0;

/// From here on it is said that memory fills up.
const FILLS_UP_PERCENT: f64 = 80.0;

/// Asks a store for its counters.
pub type ReadStats = Arc<dyn Fn() -> StoreStats + Send + Sync>;

/// Where a state server keeps its sessions beyond the process.
#[derive(Clone)]
pub struct KeptOnDisk {
    /// The store.
    pub store: Arc<DiskStore>,
    /// Its folder, as messages name it.
    pub folder: String,
}

/// What there is to look at.
#[derive(Clone)]
pub struct StoreFacts {
    /// What the store counts.
    pub stats: ReadStats,
    /// Its disk; `None` if sessions are in memory only.
    pub disk: Option<KeptOnDisk>,
    /// Its limit on their memory.
    pub max_memory_bytes: Option<u64>,
    /// The certificate that clients are shown.
    pub certificates: Arc<TlsWatch>,
}

/// How a state server is at one moment.
#[derive(Clone)]
pub struct StoreLook {
    pub(super) stats: StoreStats,
    pub(super) disk: Option<DiskStats>,
    pub(super) certificates: Vec<CertificateState>,
    /// What is wrong, the worst first.
    pub(super) findings: Vec<Finding>,
}

/// Looks, for whoever asks.
#[derive(Clone)]
pub struct StoreEye {
    facts: StoreFacts,
    seen: Arc<Mutex<Seen>>,
}

/// The thread.
pub struct StoreWatch {
    eye: StoreEye,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl StoreWatch {
    /// Looks from now on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(facts: StoreFacts) -> io::Result<Self> {
        let eye = StoreEye {
            facts,
            seen: Arc::default(),
        };
        let (stop, stopped) = mpsc::channel();
        let looking = eye.clone();
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                looking.look();
            }
        };
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(look)?;
        Ok(Self { eye, stop, thread })
    }

    /// For those who ask.
    pub fn eye(&self) -> StoreEye {
        self.eye.clone()
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // If it panicked it has said so on stderr already.
        let _ = self.thread.join();
    }
}

impl StoreEye {
    /// How it is now.
    pub fn look(&self) -> StoreLook {
        let StoreFacts {
            stats,
            disk,
            max_memory_bytes,
            certificates,
        } = &self.facts;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now_ms.map_or(0, |since| since.as_millis() as u64);
        let mut look = StoreLook {
            stats: stats(),
            disk: disk.as_ref().map(|disk| disk.store.disk_stats()),
            certificates: certificates.states(),
            findings: Vec::new(),
        };
        let slowest_ms = disk.as_ref().map(|disk| disk.store.take_slowest_ms());
        let folder = disk.as_ref().map_or("", |disk| &disk.folder);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.add(look.stats.refused_new, slowest_ms, Instant::now());
        let certificates = look.certificates.iter();
        let mut found: Vec<_> = certificates
            .flat_map(|state| Finding::of_certificate(state, now_ms))
            .collect();
        found.extend(seen.memory(&look.stats, *max_memory_bytes));
        found.extend(look.disk.and_then(|disk| seen.disk(&disk, folder)));
        found.extend(look.disk.and_then(|disk| fills_up(&disk, folder)));
        look.findings = seen.findings.found(found, now_ms);
        seen.log(&look.findings);
        look
    }

    /// The limit on the memory of sessions.
    pub(super) fn max_memory_bytes(&self) -> Option<u64> {
        self.facts.max_memory_bytes
    }

    /// What users see errors of, in a few words.
    pub fn trouble(&self) -> Option<String> {
        self.look().trouble().map(str::to_owned)
    }
}

impl StoreLook {
    /// What users see errors of.
    pub(super) fn trouble(&self) -> Option<&str> {
        let worst = self.findings.first()?;
        (worst.level == Level::Critical).then_some(&worst.says)
    }

    /// Why nothing can be stored, if that is so.
    pub(super) fn refusal(&self) -> Option<&str> {
        let mut findings = self.findings.iter();
        let refuses = |code| matches!(code, Code::DiskFailed | Code::DiskRefuses | Code::DiskHangs);
        let found = findings.find(|finding| refuses(finding.code));
        found.map(|finding| finding.says.as_str())
    }
}

/// What has been seen lately.
#[derive(Default)]
struct Seen {
    /// How many new sessions had been refused, and when, the oldest first.
    refused: VecDeque<(Instant, u64)>,
    /// Slow writes and syncs, the oldest first.
    slow: VecDeque<(Instant, u64)>,
    findings: Findings,
    /// What the log has told of.
    logged: Vec<(Code, String)>,
}

impl Seen {
    /// However often somebody asks, what is kept is one entry a second.
    fn add(&mut self, refused: u64, slowest_ms: Option<u64>, now: Instant) {
        let is_recent = |at: Instant| now.duration_since(at) < LOOK_EVERY;
        match self.refused.back() {
            // Whatever was refused before the first look was so lately.
            None => self.refused.push_back((now, 0)),
            Some((at, _)) if is_recent(*at) => {}
            Some(_) => self.refused.push_back((now, refused)),
        }
        if let Some(slowest_ms) = slowest_ms.filter(|slowest| *slowest >= SLOW_MS) {
            match self.slow.back_mut() {
                Some((at, known_ms)) if is_recent(*at) => *known_ms = slowest_ms.max(*known_ms),
                _ => self.slow.push_back((now, slowest_ms)),
            }
        }
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) > REMEMBERED;
        while self.refused.len() > 1 && self.refused.front().is_some_and(is_old) {
            self.refused.pop_front();
        }
        while self.slow.front().is_some_and(is_old) {
            self.slow.pop_front();
        }
    }

    fn memory(&self, stats: &StoreStats, max_bytes: Option<u64>) -> Option<Finding> {
        let max_bytes = max_bytes?;
        let before = self.refused.front().map_or(0, |(_, count)| *count);
        let refused = stats.refused_new.saturating_sub(before);
        let used_percent = stats.bytes as f64 * 100.0 / max_bytes as f64;
        if refused > 0 || used_percent >= FULL_PERCENT {
            Some(Finding::memory_full(stats.bytes, max_bytes, refused))
        } else if used_percent >= FILLS_UP_PERCENT {
            Some(Finding::memory_fills_up(stats.bytes, max_bytes))
        } else {
            None
        }
    }

    fn disk(&self, disk: &DiskStats, folder: &str) -> Option<Finding> {
        match disk.state {
            DiskState::Failed => return Some(Finding::disk_failed(folder)),
            DiskState::Paused => return Some(Finding::disk_refuses(folder, disk.free_bytes)),
            DiskState::Writable => {}
        }
        if disk.busy_ms >= HANGS_MS {
            return Some(Finding::disk_hangs(folder, disk.busy_ms));
        }
        let slowest_ms = self.slow.iter().map(|(_, took_ms)| *took_ms).max()?;
        Some(Finding::disk_slow(folder, slowest_ms))
    }

    fn log(&mut self, findings: &[Finding]) {
        let is_logged = |code| self.logged.iter().any(|(logged, _)| *logged == code);
        for Finding { says, action, .. } in findings.iter().filter(|new| !is_logged(new.code)) {
            tracing::warn!("{says}. {action}");
        }
        let has_ended = |code| findings.iter().all(|finding| finding.code != code);
        for (_, says) in self.logged.iter().filter(|(code, _)| has_ended(*code)) {
            tracing::info!("over: {says}");
        }
        let logged = findings.iter();
        self.logged = logged
            .map(|finding| (finding.code, finding.says.clone()))
            .collect();
    }
}

fn fills_up(disk: &DiskStats, folder: &str) -> Option<Finding> {
    let free_bytes = disk.free_bytes?;
    let enough_bytes = LITTLE_ROOM_BYTES.max(disk.file_bytes / LITTLE_ROOM_PART);
    let is_writable = disk.state == DiskState::Writable;
    (is_writable && free_bytes < enough_bytes).then(|| Finding::disk_fills_up(folder, free_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskStats = DiskStats {
        state: DiskState::Writable,
        file_bytes: 0,
        live_bytes: 0,
        free_bytes: Some(u64::MAX),
        syncs: 0,
        sync_ns: 0,
        busy_ms: 0,
    };

    fn code(finding: Option<Finding>) -> Option<Code> {
        finding.map(|finding| finding.code)
    }

    #[test]
    fn memory_counts_as_full_while_new_sessions_are_refused_and_a_minute_longer() {
        let began = Instant::now();
        let mut seen = Seen::default();
        let mut look = |after_s, refused_new, bytes| {
            let now = began + Duration::from_secs(after_s);
            seen.add(refused_new, None, now);
            let stats = StoreStats {
                refused_new,
                bytes,
                ..StoreStats::default()
            };
            code(seen.memory(&stats, Some(1000)))
        };
        assert_eq!(look(0, 0, 799), None);
        assert_eq!(look(1, 0, 800), Some(Code::MemoryFillsUp));
        assert_eq!(look(2, 0, 980), Some(Code::MemoryFull));
        // A large one did not fit, although there is room for others.
        assert_eq!(look(3, 1, 500), Some(Code::MemoryFull));
        assert_eq!(look(62, 1, 500), Some(Code::MemoryFull));
        assert_eq!(look(64, 1, 500), None);
        let stats = StoreStats {
            bytes: u64::MAX,
            ..StoreStats::default()
        };
        assert_eq!(code(Seen::default().memory(&stats, None)), None);
    }

    #[test]
    fn a_flood_of_questions_fills_no_memory_and_hides_nothing() {
        let began = Instant::now();
        let mut seen = Seen::default();
        for question in 0..120_000 {
            // A thousand a second; each of them meets a disk that hangs.
            seen.add(
                question,
                Some(SLOW_MS + question),
                began + Duration::from_millis(question),
            );
        }
        assert!(seen.refused.len() <= 62 && seen.slow.len() <= 62);
        let stats = StoreStats {
            refused_new: 119_999,
            ..StoreStats::default()
        };
        let says = |finding: Option<Finding>| finding.unwrap().says;
        let refused = says(seen.memory(&stats, Some(1 << 30)));
        assert!(refused.contains("59999 new sessions"), "{refused}");
        let slow = seen.disk(&DISK, "/data");
        assert_eq!(slow, Some(Finding::disk_slow("/data", SLOW_MS + 119_999)));
    }

    #[test]
    fn what_was_refused_before_the_first_look_is_told_of() {
        let mut seen = Seen::default();
        seen.add(3, None, Instant::now());
        let stats = StoreStats {
            refused_new: 3,
            ..StoreStats::default()
        };
        let found = seen.memory(&stats, Some(1 << 30)).unwrap();
        assert_eq!(found.code, Code::MemoryFull);
        assert!(found.says.contains("3 new sessions"), "{found:?}");
    }

    #[test]
    fn a_disk_is_told_of_by_the_worst_of_it() {
        let began = Instant::now();
        let mut seen = Seen::default();
        seen.add(0, Some(SLOW_MS - 1), began);
        assert_eq!(code(seen.disk(&DISK, "/data")), None);
        seen.add(0, Some(SLOW_MS), began);
        assert_eq!(code(seen.disk(&DISK, "/data")), Some(Code::DiskSlow));
        seen.add(0, Some(0), began + REMEMBERED + Duration::from_secs(1));
        assert_eq!(code(seen.disk(&DISK, "/data")), None);
        for (state, busy_ms, wanted) in [
            (DiskState::Writable, HANGS_MS - 1, None),
            (DiskState::Writable, HANGS_MS, Some(Code::DiskHangs)),
            (DiskState::Paused, HANGS_MS, Some(Code::DiskRefuses)),
            (DiskState::Failed, 0, Some(Code::DiskFailed)),
        ] {
            let disk = DiskStats {
                state,
                busy_ms,
                ..DISK
            };
            assert_eq!(code(seen.disk(&disk, "/data")), wanted, "{disk:?}");
        }
    }

    #[test]
    fn a_volume_fills_up_by_what_is_free_and_by_what_the_files_take() {
        for (free_bytes, file_bytes, wanted) in [
            (None, 1 << 40, None),
            (Some(512 << 20), 0, None),
            (Some((512 << 20) - 1), 0, Some(Code::DiskFillsUp)),
            (Some(2 << 30), 8 << 30, None),
            (Some((2 << 30) - 1), 8 << 30, Some(Code::DiskFillsUp)),
        ] {
            let disk = DiskStats {
                free_bytes,
                file_bytes,
                ..DISK
            };
            assert_eq!(code(fills_up(&disk, "/data")), wanted, "{disk:?}");
        }
    }
}
