//! The way of a frame through the node.
//!
//! A message is read ([`inbound`](super::frame::inbound)) and judged by its attempts ([`suspicion`],
//! [`admit`](super::frame::admit)). Its items run ([`execute`](super::execute)), what they leave behind is planned
//! ([`outputs`]) and stored ([`commit`](super::commit)), and only then is the message acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::broker::BrokerError;
use crate::broker::publish::PublishError;
use crate::broker::queue::Delivery;
use crate::broker::streams::ChainStreams;
use crate::frame::large::names_in;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::held::HeldSince;
use crate::node::commit::outbox::ServerOutbox;
use crate::node::commit::{Commit, store_dead_letters};
use crate::node::execute::Execution;
use crate::node::execute::running::Outcomes;
use crate::node::failpoint::{self, Point};
use crate::node::frame::admit::{Admission, admit, lost_in_last_attempt, runs_whole, split};
use crate::node::frame::attempts::log_entry;
use crate::node::frame::dead_letter::{Undecodable, dead_letter_of, dead_letter_of_undecodable};
use crate::node::frame::inbound::{InboundFrame, QueuedMessage, Read, frame_id};
use crate::node::frame::outputs;
use crate::node::frame::requeue::LATER;
use crate::node::frame::source::Source;
use crate::node::frame::steps;
use crate::node::hop::{self, Hop};
use crate::node::limited::parked;
use crate::node::phase::{Phase, interrupted, left_run};
use crate::node::suspicion::Judged;
use crate::node::worker::demand::Shared;
use crate::node::{executor, suspicion};
use crate::run::failure::{Failure, FailureKind};
use crate::slots::SlotSet;
use crate::subject::Lane;

/// How long a frame of the work lane waits for a permit before other nodes get it through the retry queue. A frame from there waits
/// on, or it would go round for as long as no permit is free.
const PERMIT_PATIENCE: Duration = Duration::from_secs(1);
/// How long an interrupted node tries to store what has run before it requeues the frame. The next queue may be full, but requeued
/// frames always have room.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

impl QueuedMessage for Delivery {
    fn header(&self, name: &str) -> Option<&str> {
        self.header(name)
    }

    fn message_id(&self) -> Option<&str> {
        self.server_header(header::MESSAGE_ID)
    }

    fn inherited(&self) -> Headers {
        self.inherited()
    }

