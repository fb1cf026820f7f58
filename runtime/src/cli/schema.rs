//! `pcluster schema`

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::Context;
use crate::chain::schema::MANIFEST;
use crate::config::SETTINGS;

/// Settings that may be lists or tables.
const COMPOUND: [&str; 2] = ["slots", "label"];

/// Print the JSON Schema of a file, with which editors complete and check it
///
/// Editors with taplo, such as VS Code with Even Better TOML, read it by a first line `#:schema ./chain.schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: pcluster schema manifest > chain.schema.json")]
pub struct Args {
    /// The file: manifest is chain.toml, config is pcluster.toml
    file: File,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum File {
    Manifest,
    Config,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let schema = match args.file {
        File::Manifest => MANIFEST.trim_end().to_owned(),
        File::Config => serde_json::to_string_pretty(&config())?,
    };
    Ok(context.output.data(&schema)?)
}

/// Returns the schema of `pcluster.toml`.
fn config() -> Value {
    let (mut settings, mut allow) = (Map::new(), Map::new());
    for (key, meaning) in SETTINGS {
        let plain = ["string", "integer", "number", "boolean"];
        let compound = ["string", "array", "object"];
        let types = if key.contains('.') || COMPOUND.contains(&key) { &compound[..] } else { &plain };
        let schema = json!({ "description": meaning, "type": types });
        match key.split_once('.') {
            Some((_, key)) => allow.insert(key.to_owned(), schema),
            None => settings.insert(key.to_owned(), schema),
        };
    }
    let allow = json!({
        "description": "What the operator of a node allows stages.",
        "type": "object", "additionalProperties": false, "properties": allow,
    });
    settings.insert("allow".to_owned(), allow);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "title": "pcluster.toml",
        "description": "The settings of pcluster.",
        "type": "object", "additionalProperties": false, "properties": settings,
    })
}
