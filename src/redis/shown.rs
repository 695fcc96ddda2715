//! What servers say, fit to be shown.

/// Characters that are kept of what a server says: a redirection to a host with a long name fits.
const MAX_SHOWN_CHARS: usize = 300;

/// What a server says of itself, fit for one line of a log: whatever it is, it must not pass for
/// more than that.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let begin = chars.by_ref().take(MAX_SHOWN_CHARS);
    let mut shown: String = begin
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_a_short_line() {
        assert_eq!(shown("no\r\nSTOPPING=1\u{1b}[2J"), "no��STOPPING=1�[2J");
        let full = "é".repeat(MAX_SHOWN_CHARS);
        assert_eq!(shown(&full), full);
        assert_eq!(shown(&format!("{full}x")), full + "…");
    }
}
