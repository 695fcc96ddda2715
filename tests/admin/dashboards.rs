//! `dashboards/`: what Prometheus and Grafana are given fits what a proxy says.
//!
//! The last test runs a pool, a farm and a real Prometheus; it and the checks of the rules need
//! Debian's package `prometheus`, and are skipped without it unless `CI` is set.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set up its scene must fail and say why"
)]

mod files;
mod prometheus;
mod promql;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::thread;

use crate::support::Program;
use crate::support::scene::{Farm, Map, Proxy, SHORT_TIMES, Server};
use files::{Dashboard, Query, Rule};
use prometheus::{JOB, Prometheus, promtool};
use serde_json::Value;
use staterouter::metrics::table::{self, MetricKind};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

#[test]
fn every_series_is_one_that_a_proxy_or_a_rule_gives() {
    let mut known: HashSet<String> = ["up", "ALERTS"].map(str::to_owned).into();
    for family in table::ALL.iter().chain(table::OF_STATE_SERVER) {
        if family.kind == MetricKind::Histogram {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", family.name)));
        } else {
            known.insert(family.name.to_owned());
        }
    }
    known.extend(
        Rule::all()
            .iter()
            .filter_map(Rule::record)
            .map(str::to_owned),
    );
    for Query { whose, expression } in files::queries() {
        for name in promql::series(&expression) {
            assert!(known.contains(name), "{whose}: {name}");
        }
    }
    for path in files::rule_test_paths() {
        let file: serde_yaml::Value = serde_yaml::from_str(&files::text(&path)).unwrap();
        let tests = file["tests"].as_sequence().unwrap().iter();
        for input in tests.flat_map(|test| test["input_series"].as_sequence().unwrap()) {
            for name in promql::series(input["series"].as_str().unwrap()) {
                assert!(known.contains(name), "{}: {name}", path.display());
            }
        }
    }
}

#[test]
fn every_recorded_series_is_used() {
    let queries = files::queries();
    let used: HashSet<_> = queries
        .iter()
        .flat_map(|query| promql::series(&query.expression))
        .collect();
    let rules = Rule::all();
    for record in rules.iter().filter_map(Rule::record) {
        assert!(used.contains(record), "{record}");
    }
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let readme = files::text(&files::folder().join("README.md"));
    let alerts = Rule::alerts();
    for alert in &alerts {
        let name = alert.alert().unwrap();
        assert!(name.starts_with("Staterouter"), "{name}");
        let severity = alert.said("labels", "severity");
        assert!(
            ["critical", "warning"].contains(&severity),
            "{name}: {severity:?}"
        );
        for text in ["summary", "description", "action"] {
            assert!(
                !alert.said("annotations", text).is_empty(),
                "{name} has no {text}"
            );
        }
        let row = format!("| `{name}` | {severity} |");
        assert!(
            readme.contains(&row),
            "README.md has no row that begins with {row}"
        );
    }
    let rows = readme
        .lines()
        .filter(|line| line.starts_with("| `Staterouter"));
    assert_eq!(
        rows.count(),
        alerts.len(),
        "README.md has rows of alerts that are gone"
    );
}

#[test]
fn every_alert_is_seen_firing_and_not_firing_in_a_test_of_the_rules() {
    let mut seen = BTreeMap::<_, [bool; 2]>::new();
    for path in files::rule_test_paths() {
        let file: serde_yaml::Value = serde_yaml::from_str(&files::text(&path)).unwrap();
        for test in file["tests"].as_sequence().unwrap() {
            for check in test["promql_expr_test"].as_sequence().unwrap() {
                let expected = check["exp_samples"].as_sequence().unwrap();
                let labels = expected
                    .iter()
                    .filter_map(|sample| sample["labels"].as_str());
                let firing: String = labels.collect();
                let asked = check["expr"].as_str().unwrap();
                for alert in Rule::alerts() {
                    let name = alert.alert().unwrap().to_owned();
                    let fires = firing.contains(&format!("alertname=\"{name}\""));
                    let [found_firing, found_silent] = seen.entry(name).or_default();
                    *found_firing |= fires;
                    *found_silent |= asks_for(asked, alert.alert().unwrap()) && !fires;
                }
            }
        }
    }
    for (name, seen) in seen {
        assert_eq!(seen, [true, true], "{name}: seen firing, seen not firing");
    }
}

