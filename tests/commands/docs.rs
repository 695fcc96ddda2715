//! README.md and docs/ say what the code does: every configuration key with its default and range,
//! example files that parse, command lines that the program takes, and the output of those that are
//! cheap to run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a README that cannot be read as expected must fail its test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use staterouter::config::{self, Config, PartitionMap};
use staterouter::conformance;
use tempfile::TempDir;

/// The small example, and the table of keys.
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

/// A page for readers: its path in the repository, and its text.
struct Page {
    path: PathBuf,
    text: String,
}

/// README.md and everything in docs/.
fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let paths = docs.filter(is_page).chain([root.join("README.md")]);
    let read = |path: PathBuf| Page {
        text: fs::read_to_string(&path).unwrap(),
        path,
    };
    paths.map(read).collect()
}

#[test]
fn every_key_is_there_with_its_default_and_range() {
    let mut keys = Vec::new();
    for schema in config::schemas() {
        collect_keys(&serde_json::from_str(&schema.text).unwrap(), "", &mut keys);
    }
    assert!(keys.len() > 20, "only {} keys", keys.len());
    for (name, key) in &keys {
        let [default, range] = row(name);
        assert!(
            shown_defaults(key).iter().any(|shown| shown == default),
            "default of {name}"
        );
        for word in shown_range(key) {
            assert!(range.contains(&word), "{name}: no {word:?} in {range:?}");
        }
    }
    let rows = CONFIGURATION.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), keys.len(), "a row for a key that is not read");
}

#[test]
fn example_files_parse() {
    let blocks = blocks("yaml");
    assert!(blocks.len() >= 2);
    for block in &blocks {
        match file_name(block) {
            "staterouter.yaml" => drop(Config::parse(block, "staterouter.yaml").unwrap()),
            "partition-map.yaml" => drop(PartitionMap::parse(block, "partition-map.yaml").unwrap()),
            // Another program's.
            "prometheus.yml" => {}
            other => panic!("a yaml block begins with {other:?} instead of a file name"),
        }
    }
}

#[test]
fn examples_are_read_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let main = folder.join("staterouter.yaml");
        let config = Config::parse(read("staterouter.yaml"), main.to_str().unwrap()).unwrap();
        assert_eq!(config.partition_map, folder.join("partition-map.yaml"));
        PartitionMap::parse(read("partition-map.yaml"), "partition-map.yaml").unwrap();
        count += 1;
    }
    assert!(count >= 4, "only {count} examples");
    let compose = fs::read_to_string(root.join("compose/compose.yaml")).unwrap();
    let mounted = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ."));
    let mounted: Vec<_> = mounted.filter_map(|rest| rest.split_once(':')).collect();
    assert!(mounted.len() >= 5, "{compose}");
    for (path, _) in mounted {
        let path = root.join("compose").join(format!(".{path}"));
        assert!(path.exists(), "{} is not there", path.display());
    }
}

/// `--help` behind a command line: what stands before it is still read.
#[test]
fn command_lines_are_taken_by_the_program() {
    let (units, consoles, pages) = (blocks("ini"), blocks("console"), pages());
    let in_units = units.iter().flat_map(|block| block.lines());
    let in_units = in_units.filter_map(|line| line.strip_prefix("ExecStart="));
    let in_text = pages.iter().flat_map(|page| page.text.split('`'));
    let in_text = in_text.filter_map(|code| code.strip_prefix("ExecStart="));
    let in_consoles = consoles.iter().flat_map(|block| block.lines());
    let in_consoles = in_consoles.filter_map(|line| line.strip_prefix("$ "));
    let lines: Vec<&str> = in_units
        .chain(in_text)
        .chain(in_consoles)
        .filter_map(arguments)
        .collect();
    for command in ["check", "route", "serve", "state-server", "demo", "bench"] {
        assert!(
            lines.iter().any(|line| line.starts_with(command)),
            "no example of {command}"
        );
    }
    for line in lines {
        let output = shell(&format!("staterouter {line} --help"), Path::new("."));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "staterouter {line}: {error}");
    }
}

/// Runs `check` and `route` as printed, with the files of docs/configuration.md, and what stands around them.
#[test]
fn printed_output_is_what_comes() {
    let mut compared = 0;
    for block in blocks("console") {
        let files = example_files();
        let mut last_code = None;
        for (line, printed) in commands(&block) {
            if line == "echo $?" {
                assert_eq!(Some(printed.trim().to_owned()), last_code, "{block}");
                continue;
            }
            let cheap = arguments(line)
                .is_some_and(|line| line.starts_with("check ") || line.starts_with("route "));
            if !cheap && !line.starts_with("sed ") {
                continue;
            }
            let output = shell(line, files.path());
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
            assert_eq!(
                String::from_utf8_lossy(&output.stdout).trim_end(),
                printed.trim_end(),
                "{line}"
            );
            last_code = output.status.code().map(|code| code.to_string());
            compared += usize::from(cheap);
        }
    }
    assert!(compared >= 4, "only {compared} commands were run");
}

#[test]
fn links_lead_to_files() {
    for Page { path, text } in pages() {
        let targets = text.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split_once(')'));
        let files = targets.filter_map(|(target, _)| target.split('#').next());
        for target in files.filter(|target| !target.is_empty() && !target.contains("://")) {
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{} links to {target}", path.display());
        }
    }
}

