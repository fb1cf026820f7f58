//! Putting messages on the server, however long it takes.
//!
//! What belongs together is one message, or an atomic batch where one message cannot hold it: the server keeps a store of
//! files for each batch. Measured with nats-server 2.15.1 on the text chain, 1,600 frames of 8 outputs took 12.6 s in batches
//! and 1.7 s as messages.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::outcome::Hop;
use super::window::Load;
use crate::broker::BrokerError;
use crate::broker::confirm::HeldSince;
use crate::broker::publish::{Outgoing, PublishError, Published};
use crate::subject;

/// The first wait before publishing again what was not taken; doubled each time.
const AGAIN: Duration = Duration::from_millis(10);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// The longest wait of those that found the queue full first; all others wait behind them.
const FULL_AGAIN_MAX: Duration = Duration::from_millis(40);
/// After this long, the node says what it waits for: the servers of a cluster may take ten seconds to elect a leader.
const TELL_AFTER: Duration = Duration::from_secs(12);

impl Hop {
    /// Stores all of these or none. All go to one stream; the first one's key stands for all. They come of the queued message at
    /// this place, held since then.
    ///
    /// The server knows a key for the duplicate window only, and if it is killed it forgets those of what is gone from its
    /// streams. So a node that was paused or cut off for so long that others may have handled the message looks first whether
    /// it is still there.
    pub(super) async fn store(
        &self,
        sequence: u64,
        held: &HeldSince,
        messages: &[Outgoing],
    ) -> Result<Published, PublishError> {
        if messages.is_empty() {
            return Ok(Published::Stored);
        }
        let store = async || {
            if held.age() >= self.chain.queue.ack_wait && !self.waits_still(sequence, held).await? {
                return Ok(Published::Duplicate);
            }
            match messages {
                [one] => self.broker.publish(one).await,
                many => self.broker.publish_batch(many).await,
            }
        };
        // What is put back always has room, and must not wait for what has none.
        let can_be_full = !self.is_last && messages[0].subject == self.target;
        let published = self.insist_in_line(Load::of(messages), can_be_full, store).await?;
        if published == Published::Duplicate {
            self.stats.duplicates.fetch_add(messages.len() as u64, Relaxed);
        }
        Ok(published)
    }

    /// Whether a message that was handed out is still in its queue. Nobody else has handled it then, at least not before now.
    async fn waits_still(&self, sequence: u64, held: &HeldSince) -> Result<bool, PublishError> {
        let now = Instant::now();
        let waits = self.broker.is_kept(&subject::work_stream(&self.chain.name), sequence).await?;
        if waits {
            held.renew(now);
        }
        Ok(waits)
    }

    /// Asks until the server answers, and gives up only on what can never be. So much is on its way each time.
    pub(super) async fn insist<P, T>(&self, load: Load, ask: impl FnMut() -> P) -> Result<T, PublishError>
    where
        P: Future<Output = Result<T, PublishError>>,
    {
        self.insist_in_line(load, false, ask).await
    }

    /// The same; what goes where it `can_be_full` waits behind what found it so before.
    async fn insist_in_line<P, T>(
        &self,
        load: Load,
        can_be_full: bool,
        mut ask: impl FnMut() -> P,
    ) -> Result<T, PublishError>
    where
        P: Future<Output = Result<T, PublishError>>,
    {
        let (mut wait, mut started) = (AGAIN, Instant::now());
        let mut told = None;
        let mut is_again = false;
        let mut place = None;
        if can_be_full && self.window.is_lined_up() {
            place = Some(self.window.line_up(load).await);
        }
        loop {
            if !self.identity.holds().await {
                // It belongs to nobody any more. Whoever serves the revision is about to end this.
                std::future::pending::<()>().await;
            }
            let leave = self.window.enter(load, is_again).await;
            let answer = ask().await;
            drop(leave);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error @ PublishError::TooLarge { .. }) => return Err(error),
                Err(error) => error,
            };
            is_again = matches!(error, PublishError::Unanswered(_) | PublishError::Broker(BrokerError::Timeout(_)));
            if !self.broker.is_connected() {
                // That is told by itself.
                started = Instant::now();
            }
            if told.is_none() && started.elapsed() >= TELL_AFTER {
                told = self.trouble.outputs_wait(&self.stage().name, &error);
            }
            let is_full = can_be_full && matches!(error, PublishError::Full(_));
            if is_full && place.is_none() {
                place = Some(self.window.line_up(load).await);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(if is_full { FULL_AGAIN_MAX } else { AGAIN_MAX });
        }
    }
}
