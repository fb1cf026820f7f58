//! Waits until every item of a chain is handled.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Client, ClientError, status};
use crate::broker::service::Nodes;
use crate::broker::streams::ChainStreams;
use crate::broker::topic::TopicWork;
use crate::name::{ChainName, Topic};
use crate::report::NodeReport;

/// The pause between two requests whether the chain is empty. A wait returns at most this long, and the time of one request,
/// after the chain is empty.
const POLL: Duration = Duration::from_millis(50);
/// How often to check which nodes serve the chain.
const LOOK: Duration = Duration::from_secs(2);
/// How often to check for the first node that serves the chain.
const SOON: Duration = Duration::from_millis(250);

/// The most time for the first check, however short the wait is.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// A notice about a chain during a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The number of unfinished messages. Each holds one or more items.
    Unfinished(u64),
    /// The current rate of the chain.
    Pace(Pace),
    /// No node serves the chain. The texts are the problems of the nodes that are connected.
    NoNode(Vec<String>),
    /// Nodes serve the chain, but problems keep them from making progress.
    Stuck(Vec<String>),
    /// A node serves the chain again, and no problem is left.
    Served,
    /// The server does not answer.
    Away(String),
    /// The server answers again.
    Back,
}

/// The rate at which a stage handles items.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pace {
    /// The stage. Of all stages with a queue, it handles the most items.
    pub stage: String,
    /// Items per second, on all nodes.
    pub rate: f64,
}

// `NaN` is not equal to itself, but the rate is never `NaN`.
impl Eq for Pace {}

/// A wait for a chain, created by [`Client::wait`]. It must be awaited.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Wait<'a> {
    client: &'a Client,
    chain: &'a ChainName,
    topic: Option<Mutex<TopicWork>>,
    timeout: Option<Duration>,
    tell: Box<dyn FnMut(Notice) + Send + 'a>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(client: &'a Client, chain: &'a ChainName) -> Self {
        Self { client, chain, topic: None, timeout: None, tell: Box::new(|_| {}) }
    }

    /// Limits the time of the wait. Zero checks once.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Waits for the items of one topic alone.
    ///
    /// This reads the messages of the chain's queues, so it takes longer the more there are, of all topics. Messages that were read
    /// are not read again. An item that gets the topic from a task counts from then on.
    pub fn topic(mut self, topic: impl Into<Option<Topic>>) -> Self {
        self.topic = topic.into().map(|topic| Mutex::new(TopicWork::new(topic)));
        self
    }

    /// Calls `tell` with notices during the wait.
    pub fn notices(mut self, tell: impl FnMut(Notice) + Send + 'a) -> Self {
        self.tell = Box::new(tell);
        self
    }

    async fn run(self) -> Result<(), ClientError> {
        let Self { client, chain, topic, timeout, mut tell } = self;
        let work = Work { client, chain, topic };
        client.chain(chain).await?;
        let mut is_told = false;
        let mut tell = |notice| {
            is_told |= matches!(notice, Notice::Unfinished(_));
            tell(notice);
        };
        let Some(timeout) = timeout else { return wait_forever(&work, &mut tell).await };
        let deadline = Instant::now().checked_add(timeout);
        // Even a zero timeout checks once.
        match tokio::time::timeout(timeout.max(FIRST_LOOK), work.unfinished(Duration::ZERO)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(unfinished)) => tell(Notice::Unfinished(unfinished)),
            Ok(Err(error)) if timeout.is_zero() || !error.is_transient() => return Err(error),
            Ok(Err(_)) | Err(_) => {}
        }
        let waiting = wait_forever(&work, &mut tell);
        let Some(deadline) = deadline else { return waiting.await };
        let waited = tokio::time::timeout_at(deadline, waiting).await;
        match waited {
            Ok(waited) => waited,
            Err(_) if !is_told => Err(ClientError::TimedOut(format!(
                "the server did not answer within {} whether chain `{chain}` has unfinished items",
                humantime::format_duration(timeout.max(FIRST_LOOK))
            ))),
            Err(_) if timeout.is_zero() => Err(ClientError::TimedOut(format!("chain `{chain}` has unfinished items"))),
            Err(_) => Err(ClientError::TimedOut(format!(
                "chain `{chain}` still has unfinished items after {}",
                humantime::format_duration(timeout)
            ))),
        }
    }
}

