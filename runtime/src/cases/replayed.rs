//! Reads a folder that `pcluster replay --cases` wrote as a case.
//!
//! | file | what |
//! |---|---|
//! | `case.toml` | the stages with their configuration and environment; how the item ended |
//! | `item.cbor` | the item of the first of these stages |
//! | `calls.json` | the calls with their answers |
//! | `outputs.cbor` | what the last of these stages gave |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::case::{Case, Expect, ExpectedDead, Replayed};
use super::file::{REPLAYED, Read};
use super::value::string;
use crate::chain::{Chain, Work};
use crate::dead::FailureKind;
use crate::dead::calls::Called;
use crate::diagnostic::Diagnostic;
use crate::frame::cbor;
use crate::name::StageName;

/// The file with the item.
pub(crate) const ITEM: &str = "item.cbor";
/// The file with the calls.
pub(crate) const CALLS: &str = "calls.json";
/// The file with the outputs.
pub(crate) const OUTPUTS: &str = "outputs.cbor";
/// The file with the outputs for people.
pub(crate) const OUTPUTS_JSON: &str = "outputs.json";
/// The header of how the item ended. It is the last of its file.
pub(crate) const EXPECTED: &str = "[expected]\n";

/// Returns the part of `case.toml` on how the item ended: with so many outputs, or with a kind of failure and its reason.
pub(crate) fn expected(outputs: usize, failed: Option<(&str, &str)>) -> String {
    match failed {
        None => format!("{EXPECTED}outputs = {outputs}\n"),
        Some((kind, reason)) => format!("{EXPECTED}failure = {}\nreason = {}\n", string(kind), string(reason)),
    }
}

/// What `case.toml` says that a case needs.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    item_id: String,
    attempt: u64,
    topic: Option<String>,
    #[serde(default, rename = "stage")]
    stages: Vec<WrittenStage>,
    expected: Expected,
}

#[derive(Debug, Deserialize)]
struct WrittenStage {
    name: StageName,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    config: serde_json::Value,
    /// The configuration where TOML cannot hold it.
    config_json: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    failure: Option<String>,
    reason: Option<String>,
}

/// A file with mistakes: its path and text, and what is wrong.
pub(super) type Wrong = (PathBuf, String, Vec<Diagnostic>);

/// Reads a folder.
pub(super) fn read(folder: &Path, chain: &Chain) -> Result<Read, Wrong> {
    let file = folder.join(REPLAYED);
    let text = text(&file)?;
    let wrong =
        |code, span, message: String| (file.clone(), text.clone(), vec![Diagnostic::error(code, span, message)]);
    let written: Written = toml::from_str(&text).map_err(|error| {
        let message = format!("not as `pcluster replay --cases` writes it: {}", error.message());
        wrong("replayed", error.span().unwrap_or_default(), message)
    })?;
    let mut configs = BTreeMap::new();
    let mut env = BTreeMap::new();
    for stage in &written.stages {
        judge(chain, &stage.name).map_err(|problem| wrong("replayed", place(&text, &stage.name), problem))?;
        let config = match &stage.config_json {
            None => stage.config.clone(),
            Some(json) => serde_json::from_str(json).map_err(|error| {
                let message = format!("`config_json` of stage `{}` is not JSON: {error}", stage.name);
                wrong("replayed", place(&text, &stage.name), message)
            })?,
        };
        configs.insert(stage.name.clone(), config);
        env.insert(stage.name.clone(), stage.env.clone());
    }
    let stages: Vec<StageName> = written.stages.iter().map(|stage| stage.name.clone()).collect();
    let first = stages.first().ok_or_else(|| wrong("replayed", 0..0, "no `[[stage]]` ran a task".to_owned()))?.clone();
    let expect = expectation(folder, &written, first).map_err(|error| match error {
        Problem::Of(file) => file,
        Problem::Kind(kind) => wrong("replayed", place(&text, &kind), format!("no kind of failure is `{kind}`")),
    })?;
    let replayed = Replayed { stages, env, item_id: written.item_id, attempt: written.attempt, calls: calls(folder)? };
    let case = Case {
        name: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        file: folder.to_owned(),
        line: 1,
        position: 0,
        items: items(&folder.join(ITEM))?,
        topic: written.topic.as_deref().and_then(|topic| topic.parse().ok()),
        config: configs,
        calls: Vec::new(),
        programs: Vec::new(),
        expect,
        replayed: Some(replayed),
    };
    Ok(Read { case, name: 0..0 })
}

/// Returns why a stage cannot run in a case.
fn judge(chain: &Chain, name: &StageName) -> Result<(), String> {
    let Some(stage) = chain.stages.iter().find(|stage| stage.name == *name) else {
        return Err(format!(
            "the chain `{}` has no stage `{name}`, which this replay ran; delete the folder",
            chain.name
        ));
    };
    match stage.work {
        Work::Program(_) => {
            Err(format!("stage `{name}` runs a program, of which a replay keeps nothing; delete the folder"))
        }
        Work::Task { .. } => Ok(()),
    }
}

/// Why an expectation cannot be read.
enum Problem {
    /// A file is wrong.
    Of(Wrong),
    /// There is no such kind of failure.
    Kind(String),
}

fn expectation(folder: &Path, written: &Written, stage: StageName) -> Result<Expect, Problem> {
    let Some(kind) = &written.expected.failure else {
        let results = items(&folder.join(OUTPUTS)).map_err(Problem::Of)?;
        return Ok(Expect { results: Some(results), ..Expect::default() });
    };
    let kind = Some(FailureKind::from_name(kind).ok_or_else(|| Problem::Kind(kind.clone()))?);
    let reason = written.expected.reason.clone();
    let dead = ExpectedDead { stage, kind, reason, attempts: None };
    Ok(Expect { results: Some(Vec::new()), dead: Some(vec![dead]), ..Expect::default() })
}

/// Returns where a name stands in a text.
fn place(text: &str, name: &impl std::fmt::Display) -> std::ops::Range<usize> {
    let name = format!("\"{name}\"");
    text.find(&name).map_or(0..0, |start| start..start + name.len())
}

fn calls(folder: &Path) -> Result<Vec<Called>, Wrong> {
    let file = folder.join(CALLS);
    let text = text(&file)?;
    serde_json::from_str(&text).map_err(|error| wrong(file, format!("not the calls of a replay: {error}")))
}

/// Reads a file of items. It may be empty.
fn items(file: &Path) -> Result<Vec<Bytes>, Wrong> {
    let bytes =
        std::fs::read(file).map_err(|error| wrong(file.to_owned(), format!("cannot read the file: {error}")))?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    cbor::split(&bytes.into()).map_err(|error| wrong(file.to_owned(), error.to_string()))
}

fn text(file: &Path) -> Result<String, Wrong> {
    crate::file::read_text(file).map_err(|error| wrong(file.to_owned(), format!("cannot read the file: {error}")))
}

fn wrong(file: PathBuf, message: String) -> Wrong {
    (file, String::new(), vec![Diagnostic::error("replayed", 0..0, message)])
}
