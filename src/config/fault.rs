//! Faults of a file: where, what is wrong, what would be right.
//!
//! A [`Sink`] collects faults while a file is read; a [`FaultReport`] turns them into
//! [`Faults`], which carry the lines they show and so outlive the text.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::fmt;
use std::sync::Arc;

use super::locations::{Marks, NodeId, Paths, Pos, SourceLines};
use super::printable;

/// Faults shown per file; further ones are only counted.
const MAX_SHOWN: usize = 100;

/// What a fault is about. Where a node stands is looked up only when the fault is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    /// A node, as much of it as stands on its first line.
    Node(NodeId),
    /// The first character of a node.
    StartOf(NodeId),
    /// One character.
    At(Pos),
}

impl Location {
    /// The first character of this place.
    pub(crate) fn start(self) -> Location {
        match self {
            Location::Node(id) => Location::StartOf(id),
            start => start,
        }
    }
}

/// One fault of a file.
///
/// Its [`Display`](fmt::Display) form is the position, what is wrong, the lines of the file with
/// a mark under the place, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    file: Arc<str>,
    place: Snippet,
    first: Option<Snippet>,
    problem: String,
    help: String,
}

impl Fault {
    /// The file as it was named to the parser.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of the fault, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column of the fault in characters, from 1. One past the last character of the line
    /// when something is missing there.
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// What is wrong.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What would be right.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Position, problem and remedy in one line, without the lines of the file.
    pub fn in_one_line(&self) -> String {
        let Fault {
            file,
            place,
            problem,
            help,
            ..
        } = self;
        format!("{file}:{}:{}: {problem}; {help}", place.line, place.column)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            file,
            place,
            first,
            problem,
            help,
        } = self;
        writeln!(f, "{file}:{}:{}: {problem}", place.line, place.column)?;
        let last_line = first
            .as_ref()
            .map_or(place.line, |first| first.line.max(place.line));
        let gutter = last_line.to_string().len();
        writeln!(f, "{:gutter$} |", "")?;
        match first {
            None => place.render(f, gutter, '^')?,
            Some(first) if first.line <= place.line => {
                first.render(f, gutter, '-')?;
                if first.line + 1 < place.line {
                    writeln!(f, "...")?;
                }
                place.render(f, gutter, '^')?;
            }
            Some(later) => {
                place.render(f, gutter, '^')?;
                later.render(f, gutter, '-')?;
            }
        }
        writeln!(f, "{:gutter$} = {help}", "")
    }
}

/// All faults of one or more files, in file order and then by position. Never empty.
///
/// At most 100 faults per file are kept; the count in the last line of the
/// [`Display`](fmt::Display) form includes those beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    shown: Vec<Fault>,
    totals: Vec<(Arc<str>, usize)>,
}

impl Faults {
    /// The faults that are kept with their text.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.shown.iter()
    }

    /// The number of all faults, those beyond the kept ones included.
    pub fn total(&self) -> usize {
        self.totals.iter().map(|(_, count)| count).sum()
    }

    /// The faults of this file, followed by those of another.
    pub(crate) fn followed_by(mut self, next: Faults) -> Faults {
        self.shown.extend(next.shown);
        self.totals.extend(next.totals);
        self
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.shown {
            writeln!(f, "{fault}")?;
        }
        for (index, (file, count)) in self.totals.iter().enumerate() {
            match (index, count) {
                (0, 1) => write!(f, "1 fault in {file}")?,
                (0, _) => write!(f, "{count} faults in {file}")?,
                _ => write!(f, ", {count} in {file}")?,
            }
            if *count > MAX_SHOWN {
                write!(f, " (the first {MAX_SHOWN} are shown)")?;
            }
        }
        Ok(())
    }
}

/// The faults found so far in one file.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    found: Vec<Found>,
    total: usize,
    warnings: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    place: Location,
    first: Option<Location>,
    problem: String,
    help: String,
}

