//! The server under test as the checks use it: one request at a time, session ids of its own, and the
//! lock cookies that the server gives them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{NoAnswer, TargetAnswer, TargetLine};
use super::message::target_in;
use super::own::{ID_BYTES, OwnIds};
use crate::backend::{PROBE_TARGET, PROXY_ANSWER};
use crate::os;
use crate::tls::TargetTls;
use crate::wire::{self, Operation, Request};

/// What to ask, and how carefully.
#[derive(Debug, Clone)]
pub struct ConformanceOptions {
    /// The state server, or a proxy.
    pub target: SocketAddr,
    /// How it is reached with TLS; `None` is without.
    pub tls: Option<TargetTls>,
    /// Most requests per second.
    pub rate_per_s: u32,
    /// How long an answer is waited for.
    pub answer_timeout: Duration,
    /// Ask as well what takes minutes, and what no web server sends.
    pub thorough: bool,
    /// Only the checks with these names, thorough ones included; all if there are none.
    pub only: Vec<String>,
    /// Ends the run early.
    pub stop: SuiteStop,
}

/// Ends a run from outside: what it has stored is removed before it ends.
#[derive(Debug, Clone, Default)]
pub struct SuiteStop(Arc<AtomicBool>);

impl SuiteStop {
    /// Asks nothing more.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a stop goes unnoticed.
const REST_PART: Duration = Duration::from_millis(100);

/// Application and hash of the checks' own sessions.
const OWN_PREFIX: &[u8] =
    b"%2fstaterouter%2fconformance(c3RhdGVyb3V0ZXIgY29uZm9ybWFuY2UgY2hlY2tzISE%3d)%2f";

/// The first lock of a new item (protocol 0, 8).
pub(super) const FIRST_LOCK: u32 = 2;

/// Bits of a lock cookie that a staterouter proxy leaves to the server's counter (protocol 8).
pub(super) const COUNTER_BITS: u32 = 24;

/// The server under test.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    pub(super) options: &'a ConformanceOptions,
    /// Sent so far.
    pub(super) requests: u64,
    /// For requests of the checks' own.
    line: Option<TargetLine>,
    next_at: Instant,
    /// Whether it is a staterouter proxy, which adds the number of a backend to lock cookies.
    pub(super) is_proxy: bool,
    /// What may hold an item.
    used: Vec<Vec<u8>>,
    left_behind: usize,
    /// Removes what it has stored, whoever wants it to stop.
    is_cleaning: bool,
    /// How often in a row it took no connection.
    refusals: u32,
}

/// What one own request asks besides its operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) operation: Operation,
    pub(super) lock: u32,
    pub(super) extra_flags: u32,
    pub(super) timeout_minutes: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub(super) fn of(operation: Operation) -> Self {
        Self {
            operation,
            lock: 0,
            extra_flags: 0,
            timeout_minutes: 20,
            body: b"",
        }
    }

    /// Under this lock.
    pub(super) fn under(operation: Operation, lock: u32) -> Self {
        Self {
            lock,
            ..Self::of(operation)
        }
    }

    /// Stores `body` without a lock. Sessions of the checks' own live as short as possible.
    pub(super) fn put(body: &'a [u8]) -> Self {
        Self {
            body,
            timeout_minutes: 1,
            ..Self::of(Operation::Put)
        }
    }
}

impl<'a> Talk<'a> {
    pub(super) fn new(options: &'a ConformanceOptions) -> Self {
        Self {
            options,
            requests: 0,
            line: None,
            next_at: Instant::now(),
            is_proxy: false,
            used: Vec::new(),
            left_behind: 0,
            is_cleaning: false,
            refusals: 0,
        }
    }

    /// How many items could not be removed.
    pub(super) fn left_behind(&self) -> usize {
        self.left_behind
    }

    /// Whether it has not taken a connection three times in a row.
    pub(super) fn is_gone(&self) -> bool {
        self.refusals >= 3
    }

    /// # Errors
    /// [`NoAnswer::Connect`].
    pub(super) fn open(&mut self) -> Result<TargetLine, NoAnswer> {
        let line = TargetLine::open(
            self.options.target,
            self.options.tls.as_ref(),
            self.options.answer_timeout,
        );
        self.refusals = if line.is_ok() { 0 } else { self.refusals + 1 };
        line
    }

