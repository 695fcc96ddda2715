//! A small scanner of Rust source: which paths a file names. It knows comments, literals, groups
//! of imports and `#[cfg(test)]`, and nothing about types or macros.

/// A path such as `std::fs::File`, with the groups of a `use` written out.
#[derive(Debug)]
pub(crate) struct Import<'a> {
    pub(crate) segments: Vec<&'a str>,
    /// Whether it stands in a `use`.
    pub(crate) in_use: bool,
}

/// Every path that `file` names outside of its tests.
pub(crate) fn paths_of<'a>(file: &str, text: &'a str) -> Vec<Import<'a>> {
    if file.ends_with("/tests.rs") || file.contains("/tests/") {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(text));
    let (mut paths, mut at, mut in_use) = (Vec::new(), 0, false);
    while at < tokens.len() {
        let mut found = Vec::new();
        let starts_group = in_use && tokens[at] == "{";
        if starts_group || (is_name(tokens[at]) && tokens[at] != "use") {
            at = read_path(&tokens, at, Vec::new(), &mut found);
        } else {
            in_use = tokens[at] == "use" || (in_use && tokens[at] == "::");
            at += 1;
            continue;
        }
        paths.extend(
            found
                .into_iter()
                .map(|segments| Import { segments, in_use }),
        );
        in_use = false;
    }
    paths
}

/// Reads one path from `tokens[at]` on, follows its groups, and returns the index behind it.
fn read_path<'a>(
    tokens: &[&'a str],
    mut at: usize,
    mut prefix: Vec<&'a str>,
    found: &mut Vec<Vec<&'a str>>,
) -> usize {
    while tokens.get(at).is_some_and(|token| is_name(token)) {
        prefix.push(tokens[at]);
        if tokens.get(at + 1) != Some(&"::") {
            found.push(prefix);
            return at + 1;
        }
        at += 2;
    }
    if tokens.get(at) != Some(&"{") {
        found.push(prefix);
        return at + 1;
    }
    at += 1;
    while at < tokens.len() && tokens[at] != "}" {
        at = match tokens[at] {
            "as" => at + 2,
            token if is_name(token) => read_path(tokens, at, prefix.clone(), found),
            _ => at + 1,
        };
    }
    at + 1
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].starts_with(&CFG_TEST) {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        at += CFG_TEST.len();
        let mut depth = 0;
        while at < tokens.len() {
            let token = tokens[at];
            at += 1;
            match token {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(token, ";" | "}") {
                break;
            }
        }
    }
    kept
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single marks; no comments, strings or blanks.
fn tokens(text: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (taken, is_token) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (comment_bytes(rest), false)
        } else if let Some(bytes) = literal_bytes(rest) {
            (bytes, false)
        } else if rest.starts_with("::") {
            (2, true)
        } else if is_word(first) {
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        if is_token {
            tokens.push(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    tokens
}

fn comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string or character literal at the start of `text`; `None` for a lifetime.
fn literal_bytes(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    let rest = &text[prefix..];
    if prefix <= 2 && text[..prefix].ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let inside = rest[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", &rest[..hashes]);
        let inside_bytes = inside.find(&end).unwrap_or(inside.len() - end.len());
        return Some(prefix + hashes + 1 + inside_bytes + end.len());
    }
    let quote = rest.chars().next()?;
    let mut inside = rest.char_indices().skip(1);
    match (prefix, quote) {
        (0 | 1, '"') => {}
        // 'a' and '\n' are characters, 'a is a lifetime.
        (0 | 1, '\'') if rest[1..].starts_with('\\') || inside.nth(1)?.1 == '\'' => {}
        _ => return None,
    }
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(prefix + end.map_or(rest.len(), |(at, _)| at + 1))
}
