//! Item bodies: immutable bytes shared between the store and the answers being written.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// From this length on a `Vec` is kept as it came instead of being copied once more.
const KEEP_VEC_FROM_BYTES: usize = 16 * 1024;

/// The opaque bytes of one item.
///
/// A clone is a counter increment, so a GET takes the body out of the store without copying it
/// under a lock and without allocating, and a PUT that replaces the body does not disturb the
/// answers still being written from the old one.
///
/// Build it with `From<&[u8]>` when the bytes sit in a connection's read buffer: that is the one
/// copy. Build it with `From<Vec<u8>>` when a long body was gathered over several reads: from
/// 16 KiB on the vector's own memory becomes the body (spare capacity is given back); below that
/// one small copy is cheaper than a second allocation for the life of the item.
#[derive(Clone)]
pub struct Body(Bytes);

/// Both forms together are as small as the first alone.
#[derive(Clone)]
enum Bytes {
    /// Counter and bytes in one allocation.
    Inline(Arc<[u8]>),
    /// The bytes in the allocation they were received in.
    Kept(Arc<Box<[u8]>>),
}

impl Default for Body {
    /// The empty body; allocates nothing.
    fn default() -> Self {
        Self(Bytes::Inline(Arc::default()))
    }
}

impl From<&[u8]> for Body {
    /// Copies `bytes` into one allocation of just the size needed.
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::Inline(Arc::from(bytes)))
    }
}

impl From<Vec<u8>> for Body {
    /// Takes over the memory of a long vector, copies a short one.
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() < KEEP_VEC_FROM_BYTES {
            return Self::from(bytes.as_slice());
        }
        Self(Bytes::Kept(Arc::new(bytes.into_boxed_slice())))
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline(bytes) => bytes,
            Bytes::Kept(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    /// The length only: session contents do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_vectors_keep_their_bytes() {
        for length in [0, 1, KEEP_VEC_FROM_BYTES - 1, KEEP_VEC_FROM_BYTES, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut roomy = bytes.clone();
            roomy.reserve(1000);
            assert_eq!(&*Body::from(roomy), bytes.as_slice());
            assert_eq!(Body::from(bytes.as_slice()), Body::from(bytes));
        }
    }

    #[test]
    fn a_long_vector_is_not_copied() {
        let bytes = vec![7; KEEP_VEC_FROM_BYTES];
        let address = bytes.as_ptr();
        assert_eq!(Body::from(bytes).as_ptr(), address);
    }

    #[test]
    fn two_forms_cost_no_more_than_one() {
        assert_eq!(size_of::<Body>(), size_of::<Arc<[u8]>>());
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(
            format!("{:?}", Body::from(b"secret".as_slice())),
            "Body(6 bytes)"
        );
    }
}
