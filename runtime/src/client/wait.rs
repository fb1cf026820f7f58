//! Waiting until every item was handled.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Client, ClientError, status};
use crate::broker::service::{NodeReport, Nodes};
use crate::name::ChainName;

/// How long after an answer to ask again whether the chain is empty. With the answer's own time it bounds how late a wait
/// returns.
const POLL: Duration = Duration::from_millis(50);
/// How often to look for nodes that serve the chain.
const LOOK: Duration = Duration::from_secs(2);
/// How often to look for the first node that serves the chain.
const SOON: Duration = Duration::from_millis(250);

/// How long the first look may take, however short the time to wait is.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What a wait has to tell meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// How many messages are not finished; each holds one item or many.
    Unfinished(u64),
    /// What the chain's nodes handle at the moment.
    Pace(Pace),
    /// No node serves the chain; with the reasons of those that are there.
    NoNode(Vec<String>),
    /// Nodes serve the chain, but something keeps them from going on.
    Stuck(Vec<String>),
    /// A node serves the chain again, and nothing keeps it from going on.
    Served,
    /// The server does not tell how far the chain is.
    Away(String),
    /// The server answers again.
    Back,
}

/// How many items a stage handles.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pace {
    /// The stage: of a chain's stages with a queue, the one that handles the most.
    pub stage: String,
    /// Items a second, on all nodes.
    pub rate: f64,
}

// A rate that is not a number equals nothing, itself included; nodes count none.
impl Eq for Pace {}

/// A wait for a chain, to be awaited. [`Client::wait`] makes it.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Wait<'a> {
    client: &'a Client,
    chain: &'a ChainName,
    timeout: Option<Duration>,
    tell: Box<dyn FnMut(Notice) + Send + 'a>,
}

impl<'a> Wait<'a> {
    /// Gives up after this long. Zero looks once.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Calls this with what happens meanwhile.
    pub fn notices(mut self, tell: impl FnMut(Notice) + Send + 'a) -> Self {
        self.tell = Box::new(tell);
        self
    }

    async fn run(self) -> Result<(), ClientError> {
        let Self { client, chain, timeout, mut tell } = self;
        client.chain(chain).await?;
        let mut is_told = false;
        let mut tell = |notice| {
            is_told |= matches!(notice, Notice::Unfinished(_));
            tell(notice);
        };
        let Some(timeout) = timeout else { return client.wait_for_ever(chain, &mut tell).await };
        let deadline = Instant::now().checked_add(timeout);
        // At least one look is taken.
        match tokio::time::timeout(timeout.max(FIRST_LOOK), client.unfinished(chain, Duration::ZERO)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(unfinished)) => tell(Notice::Unfinished(unfinished)),
            Ok(Err(error)) if timeout.is_zero() || !error.is_transient() => return Err(error),
            Ok(Err(_)) | Err(_) => {}
        }
        let waiting = client.wait_for_ever(chain, &mut tell);
        let Some(deadline) = deadline else { return waiting.await };
        let waited = tokio::time::timeout_at(deadline, waiting).await;
        match waited {
            Ok(waited) => waited,
            Err(_) if !is_told => Err(ClientError::TimedOut(format!(
                "the server has not told within {} whether chain `{chain}` has unfinished items",
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

impl Client {
    /// Waits until every item of a chain was handled: the queues are empty and nothing runs.
    ///
    /// The wait goes on while the server is away. Can be dropped in the middle; a wait changes nothing.
    ///
    /// ```no_run
    /// # async fn example(client: &pcluster::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// client.wait(&"example".parse()?).timeout(Duration::from_secs(30)).notices(|notice| println!("{notice:?}")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such chain, the time is over, or the chain's queues are gone.
    pub fn wait<'a>(&'a self, chain: &'a ChainName) -> Wait<'a> {
        Wait { client: self, chain, timeout: None, tell: Box::new(|_| {}) }
    }

    /// Waits until a node serves a chain. `tell` is called if none does.
    pub(crate) async fn until_served(
        &self,
        chain: &ChainName,
        tell: &mut (impl FnMut(Notice) + Send),
    ) -> Result<(), ClientError> {
        let (mut told, mut after) = (Notice::Served, Duration::ZERO);
        loop {
            let looked = self.look(chain, after).await;
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

    async fn wait_for_ever(
        &self,
        chain: &ChainName,
        tell: &mut (impl FnMut(Notice) + Send),
    ) -> Result<(), ClientError> {
        let mut asking = Box::pin(self.unfinished(chain, Duration::ZERO));
        let mut looking = Box::pin(self.look(chain, Duration::ZERO));
        let (mut told, mut before, mut is_away, mut is_asked) = (Notice::Served, None, false, false);
        loop {
            tokio::select! {
                unfinished = &mut asking => {
                    is_asked = true;
                    match unfinished {
                        Ok(0) => return Ok(()),
                        Ok(unfinished) => {
                            if std::mem::take(&mut is_away) {
                                tell(Notice::Back);
                            }
                            tell(Notice::Unfinished(unfinished));
                        }
                        Err(error) if error.is_transient() => {
                            // That the connection is lost is said by itself.
                            if self.broker.is_connected() && !std::mem::replace(&mut is_away, true) {
                                tell(Notice::Away(error.to_string()));
                            }
                        }
                        Err(error) => return Err(error),
                    }
                    asking = Box::pin(self.unfinished(chain, POLL));
                }
                // Of a chain that is empty there is nothing to tell.
                looked = &mut looking, if is_asked => {
                    match looked {
                        Ok((notice, pace)) => {
                            tell(Notice::Pace(pace));
                            // Right after the server was away, its nodes may be about to come back.
                            let is_transient = matches!(notice, Notice::NoNode(_)) && before == Some(Notice::Served);
                            if notice != told && !is_transient {
                                tell(notice.clone());
                                told = notice.clone();
                            }
                            before = Some(notice);
                        }
                        Err(error) if !error.is_transient() => return Err(error),
                        _ => {}
                    }
                    looking = Box::pin(self.look(chain, LOOK));
                }
            }
        }
    }

    async fn unfinished(&self, chain: &ChainName, after: Duration) -> Result<u64, ClientError> {
        tokio::time::sleep(after).await;
        Ok(self.broker.unfinished(chain).await?)
    }

    /// Looks after a while which nodes serve the chain, what keeps those that are there from it, and how much they handle.
    async fn look(&self, chain: &ChainName, after: Duration) -> Result<(Notice, Pace), ClientError> {
        tokio::time::sleep(after).await;
        let nodes = Nodes::ask(&self.broker).await?;
        let Nodes { answered: nodes, silent } = nodes;
        let serves = |node: &&NodeReport| !node.draining && node.hops.iter().any(|hop| hop.chain == chain.as_str());
        let mut reasons: Vec<String> = status::problems(chain, &nodes)
            .into_iter()
            .map(|found| format!("node {}: {}", found.node, found.problem.problem))
            .collect();
        let notice = match nodes.iter().any(|node| serves(&node)) {
            false => {
                reasons.extend(silent.iter().map(|node| format!("node {node} is connected and does not answer")));
                // It may be one of other chains, or about to load this one.
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
}

/// The pace of the stage that handles the most items.
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