    fn payload(&self) -> &Bytes {
        &self.payload
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn stored_millis(&self) -> u64 {
        self.stored_millis
    }

    fn held(&self) -> &Arc<HeldSince> {
        &self.held
    }
}

/// Makes the hop's consumers and the chain's line again, if they are gone. The stream may be a new one then.
pub(crate) async fn mend(hop: &Hop) -> Result<(), BrokerError> {
    hop.line.check().await?;
    ChainStreams::of(&hop.broker, &hop.route.chain.name)
        .create_hop_consumers(&hop.route.chain, hop.stage(), hop.route.revision)
        .await?;
    hop::read_key(&hop.broker, &hop.route).await
}

/// Handles a message to its end: acknowledges it or gives it back. Nothing is lost if this is dropped.
///
/// `queue` is the lane of the consumer that handed it out. `slots` are those that the node took for it.
pub(crate) async fn handle(
    hop: &Arc<Hop>,
    delivery: &Delivery,
    queue: Lane,
    slots: Option<SlotSet>,
    mut phase: watch::Receiver<Phase>,
) {
    if queue == Lane::Parked {
        return Box::pin(parked::unpark(hop, delivery)).await;
    }
    let lane = Lane::of(delivery.subject()).unwrap_or(queue);
    let _quarantined = (hop.is_limited() && lane == Lane::Quarantine).then(|| hop.quarantine.hold());
    let mut inbound = match read(hop, delivery, lane) {
        Read::Frame(inbound) => inbound,
        Read::Undecodable(reason, attempt) => {
            return Box::pin(dead_letter_as_it_came(hop, delivery, attempt, &reason)).await;
        }
    };
    failpoint::reach(Point::Received, &inbound);
    let judged = if inbound.is_suspect() {
        Box::pin(suspicion::judge(hop, &mut inbound, queue, delivery, &mut phase)).await
    } else {
        Ok(Judged::Known)
    };
    let inbound = Arc::from(inbound);
    let handled = match judged {
        Ok(Judged::Known) => handle_frame(hop, &inbound, slots, &mut phase).await,
        Ok(Judged::Open) => {
            Box::pin(requeue(hop, &inbound, inbound.lane.requeue_lane(), inbound.attempt - 1, None)).await
        }
        Ok(Judged::Settled) => Ok(()),
        Err(refused) => Err(refused),
    };
    match handled {
        Ok(()) => {
            acknowledge(hop, delivery, &inbound).await;
            failpoint::reach(Point::Acknowledged, &inbound);
        }
        Err(refused) => {
            // The server refuses for good only what is too large for it.
            let failure = Failure::fatal(FailureKind::Output, refused.to_string());
            Box::pin(dead_letter_frame(hop, &inbound, &failure, delivery)).await;
        }
    }
}

/// Acknowledges a frame, and takes back the records of its large items.
async fn acknowledge(hop: &Hop, delivery: &Delivery, inbound: &InboundFrame) {
    if inbound.frame.large.is_empty() && !hop.large.has_made() {
        return delivery.acker.ack().await;
    }
    let names: Vec<String> = inbound.frame.references().map(|(_, reference)| reference.name).collect();
    let was_lost = inbound.is_suspect() || inbound.cleared > 0;
    Box::pin(hop.large.acknowledge(delivery, &names, was_lost)).await;
}

/// Reads a message of this lane as the frame that it is.
pub(crate) fn read(hop: &Hop, delivery: &impl QueuedMessage, lane: Lane) -> Read {
    let mut read = InboundFrame::read(delivery, lane, (hop.route.position == 0).then_some(hop.route.chain.input));
    if let Read::Frame(inbound) = &mut read
        && hop.route.position == 0
        && lane == Lane::Work
    {
        inbound.stamp(hop.route.fed(delivery.sequence()));
    }
    if let Read::Frame(inbound) = &mut read
        && hop.route.chain.retention.records.are_on()
    {
        let (header, is_fed) = (delivery.header(header::STEPS), hop.route.position == 0 && lane == Lane::Work);
        inbound.steps = Some(Box::new(steps::arrived(header, inbound.len(), lane, is_fed, delivery.stored_millis())));
    }
    read
}

/// Fails the items of a frame whose handling has panicked. Nothing of the frame is lost if this is dropped.
///
/// Returns `false` if the message is no frame, or what it leaves behind cannot be stored.
pub(crate) async fn handle_panic(hop: &Hop, delivery: &Delivery, queue: Lane, message: &str) -> bool {
    let lane = Lane::of(delivery.subject()).unwrap_or(queue);
    let Read::Frame(inbound) = read(hop, delivery, lane) else { return false };
    let failure = Failure { fatal: false, ..Failure::fatal(FailureKind::Trap, message) };
    let failures = (0..inbound.len()).map(|position| (position, failure.clone())).collect();
    let (level, entry) = log_entry(hop.stage().retry.attempts, inbound.attempt, &failure);
    for position in 0..inbound.len() {
        hop.logs.log(&inbound.item_id(position), level, entry.clone());
    }
    let memory = Arc::new(hop.task.budget().growing(0));
    let ran = Execution { outcomes: Outcomes { failures, ..Outcomes::default() }, streamed: 0, memory };
    let is_stored = finish(hop, &inbound, ran).await.is_ok();
    if is_stored {
        acknowledge(hop, delivery, &inbound).await;
    }
    is_stored
}

/// Handles a frame until its message may be acknowledged.
async fn handle_frame(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    slots: Option<SlotSet>,
    phase: &mut watch::Receiver<Phase>,
) -> Result<(), PublishError> {
    let (attempts, failed) = (u64::from(hop.stage().retry.attempts), inbound.attempt - 1);
    // Rare cases are boxed, so that the state of the others stays small.
    match admit(inbound, attempts) {
        Admission::Run => {}
        Admission::DeadLetter => return Box::pin(write_dead_letters(hop, inbound)).await,
        Admission::Quarantine => {
            return Box::pin(requeue(hop, inbound, Lane::Quarantine, failed.min(attempts - 1), None)).await;
        }
        Admission::GiveUp => {
            let failure = lost_in_last_attempt(inbound, attempts);
            let outbox = ServerOutbox(hop);
            return Box::pin(Commit::new(&outbox, hop.frame(inbound)).give_up(&failure)).await;
        }
    }
    let quarantined = if hop.is_limited() && inbound.lane == Lane::Quarantine {
        match hop.quarantine.enter().await {
            None => return Box::pin(requeue(hop, inbound, Lane::Quarantine, failed, Some(LATER))).await,
            entered => entered,
        }
    } else {
        None
    };
    let back = inbound.lane.requeue_lane();
    if !hop.fitness.is_fit() {
        return Box::pin(requeue(hop, inbound, back, failed, None)).await;
    }
    if let Some(piece) = piece_for_others(hop, inbound) {
        // Nothing of it runs here now, and the server takes a moment to store the pieces.
        drop(slots);
        let outbox = ServerOutbox(hop);
        return Box::pin(Commit::new(&outbox, hop.frame(inbound)).requeue(piece, back, failed, None)).await;
    }
    let permit = tokio::select! {
        biased;
        permit = hop.limit.take_frame(inbound.len(), inbound.lane, slots) => permit,
        () = left_run(phase) => return Box::pin(requeue(hop, inbound, back, failed, None)).await,
        () = tokio::time::sleep(PERMIT_PATIENCE), if may_go_back(hop, inbound) => {
            let lane = if inbound.lane == Lane::Work { Lane::Retry } else { back };
            return Box::pin(requeue(hop, inbound, lane, failed, None)).await;
        }
    };
    let ran = executor::run(hop, inbound, permit, phase).await;
    drop(quarantined);
    failpoint::reach(Point::Executed, inbound);
    tokio::select! {
        biased;
        finished = finish(hop, inbound, ran) => finished,
        () = interrupted(phase, STORE_PATIENCE) => Box::pin(requeue(hop, inbound, back, failed, None)).await,
    }
}

/// Returns `true` if a frame that waits for a permit may go to other nodes.
///
/// A hop with slots asks for frames only while it has them, so what comes back does not come round again before there are some.
fn may_go_back(hop: &Hop, inbound: &InboundFrame) -> bool {
    let may = inbound.lane == Lane::Work || hop.limit.needs().is_some();
    // Requeued frames have headers that take room in a message.
    may && inbound.bytes() <= hop.broker.limits().max_item()
}

/// Returns the items of a piece if a frame must be cut for other nodes before any of it runs: its items take long, or it is not
/// known how long.
///
/// A requeued frame was cut before. Only what has run since can cut it further.
fn piece_for_others(hop: &Hop, inbound: &InboundFrame) -> Option<usize> {
    let items = inbound.len();
    if runs_whole(items, hop.is_limited()) {
        return None;
    }
    let Shared { piece, is_guess } = hop.limit.share(items, inbound.lane == Lane::Work);
    if is_guess {
        hop.limit.cut_unknown();
    } else {
        hop.limit.cut_known(items.div_ceil(piece));
    }
    split(items, piece)
}

/// Stores what a frame leaves behind, and counts its items.
async fn finish(hop: &Hop, inbound: &InboundFrame, ran: Execution) -> Result<(), PublishError> {
    let ends = |failure: &Failure| !failure.fatal && hop.route.is_last_attempt(failure, inbound.attempt);
    let reconsidered;
    let inbound = if inbound.is_suspect() && ran.outcomes.failures.values().any(ends) {
        reconsidered = Box::pin(suspicion::reconsidered(hop, inbound)).await;
        &reconsidered
    } else {
        inbound
    };
    let Execution { outcomes: Outcomes { outputs, failures, deferred, measured, .. }, streamed, memory } = ran;
    let last = hop.inline.last().map_or(&hop.task, |stage| &stage.task);
    let _held = (memory.hold_up(last.after()), memory);
    let frame = hop.frame(inbound);
    let plan = {
        let failed: Vec<usize> = failures.keys().copied().collect();
        let shared = hop.limit.share(inbound.len(), false).piece;
        let deferred = deferred.into_iter().collect();
        outputs::leavings(frame, outputs, &failed, deferred, streamed, shared, measured.as_ref())
    };
    hop.limit.cut_known(plan.rest.len());
    let storing = hop.large.storing(inbound);
    let committed = Commit::new(&ServerOutbox(hop), frame).run(plan, failures).await?;
    if let Some(storing) = storing {
        storing.done();
    }
    hop.counters.retried.fetch_add(committed.retried, Relaxed);
    hop.counters.done.fetch_add(committed.done, Relaxed);
    Ok(())
}

/// Requeues a frame of which nothing has run, as it is, after this many failed attempts.
async fn requeue(
    hop: &Hop,
    inbound: &InboundFrame,
    lane: Lane,
    failed: u64,
    delay: Option<Duration>,
) -> Result<(), PublishError> {
    Commit::new(&ServerOutbox(hop), hop.frame(inbound)).requeue(inbound.len(), lane, failed, delay).await
}

async fn write_dead_letters(hop: &Hop, inbound: &InboundFrame) -> Result<(), PublishError> {
    match &inbound.given_up {
        Some(failure) => Commit::new(&ServerOutbox(hop), hop.frame(inbound)).write_dead_letters(failure).await,
        None => Ok(()),
    }
}

/// Makes dead letters of all items of a frame.
async fn dead_letter_frame(hop: &Hop, inbound: &InboundFrame, failure: &Failure, delivery: &Delivery) {
    let frame = hop.frame(inbound);
    let letters: Vec<Vec<Outgoing>> =
        (0..inbound.len()).map(|position| dead_letter_of(frame, position, failure)).collect();
    store_letters(hop, &letters, delivery).await;
}

/// Makes a dead letter of a message that is no frame, or cannot even be requeued. The letter holds it as it came.
pub(crate) async fn dead_letter_as_it_came(hop: &Hop, delivery: &Delivery, attempt: u64, reason: &str) {
    let message = Undecodable {
        sequence: delivery.sequence,
        id: frame_id(delivery, hop.route.position == 0),
        headers: &delivery.headers(),
        payload: delivery.payload.clone(),
        attempt,
        reason,
    };
    let letter = dead_letter_of_undecodable(&hop.route, hop.broker.limits(), message);
    store_letters(hop, &[letter], delivery).await;
}

async fn store_letters(hop: &Hop, letters: &[Vec<Outgoing>], delivery: &Delivery) {
    let source = Source { sequence: delivery.sequence, held: &delivery.held, lane: Lane::Work };
    match store_dead_letters(&ServerOutbox(hop), &hop.route, source, letters).await {
        Ok(()) => {
            let names = names_in(&delivery.headers(), &delivery.payload);
            hop.large.acknowledge(delivery, &names, delivery.delivered > 1).await;
        }
        Err(error) => {
            tracing::error!(stage = %hop.stage().name, %error, "a dead letter cannot be stored; the item stays in its queue");
            delivery.acker.nak(hop.stage().retry.wait(u32::MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any<T>() -> T {
        unreachable!("only its size is asked for")
    }

    fn size_of_result<T>(_: impl FnOnce() -> T) -> usize {
        size_of::<T>()
    }

    /// Each message moves this state once or twice: with 1.7 KiB more, a message of one item took 20 % more processor time.
    #[test]
    fn the_state_of_a_message_stays_small() {
        let size = size_of_result(|| handle(any(), any(), any(), any(), any()));
        assert!(size <= 5_632, "{size} bytes; box what few messages need");
    }
}
