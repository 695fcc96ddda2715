//! A state server of the simplest kind (protocol 5.3), with faults that can be switched on.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use staterouter::wire::decimal;
use staterouter::wire::{Answer, HeadLimits, Operation, Parsed, RequestHead, Span, encode_answer};

/// What the server does wrong, once unless it says otherwise, at the first occasion after [`WARM_UP_REQUESTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Drops a session.
    LoseSession,
    /// Answers with the contents before the newest.
    OlderBody,
    /// Acknowledges a removal and keeps the session.
    ForgetRemoval,
    /// Hands out a lock that is held.
    DoubleLock,
    /// Changes a byte of a body.
    FlipByte,
    /// Announces a started session as new.
    FlagLive,
    /// Hands out a new session without announcing it.
    HideFlag,
    /// Refuses the write of a session's holder.
    RefuseWrite,
    /// Always: stores what the holder of a broken lock writes under the next lock.
    StaleWrite,
    /// Again and again: closes the connection before or after doing what was asked.
    DropAnswers,
}

const WARM_UP_REQUESTS: u64 = 300;
const DROP_EVERY: u64 = 37;
const FRESH_LOCK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Item {
    body: Vec<u8>,
    previous_body: Option<Vec<u8>>,
    uninitialised: bool,
    locked_at: Option<Instant>,
    cookie: u32,
}

struct Server {
    items: HashMap<Vec<u8>, Item>,
    fault: Fault,
    requests: u64,
}

/// Starts a server that runs until the test process ends.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Mutex::new(Server {
        items: HashMap::new(),
        fault,
        requests: 0,
    }));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&server);
            thread::spawn(move || serve(stream.unwrap(), &server));
        }
    });
    address
}

fn serve(mut stream: TcpStream, server: &Mutex<Server>) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut out = Vec::new();
    loop {
        let head = loop {
            match RequestHead::parse(&bytes, &HeadLimits::default()).unwrap() {
                Parsed::Complete(head) => break head,
                Parsed::Partial => read_more(&mut stream, &mut bytes)?,
            }
        };
        let total = head.head_bytes + head.body_bytes as usize;
        while bytes.len() < total {
            read_more(&mut stream, &mut bytes)?;
        }
        out.clear();
        let is_answered = server
            .lock()
            .unwrap()
            .request(&bytes[..total], &head, &mut out);
        if !is_answered {
            return None;
        }
        stream.write_all(&out).ok()?;
        bytes.drain(..total);
    }
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk).ok().filter(|&count| count > 0)?;
    bytes.extend_from_slice(&chunk[..count]);
    Some(())
}

impl Server {
    /// Appends the answer to `out`; false: close the connection instead.
    fn request(&mut self, bytes: &[u8], head: &RequestHead, out: &mut Vec<u8>) -> bool {
        self.requests += 1;
        let drops = self.fault == Fault::DropAnswers && self.requests.is_multiple_of(DROP_EVERY);
        if drops && self.requests.is_multiple_of(2) {
            return false;
        }
        let key = head.target.of(bytes);
        let number = |value: Option<Span>| {
            let value = value.and_then(|value| decimal(value.of(bytes)));
            value.unwrap_or(0) as u32
        };
        let cookie = number(head.lock_cookie);
        let body = &bytes[head.head_bytes..];
        let answer = match head.operation() {
            Operation::Get => return self.get(key, false, out) && !drops,
            Operation::Acquire => return self.get(key, true, out) && !drops,
            Operation::Put => self.put(key, cookie, number(head.extra_flags) == 1, body),
            Operation::Remove => self.remove(key, cookie),
            Operation::Release => self.release(key, cookie),
            Operation::Touch if self.items.contains_key(key) => DONE,
            Operation::Touch => Answer::Absent,
            Operation::Unknown => Answer::Invalid,
        };
        encode_answer(out, &answer);
        !drops
    }

