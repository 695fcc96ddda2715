//! Answers of a state server, as a scripted backend sends them.

/// Success without a body.
pub const DONE: &[u8] = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// The one answer that proxy and state server make up for bytes they cannot frame.
pub const BAD_REQUEST: &[u8] = b"400 Bad Request\r\nX-AspNet-Version: 4.0.30319\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

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
