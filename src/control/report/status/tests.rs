use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::control::report::finding::Code;
use crate::control::report::replication::{
    CopiesStatus, FailoverStatus, ReplicaCounts, ReplicationStatus,
};

const PAGE: &str = include_str!("../../../../docs/status.md");

fn failover() -> FailoverStatus {
    FailoverStatus {
        backend: "state-b".to_owned(),
        to: vec!["state-a".to_owned()],
        at_ms: 1,
        slots: 1,
        sessions: Some(1),
        pause_ms: Some(1),
        waited: Some(1),
        failed: Some(1),
    }
}

fn application(sessions: Option<u64>) -> ApplicationStatus {
    ApplicationStatus {
        name: "shop".to_owned(),
        requests: 3,
        requests_failed: 1,
        requests_renamed: 2,
        sessions,
        session_bytes: sessions,
    }
}

/// A status in which every field has a value.
fn full() -> Status {
    let mut status = example::status();
    let at_ms = status.now_ms;
    status.findings = vec![
        Finding::backend_down(SessionKeeper::at("state-a", "10.0.0.1:42424"), None, false)
            .since(1)
            .until(2),
    ];
    status.last_reload = Some(LastReload {
        at_ms,
        outcome: ReloadOutcome {
            result: ReloadResult::Refused,
            map_version: 7,
            faults: vec!["bad".to_owned()],
            needs_restart: vec!["listen".to_owned()],
        },
    });
    status.replication = Some(ReplicationStatus {
        replicas: 1,
        slots: ReplicaCounts::default(),
        at_risk_sessions: Some(1),
        at_risk_backend: Some("state-a".to_owned()),
        full_ms: Some(1),
    });
    status.last_failover = Some(failover());
    status.backends.truncate(1);
    let backend = &mut status.backends[0];
    backend.reason = Some("it refuses connections".to_owned());
    backend.empty_ms = Some(1);
    backend.waits_until_ms = Some(1);
    backend.copies = CopiesStatus {
        sessions: Some(1),
        bytes: Some(1),
        filled_percent: Some(1.0),
        full_ms: Some(1),
    };
    backend.engine = Some(example::engine());
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
    status.applications = vec![application(Some(1))];
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

/// The schema of `/status` for those who read it by machine; refreshed by `UPDATE_GOLDEN=1`.
#[test]
fn the_schema_is_that_of_the_code() {
    let mut schema = schema(&to_value(full()), &to_value(bare()), "");
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "GET /status of staterouter".into();
    let text = format!("{schema:#}\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert_eq!(kept, text, "docs/status.schema.json: UPDATE_GOLDEN=1");
}

/// A status in which every field that may be `null` is.
fn bare() -> Status {
    Status {
        findings: vec![Finding::control_stopped()],
        backends: vec![BackendStatus {
            address_in_use: None,
            ..example::backend("state-a", 1)
        }],
        applications: vec![application(None)],
        under_way: vec![example::under_way(Stage::Move2, 1, 2, None)],
        peers: vec![PeerStatus {
            address: "10.0.0.6:42480".to_owned(),
            failure: None,
            map_version: None,
            overrides_differ: false,
            gone: false,
        }],
        ..example::status()
    }
}

fn to_value(status: Status) -> Value {
    serde_json::to_value(status).unwrap()
}

/// The schema of a value in [`full`], which is `bare` in [`bare`]. `path` is its name in the docs.
fn schema(full: &Value, bare: &Value, path: &str) -> Value {
    let mut schema = match full {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            let field = |(name, field): (&String, &Value)| {
                let path = format!("{path}{dot}{name}");
                (
                    name.clone(),
                    self::schema(field, &bare[name.as_str()], &path),
                )
            };
            let names: Vec<_> = fields.keys().collect();
            let properties: serde_json::Map<_, _> = fields.iter().map(field).collect();
            json!({"type": "object", "required": names, "properties": properties})
        }
        Value::Array(items) => {
            let path = format!("{path}[]");
            let path = if items[0].is_object() { &path } else { "" };
            json!({"type": "array", "items": self::schema(&items[0], &bare[0], path)})
        }
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer", "minimum": 0}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Null => panic!("{path} has no value"),
    };
    if let Some(words) = words(path) {
        schema["enum"] = words;
    }
    if let Some(description) = description(path) {
        schema["description"] = description.into();
    }
    if bare.is_null() && !path.is_empty() {
        let kind = schema["type"].take();
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

/// The words that a field may hold.
fn words(path: &str) -> Option<Value> {
    Some(match path {
        "findings[].level" => json!(["critical", "warning", "info"]),
        "backends[].state" | "backends[].override.in_map" => json!([
            ServiceState::Active,
            ServiceState::Drain,
            ServiceState::Off,
            ServiceState::Removed
        ]),
        "backends[].verdict" => json!([
            BackendHealth::Up,
            BackendHealth::Suspect,
            BackendHealth::Down
        ]),
        "last_reload.result" => json!([
            ReloadResult::Applied,
            ReloadResult::Unchanged,
            ReloadResult::Refused
        ]),
        _ => return None,
    })
}

/// What the docs say of a field.
fn description(path: &str) -> Option<&'static str> {
    let (_, below) = PAGE.split_once("## Fields").unwrap();
    let mut rows = below.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.find_map(|row| {
        let (names, text) = row.split_once(" | ")?;
        let mut names = names.trim_end_matches('`').split("`, `");
        names
            .any(|name| name == path)
            .then(|| text.trim_end_matches([' ', '|']))
    })
}

/// While proxies are upgraded one after the other, a command asks those of the version before.
#[test]
fn a_status_without_what_came_later_is_read() {
    let mut status = serde_json::to_value(full()).unwrap();
    let without = |value: &mut Value, fields: &[&str]| {
        let value = value.as_object_mut().unwrap();
        fields
            .iter()
            .for_each(|field| drop(value.remove(*field).unwrap()));
    };
    without(&mut status, &["replication", "last_failover"]);
    without(&mut status["slots"], &["turned"]);
    for backend in status["backends"].as_array_mut().unwrap() {
        let later = [
            "slots_as_replica",
            "copies",
            "slots_unprotected",
            "waits_until_ms",
        ];
        without(backend, &later);
        without(&mut backend["slots_in"], &["turned"]);
    }
    Status::deserialize(&status).unwrap();
}
