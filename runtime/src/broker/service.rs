//! Finds nodes. Each is an instance of the NATS micro service `pcluster-node`, so that `nats micro ls`, `info` and `stats` show it
//! too. A node's report is the `data` of its service's statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::line::Answers;
use super::micro::{Description, Running};
use super::stream::Stream;
use super::{Broker, BrokerError};
use crate::report::NodeReport;
use crate::subject::{CHAINS_STREAM, NODE_SERVICE};

/// The metadata key of a node's name.
pub const NAME: &str = "node";
/// The metadata key of a node's incarnation.
pub const INCARNATION: &str = "incarnation";

/// How long to wait for the first answer of a node, and for those of nodes that are known to be connected.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// How long to wait for one more after the last, once all that are known have answered and there may be others.
const NEXT_ANSWER: Duration = Duration::from_millis(300);
/// How often to ask again after an answer has ended the connection.
const ROUNDS: u32 = 5;
/// What servers answer with the connections of this account.
const CONNECTIONS: &str = "$SYS.REQ.ACCOUNT.PING.CONNZ";
/// The most connections that a server is asked for.
const CONNECTIONS_MAX: u32 = 100_000;

/// The nodes, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Nodes {
    /// The reports of the nodes that answered, by name.
    pub answered: Vec<NodeReport>,
    /// The names of connected nodes that did not answer. A server that does not report connections hides them, and so does a leaf
    /// node in between.
    pub silent: Vec<String>,
}

impl Nodes {
    /// Asks all nodes for their reports, and the servers for connected nodes.
    ///
    /// Gathers answers while known nodes are missing, for a bounded time.
    ///
    /// Any client may answer, with anything. An answer that the client library cannot read ends the connection, and later answers
    /// are lost. So all nodes are asked again a few times: they do not answer in the same order each time.
    pub(crate) async fn ask(broker: &Broker) -> Result<Self, BrokerError> {
        let mut heard = Heard::from_now(!broker.is_clustered());
        for _ in 0..ROUNDS {
            if heard.ask(broker).await? {
                break;
            }
            heard.again();
        }
        if !heard.has_any() {
            // Without any answer, the server itself may be away.
            Stream::of(broker, CHAINS_STREAM).exists().await?;
            // The server is there: so there are nodes, and none of them has answered.
            return Err(BrokerError::Timeout("ask for nodes".to_owned()));
        }
        Ok(heard.nodes())
    }
}

/// Keeps the service running until it is dropped.
#[derive(Debug)]
pub struct NodeService(Running);

/// Returns `true` if the server says that the subject has no listener.
fn is_nobody(answer: &Message) -> bool {
    answer.status == Some(StatusCode::NO_RESPONDERS) && answer.payload.is_empty()
}

/// The answers of nodes so far.
#[derive(Debug)]
struct Heard {
    began: Instant,
    last: Option<Instant>,
    answered: Vec<NodeReport>,
    /// The names of the nodes that the servers know, by incarnation.
    connected: BTreeMap<String, String>,
    /// `true` if there are no others: the only server has answered, and no leaf node or other program listens.
    are_all_known: bool,
    /// `true` if there is one server, so that its answer is the only one.
    is_alone: bool,
}

impl Heard {
    fn from_now(is_alone: bool) -> Self {
        let (answered, connected) = (Vec::new(), BTreeMap::new());
        Self { began: Instant::now(), last: None, answered, connected, are_all_known: false, is_alone }
    }

    /// Asks once. Returns `false` if the connection has ended before all answers were there.
    async fn ask(&mut self, broker: &Broker) -> Result<bool, BrokerError> {
        let what = "ask for nodes";
        let question = format!("$SRV.STATS.{NODE_SERVICE}");
        let filter = json!({ "filter_subject": question, "limit": CONNECTIONS_MAX }).to_string();
        let mut servers = Answers::to(broker, CONNECTIONS.to_owned(), filter.into(), what).await?;
        let mut nodes = Answers::to(broker, question, "".into(), what).await?;
        loop {
            tokio::select! {
                biased;
                Some(answer) = servers.next() => self.server(&answer.payload),
                answer = nodes.next() => match answer {
                    None => return Ok(false),
                    Some(answer) if is_nobody(&answer) => {
                        self.nobody();
                        return Ok(true);
                    }
                    Some(answer) => self.node(&answer),
                },
                () = tokio::time::sleep_until(self.until()) => return Ok(true),
            }
        }
    }

    fn node(&mut self, answer: &Message) {
        #[derive(Deserialize)]
        struct Stats {
            endpoints: Vec<EndpointStats>,
        }
        #[derive(Deserialize)]
        struct EndpointStats {
            data: Option<NodeReport>,
        }
        self.last = Some(Instant::now());
        let stats: Option<Stats> = serde_json::from_slice(&answer.payload).ok();
        let report = stats.and_then(|stats| stats.endpoints.into_iter().find_map(|endpoint| endpoint.data));
        let Some(report) = report else { return };
        // A node that is asked again answers again.
        let which = |node: &NodeReport| (node.node.clone(), node.incarnation.clone(), node.pid);
        self.answered.retain(|known| which(known) != which(&report));
        self.answered.push(report);
    }

