//! The JSON Schemas of docs/ against what a real proxy says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail"
)]

use serde_json::{Value, json};

use crate::support::client::{Client, put, status};
use crate::support::{self, Program, ProxyFiles};

const LOG: &str = include_str!("../../docs/log.schema.json");
const STATUS: &str = include_str!("../../docs/status.schema.json");

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// What in `value` is not as `schema` says, as far as the schemas of docs/ go.
fn faults(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let is_of = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    };
    if !kinds.iter().any(is_of) {
        return vec![format!("{path}: {value} is none of {kinds:?}")];
    }
    let mut check = |is_right: bool, what: &str| {
        if !is_right {
            found.push(format!("{path}: {value}: {what}"));
        }
    };
    let words = schema["enum"].as_array();
    check(words.is_none_or(|words| words.contains(value)), "enum");
    let length = value.as_str().map_or(0, str::len) as u64;
    check(
        schema["minLength"].as_u64().is_none_or(|min| length >= min),
        "minLength",
    );
    check(
        schema["maxLength"].as_u64().is_none_or(|max| length <= max),
        "maxLength",
    );
    let is_low = value.as_f64() < schema["minimum"].as_f64();
    check(!value.is_number() || !is_low, "minimum");
    for name in schema["required"].as_array().into_iter().flatten() {
        check(
            !value.is_object() || value.get(name.as_str().unwrap()).is_some(),
            "required",
        );
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => found.extend(faults(schema, field, &path)),
            (None, Value::Bool(false)) => found.push(format!("{path}: no such field")),
            (None, schema @ Value::Object(_)) => found.extend(faults(schema, field, &path)),
            (None, _) => {}
        }
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(faults(&schema["items"], item, &format!("{path}[]")));
    }
    found
}

#[test]
fn the_check_finds_what_is_wrong() {
    let schema: Value = serde_json::from_str(LOG).unwrap();
    let good = json!({"level": "INFO", "fields": {"message": "x", "session": "01234567"}});
    assert_eq!(faults(&schema, &good, ""), [""; 0]);
    for (wrong, count) in [
        (json!({"level": "INFO"}), 1),
        (json!({"level": "info", "fields": {"message": 1}}), 2),
        (
            json!({"level": "INFO", "fields": {"message": "x", "session": ID}}),
            1,
        ),
        (
            json!({"level": "INFO", "fields": {"message": "x", "suppressed": -1}}),
            1,
        ),
        (
            json!({"level": "INFO", "fields": {"message": "x", "more": []}, "more": 1}),
            2,
        ),
        (json!([]), 1),
    ] {
        assert_eq!(faults(&schema, &wrong, "").len(), count, "{wrong}");
    }
}

#[test]
fn log_lines_and_status_are_as_their_schemas_say() {
    let server = Program::state_server();
    let (_held, dead) = support::system::hold_port();
    let more = "log: {format: json, level: debug}\ntimeouts: {connect: 100ms, answer: 200ms}\n\
                handover: {hold: 0s}";
    let files = ProxyFiles::new(&[server.address, dead], more);
    let proxy = files.start();
    // First: lines of failed requests come at most ten a second.
    let mut stranger = Client::connect(proxy.address);
    stranger.send(b"no request\n\n");
    stranger.until_closed();
    drop(stranger);
    let mut failed = 0;
    for number in 0..40 {
        let id = format!("{number:024}");
        let mut client = Client::connect(proxy.address);
        client.send(&put(&id, 0, b"x"));
        client.finish_sending();
        match client.until_closed() {
            answer if answer.is_empty() => failed += 1,
            answer => assert_eq!(status(&answer), "200"),
        }
    }
    assert!((1..40).contains(&failed), "{failed}");
    let schema: Value = serde_json::from_str(STATUS).unwrap();
    let said = support::admin::status(proxy.admin());
    assert_eq!(faults(&schema, &said, ""), [""; 0]);
    files.replace("map.yaml", "nonsense");
    support::admin::reload(proxy.admin());
    let said = support::admin::status(proxy.admin());
    assert_eq!(said["last_reload"]["result"], "refused");
    assert_eq!(faults(&schema, &said, ""), [""; 0]);

    let log = proxy.stop();
    let schema: Value = serde_json::from_str(LOG).unwrap();
    let mut messages = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(faults(&schema, &line, ""), [""; 0], "{line}");
        messages += 1;
    }
    for wanted in ["request failed", "request refused", "request answered"] {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
    assert!(messages > 10, "{log}");
}
