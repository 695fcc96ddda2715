//! Requests and answers taken apart, and how an answer differs from the one that was expected.

use super::line::TargetAnswer;
use crate::wire::decimal;

/// How one answer differs from the expected one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// What ASP.NET or the proxy goes by.
    pub(super) matter: Vec<String>,
    /// What they do not go by.
    pub(super) spelling: Vec<String>,
}

/// Who gets the answer, as far as its consequences depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedFor {
    /// A shared read or an acquire.
    Read,
    /// A write, a release, a removal, a HEAD.
    Other,
}

/// One answer in its parts.
struct Parts<'a> {
    status_line: &'a [u8],
    headers: Vec<HeaderLine<'a>>,
    body: &'a [u8],
}

struct HeaderLine<'a> {
    /// As it was sent.
    line: &'a [u8],
    name: String,
    value: &'a [u8],
}

/// What of an answer says something about the session.
const MEANINGFUL: [&str; 5] = [
    "actionflags",
    "lockcookie",
    "timeout",
    "lockage",
    "lockdate",
];

impl Differences {
    pub(super) fn is_none(&self) -> bool {
        self.matter.is_empty() && self.spelling.is_empty()
    }

    /// How `answer` differs from `expected`, in which `{LOCKDATE}` and `{LOCKAGE}` stand for digits.
    pub(super) fn between(expected: &[u8], answer: &TargetAnswer, asked: AskedFor) -> Self {
        let mut found = Self::default();
        if answer.has_more {
            found.matter.push(
                "bytes came behind the answer: they would pass for the answer to the next request"
                    .to_owned(),
            );
        }
        let is_expected = matches(expected, &answer.bytes);
        if is_expected {
            return found;
        }
        let (wanted, got) = (Parts::of(expected), Parts::of(&answer.bytes));
        found.status(&wanted, &got, asked);
        if found.matter.is_empty() {
            found.headers(&wanted, &got);
            found.body(&wanted, &got);
        }
        if found.is_none() {
            // The same headers in another order.
            let order = "headers in another order".to_owned();
            found.spelling.push(order);
        }
        found
    }

    fn status(&mut self, wanted: &Parts<'_>, got: &Parts<'_>, asked: AskedFor) {
        let (want, have) = (status(wanted.status_line), status(got.status_line));
        if want == have {
            if wanted.status_line != got.status_line {
                let shown = String::from_utf8_lossy(got.status_line).into_owned();
                self.spelling.push(format!("status line `{shown}`"));
            }
            return;
        }
        let consequence = consequence(want, have, asked);
        self.matter
            .push(format!("status {want} expected, {have} came{consequence}"));
    }

    fn headers(&mut self, wanted: &Parts<'_>, got: &Parts<'_>) {
        for header in &wanted.headers {
            match got.header(&header.name) {
                None => self.misses(header),
                Some(other) if is_value(header, other) => {
                    if !matches(header.line, other.line) {
                        let shown = String::from_utf8_lossy(other.line).into_owned();
                        self.spelling.push(format!("`{shown}`"));
                    }
                }
                Some(other) => self.has_another_value(header, other),
            }
        }
        for header in &got.headers {
            if wanted.header(&header.name).is_some() {
                continue;
            }
            let shown = String::from_utf8_lossy(header.line).into_owned();
            match &*header.name {
                // The documentation allows it; it says the same as no header.
                "actionflags" if header.value == b"0" => {
                    self.spelling.push(format!("`{shown}` in place of nothing"));
                }
                "actionflags" => self.matter.push(format!(
                    "`{shown}` though the item is initialised: Session_Start runs again"
                )),
                name if MEANINGFUL.contains(&name) => {
                    self.matter.push(format!("`{shown}` where none belongs"));
                }
                _ => self.spelling.push(format!("also sends `{shown}`")),
            }
        }
    }

    fn misses(&mut self, header: &HeaderLine<'_>) {
        let shown = String::from_utf8_lossy(header.line);
        let text = format!("no `{shown}`");
        match &*header.name {
            "actionflags" => self.matter.push(format!(
                "{text}: Session_Start does not run for a new session"
            )),
            "x-aspnet-version" => self.matter.push(format!(
                "{text}: the first page of each application fails, and a proxy cannot tell its 404 from a \
                 web server's"
            )),
            "lockcookie" => self.matter.push(format!(
                "{text}: nobody can give the lock back before the takeover"
            )),
            "content-length" | "cache-control" => self.spelling.push(text),
            _ => self.matter.push(text),
        }
    }

    fn has_another_value(&mut self, header: &HeaderLine<'_>, other: &HeaderLine<'_>) {
        let shown = String::from_utf8_lossy(other.line);
        let wanted = String::from_utf8_lossy(header.line);
        match &*header.name {
            "x-aspnet-version" if major_version(other.value) >= Some(2) => {
                self.spelling.push(format!("`{shown}`"));
            }
            "x-aspnet-version" => self.matter.push(format!(
                "`{shown}`: the first page of each application fails, for it wants version 2 or later"
            )),
            "cache-control" => self.spelling.push(format!("`{shown}`")),
            // The body says it.
            "content-length" => {}
            _ => self.matter.push(format!("`{wanted}` expected, `{shown}` came")),
        }
    }

