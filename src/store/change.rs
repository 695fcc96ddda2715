//! What a store tells of its changes.

use super::item::{Item, ItemMarks};

/// What a command or a sweep did to an item, told while no other command on its key can run: those
/// who keep a second record of the items are told in the order of the changes.
#[derive(Debug)]
pub enum ItemChange<'a> {
    /// A new item, or a new body for one that was there.
    Stored(&'a Item),
    /// The item was found and its body stays. Its expiry has moved; its lock, its counter and its
    /// flag may have changed.
    Used {
        /// How it was.
        before: ItemMarks,
        /// How it is.
        item: &'a Item,
    },
    /// A DELETE took it away.
    Removed,
    /// Its time was up.
    Expired,
}
