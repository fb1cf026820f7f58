//! A chain whose values have all been checked. [`manifest`] holds the raw form; other modules use only this form. [`record`]
//! holds the chain's entries on the server.

mod accepts;
mod allow;
pub(crate) mod arguments;
mod bounds;
mod config;
pub mod default;
mod hops;
pub mod isolation;
pub mod manifest;
pub mod needs;
pub mod program;
mod queue;
mod reader;
pub mod record;
mod retention;
pub(crate) mod review;
pub(crate) mod schema;
pub mod settings;
pub(crate) mod tree;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::calls::grant::Grants;
use crate::frame::format::Format;
use crate::name::{ChainName, DigestError, NameError, StageName, Version};
use crate::wire;
pub(crate) use accepts::Accepts;
use bounds::STAGES_MAX;
use isolation::Reuse;
use manifest::Manifest;
use needs::Needs;
pub use queue::Queue;
use reader::Reader;
pub(crate) use retention::Records;
pub use retention::Retention;
pub use work::{Plugin, Work};

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The name of the chain.
    pub name: ChainName,
    /// The author's label.
    pub version: Version,
    /// The number of servers that keep a copy of the chain's streams.
    pub replicas: u32,
    /// The format of messages without a `Content-Type`.
    pub input: Format,
    /// What fed items must fit. `None` if they may be anything.
    pub(crate) accepts: Option<Accepts>,
    /// The settings of the chain's queues.
    pub queue: Queue,
    /// How long results and dead letters are kept.
    pub retention: Retention,
    /// The stages in order. There is at least one.
    pub stages: Vec<Stage>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The name of the stage.
    pub name: StageName,
    /// What runs on each item.
    pub work: Work,
    /// The configuration of the task.
    pub config: serde_json::Value,
    /// The most items that run at once on one node.
    pub concurrency: u32,
    /// The most messages that run at once in the whole cluster. `None` sets no limit.
    pub max_in_flight: Option<u32>,
    /// The most messages that run at once from each lane. Revisions of wire 1 limit lanes, not stages.
    pub lane_limit: Option<u32>,
    /// The most time that one item may take.
    pub timeout: Duration,
    /// The most memory of one instance, in bytes.
    pub memory: u64,
    /// How instances are reused.
    pub reuse: Reuse,
    /// `true` if the stage runs in the hop of the one before.
    pub inline: bool,
    /// The attempts of an item that fails.
    pub retry: Retry,
    /// The environment variables of the task.
    pub env: BTreeMap<String, String>,
    /// The slots that an item needs while it runs.
    pub needs: Needs,
    /// The labels of the nodes that run the stage.
    pub labels: BTreeMap<String, String>,
    /// What the task may reach outside of its sandbox.
    pub(crate) grants: Arc<Grants>,
}

/// The attempts of an item that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The most attempts of an item. At least one.
    pub attempts: u32,
    /// Waits before the second, third, … attempt. The last wait also holds for all later attempts.
    pub backoff: Vec<Duration>,
}

impl Retry {
    /// Returns the wait after this many failed attempts.
    pub fn wait(&self, failed: u32) -> Duration {
        let position = (failed.max(1) - 1) as usize;
        self.backoff.get(position).or(self.backoff.last()).copied().unwrap_or_default()
    }
}

/// An invalid value in a well-formed manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest is malformed.
    #[error("stage `{stage}`: {error}")]
    Digest {
        /// The stage.
        stage: StageName,
        /// The error of the digest.
        #[source]
        error: DigestError,
    },
    /// The chain has no stage.
    #[error("the chain has no stage; add at least one `[[stage]]`")]
    NoStage,
    /// The chain has more stages than allowed.
    #[error("the chain has {0} stages; {STAGES_MAX} is the most: the server keeps three consumers for each")]
    TooManyStages(usize),
    /// Two stages share a name.
    #[error("two stages are named `{0}`; a stage's name must be its own")]
    DuplicateStage(StageName),
    /// A value is not allowed.
    #[error("{place}`{key}`: {problem}")]
    Value {
        /// The stage, as in ``stage `split`: ``. Empty if the value belongs to no stage.
        place: String,
        /// The key.
        key: &'static str,
        /// The problem, and what to write instead.
        problem: String,
    },
}

