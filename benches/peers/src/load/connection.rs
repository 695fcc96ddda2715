//! One connection of the load and the sessions that its requests are about.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::Error;
use crate::stores::{self, Scripts};
use crate::wire::{self, Dialect, Head};

/// What the default session ids of ASP.NET consist of.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

/// How long they are.
const ID_CHARS: usize = 24;

/// Whom requests are for.
pub(super) enum Speech {
    Proxied(Dialect),
    Redis(Scripts),
    Memcached,
}

pub(super) struct Sessions {
    ids: Vec<String>,
    speech: Speech,
    body: Vec<u8>,
    random: u64,
    /// Sessions, the last ones, that are still to be written for the first time.
    unwritten: usize,
    /// With sessions used one after the other, the next one.
    in_turn: Option<usize>,
}

/// Which session a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    AtRandom,
    /// One after the other, so that each is used once before one is used twice.
    InTurn,
    /// Every session is written once.
    Fill,
}

impl Sessions {
    /// Sessions of the given `ids`.
    pub(super) fn new(speech: Speech, body_bytes: usize, ids: Vec<String>, order: Order) -> Self {
        Self {
            unwritten: if order == Order::Fill { ids.len() } else { 0 },
            in_turn: (order == Order::InTurn).then_some(0),
            ids,
            speech,
            body: vec![b'y'; body_bytes],
            random: 1,
        }
    }

    /// `count` sessions: the same ids and the same choices for every subject.
    pub(super) fn drawn(speech: Speech, body_bytes: usize, count: usize, order: Order) -> Self {
        let mut sessions = Self::new(speech, body_bytes, Vec::with_capacity(count), order);
        for _ in 0..count {
            let mut id = String::with_capacity(ID_CHARS);
            for _ in 0..ID_CHARS {
                id.push(char::from(LETTERS[sessions.draw() as usize % 32]));
            }
            sessions.ids.push(id);
        }
        if order == Order::Fill {
            sessions.unwritten = count;
        }
        sessions
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// The session that a connection begins to use; `share`: which connection of how many it is.
    fn choose(&mut self, share: (usize, usize)) -> usize {
        if let Some(next) = &mut self.in_turn {
            let chosen = *next;
            *next = (chosen + 1) % self.ids.len();
            return chosen;
        }
        let (which, of) = share;
        let own = (self.ids.len() / of).max(1);
        let at = self.draw() as usize % own * of + which;
        at % self.ids.len()
    }

    /// Until the next request at a mean `rate` per second, if they come independently of another.
    pub(super) fn distance(&mut self, rate: f64) -> Duration {
        let share = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-(1.0 - share).ln() / rate)
    }

    /// The next of a sequence that looks random (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reads and locks.
    Acquire,
    /// Writes and unlocks.
    Store,
    /// Writes a new session.
    Fill,
}

pub(super) struct Connection {
    socket: TcpStream,
    /// Which one of how many: no two have a session in common, or they would wait for locks.
    share: (usize, usize),
    /// The request: `head`, the session's body if it is a write, and `tail`.
    kind: Kind,
    head: Vec<u8>,
    tail: Vec<u8>,
    written: usize,
    /// An answer's head that is not complete yet.
    partial: Vec<u8>,
    /// Bytes of the answer's body still to come; none until its head is there.
    body_left: Option<usize>,
    due: Instant,
    session: usize,
    /// Of the lock that the next request gives up.
    cookie: Option<u32>,
}