    fn body(&mut self, wanted: &Parts<'_>, got: &Parts<'_>) {
        if wanted.body == got.body {
            return;
        }
        let (want, have) = (wanted.body.len(), got.body.len());
        if want == 0 {
            self.matter.push(format!(
                "a body of {have} bytes where none belongs: an old ASP.NET leaks it, and it may pass for \
                 the next answer"
            ));
        } else if want != have {
            self.matter
                .push(format!("a body of {have} bytes, where {want} were stored"));
        } else {
            let pairs = wanted.body.iter().zip(got.body);
            let at = pairs.take_while(|(one, other)| one == other).count();
            self.matter.push(format!(
                "a body of {have} bytes that is not what was stored, from byte {at} on"
            ));
        }
    }
}

impl<'a> Parts<'a> {
    fn of(message: &'a [u8]) -> Self {
        let end = head_bytes(message);
        let (head, body) = message.split_at(end);
        let mut lines = head
            .split(|&byte| byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let status_line = lines.next().unwrap_or_default();
        let headers = lines.filter_map(HeaderLine::of).collect();
        Self {
            status_line,
            headers,
            body,
        }
    }

    fn header(&self, name: &str) -> Option<&HeaderLine<'a>> {
        self.headers.iter().find(|header| header.name == name)
    }
}

impl<'a> HeaderLine<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        let value = line[colon + 1..].trim_ascii();
        Some(Self { line, name, value })
    }
}

/// The length of a message's head, the empty line included; all of it if there is none.
pub(super) fn head_bytes(message: &[u8]) -> usize {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(message.len(), |end| end + 4)
}

/// The target in a request.
pub(super) fn target_in(request: &[u8]) -> &[u8] {
    let line = request.split(|&byte| byte == b'\r').next();
    let line = line.unwrap_or_default();
    let first = line.iter().position(|&byte| byte == b' ');
    let last = line.iter().rposition(|&byte| byte == b' ');
    match (first, last) {
        (Some(first), Some(last)) if first < last => &line[first + 1..last],
        _ => &[],
    }
}

/// `message` with another number in its `LockCookie` header, if it has one with digits alone.
pub(super) fn with_lock(message: &[u8], change: impl Fn(u32) -> u32) -> Vec<u8> {
    let (head, body) = message.split_at(head_bytes(message));
    let mut out = Vec::with_capacity(message.len() + 10);
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let number = HeaderLine::of(line)
            .filter(|header| header.name == "lockcookie")
            .and_then(|header| decimal(header.value))
            .and_then(|number| u32::try_from(number).ok());
        match (number, line.iter().position(u8::is_ascii_digit)) {
            (Some(number), Some(at)) => {
                out.extend_from_slice(&line[..at]);
                out.extend_from_slice(change(number).to_string().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(line),
        }
    }
    out.extend_from_slice(body);
    out
}

/// The number in a message's `LockCookie` header, if it is one.
pub(super) fn lock_in(message: &[u8]) -> Option<u32> {
    let head = &message[..head_bytes(message)];
    let mut headers = head.split(|&byte| byte == b'\n').filter_map(HeaderLine::of);
    let lock = headers.find(|header| header.name == "lockcookie")?;
    decimal(lock.value).and_then(|number| u32::try_from(number).ok())
}

/// Replaces every `from` in `bytes` by `to`, which is as long.
pub(super) fn replace_all(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..at + from.len()) {
        if rest == from {
            rest.copy_from_slice(to);
            at += from.len();
        } else {
            at += 1;
        }
    }
}

/// Whether `answer` is what `pattern` wants; `{LOCKDATE}` and `{LOCKAGE}` stand for digits.
fn matches(pattern: &[u8], answer: &[u8]) -> bool {
    let Some(open) = pattern.iter().position(|&byte| byte == b'{') else {
        return pattern == answer;
    };
    let rest = &pattern[open..];
    let rests = [&b"{LOCKDATE}"[..], b"{LOCKAGE}"].map(|name| rest.strip_prefix(name));
    let Some(rest) = rests.into_iter().flatten().next() else {
        return pattern == answer;
    };
    let Some((before, after)) = answer.split_at_checked(open) else {
        return false;
    };
    let count = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    before == &pattern[..open] && count > 0 && matches(rest, &after[count..])
}

fn is_value(wanted: &HeaderLine<'_>, got: &HeaderLine<'_>) -> bool {
    let is_digits = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match wanted.value {
        b"{LOCKDATE}" | b"{LOCKAGE}" => is_digits(got.value),
        value => value == got.value,
    }
}