impl<'a> IntoFuture for Wait<'a> {
    type Output = Result<(), ClientError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Waits until a node serves a chain. Calls `tell` if none does.
pub(crate) async fn until_served(
    client: &Client,
    chain: &ChainName,
    tell: &mut (impl FnMut(Notice) + Send),
) -> Result<(), ClientError> {
    let (mut told, mut after) = (Notice::Served, Duration::ZERO);
    loop {
        let looked = look(client, chain, after).await;
        after = SOON;
        match looked.map(|(notice, _)| notice) {
            Ok(notice @ Notice::NoNode(_)) if notice == told => {}
            Ok(notice @ Notice::NoNode(_)) => {
                tell(notice.clone());
                told = notice;
            }
            Ok(_) => {
                if told != Notice::Served {
                    tell(Notice::Served);
                }
                return Ok(());
            }
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
    }
}

async fn wait_forever(work: &Work<'_>, tell: &mut (impl FnMut(Notice) + Send)) -> Result<(), ClientError> {
    let Work { client, chain, .. } = work;
    let mut asking = Box::pin(work.unfinished(Duration::ZERO));
    let mut looking = Box::pin(look(client, chain, Duration::ZERO));
    let (mut told, mut before, mut is_away, mut is_asked) = (Notice::Served, None, false, false);
    loop {
        tokio::select! {
            answer = &mut asking => {
                is_asked = true;
                match answer {
                    Ok(0) => return Ok(()),
                    Ok(unfinished) => {
                        if std::mem::take(&mut is_away) {
                            tell(Notice::Back);
                        }
                        tell(Notice::Unfinished(unfinished));
                    }
                    Err(error) if error.is_transient() => {
                        // The connection itself reports that it is lost.
                        if client.broker.is_connected() && !std::mem::replace(&mut is_away, true) {
                            tell(Notice::Away(error.to_string()));
                        }
                    }
                    Err(error) => return Err(error),
                }
                asking = Box::pin(work.unfinished(POLL));
            }
            // For an empty chain there is nothing to report.
            looked = &mut looking, if is_asked => {
                match looked {
                    Ok((notice, pace)) => {
                        tell(Notice::Pace(pace));
                        // Right after the server was away, its nodes may be about to return. Right after a deploy, some may load it yet.
                        let is_transient = notice != Notice::Served && before == Some(Notice::Served);
                        if notice != told && !is_transient {
                            tell(notice.clone());
                            told = notice.clone();
                        }
                        before = Some(notice);
                    }
                    Err(error) if !error.is_transient() => return Err(error),
                    _ => {}
                }
                looking = Box::pin(look(client, chain, LOOK));
            }
        }
    }
}

/// What a wait waits for.
struct Work<'a> {
    client: &'a Client,
    chain: &'a ChainName,
    /// `None` for all topics.
    topic: Option<Mutex<TopicWork>>,
}

impl Work<'_> {
    /// Returns how many messages of all topics are unfinished after a while. 0 if none of the topic is.
    async fn unfinished(&self, after: Duration) -> Result<u64, ClientError> {
        tokio::time::sleep(after).await;
        let streams = ChainStreams::of(&self.client.broker, self.chain);
        let Some(topic) = &self.topic else { return Ok(streams.unfinished().await?) };
        if topic.lock().await.is_finished(streams).await? {
            return Ok(0);
        }
        Ok(streams.unfinished().await?.max(1))
    }
}

/// Checks the nodes of the chain after a while: their number, problems and rate.
async fn look(client: &Client, chain: &ChainName, after: Duration) -> Result<(Notice, Pace), ClientError> {
    tokio::time::sleep(after).await;
    let nodes = Nodes::ask(&client.broker).await?;
    let Nodes { answered: nodes, silent } = nodes;
    let serves = |node: &&NodeReport| !node.draining && node.hops.iter().any(|hop| hop.chain == chain.as_str());
    let mut reasons: Vec<String> = status::problems(chain, &nodes)
        .into_iter()
        .filter(|found| !found.served_by_others)
        .map(|found| format!("node {}: {}", found.node, found.problem.problem))
        .collect();
    let notice = match nodes.iter().any(|node| serves(&node)) {
        false => {
            reasons.extend(silent.iter().map(|node| format!("node {node} is connected and does not answer")));
            // The nodes may serve other chains, or be about to load this one.
            match nodes.len() {
                0 => {}
                _ if !reasons.is_empty() => {}
                1 => reasons.push("1 node answers and does not serve it, or not yet".to_owned()),
                number => reasons.push(format!("{number} nodes answer and do not serve it, or not yet")),
            }
            Notice::NoNode(reasons)
        }
        true if reasons.is_empty() => Notice::Served,
        true => Notice::Stuck(reasons),
    };
    Ok((notice, pace(chain, &nodes)))
}

/// Returns the rate of the stage that handles the most items.
fn pace(chain: &ChainName, nodes: &[NodeReport]) -> Pace {
    let mut rates: BTreeMap<&str, f64> = BTreeMap::new();
    for hop in nodes.iter().flat_map(|node| &node.hops).filter(|hop| hop.chain == chain.as_str()) {
        *rates.entry(&hop.stage).or_default() += hop.rate;
    }
    let most = rates.into_iter().max_by(|left, right| left.1.total_cmp(&right.1));
    most.map_or_else(
        || Pace { stage: String::new(), rate: 0.0 },
        |(stage, rate)| Pace { stage: stage.to_owned(), rate },
    )
}
