//! The names in a PromQL expression. No parser: Prometheus itself says what is no expression.

/// Series that Prometheus makes itself.
const ITS_OWN: [&str; 2] = ["up", "ALERTS"];

/// The metrics and recorded series that an expression names.
pub(crate) fn series(expression: &str) -> Vec<&str> {
    let names = words(expression).filter(|(_, name)| is_series(name));
    names.map(|(_, name)| name).collect()
}

/// What an expression demands of a label of a metric: one alternative of a regular expression at a
/// time, and without those that are for the reader to choose (`$job`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Demand {
    pub(crate) metric: String,
    pub(crate) label: String,
    pub(crate) value: String,
}

pub(crate) fn demands(expression: &str) -> Vec<Demand> {
    let mut demands = Vec::new();
    for (at, metric) in words(expression).filter(|(_, name)| is_series(name)) {
        let Some(rest) = expression[at + metric.len()..].strip_prefix('{') else {
            continue;
        };
        let (matchers, _) = rest.split_once('}').expect("a closed selector");
        for matcher in matchers.split(',') {
            let (label, value) = matcher.split_once(['=', '!']).expect("label and value");
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            let is_plain = |text: &str| {
                text.chars()
                    .all(|c| c.is_alphanumeric() || "_|".contains(c))
            };
            if value.is_empty() || !is_plain(value) {
                continue;
            }
            demands.extend(value.split('|').map(|value| Demand {
                metric: metric.to_owned(),
                label: label.to_owned(),
                value: value.to_owned(),
            }));
        }
    }
    demands
}

fn is_series(name: &str) -> bool {
    let prefixes = ["staterouter_", "process_"];
    name.contains(':') || ITS_OWN.contains(&name) || prefixes.iter().any(|p| name.starts_with(p))
}

/// Words outside of strings, with where they begin.
fn words(expression: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut quoted = false;
    let parts = expression.split_inclusive('"').map(move |part| {
        let is_code = !quoted;
        quoted = !quoted;
        (is_code, part)
    });
    let start = expression.as_ptr() as usize;
    let is_part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    parts
        .filter(|(is_code, _)| *is_code)
        .flat_map(move |(_, part)| part.split(move |c| !is_part_of_word(c)))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - start, word))
}

#[test]
fn series_and_demands_are_found_in_an_expression() {
    let expression = r#"sum by (to) (rate(staterouter_a_total{to="x|process_b",from=~"c|d"}[5m]))
      / job:e:rate5m{e!="",f="$backend"} unless up == 1"#;
    assert_eq!(
        series(expression),
        ["staterouter_a_total", "job:e:rate5m", "up"]
    );
    let demand = |label: &str, value: &str| Demand {
        metric: "staterouter_a_total".to_owned(),
        label: label.to_owned(),
        value: value.to_owned(),
    };
    let found = demands(expression);
    let expected = [
        ("to", "x"),
        ("to", "process_b"),
        ("from", "c"),
        ("from", "d"),
    ];
    assert_eq!(found, expected.map(|(label, value)| demand(label, value)));
}
