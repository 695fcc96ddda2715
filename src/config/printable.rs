//! Text of a file or of a client made fit for a terminal or a log: short, without control characters, without
//! secrets.

/// The key whose value is a secret, in whichever place or broken form it stands.
const SECRET_KEY: [char; 8] = ['h', 'a', 's', 'h', '_', 'k', 'e', 'y'];

/// A run of this many hexadecimal digits is taken for a secret under a mistyped name.
const SECRET_RUN: usize = 16;

/// Longest quotation of a file's text in a message, in characters.
const MAX_QUOTED: usize = 48;

/// `text` in backticks, cut to a bounded length.
pub(crate) fn quoted(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().take(MAX_QUOTED + 1).collect();
    mask_secrets(&mut chars);
    let mut quoted = String::from("`");
    quoted.extend(chars.iter().take(MAX_QUOTED).copied().map(replaced));
    if chars.len() > MAX_QUOTED {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// All of `text`.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(replaced).collect()
}

/// `c`, or the replacement character where `c` would steer the terminal or reorder the line.
pub(crate) fn replaced(c: char) -> char {
    let steers = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if steers { '\u{fffd}' } else { c }
}

/// Overwrites what may be a hash key with asterisks: everything after the key's name, and every
/// long run of hexadecimal digits. The length of the text stays.
pub(crate) fn mask_secrets(chars: &mut [char]) {
    let named = chars
        .windows(SECRET_KEY.len())
        .position(|window| window == SECRET_KEY);
    if let Some(start) = named {
        for c in &mut chars[start + SECRET_KEY.len()..] {
            if !c.is_whitespace() && !matches!(c, ':' | '"' | '\'') {
                *c = '*';
            }
        }
    }
    for run in chars.chunk_by_mut(|a, b| a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) {
        if run.len() >= SECRET_RUN {
            run.fill('*');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        mask_secrets(&mut chars);
        chars.into_iter().collect()
    }

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        assert_eq!(
            masked("hash_key: \"0a, zz\" # x"),
            "hash_key: \"*** **\" * *"
        );
        assert_eq!(
            masked("hashkey: 00112233445566778899aabbccddeeff x"),
            format!("hashkey: {} x", "*".repeat(32))
        );
        assert_eq!(
            masked("address: cafe.example:42424"),
            "address: cafe.example:42424"
        );
    }

    #[test]
    fn quotations_are_bounded_and_cannot_steer_a_terminal() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "`a\u{fffd}[31m\u{fffd}b`");
        assert_eq!(
            quoted(&"x".repeat(1000)),
            format!("`{}…`", "x".repeat(MAX_QUOTED))
        );
    }
}
