//! What becomes of a frame: it is read, run, what it leaves behind is stored, and only then is it acknowledged.
//!
//! [`super::taken`] reads it, `run` runs its items, `commit` packs what they leave behind, `settle`
//! stores that so that it counts once, `letter` writes the letters of what failed for good.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::backlog::Backlog;
use super::catalog::Phase;
use super::commit::LATER;
use super::demand::Shared;
use super::fault::{self, Point};
use super::guests;
use super::identity::Identity;
use super::inline::InlineStage;
use super::letter::Letter;
use super::logs::StageLog;
use super::moved::Moved;
use super::plan::FRAME_ITEMS;
use super::quarantine::Quarantine;
use super::roll_call::RollCall;
use super::run::Ran;
use super::stats::HopStats;
use super::suspicion::{Fate, Judged};
use super::taken::{Read, Taken, frame_id};
use super::trouble::Trouble;
use super::turns::Turns;
use super::waits::Behind;
use super::window::Window;
use super::work_key::WorkKey;
use super::worker::{interrupted, left_run};
use crate::broker::line::Line;
use crate::broker::publish::{Outgoing, PublishError};
use crate::broker::queue::Delivery;
use crate::broker::{Broker, BrokerError};
use crate::chain::{Chain, Stage};
use crate::engine::task::{Failure, FailureKind, Task};
use crate::frame::{Headers, header};
use crate::name::{Revision, StageName};
use crate::subject::Lane;

/// How long a frame waits for its turn before it is left to other nodes, by way of the retry queue. One that comes from there
/// keeps its place, or it would go round for as long as all turns are taken.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a node that shall end at once tries to store what has run, before it gives the frame back as if nothing had. The
/// next queue may be full, but what is put back always has room.
const STORE_PATIENCE: Duration = Duration::from_millis(500);
/// What the idempotency keys that nodes make start with.
const NODES_OWN: &str = "pcluster.";

/// A hop of a revision on this node.
pub struct Hop {
    /// The connection.
    pub broker: Broker,
    /// Over which the chain's messages come.
    pub line: Line,
    /// The chain.
    pub chain: Arc<Chain>,
    /// The revision.
    pub revision: Revision,
    /// The stage's place in the chain.
    pub position: usize,
    /// The stage's task.
    pub task: Task,
    /// The stages that run in the same hop, in order.
    pub inline: Vec<InlineStage>,
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
    /// What was put back.
    pub backlog: Backlog,
    /// What of it stands in the line of a limited stage.
    pub(super) moved: Moved,
    /// How far this machine's clock is behind the server's.
    pub(super) behind: Behind,
    /// How much of it runs at once on this node.
    pub turns: Arc<Turns>,
    /// How much it has on its way to the server at once.
    pub(super) window: Window,
    /// Keeps items of [`Lane::Alone`] apart, where they come by the same consumer as others.
    pub quarantine: Quarantine,
    /// Where to tell what keeps it from going on.
    pub trouble: Arc<Trouble>,
    /// The threads of the guests.
    pub guests: Handle,
    /// The part of the idempotency keys that belongs to the work stream and to no other.
    pub key: WorkKey,
    /// Which run of the node's program this is.
    pub incarnation: String,
    /// The registry that the revision was read from.
    pub(super) identity: Arc<Identity>,
    /// To ask which nodes answer.
    pub(super) roll_call: Arc<RollCall>,
}

