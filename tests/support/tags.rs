//! Lock cookies as clients see them: with the number of the backend that issued them.

/// The lock `counter` of the backend with this id.
pub const fn tag(id: u8, counter: u32) -> u32 {
    (id as u32) << 24 | counter
}

/// A counter of every length that there is room for beside a tag.
pub const COUNTERS: [u32; 8] = [3, 42, 777, 1234, 65_535, 999_999, 1_234_567, 16_777_215];

/// `message` with a tag in its `LockCookie`, if that is a number.
pub fn tagged(id: u8, message: &[u8]) -> Vec<u8> {
    with_cookie(message, |counter| tag(id, counter))
}

/// `message` with another number in its `LockCookie`, if there is one.
pub fn with_cookie(message: &[u8], change: impl Fn(u32) -> u32) -> Vec<u8> {
    let head = message.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, rest) = message.split_at(head.unwrap_or(message.len()));
    let changed = |line: &[u8]| {
        let number = line.strip_prefix(b"LockCookie:")?.trim_ascii();
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let before = line.iter().position(u8::is_ascii_digit)?;
        Some([&line[..before], change(number).to_string().as_bytes()].concat())
    };
    let lines = head.split(|&byte| byte == b'\n').map(|line| {
        let (line, end) = match line.strip_suffix(b"\r") {
            Some(line) => (line, &b"\r"[..]),
            None => (line, &b""[..]),
        };
        let line = changed(line).unwrap_or_else(|| line.to_vec());
        [&line, end].concat()
    });
    let head: Vec<Vec<u8>> = lines.collect();
    [&head.join(&b'\n'), rest].concat()
}
