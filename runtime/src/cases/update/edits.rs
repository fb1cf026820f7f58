//! Changes to a text, by the bytes that they replace.

use std::ops::Range;

use toml_edit::{Array, Item, TableLike, Value};

use crate::cases::file::tables::Section;

/// The most characters of a list on one line.
const LINE_MAX: usize = 100;
/// What elements of a list on several lines are indented with.
const INDENT: &str = "    ";

/// Changes to a text.
pub(super) struct Edits<'a> {
    text: &'a str,
    /// How lines of the text end.
    pub(super) line_break: &'static str,
    all: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    /// Creates changes to a text, which are none yet.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, line_break: if text.contains("\r\n") { "\r\n" } else { "\n" }, all: Vec::new() }
    }

    /// Replaces bytes.
    pub(super) fn replace(&mut self, span: Range<usize>, new: impl Into<String>) {
        self.all.push((span, new.into()));
    }

    /// Inserts a text.
    pub(super) fn insert(&mut self, at: usize, new: &str) {
        self.replace(at..at, new);
    }

    /// Returns bytes of the text.
    pub(super) fn text(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }

    /// Returns where the line of a byte ends.
    pub(super) fn line_end(&self, at: usize) -> usize {
        let end = self.text[at..].find('\n').map_or(self.text.len(), |end| at + end);
        if self.text[..end].ends_with('\r') { end - 1 } else { end }
    }

    /// Adds entries to an inline table of this span.
    pub(super) fn add_inline(&mut self, span: Range<usize>, is_empty: bool, entries: &str) {
        if is_empty {
            return self.replace(span, format!("{{ {entries} }}"));
        }
        let close = span.end.saturating_sub(1);
        let inside = self.text(span.start..close).trim_end().len();
        self.replace(span.start + inside..close, format!(", {entries} "));
    }

    /// Returns the text with all changes. Those at the same place come in the order in which they were made.
    pub(super) fn apply(mut self) -> String {
        self.all.sort_by_key(|(span, _)| span.start);
        let (mut text, mut at) = (String::with_capacity(self.text.len()), 0);
        for (span, new) in self.all {
            text.push_str(self.text.get(at..span.start).unwrap_or_default());
            text.push_str(&new);
            at = at.max(span.end);
        }
        text.push_str(&self.text[at..]);
        text
    }

    /// Writes elements into a list. `None` keeps the element that stands there.
    pub(super) fn list(&mut self, array: &Array, new: &[Option<String>], fresh: impl FnOnce() -> String) {
        let Some(span) = array.span() else { return };
        let spans: Vec<Range<usize>> = array.iter().filter_map(Value::span).collect();
        if spans.is_empty() || spans.len() != array.len() || new.is_empty() {
            return self.replace(span, fresh());
        }
        for (own, new) in spans.iter().zip(new) {
            if let Some(new) = new {
                self.replace(own.clone(), new.clone());
            }
        }
        if new.len() < spans.len() {
            self.shorten(&spans, new.len());
        } else if new.len() > spans.len() {
            self.extend(&span, &spans, new[spans.len()..].iter().flatten());
        }
    }

    /// Takes the last elements out of a list. At least one stays.
    fn shorten(&mut self, spans: &[Range<usize>], kept: usize) {
        let (from, last) = (spans[kept - 1].end, spans[spans.len() - 1].end);
        let gap = self.text(from..spans[kept].start);
        match gap.find('\n').filter(|_| gap.contains('#')) {
            // The comment is that of the element before, and there is a comma before it.
            Some(line) => {
                let rest = &self.text[last..];
                let is_comma = rest.trim_start().starts_with(',');
                let end = if is_comma { last + rest.find(',').unwrap_or(0) + 1 } else { last };
                let line = if gap[..line].ends_with('\r') { line - 1 } else { line };
                self.replace(from + line..end, "");
            }
            None => self.replace(from..last, ""),
        }
    }

    /// Adds elements to the end of a list.
    fn extend<'e>(&mut self, span: &Range<usize>, spans: &[Range<usize>], new: impl Iterator<Item = &'e String>) {
        let last = &spans[spans.len() - 1];
        let before = self.text(if spans.len() > 1 { spans[spans.len() - 2].end } else { span.start + 1 }..last.start);
        let indent = before.rfind('\n').map(|line| &before[line + 1..]).filter(|indent| indent.trim().is_empty());
        let separator = indent.map_or_else(|| " ".to_owned(), |indent| format!("{}{indent}", self.line_break));
        let rest = self.text(last.end..span.end - 1);
        let line = rest.lines().next().unwrap_or_default();
        let new: Vec<String> = new.map(|new| format!("{separator}{new}")).collect();
        if indent.is_some() && line.contains('#') {
            // The comment behind the last element stays with it.
            let is_comma = line.trim_start().starts_with(',');
            if !is_comma {
                self.insert(last.end, ",");
            }
            let closing = if rest[line.len()..].trim_start().starts_with(',') { "" } else { "," };
            return self.insert(last.end + line.len(), &format!("{}{closing}", new.join(",")));
        }
        self.insert(last.end, &format!(",{}", new.join(",")));
    }
}

/// Returns elements as a new list.
pub(super) fn list_of(elements: &[String], line_break: &str) -> String {
    let line = format!("[{}]", elements.join(", "));
    if elements.len() <= 1 || line.chars().count() <= LINE_MAX {
        return line;
    }
    let lines: String = elements.iter().map(|element| format!("{line_break}{INDENT}{element},")).collect();
    format!("[{lines}{line_break}]")
}

/// Returns where an item ends.
pub(super) fn end_of(item: &Item) -> usize {
    let own = item.span().map_or(0, |span| span.end);
    let inner = match item {
        Item::Table(table) => end_of_table(table),
        Item::ArrayOfTables(tables) => {
            let end = |table: &toml_edit::Table| end_of_table(table).max(table.span().map_or(0, |span| span.end));
            tables.iter().map(end).max().unwrap_or(0)
        }
        Item::Value(_) | Item::None => 0,
    };
    own.max(inner)
}

fn end_of_table(table: &dyn TableLike) -> usize {
    table.iter().map(|(_, item)| end_of(item)).max().unwrap_or(0)
}

/// Returns where a section ends, with all tables of it.
pub(super) fn end_of_section(section: &Section<'_>) -> usize {
    end_of_table(section.table).max(section.span.end)
}
