//! The manifest as its author writes it, in raw form. Only its shape is checked here.
//!
//! Deployed revisions are stored in this form too, as JSON and with digests in place of file names.

mod explain;
mod limits;
mod queue;
mod schemas;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml_edit::de::Deserializer;
use toml_edit::{DocumentMut, Table};

use super::tree::{self, Fault, Step};
use crate::frame::format::Format;
use explain::{code, explain};
pub use limits::CallLimits;
pub use queue::Queue;
pub use schemas::StageSchemas;

/// The file `chain.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The name of the chain.
    pub name: String,
    /// The author's label of this manifest.
    pub version: String,
    /// The number of servers that keep a copy of the chain's streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `[input]`: the format of fed messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub input: Input,
    /// `[queue]`: the settings of the queues.
    #[serde(default, skip_serializing_if = "is_default")]
    pub queue: Queue,
    /// `[results]`: how long results are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub results: Results,
    /// `[[stage]]`, in order.
    #[serde(default, rename = "stage")]
    pub stages: Vec<Stage>,
    /// The wire of the revision. A deploy writes it; authors leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `[input]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Input {
    /// The format of messages without a `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// A JSON Schema that fed items must fit, or the path of its file, relative to the manifest. A deploy writes the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<serde_json::Value>,
}

/// `[results]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Results {
    /// How long results and dead letters are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// The room for results, and the same again for dead letters. The server reserves it, and removes the oldest messages when it
    /// is full. Without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<String>,
    /// What results and dead letters tell of their way through the chain: `false`, `times` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<Records>,
}

/// What results and dead letters tell of their way through the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`records`: write `false`, \"times\" or \"all\"")]
#[non_exhaustive]
pub enum Records {
    /// `false` for nothing.
    Switch(bool),
    /// `times`, or `all` for sizes, calls, exit statuses and lines of the log too.
    Kind(String),
}

/// `[[stage]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Stage {
    /// The name of the stage, unique in the chain.
    pub name: String,
    /// The path of a `.wasm` file, or a digest. The path is relative to the manifest; `sha256:<digest>` names a plugin on the
    /// server. A stage has either a plugin or a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The name of the task in the plugin. The default is the name of the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The configuration of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
    /// The most items that run at once on one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// The most messages that run at once in the whole cluster. A message holds one or several items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The most time that one item may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The most memory of one instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// `item` (a fresh instance for each item), `frame` or `worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// The most items that share an instance, if `isolation` lets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<u32>,
    /// `true` if the stage runs in the hop of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<bool>,
    /// The attempts of an item that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The environment variables of the task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A program and its arguments, in place of a plugin. `{field}` in an argument stands for a field of the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// The files that come with the program, as paths relative to the manifest. A deploy ships them and writes the digest of their
    /// archive in place of the paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// How an item is written to the program's standard input: `json`, `ndjson`, `cbor`, `text`, `bytes` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// How the program's standard output is read: `ndjson`, `json`, `cbor`, `text`, `bytes` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// `true` if a field may make an argument an option, as `-n` is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<bool>,
    /// What exit statuses of the program mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
    /// The slots that an item needs while it runs, as in `{ cores = 2, gpu = 1 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<BTreeMap<String, Need>>,
    /// `where = { … }`: the labels of the nodes that run the stage.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `[stage.allow]`: what the task may reach outside of its sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// `schema = { input = "a.json", output = "b.json" }`: what the stage takes and gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<StageSchemas>,
}

/// `[stage.allow]`: what the task of a stage may reach outside of its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Allow {
    /// The targets of HTTP requests, as in `https://*.example.org:8443/v1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<String>,
    /// The key-value buckets, each with `read` or `read-write`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kv: BTreeMap<String, String>,
    /// The object stores, each with `read` or `read-write`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, String>,
    /// The patterns of the subjects of messages, as in `alerts.>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// The secrets, each with the origin that it may be sent to, or `reveal`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The limits of the calls of one item.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: CallLimits,
    /// What a dead letter has of the calls of its item: `calls`, or `bodies` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
}

/// How much of a slot an item needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`needs`: write a whole number, as in `gpu = 1`, or a size, as in `memory = \"4GiB\"`")]
#[non_exhaustive]
pub enum Need {
    /// A number of slots.
    Count(i64),
    /// A size, as in `4GiB`. Memory alone is given as a size.
    Size(String),
}

