//! Where things stand in a text: lines, positions, and the nodes of YAML. The only file that names
//! the parser that marks them.
//!
//! The nodes are asked for only in a text with faults: the parser that reads the files says no
//! positions.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// A position in a file: line and column start at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Pos {
    /// The first character of a file.
    pub(crate) const TOP: Pos = Pos { line: 1, column: 1 };
}

/// A key or value of a file, by its number in [`Paths`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

impl NodeId {
    /// The whole of the document.
    pub(crate) const ROOT: NodeId = NodeId(0);
}

/// Which part of a list or map a node is, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// An entry of a list.
    Item(usize),
    /// The key of an entry of a map.
    Key(usize),
    /// The value of an entry of a map.
    Value(usize),
}

/// How every node of a tree is reached from its root.
#[derive(Debug, Default)]
pub(crate) struct Paths(Vec<(NodeId, Part)>);

impl Paths {
    /// Takes note of a node that is this part of its parent; of the root, the first one.
    pub(crate) fn add(&mut self, parent: NodeId, part: Part) -> NodeId {
        let id = NodeId(self.0.len());
        self.0.push((parent, part));
        id
    }

    /// How many nodes there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The steps from the root to a node.
    fn to(&self, node: NodeId) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut node = node;
        while node != NodeId::ROOT
            && let Some(&(parent, part)) = self.0.get(node.0)
        {
            parts.push(part);
            node = parent;
        }
        parts.reverse();
        parts
    }
}

/// The first document of a text with the positions of its nodes, as far as it can be read.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<Mark>);

#[derive(Debug)]
struct Mark {
    pos: Pos,
    /// The entries of a list, or keys and values of a map in turn.
    parts: Vec<usize>,
}

