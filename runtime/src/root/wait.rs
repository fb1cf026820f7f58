//! Waiting until every item was handled.

use std::time::Duration;

use super::{Root, RootError};
use crate::name::ChainName;

/// How often to ask whether the chain is empty. With the answer's own time it bounds how late a wait returns.
const POLL: Duration = Duration::from_millis(50);
/// How often to look for nodes that serve the chain.
const LOOK: Duration = Duration::from_secs(2);

/// What a wait has to tell meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// How many frames are not finished.
    Unfinished(u64),
    /// No node serves the chain; with the reasons of those that cannot.
    NoNode(Vec<String>),
    /// A node serves the chain again.
    Served,
}

impl Root {
    /// Waits until every item of a chain was handled: the queues are empty and nothing runs. `tell` is called with what
    /// happens meanwhile.
    ///
    /// # Errors
    ///
    /// If there is no such chain, the time is over, or the server is gone.
    pub async fn wait(
        &self,
        chain: &ChainName,
        timeout: Option<Duration>,
        mut tell: impl FnMut(Notice),
    ) -> Result<(), RootError> {
        self.chain(chain).await?;
        let waiting = self.wait_for_ever(chain, &mut tell);
        match timeout {
            None => waiting.await,
            Some(timeout) => match tokio::time::timeout(timeout, waiting).await {
                Ok(waited) => waited,
                Err(_) => Err(RootError::TimedOut(format!(
                    "chain `{chain}` still has unfinished items after {}",
                    humantime::format_duration(timeout)
                ))),
            },
        }
    }

    async fn wait_for_ever(&self, chain: &ChainName, tell: &mut impl FnMut(Notice)) -> Result<(), RootError> {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looking = Box::pin(self.cannot_serve(chain, Duration::ZERO));
        let mut unserved = false;
        loop {
            tokio::select! {
                _ = poll.tick() => match self.broker.unfinished(chain).await {
                    Ok(0) => return Ok(()),
                    Ok(unfinished) => tell(Notice::Unfinished(unfinished)),
                    // While the connection is away, it is tried again by itself.
                    Err(error) if !*self.broker.connected().borrow() => tracing::debug!(%error, "asking again"),
                    Err(error) => return Err(error.into()),
                },
                looked = &mut looking => {
                    match looked? {
                        Some(reasons) if !unserved => {
                            unserved = true;
                            tell(Notice::NoNode(reasons));
                        }
                        None if unserved => {
                            unserved = false;
                            tell(Notice::Served);
                        }
                        _ => {}
                    }
                    looking = Box::pin(self.cannot_serve(chain, LOOK));
                }
            }
        }
    }

    /// Looks after a while: `None` if some node serves the chain; else why those that are there do not.
    async fn cannot_serve(&self, chain: &ChainName, after: Duration) -> Result<Option<Vec<String>>, RootError> {
        tokio::time::sleep(after).await;
        let nodes = self.broker.nodes().await?;
        let serves = |node: &&crate::broker::service::NodeReport| {
            !node.draining && node.hops.iter().any(|hop| hop.chain == chain.as_str())
        };
        if nodes.iter().any(|node| serves(&node)) {
            return Ok(None);
        }
        let reasons = nodes.iter().flat_map(|node| {
            let of_chain = node.problems.iter().filter(|problem| problem.chain == chain.as_str());
            of_chain.map(|problem| format!("node {}: {}", node.node, problem.problem))
        });
        Ok(Some(reasons.collect()))
    }
}