/// docs/protocol.md says which check answers each open question, and forgets none that asks one.
#[test]
fn checks_of_the_conformance_suite_are_named_in_the_protocol() {
    const PROTOCOL: &str = include_str!("../../docs/protocol.md");
    let (_, questions) = PROTOCOL.split_once("\n## 12. ").unwrap();
    let rows = questions.lines().filter(|line| line.starts_with("| "));
    let mut named = Vec::new();
    for row in rows.skip(1) {
        let checks = row
            .trim_end_matches([' ', '|'])
            .rsplit_once("| ")
            .unwrap()
            .1;
        let is_thorough = checks.ends_with("(thorough)");
        let names = checks.split('`').skip(1).step_by(2).map(str::to_owned);
        let names: Vec<String> = names.collect();
        let last = names.last().cloned();
        named.extend(names.into_iter().map(|name| {
            let is_thorough = is_thorough && Some(&name) == last.as_ref();
            (name, is_thorough)
        }));
    }
    let all: Vec<_> = conformance::all_checks().collect();
    for (name, is_thorough) in &named {
        let check = all.iter().find(|check| check.id == *name);
        let check = check.unwrap_or_else(|| panic!("there is no check `{name}`"));
        assert!(
            check.is_thorough || !is_thorough,
            "`{name}` is not thorough"
        );
    }
    for check in all.iter().filter(|check| check.is_thorough) {
        assert!(
            named.iter().any(|(name, _)| *name == check.id),
            "{}",
            check.id
        );
    }
    assert!(named.len() >= 25, "{}", named.len());
}

/// Every key of a schema that is no section, as `section.key`.
fn collect_keys(schema: &Json, prefix: &str, keys: &mut Vec<(String, Json)>) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, key) in schema["properties"].as_object().unwrap() {
        let path = format!("{prefix}{name}");
        if key["type"] == "object" {
            collect_keys(key, &format!("{path}."), keys);
            continue;
        }
        let mut key = key.clone();
        key["required"] = required.contains(&Json::from(name.as_str())).into();
        if key["items"]["type"] == "object" {
            collect_keys(&key["items"], &format!("{path}."), keys);
        }
        keys.push((path, key));
    }
}

/// Default and range of the table row for a key.
fn row(name: &str) -> [&'static str; 2] {
    let start = format!("| `{name}` |");
    let line = CONFIGURATION
        .lines()
        .find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("docs/configuration.md has no row for `{name}`"));
    let mut cells = line.split('|').map(str::trim);
    [cells.next().unwrap(), cells.next().unwrap()]
}

/// A key without a default is derived from others or stands for nothing: the schema says which in
/// words only.
fn shown_defaults(key: &Json) -> Vec<String> {
    match key.get("default") {
        _ if key["required"] == true => vec!["required".to_owned()],
        None => vec!["derived".to_owned(), "none".to_owned()],
        Some(Json::Array(_)) => vec!["empty".to_owned()],
        Some(Json::String(text)) => vec![format!("`{text}`")],
        Some(other) => vec![format!("`{other}`")],
    }
}

/// What the range has to say, as far as the schema knows it.
fn shown_range(key: &Json) -> Vec<String> {
    let description = key["description"].as_str().unwrap();
    if let Some(words) = key["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap()))
            .collect();
    }
    if let Some((_, range)) = description.split_once(" from ")
        && let Some((range, _)) = range.split_once(" with its unit")
    {
        return vec![range.to_owned()];
    }
    match (&key["type"], &key["minimum"], &key["maximum"]) {
        (kind, min, Json::Null) if kind == "integer" => vec![format!("{min} or more")],
        (kind, min, max) if kind == "integer" => vec![format!("{min} to {max}")],
        (kind, ..) if kind == "array" => vec![format!("to {} entries", key["maxItems"])],
        _ => Vec::new(),
    }
}

/// The contents of the fenced blocks of a language, in all pages.
fn blocks(language: &str) -> Vec<String> {
    let pages = pages();
    pages
        .iter()
        .flat_map(|page| blocks_of(&page.text, language))
        .collect()
}

fn blocks_of(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    let rests = text.split(fence.as_str()).skip(1);
    rests
        .map(|rest| rest[..rest.find("```").unwrap()].to_owned())
        .collect()
}

/// The name in the comment on the first line.
fn file_name(block: &str) -> &str {
    block.lines().next().unwrap().trim_start_matches("# ")
}

fn example_files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for block in blocks_of(CONFIGURATION, "yaml") {
        fs::write(directory.path().join(file_name(&block)), &block).unwrap();
    }
    directory
}

/// The commands of a console block, each with the output printed below it.
fn commands(block: &str) -> Vec<(&str, &str)> {
    let parts = block.strip_prefix("$ ").unwrap().split("\n$ ");
    parts
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .collect()
}

/// The arguments of a command line that runs staterouter.
fn arguments(line: &str) -> Option<&str> {
    let names = [
        "staterouter ",
        "/usr/local/bin/staterouter ",
        "cargo run --release -- ",
    ];
    names.iter().find_map(|name| line.strip_prefix(name))
}

/// Runs a command line in which `staterouter` is the program under test.
fn shell(line: &str, directory: &Path) -> Output {
    let program = concat!(
        "staterouter() { '",
        env!("CARGO_BIN_EXE_staterouter"),
        "' \"$@\"; }; "
    );
    Command::new("sh")
        .args(["-c", &format!("{program}{line}")])
        .current_dir(directory)
        .output()
        .unwrap()
}
