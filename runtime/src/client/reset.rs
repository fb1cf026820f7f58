//! Resets a chain: no item that was fed before runs afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::settle::settle;
use super::{Client, ClientError, deploy};
use crate::broker::counters::Counters;
use crate::broker::forget::forget_ids;
use crate::broker::large::sweep::{Grace, Sweep};
use crate::broker::large::{LargeSettings, LargeStore};
use crate::broker::registry::Registry;
use crate::broker::service::Nodes;
use crate::broker::streams::ChainStreams;
use crate::chain::Chain;
use crate::chain::record::{Deployed, State};
use crate::name::{ChainName, Revision};
use crate::report::HopReport;

/// The most time to wait until nodes interrupt running items.
const INTERRUPT: Duration = Duration::from_millis(1_200);
/// How often to check that meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The effect of a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// Messages removed from the queues, including those whose items ran.
    pub dropped: u64,
    /// Results and dead letters that were removed.
    pub forgotten: u64,
    /// The new active revision, with the same manifest as the one before.
    pub revision: Revision,
    /// Nodes that have not confirmed yet that they interrupted running items. Such items can leave nothing in the queues: the
    /// server refuses it.
    pub pending_nodes: Vec<String>,
}

pub(super) async fn reset(client: &Client, chain: &ChainName, all: bool) -> Result<Reset, ClientError> {
    let mut forgotten = 0;
    let replaced = match replace(client, chain).await {
        // Results that the reset removes anyway make room for the new state.
        Err(ClientError::Broker(error)) if all && error.is_no_room() => {
            forgotten += ChainStreams::of(&client.broker, chain).purge_kept().await?;
            replace(client, chain).await
        }
        replaced => replaced,
    };
    let (registry, before, new, state) = replaced?;
    let (_, checked) = Client::revision(&registry, chain, new.revision).await?;
    let mut dropped = 0;
    // The intake is closed meanwhile. Otherwise ids of the new revision could be forgotten too.
    forget_ids(&client.broker, chain).await?;
    if let Err(error) = Counters::of(&client.broker).purge(chain).await {
        tracing::debug!(%chain, %error, "counters of revisions that never come back are left behind");
    }
    settle(&registry, chain, state).await?;
    for &revision in &before.live {
        let (_, old) = Client::revision(&registry, chain, revision).await?;
        ChainStreams::of(&client.broker, &old.name).delete_consumers(&old, revision).await?;
        dropped += ChainStreams::of(&client.broker, chain).purge_queued(revision).await?;
    }
    for revision in left_behind(client, &registry, chain, new.revision).await? {
        // A consumer that cannot be removed finds no messages any more.
        if let Ok((_, old)) = Client::revision(&registry, chain, revision).await {
            ChainStreams::of(&client.broker, &old.name).delete_consumers(&old, revision).await?;
        }
        dropped += ChainStreams::of(&client.broker, chain).purge_queued(revision).await?;
    }
    ChainStreams::of(&client.broker, &checked.name).create_consumers(&checked, new.revision).await?;
    let pending_nodes = interrupted(client, chain, new.revision).await?;
    if all {
        forgotten += ChainStreams::of(&client.broker, chain).purge_kept().await?;
    }
    remove_large(client, &checked, all).await?;
    Ok(Reset { dropped, forgotten, revision: new.revision, pending_nodes })
}

/// Removes the large items of the removed messages. Those that are being fed already stay.
async fn remove_large(client: &Client, chain: &Chain, all: bool) -> Result<(), ClientError> {
    let store = LargeStore::of(&client.broker, &chain.name, LargeSettings::of(chain));
    // What other clients have stored may be for messages that they are about to feed.
    let foreign = if all { Duration::ZERO } else { Grace::default().foreign };
    Sweep::of(&store, Grace { own: Duration::ZERO, foreign }).whole().await?;
    Ok(())
}

/// Makes a new revision of the active manifest the only live one.
async fn replace(client: &Client, chain: &ChainName) -> Result<(Registry, State, Deployed, State), ClientError> {
    let mut made: Option<(Revision, Deployed)> = None;
    loop {
        let (registry, marked) = client.chain(chain).await?;
        let (active, checked) = Client::revision(&registry, chain, marked.state.active).await?;
        let first = marked.state.active.next();
        let new = match made.take() {
            // A node has retired an older revision meanwhile, and the new one is as good as before.
            Some((of, new)) if of == marked.state.active => new,
            _ => deploy::add(&registry, active.manifest, active.digest, &checked, first).await?,
        };
        let state = marked.state.reset(new.revision);
        if registry.swap_state(chain, Some(&marked), &state).await? {
            return Ok((registry, marked.state, new, state));
        }
        made = Some((marked.state.active, new));
    }
}

/// Returns older revisions with items that an incomplete reset has left.
async fn left_behind(
    client: &Client,
    registry: &Registry,
    chain: &ChainName,
    new: Revision,
) -> Result<BTreeSet<Revision>, ClientError> {
    let held = ChainStreams::of(&client.broker, chain).unfinished_by_hop().await?;
    // Read the state after the queues: a retry makes its revision live before it requeues items.
    let live = registry.state(chain).await?.map(|marked| marked.state.live).unwrap_or_default();
    let revisions = held.into_keys().map(|(revision, _)| revision);
    Ok(revisions.filter(|revision| *revision < new && !live.contains(revision)).collect())
}

/// Waits until no node serves an older revision. Returns the names of nodes that still do when the time is over.
async fn interrupted(client: &Client, chain: &ChainName, revision: Revision) -> Result<Vec<String>, ClientError> {
    let started = Instant::now();
    loop {
        let nodes = match Nodes::ask(&client.broker).await {
            Err(error) if error.is_transient() => Nodes::default(),
            nodes => nodes?,
        };
        let old = |hop: &HopReport| hop.chain == chain.as_str() && hop.revision < revision.number();
        let serving = nodes.answered.into_iter().filter(|node| node.hops.iter().any(old)).map(|node| node.node);
        // A node that does not answer may serve an older revision too.
        let pending: Vec<String> = serving.chain(nodes.silent).collect();
        if pending.is_empty() || started.elapsed() > INTERRUPT {
            return Ok(pending);
        }
        tokio::time::sleep(LOOK).await;
    }
}
