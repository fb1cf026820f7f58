//! Storing what a frame leaves behind, before it is acknowledged.
//!
//! Outputs are published side by side, each on its own. An atomic batch would be one answer in place of many, but the server
//! keeps a store of files for each batch: measured with nats-server 2.15.1 on the text chain, 1,600 generators of 8 outputs
//! took 12.6 s in batches and 1.7 s side by side. Batches are kept for the one case that needs them, a frame of
//! which some items go on and others are tried again.

use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};

use super::outcome::Hop;
use crate::broker::publish::{BATCH_MAX, Outgoing, PublishError, Published};

/// The first wait before publishing again what was not taken; doubled each time.
const AGAIN: Duration = Duration::from_millis(10);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// Outputs of one frame that are on their way at once.
const SIDE_BY_SIDE: usize = 256;
/// After this long, the node says what it waits for: the servers of a cluster may take ten seconds to elect a leader.
const TELL_AFTER: Duration = Duration::from_secs(12);

/// What is to be stored before a frame may be acknowledged.
#[derive(Default)]
pub(super) struct Publishes {
    pub(super) dead: Vec<Outgoing>,
    pub(super) outputs: Vec<Outgoing>,
    pub(super) retries: Vec<Outgoing>,
}

impl Hop {
    /// Stores everything, however long it takes. Dead letters come first and retries last.
    pub(super) async fn store(&self, publishes: Publishes) -> Result<(), PublishError> {
        let Publishes { dead, mut outputs, retries } = publishes;
        self.store_side_by_side(&dead).await?;
        // Results go to another stream than retries, so these two cannot be one batch.
        if self.is_last || retries.is_empty() {
            self.store_side_by_side(&outputs).await?;
            return self.store_side_by_side(&retries).await;
        }
        outputs.extend(retries);
        for batch in outputs.chunks(BATCH_MAX) {
            if self.insist(|| self.broker.publish_batch(batch)).await? == Published::Duplicate {
                // Some of it was stored by an earlier delivery, and the server has refused the rest with it.
                self.store_side_by_side(batch).await?;
            }
        }
        Ok(())
    }

    async fn store_side_by_side(&self, messages: &[Outgoing]) -> Result<(), PublishError> {
        if let [one] = messages {
            return self.store_one(one).await;
        }
        let mut on_the_way = FuturesUnordered::new();
        for one in messages {
            if on_the_way.len() == SIDE_BY_SIDE {
                on_the_way.next().await.transpose()?;
            }
            on_the_way.push(self.store_one(one));
        }
        on_the_way.try_collect().await
    }

    async fn store_one(&self, message: &Outgoing) -> Result<(), PublishError> {
        self.insist(|| self.broker.publish(message)).await.map(drop)
    }

    /// Publishes until it is stored. Gives up only on what can never be.
    async fn insist<P>(&self, mut publish: impl FnMut() -> P) -> Result<Published, PublishError>
    where
        P: Future<Output = Result<Published, PublishError>>,
    {
        let (mut wait, mut started) = (AGAIN, Instant::now());
        let mut told = None;
        loop {
            let error = match publish().await {
                Ok(published) => return Ok(published),
                Err(error @ PublishError::TooLarge { .. }) => return Err(error),
                Err(error) => error,
            };
            if !self.broker.is_connected() {
                // That is told by itself.
                started = Instant::now();
            }
            if told.is_none() && started.elapsed() >= TELL_AFTER {
                told = self.trouble.outputs_wait(&self.stage().name, &error);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }
}
