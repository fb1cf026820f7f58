//! The status of chains and nodes.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Client, ClientError};
use crate::broker::BrokerError;
use crate::broker::counters::Counters;
use crate::broker::large::{LargeSettings, LargeStore, Usage};
use crate::broker::service::Nodes;
use crate::broker::streams::ChainStreams;
use crate::name::ChainName;
use crate::report::{HopReport, NodeReport, Problem};
use crate::subject;

/// The most time to wait for the last counters of idle nodes.
const SETTLE: Duration = Duration::from_secs(1);
/// How often to read them meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The status of a chain at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChainStatus {
    /// The name of the chain.
    pub chain: ChainName,
    /// The version that receives newly fed items.
    pub version: String,
    /// The number of that revision.
    pub revision: u64,
    /// `true` if items may be fed.
    pub open: bool,
    /// The number of nodes that answer and serve the chain. `None` if nodes are connected and none of them answers.
    pub nodes: Option<usize>,
    /// The names of nodes that are connected and do not answer. They may serve the chain too.
    pub silent_nodes: Vec<String>,
    /// Messages of results that no puller has confirmed yet. A message may hold many results.
    pub result_messages: u64,
    /// The number of dead letters.
    pub dead: u64,
    /// The number of large items. `None` if the server does not tell it.
    pub large_items: Option<u64>,
    /// The bytes that large items take on the server, with those that are being stored.
    pub large_bytes: Option<u64>,
    /// The live revisions, oldest first.
    pub revisions: Vec<RevisionStatus>,
    /// The reasons why nodes cannot serve the chain.
    pub problems: Vec<NodeProblem>,
}

/// A live revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RevisionStatus {
    /// The number of the revision.
    pub revision: u64,
    /// The version of the revision.
    pub version: String,
    /// When the revision was deployed, as RFC 3339.
    pub deployed: String,
    /// The stages of the revision, in order.
    pub stages: Vec<StageStatus>,
}

/// A stage of a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageStatus {
    /// The name of the stage.
    pub stage: String,
    /// Messages that wait in the queue or for another attempt. A message may hold many items. Messages that are held by a node
    /// that does not answer are included.
    pub queued_messages: u64,
    /// Items that run now. `None` if a node does not answer.
    pub running: Option<u64>,
    /// Items that succeeded or failed for good, as all nodes have reported. `None` if the server does not answer, a node does not
    /// answer, or an idle node has not reported all of its items yet. Items of the last quarter of a second or so before a node
    /// was killed are never counted.
    pub done: Option<u64>,
    /// The items among `done` that became dead letters.
    pub failed: Option<u64>,
    /// Items handled per second, over the last few seconds. `None` if a node does not answer.
    pub rate: Option<f64>,
}

/// A problem of a node that serves a chain, or cannot serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeProblem {
    /// The name of the node.
    pub node: String,
    /// `true` if another node serves what this one does not because of the problem. So it does not keep the chain from going on.
    pub served_by_others: bool,
    /// The problem.
    #[serde(flatten)]
    pub problem: Problem,
}

pub(super) async fn nodes(client: &Client) -> Result<Nodes, ClientError> {
    Ok(Nodes::ask(&client.broker).await?)
}

