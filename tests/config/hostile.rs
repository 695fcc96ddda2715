//! Whatever the files hold: no panic, bounded work, and every fault lies inside its file.

use proptest::prelude::*;
use staterouter::config::{Config, Faults, PartitionMap};

const MAIN: &str = include_str!("../../config/staterouter.yaml");
const MAP: &str = include_str!("../../config/partition-map.yaml");

/// Pieces that mean something to YAML or to the files.
const PIECES: &[&str] = &[
    "a",
    "b: ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "? ",
    "|",
    "|2-\n",
    ">\n",
    "\n",
    "\n  ",
    "\n    ",
    "\r",
    "\r\n",
    "\t",
    " ",
    "'",
    "\"",
    "\\x",
    "&a ",
    "*a",
    "!t ",
    "!!str ",
    "%YAML 1.2\n",
    "---\n",
    "...\n",
    "# c",
    "\u{feff}",
    "ü",
    "\u{85}",
    "\u{2028}",
    "\0",
    "~",
    "<<: ",
    "1",
    "`",
    "\u{1f600}",
    "version: 1\n",
    "backends:\n",
    "  - name: x\n",
    "    address: x:1\n",
    "    weight: 0\n",
    "    state: off\n",
    "    id: 7\n",
    "hash_key: ",
    "partition_map: m\n",
    "timeouts:\n",
    "  answer: 1\n",
    "allow: [",
    "10.0.0.1/8",
    "listen: ",
    "0.0.0.0:1\n",
];

/// Line breaks as YAML 1.2 knows them; one at the end begins no further line.
fn lines(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.strip_suffix('\n')
        .unwrap_or(&text)
        .split('\n')
        .map(str::to_owned)
        .collect()
}

fn assert_inside(faults: &Faults, text: &str) {
    let lines = lines(text);
    assert!(faults.total() > 0);
    for fault in faults {
        assert!(
            (1..=lines.len()).contains(&fault.line()),
            "{fault}\nin {text:?}"
        );
        let line_end = lines[fault.line() - 1].chars().count() + 1;
        assert!(
            (1..=line_end).contains(&fault.column()),
            "{fault}\nin {text:?}"
        );
        assert!(!fault.problem().is_empty() && !fault.help().is_empty());
    }
    assert!(faults.to_string().contains(" in f"));
}

fn read_both(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let main = Config::parse(bytes, "f").err();
    let map = PartitionMap::parse(bytes, "f").err();
    assert!(main.is_some() || map.is_some());
    for faults in main.iter().chain(&map) {
        assert_inside(faults, &text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_both(&bytes);
    }

    #[test]
    fn arbitrary_text(text in ".{0,100}") {
        read_both(text.as_bytes());
    }

    #[test]
    fn pieces_of_yaml(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        read_both(pieces.concat().as_bytes());
    }

    #[test]
    fn damaged_examples(
        example in proptest::sample::select(&[MAIN, MAP][..]),
        cuts in proptest::collection::vec(
            (any::<proptest::sample::Index>(), 0usize..12, proptest::sample::select(PIECES)), 1..6),
    ) {
        let mut chars: Vec<char> = example.chars().collect();
        for (at, removed, inserted) in cuts {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, inserted.chars());
        }
        read_both(chars.into_iter().collect::<String>().as_bytes());
    }
}

/// Documents that make a naive reader run out of stack, memory or time. Each is refused with a
/// single fault, whatever follows the point where a limit is passed.
#[test]
fn documents_made_to_exhaust_the_reader() {
    const LENGTH: usize = 1 << 20;
    // Nine lists, each of the one before again and again.
    let bomb = |width: usize| {
        let level = |n: u8| {
            let [name, below] = [n, n - 1].map(char::from);
            let items = format!("*{below},").repeat(width);
            format!("{name}: &{name} [{items}]\n")
        };
        "a: &a [x]\n".to_owned() + &(b'b'..=b'i').map(level).collect::<String>()
    };
    for (text, problem) in [
        ("[".repeat(LENGTH), "more than 4096 brackets"),
        ("{".repeat(LENGTH), "more than 4096 brackets"),
        ("[".repeat(4096), "nested more than"),
        ("%TAG !a! b\n".repeat(LENGTH / 11), "directives"),
        ("- ".repeat(LENGTH / 2), "nested more than"),
        ("? ".repeat(LENGTH / 2), "nested more than"),
        ("- x\n".repeat(LENGTH / 4), "more than 10000 values"),
        (
            format!("[{}]", "a,".repeat(LENGTH / 2 - 1)),
            "more than 10000 values",
        ),
        ("- *a\n".repeat(LENGTH / 5), "not valid YAML"),
        (
            format!("- &a x\n{}", "- *a\n".repeat(LENGTH / 6)),
            "more than 10000 values",
        ),
        (
            format!("!t [{}]", "a,".repeat(LENGTH / 2 - 3)),
            "more than 10000 values",
        ),
        (
            format!("- &a {}\n{}", "x".repeat(LENGTH / 2), "- *a\n".repeat(9)),
            "aliases of this file repeat too much",
        ),
        ("&a [*a]".to_owned(), "nested more than"),
        (bomb(3), "aliases of this file repeat too much"),
        (bomb(30), "more than 10000 values"),
        ("\n".repeat(LENGTH), "empty"),
        (
            format!("'{}", "x\n".repeat(LENGTH / 2 - 1)),
            "not valid YAML",
        ),
        ("x".repeat(LENGTH), "must be a map"),
    ] {
        let faults = Config::parse(&text, "f").unwrap_err();
        let problems: Vec<&str> = faults.iter().map(|fault| fault.problem()).collect();
        assert!(
            problems.len() == 1 && problems[0].contains(problem),
            "{problem}: {problems:?}"
        );
    }
}
