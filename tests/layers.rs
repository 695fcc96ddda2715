//! Holds the layers: which module may import which, which crate may be named where, that files of
//! one folder form no circle, that types have names of their own, and the size of files. The tables at
//! the top are the rules; everything below them only enforces.
//!
//! Code under `#[cfg(test)]` is free to import what it likes.
#![expect(clippy::unwrap_used, reason = "test helpers")]

#[path = "layers/scan.rs"]
mod scan;
#[path = "layers/siblings.rs"]
mod siblings;

use std::fs;
use std::path::Path;

use scan::{Import, paths_of};

// Layer 1 is pure: no runtime, sockets, files or clock; time is an argument.
const PURE: &[&str] = &[
    "wire", "route", "handover", "store", "health", "usage", "contents",
];
const BASE: &[&str] = &["os", "tls", "config", "net", "metrics", "log"];
const SERVING: &[&str] = &["backend", "proxy"];
const SERVICES: &[&str] = &[
    "state_server",
    "disk",
    "redis",
    "control",
    "farm",
    "conformance",
];
const ASSEMBLY: &[&str] = &["admin", "app"];
const COMMANDS: &[&str] = &["cli", "main"];

/// Every top-level module of `src/` and the modules it may import. Itself is always allowed,
/// siblings in the same layer are not unless they stand here.
const MAY_IMPORT: &[(&str, &[&[&str]])] = &[
    ("wire", &[]),
    ("route", &[]),
    ("handover", &[]),
    ("store", &[]),
    ("health", &[]),
    ("usage", &[]),
    ("contents", &[]),
    // What the systems do differently: whoever touches files, sockets or the process asks there.
    ("os", &[]),
    ("tls", &[&["os"]]),
    ("config", &[PURE, &["os", "tls"]]),
    ("log", &[PURE, &["config"]]),
    ("net", &[PURE, &["log", "os", "tls"]]),
    ("metrics", &[PURE]),
    ("backend", &[PURE, BASE]),
    ("proxy", &[PURE, BASE, &["backend"]]),
    ("state_server", &[PURE, BASE, SERVING]),
    // A store over files: the rules of `store`, and the runtime to wait with.
    ("disk", &[&["store", "os"]]),
    // A store over a network: the rules of `store`, and the clock of the thread that uses it.
    ("redis", &[&["store"], BASE]),
    ("control", &[PURE, BASE, SERVING]),
    // The simulated web farm shares codec and sockets with the proxy and nothing else.
    ("farm", &[&["wire", "net"]]),
    // Asks state servers as a stranger would: the codec, who may connect, and how a proxy is known.
    (
        "conformance",
        &[&["wire", "route", "os", "tls", "config", "backend"]],
    ),
    ("admin", &[PURE, BASE, SERVING, SERVICES]),
    ("app", &[PURE, BASE, SERVING, SERVICES, &["admin"]]),
    ("cli", &[PURE, BASE, SERVING, SERVICES, ASSEMBLY]),
    ("main", &[&["cli"]]),
    ("lib", &[]),
];

const ANYWHERE: &[&[&str]] = &[PURE, BASE, SERVING, SERVICES, ASSEMBLY, COMMANDS];
const ABOVE_PURE: &[&[&str]] = &[BASE, SERVING, SERVICES, ASSEMBLY, COMMANDS];

