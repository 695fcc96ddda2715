//! YAML text -> a tree in which every node knows its place. The only file that names the YAML
//! parser.
//!
//! Only what a configuration file needs is let through: one document, no anchors or aliases, no
//! tags, bounded depth and size. So a small file cannot unfold into a large tree, and nothing
//! depends on a reader's idea of a tag.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan};

use super::fault::{Pos, Report, Sink, Span};
use super::printable::{quoted, replaced};

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 4 << 20;

/// Deepest nesting of lists and maps. The files need 3.
const MAX_DEPTH: usize = 16;

/// Most scalars, lists and maps in one file. A full partition map needs about 2000.
const MAX_NODES: usize = 100_000;

/// A value of the file with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) content: Content,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something whose fault is reported already: an alias or a tagged value.
    Refused,
}

/// One `key: value` of a map, in file order; names may occur twice.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) value: Node,
}

/// A scalar as it stands in the file, without its quotes.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that YAML may take it for a number, a truth value or nothing.
    pub(crate) plain: bool,
}

/// The tree of `bytes`, and the report that holds the faults found on the way. No tree when the
/// file cannot be used at all.
pub(crate) fn parse<'t>(bytes: &'t [u8], file: &str) -> (Option<Node>, Report<'t>) {
    let mut report = Report {
        file: file.into(),
        text: Cow::Borrowed(""),
        sink: Sink::default(),
    };
    if bytes.len() > MAX_FILE_BYTES {
        report.sink.add(
            Span::TOP,
            format!("the file has {} bytes, more than 4 MiB", bytes.len()),
            "check that this is the file you meant",
        );
        return (None, report);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            report.text = Cow::Borrowed(text);
            let root = Builder::new(&mut report.sink).build(text);
            (root, report)
        }
        Err(error) => {
            let text = String::from_utf8_lossy(bytes);
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let place = end_of(&String::from_utf8_lossy(valid));
            report.text = text;
            report.sink.add(
                Span::at(place),
                "this byte is not UTF-8",
                "save the file as UTF-8",
            );
            (None, report)
        }
    }
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

/// Puts the parser's events together. Iterative, and gives up at the limits: nothing here grows
/// with the depth of the input but a vector of at most [`MAX_DEPTH`] frames.
struct Builder<'s> {
    sink: &'s mut Sink,
    open: Vec<Frame>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

struct Frame {
    start: Span,
    refused: bool,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<Node>,
    },
}

/// The file cannot be used any further; the fault is in the sink.
struct GiveUp;

impl<'s> Builder<'s> {
    fn new(sink: &'s mut Sink) -> Self {
        Builder {
            sink,
            open: Vec::new(),
            root: None,
            nodes: 0,
            documents: 0,
        }
    }

