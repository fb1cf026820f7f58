//! A chain whose every value has been checked. The raw form is in [`manifest`]; only this form travels on. What the server
//! keeps of a chain is in [`record`].

pub mod default;
pub mod manifest;
pub mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::frame::format::Format;
use crate::name::{ChainName, DIGEST_PREFIX, Digest, DigestError, NameError, StageName, Version};
use manifest::Manifest;

/// The most memory an instance can have: what a 32-bit guest can address.
const MEMORY_MAX: u64 = 4 << 30;
/// The most copies that a server makes of a stream.
const REPLICAS_MAX: u32 = 5;
/// A guest's memory comes in pages of this size.
const MEMORY_PAGE: u64 = 64 << 10;

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// The author's label.
    pub version: Version,
    /// How many servers keep a copy of the chain's items and results.
    pub replicas: u32,
    /// What messages without a `Content-Type` are written in.
    pub input: Format,
    /// How items wait.
    pub queue: Queue,
    /// How long results and dead letters stay.
    pub retention: Retention,
    /// At least one, in order.
    pub stages: Vec<Stage>,
}

/// How items wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Frames that may wait in front of each stage.
    pub limit: u64,
    /// How soon a dead node's items are given to others.
    pub ack_wait: Duration,
    /// How long the server remembers ids.
    pub duplicate_window: Duration,
}

/// How long results and dead letters stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The oldest that is kept.
    pub max_age: Duration,
    /// The room in bytes for each kind, set aside on the server; `None`: no limit, and nothing set aside.
    pub max_bytes: Option<u64>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Where its plugin is.
    pub plugin: Plugin,
    /// The task in the plugin.
    pub task: String,
    /// Handed to the task.
    pub config: serde_json::Value,
    /// Items that run at once on one node.
    pub concurrency: u32,
    /// Frames handed out at once in the whole cluster.
    pub max_in_flight: u32,
    /// How long one item may take.
    pub timeout: Duration,
    /// Memory of one instance in bytes.
    pub memory: u64,
    /// What happens to an item that fails.
    pub retry: Retry,
    /// Environment variables that the task sees.
    pub env: BTreeMap<String, String>,
}

/// What happens to an item that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts it gets; at least one.
    pub attempts: u32,
    /// Waits before the second, third, … attempt; the last holds for all that follow.
    pub backoff: Vec<Duration>,
}

impl Retry {
    /// The wait after this many failed attempts.
    #[must_use]
    pub fn wait(&self, failed: u32) -> Duration {
        let position = (failed.max(1) - 1) as usize;
        self.backoff.get(position).or(self.backoff.last()).copied().unwrap_or_default()
    }
}

/// Where a plugin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// A file, relative to the manifest.
    File(PathBuf),
    /// Stored on the server.
    Stored(Digest),
}

/// What is wrong with a manifest whose shape is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest is malformed.
    #[error("stage `{stage}`: {error}")]
    Digest {
        /// The stage.
        stage: StageName,
        /// What is wrong with it.
        error: DigestError,
    },
    /// No stage.
    #[error("the chain has no stage; add at least one `[[stage]]`")]
    NoStage,
    /// Two stages share a name.
    #[error("two stages are named `{0}`; a stage's name must be its own")]
    DuplicateStage(StageName),
    /// A value cannot be.
    #[error("{place}`{key}`: {problem}")]
    Value {
        /// The stage, as in ``stage `split`: ``, or nothing.
        place: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to write.
        problem: String,
    },
}

/// Reads the values of one table and remembers where it is.
struct Reader {
    place: String,
}

impl Reader {
    fn error(&self, key: &'static str, problem: impl Into<String>) -> ChainError {
        ChainError::Value { place: self.place.clone(), key, problem: problem.into() }
    }

    fn duration(&self, key: &'static str, text: &str) -> Result<Duration, ChainError> {
        humantime::parse_duration(text).map_err(|_| {
            self.error(key, format!("`{text}` is not a duration; write one like \"500ms\", \"30s\" or \"5m\""))
        })
    }

    /// A duration that must not be zero.
    fn some_duration(
        &self,
        key: &'static str,
        text: Option<&String>,
        default: Duration,
    ) -> Result<Duration, ChainError> {
        let Some(text) = text else { return Ok(default) };
        match self.duration(key, text)? {
            Duration::ZERO => Err(self.error(key, "must be more than zero")),
            duration => Ok(duration),
        }
    }

