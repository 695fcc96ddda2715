//! Finding the bytes that divide a head, 32 at a time; only those that mean something are looked at
//! one by one.

use wide::u8x16;

/// Bytes looked at in one step: one bit each in a mask.
const STEP: usize = u32::BITS as usize;

/// The places of all colons and control bytes (below 0x20, or 0x7f) from some place on, ascending.
#[derive(Debug)]
pub(super) struct ScanMarks<'a> {
    bytes: &'a [u8],
    /// Where the step begins that `mask` is about; `STEP` bytes on, the next one.
    step: usize,
    /// The marks of the step that have not been asked for yet.
    mask: u32,
}

impl<'a> ScanMarks<'a> {
    #[inline]
    pub(super) fn behind(bytes: &'a [u8], from: usize) -> Self {
        Self {
            bytes,
            step: from,
            mask: mask_at(bytes, from),
        }
    }

    /// The next place.
    // Inlined, or else the state goes through memory with every mark.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            let next = self.step + STEP;
            if next >= self.bytes.len() {
                return None;
            }
            self.step = next;
            self.mask = mask_at(self.bytes, next);
        }
        let at = self.step + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(at)
    }
}

/// The marks of the step that begins at `from`.
#[inline(always)]
fn mask_at(bytes: &[u8], from: usize) -> u32 {
    let rest = &bytes[from.min(bytes.len())..];
    match rest.first_chunk() {
        Some(step) => mask_of(step),
        None => mask_of_rest(rest),
    }
}

#[inline(never)]
fn mask_of_rest(rest: &[u8]) -> u32 {
    let mut step = [b' '; STEP];
    step[..rest.len()].copy_from_slice(rest);
    mask_of(&step)
}

#[inline(always)]
fn mask_of(step: &[u8; STEP]) -> u32 {
    let (halves, _) = step.as_chunks();
    let [low, high] = [halves[0], halves[1]].map(|half| {
        let half = u8x16::new(half);
        let is_low = half.min(u8x16::splat(0x1f)).cmp_eq(half);
        let marks = is_low | half.cmp_eq(u8x16::splat(0x7f)) | half.cmp_eq(u8x16::splat(b':'));
        marks.move_mask() as u32
    });
    low | high << (STEP / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_mark_is_found_once_and_nothing_else(
            bytes in prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => any::<u8>()], 0..150),
            from in 0usize..160,
        ) {
            let is_mark = |byte: u8| byte < 0x20 || byte == 0x7f || byte == b':';
            let expected: Vec<_> = (from..bytes.len()).filter(|&at| is_mark(bytes[at])).collect();
            let mut marks = ScanMarks::behind(&bytes, from);
            let found: Vec<_> = std::iter::from_fn(|| marks.next()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
