//! Runs the farm: threads, pace, beginning and end.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::connection::{FarmConnections, IDLE_TICK};
use super::options::{FarmOptions, OptionsError, RunEnd};
use super::page::{Ended, WebRequest};
use super::random::{Random, unpredictable_seed};
use super::report::{FarmCounts, FarmReport, FarmStats, FinalSweep, RunFacts, Tally};
use super::session::Population;
use super::stop::Stop;
use super::web_server::{Farm, WebServer};
use super::web_threads::WebThreads;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    /// The options make no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// None of the targets takes connections.
    #[error("the farm cannot connect to {target}: {source}")]
    Unreachable {
        /// The last target tried.
        target: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gave the farm no thread or no event queue.
    #[error("the farm cannot start its threads: {0}")]
    Threads(std::io::Error),
    /// A thread of the farm panicked, so its counts are lost.
    #[error("a thread of the farm panicked")]
    Panicked,
}

/// Longest wait for the first connection to a target.
const MAX_PROBE: Duration = Duration::from_secs(2);
/// Longest final sweep.
const MAX_SWEEP: Duration = Duration::from_secs(30);
/// Sessions read at the same time in the final sweep.
const SWEEP_WIDTH: usize = 64;
/// Open loop: a page that waited for its moment and was woken this late is not behind; timers tick
/// in milliseconds.
const TIMER_SLACK_NS: u64 = 2_000_000;

/// Runs the farm to its end and returns what it found. Blocks; the threads are its own. `stats`
/// can be read meanwhile, and `stop` ends the run before its time.
///
/// # Errors
/// [`FarmError`], before the first page or when a thread panicked.
pub fn run(
    options: FarmOptions,
    stop: &Stop,
    stats: &Arc<FarmStats>,
) -> Result<FarmReport, FarmError> {
    options.check()?;
    probe(&options)?;
    let seed = options.seed.unwrap_or_else(unpredictable_seed);
    let farm = Arc::new(Farm {
        population: Population::new(seed, options.sessions, options.rules()),
        options,
        seed,
        started: Instant::now(),
        stop: stop.clone(),
        stats: Arc::clone(stats),
        tickets: AtomicU64::new(0),
    });
    let mut tally = serve_all(&farm)?;
    let facts = RunFacts {
        seed,
        elapsed_ns: farm.started.elapsed().as_nanos() as u64,
        counts: stats.counts(),
        is_open_loop: farm.options.pages_per_s.is_some(),
        is_swept: farm.options.final_sweep,
    };
    if farm.options.final_sweep {
        tally.merge(in_runtime(&farm, sweep)?);
    }
    Ok(tally.report(&facts))
}

fn probe(options: &FarmOptions) -> Result<(), FarmError> {
    let mut outcome = Ok(());
    for &target in &options.targets {
        match TcpStream::connect_timeout(&target, MAX_PROBE.min(options.network_timeout)) {
            Ok(_) => return Ok(()),
            Err(source) => outcome = Err(FarmError::Unreachable { target, source }),
        }
    }
    outcome
}