    fn size(&self, key: &'static str, text: Option<&String>, default: u64) -> Result<u64, ChainError> {
        let Some(text) = text else { return Ok(default) };
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
            Ok(_) => Err(self.error(key, "must be more than zero")),
            Err(_) => Err(self.error(key, format!("`{text}` is not a size; write one like \"64MiB\" or \"1GiB\""))),
        }
    }

    fn count<N: PartialEq + Default + Copy>(
        &self,
        key: &'static str,
        value: Option<N>,
        default: N,
    ) -> Result<N, ChainError> {
        match value {
            Some(zero) if zero == N::default() => Err(self.error(key, "must be at least 1")),
            Some(count) => Ok(count),
            None => Ok(default),
        }
    }
}

impl Chain {
    /// Checks a manifest.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be.
    pub fn new(manifest: &Manifest) -> Result<Self, ChainError> {
        let name: ChainName = manifest.name.parse()?;
        let version: Version = manifest.version.parse()?;
        if manifest.stages.is_empty() {
            return Err(ChainError::NoStage);
        }
        let mut names = BTreeSet::new();
        let mut stages = Vec::with_capacity(manifest.stages.len());
        for raw in &manifest.stages {
            let stage = Stage::new(raw)?;
            if !names.insert(stage.name.clone()) {
                return Err(ChainError::DuplicateStage(stage.name));
            }
            stages.push(stage);
        }
        let replicas = manifest.replicas.unwrap_or(default::REPLICAS);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            let reader = Reader { place: String::new() };
            return Err(reader.error("replicas", format!("must be between 1 and {REPLICAS_MAX}, not {replicas}")));
        }
        let top = |place: &str| Reader { place: format!("[{place}] ") };
        let (queue, results) = (top("queue"), top("results"));
        let raw = &manifest.queue;
        Ok(Self {
            name,
            version,
            replicas,
            input: manifest.input.format.unwrap_or_default(),
            queue: Queue {
                limit: queue.count("limit", raw.limit, default::QUEUE_LIMIT)?,
                ack_wait: queue.some_duration("ack_wait", raw.ack_wait.as_ref(), default::ACK_WAIT)?,
                duplicate_window: queue.some_duration(
                    "duplicate_window",
                    raw.duplicate_window.as_ref(),
                    default::DUPLICATE_WINDOW,
                )?,
            },
            retention: Retention {
                max_age: results.some_duration(
                    "max_age",
                    manifest.results.max_age.as_ref(),
                    default::RESULTS_MAX_AGE,
                )?,
                max_bytes: match &manifest.results.max_bytes {
                    None => None,
                    given => Some(results.size("max_bytes", given.as_ref(), 0)?),
                },
            },
            stages,
        })
    }

    /// The stage with this name and its place.
    #[must_use]
    pub fn stage(&self, name: &StageName) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, stage)| stage.name == *name)
    }
}

impl Stage {
    fn new(raw: &manifest::Stage) -> Result<Self, ChainError> {
        let name: StageName = raw.name.parse()?;
        let reader = Reader { place: format!("stage `{name}`: ") };
        if raw.inline == Some(true) {
            return Err(reader.error("inline", "not supported yet; leave it out and the stage gets a queue of its own"));
        }
        match raw.isolation.as_deref() {
            None | Some("item") => {}
            Some(known @ ("frame" | "worker")) => {
                return Err(reader
                    .error("isolation", format!("`{known}` is not supported yet; write \"item\" or leave it out")));
            }
            Some(other) => return Err(reader.error("isolation", format!("`{other}` is not known; write \"item\""))),
        }
        let plugin = if raw.plugin.starts_with(DIGEST_PREFIX) {
            let digest = raw.plugin.parse().map_err(|error| ChainError::Digest { stage: name.clone(), error })?;
            Plugin::Stored(digest)
        } else {
            Plugin::File(PathBuf::from(&raw.plugin))
        };
        let memory = reader.size("memory", raw.memory.as_ref(), default::MEMORY)?;
        if !(MEMORY_PAGE..=MEMORY_MAX).contains(&memory) {
            return Err(reader.error("memory", "must be between \"64KiB\" and \"4GiB\""));
        }
        for key in raw.env.keys() {
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(reader.error("env", format!("`{key}` cannot be the name of a variable")));
            }
        }
        Ok(Self {
            task: raw.task.clone().unwrap_or_else(|| raw.name.clone()),
            plugin,
            config: raw.config.clone().unwrap_or_default(),
            concurrency: reader.count("concurrency", raw.concurrency, default::CONCURRENCY)?,
            max_in_flight: reader.count("max_in_flight", raw.max_in_flight, default::MAX_IN_FLIGHT)?,
            timeout: reader.some_duration("timeout", raw.timeout.as_ref(), default::TIMEOUT)?,
            memory,
            retry: Retry::new(&reader, &raw.retry.clone().unwrap_or_default())?,
            env: raw.env.clone(),
            name,
        })
    }
}

