//! How nodes are found: each is an instance of the NATS micro service `pcluster-node`, so that `nats micro ls`, `info` and
//! `stats` show them too. What a node reports is the `data` of its service's statistics.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::micro::{Description, Running};
use super::{Broker, BrokerError};
use crate::subject::{CHAINS_STREAM, NODE_SERVICE};

/// The key of a node's metadata that tells which run of its program it is.
pub const INCARNATION: &str = "incarnation";

/// How long to wait for the first answer of a node.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// How long to wait for one more after the last.
const NEXT_ANSWER: Duration = Duration::from_millis(300);

/// What a node reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// Which run of the node's program this is; empty: it does not say.
    #[serde(default)]
    pub incarnation: String,
    /// Of the process.
    pub pid: u32,
    /// The machine.
    pub host: String,
    /// The version of pcluster.
    pub version: String,
    /// Seconds since it started.
    pub uptime: f64,
    /// Whether it takes no new items because it is about to end.
    pub draining: bool,
    /// Memory for items that is in use, in bytes.
    #[serde(default)]
    pub memory_used: u64,
    /// Memory that the node gives to items, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// What it serves.
    pub hops: Vec<HopReport>,
    /// What it cannot serve.
    pub problems: Vec<Problem>,
}

/// What a node reports of a hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HopReport {
    /// The chain.
    pub chain: String,
    /// The revision's number.
    pub revision: u64,
    /// The hop's stage.
    pub stage: String,
    /// Items that run at the moment.
    pub running: u64,
    /// Messages that these items are in.
    #[serde(default)]
    pub messages: u64,
    /// Items handled for good since the node started, well or not.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Messages that the server had already, from another run of the same items.
    #[serde(default)]
    pub duplicates: u64,
    /// Items handled per second, over the last few seconds.
    pub rate: f64,
    /// Of those done, the ones that the counters may not have yet.
    #[serde(default)]
    pub uncounted: u64,
}

/// What keeps a node from serving a revision, or something else that it should do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The chain; empty if the problem is with the node itself.
    pub chain: String,
    /// The revision's number, if the problem is with one.
    pub revision: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// Keeps the service running until it is dropped.
#[derive(Debug)]
pub struct NodeService(Running);

impl Broker {
    /// Makes this process known as a node. `report` is called for each question.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn serve_node(
        &self,
        metadata: HashMap<String, String>,
        report: impl Fn() -> NodeReport + Send + Sync + Clone + 'static,
    ) -> Result<NodeService, BrokerError> {
        let purpose = "Runs the tasks of pcluster chains";
        let description = Description { name: NODE_SERVICE, purpose, metadata };
        self.offer(description, move || told(&report)).await.map(NodeService)
    }

    /// Asks all nodes what they do, and gathers the answers that come.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        #[derive(Deserialize)]
        struct Stats {
            endpoints: Vec<EndpointStats>,
        }
        #[derive(Deserialize)]
        struct EndpointStats {
            data: Option<NodeReport>,
        }
        let failed = |error: &dyn std::error::Error| BrokerError::other("ask for nodes", error);
        let inbox = self.client.new_inbox();
        // Anyone may answer.
        let (reading, mut answers) = self.reading().subscribe(inbox.clone()).await?;
        let question = format!("$SRV.STATS.{NODE_SERVICE}");
        reading.client.publish_with_reply(question, inbox, "".into()).await.map_err(|error| failed(&error))?;
        let (mut nodes, mut is_heard) = (Vec::new(), false);
        let mut patience = FIRST_ANSWER;
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            is_heard = true;
            if answer.status.is_some() {
                break;
            }
            patience = NEXT_ANSWER;
            if let Ok(stats) = serde_json::from_slice::<Stats>(&answer.payload) {
                nodes.extend(stats.endpoints.into_iter().find_map(|endpoint| endpoint.data));
            }
        }
        if !is_heard {
            // The server itself says that nobody listens. When it says nothing, it may be the one that is away.
            self.has_stream(CHAINS_STREAM).await?;
            // It is there: so are nodes, and none of them has answered.
            return Err(BrokerError::Timeout("ask for nodes".to_owned()));
        }
        nodes.sort_by(|left: &NodeReport, right| left.node.cmp(&right.node));
        Ok(nodes)
    }
}

impl Broker {
    /// Calls all nodes and gathers the incarnations of those that answer, until there are enough or the time is over.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn incarnations(
        &self,
        enough: impl Fn(&BTreeSet<String>) -> bool,
        patience: Duration,
    ) -> Result<BTreeSet<String>, BrokerError> {
        #[derive(Deserialize)]
        struct Pong {
            #[serde(default)]
            metadata: Option<HashMap<String, String>>,
        }
        let failed = |error: &dyn std::error::Error| BrokerError::other("call the nodes", error);
        let inbox = self.client.new_inbox();
        // Anyone may answer.
        let (reading, mut answers) = self.reading().subscribe(inbox.clone()).await?;
        let question = format!("$SRV.PING.{NODE_SERVICE}");
        reading.client.publish_with_reply(question, inbox, "".into()).await.map_err(|error| failed(&error))?;
        let mut incarnations = BTreeSet::new();
        let gather = async {
            while !enough(&incarnations) {
                let Some(answer) = answers.next().await else { return };
                if answer.status.is_some() {
                    return;
                }
                let pong: Option<Pong> = serde_json::from_slice(&answer.payload).ok();
                incarnations.extend(pong.and_then(|pong| pong.metadata?.remove(INCARNATION)));
            }
        };
        let _ = tokio::time::timeout(patience, gather).await;
        Ok(incarnations)
    }
}

impl NodeService {
    /// Waits until the service has ended by itself. It must not be asked again then.
    pub async fn ended(&mut self) {
        self.0.ended().await;
    }

    /// Ends the service: the node is no longer found.
    pub fn stop(self) {}
}

/// What a node reports, or nothing if it cannot: a panic would end the service,.
fn told(report: &impl Fn() -> NodeReport) -> Value {
    let reported = std::panic::catch_unwind(AssertUnwindSafe(report));
    reported.ok().and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default()
}
