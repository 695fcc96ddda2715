//! One connection of the load and the sessions that its requests are about.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::Error;
use crate::wire::{self, Dialect};

/// Sessions that requests are about.
const SESSIONS: usize = 10_000;

/// What the default session ids of ASP.NET consist of.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

pub(super) struct Sessions {
    ids: Vec<String>,
    dialect: Dialect,
    body: Vec<u8>,
    random: u64,
}

impl Sessions {
    /// The same ids and the same choices for every subject that is given the same `seed`.
    pub(super) fn new(dialect: Dialect, body_bytes: usize, seed: u64) -> Self {
        let mut sessions = Self {
            ids: Vec::new(),
            dialect,
            body: vec![b'y'; body_bytes],
            random: seed,
        };
        for _ in 0..SESSIONS {
            let mut id = String::new();
            for _ in 0..24 {
                id.push(char::from(LETTERS[sessions.draw() as usize % 32]));
            }
            sessions.ids.push(id);
        }
        sessions
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

pub(super) struct Connection {
    socket: TcpStream,
    head: Vec<u8>,
    has_body: bool,
    /// Of head and body together.
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
    pub(super) fn open(port: u16) -> Result<Self, Error> {
        let open = || {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|e| Error::Io("connecting", e))?,
            head: Vec::new(),
            has_body: false,
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

    /// Sends the next request, which was `due` then.
    pub(super) fn send(&mut self, sessions: &mut Sessions, due: Instant) -> Result<(), Error> {
        self.due = due;
        self.has_body = self.cookie.is_some();
        if let Some(cookie) = self.cookie.take() {
            let (id, len) = (&sessions.ids[self.session], sessions.body.len());
            wire::store(&mut self.head, sessions.dialect, id, cookie, len);
        } else {
            self.session = sessions.draw() as usize % SESSIONS;
            wire::acquire(
                &mut self.head,
                sessions.dialect,
                &sessions.ids[self.session],
            );
        }
        self.written = 0;
        self.flush(sessions)
    }

    /// Sends what of the request is not sent yet.
    pub(super) fn flush(&mut self, sessions: &Sessions) -> Result<(), Error> {
        let body: &[u8] = if self.has_body { &sessions.body } else { &[] };
        let head_len = self.head.len();
        while self.written < head_len + body.len() {
            let head = &self.head[self.written.min(head_len)..];
            let body = &body[self.written.saturating_sub(head_len)..];
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let result = match (head.is_empty(), body.is_empty()) {
                (false, false) => self.socket.write_vectored(&parts),
                (false, true) => self.socket.write(head),
                _ => self.socket.write(body),
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
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Instant>, Error> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => {
                    if self.take(&buffer[..n])? {
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
    fn take(&mut self, bytes: &[u8]) -> Result<bool, Error> {
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
        let Some(head) = wire::head(whole, "a proxy")? else {
            if self.partial.is_empty() {
                self.partial.extend_from_slice(bytes);
            }
            return Ok(false);
        };
        match wire::status(whole) {
            Some(200) => {}
            Some(other) => return Err(Error::Status(other)),
            None => {
                return Err(Error::Protocol {
                    who: "a proxy",
                    what: "a status line",
                });
            }
        }
        if !self.has_body {
            self.cookie = head.cookie;
        }
        let left = (head.len + head.body_len).saturating_sub(whole.len());
        self.body_left = Some(left);
        self.partial.clear();
        Ok(left == 0)
    }
}
