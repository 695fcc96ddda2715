//! Answers of a state server, as a scripted backend sends them.

/// Success without a body.
pub const DONE: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// The one answer that proxy and state server make up for bytes they cannot frame.
pub const BAD_REQUEST: &[u8] = b"400 Bad Request\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// The answer to a read or an acquire, told by the request's bytes, has an item; others have none.
pub fn brings_item(request: &[u8]) -> bool {
    request.starts_with(b"GET ") && !is_release(request)
}

/// Success, as a state server says it to `request` (its bytes as the backend gets them); an acquire
/// takes the lock `lock_cookie`.
pub fn success(request: &[u8], lock_cookie: u32, body: &[u8]) -> Vec<u8> {
    if !brings_item(request) {
        return DONE.to_vec();
    }
    match contains(request, b"acquire") {
        true => locked_item(lock_cookie, body),
        false => item(body),
    }
}

fn is_release(request: &[u8]) -> bool {
    contains(request, b"release")
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes
        .windows(wanted.len())
        .any(|part| part.eq_ignore_ascii_case(wanted))
}

/// The answer to a shared read.
pub fn item(body: &[u8]) -> Vec<u8> {
    with_body("", body)
}

/// The answer to an acquire.
pub fn locked_item(lock_cookie: u32, body: &[u8]) -> Vec<u8> {
    with_body(&format!("LockCookie: {lock_cookie}\r\n"), body)
}

fn with_body(lock: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "200 OK\r\nX-AspNet-Version: 4.0.30319\r\n{lock}Timeout: 20\r\n\
         Cache-Control: private\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}
