//! What the chains and nodes are doing.

use serde::Serialize;

use super::{Root, RootError};
use crate::broker::service::{NodeReport, Problem};
use crate::name::ChainName;
use crate::subject;

/// A chain at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChainStatus {
    /// Its name.
    pub chain: ChainName,
    /// The version that newly fed items get.
    pub version: String,
    /// Its revision's number.
    pub revision: u64,
    /// Whether items may be fed.
    pub open: bool,
    /// Nodes that serve it.
    pub nodes: usize,
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
pub struct StageStatus {
    /// Its name.
    pub stage: String,
    /// Messages that wait, for their turn or for another attempt. A message may hold many items.
    pub queued_messages: u64,
    /// Items that run.
    pub running: u64,
    /// Items handled for good, well or not, by any node at any time.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
    /// Items handled per second, over the last few seconds.
    pub rate: f64,
}

/// What is wrong with a node that serves a chain, or why it cannot serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeProblem {
    /// The node.
    pub node: String,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

impl Root {
    /// The nodes that answer.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, RootError> {
        Ok(self.broker.nodes().await?)
    }

    /// One chain, as its streams and the nodes that answer tell of it.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn status(&self, chain: &ChainName, nodes: &[NodeReport]) -> Result<ChainStatus, RootError> {
        let (registry, marked) = self.chain(chain).await?;
        let state = marked.state;
        let counts = self.broker.counts(chain).await?;
        let held = self.broker.unfinished_by_hop(chain).await?;
        let untaken = self.broker.untaken(chain, &subject::results_stream(chain)).await?;
        let mut revisions = Vec::with_capacity(state.live.len());
        for &revision in &state.live {
            let (deployed, checked) = Self::revision(&registry, chain, revision).await?;
            let stages = checked.stages.iter().map(|stage| {
                let key = (revision, stage.name.clone());
                let hops = nodes.iter().flat_map(|node| &node.hops).filter(|hop| {
                    hop.chain == chain.as_str() && hop.revision == revision.number() && hop.stage == stage.name.as_str()
                });
                let (running, messages, rate) = hops.fold((0, 0, 0.0), |(running, messages, rate), hop| {
                    (running + hop.running, messages + hop.messages, rate + hop.rate)
                });
                let count = counts.get(&key).copied().unwrap_or_default();
                let held = held.get(&key).copied().unwrap_or(0);
                StageStatus {
                    stage: stage.name.to_string(),
                    queued_messages: held.saturating_sub(messages),
                    running,
                    done: count.done,
                    failed: count.failed,
                    rate,
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
            nodes: nodes.iter().filter(|node| node.hops.iter().any(|hop| hop.chain == chain.as_str())).count(),
            result_messages: untaken.queued + untaken.running,
            dead: self.broker.dead_by_stage(chain).await?.values().sum(),
            revisions,
            problems: problems(chain, nodes),
        })
    }
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