impl Chain {
    /// Checks a manifest.
    pub fn new(manifest: &Manifest) -> Result<Self, ChainError> {
        Self::read(manifest, false)
    }

    /// Checks a manifest that was deployed. Values outside their bounds are moved to the nearest bound.
    pub fn stored(manifest: &Manifest) -> Result<Self, ChainError> {
        Self::read(manifest, true)
    }

    fn read(manifest: &Manifest, is_deployed: bool) -> Result<Self, ChainError> {
        let name: ChainName = manifest.name.parse()?;
        let version: Version = manifest.version.parse()?;
        if manifest.stages.is_empty() {
            return Err(ChainError::NoStage);
        }
        if manifest.stages.len() > STAGES_MAX && !is_deployed {
            return Err(ChainError::TooManyStages(manifest.stages.len()));
        }
        let is_old = is_deployed && manifest.wire.is_none_or(|wire| wire < wire::WIRE);
        let mut names = BTreeSet::new();
        let mut stages = Vec::with_capacity(manifest.stages.len());
        for raw in &manifest.stages {
            if !names.insert(&raw.name) {
                return Err(ChainError::DuplicateStage(raw.name.parse()?));
            }
            stages.push(Stage::new(raw, stages.is_empty(), is_deployed, is_old)?);
        }
        let reader = Reader { place: String::new(), is_deployed };
        let replicas = bounds::REPLICAS.count(&reader, manifest.replicas, default::REPLICAS)?;
        let top = |place: &str| Reader { place: format!("[{place}] "), is_deployed };
        let results = top("results");
        let queue = Queue::new(&top("queue"), &manifest.queue)?;
        let retention = Retention::new(&results, &manifest.results, &queue)?;
        // A path stands there until a deploy has read the file.
        let schema = manifest.input.schema.as_ref().filter(|schema| !schema.is_string());
        let accepts = schema.map(Accepts::new).transpose().map_err(|problem| ChainError::Value {
            place: "[input] ".to_owned(),
            key: "schema",
            problem,
        })?;
        let input = manifest.input.format.unwrap_or_default();
        Ok(Self { name, version, replicas, input, accepts, queue, retention, stages })
    }

    /// Returns `true` if a stage may reach outside of its sandbox.
    pub(crate) fn reaches_out(&self) -> bool {
        self.stages.iter().any(|stage| !stage.grants.is_empty())
    }

    /// Returns the stage with this name and its position.
    pub fn stage(&self, name: &StageName) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, stage)| stage.name == *name)
    }
}

impl Stage {
    /// Returns `true` if files come with its program.
    pub(crate) fn has_files(&self) -> bool {
        matches!(&self.work, Work::Program(program) if program.files.is_some())
    }

    fn new(raw: &manifest::Stage, is_first: bool, is_deployed: bool, is_old: bool) -> Result<Self, ChainError> {
        let name: StageName = raw.name.parse()?;
        let reader = Reader { place: format!("stage `{name}`: "), is_deployed };
        let work = Work::new(&reader, raw, &name)?;
        let memory = match (&work, &raw.memory) {
            (Work::Task { .. }, Some(text)) => bounds::MEMORY.size(&reader, text)?,
            _ => default::MEMORY,
        };
        let in_flight = raw.max_in_flight.map(|number| bounds::MAX_IN_FLIGHT.count(&reader, Some(number), number));
        let in_flight = in_flight.transpose()?;
        for key in raw.env.keys() {
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(reader.error("env", format!("`{key}` cannot be the name of a variable")));
            }
        }
        let of_program = || if let Work::Program(_) = work { Needs::of_program() } else { Needs::default() };
        let needs = needs::needs(&reader, raw)?.unwrap_or_else(of_program);
        Ok(Self {
            needs,
            labels: needs::labels(&reader, raw)?,
            grants: Arc::new(allow::grants(&reader, raw, &work)?),
            work,
            config: raw.config.clone().unwrap_or_default(),
            concurrency: bounds::CONCURRENCY.count(&reader, raw.concurrency, default::CONCURRENCY)?,
            max_in_flight: in_flight.filter(|_| !is_old),
            lane_limit: in_flight.filter(|_| is_old),
            timeout: bounds::TIMEOUT.duration(&reader, raw.timeout.as_ref(), default::TIMEOUT)?,
            memory,
            reuse: isolation::reuse(&reader, raw)?,
            inline: hops::inline(&reader, raw, is_first)?,
            retry: Retry::new(&reader, &raw.retry.clone().unwrap_or_default())?,
            env: raw.env.clone(),
            name,
        })
    }
}

