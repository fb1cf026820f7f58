//! A replayed item as a case for a test: a folder with the item, its calls, and what came of it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{Ended, json_of};
use crate::cases::file::REPLAYED;
use crate::cases::replayed::{CALLS, ITEM, OUTPUTS, OUTPUTS_JSON, expected};
use crate::cases::value::string;
use crate::chain::{Plugin, Work};
use crate::client::{Called, RanWith};
use crate::frame::cbor;
use crate::frame::json::AsJson;

/// A call, and its answer for people.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    called: &'a Called,
    /// The answer as JSON. Bytes are Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_json: Option<Value>,
}

/// Writes a case into a folder of its own. Returns the folder. Files of an earlier case are replaced.
pub(super) fn write(
    folder: &Path,
    ran: &RanWith,
    item: &Bytes,
    calls: &[Called],
    ended: &Ended,
) -> anyhow::Result<PathBuf> {
    let folder = folder.join(format!("{}-{}", ran.deployed.chain, ran.letter.number));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let file = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    let json = |item: &Bytes| json_of(item).map(|json| format!("{json}\n"));
    let shown: Vec<Shown<'_>> = calls.iter().map(Shown::of).collect();
    file(ITEM, item)?;
    file("item.json", json(item)?.as_bytes())?;
    file(CALLS, format!("{}\n", serde_json::to_string_pretty(&shown)?).as_bytes())?;
    let outputs = match ended {
        Ended::Succeeded(outputs) => outputs.as_slice(),
        Ended::Failed(_) | Ended::Stopped(_) => &[],
    };
    file(OUTPUTS, &outputs.concat())?;
    file(OUTPUTS_JSON, outputs.iter().map(json).collect::<Result<String, _>>()?.as_bytes())?;
    file(REPLAYED, case(ran, ended)?.as_bytes())?;
    Ok(folder)
}

impl<'a> Shown<'a> {
    fn of(called: &'a Called) -> Self {
        let answer = called.answer.as_ref().and_then(|answer| BASE64_STANDARD.decode(answer).ok());
        let answer = answer.and_then(|answer| cbor::value(&answer));
        Self { called, answer_json: answer.and_then(|answer| serde_json::to_value(AsJson(&answer)).ok()) }
    }
}

/// Returns the text of `case.toml`.
fn case(ran: &RanWith, ended: &Ended) -> anyhow::Result<String> {
    let RanWith { letter, deployed, chain, .. } = ran;
    let mut text = "# Written by `pcluster replay --cases`; see runtime/CALLS.md.\n".to_owned();
    let facts = [
        ("chain", Value::from(letter.chain.as_str())),
        ("version", letter.version.as_str().into()),
        ("revision", letter.revision.into()),
        ("content", deployed.digest.to_string().into()),
        ("letter", letter.number.into()),
        ("fed_as", letter.id.as_str().into()),
        ("item_id", letter.item_id().into()),
        ("attempt", letter.attempts.max(1).into()),
        ("topic", letter.topic.as_deref().map_or(Value::Null, Value::from)),
    ];
    add(&mut text, &facts)?;
    for stage in &chain.stages[ran.stages.clone()] {
        text.push_str("\n[[stage]]\n");
        let mut facts = vec![("name", Value::from(stage.name.as_str()))];
        match &stage.work {
            Work::Task { plugin: Plugin::Stored(plugin), task } => {
                facts.extend([("task", task.as_str().into()), ("plugin", plugin.to_string().into())]);
            }
            Work::Task { .. } => {}
            Work::Program(program) => facts.push(("program", program.name.as_str().into())),
        }
        facts.push(("env", serde_json::to_value(&stage.env)?));
        add(&mut text, &facts)?;
        text.push_str(&config(&stage.config));
    }
    text.push('\n');
    text.push_str(&match ended {
        Ended::Succeeded(outputs) => expected(outputs.len(), None),
        Ended::Failed(failure) => expected(0, Some((failure.kind.name(), &failure.reason))),
        Ended::Stopped(departure) => return Err(anyhow!("a replay that stopped is no case: {departure}")),
    });
    Ok(text)
}

/// Returns the line of a configuration. Nothing if the stage has none.
fn config(config: &Value) -> String {
    match toml_of(config) {
        _ if config.is_null() => String::new(),
        Some(config) => format!("config = {config}\n"),
        None => format!("config_json = {}\n", string(&config.to_string())),
    }
}

/// Adds keys with their values. TOML has no `null`, so keys whose values have one are left out.
fn add(text: &mut String, facts: &[(&str, Value)]) -> anyhow::Result<()> {
    for (key, value) in facts {
        if let Some(value) = toml_of(value) {
            writeln!(text, "{key} = {value}")?;
        }
    }
    Ok(())
}

/// Returns a value as TOML on one line. `None` if it is `null` or holds one, or a number that TOML does not have.
fn toml_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => string(text),
        Value::Number(number) if number.is_u64() && !number.is_i64() => return None,
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(toml_of).collect::<Option<_>>()?;
            format!("[{}]", values.join(", "))
        }
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| Some(format!("{} = {}", string(key), toml_of(value)?));
            let entries: Vec<String> = entries.iter().map(entry).collect::<Option<_>>()?;
            format!("{{ {} }}", entries.join(", "))
        }
        plain => plain.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_survive_toml() {
        let value = json!({
            "text": "a \"b\"\\\n\t\u{7f}\u{1}é", "a key.": [1, -2, 0.5, true, "x", [], {"deep": {}}], "float": 1e300,
        });
        let text = format!("value = {}", toml_of(&value).expect("TOML"));
        let read: Value = toml::from_str::<Value>(&text).expect("TOML")["value"].clone();
        assert_eq!(read, value);
        for lost in [json!([null, 1]), json!({"a": {"b": null}}), json!(u64::MAX), json!(null)] {
            assert_eq!(toml_of(&lost), None, "{lost}");
        }
        assert_eq!(config(&json!({"a": [null]})), "config_json = \"{\\\"a\\\":[null]}\"\n");
        assert_eq!(
            (config(&json!({"a": 1})), config(&Value::Null)),
            ("config = { \"a\" = 1 }\n".to_owned(), String::new())
        );
    }
}