/// Every dependency of `Cargo.toml` and the modules that may name it.
const MAY_NAME: &[(&str, &[&[&str]])] = &[
    ("arc-swap", &[&["control", "proxy"]]),
    ("clap", &[COMMANDS]),
    ("clap_complete", &[COMMANDS]),
    ("clap_mangen", &[COMMANDS]),
    ("consistent_hash", &[&["route"]]),
    ("flate2", &[&["contents"]]),
    ("getrandom", &[&["os"]]),
    ("hashbrown", &[&["store"]]),
    ("hdrhistogram", &[&["farm", "cli"]]),
    ("http-body-util", &[&["admin"]]),
    ("hyper", &[&["admin"]]),
    ("hyper-util", &[&["admin"]]),
    ("indicatif", &[&["farm", "cli"]]),
    ("ipnet", &[&["config"]]),
    ("jiff", &[&["state_server"]]),
    ("memchr", &[&["wire", "route"]]),
    ("notify", &[&["control"]]),
    ("prometheus", &[&["metrics"]]),
    ("redis", &[&["redis"]]),
    ("ring", &[&["redis", "tls", "config"]]),
    ("rustix", &[&["os"]]),
    ("rustls", &[&["tls"]]),
    ("rustls-native-certs", &[&["tls"]]),
    ("saphyr-parser", &[&["config"]]),
    ("sd-notify", &[&["os"]]),
    (
        "serde",
        &[&["config", "control", "farm", "conformance", "admin", "cli"]],
    ),
    (
        "serde_json",
        &[&["config", "control", "farm", "conformance", "admin", "cli"]],
    ),
    ("serde_yaml", &[&["config"]]),
    ("siphasher", &[&["route", "store", "disk"]]),
    ("socket2", &[&["net", "os"]]),
    ("thiserror", ANYWHERE),
    ("tikv-jemallocator", &[&["main"]]),
    (
        "tokio",
        &[&["net", "os", "tls"], SERVING, SERVICES, ASSEMBLY, COMMANDS],
    ),
    ("tokio-rustls", &[&["net", "tls"]]),
    ("tracing", ABOVE_PURE),
    ("tracing-appender", &[&["log"]]),
    ("tracing-subscriber", &[&["log"]]),
    ("wide", &[&["wire", "route"]]),
    ("windows-service", &[&["os"]]),
    ("x509-cert", &[&["tls"]]),
];

/// What layer 1 must not name: modules of `std`, and types wherever they come from.
const IMPURE_STD: &[&str] = &["env", "fs", "net", "process", "thread"];
const IMPURE_TYPES: &[&str] = &["Instant", "SystemTime"];

/// A file has fewer lines than this.
const MAX_LINES: usize = 1000;

#[test]
fn modules_import_only_what_their_row_allows() {
    check_sources(import_faults);
}

#[test]
fn layer_1_names_no_clock_socket_file_or_thread() {
    check_sources(purity_faults);
}

#[test]
fn crates_are_named_only_where_their_row_allows() {
    check_sources(crate_faults);
}

#[test]
fn every_dependency_has_a_row_and_every_row_a_dependency() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let rows: Vec<_> = MAY_NAME.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        dependencies(&manifest),
        rows,
        "MAY_NAME and Cargo.toml differ"
    );
}

