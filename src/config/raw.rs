//! YAML text -> a tree whose nodes can be found again in the text. The only file that names the
//! parser that reads the files.
//!
//! That parser says a position only in an error. So the tree keeps how each node is reached, and
//! `places` finds it in the text when a fault has to be shown.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_yaml::Deserializer;

use super::fault::{FaultReport, Location, Sink};
use super::locations::{self, NodeId, Part, Paths, Pos};
use super::printable::quoted;

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;

/// Most `[` and `{` in a file, comments and quotes included. For every token the parser looks at
/// each one that is open.
const MAX_BRACKETS: usize = 4096;

/// Deepest nesting of lists and maps. The files need 3.
const MAX_DEPTH: usize = 16;

/// Most scalars, lists and maps in a file, each counted as often as an alias repeats it. A full
/// partition map has about 1500.
const MAX_NODES: usize = 10_000;

/// Most bytes in all scalars together, counted like the nodes. A file without aliases stays below,
/// as an escape yields at most half as much again as it takes.
const MAX_SCALAR_BYTES: usize = 2 * MAX_FILE_BYTES;

/// A value of the file.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Location,
    pub(crate) content: YamlContent,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) enum YamlContent {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<YamlEntry>),
    /// A value with a tag of its own; the fault is reported already.
    Refused,
}

/// One `key: value` of a map, in file order; names may occur twice.
#[derive(Debug)]
pub(crate) struct YamlEntry {
    pub(crate) name: String,
    pub(crate) name_place: Location,
    pub(crate) value: Node,
}

/// A scalar and what YAML takes it for.
#[derive(Debug)]
pub(crate) struct Scalar {
    /// A text without its quotes, a number in decimal digits.
    pub(crate) text: String,
    pub(crate) resolved: Resolved,
}

/// The type YAML gives to a scalar. Quotes make it a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    Null,
    Bool,
    Number,
    Text,
}

/// The tree of `bytes`, and the report that holds the faults found on the way. No tree when the
/// file cannot be used at all.
pub(crate) fn parse<'t>(bytes: &'t [u8], file: &str) -> (Option<Node>, FaultReport<'t>) {
    let mut report = FaultReport {
        file: file.into(),
        text: Cow::Borrowed(""),
        sink: Sink::default(),
        paths: Paths::default(),
    };
    let outcome = if bytes.len() > MAX_FILE_BYTES {
        let problem = format!("the file has {} bytes, more than 1 MiB", bytes.len());
        Err(Unusable::new(Pos::TOP, problem, WRONG_FILE))
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        report.text = Cow::Borrowed(text);
        check_text(text).and_then(|()| read(text, &mut report.sink, &mut report.paths))
    } else {
        let (text, pos) = lossy(bytes);
        report.text = text;
        let help = "save the file as UTF-8";
        Err(Unusable::new(pos, "this byte is not UTF-8", help))
    };
    match outcome {
        Ok(root) => (Some(root), report),
        Err(Unusable { pos, problem, help }) => {
            // The one fault of the file: what was found before may be a consequence of it.
            report.sink = Sink::default();
            report.sink.add(Location::At(pos), problem, help);
            (None, report)
        }
    }
}

impl Node {
    /// The node in a few words, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            YamlContent::Scalar(scalar) if scalar.resolved == Resolved::Null => {
                "nothing".to_owned()
            }
            YamlContent::Scalar(scalar) => quoted(&scalar.text),
            YamlContent::List(_) => "a list".to_owned(),
            YamlContent::Map(_) => "a map".to_owned(),
            YamlContent::Refused => "an unsupported value".to_owned(),
        }
    }
}

/// Why nothing of a file can be used.
struct Unusable {
    pos: Pos,
    problem: String,
    help: &'static str,
}

impl Unusable {
    fn new(pos: Pos, problem: impl Into<String>, help: &'static str) -> Self {
        let problem = problem.into();
        Unusable { pos, problem, help }
    }
}

const WRONG_FILE: &str = "check that this is the file you meant";

/// The text of bytes that are not UTF-8, and the position of the first that is not.
fn lossy(bytes: &[u8]) -> (Cow<'_, str>, Pos) {
    let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    (String::from_utf8_lossy(bytes), end_of(valid))
}

/// The position after the last character of `text`.
fn end_of(text: &str) -> Pos {
    let unbroken = text.replace("\r\n", "\n").replace('\r', "\n");
    let last = unbroken.rsplit('\n').next().unwrap_or_default();
    Pos {
        line: unbroken.matches('\n').count() + 1,
        column: last.chars().count() + 1,
    }
}

