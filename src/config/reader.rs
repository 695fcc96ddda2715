//! Reads a map key by key. One pass over the keys does three things at once: it takes their
//! values, it collects every fault, and it writes down the outline from which the JSON Schema
//! comes.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::fault::{Location, Sink};
use super::kinds::ValueKind;
use super::outline::{KeyOutline, Outline, Presence, Shape};
use super::printable::quoted;
use super::raw::{Node, Resolved, YamlContent, YamlEntry};

/// A value and whether and where the file says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<T> {
    /// What the file says, or the default when it says nothing or something faulty.
    pub(crate) value: T,
    /// The place of the value, when the key is there.
    pub(crate) place: Option<Location>,
    /// False when the file holds something faulty here: then `value` must not be blamed for
    /// anything else.
    pub(crate) sound: bool,
}

/// A value without a default.
#[derive(Debug, Clone)]
pub(crate) enum Read<T> {
    Absent,
    /// The fault is reported.
    Faulty,
    Found(T, Location),
}

impl<T> Read<T> {
    /// The value, if there is a sound one.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Read::Found(value, _) => Some(value),
            Read::Absent | Read::Faulty => None,
        }
    }

    /// The value and its place, if there is a sound one.
    pub(crate) fn found(&self) -> Option<(&T, Location)> {
        match self {
            Read::Found(value, place) => Some((value, *place)),
            Read::Absent | Read::Faulty => None,
        }
    }
}

/// Reads `node` as a map. The keys `read` asks for are the known ones; all others are faults.
pub(crate) fn read_map<T>(
    node: &Node,
    what: &str,
    sink: &mut Sink,
    read: impl FnOnce(&mut MapReader<'_, '_>) -> T,
) -> (T, Outline) {
    let entries = match &node.content {
        YamlContent::Map(entries) => Some(entries.as_slice()),
        YamlContent::Refused => None,
        _ => {
            let problem = format!("{what} must be a map, this is {}", node.describe());
            sink.add(node.place, problem, "write `key: value` lines");
            None
        }
    };
    let mut reader = MapReader {
        values: index(entries.unwrap_or_default(), sink),
        place: entries.map(|_| node.place),
        outline: Outline::new(),
        sink,
    };
    let value = read(&mut reader);
    (
        value,
        reader.refuse_unknown_keys(entries.unwrap_or_default()),
    )
}

/// Reads a map that is not there: all defaults, no faults. Also the way to get an outline.
pub(crate) fn read_nothing<T>(read: impl FnOnce(&mut MapReader<'_, '_>) -> T) -> (T, Outline) {
    let sink = &mut Sink::default();
    let mut reader = MapReader {
        values: HashMap::new(),
        place: None,
        outline: Outline::new(),
        sink,
    };
    let value = read(&mut reader);
    (value, reader.outline)
}

fn index<'n>(entries: &'n [YamlEntry], sink: &mut Sink) -> HashMap<&'n str, &'n YamlEntry> {
    let mut values: HashMap<&str, &YamlEntry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = values.get(entry.name.as_str()) {
            let problem = format!("the key {} is here twice", quoted(&entry.name));
            let help = "remove one of the two; the file cannot say which one is meant";
            sink.add_clash(entry.name_place, first.name_place, problem, help);
        } else {
            values.insert(&entry.name, entry);
        }
    }
    values
}

/// One map being read.
pub(crate) struct MapReader<'n, 's> {
    values: HashMap<&'n str, &'n YamlEntry>,
    /// The place of the map; none when there is no map whose missing keys could be reported.
    place: Option<Location>,
    outline: Outline,
    sink: &'s mut Sink,
}

