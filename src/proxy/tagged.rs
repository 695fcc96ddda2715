//! A client's request before and after its lock cookie has lost the tag: two types, so that nothing
//! can be sent with a tag, and none is taken off where another value stands.

use crate::backend::{BodyStream, RequestContent};
use crate::net::Buffer;
use crate::wire::{self, Digits, RequestHead, Span};

/// A client's request at the start of its buffer, as it came or as it was sent last.
#[derive(Debug)]
pub(super) struct TaggedRequest {
    /// Where its lock cookie stands now.
    cookie: Option<Span>,
    /// Its length now.
    bytes: u64,
}

/// The same with the lock cookie that its server knows, ready to go out.
#[derive(Debug)]
pub(super) struct UntaggedRequest<'b> {
    /// Begins with it.
    buffer: &'b mut Buffer,
    bytes: u64,
}

impl TaggedRequest {
    /// The request with this head, as it came.
    pub(super) fn new(head: &RequestHead) -> Self {
        Self {
            cookie: head.lock_cookie,
            bytes: head.head_bytes as u64 + head.body_bytes,
        }
    }

    /// Its length as it stands now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts the server's own lock cookie in place of the one that stands there; `None` leaves it,
    /// and so does one that is no number, for the server to refuse. The head's spans behind the cookie are outdated afterwards.
    pub(super) fn untag<'b>(
        &mut self,
        received: &'b mut Buffer,
        counter: Option<u32>,
    ) -> UntaggedRequest<'b> {
        if let (Some(counter), Some(cookie)) = (counter, self.cookie)
            && wire::signed(cookie.of(received.filled())).is_some()
        {
            let digits = Digits::of(counter.into());
            let digits = digits.as_bytes();
            let before = received.len() as u64;
            // Without room it stays: a cookie that fits no lock.
            if received.replace_value(cookie, digits).is_ok() {
                self.bytes = self.bytes + received.len() as u64 - before;
                self.cookie = Some(Span::new(cookie.start(), cookie.start() + digits.len()));
            }
        }
        UntaggedRequest {
            buffer: received,
            bytes: self.bytes,
        }
    }
}

impl UntaggedRequest<'_> {
    /// All of it; `None` while a part of its body has not come.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.buffer
            .filled()
            .get(..usize::try_from(self.bytes).ok()?)
    }

    /// Its head, in front of a body of so many bytes.
    pub(super) fn head(&self, body_bytes: u64) -> &[u8] {
        let head_bytes = self.bytes - body_bytes;
        self.buffer
            .filled()
            .get(..head_bytes as usize)
            .unwrap_or_default()
    }

    /// How much of it has come.
    fn at_hand(&self) -> u64 {
        self.bytes.min(self.buffer.len() as u64)
    }

    /// Its bytes to go out; what has not come of its body comes from `body`.
    pub(super) fn content<'s>(&'s mut self, body: BodyStream<'s>) -> RequestContent<'s> {
        match self.bytes - self.at_hand() {
            0 => RequestContent::Received {
                bytes: self.bytes as usize,
                buffer: self.buffer,
            },
            rest => RequestContent::Streamed {
                body: BodyStream { rest, ..body },
                buffer: self.buffer,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::BufferPool;
    use crate::wire::{HeadLimits, Parsed};

    #[test]
    fn a_cookie_that_is_replaced_twice_is_the_last_one_and_nothing_else() {
        let text = b"DELETE /a HTTP/1.1\r\nLockCookie: 16777218\r\nTimeout:20\r\n\r\nGET /b";
        let mut received = BufferPool::new(4096).take();
        received.room_mut()[..text.len()].copy_from_slice(text);
        received.grow(text.len());
        let parsed = RequestHead::parse(received.filled(), &HeadLimits::default()).unwrap();
        let Parsed::Complete(head) = parsed else {
            panic!("partial");
        };
        let mut request = TaggedRequest::new(&head);
        for (counter, digits) in [(Some(2), "2"), (Some(1234), "1234"), (None, "1234")] {
            let expected =
                format!("DELETE /a HTTP/1.1\r\nLockCookie: {digits}\r\nTimeout:20\r\n\r\n");
            let untagged = request.untag(&mut received, counter);
            assert_eq!(untagged.whole().unwrap(), expected.as_bytes());
            assert!(received.filled().ends_with(b"GET /b"));
        }
    }
}