fn serve_all(farm: &Arc<Farm>) -> Result<Tally, FarmError> {
    let mut threads = Vec::new();
    let mut outcome = Ok(Tally::new());
    for number in 0..farm.options.threads {
        let its_farm = Arc::clone(farm);
        let builder = std::thread::Builder::new().name(format!("farm-{number}"));
        let body = move || in_runtime(&its_farm, async move |server| serve(server, number).await);
        match builder.spawn(body) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                farm.stop.stop();
                outcome = Err(FarmError::Threads(error));
                break;
            }
        }
    }
    for thread in threads {
        let theirs = thread.join().unwrap_or(Err(FarmError::Panicked));
        outcome = match (outcome, theirs) {
            (Ok(mut tally), Ok(theirs)) => {
                tally.merge(theirs);
                Ok(tally)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
    }
    outcome
}

/// Runs `work` as one simulated web server on this thread and returns its counts.
fn in_runtime(farm: &Arc<Farm>, work: impl AsyncFnOnce(Rc<WebServer>)) -> Result<Tally, FarmError> {
    let options = &farm.options;
    let pools = options.targets.iter();
    let server = Rc::new(WebServer {
        farm: Arc::clone(farm),
        pools: pools
            .map(|&target| FarmConnections::new(target, options.network_timeout))
            .collect(),
        web_threads: options.web_threads.map(WebThreads::new),
        tally: RefCell::new(Tally::new()),
    });
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(FarmError::Threads)?;
    LocalSet::new().block_on(&runtime, work(Rc::clone(&server)));
    Ok(server.tally.replace(Tally::new()))
}

async fn serve(server: Rc<WebServer>, thread: usize) {
    let FarmOptions {
        clients, threads, ..
    } = server.farm.options;
    let share = clients / threads + usize::from(thread < clients % threads);
    let requests = (0..share).map(|index| {
        let stream = (index * threads + thread) as u64;
        let random = Random::new(server.farm.seed, stream);
        spawn_local(page_after_page(Rc::clone(&server), random))
    });
    let requests: Vec<_> = requests.collect();
    let closer = spawn_local(close_idle(Rc::clone(&server)));
    let timer = spawn_local(end_in_time(Rc::clone(&server)));
    let grower = spawn_local(grow(Rc::clone(&server)));
    join_all(requests).await;
    grower.abort();
    closer.abort();
    timer.abort();
}

async fn page_after_page(server: Rc<WebServer>, random: Random) {
    let mut request = WebRequest::new(Rc::clone(&server), random);
    while !server.is_stopped() {
        let ticket = server.farm.tickets.fetch_add(1, Ordering::Relaxed);
        if server.farm.options.end.is_over(ticket) {
            return;
        }
        let Some(begin_ns) = server.await_turn(ticket).await else {
            return;
        };
        let ended = request.run_page(ticket).await;
        let took_ns = server.now_ns().saturating_sub(begin_ns);
        let has_failed = matches!(ended, Err(Ended::Failed));
        server.page_done(ended, took_ns, request.was_contended());
        if has_failed && server.farm.options.pages_per_s.is_none() {
            // Nobody reloads an error page at once; a dead target would only be hammered.
            server.pause(server.farm.options.poll_interval).await;
        }
    }
}

impl RunEnd {
    fn is_over(self, ticket: u64) -> bool {
        matches!(self, Self::Pages(pages) if ticket >= pages)
    }
}

impl WebServer {
    /// Waits until the page with this number is due; returns the moment from which its latency
    /// counts, or `None` if the run ended meanwhile.
    async fn await_turn(&self, ticket: u64) -> Option<u64> {
        let now = self.now_ns();
        let Some(rate) = self.farm.options.pages_per_s else {
            return Some(now);
        };
        let ticket = ticket - ticket % self.farm.options.burst as u64;
        let due = (ticket as f64 / rate * 1e9) as u64;
        if due > now {
            self.pause(Duration::from_nanos(due - now)).await;
            if self.is_stopped() {
                return None;
            }
        }
        let begin = self.now_ns();
        let lag = begin.saturating_sub(due);
        if due > now && lag <= TIMER_SLACK_NS {
            return Some(begin);
        }
        let mut tally = self.tally();
        tally.worst_lag_ns = tally.worst_lag_ns.max(lag);
        Some(due)
    }

    fn page_done(&self, ended: Result<(), Ended>, took_ns: u64, was_contended: bool) {
        let now_ns = self.now_ns();
        let mut tally = self.tally();
        match ended {
            Ok(()) => tally.page(took_ns, was_contended),
            Err(Ended::Failed) => tally.page_failed(now_ns),
            Err(Ended::Unfinished) => tally.unfinished_page(took_ns),
        }
        self.farm.stats.add(FarmCounts {
            pages: 1,
            ..FarmCounts::default()
        });
    }
}

async fn end_in_time(server: Rc<WebServer>) {
    if let RunEnd::After(duration) = server.farm.options.end {
        let elapsed = server.farm.started.elapsed();
        tokio::time::sleep(duration.saturating_sub(elapsed)).await;
        server.farm.stop.stop();
    }
}

async fn close_idle(server: Rc<WebServer>) {
    loop {
        tokio::time::sleep(IDLE_TICK).await;
        server.pools.iter().for_each(FarmConnections::close_idle);
    }
}

async fn grow(server: Rc<WebServer>) {
    if let Some(threads) = &server.web_threads {
        threads.grow().await;
    }
}

async fn sweep(server: Rc<WebServer>) {
    let sessions: Rc<[_]> = server.farm.population.all().into();
    let next = Rc::new(AtomicUsize::new(0));
    let deadline = Instant::now() + MAX_SWEEP;
    let width = SWEEP_WIDTH.min(server.farm.options.clients);
    let readers = (0..width as u64).map(|reader| {
        let (server, sessions) = (Rc::clone(&server), Rc::clone(&sessions));
        let (next, random) = (Rc::clone(&next), Random::new(!server.farm.seed, reader));
        spawn_local(async move {
            let mut request = WebRequest::new(Rc::clone(&server), random);
            while let Some(session) = sessions.get(next.fetch_add(1, Ordering::Relaxed)) {
                let in_time = Instant::now() < deadline;
                let is_read = in_time && request.sweep(session).await;
                server.tally().sweep.add(is_read);
            }
        })
    });
    join_all(readers.collect()).await;
}

impl FinalSweep {
    fn add(&mut self, is_read: bool) {
        *(if is_read {
            &mut self.read
        } else {
            &mut self.unread
        }) += 1;
    }
}

async fn join_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        // A panicking task has shown its message; its thread's counts are kept.
        let _ = task.await;
    }
}
