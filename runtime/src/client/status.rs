//! What the chains and nodes are doing.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Client, ClientError};
use crate::broker::BrokerError;
use crate::broker::counters::Counters;
use crate::broker::service::{HopReport, NodeReport, Nodes, Problem};
use crate::name::ChainName;
use crate::subject;

/// How long to wait for the last counts of nodes that have nothing to do.
const SETTLE: Duration = Duration::from_secs(1);
/// How often to look.
const LOOK: Duration = Duration::from_millis(100);

/// A chain at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChainStatus {
    /// Its name.
    pub chain: ChainName,
    /// The version that newly fed items get.
    pub version: String,
    /// Its revision's number.
    pub revision: u64,
    /// Whether items may be fed.
    pub open: bool,
    /// Nodes that answer and serve it; `None` if nodes are there and none of them answers.
    pub nodes: Option<usize>,
    /// The names of nodes that are connected and do not answer. They may serve it too.
    pub silent_nodes: Vec<String>,
    /// Messages of results that no puller has confirmed yet. A message may hold many results.
    pub result_messages: u64,
    /// Dead letters.
    pub dead: u64,
    /// The live revisions, oldest first.
    pub revisions: Vec<RevisionStatus>,
    /// Why nodes cannot serve it.
    pub problems: Vec<NodeProblem>,
}

/// A live revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RevisionStatus {
    /// Its number.
    pub revision: u64,
    /// Its version.
    pub version: String,
    /// When it was deployed, as RFC 3339.
    pub deployed: String,
    /// Its stages, in order.
    pub stages: Vec<StageStatus>,
}

/// A stage of a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageStatus {
    /// Its name.
    pub stage: String,
    /// Messages that wait, for their turn or for another attempt. A message may hold many items. Those that a node has in hand
    /// which does not answer are among them.
    pub queued_messages: u64,
    /// Items that run; `None` if a node does not answer.
    pub running: Option<u64>,
    /// Items handled for good, well or not, by any node at any time, as nodes have told; `None` if the server does not say, a
    /// node does not answer, or one that has nothing to do has not told it all. What a node had not told when it was killed,
    /// the last quarter of a second or so, is never counted.
    pub done: Option<u64>,
    /// Of these, the dead letters.
    pub failed: Option<u64>,
    /// Items handled per second, over the last few seconds; `None` if a node does not answer.
    pub rate: Option<f64>,
}

/// What is wrong with a node that serves a chain, or why it cannot serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeProblem {
    /// The node.
    pub node: String,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

impl Client {
    /// The nodes that answer, and the names of those that are connected and do not.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or nodes are there, none of them answers, and the server does not tell which they are.
    pub async fn nodes(&self) -> Result<Nodes, ClientError> {
        Ok(Nodes::ask(&self.broker).await?)
    }

    /// The nodes, once those that answer and have nothing to do have told the counters of all that they have done. Waits a
    /// moment for that. `None` if nodes are there, none of them answers, and the server does not tell which they are.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn settled_nodes(&self) -> Result<Option<Nodes>, ClientError> {
        let started = Instant::now();
        loop {
            let nodes = match Nodes::ask(&self.broker).await {
                Err(BrokerError::Timeout(_)) => return Ok(None),
                nodes => nodes?,
            };
            let is_settled = !nodes.answered.iter().flat_map(|node| &node.hops).any(owes_counts);
            if is_settled || started.elapsed() > SETTLE {
                return Ok(Some(nodes));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One chain, as its streams and the nodes that answer tell of it. `nodes` is `None` if nodes are there and nothing is known
    /// of them.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn status(&self, chain: &ChainName, nodes: Option<&Nodes>) -> Result<ChainStatus, ClientError> {
        let answered = nodes.map(|nodes| nodes.answered.as_slice()).unwrap_or_default();
        let silent_nodes = nodes.map(|nodes| nodes.silent.clone()).unwrap_or_default();
        let all_answer = nodes.is_some() && silent_nodes.is_empty();
        let (registry, marked) = self.chain(chain).await?;
        let state = marked.state;
        let held = self.broker.unfinished_by_hop(chain).await?;
        let untaken = self.broker.untaken(chain, &subject::results_stream(chain)).await?;
        let mut revisions = Vec::with_capacity(state.live.len());
        for &revision in &state.live {
            let (deployed, checked) = Self::revision(&registry, chain, revision).await?;
            let counts = Counters::of(&self.broker).read(chain, revision).await?;
            let stages = checked.stages.iter().map(|stage| {
                let key = (revision, stage.name.clone());
                let hops = answered.iter().flat_map(|node| &node.hops).filter(|hop| {
                    hop.chain == chain.as_str() && hop.revision == revision.number() && hop.stage == stage.name.as_str()
                });
                let is_counted = all_answer && !hops.clone().any(owes_counts);
                let (running, messages, rate) = hops.fold((0, 0, 0.0), |(running, messages, rate), hop| {
                    (running + hop.running, messages + hop.messages, rate + hop.rate)
                });
                let count = counts
                    .as_ref()
                    .filter(|_| is_counted)
                    .map(|counts| counts.get(&stage.name).copied().unwrap_or_default());
                let held = held.get(&key).copied().unwrap_or(0);
                StageStatus {
                    stage: stage.name.to_string(),
                    queued_messages: held.saturating_sub(messages),
                    running: all_answer.then_some(running),
                    done: count.map(|count| count.done),
                    failed: count.map(|count| count.failed),
                    rate: all_answer.then_some(rate),
                }
            });
            revisions.push(RevisionStatus {
                revision: revision.number(),
                version: deployed.version.to_string(),
                stages: stages.collect(),
                deployed: deployed.deployed,
            });
        }
        let active = revisions.iter().find(|revision| revision.revision == state.active.number());
        Ok(ChainStatus {
            chain: chain.clone(),
            version: active.map(|active| active.version.clone()).unwrap_or_default(),
            revision: state.active.number(),
            open: state.open,
            nodes: (all_answer || !answered.is_empty()).then(|| {
                let serves = |node: &&NodeReport| node.hops.iter().any(|hop| hop.chain == chain.as_str());
                answered.iter().filter(serves).count()
            }),
            silent_nodes,
            result_messages: untaken.queued + untaken.running,
            dead: self.broker.dead_by_stage(chain).await?.values().sum(),
            revisions,
            problems: problems(chain, answered),
        })
    }
}

/// Whether a node that has nothing to do at a hop has not told yet all that it has done there.
fn owes_counts(hop: &HopReport) -> bool {
    hop.running == 0 && hop.messages == 0 && hop.uncounted > 0
}

/// What keeps nodes from serving a chain.
pub(super) fn problems(chain: &ChainName, nodes: &[NodeReport]) -> Vec<NodeProblem> {
    let of = |node: &NodeReport| {
        // Those without a chain are the node's own, and stand in the way of all.
        let is_of = |problem: &&Problem| [Some(chain.as_str()), Some("")].contains(&problem.chain.split('.').next());
        let problems = node.problems.iter().filter(is_of);
        problems.map(|problem| NodeProblem { node: node.node.clone(), problem: problem.clone() }).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).collect()
}