    /// Sends a request over `line` and reads its answer.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn ask_over(
        &mut self,
        line: &mut TargetLine,
        request: &[u8],
    ) -> Result<TargetAnswer, NoAnswer> {
        self.pace()?;
        let target = target_in(request);
        if request.starts_with(b"PUT ") && !self.used.iter().any(|used| used == target) {
            self.used.push(target.to_vec());
        }
        line.ask(request, request.starts_with(b"HEAD "))
    }

    /// One request of its own for `target`.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn ask(&mut self, target: &[u8], ask: Ask<'_>) -> Result<TargetAnswer, NoAnswer> {
        let mut request = Vec::with_capacity(ask.body.len() + 256);
        wire::encode_request(
            &mut request,
            &Request {
                operation: ask.operation,
                target,
                lock_cookie: ask.lock,
                timeout_minutes: ask.timeout_minutes,
                extra_flags: ask.extra_flags,
                body: ask.body,
            },
        );
        self.ask_raw(&request)
    }

    /// A request as it is to be sent.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn ask_raw(&mut self, request: &[u8]) -> Result<TargetAnswer, NoAnswer> {
        let kept = self.line.take();
        let was_kept = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            None => self.open()?,
        };
        let mut asked = self.ask_over(&mut line, request);
        // A connection may have been closed after the answer before.
        if was_kept && matches!(asked, Err(NoAnswer::Closed)) {
            line = self.open()?;
            asked = self.ask_over(&mut line, request);
        }
        if asked.is_ok() {
            self.line = Some(line);
        }
        asked
    }

    /// The target of a session of its own that nobody else can have.
    ///
    /// # Errors
    /// [`NoAnswer::Connect`], when the system gives no random bytes.
    pub(super) fn own_target(&self) -> Result<Vec<u8>, NoAnswer> {
        Ok([OWN_PREFIX, &random_id()?].concat())
    }

    /// Two session ids in place of those in the fixtures.
    ///
    /// # Errors
    /// [`NoAnswer::Connect`], when the system gives no random bytes.
    pub(super) fn own_ids(&self) -> Result<OwnIds, NoAnswer> {
        Ok(OwnIds::new([random_id()?, random_id()?]))
    }

    /// Finds out whether it is a staterouter proxy.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) fn learn(&mut self) -> Result<(), NoAnswer> {
        let answer = self.ask(PROBE_TARGET, Ask::of(Operation::Touch))?;
        self.is_proxy = answer.bytes == PROXY_ANSWER;
        Ok(())
    }

    /// Removes whatever the last check has stored.
    pub(super) fn clean(&mut self) {
        self.is_cleaning = true;
        for target in std::mem::take(&mut self.used) {
            if !matches!(self.remove(&target), Ok(true)) {
                self.left_behind += 1;
            }
        }
        self.is_cleaning = false;
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`NoAnswer::Stopped`].
    pub(super) fn rest(&self, time: Duration) -> Result<(), NoAnswer> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.options.stop.is_stopped() && !self.is_cleaning {
                return Err(NoAnswer::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(REST_PART));
        }
    }

    /// Takes or breaks the lock and removes the item; returns whether it is gone.
    fn remove(&mut self, target: &[u8]) -> Result<bool, NoAnswer> {
        let locked = self.ask(target, Ask::of(Operation::Acquire))?;
        if locked.head.status == 404 {
            return Ok(true);
        }
        let lock = locked.lock().unwrap_or(0);
        self.ask(target, Ask::under(Operation::Remove, lock))?;
        let left = self.ask(target, Ask::of(Operation::Touch))?;
        Ok(left.head.status == 404)
    }

    /// Holds the rate.
    fn pace(&mut self) -> Result<(), NoAnswer> {
        let now = Instant::now();
        self.rest(self.next_at.saturating_duration_since(now))?;
        self.requests += 1;
        self.next_at =
            self.next_at.max(now) + Duration::from_secs(1) / self.options.rate_per_s.max(1);
        Ok(())
    }
}

/// 24 characters of `a-z0-5`, 120 random bits.
fn random_id() -> Result<[u8; ID_BYTES], NoAnswer> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let mut id = [0; ID_BYTES];
    os::random(&mut id).map_err(|error| NoAnswer::Connect(error.to_string()))?;
    Ok(id.map(|byte| ALPHABET[usize::from(byte >> 3)]))
}
