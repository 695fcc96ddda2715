//! Requests and answers that staterouter makes up itself, in the spelling of stock peers.

use super::Operation;

/// The protocol's own 400: no body, version header present (protocol 4).
pub const BAD_REQUEST: &[u8] = b"400 Bad Request\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// One answer of a state server (protocol 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 with an item; the caller appends `body_bytes` bytes of body.
    Item {
        /// The one-shot flag was set and has just been cleared.
        uninitialised: bool,
        /// The lock just taken; `None` for a shared read.
        lock_cookie: Option<u32>,
        /// The item's timeout in minutes.
        timeout_minutes: u32,
        /// Length of the body.
        body_bytes: usize,
    },
    /// 200 without a body.
    Done {
        /// The one-shot flag was set and has just been cleared (release only).
        uninitialised: bool,
    },
    /// 404.
    Absent,
    /// 423.
    Locked {
        /// When the lock was taken: 100 ns ticks since 0001-01-01, server's local time.
        lock_date_ticks: u64,
        /// How long ago that was, whole seconds.
        lock_age_s: u32,
        /// The lock that is in the way.
        lock_cookie: u32,
    },
    /// 400.
    Invalid,
}

/// Appends the head of `answer` to `out`, header by header in stock order.
pub fn encode_answer(out: &mut Vec<u8>, answer: &Answer) {
    if *answer == Answer::Invalid {
        out.extend_from_slice(BAD_REQUEST);
        return;
    }
    out.extend_from_slice(match answer {
        Answer::Item { .. } | Answer::Done { .. } => b"200 OK\r\n",
        Answer::Absent => b"404 Not Found\r\n",
        Answer::Locked { .. } => b"423 Locked\r\n",
        Answer::Invalid => b"",
    });
    out.extend_from_slice(b"X-AspNet-Version: 4.0.30319\r\n");
    let mut body_bytes = 0;
    match *answer {
        Answer::Item {
            uninitialised,
            lock_cookie,
            timeout_minutes,
            body_bytes: bytes,
        } => {
            action_flags(out, uninitialised);
            if let Some(cookie) = lock_cookie {
                number_header(out, b"LockCookie: ", u64::from(cookie));
            }
            number_header(out, b"Timeout: ", u64::from(timeout_minutes));
            body_bytes = bytes;
        }
        Answer::Done { uninitialised } => action_flags(out, uninitialised),
        Answer::Locked {
            lock_date_ticks,
            lock_age_s,
            lock_cookie,
        } => {
            number_header(out, b"LockDate: ", lock_date_ticks);
            number_header(out, b"LockAge: ", u64::from(lock_age_s));
            number_header(out, b"LockCookie: ", u64::from(lock_cookie));
        }
        Answer::Absent | Answer::Invalid => {}
    }
    out.extend_from_slice(b"Cache-Control: private\r\n");
    number_header(out, b"Content-Length: ", body_bytes as u64);
    out.extend_from_slice(b"\r\n");
}

/// One request of a web server, as the .NET 4.x client sends it (protocol 3).
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What to ask for; [`Operation::Unknown`] is sent as a shared read.
    pub operation: Operation,
    /// The target as it goes on the wire.
    pub target: &'a [u8],
    /// `LockCookie` for release, put and remove.
    pub lock_cookie: u32,
    /// `Timeout` in minutes, for put.
    pub timeout_minutes: u32,
    /// `ExtraFlags`, for put: 1 creates if absent.
    pub extra_flags: u32,
    /// The body, for put.
    pub body: &'a [u8],
}

/// Appends the whole request to `out`: order and spacing of the captured client.
pub fn encode_request(out: &mut Vec<u8>, request: &Request<'_>) {
    encode_request_head(out, request, request.body.len());
    if request.operation == Operation::Put {
        out.extend_from_slice(request.body);
    }
}

/// Appends the head alone, for a body of `body_bytes` bytes that the caller appends.
pub fn encode_request_head(out: &mut Vec<u8>, request: &Request<'_>, body_bytes: usize) {
    out.extend_from_slice(match request.operation {
        Operation::Put => b"PUT ",
        Operation::Remove => b"DELETE ",
        Operation::Touch => b"HEAD ",
        Operation::Get | Operation::Acquire | Operation::Release | Operation::Unknown => b"GET ",
    });
    out.extend_from_slice(request.target);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\n");
    match request.operation {
        Operation::Acquire => out.extend_from_slice(b"Exclusive: acquire\r\n"),
        Operation::Release => {
            out.extend_from_slice(b"Exclusive: release\r\n");
            number_header(out, b"LockCookie: ", u64::from(request.lock_cookie));
        }
        Operation::Remove => number_header(out, b"LockCookie: ", u64::from(request.lock_cookie)),
        Operation::Put => {
            number_header(out, b"Timeout:", u64::from(request.timeout_minutes));
            number_header(out, b"Content-Length:", body_bytes as u64);
            number_header(out, b"ExtraFlags:", u64::from(request.extra_flags));
            number_header(out, b"LockCookie:", u64::from(request.lock_cookie));
        }
        Operation::Get | Operation::Touch | Operation::Unknown => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, without formatting machinery and without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    /// The digits of `number`.
    #[must_use]
    pub fn of(mut number: u64) -> Self {
        let mut bytes = [0u8; 20];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { bytes, start };
            }
        }
    }

    /// As ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

fn action_flags(out: &mut Vec<u8>, uninitialised: bool) {
    if uninitialised {
        out.extend_from_slice(b"ActionFlags: 1\r\n");
    }
}

fn number_header(out: &mut Vec<u8>, name_and_spacing: &[u8], number: u64) {
    out.extend_from_slice(name_and_spacing);
    out.extend_from_slice(Digits::of(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}