pub(super) async fn settled_nodes(client: &Client) -> Result<Option<Nodes>, ClientError> {
    let started = Instant::now();
    loop {
        let nodes = match Nodes::ask(&client.broker).await {
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

pub(super) async fn status(
    client: &Client,
    chain: &ChainName,
    nodes: Option<&Nodes>,
) -> Result<ChainStatus, ClientError> {
    let answered = nodes.map(|nodes| nodes.answered.as_slice()).unwrap_or_default();
    let silent_nodes = nodes.map(|nodes| nodes.silent.clone()).unwrap_or_default();
    let all_answer = nodes.is_some() && silent_nodes.is_empty();
    let (registry, marked) = client.chain(chain).await?;
    let state = marked.state;
    let held = ChainStreams::of(&client.broker, chain).unfinished_by_hop().await?;
    let (streams, results) = (ChainStreams::of(&client.broker, chain), subject::results_stream(chain));
    let untaken = streams.untaken(&results, subject::PULL_CONSUMER).await?;
    let mut revisions = Vec::with_capacity(state.live.len());
    for &revision in &state.live {
        let (deployed, checked) = Client::revision(&registry, chain, revision).await?;
        let counts = Counters::of(&client.broker).read(chain, revision).await?;
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
    let large = large(client, chain).await?;
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
        dead: ChainStreams::of(&client.broker, chain).dead_by_stage().await?.values().sum(),
        large_items: large.map(|large| large.objects),
        large_bytes: large.map(|large| large.bytes),
        revisions,
        problems: problems(chain, answered),
    })
}

/// Returns what the large items of a chain take. `None` if this user may not know.
async fn large(client: &Client, chain: &ChainName) -> Result<Option<Usage>, ClientError> {
    // What it holds does not depend on how it is made.
    let settings = LargeSettings::default();
    match LargeStore::of(&client.broker, chain, settings).usage().await {
        Err(BrokerError::NoPermission { .. }) => Ok(None),
        usage => Ok(Some(usage?)),
    }
}

/// Returns `true` if an idle node has not reported all items of a hop.
fn owes_counts(hop: &HopReport) -> bool {
    hop.running == 0 && hop.messages == 0 && hop.uncounted > 0
}

/// Returns the problems that keep nodes from serving a chain.
pub(super) fn problems(chain: &ChainName, nodes: &[NodeReport]) -> Vec<NodeProblem> {
    let of = |node: &NodeReport| {
        // A problem without a chain is the node's own, and affects all chains.
        let is_of = |problem: &&Problem| [Some(chain.as_str()), Some("")].contains(&problem.chain.split('.').next());
        let of_node = |problem: &Problem| NodeProblem {
            node: node.node.clone(),
            served_by_others: nodes.iter().any(|other| serves_for(other, node, problem)),
            problem: problem.clone(),
        };
        node.problems.iter().filter(is_of).map(of_node).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).collect()
}

/// Returns `true` if a node serves what another leaves to it by this problem: a stage, or the whole revision.
///
/// This is the one rule by which what a node does not serve counts for its chain: only while no node serves it. A node that serves
/// a part of a revision reports what it leaves.
fn serves_for(node: &NodeReport, other: &NodeReport, left: &Problem) -> bool {
    let is_of = |hop: &&HopReport| hop.chain == left.chain && Some(hop.revision) == left.revision;
    let has = |stage: &String| node.hops.iter().filter(is_of).any(|hop| hop.stage == *stage);
    let serves = match &left.stage {
        Some(stage) => has(stage),
        None => node.hops.iter().any(|hop| is_of(&hop)) && !other.hops.iter().any(|hop| is_of(&hop)),
    };
    let leaves = |own: &Problem| (&own.chain, own.revision, &own.stage) == (&left.chain, left.revision, &left.stage);
    serves && !node.draining && !node.problems.iter().any(leaves)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, draining: bool, serves: &[&str], leaves: &[&str]) -> NodeReport {
        let hop = |stage: &&str| json!({"chain": "a", "revision": 2, "stage": stage, "running": 0, "done": 0, "failed": 0, "retried": 0, "rate": 0.0});
        let problem =
            |stage: &&str| json!({"chain": "a", "revision": 2, "stage": stage, "problem": "it is not allowed"});
        let report = json!({
            "node": name, "pid": 1, "host": "h", "version": "1", "uptime": 1.0, "draining": draining,
            "hops": serves.iter().map(hop).collect::<Vec<_>>(),
            "problems": leaves.iter().map(problem).collect::<Vec<_>>(),
        });
        serde_json::from_value(report).expect("a report")
    }

    #[test]
    fn a_refusal_counts_while_no_other_node_serves_the_stage() {
        let chain = "a".parse().expect("a name");
        let counts = |nodes: &[NodeReport]| {
            let problems = problems(&chain, nodes).into_iter().filter(|found| !found.served_by_others);
            problems
                .map(|found| format!("{} {}", found.node, found.problem.stage.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        let strict = || node("strict", false, &["one"], &["two", "three"]);
        assert_eq!(counts(&[strict()]), ["strict two", "strict three"]);
        assert_eq!(counts(&[strict(), node("b", false, &["one", "two"], &[])]), ["strict three"]);
        assert_eq!(counts(&[node("b", false, &["two"], &[]), node("c", false, &["three"], &[]), strict()]), [""; 0]);
        let stops = node("b", true, &["two", "three"], &[]);
        assert_eq!(counts(&[strict(), stops]), ["strict two", "strict three"]);
        // A node may report a hop whose items it cannot run at present.
        let unfit = node("b", false, &["two", "three"], &["two"]);
        assert_eq!(counts(&[strict(), unfit]), ["strict two", "b two"]);
        let mut older = node("b", false, &["two", "three"], &[]);
        older.hops[0].revision = 1;
        assert_eq!(counts(&[strict(), older]), ["strict two"]);
        let mut whole = strict();
        whole.problems[0].stage = None;
        let b = || node("b", false, &["two"], &["one"]);
        assert_eq!(counts(&[whole.clone(), b()]), ["strict ", "strict three"], "it serves some, so it is about these");
        whole.hops.clear();
        assert_eq!(counts(&[whole, b()]), ["strict three", "b one"]);
    }
}
