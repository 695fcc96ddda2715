use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::control::report::finding::Code;

const PAGE: &str = include_str!("../../../../docs/status.md");

/// A status in which every field has a value.
fn full() -> Status {
    let mut status = example::status();
    let at_ms = status.now_ms;
    status.findings = vec![Finding::backend_down("state-a", None).since(1).until(2)];
    status.last_reload = Some(LastReload {
        at_ms,
        outcome: ReloadOutcome {
            result: ReloadResult::Refused,
            map_version: 7,
            faults: vec!["bad".to_owned()],
            needs_restart: vec!["listen".to_owned()],
        },
    });
    status.backends.truncate(1);
    let backend = &mut status.backends[0];
    backend.reason = Some("it refuses connections".to_owned());
    backend.overridden = Some(OverrideStatus {
        in_map: ServiceState::Drain,
        since_ms: 1,
    });
    backend.load = BackendLoad {
        sessions: Some(1),
        sessions_error_percent: Some(1.0),
        session_bytes: Some(1),
        session_bytes_error_percent: Some(1.0),
        sessions_per_minute: Some(1.0),
        session_bytes_per_minute: Some(1.0),
        capacity: CapacityStatus {
            sessions: Some(1),
            memory_bytes: Some(1),
        },
        used_percent: Some(1.0),
        seconds_to_full: Some(1),
    };
    status.under_way = vec![example::under_way(Stage::Move2, 1, 2, Some(3))];
    status.under_way[0].failing = Some(FailingStatus {
        reason: String::new(),
        since_ms: 1,
        last_ms: 2,
        moves: 3,
    });
    status.peers = vec![PeerStatus {
        address: "10.0.0.6:42480".to_owned(),
        failure: Some("no".to_owned()),
        map_version: Some(1),
        overrides_differ: true,
        gone: false,
    }];
    status
}

/// Every field that is no object, as the docs write it: `backends[].name`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                paths(field, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                paths(item, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The names in the first column of the tables below a heading.
fn rows(heading: &str) -> BTreeSet<String> {
    let (_, below) = PAGE.split_once(heading).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| {
        let cell = row.split(" | ").next().unwrap();
        cell.trim_end_matches('`').split("`, `").map(str::to_owned)
    })
    .collect()
}

#[test]
fn the_docs_have_every_field_and_no_other() {
    let mut found = BTreeSet::new();
    paths(&serde_json::to_value(full()).unwrap(), "", &mut found);
    assert_eq!(rows("## Fields"), found);
}

#[test]
fn the_docs_have_every_code_with_its_level() {
    let codes: BTreeSet<_> = Code::ALL
        .iter()
        .map(|code| code.name().to_owned())
        .collect();
    assert_eq!(rows("## Findings"), codes);
    for code in Code::ALL {
        let row = format!("| `{}` | {} | ", code.name(), code.level().name());
        assert!(PAGE.contains(&row), "docs/status.md has no row {row}");
    }
}

#[test]
fn what_is_written_can_be_read() {
    let written = serde_json::to_string(&full()).unwrap();
    let read: Status = serde_json::from_str(&written).unwrap();
    assert_eq!(read, full());
}