/// Refuses, before the parser sees it, what readers of YAML disagree about and what would make
/// the parser slow.
fn check_text(text: &str) -> Result<(), Unusable> {
    let unusable = |at: usize, problem: String, help| {
        let before = text.get(..at).unwrap_or_default();
        Err(Unusable::new(end_of(before), problem, help))
    };
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_supported(*c)) {
        let problem = format!("the character U+{:04X} is not supported here", c as u32);
        return unusable(at, problem, "remove it");
    }
    let mut percents = text.match_indices('%').map(|(at, _)| at);
    // The parser compares each %TAG line with all before it.
    if let Some(at) = percents.find(|at| *at == 0 || is_break(text.as_bytes()[at - 1])) {
        let help = "remove the line that begins with `%`";
        return unusable(at, "YAML directives are not supported here".into(), help);
    }
    if let Some((at, _)) = text.match_indices(['[', '{']).nth(MAX_BRACKETS) {
        let problem = format!("the file has more than {MAX_BRACKETS} brackets `[` and `{{`");
        return unusable(at, problem, WRONG_FILE);
    }
    Ok(())
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Leaves out control characters, and U+0085, U+2028 and U+2029, which end a line for the parser
/// but for no editor: what looks like a comment could be read.
fn is_supported(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => !c.is_control(),
    }
}

/// The tree of `text`; faults of single nodes go to `sink`.
fn read(text: &str, sink: &mut Sink, paths: &mut Paths) -> Result<Node, Unusable> {
    let mut builder = Builder::new(sink, paths);
    let mut documents = Deserializer::from_str(text);
    let root = match documents.next() {
        Some(document) => match builder.deserialize(document) {
            Ok(root) if builder.paths.count() > 0 => Some(root),
            Ok(_) => None,
            Err(error) => return Err(refusal(text, builder.limit, &error)),
        },
        None => None,
    };
    match (root, documents.next()) {
        (Some(root), None) => Ok(root),
        (Some(_), Some(document)) => Err(second_document(text, document)),
        (None, _) => {
            let help = "write its keys, see the example file";
            Err(Unusable::new(Pos::TOP, "the file is empty", help))
        }
    }
}

/// Why reading the first document ended: at a limit, in bad syntax, or at a value that the parser
/// itself refused. Only the words of the syntax errors are fixed and so sure to hold no secret.
fn refusal(text: &str, limit: Option<Limit>, error: &serde_yaml::Error) -> Unusable {
    if let Some(Limit { problem, help }) = limit {
        return Unusable::new(pos_of(error), problem, help);
    }
    let document = Deserializer::from_str(text).next();
    if let Some(Err(syntax)) = document.map(IgnoredAny::deserialize) {
        return syntax_error(&syntax);
    }
    match error.location() {
        Some(_) => {
            let problem = "this value is not what its tag says";
            Unusable::new(pos_of(error), problem, "write the value without a tag")
        }
        // The parser counts aliases as well, and no other error is without a position.
        None => Unusable::new(Pos::TOP, TOO_MANY_ALIASES, WRITE_OUT),
    }
}

const TOO_MANY_ALIASES: &str = "the aliases of this file repeat too much";
const WRITE_OUT: &str = "write the values out instead of `*` and a name";

fn syntax_error(error: &serde_yaml::Error) -> Unusable {
    let help = "indent with spaces; a value that begins with one of `[ ] { } * & ! % @ |` or \
                contains `: ` needs quotes";
    Unusable::new(
        pos_of(error),
        format!("this is not valid YAML: {error}"),
        help,
    )
}

fn second_document(text: &str, document: Deserializer<'_>) -> Unusable {
    let pos = match locations::second_document(text) {
        Some(pos) => pos,
        None => match IgnoredAny::deserialize(document) {
            Err(error) => return syntax_error(&error),
            Ok(_) => Pos::TOP,
        },
    };
    let help = "keep one document per file: remove the line `---` and what follows it";
    Unusable::new(pos, "a second YAML document begins here", help)
}

fn pos_of(error: &serde_yaml::Error) -> Pos {
    error.location().map_or(Pos::TOP, |location| Pos {
        line: location.line(),
        column: location.column(),
    })
}

/// Builds the tree from the parser's events, up to the limits.
struct Builder<'s> {
    sink: &'s mut Sink,
    paths: &'s mut Paths,
    /// Which part of what list or map is read next.
    next: (NodeId, Part),
    scalar_bytes: usize,
    depth: usize,
    limit: Option<Limit>,
}

/// The limit that was passed.
struct Limit {
    problem: String,
    help: &'static str,
}

impl<'s> Builder<'s> {
    fn new(sink: &'s mut Sink, paths: &'s mut Paths) -> Self {
        Builder {
            sink,
            paths,
            next: (NodeId::ROOT, Part::Item(0)),
            scalar_bytes: 0,
            depth: 0,
            limit: None,
        }
    }

    /// Takes note of the node at which the parser stands.
    fn node<E: de::Error>(&mut self) -> Result<NodeId, E> {
        let (parent, part) = self.next;
        let id = self.paths.add(parent, part);
        if self.paths.count() > MAX_NODES {
            let problem = format!("the file has more than {MAX_NODES} values");
            return Err(self.passed(problem, WRONG_FILE));
        }
        Ok(id)
    }