    /// Whether `fault` is due; it happens only this once.
    fn strikes(&mut self, fault: Fault) -> bool {
        let is_due = self.fault == fault && self.requests > WARM_UP_REQUESTS;
        if is_due {
            self.fault = Fault::None;
        }
        is_due
    }

    fn get(&mut self, key: &[u8], exclusive: bool, out: &mut Vec<u8>) -> bool {
        let Some(mut item) = self.items.remove(key) else {
            encode_answer(out, &Answer::Absent);
            return true;
        };
        let is_locked = item.locked_at.is_some();
        // Only while the holder has most of its time still before it.
        let is_fresh = item.locked_at.is_some_and(|at| at.elapsed() < FRESH_LOCK);
        if is_locked && !(exclusive && is_fresh && self.strikes(Fault::DoubleLock)) {
            encode_answer(out, &locked(&item));
            self.items.insert(key.to_vec(), item);
            return true;
        }
        if !is_locked && self.strikes(Fault::LoseSession) {
            encode_answer(out, &Answer::Absent);
            return true;
        }
        let mut flag = std::mem::take(&mut item.uninitialised);
        if flag {
            flag = !self.strikes(Fault::HideFlag);
        } else {
            flag = self.strikes(Fault::FlagLive);
        }
        if exclusive {
            item.locked_at = Some(Instant::now());
            item.cookie += 1;
        }
        let mut body = item.body.clone();
        if self.strikes(Fault::FlipByte) {
            body[50] ^= 1;
        }
        // A shared read may rightly be older than a write that runs beside it.
        if exclusive && item.previous_body.is_some() && self.strikes(Fault::OlderBody) {
            body = item.previous_body.clone().unwrap();
        }
        let answer = Answer::Item {
            uninitialised: flag,
            lock_cookie: exclusive.then_some(item.cookie),
            timeout_minutes: 20,
            body_bytes: body.len(),
        };
        encode_answer(out, &answer);
        out.extend_from_slice(&body);
        self.items.insert(key.to_vec(), item);
        true
    }

    fn put(&mut self, key: &[u8], cookie: u32, insert_only: bool, body: &[u8]) -> Answer {
        if !self.items.contains_key(key) {
            let item = Item {
                body: body.to_vec(),
                uninitialised: insert_only,
                cookie: 1,
                ..Item::default()
            };
            self.items.insert(key.to_vec(), item);
            return DONE;
        }
        if insert_only {
            return DONE;
        }
        let refuses = self.strikes(Fault::RefuseWrite);
        let forgives = self.fault == Fault::StaleWrite;
        let item = self.items.get_mut(key).unwrap();
        if refuses {
            item.locked_at = None;
            return locked(item);
        }
        if item.locked_at.is_some() && item.cookie != cookie {
            if forgives {
                item.body = body.to_vec();
                return DONE;
            }
            return locked(item);
        }
        let previous = std::mem::replace(&mut item.body, body.to_vec());
        item.previous_body = Some(previous);
        item.locked_at = None;
        DONE
    }

    fn remove(&mut self, key: &[u8], cookie: u32) -> Answer {
        let done = self.release(key, cookie);
        if done == DONE && !self.strikes(Fault::ForgetRemoval) {
            self.items.remove(key);
        }
        done
    }

    fn release(&mut self, key: &[u8], cookie: u32) -> Answer {
        let Some(item) = self.items.get_mut(key) else {
            return Answer::Absent;
        };
        if item.locked_at.is_some() && item.cookie != cookie {
            return locked(item);
        }
        item.locked_at = None;
        Answer::Done {
            uninitialised: std::mem::take(&mut item.uninitialised),
        }
    }
}

const DONE: Answer = Answer::Done {
    uninitialised: false,
};

fn locked(item: &Item) -> Answer {
    let age = item.locked_at.map_or(0, |at| at.elapsed().as_secs());
    Answer::Locked {
        lock_date_ticks: 621_355_968_000_000_000,
        lock_age_s: age as u32,
        lock_cookie: item.cookie,
    }
}
