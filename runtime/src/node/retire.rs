//! The end of a revision: one that has run empty is retired, and of one that is no longer live nothing is left.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::catalog::{Catalog, Context, Serving};
use super::tasks::Keeper;
use crate::broker::BrokerError;
use crate::chain::Chain;
use crate::name::{ChainName, Revision};

/// How long a revision is served before it is looked at for retirement: whoever has made it live again is about to put
/// something into its queues.
const RETIRE_AFTER: Duration = Duration::from_secs(1);

/// Revisions that are looked at side by side: one whose stream does not answer holds up no other.
const SIDE_BY_SIDE: usize = 8;

impl Catalog {
    /// Retires older revisions that have run empty, in a task of its own: the server may take its time. As with those that
    /// others retire, this node leaves them once the registry tells it to.
    pub fn retire(&mut self) {
        if self.retiring.as_ref().is_some_and(|retiring| !retiring.is_finished()) {
            return;
        }
        let older = self.serving.iter();
        let older = older.filter(|(_, serving)| !serving.active && serving.since.elapsed() >= RETIRE_AFTER);
        let older: Vec<(ChainName, Revision)> = older.map(|(key, _)| key.clone()).collect();
        if older.is_empty() {
            return;
        }
        let context = Arc::clone(&self.context);
        let keeper = Keeper::new(Arc::clone(&context.board), "retire older revisions");
        self.retiring = Some(keeper.spawn(move || {
            let (context, older) = (Arc::clone(&context), older.clone());
            async move {
                let retire = async |(chain, revision): (ChainName, Revision)| {
                    if let Err(error) = context.retire(&chain, revision).await {
                        tracing::debug!(%chain, %revision, %error, "not retired yet");
                    }
                };
                futures_util::stream::iter(older).for_each_concurrent(SIDE_BY_SIDE, retire).await;
            }
        }));
    }
}

impl Context {
    /// Retires a revision if it has run empty.
    async fn retire(&self, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
        // The state comes first: see `State::live`.
        let Some(marked) = self.registry.state(chain).await? else { return Ok(()) };
        if revision == marked.state.active || !marked.state.live.contains(&revision) {
            return Ok(());
        }
        if self.broker.is_finished(chain, revision).await? {
            self.registry.swap_state(chain, Some(&marked), &marked.state.retired(revision)).await?;
        }
        Ok(())
    }

    /// Waits until a revision that is no longer live has been interrupted, and removes its consumers: this node may have made
    /// one anew after others removed it and before it heard of that.
    ///
    /// The revision stays on the board until nothing of it runs: a reset waits for that.
    pub(super) async fn forget(self: Arc<Self>, chain: ChainName, revision: Revision, serving: Serving) {
        let _ = serving.task.await;
        for (key, stats) in self.board.remove(&chain, revision) {
            self.send_counts(&key, &stats).await;
        }
        if let Err(error) = self.delete_consumers(&chain, revision).await {
            tracing::debug!(%chain, %revision, %error, "consumers may be left behind");
        }
    }

    async fn delete_consumers(&self, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
        if let Some(deployed) = self.registry.deployed(chain, revision).await?
            && let Ok(checked) = Chain::stored(&deployed.manifest)
        {
            self.broker.delete_consumers(&checked, revision).await?;
        }
        Ok(())
    }
}