impl<'n> MapReader<'n, '_> {
    /// A scalar that has a default.
    pub(crate) fn optional<K: ValueKind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: &K,
        default: K::Value,
    ) -> Field<K::Value> {
        self.know(
            name,
            doc,
            kind.shape(),
            Presence::Default(kind.write(&default)),
        );
        let place = self.values.get(name).map(|entry| entry.value.place);
        match self.scalar(name, kind) {
            Read::Found(value, _) => Field {
                value,
                place,
                sound: true,
            },
            Read::Absent => Field {
                value: default,
                place,
                sound: true,
            },
            Read::Faulty => Field {
                value: default,
                place,
                sound: false,
            },
        }
    }

    /// A scalar that must be there.
    pub(crate) fn required<K: ValueKind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: &K,
    ) -> Read<K::Value> {
        self.know(name, doc, kind.shape(), Presence::Required);
        let read = self.scalar(name, kind);
        if let Read::Absent = read {
            self.missing(name, &kind.wanted());
        }
        read
    }

    /// A scalar that the caller derives from others when it is absent.
    pub(crate) fn derived<K: ValueKind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: &K,
    ) -> Read<K::Value> {
        self.know(name, doc, kind.shape(), Presence::Derived);
        self.scalar(name, kind)
    }

    /// A list of scalars, empty by default.
    pub(crate) fn list<K: ValueKind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: &K,
        max: usize,
    ) -> Field<Vec<K::Value>> {
        let shape = Shape::List {
            items: Box::new(kind.shape()),
            min: 0,
            max,
        };
        self.know(
            name,
            doc,
            shape,
            Presence::Default(serde_json::Value::Array(Vec::new())),
        );
        let Some(entry) = self.values.get(name).copied() else {
            return Field {
                value: Vec::new(),
                place: None,
                sound: true,
            };
        };
        let place = Some(entry.value.place);
        let Some(items) = self.items(entry, 0..=max, &kind.wanted()) else {
            return Field {
                value: Vec::new(),
                place,
                sound: false,
            };
        };
        let value: Vec<K::Value> = items
            .iter()
            .filter_map(|item| self.value(name, item, item.place, kind))
            .collect();
        let sound = value.len() == items.len();
        Field {
            value,
            place,
            sound,
        }
    }

    /// A map within this one; `read` gives the defaults when it is absent.
    pub(crate) fn section<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut MapReader<'_, '_>) -> T,
    ) -> T {
        let (value, outline) = match self.values.get(name) {
            Some(entry) if is_null(&entry.value) => {
                let problem = format!("`{name}` has no keys");
                self.sink.add(
                    entry.name_place,
                    problem,
                    "write its keys below, or remove this line",
                );
                read_nothing(read)
            }
            Some(entry) => read_map(&entry.value, &format!("`{name}`"), self.sink, read),
            None => read_nothing(read),
        };
        let defaults = serde_json::Value::Object(serde_json::Map::new());
        self.know(name, doc, Shape::Map(outline), Presence::Default(defaults));
        value
    }

    /// A list of maps that must be there.
    pub(crate) fn maps<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        counts: RangeInclusive<usize>,
        read: impl Fn(&mut MapReader<'_, '_>) -> T,
    ) -> Read<Vec<T>> {
        let (_, outline) = read_nothing(&read);
        let items = Box::new(Shape::Map(outline));
        let (min, max) = (*counts.start(), *counts.end());
        let presence = match min {
            0 => Presence::Default(serde_json::Value::Array(Vec::new())),
            _ => Presence::Required,
        };
        self.know(name, doc, Shape::List { items, min, max }, presence);
        let Some(entry) = self.values.get(name).copied() else {
            if min > 0 {
                self.missing(name, "a list of maps");
            }
            return Read::Absent;
        };
        let Some(items) = self.items(entry, counts, "`- key: value` entries") else {
            return Read::Faulty;
        };
        let what = format!("an entry of `{name}`");
        let values = items
            .iter()
            .map(|item| read_map(item, &what, self.sink, &read).0)
            .collect();
        Read::Found(values, entry.value.place)
    }

    /// Reports a fault that the caller found.
    pub(crate) fn fault(
        &mut self,
        place: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.sink.add(place, problem, help);
    }

    /// Says that what stands at `place` is accepted and hardly meant.
    pub(crate) fn warn(
        &mut self,
        place: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.sink.warn(place, problem, help);
    }

    /// Where the name of this key stands, if it is there.
    pub(crate) fn name_place(&self, name: &str) -> Option<Location> {
        self.values.get(name).map(|entry| entry.name_place)
    }

    /// Reports that what stands at `place` clashes with what stands at `first`.
    pub(crate) fn clash(
        &mut self,
        place: Location,
        first: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.sink.add_clash(place, first, problem, help);
    }

    fn know(&mut self, name: &'static str, doc: &'static str, shape: Shape, presence: Presence) {
        self.outline.push(KeyOutline {
            name,
            doc,
            shape,
            presence,
        });
    }

    /// Reports that a key is missing.
    pub(crate) fn missing(&mut self, name: &str, wanted: &str) {
        if let Some(place) = self.place {
            let help = format!("add `{name}:` with {wanted}");
            self.sink
                .add(place.start(), format!("the key `{name}` is missing"), help);
        }
    }

    fn scalar<K: ValueKind>(&mut self, name: &str, kind: &K) -> Read<K::Value> {
        let Some(entry) = self.values.get(name).copied() else {
            return Read::Absent;
        };
        // A missing value has no place of its own. A secret may stand on a line below its key,
        // and only the line with the key is sure to be shown masked.
        let shown = if kind.is_secret() || is_null(&entry.value) {
            entry.name_place
        } else {
            entry.value.place
        };
        match self.value(name, &entry.value, shown, kind) {
            Some(value) => Read::Found(value, entry.value.place),
            None => Read::Faulty,
        }
    }

    fn value<K: ValueKind>(
        &mut self,
        name: &str,
        node: &Node,
        shown: Location,
        kind: &K,
    ) -> Option<K::Value> {
        let (problem, help) = match &node.content {
            YamlContent::Refused => return None,
            YamlContent::Scalar(scalar) if scalar.resolved != Resolved::Null => {
                match kind.read(scalar) {
                    Ok(value) => return Some(value),
                    Err(mistake) => (format!("`{name}`: {}", mistake.problem), mistake.help),
                }
            }
            _ if is_null(node) => (format!("`{name}` has no value"), None),
            _ => (format!("`{name}`: this is {}", node.describe()), None),
        };
        let help = help.unwrap_or_else(|| format!("write {}", kind.wanted()));
        self.sink.add(shown, problem, help);
        None
    }

    fn items(
        &mut self,
        entry: &'n YamlEntry,
        counts: RangeInclusive<usize>,
        wanted: &str,
    ) -> Option<&'n [Node]> {
        let YamlEntry {
            name,
            name_place,
            value,
        } = entry;
        let items = match &value.content {
            YamlContent::List(items) => items.as_slice(),
            YamlContent::Refused => return None,
            _ => {
                let problem = format!(
                    "{} must be a list, this is {}",
                    quoted(name),
                    value.describe()
                );
                let help = format!("write one `- ` line for each entry: {wanted}");
                self.sink.add(
                    if is_null(value) {
                        *name_place
                    } else {
                        value.place
                    },
                    problem,
                    help,
                );
                return None;
            }
        };
        if !counts.contains(&items.len()) {
            let problem = format!("{} has {} entries", quoted(name), items.len());
            let help = format!("write from {} to {} entries", counts.start(), counts.end());
            self.sink.add(*name_place, problem, help);
            return None;
        }
        Some(items)
    }

    /// Reports the keys nobody asked for. Ends the reading.
    fn refuse_unknown_keys(self, entries: &[YamlEntry]) -> Outline {
        let MapReader { outline, sink, .. } = self;
        let is_known = |name: &str| outline.iter().any(|key| key.name == name);
        for entry in entries.iter().filter(|entry| !is_known(&entry.name)) {
            let names: Vec<String> = outline
                .iter()
                .map(|key| format!("`{}`", key.name))
                .collect();
            let known = format!("The keys known here are {}", names.join(", "));
            let help = match suggestion(&entry.name, &outline) {
                Some(hint) => format!("{hint} {known}"),
                None => known,
            };
            sink.add(
                entry.name_place,
                format!("unknown key {}", quoted(&entry.name)),
                help,
            );
        }
        outline
    }
}

