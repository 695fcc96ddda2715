//! The frozen exchanges of tests/vectors (protocol 10), as the program carries them.

use serde::{Deserialize, Deserializer, de};

/// The session ids in the fixtures: each run has others in their place.
pub(super) const FIXTURE_IDS: [&str; 2] = ["q3m1zt0xk4vdw2hn5sbyr0ac", "b5k2ye1tqz0mh3wdcx4nvs1g"];

const WIRE: &str = include_str!("../../tests/vectors/wire.jsonl");
const SCENARIOS: &str = include_str!("../../tests/vectors/scenarios.jsonl");
const TARGETS: &str = include_str!("../../tests/vectors/targets.jsonl");

/// One exchange, with the items before and after it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireVector {
    /// Its number, from 1.
    pub(super) n: u32,
    pub(super) name: String,
    pub(super) given: Vec<FixtureItem>,
    #[serde(deserialize_with = "bytes")]
    pub(super) request: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) response: Vec<u8>,
    pub(super) then: Vec<FixtureItem>,
    /// Where the fixture is a choice of ours.
    pub(super) note: Option<String>,
}

/// One item of a fixture.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FixtureItem {
    /// The canonical key (protocol 2.2).
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    pub(super) timeout: u32,
    pub(super) cookie: u32,
    pub(super) locked: bool,
    pub(super) uninit: bool,
    #[serde(deserialize_with = "bytes")]
    pub(super) body: Vec<u8>,
}

/// Steps in order, against a server without items.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) steps: Vec<ScenarioStep>,
}

/// One exchange of a scenario.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ScenarioStep {
    /// Which web request sends it.
    pub(super) by: String,
    #[serde(deserialize_with = "step_bytes")]
    pub(super) request: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) response: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct FixtureTarget {
    raw: String,
}

/// All of `wire.jsonl`.
pub(super) fn wire_vectors() -> Vec<WireVector> {
    lines(WIRE)
}

/// All of `scenarios.jsonl`, with the targets of two sessions in them.
pub(super) fn scenarios() -> Vec<Scenario> {
    lines(SCENARIOS)
}

/// The item's key as a request target, every byte encoded.
pub(super) fn encoded(key: &[u8]) -> Vec<u8> {
    let encoded: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
    encoded.into_bytes()
}

/// The target of the first fixture session, and the same of the second.
fn targets() -> [String; 2] {
    let first = lines::<FixtureTarget>(TARGETS)
        .into_iter()
        .next()
        .map_or_else(String::new, |target| target.raw);
    let second = first.replace(FIXTURE_IDS[0], FIXTURE_IDS[1]);
    [first, second]
}

// INVARIANT: the files are part of the program, and a test reads every line of them.
#[expect(clippy::expect_used, reason = "the fixtures are part of the program")]
fn lines<'a, T: Deserialize<'a>>(file: &'a str) -> Vec<T> {
    let lines = file.lines().map(serde_json::from_str);
    lines
        .collect::<Result<_, _>>()
        .expect("a fixture that can be read")
}

/// Fixture strings are byte strings: U+0000 to U+00FF stand for single bytes.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    latin1(&text).ok_or_else(|| de::Error::custom("a character that stands for no byte"))
}

fn step_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let [first, second] = targets();
    let text = text.replace("{T1}", &first).replace("{T2}", &second);
    latin1(&text).ok_or_else(|| de::Error::custom("a character that stands for no byte"))
}

fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_is_read() {
        let vectors = wire_vectors();
        assert_eq!(vectors.len(), 42);
        assert!(vectors.iter().zip(1..).all(|(vector, n)| vector.n == n));
        let steps: Vec<usize> = scenarios().iter().map(|all| all.steps.len()).collect();
        assert_eq!(steps, [6, 9, 7, 8, 6, 6]);
        let [first, second] = targets();
        assert!(first.contains(FIXTURE_IDS[0]) && second.contains(FIXTURE_IDS[1]));
    }

    #[test]
    fn every_request_and_item_is_of_one_of_the_two_sessions() {
        let has_id = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            FIXTURE_IDS.iter().any(|id| text.contains(id))
        };
        for vector in wire_vectors() {
            assert!(has_id(&vector.request), "{}", vector.name);
            let items = vector.given.iter().chain(&vector.then);
            assert!(items.map(|item| &item.key).all(|key| has_id(key)));
        }
        for step in scenarios().iter().flat_map(|scenario| &scenario.steps) {
            assert!(has_id(&step.request));
        }
    }
}
