//! Writes dead letters that a case expects.

use toml_edit::{Item, TableLike, Value};

use super::edits::{Edits, list_of};
use crate::cases::case::ExpectedDead;
use crate::cases::compare::matched;
use crate::cases::file::tables::Section;
use crate::cases::outcome::Died;
use crate::cases::value::string;

/// What becomes of the dead letters that a case expects.
pub(super) struct Plan<'a> {
    /// `true` if something is written.
    pub(super) differs: bool,
    expected: &'a [ExpectedDead],
    slots: Vec<Slot<'a>>,
    /// Letters that nobody expected.
    new: Vec<&'a Died>,
}

/// What becomes of one that is expected.
#[derive(Clone, Copy)]
enum Slot<'a> {
    Stays,
    Becomes(&'a Died),
    Goes,
}

impl<'a> Plan<'a> {
    /// Plans what is written. One that is not met becomes one of the same stage.
    pub(super) fn of(expected: &'a [ExpectedDead], dead: &'a [Died]) -> Self {
        let partners = matched(expected, dead);
        let mut left: Vec<&Died> = dead
            .iter()
            .enumerate()
            .filter(|(other, _)| !partners.contains(&Some(*other)))
            .map(|(_, died)| died)
            .collect();
        let mut slot = |(expected, partner): (&ExpectedDead, &Option<usize>)| match partner {
            Some(_) => Slot::Stays,
            None => match left.iter().position(|died| died.stage == expected.stage) {
                Some(near) => Slot::Becomes(left.remove(near)),
                None => Slot::Goes,
            },
        };
        let slots: Vec<Slot<'_>> = expected.iter().zip(&partners).map(&mut slot).collect();
        let differs = !left.is_empty() || slots.iter().any(|slot| !matches!(slot, Slot::Stays));
        Self { differs, expected, slots, new: left }
    }

    /// Writes the letters into what stands after `dead`. `is_last`: the case expects nothing else.
    pub(super) fn write(&self, edits: &mut Edits<'_>, section: &Section<'_>, item: &Item, is_last: bool) {
        match item {
            Item::ArrayOfTables(tables) => {
                let is_empty = self.new.is_empty() && self.slots.iter().all(|slot| matches!(slot, Slot::Goes));
                for (at, (table, slot)) in tables.iter().zip(&self.slots).enumerate() {
                    let span = table.span().unwrap_or_default();
                    match slot {
                        Slot::Stays => {}
                        Slot::Becomes(died) => become_of(edits, table, died),
                        Slot::Goes if at == 0 && is_empty && is_last => none_at(edits, section, span),
                        Slot::Goes => {
                            let end = edits.line_end(span.end);
                            edits.replace(span.start..end, "");
                        }
                    }
                }
                let end = super::edits::end_of(item);
                let at = edits.line_end(end);
                edits.insert(at, &self.blocks(edits.line_break));
            }
            Item::Value(Value::Array(array)) => {
                let all = self.elements(edits, array);
                let line_break = edits.line_break;
                edits.replace(array.span().unwrap_or_default(), list_of(&all, line_break));
            }
            _ => {}
        }
    }

    /// Returns all letters as elements of a list.
    fn elements(&self, edits: &Edits<'_>, array: &toml_edit::Array) -> Vec<String> {
        let own = array.iter().zip(&self.slots).zip(self.expected).filter_map(|((value, slot), expected)| match slot {
            Slot::Stays => Some(edits.text(value.span().unwrap_or_default()).to_owned()),
            Slot::Becomes(died) => Some(element(died, Some(expected))),
            Slot::Goes => None,
        });
        own.chain(self.new.iter().map(|died| element(died, None))).collect()
    }

    /// Returns those that nobody expected as a list.
    pub(super) fn in_one_line(&self) -> String {
        let new: Vec<String> = self.new.iter().map(|died| element(died, None)).collect();
        format!("[{}]", new.join(", "))
    }

    /// Returns those that nobody expected as tables with headers, after the end of a line.
    pub(super) fn blocks(&self, line_break: &str) -> String {
        let block = |died: &&Died| {
            let (stage, reason) = (string(died.stage.as_str()), string(&died.reason));
            format!(
                "{line_break}{line_break}[[case.expect.dead]]{line_break}stage = {stage}{line_break}reason = {reason}"
            )
        };
        self.new.iter().map(block).collect()
    }
}

/// Returns a letter as an element of a list, with the keys that were expected.
fn element(died: &Died, expected: Option<&ExpectedDead>) -> String {
    let mut entries = vec![format!("stage = {}", string(died.stage.as_str()))];
    if expected.is_some_and(|expected| expected.kind.is_some()) {
        entries.push(format!("kind = \"{}\"", died.kind.name()));
    }
    if expected.is_none_or(|expected| expected.reason.is_some()) {
        entries.push(format!("reason = {}", string(&died.reason)));
    }
    if expected.is_some_and(|expected| expected.attempts.is_some()) {
        entries.push(format!("attempts = {}", died.attempts));
    }
    format!("{{ {} }}", entries.join(", "))
}

/// Writes a letter into the keys that a table has.
fn become_of(edits: &mut Edits<'_>, table: &dyn TableLike, died: &Died) {
    let is_contained = table.get("reason").and_then(Item::as_str).is_some_and(|reason| died.reason.contains(reason));
    let new = [
        ("kind", format!("\"{}\"", died.kind.name()), false),
        ("reason", string(&died.reason), is_contained),
        ("attempts", died.attempts.to_string(), false),
    ];
    for (key, new, stays) in new {
        let span = table.get(key).and_then(Item::as_value).and_then(Value::span);
        if let (Some(span), false) = (span, stays) {
            edits.replace(span, new);
        }
    }
}

/// Says in place of the first letter that there is none.
fn none_at(edits: &mut Edits<'_>, section: &Section<'_>, first: std::ops::Range<usize>) {
    let end = edits.line_end(first.end);
    let line_break = edits.line_break;
    match section.get("expect") {
        Some(Item::Table(table)) if !table.is_implicit() => {
            let at = edits.line_end(table.span().unwrap_or_default().start);
            edits.insert(at, &format!("{line_break}dead = []"));
            edits.replace(first.start..end, "");
        }
        _ => edits.replace(first.start..end, format!("[case.expect]{line_break}dead = []")),
    }
}