/// Whether an expression asks for this alert, alone or among others.
fn asks_for(expression: &str, alert: &str) -> bool {
    let wanted = expression.split_once("ALERTS{alertname=");
    let names = wanted.and_then(|(_, wanted)| wanted.split('"').nth(1));
    names.is_some_and(|names| names.split('|').any(|name| name == alert))
}

#[test]
fn dashboards_are_whole() {
    let dashboards = Dashboard::all();
    let mut uids = BTreeSet::new();
    for dashboard in &dashboards {
        let (file, json) = (&dashboard.file, &dashboard.json);
        assert!(json["schemaVersion"].as_u64().unwrap() >= 39, "{file}");
        assert!(
            json.get("id").is_none(),
            "{file}: ids belong to one Grafana"
        );
        assert!(
            uids.insert(json["uid"].as_str().unwrap().to_owned()),
            "{file}: uid"
        );
        let tag = &json["tags"];
        assert!(
            json["links"]
                .as_array()
                .unwrap()
                .iter()
                .any(|link| &link["tags"] == tag),
            "{file}"
        );
        assert_data_sources_are_variable(file, json);
        assert_variables_are_declared(dashboard);
        assert_panels_are_described(dashboard);
        assert_panels_fit(dashboard);
    }
    for dashboard in &dashboards {
        let text = dashboard.json.to_string();
        for link in text.split("\"/d/").skip(1) {
            let uid = link.split(['?', '"']).next().unwrap();
            assert!(uids.contains(uid), "{}: no dashboard {uid}", dashboard.file);
        }
    }
}

/// A uid of one Grafana would be unknown in every other.
fn assert_data_sources_are_variable(file: &str, json: &Value) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "datasource" {
                    let uid = value["uid"].as_str().unwrap();
                    assert!(
                        ["${datasource}", "-- Grafana --"].contains(&uid),
                        "{file}: {value}"
                    );
                }
                assert_data_sources_are_variable(file, value);
            }
        }
        Value::Array(values) => {
            values
                .iter()
                .for_each(|value| assert_data_sources_are_variable(file, value));
        }
        _ => {}
    }
}

fn assert_variables_are_declared(dashboard: &Dashboard) {
    let names = dashboard
        .variables()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap());
    let mut known: HashSet<_> = names.collect();
    assert!(
        ["datasource", "job", "instance"]
            .iter()
            .all(|name| known.contains(name))
    );
    known.extend(["__rate_interval", "__range"]);
    for Query { whose, expression } in dashboard.queries() {
        for rest in expression.split('$').skip(1) {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let name = rest.split(|c| !is_part(c)).next().unwrap();
            assert!(known.contains(name), "{whose}: ${name}");
        }
    }
}

fn assert_panels_are_described(dashboard: &Dashboard) {
    let mut ids = HashSet::new();
    for panel in dashboard.panels() {
        let whose = format!("{}: {}", dashboard.file, panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{whose}: id");
        assert_ne!(panel["title"].as_str().unwrap(), "", "{whose}");
        if panel["type"] == "row" {
            continue;
        }
        assert_ne!(panel["description"].as_str().unwrap(), "", "{whose}");
        assert_ne!(
            panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap(),
            "",
            "{whose}"
        );
        let mut refs = HashSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(
                refs.insert(target["refId"].as_str().unwrap()),
                "{whose}: refId"
            );
        }
    }
}

/// No panel lies on another or leaves the grid.
fn assert_panels_fit(dashboard: &Dashboard) {
    let mut taken = HashSet::new();
    for panel in dashboard.panels() {
        let of = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(of("x") + of("w") <= COLUMNS, "{}", panel["title"]);
        for y in of("y")..of("y") + of("h") {
            for x in of("x")..of("x") + of("w") {
                assert!(
                    taken.insert((x, y)),
                    "{}: {}",
                    dashboard.file,
                    panel["title"]
                );
            }
        }
    }
}