impl Retry {
    fn new(reader: &Reader, raw: &manifest::Retry) -> Result<Self, ChainError> {
        let backoff = match &raw.backoff {
            None => default::BACKOFF.to_vec(),
            Some(waits) => waits.iter().map(|text| reader.duration("backoff", text)).collect::<Result<_, _>>()?,
        };
        Ok(Self { attempts: reader.count("attempts", raw.attempts, default::ATTEMPTS)?, backoff })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(text: &str) -> Result<Chain, ChainError> {
        Chain::new(&Manifest::from_toml(text).expect("the right shape"))
    }

    fn with_stage(rest: &str) -> Result<Chain, ChainError> {
        chain(&format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n{rest}"))
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let chain = with_stage("").expect("valid");
        let stage = &chain.stages[0];
        assert_eq!(stage.task, "s");
        assert_eq!(stage.plugin, Plugin::File("p.wasm".into()));
        assert_eq!((stage.concurrency, stage.memory), (default::CONCURRENCY, default::MEMORY));
        assert_eq!(stage.retry.backoff, default::BACKOFF);
        assert_eq!(chain.queue.limit, default::QUEUE_LIMIT);
    }

    #[test]
    fn durations_and_sizes_are_written_as_people_write_them() {
        let chain =
            with_stage("timeout = \"1m 30s\"\nmemory = \"16MiB\"\nretry = { backoff = [\"100ms\"] }").expect("valid");
        assert_eq!(chain.stages[0].timeout, Duration::from_secs(90));
        assert_eq!(chain.stages[0].memory, 16 << 20);
        assert_eq!(chain.stages[0].retry.wait(7), Duration::from_millis(100));
    }

    #[test]
    fn the_last_wait_holds_for_all_that_follow() {
        let retry = Retry { attempts: 9, backoff: vec![Duration::from_secs(1), Duration::from_secs(5)] };
        let waits: Vec<u64> = (1..5).map(|failed| retry.wait(failed).as_secs()).collect();
        assert_eq!(waits, [1, 5, 5, 5]);
        assert_eq!(Retry { attempts: 1, backoff: vec![] }.wait(1), Duration::ZERO);
    }

    #[test]
    fn each_wrong_value_is_named() {
        for (rest, message) in [
            (
                "timeout = \"soon\"",
                "stage `s`: `timeout`: `soon` is not a duration; write one like \"500ms\", \"30s\" or \"5m\"",
            ),
            ("timeout = \"0s\"", "stage `s`: `timeout`: must be more than zero"),
            ("memory = \"lots\"", "stage `s`: `memory`: `lots` is not a size; write one like \"64MiB\" or \"1GiB\""),
            ("memory = \"1KiB\"", "stage `s`: `memory`: must be between \"64KiB\" and \"4GiB\""),
            ("concurrency = 0", "stage `s`: `concurrency`: must be at least 1"),
            ("retry = { attempts = 0 }", "stage `s`: `attempts`: must be at least 1"),
            ("isolation = \"none\"", "stage `s`: `isolation`: `none` is not known; write \"item\""),
            ("env = { \"A=B\" = \"c\" }", "stage `s`: `env`: `A=B` cannot be the name of a variable"),
            (
                "[[stage]]\nname = \"s\"\nplugin = \"q.wasm\"",
                "two stages are named `s`; a stage's name must be its own",
            ),
        ] {
            assert_eq!(with_stage(rest).expect_err(rest).to_string(), message);
        }
    }

    #[test]
    fn there_are_at_least_one_and_at_most_as_many_replicas_as_servers_make() {
        let with = |replicas: &str| {
            chain(&format!("name = \"a\"\nversion = \"1\"\n{replicas}\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\""))
        };
        assert_eq!(with("").expect("valid").replicas, 1);
        assert_eq!(with("replicas = 3").expect("valid").replicas, 3);
        for wrong in [0, 6] {
            let error = with(&format!("replicas = {wrong}")).expect_err("wrong").to_string();
            assert_eq!(error, format!("`replicas`: must be between 1 and 5, not {wrong}"));
        }
    }

    #[test]
    fn a_chain_needs_a_stage_and_a_proper_name() {
        assert_eq!(chain("name = \"a\"\nversion = \"1\"").expect_err("none"), ChainError::NoStage);
        assert!(matches!(chain("name = \"A\"\nversion = \"1\""), Err(ChainError::Name(_))));
    }
}
