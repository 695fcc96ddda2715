//! A value for each backend there can be.

use std::ops::{Index, IndexMut};

use super::lock_cookie::BackendId;

/// One more than the largest id.
const PLACES: usize = 128;

/// One value for each [`BackendId`]: an array, so that finding one is no search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendMap<T>([T; PLACES]);

impl<T: Copy> BackendMap<T> {
    /// The same value for all.
    #[must_use]
    pub const fn filled(value: T) -> Self {
        Self([value; PLACES])
    }
}

impl<T: Copy + Default> BackendMap<T> {
    /// `values` where they are given, the default elsewhere.
    pub fn of(values: impl IntoIterator<Item = (BackendId, T)>) -> Self {
        let mut map = Self::filled(T::default());
        for (backend_id, value) in values {
            map[backend_id] = value;
        }
        map
    }
}

impl<T> Index<BackendId> for BackendMap<T> {
    type Output = T;

    #[inline]
    fn index(&self, backend_id: BackendId) -> &T {
        &self.0[usize::from(backend_id.id())]
    }
}

impl<T> IndexMut<BackendId> for BackendMap<T> {
    #[inline]
    fn index_mut(&mut self, backend_id: BackendId) -> &mut T {
        &mut self.0[usize::from(backend_id.id())]
    }
}
