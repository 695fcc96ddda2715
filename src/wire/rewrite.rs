//! Replacing one header value of a head that is about to be forwarded, or taking its line out.

use super::Span;

/// Bytes to keep free in front of a head so that any value can grow: a lock cookie has at most
/// ten digits and at least one.
pub const HEADROOM_BYTES: usize = 16;

/// The new value is longer than the old one by more than the room in front of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller left {room_bytes} bytes in front of the head, {needed_bytes} are needed")]
pub struct NoRoom {
    /// Bytes in front of the head.
    pub room_bytes: usize,
    /// Bytes by which the value grows.
    pub needed_bytes: usize,
}

/// Replaces the bytes of `value` in the head that starts at `buffer[head_start]` and returns where
/// the head starts afterwards.
///
/// Only the bytes in front of the value move, towards the front of the buffer or away from it: the
/// rest of the head and the body stay where they are, so head and body still go out in one write.
///
/// # Errors
/// [`NoRoom`], with the buffer untouched.
pub fn replace_value(
    buffer: &mut [u8],
    head_start: usize,
    value: Span,
    new_value: &[u8],
) -> Result<usize, NoRoom> {
    let old_bytes = value.end() - value.start();
    let new_start = (head_start + old_bytes)
        .checked_sub(new_value.len())
        .ok_or_else(|| NoRoom {
            room_bytes: head_start,
            needed_bytes: new_value.len() - old_bytes,
        })?;
    buffer.copy_within(head_start..head_start + value.start(), new_start);
    let at = new_start + value.start();
    buffer[at..at + new_value.len()].copy_from_slice(new_value);
    Ok(new_start)
}

/// Takes the whole line of `value` out of the head that starts at `buffer[head_start]` and returns
/// where the head starts afterwards. Moves only the bytes in front of the line.
pub fn remove_line(buffer: &mut [u8], head_start: usize, value: Span) -> usize {
    let is_end = |&byte: &u8| byte == b'\n';
    let before = &buffer[head_start..head_start + value.start()];
    let from = before.iter().rposition(is_end).map_or(0, |at| at + 1);
    let behind = &buffer[head_start + value.end()..];
    let rest = behind.iter().position(is_end).map_or(0, |at| at + 1);
    let line_bytes = value.end() + rest - from;
    buffer.copy_within(head_start..head_start + from, head_start + line_bytes);
    head_start + line_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"PUT x HTTP/1.1\r\nLockCookie:42\r\nTimeout:20\r\n\r\nbody";

    fn cookie() -> Span {
        let start = HEAD.iter().position(|&byte| byte == b'4').unwrap();
        Span::new(start, start + 2)
    }

    fn replaced(room: usize, new_value: &[u8]) -> Result<(Vec<u8>, usize), NoRoom> {
        let mut buffer = vec![b'#'; room];
        buffer.extend_from_slice(HEAD);
        let start = replace_value(&mut buffer, room, cookie(), new_value)?;
        Ok((buffer[start..].to_vec(), start))
    }

    #[test]
    fn a_value_grows_shrinks_and_keeps_its_length() {
        for (new_value, start) in [(&b"2147483647"[..], 8), (b"7", 17), (b"43", 16), (b"", 18)] {
            let (bytes, new_start) = replaced(HEADROOM_BYTES, new_value).unwrap();
            let expected = [b"PUT x HTTP/1.1\r\nLockCookie:", new_value].concat();
            let expected = [&expected[..], b"\r\nTimeout:20\r\n\r\nbody"].concat();
            assert_eq!((bytes, new_start), (expected, start));
        }
    }

    #[test]
    fn without_room_nothing_is_touched() {
        let mut buffer = [b"###", HEAD].concat();
        let before = buffer.clone();
        let refused = replace_value(&mut buffer, 3, cookie(), b"1234567890");
        assert_eq!(
            refused,
            Err(NoRoom {
                room_bytes: 3,
                needed_bytes: 8
            })
        );
        assert_eq!(buffer, before);
    }

    #[test]
    fn a_line_is_taken_out_and_the_rest_stays() {
        let mut buffer = [b"##", HEAD].concat();
        let start = remove_line(&mut buffer, 2, cookie());
        assert_eq!(start, 17);
        let left = &b"PUT x HTTP/1.1\r\nTimeout:20\r\n\r\nbody"[..];
        assert_eq!(&buffer[start..], left);
    }
}
