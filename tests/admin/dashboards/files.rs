//! What is in `dashboards/`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// Path of the alert and recording rules.
pub(crate) fn rules_path() -> PathBuf {
    folder().join("rules/staterouter.rules.yml")
}

/// Paths of the tests of the rules.
pub(crate) fn rule_test_paths() -> Vec<PathBuf> {
    in_folder("rules/tests", "yml")
}

/// A file as text.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A Grafana dashboard.
pub(crate) struct Dashboard {
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// One expression, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) whose: String,
    pub(crate) expression: String,
}

impl Dashboard {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let read = |path: PathBuf| Self {
            file: path.file_name().unwrap().to_str().unwrap().to_owned(),
            json: serde_json::from_str(&text(&path)).unwrap(),
        };
        in_folder("grafana", "json").into_iter().map(read).collect()
    }

    /// Its panels, rows included.
    pub(crate) fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().unwrap()
    }

    /// Its variables.
    pub(crate) fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().unwrap()
    }

    /// Every expression of its panels and annotations.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        let annotations = self.json["annotations"]["list"].as_array().unwrap();
        for annotation in annotations.iter().filter(|it| it["builtIn"] != 1) {
            queries.push(self.query("annotation", &annotation["name"], &annotation["expr"]));
        }
        for panel in self.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(self.query("panel", &panel["title"], &target["expr"]));
            }
        }
        queries
    }

    fn query(&self, kind: &str, name: &Value, expression: &Value) -> Query {
        Query {
            whose: format!("{}: {kind} {name}", self.file),
            expression: expression.as_str().unwrap().to_owned(),
        }
    }
}

/// One alert or recorded series.
pub(crate) struct Rule(serde_yaml::Value);

impl Rule {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let file: serde_yaml::Value = serde_yaml::from_str(&text(&rules_path())).unwrap();
        let groups = file["groups"].as_sequence().unwrap();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_sequence().unwrap());
        rules.cloned().map(Self).collect()
    }

    /// All alerts.
    pub(crate) fn alerts() -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|rule| rule.alert().is_some())
            .collect()
    }

    /// Its name, if it is an alert.
    pub(crate) fn alert(&self) -> Option<&str> {
        self.0["alert"].as_str()
    }

    /// Its name, if it is a recorded series.
    pub(crate) fn record(&self) -> Option<&str> {
        self.0["record"].as_str()
    }

    /// A text of its annotations or labels.
    pub(crate) fn said(&self, section: &str, name: &str) -> &str {
        self.0[section][name].as_str().unwrap_or_default()
    }

    /// What it asks.
    pub(crate) fn query(&self) -> Query {
        Query {
            whose: format!("rule {}", self.alert().or(self.record()).unwrap()),
            expression: self.0["expr"].as_str().unwrap().to_owned(),
        }
    }
}

/// Every expression of dashboards and rules.
pub(crate) fn queries() -> Vec<Query> {
    let dashboards = Dashboard::all();
    let asked = dashboards.iter().flat_map(Dashboard::queries);
    asked.chain(Rule::all().iter().map(Rule::query)).collect()
}

fn in_folder(folder_name: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(folder_name)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "nothing in {folder_name}");
    paths
}