    /// Records that no node listens, whatever is connected.
    fn nobody(&mut self) {
        self.last = Some(Instant::now());
        self.connected.clear();
    }

    /// Begins another round of requests, with as much time.
    fn again(&mut self) {
        self.last = self.last.map(|_| Instant::now());
    }

    fn server(&mut self, payload: &[u8]) {
        #[derive(Deserialize)]
        struct Told {
            data: Option<Connections>,
        }
        #[derive(Deserialize)]
        struct Connections {
            connections: Option<Vec<Connection>>,
        }
        #[derive(Deserialize)]
        struct Connection {
            #[serde(default)]
            name: String,
        }
        let told: Option<Told> = serde_json::from_slice(payload).ok();
        let Some(connections) = told.and_then(|told| told.data?.connections) else { return };
        self.are_all_known = self.is_alone;
        for connection in connections {
            match parse_connection_name(&connection.name) {
                Some((name, incarnation)) => drop(self.connected.insert(incarnation.to_owned(), name.to_owned())),
                None => self.are_all_known = false,
            }
        }
    }

    fn has_any(&self) -> bool {
        self.last.is_some() || !self.connected.is_empty()
    }

    /// Returns the connected nodes that have not answered.
    fn silent(&self) -> impl Iterator<Item = &String> {
        let has_answered = |incarnation: &String| self.answered.iter().any(|node| node.incarnation == *incarnation);
        self.connected.iter().filter(move |(incarnation, _)| !has_answered(incarnation)).map(|(_, name)| name)
    }

    /// Returns how long to wait for more answers.
    fn until(&self) -> Instant {
        match self.last {
            Some(last) if self.silent().next().is_none() && self.are_all_known => last,
            Some(last) if self.silent().next().is_none() => last + NEXT_ANSWER,
            _ => self.began + FIRST_ANSWER,
        }
    }

    fn nodes(self) -> Nodes {
        let mut silent: Vec<String> = self.silent().cloned().collect();
        silent.sort();
        let mut answered = self.answered;
        answered.sort_by(|left, right| left.node.cmp(&right.node));
        Nodes { answered, silent }
    }
}

/// Returns the name of the connection over which a node answers.
fn connection_name(node: &str, incarnation: &str) -> String {
    format!("{NODE_SERVICE} service {node} {incarnation}")
}

/// Reads the node's name and incarnation from the name of its connection.
fn parse_connection_name(connection: &str) -> Option<(&str, &str)> {
    connection.strip_prefix(NODE_SERVICE)?.strip_prefix(" service ")?.split_once(' ')
}

/// Calls all nodes and gathers the incarnations of those that answer, until there are enough or the time is over.
pub async fn incarnations(
    broker: &Broker,
    enough: impl Fn(&BTreeSet<String>) -> bool,
    patience: Duration,
) -> Result<BTreeSet<String>, BrokerError> {
    #[derive(Deserialize)]
    struct Pong {
        metadata: Option<HashMap<String, String>>,
    }
    let mut incarnations = BTreeSet::new();
    // Any client may answer, and end the connection by that: see [`Nodes::ask`].
    let gather = async {
        for _ in 0..ROUNDS {
            if enough(&incarnations) {
                break;
            }
            let question = format!("$SRV.PING.{NODE_SERVICE}");
            let mut answers = Answers::to(broker, question, "".into(), "call the nodes").await?;
            while !enough(&incarnations) {
                let Some(answer) = answers.next().await else { break };
                if is_nobody(&answer) {
                    return Ok::<(), BrokerError>(());
                }
                let pong: Option<Pong> = serde_json::from_slice(&answer.payload).ok();
                incarnations.extend(pong.and_then(|pong| pong.metadata?.remove(INCARNATION)));
            }
        }
        Ok(())
    };
    if let Ok(gathered) = tokio::time::timeout(patience, gather).await {
        gathered?;
    }
    Ok(incarnations)
}

impl NodeService {
    /// Makes this process known as a node. `report` is called for each question.
    pub async fn start(
        broker: &Broker,
        metadata: HashMap<String, String>,
        report: impl Fn() -> NodeReport + Send + Sync + Clone + 'static,
    ) -> Result<Self, BrokerError> {
        let purpose = "Runs the tasks of pcluster chains";
        let of = |key: &str| metadata.get(key).map_or("", String::as_str);
        let connection = connection_name(of(NAME), of(INCARNATION));
        let description = Description { name: NODE_SERVICE, purpose, connection, metadata };
        Running::start(broker, description, move || told(&report)).await.map(Self)
    }

    /// Waits until the service has ended by itself. It must not be called again then.
    pub async fn ended(&mut self) {
        self.0.ended().await;
    }
}

/// Returns a node's report, or null if the report panics: a panic would end the service.
fn told(report: &impl Fn() -> NodeReport) -> Value {
    let reported = std::panic::catch_unwind(AssertUnwindSafe(report));
    reported.ok().and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
