//! Reads tables of a file of cases, and notes what is wrong with them.

use std::ops::Range;

use toml_edit::{Item, Key, Table, TableLike, Value};

use crate::cases::value::Part;
use crate::diagnostic::Diagnostic;
use crate::name::nearest;

/// A table of the file, and its place.
#[derive(Clone)]
pub(in crate::cases) struct Section<'a> {
    /// The table.
    pub(in crate::cases) table: &'a dyn TableLike,
    /// The bytes of its header, or of the whole if it has none.
    pub(in crate::cases) span: Range<usize>,
    /// `true` if it stands between braces.
    pub(in crate::cases) is_inline: bool,
}

impl<'a> Section<'a> {
    /// Returns a table with a header.
    pub(in crate::cases) fn of(table: &'a Table) -> Self {
        Self { table, span: table.span().unwrap_or_default(), is_inline: false }
    }

    /// Returns what stands after a key.
    pub(in crate::cases) fn get(&self, key: &str) -> Option<&'a Item> {
        self.table.get(key).filter(|item| !item.is_none())
    }

    /// Returns the bytes of a key.
    pub(in crate::cases) fn key(&self, key: &str) -> Range<usize> {
        self.table.key(key).and_then(Key::span).unwrap_or_else(|| self.span.clone())
    }

    /// Returns the bytes of what stands after a key, or of the key if that is a table with a header.
    pub(in crate::cases) fn value(&self, key: &str) -> Range<usize> {
        let value = self.get(key).and_then(Item::as_value).and_then(Value::span);
        value.unwrap_or_else(|| self.key(key))
    }
}

/// The mistakes of a file.
#[derive(Default)]
pub(in crate::cases) struct Notes {
    /// What was found.
    pub(in crate::cases) found: Vec<Diagnostic>,
}

impl Notes {
    /// Notes a mistake. What follows the first semicolon of the text is what to do.
    pub(in crate::cases) fn add(&mut self, code: &'static str, span: Range<usize>, text: impl Into<String>) {
        self.found.push(Diagnostic::error(code, span, text));
    }

    /// Notes keys that are not known.
    pub(in crate::cases) fn unknown(&mut self, section: &Section<'_>, known: &[&'static str], what: &str) {
        for (key, _) in section.table.iter().filter(|(key, item)| !item.is_none() && !known.contains(key)) {
            let help = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{what} may have {}", listed(known)),
            };
            self.add("unknown-key", section.key(key), format!("unknown key `{key}`; {help}"));
        }
    }

    /// Notes a key that must be there, unless it is mistyped.
    pub(in crate::cases) fn missing(&mut self, section: &Section<'_>, key: &str, example: &str) {
        if section.table.iter().any(|(typed, _)| nearest(typed, [key]).is_some()) {
            return;
        }
        self.add("missing-key", section.span.clone(), format!("the key `{key}` is missing; write `{example}`"));
    }

    /// Notes a value of the wrong type.
    pub(in crate::cases) fn wrong(&mut self, section: &Section<'_>, key: &str, expected: &str, example: &str) {
        let text = format!("`{key}` is not {expected}; write `{example}`");
        self.add("wrong-type", section.value(key), text);
    }

    /// Reads a text.
    pub(in crate::cases) fn text<'a>(&mut self, section: &Section<'a>, key: &str, example: &str) -> Option<&'a str> {
        let text = section.get(key)?.as_str();
        if text.is_none() {
            self.wrong(section, key, "a text", example);
        }
        text
    }

    /// Reads true or false.
    pub(in crate::cases) fn flag(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        let flag = section.get(key)?.as_bool();
        if flag.is_none() {
            self.wrong(section, key, "true or false", &format!("{key} = true"));
        }
        flag
    }

    /// Reads a whole number that is not negative.
    pub(in crate::cases) fn number(&mut self, section: &Section<'_>, key: &str, least: u64) -> Option<u64> {
        let number = section.get(key)?.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| *number >= least);
        if number.is_none() {
            self.wrong(section, key, &format!("a whole number of at least {least}"), &format!("{key} = {least}"));
        }
        number
    }

    /// Reads a number that is finite and not negative.
    pub(in crate::cases) fn amount(&mut self, section: &Section<'_>, key: &str) -> Option<f64> {
        let item = section.get(key)?;
        #[expect(clippy::cast_precision_loss, reason = "a tolerance need not be exact")]
        let amount = item.as_float().or_else(|| item.as_integer().map(|number| number as f64));
        let amount = amount.filter(|amount| amount.is_finite() && *amount >= 0.0);
        if amount.is_none() {
            self.wrong(section, key, "a number that is finite and not negative", &format!("{key} = 1e-9"));
        }
        amount
    }

    /// Reads a table, in whichever form.
    pub(in crate::cases) fn section<'a>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        example: &str,
    ) -> Option<Section<'a>> {
        let item = section.get(key)?;
        let table = item.as_table_like();
        if table.is_none() {
            self.wrong(section, key, "a table", example);
        }
        table.map(|table| Section {
            table,
            span: item.span().unwrap_or_else(|| section.key(key)),
            is_inline: item.is_value(),
        })
    }

    /// Reads a list of tables, in whichever form.
    pub(in crate::cases) fn sections<'a>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        example: &str,
    ) -> Vec<Section<'a>> {
        let sections = match section.get(key) {
            None => return Vec::new(),
            Some(Item::ArrayOfTables(tables)) => Some(tables.iter().map(Section::of).collect()),
            Some(item) => item.as_array().and_then(|values| values.iter().map(inline).collect()),
        };
        sections.unwrap_or_else(|| {
            self.wrong(section, key, "a list of tables", example);
            Vec::new()
        })
    }
}

fn inline(value: &Value) -> Option<Section<'_>> {
    let table = Part::Value(value).table()?;
    Some(Section { table, span: value.span().unwrap_or_default(), is_inline: true })
}

/// Returns names as a message lists them.
pub(in crate::cases) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
