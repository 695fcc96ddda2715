//! Numbers as people read them.

use crate::route::SLOT_COUNT;

/// So many slots.
pub(super) fn share(slots: usize) -> String {
    let percent = slots as f64 * 100.0 / SLOT_COUNT as f64;
    format!("{slots} slots ({percent:.1} %)")
}

/// A time, no more exact than anybody wants to know.
pub(super) fn lasting(ms: u64) -> String {
    let whole_s = ms / 1000;
    match whole_s {
        0..600 => format!("{whole_s} s"),
        _ => format!("{} min", whole_s / 60),
    }
}
