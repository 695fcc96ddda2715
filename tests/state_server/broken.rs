//! State servers with one thing wrong.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::HashSet;
use std::future::{Ready, ready};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use staterouter::net::{Listeners, Running};
use staterouter::store::{
    LockCookie, MemoryStore, Now, SessionCommand, SessionStore, StoreOptions, StoreOutcome,
    SweepTurn,
};

use crate::server::serve_from;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A read leaves a new item new.
    KeepsFlag,
    /// Any lock cookie opens any lock.
    TakesAnyCookie,
    /// Lock cookies have more than 24 bits.
    WideCookies,
}

/// What is added to lock cookies by [`Broken::WideCookies`].
const WIDE: u32 = (1 << 25) + 4096;

#[derive(Debug)]
struct BrokenStore {
    inner: MemoryStore,
    broken: Broken,
    /// Items that count as new for ever.
    flagged: Mutex<HashSet<Vec<u8>>>,
}

/// Starts such a server.
pub(crate) fn start(broken: Broken) -> Running {
    let store = BrokenStore {
        inner: MemoryStore::new(&StoreOptions::new([0; 16])),
        broken,
        flagged: Mutex::default(),
    };
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    serve_from(Arc::new(store), listeners, Duration::from_secs(60))
}

impl SessionStore for BrokenStore {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        let outcome: Ready<StoreOutcome> = ready(match self.broken {
            Broken::KeepsFlag => self.keep_flag(key, command, now),
            Broken::TakesAnyCookie => self.take_any_cookie(key, command, now),
            Broken::WideCookies => self.with_wide_cookies(key, command, now),
        });
        outcome
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        self.inner.sweep(now, max_items)
    }
}

impl BrokenStore {
    /// The answer of a store in memory is there at once.
    fn ask(&self, key: &[u8], command: SessionCommand, now: Now) -> StoreOutcome {
        let mut context = Context::from_waker(Waker::noop());
        let answer = pin!(self.inner.apply(key, command, now));
        match answer.poll(&mut context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => StoreOutcome::Unknown,
        }
    }

    fn keep_flag(&self, key: &[u8], command: SessionCommand, now: Now) -> StoreOutcome {
        let mut flagged = self.flagged.lock().unwrap();
        match &command {
            SessionCommand::Put {
                insert_only: true, ..
            } if self.ask(key, SessionCommand::Touch, now) == StoreOutcome::Absent => {
                flagged.insert(key.to_vec());
            }
            SessionCommand::Put { .. } | SessionCommand::Remove { .. } => {
                flagged.remove(key);
            }
            _ => {}
        }
        let mut outcome = self.ask(key, command, now);
        if let StoreOutcome::Found { action_flags, .. } = &mut outcome {
            *action_flags = flagged.contains(key);
        }
        outcome
    }

    fn take_any_cookie(&self, key: &[u8], command: SessionCommand, now: Now) -> StoreOutcome {
        let held = match self.inner.inspect(key, now) {
            Some(item) if item.locked => LockCookie::Number(item.cookie),
            _ => return self.ask(key, command, now),
        };
        let command = match command {
            SessionCommand::Put {
                timeout,
                insert_only,
                body,
                ..
            } => SessionCommand::Put {
                timeout,
                insert_only,
                cookie: held,
                body,
            },
            SessionCommand::Release { .. } => SessionCommand::Release { cookie: held },
            SessionCommand::Remove { .. } => SessionCommand::Remove { cookie: held },
            other => other,
        };
        self.ask(key, command, now)
    }

    fn with_wide_cookies(&self, key: &[u8], mut command: SessionCommand, now: Now) -> StoreOutcome {
        if let SessionCommand::Put { cookie, .. }
        | SessionCommand::Release { cookie }
        | SessionCommand::Remove { cookie } = &mut command
            && let LockCookie::Number(number) = cookie
        {
            *number = number.saturating_sub(WIDE);
        }
        let mut outcome = self.ask(key, command, now);
        match &mut outcome {
            StoreOutcome::Found {
                cookie: Some(cookie),
                ..
            }
            | StoreOutcome::Locked { cookie, .. } => *cookie += WIDE,
            _ => {}
        }
        outcome
    }
}

/// The server at `server`, as if it had been told to leave out the version header
/// (`enableVersionHeader="false"`).
pub(crate) fn without_version(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the tests.
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            let ways = [
                (
                    client.try_clone().unwrap(),
                    server.try_clone().unwrap(),
                    false,
                ),
                (server, client, true),
            ];
            for (from, to, strips) in ways {
                thread::spawn(move || pass_on(from, to, strips));
            }
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, strips: bool) {
    const VERSION: &[u8] = b"X-AspNet-Version: 4.0.30319\r\n";
    let mut part = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut part).unwrap_or(0);
        if count == 0 {
            break;
        }
        let mut bytes = part[..count].to_vec();
        let found = bytes
            .windows(VERSION.len())
            .position(|line| line == VERSION);
        if let Some(at) = found.filter(|_| strips) {
            bytes.drain(at..at + VERSION.len());
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