fn is_null(node: &Node) -> bool {
    matches!(&node.content, YamlContent::Scalar(scalar) if scalar.resolved == Resolved::Null)
}

/// What an unknown key may have been meant to be: a key of a section below, or one spelled alike.
fn suggestion(name: &str, outline: &Outline) -> Option<String> {
    for key in outline {
        if let Shape::Map(below) = &key.shape
            && below.iter().any(|key| key.name == name)
        {
            return Some(format!("`{name}` belongs below `{}`.", key.name));
        }
    }
    // Longer than any key: no need to compare.
    if name.len() > 64 {
        return None;
    }
    let nearest = outline
        .iter()
        .map(|key| (edits(name, key.name), key.name))
        .min()?;
    (nearest.0 <= (name.chars().count() / 3).max(1))
        .then(|| format!("Did you mean `{}`?", nearest.1))
}

/// The number of characters to insert, remove, replace or swap with a neighbour (optimal string
/// alignment distance) to turn `from` into `to`.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut row = vec![i + 1];
        for j in 0..to.len() {
            let replaced = above[j] + usize::from(from[i] != to[j]);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_swaps_as_one() {
        assert_eq!(edits("listen", "listen"), 0);
        assert_eq!(edits("lisetn", "listen"), 1);
        assert_eq!(edits("listn", "listen"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
