//! The same reads and writes for Redis and memcached, in as few requests as each allows.
//!
//! Redis runs a script for each, whose digests `run.py` passes on. memcached has no scripts: two
//! commands go out together for each, the lock being an item of its own.

use crate::Error;
use crate::wire::Head;

/// How long a session lives unused, and how long a lock holds at most, in seconds.
const SESSION_S: &str = "1200";
const LOCK_S: &str = "110";

/// Digests of the scripts that Redis runs for a read that locks and for a write that unlocks.
#[derive(Clone)]
pub(crate) struct Scripts {
    pub(crate) acquire: String,
    pub(crate) store: String,
}

/// Writes the request of a read that locks; `lock` says whose lock it is.
pub(crate) fn redis_acquire(out: &mut Vec<u8>, scripts: &Scripts, id: &str, lock: u32) {
    let (key, lock) = (format!("{id}.lock"), lock.to_string());
    out.extend_from_slice(b"*7\r\n");
    for word in ["EVALSHA", &scripts.acquire, "2", id, &key, &lock, LOCK_S] {
        redis_word(out, word);
    }
}

/// Writes the request of a write that unlocks, up to the body of `len` bytes and the line end that
/// it takes.
pub(crate) fn redis_store(out: &mut Vec<u8>, scripts: &Scripts, id: &str, lock: u32, len: usize) {
    let (key, lock) = (format!("{id}.lock"), lock.to_string());
    out.extend_from_slice(b"*8\r\n");
    for word in ["EVALSHA", &scripts.store, "2", id, &key, &lock, SESSION_S] {
        redis_word(out, word);
    }
    out.extend_from_slice(format!("${len}\r\n").as_bytes());
}

/// The same for a write of a session that nobody has locked.
pub(crate) fn redis_fill(out: &mut Vec<u8>, id: &str, len: usize) {
    out.extend_from_slice(b"*4\r\n");
    for word in ["SETEX", id, SESSION_S] {
        redis_word(out, word);
    }
    out.extend_from_slice(format!("${len}\r\n").as_bytes());
}

fn redis_word(out: &mut Vec<u8>, word: &str) {
    out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
}

/// Writes the request of a read that locks.
pub(crate) fn memcached_acquire(out: &mut Vec<u8>, id: &str) {
    let request = format!("add {id}.lock 0 {LOCK_S} 1\r\n1\r\nget {id}\r\n");
    out.extend_from_slice(request.as_bytes());
}

/// Writes the request of a write up to the body, and to `tail` what follows it: the end of the lock,
/// or without a lock nothing but the line end.
pub(crate) fn memcached_store(
    out: &mut Vec<u8>,
    tail: &mut Vec<u8>,
    id: &str,
    locked: bool,
    len: usize,
) {
    let quiet = if locked { " noreply" } else { "" };
    out.extend_from_slice(format!("set {id} 0 {SESSION_S} {len}{quiet}\r\n").as_bytes());
    tail.extend_from_slice(b"\r\n");
    if locked {
        tail.extend_from_slice(format!("delete {id}.lock\r\n").as_bytes());
    }
}

/// Reads the answer to a read up to the body, or the whole answer to a write; none if it is not
/// complete yet.
pub(crate) fn answer(bytes: &[u8], is_read: bool) -> Result<Option<Head>, Error> {
    let fault = Error::Protocol {
        who: "a store",
        what: "no answer to the request",
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(128)]);
    let lines: Vec<_> = text.split_inclusive("\r\n").collect();
    let complete = lines.iter().filter(|line| line.ends_with("\r\n")).count();
    let (wanted, after) = match (is_read, text.as_bytes().first()) {
        (_, None) => return Ok(None),
        (false, _) => (1, 0),
        (true, Some(b'*')) => (3, "\r\n".len()),
        (true, Some(_)) => (2, "\r\nEND\r\n".len()),
    };
    if complete < wanted {
        return Ok(None);
    }
    let last = lines[wanted - 1].trim_end();
    let body_len = match (is_read, lines[0].trim_end()) {
        (false, ":1" | "+OK" | "STORED" | "DELETED") => Some(0),
        (true, "*2") if lines[1].trim_end() == ":1" => {
            last.strip_prefix('$').and_then(|len| len.parse().ok())
        }
        (true, "STORED") => last.rsplit(' ').next().and_then(|len| len.parse().ok()),
        _ => None,
    };
    Ok(Some(Head {
        len: lines[..wanted].iter().map(|line| line.len()).sum(),
        body_len: body_len.ok_or(fault)? + after,
        cookie: None,
    }))
}
