//! What a report of faults looks like, and what it never shows.

use staterouter::config::{Config, PartitionMap};
use staterouter::route::HashKey;

#[test]
fn a_hash_key_is_never_shown() {
    let secret = "00112233445566778899aabbccddee";
    let rest = "version: 1\nbackends: [{name: a, address: a:1}]\n";
    for (faulty, problem) in [
        (format!("hash_key: \"{secret}\""), "this is not a key"),
        (format!("hash_key: {secret}xx"), "this is not a key"),
        ("hash_key:\n  correct horse".to_owned(), "this is not a key"),
        (format!("hash_key:\n  {secret}"), "this is not a key"),
        (
            format!("hash_key: {}", "12345678".repeat(4)),
            "YAML takes this for a number",
        ),
        (format!("hash_key: [{secret}]"), "this is a list"),
        (
            format!("hash_key: !!int\n  {secret}, correct"),
            "not what its tag says",
        ),
        (format!("hash_key: '{secret}"), "not valid YAML"),
        (
            format!("hash_key: {secret}ff\nhash_key: {secret}ff"),
            "is here twice",
        ),
        (format!("haskey: {secret}ff"), "unknown key `haskey`"),
        (format!("{secret}ff: hash_key"), "unknown key"),
    ] {
        let faults = PartitionMap::parse(format!("{faulty}\n{rest}"), "f").unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.problem().contains(problem)),
            "{faults}"
        );
        let shown = format!("{faults} {faults:?}");
        for part in ["00112233", "12345678", "ccddee", "correct"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
    let map = format!("hash_key: {secret}ff\n{rest}");
    let map = PartitionMap::parse(map, "f").unwrap();
    assert_eq!(
        map.hash_key,
        HashKey::new([
            0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255
        ])
    );
    let shown = format!("{map:?}");
    assert!(!shown.contains("17, 34") && !shown.contains("001122"));
}

#[test]
fn a_long_list_of_faults_is_cut_but_counted() {
    let unknown: String = (0..250).map(|n| format!("k{n}: 1\n")).collect();
    let faults = Config::parse(format!("partition_map: m\n{unknown}"), "f").unwrap_err();
    assert_eq!((faults.iter().count(), faults.total()), (100, 250));
    assert!(
        faults
            .to_string()
            .ends_with("\n250 faults in f (the first 100 are shown)")
    );
}

/// The shown part of a line is bounded, cannot steer the terminal, and the mark is below its place.
#[test]
fn long_and_odd_lines_are_shown_safely() {
    let text = format!(
        "partition_map: m\nlog: {{{}x\u{202e}y: 1}}\n",
        " ".repeat(5000)
    );
    let shown = Config::parse(text, "f").unwrap_err().to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].starts_with("f:2:5007: unknown key `x\u{fffd}y`"),
        "{shown}"
    );
    assert!(
        lines[2].starts_with("2 | …") && lines[2].ends_with("x\u{fffd}y: 1}"),
        "{shown}"
    );
    let column = |line: &str, c: char| line.chars().position(|each| each == c);
    assert_eq!(column(lines[2], 'x'), column(lines[3], '^'));
    assert!(
        lines.iter().all(|line| line.chars().count() < 140),
        "{shown}"
    );
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_line() {
    let faults = Config::parse("\u{feff}partition_map: []\n", "f").unwrap_err();
    let shown = faults.to_string();
    let expected = "1 | partition_map: []\n  |                ^^\n";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn a_report_shows_all_faults_with_their_lines() {
    let text = "\
version: 1
hashkey: \"00112233445566778899aabbccddeeff\"
backends:
  - name: state-a
    address: 10.0.0.11:42424
    weight: 5000
  - name: state-a\t# taken
    address: tcpip=10.0.0.11:42424
    state: aktiv
";
    let faults = PartitionMap::parse(text, "config/partition-map.yaml").unwrap_err();
    let expected = "\
config/partition-map.yaml:2:1: unknown key `hashkey`
  |
2 | hashkey: \"********************************\"
  | ^^^^^^^
  = Did you mean `hash_key`? The keys known here are `version`, `hash_key`, `accept_moved_share`, `replicas`, `check_end`, `backends`, `applications`, `end`

config/partition-map.yaml:6:13: `weight`: `5000` is out of range
  |
6 |     weight: 5000
  |             ^^^^
  = write a whole number from 1 to 1000

config/partition-map.yaml:7:11: the backend name `state-a` is taken
  |
4 |   - name: state-a
  |           -------
...
7 |   - name: state-a # taken
  |           ^^^^^^^
  = give every backend a name of its own

config/partition-map.yaml:8:14: two backends have the address `10.0.0.11:42424`
  |
5 |     address: 10.0.0.11:42424
  |              ---------------
...
8 |     address: tcpip=10.0.0.11:42424
  |              ^^^^^^^^^^^^^^^^^^^^^
  = write each state server once; use `weight` to give it a larger share

config/partition-map.yaml:9:12: `state`: `aktiv` is not known here
  |
9 |     state: aktiv
  |            ^^^^^
  = write one of `active`, `drain`, `off`

5 faults in config/partition-map.yaml";
    assert_eq!(faults.to_string(), expected);
}