impl Sink {
    /// A fault at `place`.
    pub(crate) fn add(
        &mut self,
        place: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Found {
            place,
            first: None,
            problem: problem.into(),
            help: help.into(),
        });
    }

    /// A fault at `place` that clashes with what stands at `first`; both are shown.
    pub(crate) fn add_clash(
        &mut self,
        place: Location,
        first: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        let first = Some(first);
        self.push(Found {
            place,
            first,
            problem: problem.into(),
            help: help.into(),
        });
    }

    /// What is accepted at `place` and hardly meant.
    pub(crate) fn warn(
        &mut self,
        place: Location,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.warnings.len() < MAX_SHOWN {
            self.warnings.push(Found {
                place,
                first: None,
                problem: problem.into(),
                help: help.into(),
            });
        }
    }

    fn push(&mut self, found: Found) {
        self.total += 1;
        if self.found.len() < MAX_SHOWN {
            self.found.push(found);
        }
    }
}

/// One file under examination: its name, its text and the faults found in it.
#[derive(Debug)]
pub(crate) struct FaultReport<'t> {
    pub(crate) file: Arc<str>,
    pub(crate) text: Cow<'t, str>,
    pub(crate) sink: Sink,
    /// How the nodes of the text are reached.
    pub(crate) paths: Paths,
}

impl FaultReport<'_> {
    /// `value` and the warnings if the file has no fault.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Fault>), Faults> {
        match value {
            Some(value) if self.sink.total == 0 => Ok((value, self.into_warnings())),
            _ => Err(self.into_faults()),
        }
    }

    fn into_warnings(mut self) -> Vec<Fault> {
        let found = std::mem::take(&mut self.sink.warnings);
        self.shown(found)
    }

    /// The faults found; there must be one.
    pub(crate) fn into_faults(mut self) -> Faults {
        let found = std::mem::take(&mut self.sink.found);
        Faults {
            shown: self.shown(found),
            totals: vec![(self.file, self.sink.total)],
        }
    }

    /// With what they show of the text, in its order.
    fn shown(&self, found: Vec<Found>) -> Vec<Fault> {
        let text = &*self.text;
        let lines = SourceLines::of(text);
        let marks = LazyCell::new(|| Marks::of(text, &lines));
        let shown_at = |place| match place {
            Location::Node(id) => snippet(&lines, marks.find(&self.paths, id), node_width),
            Location::StartOf(id) => snippet(&lines, marks.find(&self.paths, id), |_| 1),
            Location::At(pos) => snippet(&lines, pos, |_| 1),
        };
        let mut shown: Vec<Fault> = found
            .into_iter()
            .map(|found| Fault {
                file: Arc::clone(&self.file),
                place: shown_at(found.place),
                first: found.first.map(shown_at),
                problem: found.problem,
                help: found.help,
            })
            .collect();
        shown.sort_by_key(|fault| (fault.line(), fault.column()));
        shown
    }
}

/// The line at `pos` with a mark; `width` says how much of the rest of the line belongs to it. A
/// position outside the text is moved to its edge: the YAML parser reports the end of the file one
/// line below the last.
fn snippet(lines: &SourceLines<'_>, pos: Pos, width: impl Fn(&str) -> usize) -> Snippet {
    let line = pos.line.clamp(1, lines.count());
    let text = lines.line(line);
    let end = text.chars().count() + 1;
    let column = match pos.line > line {
        true => end,
        false => pos.column.clamp(1, end),
    };
    let rest = text.char_indices().nth(column - 1);
    let rest = rest.map_or("", |(at, _)| &text[at..]);
    Snippet::cut(line, column, width(rest).max(1), text)
}

/// The number of characters at the start of `rest` that make up one node, as far as one line can
/// tell.
fn node_width(rest: &str) -> usize {
    let end = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted_end(rest, quote),
        Some('[' | '{') => bracketed_end(rest),
        _ => plain_end(rest),
    };
    let node = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    node.trim_end().chars().count()
}