/// promtool takes the groups that a file leaves out in a random order.
#[test]
fn every_test_of_the_rules_evaluates_the_groups_in_their_order() {
    let read =
        |path: &Path| -> serde_yaml::Value { serde_yaml::from_str(&files::text(path)).unwrap() };
    let rules = read(&files::rules_path());
    let groups = rules["groups"].as_sequence().unwrap().iter();
    let names: Vec<_> = groups.map(|group| &group["name"]).collect();
    for path in files::rule_test_paths() {
        let file = read(&path);
        let order = file["group_eval_order"].as_sequence().unwrap();
        assert!(order.iter().eq(names.iter().copied()), "{}", path.display());
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    if !prometheus::is_here() {
        eprintln!("skipped: promtool is not installed");
        return;
    }
    promtool(&["check", "rules", files::rules_path().to_str().unwrap()]);
    // Side by side, for they take seconds each.
    thread::scope(|all| {
        for path in files::rule_test_paths() {
            all.spawn(move || promtool(&["test", "rules", path.to_str().unwrap()]));
        }
    });
}

#[test]
fn every_panel_shows_a_real_run_and_the_alert_for_a_killed_backend_comes_and_goes() {
    const ALERT: &str = "StaterouterBackendDown";
    if !prometheus::is_here() {
        eprintln!("skipped: prometheus is not installed");
        return;
    }
    let [first, mut second, third] = [(); 3].map(|()| Server::start());
    let mut map = Map::of(&[&first, &second]);
    // Full at once, so that there is something to show.
    map.lines[0].max_sessions = Some(1);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let alone = Program::start(&[&["state-server"], &listen[..]].concat());
    let prometheus = Prometheus::start(proxy.admin, alone.admin());
    let farm = Farm::start(&[&proxy]);
    assert_eq!(prometheus.alert(ALERT, "state-2"), None);

    proxy.change(&map.changed(|map| map.add(&third)));
    prometheus.wait("sessions move", || {
        prometheus.has_data("staterouter_sessions_moved_total")
    });
    second.kill();
    let fires = || prometheus.alert(ALERT, "state-2").as_deref() == Some("firing");
    prometheus.wait("the alert fires", fires);
    let lost = "staterouter_sessions_out_of_reach_total > 0";
    prometheus.wait("others stand in", || prometheus.has_data(lost));
    second.restart();
    prometheus.wait("the alert is over", || {
        prometheus.alert(ALERT, "state-2").is_none()
    });

    assert_every_query_has_data(&prometheus);
    assert_every_label_value_is_real(&prometheus);
    assert_eq!(prometheus.failing_rules(), [""; 0]);
    assert_eq!(prometheus.log(), "");
    farm.finish();
}

/// What Grafana would ask, with each backend in turn where one is to be chosen.
#[track_caller]
fn assert_every_query_has_data(prometheus: &Prometheus) {
    for Query { whose, expression } in Dashboard::all().iter().flat_map(Dashboard::queries) {
        let expression = expression
            .replace("$job", JOB)
            .replace("$instance", ".+")
            .replace("$__rate_interval", "4s")
            .replace("$__range", "1m");
        let backends = ["state-1", "state-2", "state-3"];
        let asked = backends.map(|backend| expression.replace("$backend", backend));
        let is_shown = || {
            asked
                .iter()
                .any(|expression| prometheus.has_data(expression))
        };
        prometheus.wait(&format!("{whose} has data: {expression}"), is_shown);
    }
}

/// A misspelt value asks for nothing, and nobody would notice.
#[track_caller]
fn assert_every_label_value_is_real(prometheus: &Prometheus) {
    let queries = files::queries();
    let demands = queries
        .iter()
        .flat_map(|query| promql::demands(&query.expression));
    for promql::Demand {
        metric,
        label,
        value,
    } in demands.collect::<HashSet<_>>()
    {
        let selector = format!("{metric}{{{label}=\"{value}\"}}");
        assert!(prometheus.has_data(&selector), "no such series: {selector}");
    }
}
