//! What a placement is built from.

/// Greatest weight of a member; the smallest is 1 and the usual one 100.
pub const MAX_WEIGHT: u32 = 1000;

/// Position of a backend in the caller's list of backends. Placement only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(u8);

impl BackendIndex {
    /// The backend at this position of the caller's list.
    #[must_use]
    pub const fn new(index: u8) -> Self {
        Self(index)
    }

    /// The position, for indexing the caller's list.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A backend that takes part in a placement. Its address plays no part.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The name that decides which slots it serves; distinct within a placement, not empty.
    pub name: &'a str,
    /// Its share in relation to the others, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What a lookup returns for it; distinct within a placement.
    pub backend: BackendIndex,
}
