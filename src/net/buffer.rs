//! Recycled buffers. A connection borrows one when bytes arrive and gives it back when the
//! message is done, so memory follows the requests in flight and not the open connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, ready};

use crate::route::MAX_START_BYTES;
use crate::wire::{self, NoRoom, Span};

/// Bytes kept free in front of the first message, so that a header value and the start of a target
/// can grow in place.
pub const HEADROOM_BYTES: usize = wire::rewrite::HEADROOM_BYTES + MAX_START_BYTES;

/// The free buffers of one worker, last in first out so that the next one is still in the cache.
///
/// As many are kept as have been in use lately: a new one has to be cleared, which costs more than
/// all that is done with it.
#[derive(Debug)]
pub struct BufferPool {
    free: RefCell<Vec<Box<[u8]>>>,
    /// The fewest that were free at a time since the last [`Self::shrink`].
    never_used: Cell<usize>,
    buffer_bytes: usize,
}

impl BufferPool {
    /// A pool of buffers that hold `capacity_bytes` of message each.
    pub fn new(capacity_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            free: RefCell::default(),
            never_used: Cell::new(0),
            buffer_bytes: capacity_bytes + HEADROOM_BYTES,
        })
    }

    /// An empty buffer; it returns by itself when dropped.
    pub fn take(self: &Rc<Self>) -> Buffer {
        let bytes = self.pop(&mut self.free.borrow_mut());
        self.empty(bytes.unwrap_or_else(|| self.allocate()))
    }

    /// Gives half of the buffers that nobody has used since the last call back to the allocator.
    pub fn shrink(&self) {
        let mut free = self.free.borrow_mut();
        let count = free.len();
        let surplus = self.never_used.get().min(count).div_ceil(2);
        // The first ones are those that have been free for longest.
        free.drain(..surplus);
        self.never_used.set(count - surplus);
    }

    /// A buffer with what `read` puts into it, and says the length of. It is taken only once there
    /// is something in it, and returns by itself when dropped. `read` must not use the pool.
    pub fn fill<E>(
        self: &Rc<Self>,
        read: impl FnOnce(&mut [u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<Buffer, E>> {
        let mut free = self.free.borrow_mut();
        if free.is_empty() {
            free.push(self.allocate());
        }
        let last = free.len() - 1;
        let count = ready!(read(&mut free[last][HEADROOM_BYTES..]))?;
        let mut buffer = self.empty(self.pop(&mut free).unwrap_or_default());
        buffer.grow(count);
        Poll::Ready(Ok(buffer))
    }

    fn pop(&self, free: &mut Vec<Box<[u8]>>) -> Option<Box<[u8]>> {
        let bytes = free.pop();
        if free.len() < self.never_used.get() {
            self.never_used.set(free.len());
        }
        bytes
    }

    fn allocate(&self) -> Box<[u8]> {
        vec![0; self.buffer_bytes].into_boxed_slice()
    }

    fn empty(self: &Rc<Self>, bytes: Box<[u8]>) -> Buffer {
        Buffer {
            bytes,
            start: HEADROOM_BYTES,
            end: HEADROOM_BYTES,
            pool: Rc::clone(self),
        }
    }
}

/// Bytes received and not yet consumed, in one contiguous run. One that was released has no memory
/// until room is asked for.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    pool: Rc<BufferPool>,
}

impl Buffer {
    /// The bytes held.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Number of bytes held.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The free room behind the bytes held.
    pub fn room_mut(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            *self = Rc::clone(&self.pool).take();
        }
        &mut self.bytes[self.end..]
    }

    /// Takes over `count` bytes that were written into [`Self::room_mut`].
    pub fn grow(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Replaces a header value of the head at the front; the body behind it stays where it is.
    ///
    /// # Errors
    /// [`NoRoom`] when the value grows by more than the room in front, with nothing changed.
    pub fn replace_value(&mut self, value: Span, new_value: &[u8]) -> Result<(), NoRoom> {
        self.start = wire::replace_value(&mut self.bytes, self.start, value, new_value)?;
        Ok(())
    }

    /// Takes the line of a header value out of the head at the front.
    pub fn remove_line(&mut self, value: Span) {
        self.start = wire::remove_line(&mut self.bytes, self.start, value);
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.start = HEADROOM_BYTES.min(self.bytes.len());
        self.end = self.start;
    }

    /// Drops everything, and gives the memory back while there is nothing to hold.
    pub fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        self.give_back();
    }

    /// Moves what is held to the front, so that the room behind it is as large as can be.
    pub fn compact(&mut self) {
        if self.is_empty() {
            return self.clear();
        }
        self.bytes.copy_within(self.start..self.end, HEADROOM_BYTES);
        self.end = HEADROOM_BYTES + self.len();
        self.start = HEADROOM_BYTES;
    }

    #[inline]
    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.pool.free.borrow_mut().push(bytes);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room_mut()[..bytes.len()].copy_from_slice(bytes);
        buffer.grow(bytes.len());
    }

    #[test]
    fn a_buffer_is_a_queue_of_bytes() {
        let pool = BufferPool::new(8);
        let mut buffer = pool.take();
        put(&mut buffer, b"abcdefgh");
        assert!(buffer.room_mut().is_empty());
        buffer.consume(5);
        assert_eq!(buffer.filled(), b"fgh");
        buffer.compact();
        put(&mut buffer, b"ijk");
        assert_eq!(buffer.filled(), b"fghijk");
        buffer.consume(100);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_returned_buffer_is_used_again_and_comes_back_empty() {
        let pool = BufferPool::new(8);
        let mut buffer = pool.take();
        put(&mut buffer, b"secret");
        let place = buffer.bytes.as_ptr();
        drop(buffer);
        assert!(pool.fill(|_| Poll::<Result<_, ()>>::Pending).is_pending());
        let again = pool.take();
        assert_eq!(again.bytes.as_ptr(), place);
        assert!(again.is_empty());
    }

    #[test]
    fn a_released_buffer_leaves_its_memory_to_others_and_takes_some_again_when_it_is_filled() {
        let pool = BufferPool::new(8);
        let mut buffer = pool.take();
        put(&mut buffer, b"abc");
        buffer.release();
        assert!(buffer.is_empty());
        buffer.compact();
        assert_eq!(pool.free.borrow().len(), 1);
        let mut other = pool.take();
        buffer.clear();
        put(&mut buffer, b"abcdefgh");
        put(&mut other, b"x");
        assert_eq!(buffer.filled(), b"abcdefgh");
        buffer.release();
        drop(buffer);
        assert_eq!(pool.free.borrow().len(), 1);
    }

    #[test]
    fn buffers_stay_while_they_are_needed_and_go_once_they_are_not() {
        let pool = BufferPool::new(8);
        let free = |pool: &BufferPool| pool.free.borrow().len();
        let burst = |count| drop((0..count).map(|_| pool.take()).collect::<Vec<_>>());
        burst(8);
        pool.shrink();
        assert_eq!(free(&pool), 8);
        burst(8);
        pool.shrink();
        assert_eq!(free(&pool), 8);
        burst(2);
        for left in [5, 2, 1, 0] {
            pool.shrink();
            assert_eq!(free(&pool), left);
        }
    }
}
