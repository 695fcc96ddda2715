//! Sends requests over a fixed number of connections, one at a time on each, in turn a read that
//! locks and the write that unlocks, each pair for a session drawn at random; and measures. It is
//! always the same draw.
//!
//! Closed loop: a connection sends again as soon as it is answered. Open loop: requests fall due at
//! a fixed mean rate, at random distances, and wait for a free connection if there is none; their
//! latency counts from when they were due.

mod connection;
mod figures;

use std::collections::VecDeque;
use std::io::{BufRead, stdin};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::poll::{Poll, Ready};
use crate::stores::Scripts;
use crate::wire::Dialect;
use crate::{Error, say};
use connection::{Connection, Order, Sessions, Speech};
use figures::Figures;

/// Requests in progress at a time while connections are opened, so that no proxy opens more
/// connections to its backends than in normal use.
const OPENING: usize = 64;

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    sessions: Sessions,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    /// Connections whose request was answered since the last look, and when it was due.
    answered: Vec<(usize, Instant)>,
}

/// What to run:
/// * `--ports P,P,...` where to, in turn; `--connections N`; `--sessions N`; `--body BYTES`
/// * `--dialect aspnet|http|redis|memcached`; `--scripts SHA,SHA` those of Redis
/// * `--ids FILE`: in place of a number of sessions, their ids, one a line
/// * `--order fill`: writes every session once and says `filled`; `in-turn`: uses one session after
///   the other in place of any at random
/// * `--warm S --time S`: unmeasured and measured seconds; `--rate N` for an open loop
/// * `--requests N`: in place of a time; says `ready`, then waits for a line on stdin before and
///   after
/// * `--hold 1`: one request on each connection, says `ready` and keeps them until stdin ends
/// * `--cpu-of PID,PID,...`: whose CPU time to measure
///
/// In the end it says one line of JSON.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    // Timers are late by 50 us otherwise, which is most of a latency here.
    std::fs::write("/proc/self/timerslack_ns", "1").map_err(|e| Error::Io("timer slack", e))?;
    let order = order(args)?;
    let mut load = Load {
        poll: Poll::new()?,
        connections: Vec::new(),
        sessions: sessions(args, order)?,
        buffer: vec![0; 256 * 1024],
        ready: Vec::new(),
        answered: Vec::new(),
    };
    let connections: usize = args.get("connections", 64)?;
    load.open(&args.list("ports")?, connections)?;
    if order == Order::Fill {
        let more = load.sessions.count().saturating_sub(connections) as u64;
        load.closed(&mut Figures::new(Vec::new()), None, more)?;
        return say("filled");
    }
    let mut figures = Figures::new(args.list("cpu-of")?);
    let (warm_s, time_s): (f64, f64) = (args.get("warm", 0.2)?, args.get("time", 1.0)?);
    let (warm, time) = (
        Duration::from_secs_f64(warm_s),
        Duration::from_secs_f64(time_s),
    );
    let rate: f64 = args.get("rate", 0.0)?;
    let requests: u64 = args.get("requests", 0)?;

    if args.get("hold", 0)? == 1 {
        say("ready")?;
        return wait_for_line();
    }
    if requests > 0 {
        say("ready")?;
        wait_for_line()?;
        load.closed(&mut figures, None, requests)?;
        say(&figures.json())?;
        return wait_for_line();
    }
    if rate > 0.0 {
        load.open_loop(&mut figures, rate, warm, time)?;
        // Gives up the locks that are left, for the next run.
        load.closed(&mut Figures::new(Vec::new()), Some(Duration::ZERO), 0)?;
    } else {
        load.closed(&mut Figures::new(Vec::new()), Some(warm), u64::MAX)?;
        load.closed(&mut figures, Some(time), u64::MAX)?;
    }
    say(&figures.json())
}

fn order(args: &Args) -> Result<Order, Error> {
    let name: String = args.get("order", "random".to_owned())?;
    match name.as_str() {
        "random" => Ok(Order::AtRandom),
        "in-turn" => Ok(Order::InTurn),
        "fill" => Ok(Order::Fill),
        _ => Err(Error::Usage(format!("no order is called `{name}`"))),
    }
}

fn sessions(args: &Args, order: Order) -> Result<Sessions, Error> {
    let (speech, body_bytes) = (speech(args)?, args.get("body", 2048)?);
    let file: String = args.get("ids", String::new())?;
    if file.is_empty() {
        let count = args.get("sessions", 10_000)?;
        return Ok(Sessions::drawn(speech, body_bytes, count, order));
    }
    let text = std::fs::read_to_string(file).map_err(|e| Error::Io("reading ids", e))?;
    let ids: Vec<String> = text.lines().map(str::to_owned).collect();
    if ids.is_empty() {
        return Err(Error::Usage("--ids names a file without ids".into()));
    }
    Ok(Sessions::new(speech, body_bytes, ids, order))
}

