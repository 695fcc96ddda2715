//! Requests and answers in the two dialects: that of ASP.NET (protocol 3 and 4) and HTTP/1.1,
//! which differs by a slash in front of the target and a version in the status line.

use crate::Error;

/// A longer head is a fault.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The application's part of every target, up to the session id.
const APP: &str = "%2fLM%2fW3SVC%2f2%2fROOT(+IX1jDdb8gEgX7u7ujFzV%2fbCl3Q5N4MbcrNz8bYMEhU%3d)%2f";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    AspNet,
    Http,
}

impl Dialect {
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        match name {
            "aspnet" => Ok(Self::AspNet),
            "http" => Ok(Self::Http),
            _ => Err(Error::Usage(format!("no dialect is called `{name}`"))),
        }
    }

    fn slash(self) -> &'static str {
        match self {
            Self::AspNet => "",
            Self::Http => "/",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::AspNet => "",
            Self::Http => "HTTP/1.1 ",
        }
    }
}

/// Writes the head of a read that locks.
pub(crate) fn acquire(out: &mut Vec<u8>, dialect: Dialect, id: &str) {
    for part in ["GET ", dialect.slash(), APP, id] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nExclusive: acquire\r\n\r\n");
}

/// Writes the head of a write that unlocks, whose body has `len` bytes.
pub(crate) fn store(out: &mut Vec<u8>, dialect: Dialect, id: &str, cookie: u32, len: usize) {
    for part in ["PUT ", dialect.slash(), APP, id] {
        out.extend_from_slice(part.as_bytes());
    }
    let rest = format!(
        " HTTP/1.1\r\nHost: localhost\r\nTimeout:20\r\nContent-Length:{len}\r\n\
         ExtraFlags:0\r\nLockCookie:{cookie}\r\n\r\n"
    );
    out.extend_from_slice(rest.as_bytes());
}

/// The answers of a backend in one dialect, whole.
pub(crate) struct Answers {
    /// To a read that locks.
    pub(crate) item: Vec<u8>,
    /// To a write.
    pub(crate) done: Vec<u8>,
    /// To a probe.
    pub(crate) absent: Vec<u8>,
}

impl Answers {
    /// `body` is what a read returns.
    pub(crate) fn new(dialect: Dialect, body: &[u8]) -> Self {
        let version = dialect.version();
        let answer = |status: &str, extra: &str, body: &[u8]| {
            let len = body.len();
            let mut all = format!(
                "{version}{status}\r\nX-AspNet-Version: 4.0.30319\r\n{extra}\
                 Cache-Control: private\r\nContent-Length: {len}\r\n\r\n"
            )
            .into_bytes();
            all.extend_from_slice(body);
            all
        };
        Self {
            item: answer("200 OK", "LockCookie: 2\r\nTimeout: 20\r\n", body),
            done: answer("200 OK", "", b""),
            absent: answer("404 Not Found", "", b""),
        }
    }
}

/// What a head says. Of an answer the status, of a request the method, decide what it is.
pub(crate) struct Head {
    /// Bytes of the head, empty line included.
    pub(crate) len: usize,
    pub(crate) body_len: usize,
    pub(crate) cookie: Option<u32>,
}

/// Reads the head at the beginning of `bytes`; none if its end is not there yet.
pub(crate) fn head(bytes: &[u8], who: &'static str) -> Result<Option<Head>, Error> {
    let fault = |what| Error::Protocol { who, what };
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(fault("a head without an end"));
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| fault("a head that is no text"))?;
    let mut head = Head {
        len: end + 4,
        body_len: 0,
        cookie: None,
    };
    for line in text.split("\r\n").skip(1) {
        let (name, value) = line
            .split_once(':')
            .ok_or(fault("a header without colon"))?;
        if name.eq_ignore_ascii_case("content-length") {
            head.body_len = value.trim().parse().map_err(|_| fault("a length"))?;
        } else if name.eq_ignore_ascii_case("lockcookie") {
            head.cookie = Some(value.trim().parse().map_err(|_| fault("a cookie"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(fault("a body in chunks"));
        }
    }
    Ok(Some(head))
}

/// The status of an answer in either dialect.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.1 ").unwrap_or(head);
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}
