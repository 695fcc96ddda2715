//! Asks a backend whether it answers as a state server does.

use std::time::Duration;

use super::asker::{AskError, Asker, MAX_HEAD_BYTES};
use super::connector::Connector;
use super::upstream::{AskFailed, Broken, BrokenReason, Outgoing, RequestContent, RetryPolicy};
use crate::health::Failure;
use crate::wire::{Operation, Parsed, Request, ResponseHead, WireError, encode_request};

/// A key that no session has, in stock spelling (protocol 2, 7): a web server that has taken the
/// address refuses a target without a slash, where a state server finds nothing.
pub const PROBE_TARGET: &[u8] = b"%2fstaterouter-probe(AAAAAAAAAAAAAAAAAAAAAAAAAAA%3d)%2fprobe";

/// What a staterouter proxy answers to a probe, which it never forwards: so that nobody takes it for
/// a state server, and no probe goes round in circles.
pub const PROXY_ANSWER: &[u8] = b"421 Misdirected Request\r\nX-Staterouter: proxy\r\n\
Cache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// What tells that answer from others.
const PROXY_HEADER: &[u8] = b"\r\nX-Staterouter: proxy\r\n";

/// A probe that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An answer that a state server does not give to a HEAD.
    #[error("status {0} instead of 200 or 404")]
    Status(u16),
    /// A web server's answer.
    #[error("a web server answered, with status {0}")]
    WebServer(u16),
    /// The answer of a proxy between web servers and clients.
    #[error("an HTTP proxy or load balancer answered, with status {0}")]
    HttpProxy(u16),
    /// An answer without `X-AspNet-Version`.
    #[error(
        "status {0} without X-AspNet-Version: no state server, or one whose machine.config says \
         enableVersionHeader=\"false\""
    )]
    NoVersion(u16),
    /// A proxy of this program has answered.
    #[error("a staterouter proxy answered, not a state server")]
    Proxy,
}

/// The probes of one backend.
///
/// Each goes over a connection of its own. It takes none from the requests, and it meets what the
/// next request without a pooled connection would meet.
#[derive(Debug)]
pub struct Prober {
    asker: Asker,
    request: Vec<u8>,
}

impl Prober {
    /// For `server`; a probe takes `timeout` at most, connecting included.
    pub fn new(server: Connector, timeout: Duration) -> Self {
        let mut request = Vec::new();
        encode_request(
            &mut request,
            &Request {
                operation: Operation::Touch,
                target: PROBE_TARGET,
                lock_cookie: 0,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        Self {
            asker: Asker::new(server, timeout, 0),
            request,
        }
    }

    /// Asks once. Needs a runtime with timers and sockets, on the thread where it stays.
    ///
    /// # Errors
    /// [`ProbeError`], unless the backend answers in time and as a state server does.
    pub async fn probe(&mut self) -> Result<(), ProbeError> {
        let request = Outgoing {
            operation: Operation::Touch,
            content: RequestContent::Whole(&self.request),
            body_bytes: 0,
            retry: RetryPolicy::Unsent,
        };
        let reply = match self.asker.ask(request).await {
            Ok(reply) => reply.bytes,
            // What else has answered shows in the bytes.
            Err(AskFailed::Broken(Broken {
                reason: BrokenReason::Unfit(_),
                came: Some(came),
                ..
            })) => came,
            Err(failed) => return Err(self.asker.error(failed).into()),
        };
        match ResponseHead::parse(reply.filled(), MAX_HEAD_BYTES, true) {
            Ok(Parsed::Complete(head)) => judge(&head, &reply.filled()[..head.head_bytes]),
            // It was whole a moment ago.
            Ok(Parsed::Partial) => Err(AskError::Garbage(WireError::BadStatusLine).into()),
            Err(error) => Err(AskError::Garbage(error).into()),
        }
    }
}

impl ProbeError {
    /// What it says about the backend.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Ask(error) => error.failure(),
            Self::Status(_) => Failure::OtherStatus,
            Self::WebServer(_) => Failure::WebServer,
            Self::HttpProxy(_) => Failure::HttpProxy,
            Self::NoVersion(_) => Failure::NoVersion,
            Self::Proxy => Failure::Staterouter,
        }
    }
}

/// Whether a state server has answered, and what else has if none did. Only a state server's answer
/// has `X-AspNet-Version` beside a status that means something here.
fn judge(answer: &ResponseHead, head: &[u8]) -> Result<(), ProbeError> {
    let status = answer.status;
    if is_from_proxy(head) {
        return Err(ProbeError::Proxy);
    }
    if answer.has_version {
        return match status {
            200 | 404 => Ok(()),
            other => Err(ProbeError::Status(other)),
        };
    }
    let has_header = |name: &str| {
        let mut lines = head.split(|&byte| byte == b'\n');
        lines.any(|line| {
            let start = line.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        })
    };
    let is_http = head.starts_with(b"HTTP/");
    if has_header("Via:") || is_http && matches!(status, 407 | 502..=504) {
        Err(ProbeError::HttpProxy(status))
    } else if is_http || has_header("Server:") {
        Err(ProbeError::WebServer(status))
    } else {
        Err(ProbeError::NoVersion(status))
    }
}

fn is_from_proxy(head: &[u8]) -> bool {
    let mut places = head.windows(PROXY_HEADER.len());
    places.any(|place| place == PROXY_HEADER)
}
