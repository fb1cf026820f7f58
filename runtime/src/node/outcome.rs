//! What becomes of a frame: it is read, run, what it leaves behind is stored, and only then is it acknowledged.
//!
//! [`super::taken`] reads it, [`super::run`] runs its items, [`super::commit`] stores what is left, [`super::letter`] writes
//! the letters of what failed for good.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::catalog::Phase;
use super::commit::{FRAME_ITEMS, to_u32};
use super::fault::{self, Point};
use super::letter::{Letter, with_deaths};
use super::logs::StageLog;
use super::run::{self, Ending, LEAVE_AFTER, Ran};
use super::stats::HopStats;
use super::taken::{Back, Read, Taken, frame_id};
use super::trouble::Trouble;
use super::turns::Turns;
use super::worker::left_run;
use crate::broker::Broker;
use crate::broker::publish::{Outgoing, PublishError};
use crate::broker::queue::Delivery;
use crate::chain::{Chain, Stage};
use crate::engine::task::{Failure, FailureKind, Task};
use crate::frame::{Headers, header};
use crate::name::Revision;
use crate::subject::{self, Lane};

/// How long a frame waits for its turn before it is left to other nodes, by way of the retry queue. One that comes from there
/// keeps its place, or it would go round for as long as all turns are taken.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// What the idempotency keys that nodes make start with.
const NODES_OWN: &str = "pcluster.";

/// A hop of a revision on this node.
pub struct Hop {
    /// The connection.
    pub broker: Broker,
    /// The chain.
    pub chain: Arc<Chain>,
    /// The revision.
    pub revision: Revision,
    /// The stage's place in the chain.
    pub position: usize,
    /// The stage's task.
    pub task: Task,
    /// Where outputs go.
    pub target: String,
    /// Whether outputs are results.
    pub is_last: bool,
    /// This node's name.
    pub node: String,
    /// Takes the stage's log lines.
    pub logs: Arc<StageLog>,
    /// Counts.
    pub stats: Arc<HopStats>,
    /// Where to tell what keeps it from going on.
    pub trouble: Arc<Trouble>,
}

