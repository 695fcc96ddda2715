//! The shipped files under `config/` say what the code says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use staterouter::config::{
    self, BackendState, Config, LoadError, LoadedConfig, PartitionMap, Schema,
};
use staterouter::route::HashKey;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

#[test]
fn schema_files_are_those_of_the_code() {
    for Schema { file_name, text } in config::schemas() {
        let path = shipped(file_name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text,
            "{} is out of date; refresh it with: UPDATE_GOLDEN=1 cargo test --test config files::",
            path.display()
        );
    }
}

#[test]
fn example_values_are_the_defaults() {
    let LoadedConfig {
        config,
        partition_map,
        warnings,
    } = config::load(&shipped("staterouter.yaml")).unwrap();
    let mut expected = Config::new(shipped("partition-map.yaml"));
    expected.handover.state_file = shipped("staterouter.state");
    assert_eq!(config, expected);
    // The default key is no secret, and this proxy serves its own machine only.
    assert_eq!(warnings, []);

    let PartitionMap {
        version,
        hash_key,
        accept_moved_percent,
        replicas,
        backends,
        applications,
    } = partition_map;
    assert_eq!((version, hash_key), (1, HashKey::DEFAULT));
    assert_eq!(accept_moved_percent, None);
    assert_eq!(replicas, 0);
    assert_eq!(applications, []);
    let shown: Vec<(String, u8, String)> = backends
        .iter()
        .map(|b| (b.name.clone(), b.id, b.address.to_string()))
        .collect();
    let expected = [("state-a", 1, 11), ("state-b", 2, 12), ("state-c", 3, 13)]
        .map(|(name, id, host)| (name.to_owned(), id, format!("10.0.0.{host}:42424")));
    assert_eq!(shown, expected);
    // The first spells the defaults out, the others leave them out.
    for backend in &backends {
        assert_eq!((backend.weight, backend.state), (100, BackendState::Active));
        assert!(!backend.id_is_derived);
    }
}

#[test]
fn a_file_without_optional_keys_has_the_defaults() {
    let config = Config::parse("partition_map: /srv/map.yaml\n", "x/main.yaml").unwrap();
    let mut expected = Config::new("/srv/map.yaml");
    expected.handover.state_file = PathBuf::from("x/staterouter.state");
    assert_eq!(config, expected);
}

#[test]
fn examples_show_every_key_of_the_schema_with_a_comment() {
    for (schema, example) in config::schemas()
        .iter()
        .zip(["staterouter.yaml", "partition-map.yaml"])
    {
        let text = std::fs::read_to_string(shipped(example)).unwrap();
        let modeline = format!("# yaml-language-server: $schema=./{}\n", schema.file_name);
        assert!(text.starts_with(&modeline));
        let schema: Json = serde_json::from_str(&schema.text).unwrap();
        let mut keys = BTreeSet::new();
        collect_keys(&schema, &mut keys);
        assert!(keys.len() > 5);
        for key in keys {
            let lines: Vec<&str> = text.lines().collect();
            let line = lines.iter().position(|line| {
                // A key without a default is shown commented out.
                line.trim_start_matches([' ', '-', '#'])
                    .starts_with(&format!("{key}:"))
            });
            let line = line.unwrap_or_else(|| panic!("{example} does not show `{key}`"));
            let above = lines[line - 1].trim_start();
            assert!(above.starts_with('#'), "{example}: `{key}` has no comment");
        }
    }
}

fn collect_keys(schema: &Json, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, below) in properties {
            keys.insert(key.clone());
            collect_keys(below, keys);
        }
    }
    if schema.get("items").is_some() {
        collect_keys(&schema["items"], keys);
    }
}