impl Hop {
    /// The hop's stage, or the first of them.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.chain.stages[self.position]
    }

    /// Whether the stage limits what runs at once in the whole cluster.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.stage().max_in_flight.is_some()
    }

    /// Makes the hop's consumers and the chain's line again, should they be gone. The stream may be another one then.
    pub(super) async fn mend(&self) -> Result<(), BrokerError> {
        self.line.check().await?;
        self.broker.create_hop_consumers(&self.chain, self.stage(), self.revision).await?;
        self.key.renew(&self.broker, &self.chain.name).await
    }

    /// The stages with their counters.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&StageName, &Arc<HopStats>)> {
        let first = std::iter::once((&self.stage().name, &self.stats));
        first.chain(self.inline.iter().map(|stage| (&stage.name, &stage.stats)))
    }

    /// Handles a frame to its end: acknowledges it, or gives it back. If dropped meanwhile, nothing of the frame is lost.
    /// `queue` is the lane by whose consumer it came.
    pub async fn handle(
        self: Arc<Self>,
        delivery: &Delivery,
        queue: Lane,
        turns: &Arc<Turns>,
        mut phase: watch::Receiver<Phase>,
    ) {
        if queue == Lane::Parked {
            return Box::pin(self.unpark(delivery)).await;
        }
        let lane = Lane::of(delivery.subject()).unwrap_or(queue);
        let _quarantined = (self.is_limited() && lane == Lane::Alone).then(|| self.quarantine.hold());
        let mut taken = match self.read(delivery, lane) {
            Read::Frame(taken) => taken,
            Read::Undecodable(reason, attempt) => {
                return Box::pin(self.bury_undecodable(delivery, attempt, &reason)).await;
            }
        };
        fault::point(Point::Taken, &taken);
        let judged = if taken.is_suspect() {
            Box::pin(self.judge(&mut taken, queue, delivery, &mut phase)).await
        } else {
            Ok(Judged::Known)
        };
        let taken = Arc::from(taken);
        let handled = match judged {
            Ok(Judged::Known) => self.handle_frame(&taken, turns, &mut phase).await,
            Ok(Judged::Open) => Box::pin(self.put_back(&taken, taken.lane.back(), taken.attempt - 1, None)).await,
            Ok(Judged::Settled) => Ok(()),
            Err(refused) => Err(refused),
        };
        match handled {
            Ok(()) => {
                delivery.acker.ack().await;
                fault::point(Point::Acknowledged, &taken);
            }
            Err(refused) => {
                // Only what is too large for the server, at any time.
                let failure = Failure::fatal(FailureKind::Output, refused.to_string());
                Box::pin(self.bury(&taken, &failure, delivery)).await;
            }
        }
    }

    fn read(&self, delivery: &Delivery, lane: Lane) -> Read {
        Taken::read(delivery, lane, (self.position == 0).then_some(self.chain.input))
    }

    /// What becomes of a frame whose handling has panicked: each of its items has failed at this attempt. If dropped meanwhile,
    /// nothing of the frame is lost. Returns `false` if it is no frame that can fail, or what it leaves behind cannot be stored.
    pub(super) async fn handle_panic(&self, delivery: &Delivery, queue: Lane, message: &str) -> bool {
        let lane = Lane::of(delivery.subject()).unwrap_or(queue);
        let Read::Frame(taken) = self.read(delivery, lane) else { return false };
        let failure = Failure { fatal: false, ..Failure::fatal(FailureKind::Trap, message) };
        let failed = (0..taken.len()).map(|position| (position, failure.clone())).collect();
        let memory = Arc::new(self.task.budget().growing(0));
        let ran = Ran { given: Vec::new(), failed, left: Vec::new(), carried: 0, memory };
        let is_stored = self.finish(&taken, ran).await.is_ok();
        if is_stored {
            delivery.acker.ack().await;
        }
        is_stored
    }

    /// What becomes of a frame that cannot even be put back: a letter holds it as it came.
    pub(super) async fn bury_as_it_came(&self, delivery: &Delivery, message: &str) {
        self.bury_undecodable(delivery, delivery.delivered, message).await;
    }

    /// Handles a frame until it may be acknowledged.
    async fn handle_frame(
        self: &Arc<Self>,
        taken: &Arc<Taken>,
        turns: &Arc<Turns>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), PublishError> {
        // What is rare has its state apart, so that of the others is small.
        if let Some(failure) = &taken.given_up {
            return Box::pin(self.write_letters(taken, failure)).await;
        }
        let allowed = u64::from(self.stage().retry.attempts);
        let failed = taken.attempt - 1;
        match self.fate(taken) {
            Fate::Run => {}
            Fate::Quarantine => {
                return Box::pin(self.put_back(taken, Lane::Alone, failed.min(allowed - 1), None)).await;
            }
            Fate::End => {
                let node = taken.history.last().and_then(|attempt| attempt.node.as_ref());
                let node = node.map(|node| format!(" {node}")).unwrap_or_default();
                let reason = format!("the node{node} died or was cut off in the last of {allowed} attempts");
                return Box::pin(self.give_up(taken, &Failure::fatal(FailureKind::Node, reason))).await;
            }
        }
        let quarantined = if self.is_limited() && taken.lane == Lane::Alone {
            match self.quarantine.enter().await {
                None => return Box::pin(self.put_back(taken, Lane::Alone, failed, Some(LATER))).await,
                entered => entered,
            }
        } else {
            None
        };
        if let Some(piece) = self.shared_first(taken) {
            return Box::pin(self.put_back_shared(taken, piece, taken.lane.back(), failed, None)).await;
        }
        let turn = tokio::select! {
            biased;
            turn = turns.take_frame(taken.len()) => turn,
            () = left_run(phase) => return Box::pin(self.put_back(taken, taken.lane.back(), failed, None)).await,
            () = tokio::time::sleep(TURN_PATIENCE), if taken.lane == Lane::Work && self.has_room_to_go_back(taken) => {
                return Box::pin(self.put_back(taken, Lane::Retry, failed, None)).await;
            }
        };
        let ran = guests::run(self, taken, turns, turn, phase).await;
        drop(quarantined);
        fault::point(Point::Ran, taken);
        tokio::select! {
            biased;
            finished = self.finish(taken, ran) => finished,
            () = interrupted(phase, STORE_PATIENCE) => {
                Box::pin(self.put_back(taken, taken.lane.back(), failed, None)).await
            }
        }
    }

    /// Whether a frame leaves the room that it should for the headers of what is put back.
    fn has_room_to_go_back(&self, taken: &Taken) -> bool {
        taken.sizes().iter().sum::<usize>() <= self.broker.max_item()
    }

    /// Into pieces of how many items a frame is cut for other nodes before any of it runs: its items take long, or nobody knows.
    /// `None` if it runs as it is. One that was put back has been cut before; only what has run since can cut it further.
    fn shared_first(&self, taken: &Taken) -> Option<usize> {
        let items = taken.len();
        if items <= FRAME_ITEMS && (self.is_limited() || items == 1) {
            return None;
        }
        let Shared { piece, is_guess } = self.turns.share(items, taken.lane == Lane::Work);
        if is_guess {
            self.turns.cut_unknown();
        } else {
            self.turns.cut_known(items.div_ceil(piece));
        }
        (items > FRAME_ITEMS || piece < items).then_some(piece)
    }

    /// Stores what a frame has left behind, and counts.
    async fn finish(&self, taken: &Taken, ran: Ran) -> Result<(), PublishError> {
        let ends = |failure: &Failure| !failure.fatal && self.is_last_attempt(failure, taken.attempt);
        let reconsidered;
        let taken = if taken.is_suspect() && ran.failed.iter().any(|(_, failure)| ends(failure)) {
            reconsidered = Box::pin(self.reconsidered(taken)).await;
            &reconsidered
        } else {
            taken
        };
        let counted = self.commit(taken, ran).await?;
        self.stats.retried.fetch_add(counted.retried, Relaxed);
        self.stats.done.fetch_add(counted.done, Relaxed);
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
        format!("{NODES_OWN}{}{}.{sequence}.{number}", self.key.get(), self.revision.number())
    }

    /// The key of the `number`th message that was made of an item's outputs while it still ran: the same at each attempt.
    pub(super) fn carried_id(&self, taken: &Taken, number: usize) -> String {
        let (key, revision) = (self.key.get(), self.revision.number());
        format!("{NODES_OWN}{key}{revision}.{}.{}.carried.{number}", taken.origin, taken.part.get(0))
    }

    pub(super) fn count_failed(&self, count: u64) {
        self.stats.failed.fetch_add(count, Relaxed);
        self.stats.done.fetch_add(count, Relaxed);
    }

    /// Gives up a whole frame.
    async fn bury(&self, taken: &Taken, failure: &Failure, delivery: &Delivery) {
        let letters: Vec<Vec<Outgoing>> =
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

    async fn bury_letters(&self, letters: &[Vec<Outgoing>], delivery: &Delivery) {
        match self.store_letters(delivery.sequence, &delivery.held, letters).await {
            Ok(_) => {
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