/// The status as it stands in a status line, whether or not that has a version.
fn status(line: &[u8]) -> u16 {
    let mut words = line.split(|&byte| byte == b' ');
    let code = match words.next() {
        Some(first) if first.starts_with(b"HTTP/") => words.next(),
        first => first,
    };
    let code = code.and_then(decimal);
    code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0)
}

fn major_version(value: &[u8]) -> Option<u64> {
    decimal(value.split(|&byte| byte == b'.').next()?)
}

/// What an answer with the status `have` does to users, where `want` was right (protocol 6).
fn consequence(want: u16, have: u16, asked: AskedFor) -> &'static str {
    match (want, have, asked) {
        (_, 400, _) => ": the user gets an error page",
        (200 | 423, 404 | 500..=599, AskedFor::Read) => {
            ": ASP.NET starts an empty session without a word"
        }
        (200, 423, AskedFor::Read) => ": pages wait for a lock that nobody holds",
        (423, 200, AskedFor::Read) => ": two pages have the session at the same time",
        (423, 200, AskedFor::Other) => {
            ": what the holder of the lock writes or reads is overwritten"
        }
        (200, 423, AskedFor::Other) => ": what the page stored is lost without a word",
        (404, 200, AskedFor::Read) => ": a session that has ended comes back",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Parsed, ResponseHead};

    fn answer(bytes: &[u8]) -> TargetAnswer {
        let Ok(Parsed::Complete(head)) = ResponseHead::parse(bytes, 4096, false) else {
            unreachable!("a whole head");
        };
        let bytes = bytes.to_vec();
        let has_more = false;
        TargetAnswer {
            bytes,
            head,
            has_more,
        }
    }

    const ITEM: &[u8] =
        b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nLockCookie: 2\r\nTimeout: 20\r\n\
        Cache-Control: private\r\nContent-Length: 2\r\n\r\nab";

    #[test]
    fn what_nobody_goes_by_is_spelling() {
        let same: [&[u8]; 4] = [
            ITEM,
            b"HTTP/1.1 200 OK\r\nX-AspNet-Version: 2.0.50727\r\nLockCookie:2\r\ntimeout: 20\r\n\
              Content-Length: 2\r\n\r\nab",
            b"200 OK\r\nContent-Length: 2\r\nTimeout: 20\r\nLockCookie: 2\r\n\
              X-AspNet-Version: 4.0.30319\r\nCache-Control: private\r\n\r\nab",
            b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nActionFlags: 0\r\nLockCookie: 2\r\nTimeout: 20\r\n\
              Cache-Control: private\r\nContent-Length: 2\r\nServer: x\r\n\r\nab",
        ];
        let counts = same.map(|bytes| {
            let found = Differences::between(ITEM, &answer(bytes), AskedFor::Read);
            assert_eq!(found.matter, [""; 0], "{bytes:?}");
            found.spelling.len()
        });
        assert_eq!(counts, [0, 5, 1, 2]);
    }

    #[test]
    fn what_users_notice_is_named() {
        for (bytes, names) in [
            (&b"404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "empty session"),
            (b"423 Locked\r\nContent-Length: 0\r\n\r\n", "nobody holds"),
            (b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nTimeout: 20\r\nContent-Length: 2\r\n\r\nab", "no `LockCookie"),
            (b"200 OK\r\nLockCookie: 2\r\nTimeout: 20\r\nContent-Length: 2\r\n\r\nab", "no `X-AspNet-Version"),
            (b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nLockCookie: 3\r\nTimeout: 20\r\nContent-Length: 2\r\n\r\nab", "`LockCookie: 3` came"),
            (b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nLockCookie: 2\r\nTimeout: 20\r\nContent-Length: 2\r\n\r\naB", "from byte 1 on"),
            (b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nActionFlags: 1\r\nLockCookie: 2\r\nTimeout: 20\r\nContent-Length: 2\r\n\r\nab", "Session_Start runs again"),
        ] {
            let found = Differences::between(ITEM, &answer(bytes), AskedFor::Read);
            assert!(found.matter.iter().any(|text| text.contains(names)), "{names}: {found:?}");
        }
    }

    #[test]
    fn lock_cookies_are_replaced_where_they_are_numbers() {
        let with = |text: &str| {
            let text = format!("GET x HTTP/1.1\r\n{text}\r\n\r\nLockCookie: 3");
            String::from_utf8(with_lock(text.as_bytes(), |lock| lock + 1)).unwrap_or_default()
        };
        for (before, after) in [
            ("LockCookie:3", "LockCookie:4"),
            ("lockcookie: 3 ", "lockcookie: 4"),
            ("LockCookie: -3", "LockCookie: -3"),
            ("Timeout: 3", "Timeout: 3"),
        ] {
            assert!(
                with(before).contains(&format!("\r\n{after}\r\n")),
                "{before}"
            );
            assert!(with(before).ends_with("\r\n\r\nLockCookie: 3"));
        }
    }
}