#[test]
fn files_are_short_and_leave_nothing_for_later() {
    let mut faults = Vec::new();
    for (file, text) in files_below(root(), "") {
        faults.extend(text_faults(&file, &text));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_of_one_folder_depend_on_each_other_one_way_only() {
    let faults = siblings::circles(&files_below(&root().join("src"), "src/"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_two_types_that_other_files_can_name_share_a_name() {
    let faults = siblings::shared_names(&files_below(&root().join("src"), "src/"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_checks_find_circles_and_shared_names() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter();
        let files = files.map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        siblings::circles(&files.collect::<Vec<_>>()).len()
    };
    let folder = ("src/a/mod.rs", "mod b; mod c; pub use c::C;");
    for (b, c, found) in [
        ("use super::c::C;", "", 0),
        ("use super::c::C;", "use super::b;", 1),
        ("use super::C;", "fn f() { super::b::f() }", 1),
        ("use crate::a::{C, c};", "use crate::a::b::{self, B};", 1),
        (
            "use super::c;",
            "#[cfg(test)] mod tests { use super::super::b; }",
            0,
        ),
        ("use super::c;", "// super::b", 0),
    ] {
        let files = [folder, ("src/a/b.rs", b), ("src/a/c.rs", c)];
        assert_eq!(circles(&files), found, "{b} {c}");
    }
    let folders = [
        ("src/a/mod.rs", "mod b; mod c;"),
        ("src/a/b/mod.rs", "mod d;"),
        ("src/a/b/d.rs", "use crate::a::c::C;"),
        ("src/a/c.rs", "use super::b::d::D;"),
    ];
    assert_eq!(circles(&folders), 1);

    let shared = |b: &str| {
        let files = [("src/a.rs", "pub enum Kind {}"), ("src/b.rs", b)];
        let files = files.map(|(file, text)| (file.to_owned(), text.to_owned()));
        siblings::shared_names(&files).len()
    };
    assert_eq!(shared("pub(super) struct Kind<'a>;"), 1);
    assert_eq!(shared("struct Kind;\npub struct Kinds;"), 0);
}

#[test]
fn the_checks_find_forbidden_imports() {
    for (file, code, faults) in [
        ("src/wire/head.rs", "use crate::route::Slot;", 1),
        ("src/wire/head.rs", "fn f() { crate::route::slot() }", 1),
        (
            "src/wire/head.rs",
            "use crate::{wire::Span, route::{Slot, Key}, store};",
            3,
        ),
        ("src/wire/head.rs", "use super::super::store::Item;", 1),
        ("src/wire/head.rs", "use super::store::Item;", 0),
        ("src/wire/mod.rs", "use super::store::Item;", 1),
        ("src/log.rs", "use super::{net, wire};", 1),
        (
            "src/wire/head.rs",
            "use crate::wire::Span; // crate::route",
            0,
        ),
        (
            "src/wire/head.rs",
            "/* /* */ crate::route::x */ fn f() -> &'static str { \"crate::store::x\" }",
            0,
        ),
        (
            "src/wire/head.rs",
            "const A: &str = r#\"\"crate::store::x\"#; const B: char = '\"';",
            0,
        ),
        (
            "src/wire/head.rs",
            "#[cfg(test)]\nmod tests { use crate::route::Slot; fn f() {} }",
            0,
        ),
        (
            "src/wire/head.rs",
            "#[cfg(test)] mod tests {} use crate::route::Slot;",
            1,
        ),
        (
            "src/wire/head.rs",
            "#[cfg(test)] const A: [u8; 2] = [1; 2]; use crate::route::Slot;",
            1,
        ),
        ("src/wire/tests.rs", "use crate::route::Slot;", 0),
        ("src/config/mod.rs", "use crate::net::Listener;", 1),
        (
            "src/proxy/relay.rs",
            "use crate::{backend::Pool, config::Config, wire};",
            0,
        ),
        ("src/backend/pool.rs", "use crate::proxy::Client;", 1),
        ("src/farm/mod.rs", "use crate::store::Store;", 1),
        (
            "src/main.rs",
            "use staterouter::cli; use staterouter::app::App;",
            1,
        ),
        ("src/novel/mod.rs", "", 1),
        ("src/novel.rs", "", 1),
    ] {
        let found = import_faults(file, code);
        assert_eq!(found.len(), faults, "{file}: {code}: {found:?}");
    }
}

#[test]
fn the_checks_find_impure_code_and_fenced_crates() {
    for (file, code, impure, fenced) in [
        ("src/store/mod.rs", "use std::time::Instant;", 1, 0),
        (
            "src/store/mod.rs",
            "use std::time; fn f() { time::Instant::now(); }",
            1,
            0,
        ),
        (
            "src/store/mod.rs",
            "use std::{collections::HashMap, fs::File, net};",
            2,
            0,
        ),
        (
            "src/store/mod.rs",
            "fn f() { ::std::thread::spawn(g); }",
            1,
            0,
        ),
        (
            "src/store/mod.rs",
            "use std::time::Duration; use std::sync::Mutex;",
            0,
            0,
        ),
        (
            "src/net/mod.rs",
            "use std::net::TcpStream; use std::time::Instant;",
            0,
            0,
        ),
        ("src/store/mod.rs", "use tokio::sync::Mutex;", 0, 1),
        ("src/store/mod.rs", "#[tokio::main] async fn f() {}", 0, 1),
        (
            "src/store/mod.rs",
            "fn f() { tracing::info!(\"x\"); }",
            0,
            1,
        ),
        (
            "src/store/mod.rs",
            "use memchr as find; use ::siphasher::sip::SipHasher13;",
            0,
            1,
        ),
        (
            "src/wire/mod.rs",
            "use memchr::memchr; fn f() { memchr(b'a', b\"a\"); }",
            0,
            0,
        ),
        (
            "src/proxy/mod.rs",
            "use {socket2::Socket, tokio::net};",
            0,
            1,
        ),
        ("src/log/mod.rs", "use tracing_subscriber::fmt;", 0, 0),
        ("src/app.rs", "use tracing_subscriber::fmt;", 0, 1),
    ] {
        let found = (purity_faults(file, code), crate_faults(file, code));
        let counts = (found.0.len(), found.1.len());
        assert_eq!(counts, (impure, fenced), "{file}: {code}: {found:?}");
    }
}

#[test]
fn the_checks_find_long_files_and_open_ends() {
    let lines = |count| "x\n".repeat(count);
    assert_eq!(text_faults("src/a.rs", &lines(MAX_LINES - 1)).len(), 0);
    assert_eq!(text_faults("src/a.rs", &lines(MAX_LINES)).len(), 1);
    assert_eq!(text_faults("tests/a.csv", &lines(MAX_LINES)).len(), 0);
    for mark in MARKS {
        assert_eq!(
            text_faults("README.md", &format!("a\n{mark}: b\n")).len(),
            1
        );
    }
    let manifest = "[package]\na = 1\n[dependencies]\n# c\nx-y = \"1\"\nz = { }\n\n[dev-dependencies]\nw = \"1\"\n[target.'cfg(unix)'.dependencies]\nv = \"1\"\n";
    assert_eq!(dependencies(manifest), ["v", "x-y", "z"]);
}

/// Spelled apart so that this file passes its own check.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

fn check_sources(faults_of: fn(&str, &str) -> Vec<String>) {
    let files = files_below(&root().join("src"), "src/");
    assert!(files.iter().any(|(file, _)| file == "src/lib.rs"));
    let faults = files.iter().flat_map(|(file, text)| faults_of(file, text));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn import_faults(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![format!(
            "{file}: the module {module} is new: give it a row in MAY_IMPORT of tests/layers.rs"
        )];
    };
    let mut faults = Vec::new();
    for path in paths_of(file, text) {
        let Some(imported) = top_level_module(&path, depth_of(file)) else {
            continue;
        };
        if imported != module && !contains(allowed, imported) {
            let path = path.segments.join("::");
            faults.push(format!(
                "{file}: {module} may not import {imported} ({path})"
            ));
        }
    }
    faults
}

fn purity_faults(file: &str, text: &str) -> Vec<String> {
    if !PURE.contains(&module_of(file)) {
        return Vec::new();
    }
    let mut paths = paths_of(file, text);
    paths.retain(|path| {
        let from_std = path.segments[0] == "std"
            && path
                .segments
                .get(1)
                .is_some_and(|name| IMPURE_STD.contains(name));
        from_std || path.segments.iter().any(|name| IMPURE_TYPES.contains(name))
    });
    let fault = |path: Import<'_>| format!("{file}: layer 1 names {}", path.segments.join("::"));
    paths.into_iter().map(fault).collect()
}

fn crate_faults(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let mut faults = Vec::new();
    for path in paths_of(file, text) {
        let name = path.segments[0];
        let is_crate = |row: &&(&str, &[&[&str]])| row.0.replace('-', "_") == name;
        let Some((_, allowed)) = MAY_NAME.iter().find(is_crate) else {
            continue;
        };
        // A lone name is a crate only in a `use`; elsewhere it is a function or a variable.
        let names_crate = path.segments.len() > 1 || path.in_use;
        if names_crate && !contains(allowed, module) {
            faults.push(format!("{file}: {module} may not name the crate {name}"));
        }
    }
    faults
}

fn text_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if file.ends_with(".rs") && text.lines().count() >= MAX_LINES {
        faults.push(format!("{file}: {MAX_LINES} lines or more"));
    }
    for (n, line) in text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        if words.any(|word| MARKS.contains(&word)) {
            faults.push(format!("{file}:{}: left for later: {}", n + 1, line.trim()));
        }
    }
    faults
}

/// The names in every `[dependencies]` and `[target.'...'.dependencies]`, sorted.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.ends_with(".dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(" =")) {
            names.push(name);
        }
    }
    names.sort_unstable();
    names
}

fn contains(groups: &[&[&str]], name: &str) -> bool {
    groups.iter().any(|group| group.contains(&name))
}

/// `src/wire/head.rs` and `src/wire.rs` belong to `wire`.
fn module_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split(['/', '.']).next().unwrap_or_default()
}

/// How many `super::` lead to the crate root.
fn depth_of(file: &str) -> usize {
    match file.strip_prefix("src/").unwrap_or(file) {
        "lib.rs" | "main.rs" => 0,
        inside if inside.ends_with("/mod.rs") => inside.matches('/').count(),
        inside => inside.matches('/').count() + 1,
    }
}

fn top_level_module<'a>(path: &Import<'a>, depth: usize) -> Option<&'a str> {
    let supers = path.segments.iter().take_while(|name| **name == "super");
    match supers.count() {
        0 if matches!(path.segments[0], "crate" | "staterouter") => path.segments.get(1).copied(),
        0 => None,
        steps if steps == depth => path.segments.get(steps).copied(),
        _ => None,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path and text of every text file below `folder`, but for what tools have made.
fn files_below(folder: &Path, prefix: &str) -> Vec<(String, String)> {
    const MADE_BY_TOOLS: [&str; 5] = [".git", "target", "corpus", "artifacts", "coverage"];
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if MADE_BY_TOOLS.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path(), &format!("{path}/")));
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push((path, text));
        }
    }
    files
}
