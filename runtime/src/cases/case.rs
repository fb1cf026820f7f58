//! A case: what is fed to a chain, what stands in for the world, and what must come of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use crate::dead::FailureKind;
use crate::dead::calls::Called;
use crate::name::{StageName, Topic};
use crate::run::call::Answer;

/// A case of a chain.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The name, unique among the cases of the chain.
    pub(crate) name: String,
    /// The file, or the folder that a replay wrote, as messages name it.
    pub(crate) file: PathBuf,
    /// The line of the file at which the case begins, from 1.
    pub(crate) line: usize,
    /// The position of the case in its file, from 0.
    pub(crate) position: usize,
    /// What is fed, each as CBOR.
    pub(crate) items: Vec<Bytes>,
    /// The topic of the items.
    pub(crate) topic: Option<Topic>,
    /// What is laid over the configuration of stages. Of a replay, the whole configuration.
    pub(crate) config: BTreeMap<StageName, serde_json::Value>,
    /// What answers the calls of tasks. Those of a stage come in this order.
    pub(crate) calls: Vec<CaseCall>,
    /// What stands in for programs.
    pub(crate) programs: Vec<StandIn>,
    /// What must come of it.
    pub(crate) expect: Expect,
    /// The replayed dead letter that the case is made of. `None` if an author wrote it.
    pub(crate) replayed: Option<Replayed>,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaseCall {
    /// The stage that calls.
    pub(crate) stage: StageName,
    /// The name of the call, as in `kv.get`.
    pub(crate) call: String,
    /// What it is made to, as in `GET https://api.example.com/rows` or `cache/key`; see [`Called::target`].
    pub(crate) target: String,
    /// The answer, in CBOR as the task reads it.
    pub(crate) answer: Answer,
    /// The line of the file, from 1.
    pub(crate) line: usize,
}

/// What stands in for a program with one item.
#[derive(Debug, Clone)]
pub(crate) struct StandIn {
    /// The stage that runs the program.
    pub(crate) stage: StageName,
    /// The item, as CBOR. `None`: any item.
    pub(crate) item: Option<Bytes>,
    /// What the program gives.
    pub(crate) gives: Given,
    /// The line of the file, from 1.
    pub(crate) line: usize,
}

/// What comes of an item of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// Outputs, each as CBOR.
    Outputs(Vec<Bytes>),
    /// A failure.
    Failure {
        /// The kind, as dead letters name it.
        kind: FailureKind,
        /// The reason.
        reason: String,
        /// `true` if the item is tried again.
        is_transient: bool,
    },
}

/// What must come of a case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expect {
    /// The results of the chain, each as CBOR. `None`: any.
    pub(crate) results: Option<Vec<Bytes>>,
    /// What stages give, each as CBOR.
    pub(crate) stages: BTreeMap<StageName, Vec<Bytes>>,
    /// The dead letters. `None`: there is none.
    pub(crate) dead: Option<Vec<ExpectedDead>>,
    /// `true` if the order of results, and of what a stage gives, does not count.
    pub(crate) unordered: bool,
    /// By how much floats may differ, absolutely or in relation to the greater one.
    pub(crate) tolerance: f64,
}

impl Expect {
    /// Returns `true` if nothing is expected, so that the case tests nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.results.is_none() && self.stages.is_empty() && self.dead.is_none()
    }
}

/// A dead letter that must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedDead {
    /// The stage that fails.
    pub(crate) stage: StageName,
    /// The kind of failure. `None`: any.
    pub(crate) kind: Option<FailureKind>,
    /// What the reason contains. `None`: anything.
    pub(crate) reason: Option<String>,
    /// The number of attempts. `None`: any.
    pub(crate) attempts: Option<u64>,
}

/// What a replay knows of the dead letter that it ran.
///
/// The case begins at a stage within the chain. Its items are those of that stage, and its results are what the last of the
/// stages gives.
#[derive(Debug, Clone)]
pub(crate) struct Replayed {
    /// The stages that ran: the one with a queue, and the inline stages after it.
    pub(crate) stages: Vec<StageName>,
    /// The whole environment of each stage.
    pub(crate) env: BTreeMap<StageName, BTreeMap<String, String>>,
    /// The id of the item.
    pub(crate) item_id: String,
    /// The number of the attempt.
    pub(crate) attempt: u64,
    /// The calls that were made, with their answers.
    pub(crate) calls: Vec<Called>,
}
