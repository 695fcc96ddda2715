//! What of an exchange may be written down: everything but session ids, bodies, and values that may
//! name somebody.

use crate::route::{HashKey, KeyBuffer, extract};

/// Headers whose values are numbers or words of the protocol.
const SHOWN: [&str; 14] = [
    "actionflags",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "exclusive",
    "extraflags",
    "lock-cookie",
    "lockage",
    "lockcookie",
    "lockdate",
    "timeout",
    "transfer-encoding",
    "x-aspnet-version",
];

/// Longest value that is shown.
const MAX_VALUE_BYTES: usize = 64;

/// Lengths of the base64 hash in a target (protocol 2.3, rule 4).
const HASH_BYTES: [usize; 5] = [24, 28, 44, 64, 88];

/// A head without what may not be written down: its first line and its headers.
pub(super) struct Blanked {
    pub(super) line: String,
    pub(super) headers: Vec<String>,
}

/// The head of an answer.
pub(super) fn answer(head: &[u8]) -> Blanked {
    let mut lines = lines(head);
    let line = lines.next().unwrap_or_default();
    let line = match line.len() <= MAX_VALUE_BYTES {
        true => printable(line),
        false => blank(line),
    };
    Blanked {
        line,
        headers: lines.map(header).collect(),
    }
}

/// The head of a request whose target is `target`. Its session id becomes a fingerprint under `key`,
/// which nobody else has.
pub(super) fn request(
    head: &[u8],
    target: &[u8],
    key: &HashKey,
    buffer: &mut KeyBuffer,
) -> Blanked {
    let mut lines = lines(head);
    let line = lines.next().unwrap_or_default();
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let shown = blank_target(target, key, buffer);
    let line = format!("{} {shown} {}", printable(method), printable(version));
    Blanked {
        line,
        headers: lines.map(header).collect(),
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let head = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    head.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// A header with its own spelling and spacing.
fn header(line: &[u8]) -> String {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return blank(line);
    };
    let (name, rest) = line.split_at(colon + 1);
    let value = rest.trim_ascii();
    let is_shown = |name: &String| SHOWN.contains(&&**name) && value.len() <= MAX_VALUE_BYTES;
    let lower = String::from_utf8_lossy(&name[..colon]).to_ascii_lowercase();
    if is_shown(&lower) {
        return printable(line);
    }
    let start = rest.len() - rest.trim_ascii_start().len();
    let spacing = printable(&rest[..start]);
    let value = match &*lower {
        "host" => host(value),
        _ => blank(value),
    };
    format!("{}{spacing}{value}", printable(name))
}

/// Whether a `Host` has a port is an open question (protocol 1); its name is nobody's business.
fn host(value: &[u8]) -> String {
    let is_address = value
        .iter()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b':'));
    let kind = match (value, is_address) {
        (b"localhost", _) => "localhost",
        (_, true) => "{address}",
        _ => "{name}",
    };
    let port = if !is_address && value.contains(&b':')
        || value.iter().filter(|&&b| b == b':').count() == 1
    {
        ":{port}"
    } else {
        ""
    };
    format!("{kind}{port}")
}

/// The target with its application in its own spelling; hash and session id blanked. One that has not
/// the usual form is blanked as a whole: the id may be anywhere in it.
fn blank_target(target: &[u8], hash_key: &HashKey, buffer: &mut KeyBuffer) -> String {
    let Ok(key) = extract(target, buffer) else {
        return blank(target);
    };
    let (app, hash, id) = (key.app(), key.hash(), key.session_id());
    if !HASH_BYTES.contains(&hash.len()) {
        return blank(target);
    }
    let dropped = usize::from(target.starts_with(b"//"));
    let raw = &target[dropped..];
    // Where the application ends, the hash ends and the id begins, counted in decoded bytes.
    let marks = [
        app.len() + 1,
        app.len() + 1 + hash.len(),
        key.key().len() - id.len(),
    ];
    let Some([app_end, hash_end, id_start]) = raw_offsets(raw, marks) else {
        return blank(target);
    };
    let fingerprint = hash_key.locate(id).fingerprint;
    format!(
        "{}{}{{hash of {}}}{}{{id of {}, {fingerprint}}}",
        "/".repeat(dropped),
        printable(&raw[..app_end]),
        hash.len(),
        printable(&raw[hash_end..id_start]),
        id.len()
    )
}

/// Where in `raw` its decoded form has these lengths; `None` if an escape lies across.
fn raw_offsets(raw: &[u8], decoded: [usize; 3]) -> Option<[usize; 3]> {
    let (mut at, mut bytes) = (0, 0);
    let mut offsets = [0; 3];
    for (offset, wanted) in offsets.iter_mut().zip(decoded) {
        while bytes < wanted {
            let escape = raw.get(at..)?;
            let is_hex = |range: std::ops::Range<usize>| {
                escape
                    .get(range)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            };
            match escape.first()? {
                // How many bytes it becomes depends on the character.
                b'%' if matches!(escape.get(1), Some(b'u')) => return None,
                b'%' if is_hex(1..3) => at += 3,
                _ => at += 1,
            }
            bytes += 1;
        }
        *offset = at;
    }
    (bytes <= raw.len()).then_some(offsets)
}

fn blank(value: &[u8]) -> String {
    format!("{{{} bytes}}", value.len())
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey::DEFAULT;

    fn blanked(line: &str, headers: &str) -> (String, Vec<String>) {
        let head = format!("{line}\r\n{headers}\r\n\r\n");
        let target = &line[line.find(' ').map_or(0, |at| at + 1)..line.rfind(' ').unwrap_or(0)];
        let found = request(
            head.as_bytes(),
            target.as_bytes(),
            &KEY,
            &mut KeyBuffer::new(),
        );
        (found.line, found.headers)
    }

    #[test]
    fn ids_and_hashes_are_blanked_and_the_rest_keeps_its_spelling() {
        let id = "q3m1zt0xk4vdw2hn5sbyr0ac";
        let fingerprint = KEY.locate(id.as_bytes()).fingerprint;
        let hash = "+IX1jDdb8gEgX7u7ujFzV%2fbCl3Q5N4MbcrNz8bYMEhU%3d";
        for (app, slash) in [
            ("%2fLM%2fW3SVC%2f2%2fROOT", "%2f"),
            ("//LM/W3SVC/2/ROOT", "/"),
        ] {
            let (line, _) = blanked(&format!("GET {app}({hash}){slash}{id} HTTP/1.1"), "Host: x");
            let wanted =
                format!("GET {app}({{hash of 44}}){slash}{{id of 24, {fingerprint}}} HTTP/1.1");
            assert_eq!(line, wanted);
        }
        let (line, _) = blanked(
            "GET /some/other/q3m1zt0xk4vdw2hn5sbyr0ac HTTP/1.1",
            "Host: x",
        );
        assert_eq!(line, "GET {36 bytes} HTTP/1.1");
    }

    #[test]
    fn values_are_shown_only_of_the_protocols_own_headers() {
        let headers =
            "Host: web-07.example.com\r\nHOST:10.0.0.7:80\r\nLockCookie:2\r\nX-User:  Alice\r\nodd";
        let (_, headers) = blanked("GET /x HTTP/1.1", headers);
        let wanted = [
            "Host: {name}",
            "HOST:{address}:{port}",
            "LockCookie:2",
            "X-User:  {5 bytes}",
            "{3 bytes}",
        ];
        assert_eq!(headers, wanted);
    }
}