    fn scalar<E>(&mut self, resolved: Resolved, text: &str) -> Result<Node, E>
    where
        E: de::Error,
    {
        let place = Location::Node(self.node()?);
        self.scalar_bytes += text.len();
        if self.scalar_bytes > MAX_SCALAR_BYTES {
            return Err(self.passed(TOO_MANY_ALIASES.to_owned(), WRITE_OUT));
        }
        let text = text.to_owned();
        let content = YamlContent::Scalar(Scalar { text, resolved });
        Ok(Node { place, content })
    }

    fn open<E: de::Error>(&mut self) -> Result<NodeId, E> {
        let id = self.node()?;
        if self.depth == MAX_DEPTH {
            let problem = format!("lists and maps are nested more than {MAX_DEPTH} deep");
            return Err(self.passed(problem, "the file needs no more than 3 levels"));
        }
        self.depth += 1;
        Ok(id)
    }

    fn close(&mut self, id: NodeId, content: YamlContent) -> Node {
        self.depth -= 1;
        let place = Location::Node(id);
        Node { place, content }
    }

    /// The error that ends the reading; the parser adds the position to it.
    fn passed<E: de::Error>(&mut self, problem: String, help: &'static str) -> E {
        self.limit = Some(Limit { problem, help });
        E::custom("limit")
    }
}

impl<'de> DeserializeSeed<'de> for &mut Builder<'_> {
    type Value = Node;

    fn deserialize<D>(self, deserializer: D) -> Result<Node, D::Error>
    where
        D: serde::Deserializer<'de>,
    {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Builder<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// A file without any node.
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node {
            place: Location::At(Pos::TOP),
            content: YamlContent::Refused,
        })
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.scalar(Resolved::Null, "null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Resolved::Bool, &value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Resolved::Number, &value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Resolved::Number, &value.to_string())
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.scalar(Resolved::Number, &value.to_string())
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Resolved::Number, &value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        // Unlike `to_string`, this keeps a point or an exponent.
        self.scalar(Resolved::Number, &format!("{value:?}"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.scalar(Resolved::Text, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let id = self.open()?;
        let mut items = Vec::new();
        loop {
            self.next = (id, Part::Item(items.len()));
            let Some(item) = access.next_element_seed(&mut *self)? else {
                return Ok(self.close(id, YamlContent::List(items)));
            };
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let id = self.open()?;
        let mut entries = Vec::new();
        for index in 0.. {
            self.next = (id, Part::Key(index));
            let Some(name) = access.next_key_seed(&mut *self)? else {
                break;
            };
            self.next = (id, Part::Value(index));
            let value = access.next_value_seed(&mut *self)?;
            match name.content {
                YamlContent::Scalar(Scalar { text, .. }) => entries.push(YamlEntry {
                    name: text,
                    name_place: name.place,
                    value,
                }),
                YamlContent::Refused => {}
                YamlContent::List(_) | YamlContent::Map(_) => self.sink.add(
                    name.place,
                    "a list or map cannot be a key",
                    "write a plain name before the colon",
                ),
            }
        }
        Ok(self.close(id, YamlContent::Map(entries)))
    }

    /// A value with a tag of its own, `!name`. It must not be read as if it had none, but its
    /// nodes count.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Node, A::Error> {
        let place = Location::Node(self.node()?);
        let (IgnoredAny, variant) = access.variant()?;
        variant.newtype_variant_seed(&mut *self)?;
        let problem = "YAML tags are not supported here";
        self.sink
            .add(place, problem, "write the value without a tag");
        let content = YamlContent::Refused;
        Ok(Node { place, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Scalar {
        let node = read(text, &mut Sink::default(), &mut Paths::default())
            .map_err(|unusable| unusable.problem);
        match node.unwrap().content {
            YamlContent::Scalar(scalar) => scalar,
            content => panic!("{text} is {content:?}"),
        }
    }

    #[test]
    fn plain_scalars_resolve_as_in_yaml_1_2() {
        for (text, number) in [
            ("0", "0"),
            ("-12", "-12"),
            ("+1", "1"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("18446744073709551616", "18446744073709551616"),
            ("1.5", "1.5"),
            ("1.", "1.0"),
            ("1e10", "10000000000.0"),
            ("-.inf", "-inf"),
            (".nan", "NaN"),
        ] {
            let scalar = scalar(text);
            assert_eq!((scalar.resolved, &*scalar.text), (Resolved::Number, number));
        }
        for text in [
            "off",
            "yes",
            "1.2.3",
            "10.0.0.1:42",
            "1:20",
            "e5",
            ".",
            "1e",
            "0xg",
            "1_000",
            "2s",
            "007",
        ] {
            let scalar = scalar(text);
            assert_eq!((scalar.resolved, &*scalar.text), (Resolved::Text, text));
        }
        assert_eq!(scalar("True").resolved, Resolved::Bool);
        assert_eq!(scalar("~").resolved, Resolved::Null);
        for quoted in ["\"1\"", "'1'", "!!str 1"] {
            let scalar = scalar(quoted);
            assert_eq!((scalar.resolved, &*scalar.text), (Resolved::Text, "1"));
        }
    }
}