impl Retry {
    fn new(reader: &Reader, raw: &manifest::Retry) -> Result<Self, ChainError> {
        let attempts = bounds::ATTEMPTS.count(reader, raw.attempts, default::ATTEMPTS)?;
        Ok(Self { attempts, backoff: bounds::backoff(reader, raw)? })
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
        assert_eq!(stage.work, Work::Task { plugin: Plugin::File("p.wasm".into()), task: "s".to_owned() });
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
            ("timeout = \"0s\"", "stage `s`: `timeout`: must be at least \"1ms\": a node measures it in milliseconds"),
            ("memory = \"lots\"", "stage `s`: `memory`: `lots` is not a size; write one like \"64MiB\" or \"1GiB\""),
            (
                "memory = \"1KiB\"",
                "stage `s`: `memory`: must be at least \"64KiB\": a guest's memory comes in pages of that size",
            ),
            ("concurrency = 0", "stage `s`: `concurrency`: must be at least 1"),
            ("retry = { attempts = 0 }", "stage `s`: `attempts`: must be at least 1"),
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
    fn the_server_remembers_ids_until_a_dead_nodes_items_are_with_another() {
        let with = |tables: &str| {
            chain(&format!("name = \"a\"\nversion = \"1\"\n{tables}\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\""))
        };
        let window =
            |queue: &str| with(&format!("[queue]\n{queue}")).map(|chain| chain.queue.duplicate_window.as_secs());
        assert_eq!(window(""), Ok(120));
        assert_eq!(window("ack_wait = \"1s\"\nduplicate_window = \"12s\""), Ok(12));
        assert_eq!(window("ack_wait = \"2m\""), Ok(250), "the default grows with `ack_wait`");
        let error = window("ack_wait = \"10s\"\nduplicate_window = \"10s\"").expect_err("too short").to_string();
        assert!(
            error.starts_with("[queue] `duplicate_window`: must be at least \"30s\" with an `ack_wait` of \"10s\": "),
            "{error}"
        );
        let error = with("[results]\nmax_age = \"10s\"").expect_err("too short").to_string();
        assert!(
            error.starts_with("[results] `max_age`: must be at least \"30s\" with an `ack_wait` of \"10s\""),
            "{error}"
        );
    }

    #[test]
    fn there_are_at_least_one_and_at_most_as_many_replicas_as_servers_make() {
        let with = |replicas: &str| {
            chain(&format!("name = \"a\"\nversion = \"1\"\n{replicas}\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\""))
        };
        assert_eq!(with("").expect("valid").replicas, 1);
        assert_eq!(with("replicas = 3").expect("valid").replicas, 3);
        for (wrong, bound) in [(0, "least 1"), (6, "most 5: NATS keeps no more copies of a stream")] {
            let error = with(&format!("replicas = {wrong}")).expect_err("wrong").to_string();
            assert_eq!(error, format!("`replicas`: must be at {bound}"));
        }
    }

    #[test]
    fn a_chain_needs_a_stage_and_a_proper_name() {
        assert_eq!(chain("name = \"a\"\nversion = \"1\"").expect_err("none"), ChainError::NoStage);
        assert!(matches!(chain("name = \"A\"\nversion = \"1\""), Err(ChainError::Name(_))));
    }

    #[test]
    fn a_chain_has_at_most_as_many_stages_as_the_server_can_have_consumers_for() {
        let manifest = |stages: usize| {
            let stage = |number| format!("[[stage]]\nname = \"s{number}\"\nplugin = \"p.wasm\"\n");
            let stages: String = (0..stages).map(stage).collect();
            Manifest::from_toml(&format!("name = \"a\"\nversion = \"1\"\n{stages}")).expect("the right shape")
        };
        assert_eq!(Chain::new(&manifest(256)).expect("valid").stages.len(), 256);
        let error = Chain::new(&manifest(257)).expect_err("too many").to_string();
        assert!(error.starts_with("the chain has 257 stages; 256 is the most: "), "{error}");
        assert_eq!(Chain::stored(&manifest(257)).expect("deployed before there was a bound").stages.len(), 257);
    }
}
