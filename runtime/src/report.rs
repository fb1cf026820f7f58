//! What nodes report of themselves, as JSON on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The report of a node. It is the `data` of the node's service statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The name of the node.
    pub node: String,
    /// The incarnation of the node: one run of its program. Empty if it does not say.
    #[serde(default)]
    pub incarnation: String,
    /// The id of the process.
    pub pid: u32,
    /// The name of the machine.
    pub host: String,
    /// The version of pcluster.
    pub version: String,
    /// Seconds since the node started.
    pub uptime: f64,
    /// `true` if the node takes no new items because it is about to end.
    pub draining: bool,
    /// Memory for items that is in use, in bytes. Requested messages count before they come.
    #[serde(default)]
    pub memory_used: u64,
    /// Resident memory of the process, in bytes. 0 if it does not say.
    #[serde(default)]
    pub memory_resident: u64,
    /// The memory budget for items, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// What ends the processes of its programs. `None` if it runs none.
    #[serde(default)]
    pub programs: Option<EndedBy>,
    /// The numbers of the processors to which it binds its programs. Empty if it binds none.
    #[serde(default)]
    pub processors: Vec<u32>,
    /// The slots of the node. Empty if it does not say.
    #[serde(default)]
    pub slots: Vec<SlotReport>,
    /// The labels by which stages choose the node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The names of its secrets, in the form of environment variables. `None` if it has no place for secrets, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// The hops that the node serves.
    pub hops: Vec<HopReport>,
    /// What the node cannot serve, and why.
    pub problems: Vec<Problem>,
}

/// What ends all processes of a program, also if its node and the node's guard are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EndedBy {
    /// A cgroup of version 2, in one step, by the shepherd of the program.
    Cgroup,
    /// The shepherd, as the reaper of all that descends from the program.
    Reaper,
}

/// The report of a node about one kind of slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotReport {
    /// The name of the kind, as in `cores`.
    pub slot: String,
    /// How much the node has. Memory is in bytes.
    pub all: u64,
    /// How much of it is free.
    pub free: u64,
}

/// The report of a node about one hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HopReport {
    /// The chain.
    pub chain: String,
    /// The revision's number.
    pub revision: u64,
    /// The first stage of the hop.
    pub stage: String,
    /// Items that run now.
    pub running: u64,
    /// Messages of these items.
    #[serde(default)]
    pub messages: u64,
    /// Items handled for good since the node started, well or not.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Messages that the server already had, from another run of the same items.
    #[serde(default)]
    pub duplicates: u64,
    /// Items handled per second, over the last few seconds.
    pub rate: f64,
    /// Of [`Self::done`], the items that the counters on the server may not have yet.
    #[serde(default)]
    pub uncounted: u64,
}

/// What keeps a node from serving a revision, or from other work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The chain. Empty if the problem is with the node itself.
    pub chain: String,
    /// The revision's number, if the problem is with one.
    pub revision: Option<u64>,
    /// The stage whose items the node leaves to others. `None` if the problem is not only this node's with one stage.
    #[serde(default)]
    pub stage: Option<String>,
    /// What is wrong, in words.
    pub problem: String,
}