impl Connection {
    /// `share`: which connection of how many this is.
    pub(super) fn open(port: u16, share: (usize, usize)) -> Result<Self, Error> {
        let open = || {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|e| Error::Io("connecting", e))?,
            share,
            kind: Kind::Acquire,
            head: Vec::new(),
            tail: Vec::new(),
            written: 0,
            partial: Vec::new(),
            body_left: None,
            due: Instant::now(),
            session: 0,
            cookie: None,
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn holds_lock(&self) -> bool {
        self.cookie.is_some()
    }

    /// Sends the next request, which was `due` then.
    pub(super) fn send(&mut self, sessions: &mut Sessions, due: Instant) -> Result<(), Error> {
        self.due = due;
        let cookie = self.cookie.take();
        if cookie.is_some() {
            self.kind = Kind::Store;
        } else if sessions.unwritten > 0 {
            sessions.unwritten -= 1;
            self.session = sessions.unwritten;
            self.kind = Kind::Fill;
        } else {
            self.session = sessions.choose(self.share);
            self.kind = Kind::Acquire;
        }
        self.write_request(sessions, cookie.unwrap_or(0));
        self.written = 0;
        self.flush(sessions)
    }

    fn write_request(&mut self, sessions: &Sessions, cookie: u32) {
        let (id, len) = (&sessions.ids[self.session], sessions.body.len());
        let (head, tail) = (&mut self.head, &mut self.tail);
        head.clear();
        tail.clear();
        match (&sessions.speech, self.kind) {
            (Speech::Proxied(dialect), Kind::Acquire) => wire::acquire(head, *dialect, id),
            (Speech::Proxied(dialect), _) => wire::store(head, *dialect, id, cookie, len),
            (Speech::Redis(scripts), Kind::Acquire) => {
                stores::redis_acquire(head, scripts, id, lock_of(self.share));
            }
            (Speech::Redis(scripts), kind) => {
                match kind {
                    Kind::Fill => stores::redis_fill(head, id, len),
                    _ => stores::redis_store(head, scripts, id, cookie, len),
                }
                tail.extend_from_slice(b"\r\n");
            }
            (Speech::Memcached, Kind::Acquire) => stores::memcached_acquire(head, id),
            (Speech::Memcached, kind) => {
                stores::memcached_store(head, tail, id, kind == Kind::Store, len);
            }
        }
    }

    /// Sends what of the request is not sent yet.
    pub(super) fn flush(&mut self, sessions: &Sessions) -> Result<(), Error> {
        let body: &[u8] = match self.kind {
            Kind::Acquire => &[],
            Kind::Store | Kind::Fill => &sessions.body,
        };
        let (head, tail) = (&self.head[..], &self.tail[..]);
        while self.written < head.len() + body.len() + tail.len() {
            let (head, skip) = rest(head, self.written);
            let (body, skip) = rest(body, skip);
            let (tail, _) = rest(tail, skip);
            let result = if body.is_empty() && tail.is_empty() {
                self.socket.write(head)
            } else {
                let parts = [head, body, tail].map(IoSlice::new);
                self.socket.write_vectored(&parts)
            };
            match result {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(Error::Io("sending", e)),
            }
        }
        Ok(())
    }

    /// Receives what is there; when that completes the answer, returns when its request was due.
    pub(super) fn receive(
        &mut self,
        sessions: &Sessions,
        buffer: &mut [u8],
    ) -> Result<Option<Instant>, Error> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => {
                    if self.take(sessions, &buffer[..n])? {
                        self.body_left = None;
                        return Ok(Some(self.due));
                    }
                    // A short read emptied the socket; the next bytes make a new event.
                    if n < buffer.len() {
                        return Ok(None);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(Error::Io("receiving", e)),
            }
        }
    }

    /// True when `bytes` complete the answer.
    fn take(&mut self, sessions: &Sessions, bytes: &[u8]) -> Result<bool, Error> {
        if let Some(left) = self.body_left {
            let left = left.saturating_sub(bytes.len());
            self.body_left = Some(left);
            return Ok(left == 0);
        }
        let whole = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            &self.partial
        };
        let is_read = self.kind == Kind::Acquire;
        let head = match sessions.speech {
            Speech::Proxied(_) => proxied_answer(whole)?,
            _ => stores::answer(whole, is_read)?,
        };
        let Some(head) = head else {
            if self.partial.is_empty() {
                self.partial.extend_from_slice(bytes);
            }
            return Ok(false);
        };
        if is_read {
            self.cookie = head.cookie.or(Some(lock_of(self.share)));
        }
        let left = (head.len + head.body_len).saturating_sub(whole.len());
        self.body_left = Some(left);
        self.partial.clear();
        Ok(left == 0)
    }
}

/// The name under which a connection locks where it chooses that itself.
fn lock_of(share: (usize, usize)) -> u32 {
    share.0 as u32 + 1
}

/// `bytes` without the first `skip`, and how many more than there are were to be left out.
fn rest(bytes: &[u8], skip: usize) -> (&[u8], usize) {
    let skipped = skip.min(bytes.len());
    (&bytes[skipped..], skip - skipped)
}

/// The head of an answer that must be a success.
fn proxied_answer(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let Some(head) = wire::head(bytes, "the subject")? else {
        return Ok(None);
    };
    match wire::status(bytes) {
        Some(200) => Ok(Some(head)),
        Some(other) => Err(Error::Status(other)),
        None => Err(Error::Protocol {
            who: "the subject",
            what: "a status line",
        }),
    }
}