fn speech(args: &Args) -> Result<Speech, Error> {
    let name: String = args.get("dialect", String::new())?;
    match name.as_str() {
        "redis" => {
            let mut digests = args.list("scripts")?.into_iter();
            Ok(Speech::Redis(Scripts {
                acquire: digests.next().unwrap_or_default(),
                store: digests.next().unwrap_or_default(),
            }))
        }
        "memcached" => Ok(Speech::Memcached),
        dialect => Ok(Speech::Proxied(Dialect::named(dialect)?)),
    }
}

fn wait_for_line() -> Result<(), Error> {
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line);
    read.map(drop).map_err(|e| Error::Io("reading stdin", e))
}

impl Load {
    /// Opens the connections and has one request answered on each.
    fn open(&mut self, ports: &[u16], count: usize) -> Result<(), Error> {
        let now = Instant::now();
        let mut outstanding = 0;
        for (token, port) in (0..count).zip(ports.iter().cycle()) {
            let mut connection = Connection::open(*port, (token, count))?;
            self.poll.add(connection.socket(), token)?;
            connection.send(&mut self.sessions, now)?;
            self.connections.push(connection);
            outstanding += 1;
            while outstanding >= OPENING {
                outstanding -= self.turn(None)?;
                self.answered.clear();
            }
        }
        while outstanding > 0 {
            outstanding -= self.turn(None)?;
            self.answered.clear();
        }
        Ok(())
    }

    /// Waits for answers, and adds who got one to `answered`. Returns how many.
    fn turn(&mut self, timeout: Option<Duration>) -> Result<usize, Error> {
        self.ready.clear();
        self.ready.extend(self.poll.wait(timeout)?);
        let before = self.answered.len();
        for event in &self.ready {
            let connection = &mut self.connections[event.token];
            if event.writable {
                connection.flush(&self.sessions)?;
            }
            if event.readable
                && let Some(due) = connection.receive(&self.sessions, &mut self.buffer)?
            {
                self.answered.push((event.token, due));
            }
        }
        Ok(self.answered.len() - before)
    }

    /// Keeps a request in progress on every connection for `time`, or until `requests` are
    /// answered; then lets the last ones end and gives up all locks, uncounted.
    fn closed(
        &mut self,
        figures: &mut Figures,
        time: Option<Duration>,
        requests: u64,
    ) -> Result<(), Error> {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.send(&mut self.sessions, start)?;
        }
        figures.start()?;
        let mut outstanding = self.connections.len();
        let mut running = true;
        while outstanding > 0 {
            outstanding -= self.turn(None)?;
            let now = Instant::now();
            for (token, due) in self.answered.drain(..) {
                let connection = &mut self.connections[token];
                if running {
                    figures.record(now - due);
                }
                if running || connection.holds_lock() {
                    connection.send(&mut self.sessions, now)?;
                    outstanding += 1;
                }
            }
            let over = time.is_some_and(|time| now - start >= time);
            if running && (over || figures.requests() >= requests) {
                figures.stop()?;
                running = false;
            }
        }
        Ok(())
    }

    /// Sends at `rate` requests per second, first for `warm` and then, measured, for `time`; then
    /// waits for what is not answered yet: the slowest answers count.
    fn open_loop(
        &mut self,
        figures: &mut Figures,
        rate: f64,
        warm: Duration,
        time: Duration,
    ) -> Result<(), Error> {
        let mut idle: Vec<usize> = (0..self.connections.len()).collect();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let start = Instant::now();
        let mut next = start;
        let mut measuring = false;
        loop {
            let now = Instant::now();
            if !measuring && now - start >= warm {
                figures.start()?;
                measuring = true;
            }
            let over = now - start >= warm + time;
            if over && idle.len() == self.connections.len() && waiting.is_empty() {
                return figures.stop();
            }
            while next <= now && !over {
                waiting.push_back(next);
                next += self.sessions.distance(rate);
            }
            while let (Some(due), Some(token)) = (waiting.front(), idle.last()) {
                self.connections[*token].send(&mut self.sessions, *due)?;
                waiting.pop_front();
                idle.pop();
            }
            let pause = next.saturating_duration_since(Instant::now());
            self.turn(if over { None } else { Some(pause) })?;
            let now = Instant::now();
            for (token, due) in self.answered.drain(..) {
                if measuring && due >= start + warm {
                    figures.record(now - due);
                }
                idle.push(token);
            }
        }
    }
}