/// `exits = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Exits {
    /// The statuses after which an item fails for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permanent: Option<Vec<u8>>,
    /// The statuses after which an item is tried again, as after any other failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transient: Option<Vec<u8>>,
}

/// `retry = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Retry {
    /// The most attempts of an item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Waits before the second, third, … attempt. The last wait also holds for all later attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Vec<String>>,
}

/// The text is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
#[non_exhaustive]
pub struct ManifestError {
    /// The line of the error, counted from 1.
    pub line: usize,
    /// The error, and what to do.
    pub message: String,
}

impl Manifest {
    /// Reads a manifest written in TOML.
    ///
    /// # Errors
    ///
    /// If the text is not TOML, lacks a required key, has an unknown key, or has a value of the wrong type.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        let read = tree::parse(text).and_then(|table| Self::from_table(&table));
        read.map_err(|fault| {
            let before = text.get(..fault.span.start).unwrap_or(text);
            ManifestError { line: before.matches('\n').count() + 1, message: fault.message }
        })
    }

    /// Reads a manifest from a parsed text.
    pub(super) fn from_table(table: &Table) -> Result<Self, Fault> {
        let deserializer = Deserializer::from(DocumentMut::from(table.clone()));
        let mut manifest = Self::deserialize(deserializer).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let path = tree::path_of(table, &span);
            let key = path.iter().rev().find_map(Step::key);
            Fault { code: code(error.message()), message: explain(error.message(), key), span, path }
        })?;
        if manifest.wire.is_some() {
            let path = vec![Step::Key("wire".to_owned())];
            let message = "unknown key `wire`; deploying writes it, leave it out".to_owned();
            return Err(Fault { code: "unknown-key", span: tree::span_of(table, &path), path, message });
        }
        super::config::read(&mut manifest.stages, table)?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"a\"\nversion = \"1\"\n";

    #[track_caller]
    fn error(text: &str) -> String {
        Manifest::from_toml(&format!("{HEAD}{text}")).expect_err("wrong").to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let text = "[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\nconcurency = 3\n";
        assert_eq!(error(text), "line 6: unknown key `concurency`; did you mean `concurrency`?");
    }

    #[test]
    fn an_unknown_key_like_no_other_lists_the_known_ones() {
        let text = "[input]\nzzz = 3\n";
        assert_eq!(error(text), "line 4: unknown key `zzz`; known here are `format`, `schema`");
    }

    #[test]
    fn a_missing_key_and_a_wrong_kind_are_named_with_their_line() {
        assert_eq!(error("[[stage]]\nplugin = \"p\"\n"), "line 3: the key `name` is missing");
        assert_eq!(
            error("[queue]\nlimit = \"many\"\n"),
            "line 4: `limit`: invalid type: string \"many\", expected a whole number that is not negative"
        );
        let duration = "; a duration is a text with its unit, as in \"500ms\", \"5s\" or \"5m\"";
        let stage = |rest: &str| error(&format!("[[stage]]\nname = \"s\"\nplugin = \"p\"\n{rest}\n"));
        for (rest, key, unit) in [
            ("timeout = 5", "timeout", duration),
            ("retry = { attempts = 3, backoff = [\"1s\", 5] }", "backoff", duration),
            ("retry = { attempts = 3, backoff = [\n\"1s\",\n5] }", "backoff", duration),
            ("memory = 64", "memory", "; a size is a text with its unit, as in \"64MiB\" or \"1GiB\""),
            ("task = 5", "task", ""),
        ] {
            let said = stage(rest);
            assert!(said.contains(&format!(": `{key}`: invalid type: integer `")), "{said}");
            assert!(said.ends_with(&format!("expected a string{unit}")), "{said}");
        }
        let list = "; write the program and its arguments as a list of texts, as in [\"python3\", \"job.py\"]";
        let exec = "[[stage]]\nname = \"s\"\nexec = \"true\"\n";
        assert_eq!(error(exec), format!("line 5: `exec`: invalid type: string \"true\", expected a sequence{list}"));
        assert!(error("[input]\nformat = \"xml\"\n").starts_with("line 4: `xml` is not known; known here are `cbor`"));
    }

    #[test]
    fn what_is_not_toml_is_said_with_its_line() {
        assert!(error("[[stage\n").starts_with("line 3: "), "{}", error("[[stage\n"));
    }
}