impl Hop {
    /// The hop's stage.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.chain.stages[self.position]
    }

    /// Handles a frame to its end: acknowledges it, or gives it back. If dropped meanwhile, nothing of the frame is lost.
    pub async fn handle(
        self: Arc<Self>,
        delivery: Delivery,
        lane: Lane,
        turns: &Arc<Turns>,
        mut phase: watch::Receiver<Phase>,
    ) {
        let fed = (self.position == 0).then_some(self.chain.input);
        let taken = match Taken::read(&delivery, lane, fed) {
            Read::Frame(taken) => Arc::from(taken),
            Read::Wait(delay) => return delivery.acker.nak(delay).await,
            Read::Undecodable(reason, attempt) => return self.bury_undecodable(&delivery, attempt, &reason).await,
        };
        fault::point(Point::Taken, &taken);
        let _held = turns.hold(taken.len(), delivery.payload.len());
        let handled = self.handle_frame(&taken, turns, &mut phase).await;
        match handled {
            Ok(()) => {
                delivery.acker.ack().await;
                fault::point(Point::Acknowledged, &taken);
            }
            Err(refused) => {
                // Only what is too large for the server, at any time.
                let failure = Failure::fatal(FailureKind::Output, refused.to_string());
                self.bury(&taken, &failure, &delivery).await;
            }
        }
    }

    /// Handles a frame until it may be acknowledged.
    async fn handle_frame(
        self: &Arc<Self>,
        taken: &Arc<Taken>,
        turns: &Arc<Turns>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), PublishError> {
        if taken.deaths > 0 && self.is_settled(taken).await? {
            return Ok(());
        }
        let allowed = u64::from(self.stage().retry.attempts);
        if taken.attempt > allowed || taken.given_up.is_some() {
            return self.give_up(taken, allowed).await;
        }
        if taken.lane != Lane::Alone && taken.deaths >= deaths_in_company(allowed) {
            return self.put_back(taken, Lane::Alone, taken.attempt - 1).await;
        }
        if is_long(taken, turns) {
            return self.put_back(taken, taken.lane.back(), taken.attempt - 1).await;
        }
        let turn = tokio::select! {
            biased;
            turn = turns.take_frame() => turn,
            () = left_run(phase) => return self.put_back(taken, taken.lane.back(), taken.attempt - 1).await,
            () = tokio::time::sleep(TURN_PATIENCE), if taken.lane == Lane::Work => {
                return self.put_back(taken, Lane::Retry, taken.attempt - 1).await;
            }
        };
        let ran = run::run(self, taken, turns, turn, phase).await;
        fault::point(Point::Ran, taken);
        self.finish(taken, ran).await
    }

    /// Stores what a frame has left behind, and counts.
    async fn finish(&self, taken: &Taken, ran: Ran) -> Result<(), PublishError> {
        if taken.len() == 1
            && let [Ending { outputs: Err(failure), .. }] = ran.endings.as_slice()
        {
            return self.finish_failed(taken, failure).await;
        }
        let counted = self.commit(taken, ran).await?;
        self.stats.retried.fetch_add(counted.retried, Relaxed);
        self.stats.done.fetch_add(counted.done, Relaxed);
        Ok(())
    }

    /// Puts back the one item of a frame that has failed, or buries it.
    async fn finish_failed(&self, taken: &Taken, failure: &Failure) -> Result<(), PublishError> {
        if self.is_last_attempt(failure, taken.attempt) {
            let letter = self.letter_of(taken, 0, failure);
            self.store(&[letter]).await?;
            fault::point(Point::Stored, taken);
            self.count_failed(1);
            return Ok(());
        }
        tracing::debug!(stage = %self.stage().name, taken.attempt, reason = failure.reason, "an attempt failed");
        let history = self.history(taken, failure);
        let delay = Some(self.stage().retry.wait(to_u32(taken.attempt)));
        let back = Back { lane: Lane::Retry, failed: taken.attempt, delay, history: &history, given_up: None };
        self.store(&[self.put_back_message(taken, &[0], &back, 0)]).await?;
        fault::point(Point::Stored, taken);
        self.stats.retried.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Whether a run of the frame that ended without a word has stored what the frame leaves behind. Finishes what such a run
    /// has begun to store.
    async fn is_settled(&self, taken: &Taken) -> Result<bool, PublishError> {
        let key = self.message_id(taken.sequence, 0);
        let own = subject::retry(&self.chain.name, self.revision, &self.stage().name);
        if self.insist(|| self.broker.known(&own, &key)).await?.is_some() {
            return Ok(true);
        }
        if taken.len() == 1 {
            let dead = subject::dead(&self.chain.name, &self.stage().name);
            if self.insist(|| self.broker.known(&dead, &key)).await?.is_some() {
                return Ok(true);
            }
        }
        if self.insist(|| self.broker.known(&self.target, &key)).await?.is_none() {
            return Ok(false);
        }
        if self.is_last && taken.len() > 1 {
            self.finish_claimed(taken).await?;
        }
        Ok(true)
    }

    /// Puts a frame back of which nothing has run, in pieces if it is large. Its attempts are as many as before.
    async fn put_back(&self, taken: &Taken, lane: Lane, failed: u64) -> Result<(), PublishError> {
        let history = with_deaths(taken, failed);
        let messages = self.put_back_messages(taken, &taken.positions(), lane, failed, &history);
        self.store(&messages).await?;
        fault::point(Point::Stored, taken);
        Ok(())
    }

    /// Buries a frame that has no attempt left, or that another node has given up.
    async fn give_up(&self, taken: &Taken, allowed: u64) -> Result<(), PublishError> {
        let died = || {
            let reason = format!("the node died or was cut off in the last of {allowed} attempts");
            Failure::fatal(FailureKind::Node, reason)
        };
        let failure = taken.given_up.clone().unwrap_or_else(died);
        let letters: Vec<Outgoing> =
            (0..taken.len()).map(|position| self.letter_of(taken, position, &failure)).collect();
        self.store_each(&letters).await?;
        fault::point(Point::Stored, taken);
        self.count_failed(letters.len() as u64);
        Ok(())
    }

    /// Whether nothing is left but to bury an item.
    pub(super) fn is_last_attempt(&self, failure: &Failure, attempt: u64) -> bool {
        failure.fatal || attempt >= u64::from(self.stage().retry.attempts)
    }

    /// Says who finished an item.
    pub(super) fn sign(&self, headers: &mut Headers) {
        headers.push(header::VERSION, self.chain.version.as_str());
        headers.push(header::REVISION, self.revision.number().to_string());
        headers.push(header::NODE, self.node.as_str());
    }

    /// The key of the `number`th message that a frame leaves behind. The revision is part of it for the streams that outlive
    /// the work stream, the prefix for the feeders: their keys, which may look like `1.2.3`, are in the same stream.
    pub(super) fn message_id(&self, sequence: u64, number: usize) -> String {
        format!("{NODES_OWN}{}.{sequence}.{number}", self.revision.number())
    }

    /// The key of the `number`th message that was made of an item's outputs while it still ran: the same at each attempt.
    pub(super) fn carried_id(&self, taken: &Taken, number: usize) -> String {
        format!("{NODES_OWN}{}.{}.{}.carried.{number}", self.revision.number(), taken.origin, taken.part.get(0))
    }

    fn count_failed(&self, count: u64) {
        self.stats.failed.fetch_add(count, Relaxed);
        self.stats.done.fetch_add(count, Relaxed);
    }

    /// Gives up a whole frame.
    async fn bury(&self, taken: &Taken, failure: &Failure, delivery: &Delivery) {
        let letters: Vec<Outgoing> =
            (0..taken.len()).map(|position| self.letter_of(taken, position, failure)).collect();
        self.bury_letters(&letters, delivery).await;
    }

    /// Gives up a message that is no frame; the letter holds it as it came.
    async fn bury_undecodable(&self, delivery: &Delivery, attempt: u64, reason: &str) {
        let failure = Failure::fatal(FailureKind::Undecodable, reason);
        let all = delivery.headers();
        let mut headers = all.inherited();
        headers.push(header::ID, frame_id(delivery, self.position == 0).as_str());
        if let Some(text) = all.get(header::CONTENT_TYPE) {
            headers.push(header::CONTENT_TYPE, text);
        }
        let letter = self.letter(Letter {
            message_id: self.message_id(delivery.sequence, 0),
            headers,
            payload: delivery.payload.clone(),
            attempt,
            history: &[],
            failure: &failure,
        });
        self.bury_letters(&[letter], delivery).await;
    }

    async fn bury_letters(&self, letters: &[Outgoing], delivery: &Delivery) {
        match self.store_each(letters).await {
            Ok(()) => {
                delivery.acker.ack().await;
                self.count_failed(letters.len() as u64);
            }
            Err(error) => {
                tracing::error!(stage = %self.stage().name, %error, "a dead letter cannot be stored; the item stays in its queue");
                delivery.acker.nak(self.stage().retry.wait(u32::MAX)).await;
            }
        }
    }
}

/// After this many deaths of its nodes, an item runs with no other of its kind beside it, so that the next death is its own and
/// not counted against its neighbours.
const fn deaths_in_company(attempts: u64) -> u64 {
    if attempts > 3 { 2 } else { 1 }
}

/// Whether the frame is better shared with others before any of it runs: its items take long, or nobody knows.
fn is_long(taken: &Taken, turns: &Turns) -> bool {
    let items = taken.len();
    if items > FRAME_ITEMS {
        return true;
    }
    let rounds = (items as u64).div_ceil(turns.concurrency());
    rounds > 1 && turns.time().is_none_or(|time| time * to_u32(rounds) > LEAVE_AFTER)
}
