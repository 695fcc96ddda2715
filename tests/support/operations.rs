//! One request of every kind, with the answer a state server gives.

use super::client;

/// The body of a stored session.
pub const BODY: &[u8] = b"the session of one user\xff";

/// A request and its answer.
pub struct Exchange {
    /// The operation as log lines name it.
    pub name: &'static str,
    pub request: Vec<u8>,
    pub answer: Vec<u8>,
    /// Whether a second one harms nobody when nothing came back from the first.
    pub is_repeatable: bool,
}

impl Exchange {
    /// Length of the answer's head in bytes.
    pub fn head_bytes(&self) -> usize {
        self.answer.len() - client::body(&self.answer).len()
    }
}

/// All operations on session `id`.
pub fn all(id: &str) -> [Exchange; 6] {
    let exchange = |name, request, answer, is_repeatable| Exchange {
        name,
        request,
        answer,
        is_repeatable,
    };
    let empty = ok("", b"");
    [
        exchange("get", client::get(id), ok("Timeout: 20\r\n", BODY), true),
        exchange(
            "acquire",
            client::acquire(id),
            ok("LockCookie: 2\r\nTimeout: 20\r\n", BODY),
            false,
        ),
        exchange("release", client::release(id, 2), empty.clone(), false),
        exchange("put", client::put(id, 2, BODY), empty.clone(), false),
        exchange("remove", client::delete(id, 2), empty.clone(), false),
        exchange("touch", client::head(id), empty, true),
    ]
}

/// A 200 with `headers` (whole lines) and `body`.
pub fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer = format!(
        "200 OK\r\nX-AspNet-Version: 4.0.30319\r\n{headers}Cache-Control: private\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}
