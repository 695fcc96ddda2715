//! One request of every kind, with the answer a state server gives.

use super::client;
use super::tags::tag;

/// The body of a stored session.
pub const BODY: &[u8] = b"the session of one user\xff";

/// The lock in the messages of [`all`], as its server counts.
pub const COUNTER: u32 = 2;

/// One message on both sides of a proxy. The two differ in the lock cookie, whose tag the backend
/// never sees, and in nothing else.
pub struct Message {
    pub client: Vec<u8>,
    pub backend: Vec<u8>,
}

impl Message {
    /// One without a lock cookie.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self {
            client: bytes.clone(),
            backend: bytes,
        }
    }

    /// One with the lock `counter` of the backend with this id; `message` makes it of a cookie.
    pub fn with_lock(id: u8, counter: u32, message: impl Fn(u32) -> Vec<u8>) -> Self {
        Self {
            client: message(tag(id, counter)),
            backend: message(counter),
        }
    }
}

/// A request and its answer.
pub struct Exchange {
    /// The operation as log lines name it.
    pub name: &'static str,
    pub request: Message,
    pub answer: Message,
    /// Whether a second one harms nobody when nothing came back from the first.
    pub is_repeatable: bool,
}

impl Exchange {
    /// Length of the answer's head in bytes, as the backend sends it.
    pub fn head_bytes(&self) -> usize {
        self.answer.backend.len() - client::body(&self.answer.backend).len()
    }

    /// What the client has of the answer once the backend has sent the first `sent` bytes of it:
    /// no byte before the head is whole.
    pub fn passed_on(&self, sent: usize) -> &[u8] {
        let Message { client, backend } = &self.answer;
        if sent < self.head_bytes() {
            return &[];
        }
        &client[..sent + client.len() - backend.len()]
    }
}

/// All operations on session `id`, which the backend with the id 1 serves.
pub fn all(id: &str) -> [Exchange; 6] {
    all_on(1, id)
}

/// All operations on session `id`, which the backend with the id `backend` serves.
pub fn all_on(backend: u8, id: &str) -> [Exchange; 6] {
    let exchange = |name, request, answer, is_repeatable| Exchange {
        name,
        request,
        answer,
        is_repeatable,
    };
    let plain = Message::plain;
    let locked = |request: fn(&str, u32) -> Vec<u8>| {
        Message::with_lock(backend, COUNTER, |cookie| request(id, cookie))
    };
    let empty = || plain(ok("", b""));
    let item = plain(ok("Timeout: 20\r\n", BODY));
    let locked_item = Message::with_lock(backend, COUNTER, |cookie| {
        ok(&format!("LockCookie: {cookie}\r\nTimeout: 20\r\n"), BODY)
    });
    let put = locked(|id, cookie| client::put(id, cookie, BODY));
    [
        exchange("get", plain(client::get(id)), item, true),
        exchange("acquire", plain(client::acquire(id)), locked_item, false),
        exchange("release", locked(client::release), empty(), false),
        exchange("put", put, empty(), false),
        exchange("remove", locked(client::delete), empty(), false),
        exchange("touch", plain(client::head(id)), empty(), true),
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
