//! The beginning of a compressed body. The only file that names the crate `flate2`.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// How much is undone at most: names and lengths of thousands of items.
const MAX_INFLATED_BYTES: usize = 256 * 1024;

/// What the raw deflate stream that `bytes` begin with holds, as far as they go. `None` if they begin
/// no such stream.
pub(super) fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut inflater = Decompress::new(false);
    let mut out = vec![0; MAX_INFLATED_BYTES];
    let inflated = inflater.decompress(bytes, &mut out, FlushDecompress::None);
    inflated.ok()?;
    out.truncate(usize::try_from(inflater.total_out()).ok()?);
    (!out.is_empty()).then_some(out)
}

/// The raw deflate stream that holds `bytes`.
pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut deflater = Compress::new(Compression::default(), false);
    // Incompressible bytes grow a little.
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 64);
    // With room for all of it nothing can be left over.
    let _ = deflater.compress_vec(bytes, &mut out, FlushCompress::Finish);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_cut_gives_what_it_has_and_a_bomb_no_more_than_the_bound() {
        let bytes: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        let packed = deflate(&bytes);
        assert_eq!(inflate(&packed).as_deref(), Some(&bytes[..]));
        let cut = inflate(&packed[..packed.len() / 2]).unwrap();
        assert!(bytes.starts_with(&cut) && cut.len() > 10_000);
        let bomb = inflate(&deflate(&vec![0; 50 << 20])).unwrap();
        assert_eq!(bomb.len(), MAX_INFLATED_BYTES);
        assert_eq!(inflate(b"\xff\xff\xff"), None);
        assert_eq!(inflate(b""), None);
    }
}