/// The end of the quoted scalar at the start of `rest`. Two single quotes in a row are seen as the
/// end of one scalar: good enough for a mark.
fn quoted_end(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    let closing = rest.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && quote == '"' && !is_escaped;
        closes
    });
    closing.map(|(at, _)| at + 1)
}

/// The end of the list or map in brackets at the start of `rest`.
fn bracketed_end(rest: &str) -> Option<usize> {
    let mut open = 0;
    let closing = rest.char_indices().find(|(_, c)| {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open -= 1,
            _ => {}
        }
        open == 0
    });
    closing.map(|(at, _)| at + 1)
}

/// The end of the plain scalar at the start of `rest`, or of what else begins there.
fn plain_end(rest: &str) -> Option<usize> {
    let ends_at = |at: usize, c: char| {
        let next = rest[at + c.len_utf8()..].chars().next();
        match c {
            ',' | ']' | '}' => true,
            ':' => next.is_none_or(char::is_whitespace),
            c if c.is_whitespace() => next == Some('#'),
            _ => false,
        }
    };
    let mut chars = rest.char_indices();
    chars.find(|(at, c)| ends_at(*at, *c)).map(|(at, _)| at)
}

/// The part of one line that a fault shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snippet {
    line: usize,
    column: usize,
    shown: String,
    mark_offset: usize,
    mark_width: usize,
}

impl Snippet {
    /// Characters shown before the marked column, and in all, of a longer line.
    const BEFORE: usize = 60;
    const LENGTH: usize = 120;
    /// Characters before the shown ones that are searched for the name of a secret.
    const SECRET_REACH: usize = 1000;

    fn cut(line: usize, column: usize, width: usize, text: &str) -> Snippet {
        let from = (column - 1).saturating_sub(Self::BEFORE);
        let from = if column <= Self::LENGTH - 20 { 0 } else { from };
        let reach_from = from.saturating_sub(Self::SECRET_REACH);
        let mut reach: Vec<char> = text
            .chars()
            .skip(reach_from)
            .take(from - reach_from + Self::LENGTH + 1)
            .collect();
        printable::mask_secrets(&mut reach);
        let window = &reach[(from - reach_from).min(reach.len())..];
        let cut_right = window.len() > Self::LENGTH;
        let mut shown = String::with_capacity(Self::LENGTH + 2);
        if from > 0 {
            shown.push('…');
        }
        let kept = window
            .iter()
            .take(Self::LENGTH)
            .map(|&c| if c == '\t' { ' ' } else { c });
        shown.extend(kept.map(printable::replaced));
        if cut_right {
            shown.push('…');
        }
        let mark_offset = column - 1 - from + usize::from(from > 0);
        let room = (shown.chars().count() + 1).saturating_sub(mark_offset);
        Snippet {
            line,
            column,
            shown,
            mark_offset,
            mark_width: width.min(room).max(1),
        }
    }

    fn render(&self, f: &mut fmt::Formatter<'_>, gutter: usize, mark: char) -> fmt::Result {
        let Snippet {
            line,
            shown,
            mark_offset,
            mark_width,
            ..
        } = self;
        let (line_text, marks) = (shown.trim_end(), String::from(mark).repeat(*mark_width));
        writeln!(f, "{}", format!("{line:>gutter$} | {line_text}").trim_end())?;
        writeln!(f, "{:gutter$} | {:mark_offset$}{marks}", "", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_covers_the_node_and_no_more() {
        for (node, rest) in [
            ("key", ": value"),
            ("key", ":"),
            ("10.0.0.1:42", "  # c"),
            ("two words", "\t# c"),
            ("a#b", ", c"),
            ("a", "]"),
            ("b", "}"),
            ("'a: b'", " # 'c'"),
            (r#""a\"\\""#, ": \"c\""),
            ("\"no end", ""),
            ("[a, {b: [c]}]", ", d]"),
            ("{}", ": {}"),
            ("[a,", ""),
            ("ä\u{1f600}", " "),
        ] {
            let width = node_width(&format!("{node}{rest}"));
            assert_eq!(width, node.chars().count(), "{node}{rest}");
        }
    }
}
