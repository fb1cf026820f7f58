//! Converts the `config` of stages from TOML to JSON. The JSON is stored and passed to tasks.

use serde::Deserialize;
use serde_json::Value;
use toml_edit::de::Deserializer;
use toml_edit::{DocumentMut, Table};

use super::manifest::Stage;
use super::tree::{self, Fault, Step};

/// The parts of a manifest that are read here.
#[derive(Deserialize)]
struct Configs {
    #[serde(default, rename = "stage")]
    stages: Vec<Config>,
}

#[derive(Deserialize)]
struct Config {
    config: Option<toml::Value>,
}

/// Reads the `config` of each stage of a manifest. A date or time becomes the text of the file.
pub(super) fn read(stages: &mut [Stage], table: &Table) -> Result<(), Fault> {
    let deserializer = Deserializer::from(DocumentMut::from(table.clone()));
    let configs = Configs::deserialize(deserializer).map_err(|error| Fault {
        code: "wrong-type",
        span: error.span().unwrap_or_default(),
        path: Vec::new(),
        message: error.message().to_owned(),
    })?;
    for (place, (stage, written)) in stages.iter_mut().zip(configs.stages).enumerate() {
        let Some(config) = written.config else { continue };
        let carried = carry(config, "config").map_err(|(path, number)| {
            let name = &stage.name;
            let message =
                format!("stage `{name}`: `{path}` is {number}, which no item can hold; write a number or a text");
            let path = vec![Step::Key("stage".to_owned()), Step::Index(place), Step::Key("config".to_owned())];
            Fault { code: "invalid-value", span: tree::span_of(table, &path), path, message }
        })?;
        stage.config = Some(carried);
    }
    Ok(())
}

/// Converts a value to JSON. The error is the path of a number that JSON does not have, and the number.
fn carry(value: toml::Value, path: &str) -> Result<Value, (String, f64)> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => {
            let carried = serde_json::Number::from_f64(number).ok_or_else(|| (path.to_owned(), number))?;
            Value::Number(carried)
        }
        toml::Value::Boolean(value) => Value::from(value),
        toml::Value::Datetime(date) => Value::from(date.to_string()),
        toml::Value::Array(values) => {
            let values = values.into_iter().enumerate();
            values.map(|(place, value)| carry(value, &format!("{path}[{place}]"))).collect::<Result<_, _>>()?
        }
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                let carried = carry(value, &format!("{path}.{key}"))?;
                Ok((key, carried))
            });
            Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chain::manifest::Manifest;

    fn config(text: &str) -> Result<Value, String> {
        let text = format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n{text}");
        let manifest = Manifest::from_toml(&text).map_err(|error| error.to_string())?;
        Ok(manifest.stages[0].config.clone().unwrap_or_default())
    }

    #[test]
    fn a_date_is_its_text_and_the_rest_as_it_is_written() {
        for (text, expected) in [
            ("config = { when = 2026-01-02 }", json!({ "when": "2026-01-02" })),
            ("config = 2026-01-02T03:04:05.25Z", json!("2026-01-02T03:04:05.25Z")),
            ("config = [2026-01-02T03:04:05, 07:32:00]", json!(["2026-01-02T03:04:05", "07:32:00"])),
            ("[stage.config.a]\nb = [{ c = 2026-01-02T03:04:05+01:00 }]", {
                json!({ "a": { "b": [{ "c": "2026-01-02T03:04:05+01:00" }] } })
            }),
            ("config = { a = 9223372036854775807, b = -0.5, c = true, d = \"x\", e = [] }", {
                json!({ "a": 9_223_372_036_854_775_807_i64, "b": -0.5, "c": true, "d": "x", "e": [] })
            }),
        ] {
            assert_eq!(config(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_refused_with_its_path() {
        for (text, said) in [
            ("config = { ratio = nan }", "line 6: stage `s`: `config.ratio` is NaN, which no item can hold"),
            ("config = -nan", "line 6: stage `s`: `config` is "),
            ("\nconfig = { a = [1, { b = -inf }] }", "line 7: stage `s`: `config.a[1].b` is -inf"),
            ("[stage.config.deep]\nx = inf", "stage `s`: `config.deep.x` is inf"),
        ] {
            let error = config(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        for text in ["config = 9223372036854775808", "config = { a = 1e999 }"] {
            assert!(config(text).is_err(), "{text}: {:?}", config(text));
        }
    }
}
