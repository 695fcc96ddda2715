//! What fills the state servers: which items of which application take how much of the sessions.
//!
//! A session's body is what .NET wrote (docs/protocol.md, section 3): names and lengths stand in
//! front, the values behind. The beginning of a body is enough to know what it consists of.
//!
//! * `inflate`: undoes `compressionEnabled`, within bounds.
//! * `decode`: names and lengths out of the beginning of a body. Values are not looked at.
//! * `encode`: bodies as .NET writes them, for the tests of the decoder and for the simulated farm.
//! * `table`: what the sessions that are followed add up to.
//!
//! Pure: time is an argument, and every input is bounded.

mod decode;
mod encode;
mod inflate;
mod table;

pub use decode::{BodyContents, BodyItem, NotUnderstood, decode};
pub use encode::{compress, encode};
pub use table::{AppTotal, ContentsTable, ItemTotal, StoredSample, TableTotals};
