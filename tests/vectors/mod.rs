//! Reads the fixtures of this folder.
//!
//! Their strings are byte strings: U+0000 to U+00FF stand for single bytes. Placeholders are
//! filled in: `{T1}` and `{T2}` with the targets of two sessions of one application, `{LOCKDATE}`
//! and `{LOCKAGE}` with digits.
#![allow(
    dead_code,
    reason = "every test binary that includes it uses its own part"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken fixture must stop the test that reads it"
)]

use serde_json::Value;

/// One request and the answer of a stock server.
pub(crate) struct Exchange {
    /// Where it comes from, for messages.
    pub(crate) name: String,
    /// Head and body as a web server sends them.
    pub(crate) request: Vec<u8>,
    /// Head and body as a state server answers.
    pub(crate) response: Vec<u8>,
}

/// Every exchange of `wire.jsonl`, then every step of `scenarios.jsonl`.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let single = rows(include_str!("wire.jsonl")).into_iter().map(|row| {
        let name = format!("wire {}: {}", row["n"], row["name"]);
        exchange(name, &row)
    });
    let scenarios = rows(include_str!("scenarios.jsonl"));
    let steps = scenarios.iter().flat_map(|scenario| {
        let steps = scenario["steps"].as_array().unwrap().iter().enumerate();
        steps.map(|(n, step)| exchange(format!("{} step {}", scenario["name"], n + 1), step))
    });
    single.chain(steps).collect()
}

/// The raw request targets of `targets.jsonl`.
pub(crate) fn targets() -> Vec<Vec<u8>> {
    let rows = rows(include_str!("targets.jsonl"));
    rows.iter().map(|row| bytes(text(row, "raw"))).collect()
}

/// The value of the header `name` in its stock spelling, found the slow and obvious way.
pub(crate) fn header<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let line = lines.find(|line| line.starts_with(format!("{name}:").as_bytes()))?;
    Some(line[name.len() + 1..].trim_ascii())
}

fn exchange(name: String, row: &Value) -> Exchange {
    let targets = rows(include_str!("targets.jsonl"));
    let first = text(&targets[0], "raw");
    let (path, _) = first.rsplit_once("%2f").unwrap();
    let filled = |key| {
        let text = text(row, key).replace("{T1}", first);
        let text = text.replace("{T2}", &format!("{path}%2fb5k2ye1tqz0mh3wdcx4nvs1g"));
        let text = text.replace("{LOCKDATE}", "639000000001234567");
        bytes(&text.replace("{LOCKAGE}", "17"))
    };
    Exchange {
        name,
        request: filled("request"),
        response: filled("response"),
    }
}

fn rows(file: &str) -> Vec<Value> {
    let rows = file.lines().map(|row| serde_json::from_str(row).unwrap());
    rows.collect()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    let text = row[key].as_str();
    text.unwrap_or_else(|| panic!("no text {key:?} in {row}"))
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}