    fn build(mut self, text: &str) -> Option<Node> {
        for event in Parser::new_from_str(text) {
            let step = match event {
                Ok((event, span)) => self.take(event, span_of(span)),
                Err(error) => self.syntax_error(pos_of(error.marker()), error.info()),
            };
            if let Err(GiveUp) = step {
                return None;
            }
        }
        if self.root.is_none() {
            self.sink.add(
                Span::TOP,
                "the file is empty",
                "write its keys, see the example file",
            );
        }
        self.root
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), GiveUp> {
        match event {
            Event::DocumentStart(_) => self.document(span),
            Event::Alias(_) => {
                self.refuse_anchor(span);
                self.node(Node {
                    span,
                    content: Content::Refused,
                })
            }
            Event::Scalar(text, style, anchor, tag) => {
                let refused = self.refused(span, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                let content = match refused {
                    true => Content::Refused,
                    false => Content::Scalar(Scalar {
                        text: text.into_owned(),
                        plain,
                    }),
                };
                self.node(Node { span, content })
            }
            Event::SequenceStart(anchor, tag) => {
                let refused = self.refused(span, anchor, tag.is_some());
                self.push(Frame {
                    start: span,
                    refused,
                    kind: FrameKind::List(Vec::new()),
                })
            }
            Event::MappingStart(anchor, tag) => {
                let refused = self.refused(span, anchor, tag.is_some());
                let kind = FrameKind::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.push(Frame {
                    start: span,
                    refused,
                    kind,
                })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(frame) => self.attach(frame.close(span)),
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, span: Span) -> Result<(), GiveUp> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let help = "keep one document per file: remove the line `---` or `...` and what follows it";
        self.sink
            .add(span, "a second YAML document begins here", help);
        Err(GiveUp)
    }

    fn node(&mut self, node: Node) -> Result<(), GiveUp> {
        self.count(node.span)?;
        self.attach(node)
    }

    fn push(&mut self, frame: Frame) -> Result<(), GiveUp> {
        self.count(frame.start)?;
        if self.open.len() == MAX_DEPTH {
            self.too_deep(frame.start);
            return Err(GiveUp);
        }
        self.open.push(frame);
        Ok(())
    }

    fn count(&mut self, span: Span) -> Result<(), GiveUp> {
        self.nodes += 1;
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        self.sink.add(
            span,
            format!("the file has more than {MAX_NODES} values"),
            "check that this is the file you meant",
        );
        Err(GiveUp)
    }

    /// Hands a finished node to the list or map it stands in.
    fn attach(&mut self, node: Node) -> Result<(), GiveUp> {
        match self.open.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::List(items)) => items.push(node),
            Some(FrameKind::Map { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(Node {
                    span: name_span,
                    content: Content::Scalar(name),
                }) => {
                    entries.push(Entry {
                        name: name.text,
                        name_span,
                        value: node,
                    });
                }
                Some(Node {
                    content: Content::Refused,
                    ..
                }) => {}
                Some(Node { span, .. }) => self.sink.add(
                    span,
                    "a list or map cannot be a key",
                    "write a plain name before the colon",
                ),
            },
        }
        Ok(())
    }

    /// Reports a tag or an anchor. A tagged value must not be read as if it had no tag.
    fn refused(&mut self, span: Span, anchor: usize, tagged: bool) -> bool {
        if anchor != 0 {
            self.refuse_anchor(span);
        }
        if tagged {
            let help = "write the value without a tag";
            self.sink
                .add(span, "YAML tags are not supported here", help);
        }
        tagged
    }

    fn refuse_anchor(&mut self, span: Span) {
        let help = "write the value out, and put it in quotes if it shall begin with `&` or `*`";
        self.sink.add(
            span,
            "YAML anchors and aliases are not supported here",
            help,
        );
    }

    fn too_deep(&mut self, span: Span) {
        let problem = format!("lists and maps are nested more than {MAX_DEPTH} deep");
        self.sink
            .add(span, problem, "the file needs no more than 3 levels");
    }

    fn syntax_error(&mut self, pos: Pos, info: &str) -> Result<(), GiveUp> {
        *self.sink = Sink::default();
        if info.contains("recursion limit") {
            self.too_deep(Span::at(pos));
            return Err(GiveUp);
        }
        let info: String = info.chars().map(replaced).collect();
        let help = "indent with spaces; a value that begins with one of `[ ] { } * & ! % @ |` or \
                    contains `: ` needs quotes";
        self.sink.add(
            Span::at(pos),
            format!("this is not valid YAML: {info}"),
            help,
        );
        Err(GiveUp)
    }
}

impl Frame {
    fn close(self, end: Span) -> Node {
        let span = Span {
            start: self.start.start,
            end: end.end,
        };
        let content = match self.kind {
            _ if self.refused => Content::Refused,
            FrameKind::List(items) => Content::List(items),
            FrameKind::Map { entries, .. } => Content::Map(entries),
        };
        Node { span, content }
    }
}

impl Scalar {
    /// What YAML 1.2 (core schema) takes this scalar for.
    pub(crate) fn resolve(&self) -> Resolved {
        if !self.plain {
            return Resolved::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Resolved::Bool,
            text if is_number(text) => Resolved::Number,
            _ => Resolved::Text,
        }
    }
}

/// The type YAML gives to a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    Null,
    Bool,
    Number,
    Text,
}

fn is_number(text: &str) -> bool {
    let all =
        |digits: &str, ok: fn(&u8) -> bool| !digits.is_empty() && digits.bytes().all(|b| ok(&b));
    if let Some(octal) = text.strip_prefix("0o") {
        return all(octal, |b| matches!(b, b'0'..=b'7'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return all(hex, u8::is_ascii_hexdigit);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok =
        digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_ok = exponent.is_none_or(|exponent| {
        all(
            exponent.strip_prefix(['+', '-']).unwrap_or(exponent),
            u8::is_ascii_digit,
        )
    });
    mantissa_ok && exponent_ok
}

impl Node {
    /// The node in a few words, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            Content::Scalar(scalar) if scalar.resolve() == Resolved::Null => "nothing".to_owned(),
            Content::Scalar(scalar) => quoted(&scalar.text),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
            Content::Refused => "an unsupported value".to_owned(),
        }
    }
}

fn span_of(span: YamlSpan) -> Span {
    Span {
        start: pos_of(&span.start),
        end: pos_of(&span.end),
    }
}

fn pos_of(marker: &Marker) -> Pos {
    Pos {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_yaml_1_2() {
        let resolve = |text: &str| {
            Scalar {
                text: text.to_owned(),
                plain: true,
            }
            .resolve()
        };
        for text in [
            "0", "-12", "+1", "007", "1.5", ".5", "1.", "1e10", "-1.5E-3", "0x1F", "0o17", "-.inf",
            ".nan",
        ] {
            assert_eq!(resolve(text), Resolved::Number, "{text}");
        }
        for text in [
            "off",
            "yes",
            "1.2.3",
            "10.0.0.1:42",
            "1:20",
            "e5",
            ".",
            "-",
            "1e",
            "0xg",
            "1_000",
            "2s",
        ] {
            assert_eq!(resolve(text), Resolved::Text, "{text}");
        }
        assert_eq!(resolve("True"), Resolved::Bool);
        assert_eq!(resolve("~"), Resolved::Null);
        assert_eq!(
            Scalar {
                text: "1".to_owned(),
                plain: false
            }
            .resolve(),
            Resolved::Text
        );
    }
}
