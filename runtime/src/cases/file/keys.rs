//! Names of stages, and configurations, in files of cases.

use std::ops::Range;

use serde_json::Value;

use super::tables::{Notes, Section};
use crate::cases::value::Part;
use crate::chain::{Chain, Work};
use crate::name::{StageName, nearest};

/// The stages of a chain.
pub(super) struct Stages<'a> {
    chain: &'a Chain,
}

impl<'a> Stages<'a> {
    /// Returns the stages of a chain.
    pub(super) fn of(chain: &'a Chain) -> Self {
        Self { chain }
    }

    /// Returns the stage of a name. Notes one that the chain lacks.
    pub(super) fn named(&self, notes: &mut Notes, name: &str, span: Range<usize>) -> Option<StageName> {
        if let Some(stage) = self.chain.stages.iter().find(|stage| stage.name.as_str() == name) {
            return Some(stage.name.clone());
        }
        let names: Vec<&str> = self.chain.stages.iter().map(|stage| stage.name.as_str()).collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its stages are {}", super::tables::listed(&names)),
        };
        notes.add("unknown-stage", span, format!("the chain `{}` has no stage `{name}`; {help}", self.chain.name));
        None
    }

    /// Reads the key `stage` of a section.
    pub(super) fn read(&self, notes: &mut Notes, section: &Section<'_>) -> Option<StageName> {
        let first = self.chain.stages.first().map_or("sum", |stage| stage.name.as_str());
        let example = format!("stage = \"{first}\"");
        if section.get("stage").is_none() {
            notes.missing(section, "stage", &example);
        }
        let name = notes.text(section, "stage", &example)?;
        self.named(notes, name, section.value("stage"))
    }

    /// Returns `true` if a stage runs a program.
    pub(super) fn has_program(&self, name: &StageName) -> bool {
        let stage = self.chain.stages.iter().find(|stage| stage.name == *name);
        stage.is_some_and(|stage| matches!(stage.work, Work::Program(_)))
    }
}

/// Returns a value as a configuration. The error names a number that JSON does not have.
pub(super) fn json(part: Part<'_>, path: &str) -> Result<Value, String> {
    if let Some(table) = part.table() {
        let entries =
            table.iter().map(|(key, item)| Ok((key.to_owned(), json(Part::Item(item), &format!("{path}.{key}"))?)));
        return Ok(Value::Object(entries.collect::<Result<_, String>>()?));
    }
    Ok(match part.value() {
        Some(toml_edit::Value::Array(values)) => {
            let values = values.iter().enumerate();
            let values = values.map(|(place, value)| json(Part::Value(value), &format!("{path}[{place}]")));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Some(toml_edit::Value::String(text)) => Value::from(text.value().as_str()),
        Some(toml_edit::Value::Integer(number)) => Value::from(*number.value()),
        Some(toml_edit::Value::Float(number)) => {
            let number = *number.value();
            let carried = serde_json::Number::from_f64(number);
            Value::Number(carried.ok_or_else(|| {
                format!("`{path}` is {number}, which no configuration can hold; write a number or a text")
            })?)
        }
        Some(toml_edit::Value::Boolean(value)) => Value::from(*value.value()),
        Some(toml_edit::Value::Datetime(date)) => Value::from(date.value().to_string()),
        Some(toml_edit::Value::InlineTable(_)) | None => {
            return Err(format!("`{path}` has tables with headers in a list; write `[{{ … }}]`"));
        }
    })
}