/// Every map of the schema refuses keys it does not list, as the parser does.
#[test]
fn schemas_refuse_unknown_keys_everywhere() {
    fn check(schema: &Json, maps: &mut usize) {
        if schema["type"] == "object" {
            *maps += 1;
            assert_eq!(schema["additionalProperties"], Json::Bool(false));
            schema["properties"]
                .as_object()
                .unwrap()
                .values()
                .for_each(|below| check(below, maps));
        }
        if schema["type"] == "array" {
            check(&schema["items"], maps);
        }
    }
    let [main, map] = config::schemas().map(|schema| {
        let mut maps = 0;
        check(&serde_json::from_str(&schema.text).unwrap(), &mut maps);
        maps
    });
    assert_eq!((main, map), (12, 7));
}

/// What an editor accepts as a quantity, the parser reads or calls out of range.
#[test]
fn schema_patterns_of_quantities_are_those_of_the_parser() {
    use proptest::strategy::{Strategy, ValueTree};
    let [main, _] = config::schemas();
    let main: Json = serde_json::from_str(&main.text).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (section, key) in [("timeouts", "shutdown"), ("limits", "body")] {
        let property = &main["properties"][section]["properties"][key];
        let pattern = property["pattern"]
            .as_str()
            .unwrap()
            .trim_matches(['^', '$']);
        let written = proptest::string::string_regex(pattern).unwrap();
        for _ in 0..200 {
            let written = written.new_tree(&mut runner).unwrap().current();
            let text = format!("partition_map: m\n{section}:\n  {key}: {written}\n");
            if let Err(faults) = Config::parse(&text, "f") {
                assert_eq!(faults.total(), 1);
                assert!(faults.to_string().contains("is out of range"), "{faults}");
            }
        }
    }
}

#[test]
fn a_missing_main_file_is_named_with_the_way_to_fix_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.yaml");
    let error = config::load(&path).unwrap_err();
    assert!(matches!(error, LoadError::Io { .. }));
    let shown = error.to_string();
    assert!(shown.contains(&path.display().to_string()) && shown.contains("correct the path"));

    let error = config::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn an_unreadable_map_is_a_fault_of_the_key_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("main.yaml");
    std::fs::write(&main, "workers: 999\npartition_map: sub/none.yaml\n").unwrap();
    let LoadError::Faults(faults) = config::load(&main).unwrap_err() else {
        panic!("expected faults")
    };
    let places: Vec<(usize, usize)> = faults.iter().map(|f| (f.line(), f.column())).collect();
    assert_eq!(places, [(1, 10), (2, 16)]);
    let map = directory.path().join("sub/none.yaml").display().to_string();
    assert!(faults.to_string().contains(&map));
}

#[test]
fn faults_of_both_files_come_together_in_file_order() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("main.yaml");
    let map = directory.path().join("map.yaml");
    std::fs::write(
        &main,
        "partition_map: map.yaml\nworkers: 999\nlisten: here\n",
    )
    .unwrap();
    std::fs::write(&map, "version: 0\nbackends: []\n").unwrap();
    let LoadError::Faults(faults) = config::load(&main).unwrap_err() else {
        panic!("expected faults")
    };
    let places: Vec<(&str, usize)> = faults.iter().map(|f| (f.file(), f.line())).collect();
    let (main, map) = (main.display().to_string(), map.display().to_string());
    let expected = [(&*main, 2), (&*main, 3), (&*map, 1), (&*map, 2)];
    assert_eq!(places, expected);
    assert_eq!(faults.total(), 4);
    assert!(
        faults
            .to_string()
            .ends_with(&format!("\n2 faults in {main}, 2 in {map}"))
    );
}

#[test]
fn a_sound_main_file_with_a_faulty_map_does_not_load() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("main.yaml");
    std::fs::write(&main, "partition_map: map.yaml\n").unwrap();
    std::fs::write(
        directory.path().join("map.yaml"),
        "version: 0\nbackends: []\n",
    )
    .unwrap();
    let LoadError::Faults(faults) = config::load(&main).unwrap_err() else {
        panic!("expected faults")
    };
    assert_eq!(faults.total(), 2);
}
