//! The end of a revision: it is retired once it has run empty, and cleared away once it is no longer live.

use std::sync::Arc;

use futures_util::StreamExt;

use tokio::task::JoinHandle;

use crate::broker::BrokerError;
use crate::broker::streams::ChainStreams;
use crate::chain::Chain;
use crate::name::{ChainName, Revision};
use crate::node::supervisor::context::Context;
use crate::node::tasks::Keeper;

/// Revisions that are looked at side by side. One whose stream does not answer delays no other.
const SIDE_BY_SIDE: usize = 8;

/// Retires the revisions among these that have run empty.
pub(crate) fn older(context: &Arc<Context>, older: Vec<(ChainName, Revision)>) -> JoinHandle<()> {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let one = async |(chain, revision): &(ChainName, Revision)| {
            if let Err(error) = retire(&context, chain, *revision).await {
                tracing::debug!(%chain, %revision, %error, "not retired yet");
            }
        };
        let keeper = Keeper::new(Arc::clone(&context.board), "retire older revisions");
        keeper.keep(|| futures_util::stream::iter(&older).for_each_concurrent(SIDE_BY_SIDE, one)).await;
    })
}

/// Retires a revision if it has run empty.
async fn retire(context: &Context, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
    // Read the state first: see `State::live`.
    let Some(marked) = context.registry.state(chain).await? else { return Ok(()) };
    if revision == marked.state.active || !marked.state.live.contains(&revision) {
        return Ok(());
    }
    if ChainStreams::of(&context.broker, chain).is_finished(revision).await? {
        context.registry.swap_state(chain, Some(&marked), &marked.state.retired(revision)).await?;
    }
    Ok(())
}

/// Waits until a revision that is no longer live is interrupted, and removes its consumers. This node may have made one anew
/// after others removed it, before it heard of that.
///
/// The revision stays on the board until nothing of it runs: a reset waits for that.
pub(crate) async fn forget(context: Arc<Context>, chain: ChainName, revision: Revision, serving: JoinHandle<()>) {
    let _ = serving.await;
    for (key, stats) in context.board.remove(&chain, revision) {
        context.send_counts(&key, &stats).await;
    }
    if let Err(error) = delete_consumers(&context, &chain, revision).await {
        tracing::debug!(%chain, %revision, %error, "consumers may be left behind");
    }
}

async fn delete_consumers(context: &Context, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
    if let Some(deployed) = context.registry.deployed(chain, revision).await?
        && let Ok(checked) = Chain::stored(&deployed.manifest)
    {
        ChainStreams::of(&context.broker, &checked.name).delete_consumers(&checked, revision).await?;
    }
    Ok(())
}
