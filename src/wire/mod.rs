//! The wire codec: bytes in, spans out, the original bytes kept.
//!
//! The protocol looks like HTTP/1.1 and is not: request targets usually have no leading slash and
//! may hold spaces, status lines usually have no version. Nothing here reads or writes a socket.
//!
//! * [`request`]: one request head as spans over the bytes it came in.
//! * [`response`]: one response head, the same way.
//! * [`head`]: the line and header scanner both share, strict about everything that smuggles.
//! * `header`: header lines, quick for those that are spelt as stock peers do.
//! * [`span`]: where things stand in a head.
//! * `scan`: the colons and control bytes of a head, found 32 bytes at a time.
//! * [`rewrite`]: replaces one header value in place, without touching the body behind it.
//! * [`encode`]: the requests and answers staterouter makes up itself, in stock spelling.
//!
//! Architecture invariant: what is forwarded is what came. Parsing never normalises.

pub mod encode;
pub mod head;
mod header;
pub mod request;
pub mod response;
pub mod rewrite;
mod scan;
pub mod span;

pub use encode::{Answer, BAD_REQUEST, Digits, Request};
pub use encode::{encode_answer, encode_request, encode_request_head};
pub use head::{HeadLimits, Parsed};
pub use request::{Exclusive, Method, Operation, RequestHead};
pub use response::{ResponseHead, Unfit, begins_answer};
pub use rewrite::{NoRoom, remove_line, replace_value};
pub use span::{Span, decimal, signed};

/// Why bytes cannot be framed. The text is fit for a log line: it never quotes the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A line feed without a carriage return before it.
    #[error("the peer ended a head line with a bare line feed")]
    BareLineFeed,
    /// A control byte (below 0x20, or 0x7f) in a head line.
    #[error("the peer sent a control byte inside a head line")]
    ControlByte,
    /// The head is longer than the limit, or does not end within it.
    #[error("the peer sent a head over the limit of {max_bytes} bytes")]
    HeadTooLarge {
        /// The limit in force.
        max_bytes: usize,
    },
    /// More header lines than [`head::MAX_HEADERS`].
    #[error("the peer sent more than {} header lines", head::MAX_HEADERS)]
    TooManyHeaders,
    /// The request line is not `METHOD target HTTP/x`.
    #[error("the client sent a request line that is not 'METHOD target HTTP/1.1'")]
    BadRequestLine,
    /// The status line is neither `NNN phrase` nor `HTTP/1.x NNN phrase`, or the status is 1xx.
    #[error("the backend sent a status line that is not 'NNN phrase'")]
    BadStatusLine,
    /// A header line without a colon, with an empty or malformed name, with a space before the
    /// colon, or folded onto the line before.
    #[error("the peer sent a malformed header line")]
    BadHeaderLine,
    /// A header that decides framing or locking came twice.
    #[error("the peer sent the header {name} more than once")]
    DuplicateHeader {
        /// The header's stock spelling.
        name: &'static str,
    },
    /// `Content-Length` is not a plain decimal number.
    #[error("the peer sent a Content-Length that is not a decimal number")]
    BadContentLength,
    /// `Transfer-Encoding` is never part of this protocol.
    #[error("the peer sent a Transfer-Encoding header")]
    TransferEncoding,
    /// An `Origin` header: a page in a browser makes the request, and no web server.
    #[error("the client sent an Origin header: a page in a browser makes the request")]
    FromWebPage,
    /// The announced body is longer than the limit.
    #[error("the peer announced a body over the limit of {max_bytes} bytes")]
    BodyTooLarge {
        /// The limit in force.
        max_bytes: u64,
    },
    /// A response that may have a body does not say how long it is.
    #[error("the backend sent an answer without Content-Length")]
    MissingContentLength,
}
