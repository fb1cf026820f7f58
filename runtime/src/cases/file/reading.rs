//! A file of cases that is being read, and the items in it.

use std::path::Path;

use bytes::Bytes;
use toml_edit::Item;

use super::Must;
use super::keys::Stages;
use super::tables::{Notes, Section};
use crate::cases::value::{Part, read};
use crate::diagnostic::Source;
use crate::frame::json::read::document;

/// A file that is being read.
pub(super) struct File<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// The stages of the chain.
    pub(super) stages: Stages<'a>,
    /// What is wrong.
    pub(super) notes: Notes,
    /// Its path.
    pub(super) path: &'a Path,
    /// Its text, with places.
    pub(super) source: Source,
    /// What its cases must have.
    pub(super) must: Must,
}

impl File<'_> {
    /// Returns the line of a section.
    pub(super) fn line(&self, section: &Section<'_>) -> usize {
        self.source.place(section.span.start).line
    }

    /// Reads items: a list, or a text with a line of JSON for each. `None` if some are wrong.
    pub(super) fn items(&mut self, section: &Section<'_>, key: &str, example: &str) -> Option<Vec<Bytes>> {
        match section.get(key)? {
            Item::Value(toml_edit::Value::String(lines)) => self.lines(section, key, lines.value()),
            Item::Value(toml_edit::Value::Array(values)) => {
                let mut items = Vec::new();
                for value in values {
                    match read(Part::Value(value)) {
                        Ok(item) => items.push(item),
                        Err(problem) => self.notes.add("invalid-item", value.span().unwrap_or_default(), problem),
                    }
                }
                (items.len() == values.len()).then_some(items)
            }
            Item::ArrayOfTables(_) => {
                let text = format!("`{key}` has tables with headers; write a list, as in `{example}`");
                self.notes.add("wrong-type", section.key(key), text);
                None
            }
            _ => {
                self.notes.wrong(section, key, "a list, nor a text with an item of JSON on each line", example);
                None
            }
        }
    }

    fn lines(&mut self, section: &Section<'_>, key: &str, lines: &str) -> Option<Vec<Bytes>> {
        let span = section.value(key);
        let mut items = Some(Vec::new());
        let mut at = 0;
        for (number, line) in lines.split_inclusive('\n').enumerate() {
            let begins = at;
            at += line.len();
            if line.trim().is_empty() {
                continue;
            }
            match document(line.trim_end_matches(['\n', '\r']).as_bytes(), 1) {
                Ok(item) => items.iter_mut().for_each(|items| items.push(item.clone())),
                Err(error) => {
                    let place = place_of(self.text, &span, lines, begins, line.trim_end());
                    let text = format!("line {} of `{key}` is not JSON: {}", number + 1, error.within_line());
                    self.notes.add("invalid-item", place, text);
                    items = None;
                }
            }
        }
        items
    }
}

/// Returns the bytes of a line in the file. Those of the whole text if it is written with escapes.
fn place_of(
    text: &str,
    span: &std::ops::Range<usize>,
    lines: &str,
    begins: usize,
    line: &str,
) -> std::ops::Range<usize> {
    let Some(offset) = text.get(span.clone()).and_then(|written| written.find(lines)) else { return span.clone() };
    let start = span.start + offset + begins;
    start..start + line.len()
}