impl Marks {
    pub(crate) fn of(text: &str, lines: &SourceLines<'_>) -> Self {
        let mut marks = Self::default();
        let mut open: Vec<usize> = Vec::new();
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        // This parser refuses tabs that the other takes, such as one behind a colon. A space in its
        // place moves nothing.
        let text = text.replace('\t', " ");
        for event in Parser::new_from_str(&text) {
            // What cannot be read is a fault of its own, and nothing behind it is asked for.
            let Ok((event, span)) = event else {
                break;
            };
            let mut pos = pos_of(span);
            let (anchor, opens) = match event {
                Event::Scalar(_, style, anchor, tag) => {
                    let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                    if is_block && anchor == 0 && tag.is_none() {
                        pos = block_mark(lines, pos);
                    }
                    (anchor, false)
                }
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => (anchor, true),
                Event::Alias(anchor) => {
                    // What it repeats has the position where it is written.
                    if let (Some(&node), Some(&parent)) = (anchors.get(&anchor), open.last()) {
                        marks.0[parent].parts.push(node);
                    }
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                Event::DocumentEnd => break,
                _ => continue,
            };
            let node = marks.0.len();
            let parts = Vec::new();
            marks.0.push(Mark { pos, parts });
            if let Some(&parent) = open.last() {
                marks.0[parent].parts.push(node);
            }
            anchors.insert(anchor, node);
            if opens {
                open.push(node);
            }
        }
        marks
    }

    /// The position of a node; where the marking parser has given up before, its last one.
    pub(crate) fn find(&self, paths: &Paths, node: NodeId) -> Pos {
        let Some(mut found) = self.0.first() else {
            return Pos::TOP;
        };
        for part in paths.to(node) {
            let index = match part {
                Part::Item(index) => index,
                Part::Key(index) => 2 * index,
                Part::Value(index) => 2 * index + 1,
            };
            let mark = |part: &usize| self.0.get(*part);
            let Some(part) = found.parts.get(index).and_then(mark) else {
                let last = found.parts.last().and_then(mark);
                return last.unwrap_or(found).pos;
            };
            found = part;
        }
        found.pos
    }
}

/// The position of the second document of a text, if a line `---` begins it.
pub(crate) fn second_document(text: &str) -> Option<Pos> {
    let events = Parser::new_from_str(text).map_while(Result::ok);
    let mut starts = events.filter(|(event, _)| matches!(event, Event::DocumentStart(_)));
    match starts.nth(1) {
        Some((Event::DocumentStart(true), span)) => Some(pos_of(span)),
        _ => None,
    }
}

/// The position of the `|` or `>` above a block of text, which itself begins at `content` or has
/// nothing in it.
fn block_mark(lines: &SourceLines<'_>, content: Pos) -> Pos {
    let mut above = (1..content.line).rev();
    let line = above.find(|line| !lines.line(*line).trim().is_empty());
    let Some(line) = line else {
        return content;
    };
    let text = lines.line(line);
    let code = text.find(" #").map_or(text, |end| &text[..end]);
    match code.rfind(['|', '>']) {
        Some(at) => Pos {
            line,
            column: text[..at].chars().count() + 1,
        },
        None => content,
    }
}

fn pos_of(span: Span) -> Pos {
    Pos {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

/// The lines of a text, found by number.
pub(crate) struct SourceLines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> SourceLines<'t> {
    /// Breaks at LF, CR LF and CR, as YAML does. A break at the end begins no further line.
    pub(crate) fn of(text: &'t str) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (index, byte) in bytes.iter().enumerate() {
            let next = index + 1;
            let breaks = match byte {
                b'\n' => true,
                b'\r' => bytes.get(next) != Some(&b'\n'),
                _ => false,
            };
            if breaks && next < bytes.len() {
                starts.push(next);
            }
        }
        SourceLines { text, starts }
    }

    /// The number of lines, at least 1.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The line of this number, without its break; the last one for any number beyond.
    pub(crate) fn line(&self, number: usize) -> &'t str {
        let number = number.clamp(1, self.count());
        let start = self.starts[number - 1];
        let end = self.starts.get(number).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the node is that these parts lead to, as `line:column`.
    fn found(text: &str, parts: &[Part]) -> String {
        let mut paths = Paths::default();
        let mut node = paths.add(NodeId::ROOT, Part::Item(0));
        for part in parts {
            node = paths.add(node, *part);
        }
        let Pos { line, column } = Marks::of(text, &SourceLines::of(text)).find(&paths, node);
        format!("{line}:{column}")
    }

    #[test]
    fn nodes_are_found_by_how_they_are_reached() {
        use Part::{Item, Key, Value};
        let text =
            "a: 1\nb: # c\n  - x\n  - {c: \"d\", e: [f, &g \u{fc}, h]}\ni: *g\r\n? [j]\r\n: !t k\n";
        for (parts, place) in [
            (&[][..], "1:1"),
            (&[Key(0)], "1:1"),
            (&[Value(0)], "1:4"),
            (&[Value(1)], "3:3"),
            (&[Value(1), Item(0)], "3:5"),
            (&[Value(1), Item(1), Value(0)], "4:9"),
            (&[Value(1), Item(1), Value(1), Item(2)], "4:27"),
            // What is repeated is found where it is written, with its anchor.
            (&[Value(2)], "4:21"),
            (&[Key(3)], "6:3"),
            (&[Key(3), Item(0)], "6:4"),
            (&[Value(3)], "7:3"),
        ] {
            assert_eq!(found(text, parts), place, "{parts:?}");
        }
    }

    #[test]
    fn a_block_of_text_is_found_at_its_mark() {
        for (text, place) in [
            ("a: |\n  x\n", "1:4"),
            ("a: >- # b | c\n\n\n  x\n", "1:4"),
            ("a: |2-\nb: 1\n", "1:4"),
            ("a: |", "1:4"),
            ("a:\t|\n x\n", "1:4"),
        ] {
            assert_eq!(found(text, &[Part::Value(0)]), place, "{text:?}");
        }
    }

    #[test]
    fn behind_what_cannot_be_read_the_last_place_counts() {
        assert_eq!(
            found("a: 1\nb: [c, d\n", &[Part::Value(1), Part::Item(1)]),
            "2:8"
        );
        assert_eq!(found("a: 1\nb: 2\n}", &[Part::Value(7)]), "2:4");
        assert_eq!(found("", &[Part::Value(0)]), "1:1");
    }
}
