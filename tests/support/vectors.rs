//! The protocol's fixtures. Their strings are byte strings: U+0080 to U+00FF are single bytes.

use serde_json::Value;

/// All lines of `tests/vectors/NAME`.
pub fn read(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The bytes a fixture string stands for.
pub fn bytes(value: &Value) -> Vec<u8> {
    value
        .as_str()
        .unwrap()
        .chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap())
        .collect()
}

/// Whether `answer` is what `pattern` wants; `{LOCKDATE}` and `{LOCKAGE}` stand for digits.
pub fn matches(pattern: &[u8], answer: &[u8]) -> bool {
    let Some(open) = pattern.iter().position(|&byte| byte == b'{') else {
        return pattern == answer;
    };
    for name in [&b"{LOCKDATE}"[..], b"{LOCKAGE}"] {
        if let Some(rest) = pattern[open..].strip_prefix(name) {
            let digits = answer.get(open..).unwrap_or_default();
            let count = digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            return answer.get(..open) == Some(&pattern[..open])
                && count > 0
                && matches(rest, &digits[count..]);
        }
    }
    pattern == answer
}
