//! Which files of one folder depend on each other in a circle, and which types share a name.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::paths_of;

/// A module as its path below the crate: `["proxy", "view"]`.
type Module = Vec<String>;

/// Groups of siblings, folders included, that depend on each other in a circle. What a child takes
/// from the module it is in counts for nothing: that is what folders are for.
pub(crate) fn circles(files: &[(String, String)]) -> Vec<String> {
    let tree = Tree::of(files);
    let mut edges: BTreeMap<&[String], BTreeSet<(&str, &str)>> = BTreeMap::new();
    for (from, to) in &tree.uses {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
            edges.entry(&from[..common]).or_default().insert((a, b));
        }
    }
    let circle = |(folder, mut edges): (&[String], BTreeSet<(&str, &str)>)| {
        // Whoever depends on nobody, or has nobody who depends on it, is in no circle.
        loop {
            let froms: BTreeSet<_> = edges.iter().map(|edge| edge.0).collect();
            let tos: BTreeSet<_> = edges.iter().map(|edge| edge.1).collect();
            let before = edges.len();
            edges.retain(|(from, to)| tos.contains(from) && froms.contains(to));
            if edges.len() == before {
                break;
            }
        }
        let edges: Vec<_> = edges.iter().map(|(a, b)| format!("{a} -> {b}")).collect();
        let folder = folder.join("/");
        (!edges.is_empty()).then(|| format!("src/{folder}: circle: {}", edges.join(", ")))
    };
    edges.into_iter().filter_map(circle).collect()
}

/// Types that other files can name and that share their name with another one. What a file has for one
/// system, its twin has for the other.
pub(crate) fn shared_names(files: &[(String, String)]) -> Vec<String> {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let is_twin = |file: &str| {
        let twin = file.replace("src/os/windows/", "src/os/unix/");
        twin != file && files.iter().any(|(other, _)| *other == twin)
    };
    let counted = |file: &str| !is_test(file) && !is_twin(file);
    for (file, text) in files.iter().filter(|(file, _)| counted(file)) {
        for name in text.lines().filter_map(named_type) {
            known.entry(name).or_default().push(file);
        }
    }
    known.retain(|_, files| files.len() > 1);
    let fault = |(name, files): (&str, Vec<&str>)| format!("{name}: {}", files.join(", "));
    known.into_iter().map(fault).collect()
}

/// The type that a line at the left margin declares for other files.
fn named_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let (kind, rest) = rest.trim_start().split_once(' ')?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
    matches!(kind, "struct" | "enum" | "trait" | "union").then_some(name)
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// All modules, and which of them names which.
struct Tree {
    uses: Vec<(Module, Module)>,
}

impl Tree {
    fn of(files: &[(String, String)]) -> Self {
        let sources = files.iter().filter(|(file, _)| !is_test(file));
        let modules: BTreeMap<Module, &(String, String)> = sources
            .filter_map(|source| Some((module_path(&source.0)?, source)))
            .collect();
        let named = |module: &Module, source: &(String, String)| {
            let paths = paths_of(&source.0, &source.1);
            let resolve = |path: &[&str]| resolve(&modules, module, path);
            let paths = paths.iter().filter_map(|path| resolve(&path.segments));
            paths.collect::<Vec<_>>()
        };
        // What a folder's own file imports from its children is known under the folder's name.
        let mut again: BTreeMap<Module, BTreeMap<String, Module>> = BTreeMap::new();
        for (module, source) in &modules {
            for (child, rest) in named(module, source) {
                if child.len() > module.len()
                    && child.starts_with(module)
                    && let Some(name) = rest.last()
                {
                    let names = again.entry(module.clone()).or_default();
                    names.insert(name.clone(), child);
                }
            }
        }
        let mut uses = Vec::new();
        for (module, source) in &modules {
            for (mut target, rest) in named(module, source) {
                while let Some(name) = rest.first()
                    && let Some(child) = again.get(&target).and_then(|names| names.get(name))
                {
                    target.clone_from(child);
                }
                uses.push((module.clone(), target));
            }
        }
        Self { uses }
    }
}

/// `src/proxy/view.rs` is `["proxy", "view"]`.
fn module_path(file: &str) -> Option<Module> {
    let path = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let is_root = matches!(path, "lib" | "main");
    (!is_root).then(|| path.split('/').map(str::to_owned).collect())
}

/// The deepest module that a path in `module` leads to, and what is named in it.
fn resolve(
    modules: &BTreeMap<Module, &(String, String)>,
    module: &Module,
    path: &[&str],
) -> Option<(Module, Vec<String>)> {
    let mut path = path.iter().map(|name| (*name).to_owned()).peekable();
    let mut at = module.clone();
    match path.peek()?.as_str() {
        "crate" => at.clear(),
        "self" | "super" => {}
        first => {
            let child = [&module[..], &[first.to_owned()]].concat();
            modules.get(&child)?;
        }
    }
    while let Some(name) = path.next_if(|name| ["crate", "self", "super"].contains(&&name[..])) {
        if name == "super" {
            at.pop();
        }
    }
    while let Some(name) = path.peek() {
        at.push(name.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
        path.next();
    }
    Some((at, path.collect()))
}
