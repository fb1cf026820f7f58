//! What becomes of a frame: it is read, run, what it leaves behind is stored, and only then is it acknowledged.
//!
//! [`crate::node::frame::inbound`] reads it, `run` runs its items, `commit` packs what they leave behind, `settle`
//! stores that so that it counts once, `letter` writes the letters of what failed for good.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::BrokerError;
use crate::broker::publish::PublishError;
use crate::broker::queue::Delivery;
use crate::engine::failure::{Failure, FailureKind};
use crate::frame::header;
use crate::frame::outgoing::Outgoing;
use crate::node::commit::pack;
use crate::node::commit::requeue::LATER;
use crate::node::execute::Execution;
use crate::node::failpoint::Point;
use crate::node::frame::dead_letter;
use crate::node::frame::dead_letter::DeadLetter;
use crate::node::frame::inbound::{InboundFrame, Read, frame_id};
use crate::node::frame::plan::FRAME_ITEMS;
use crate::node::frame::source::Source;
use crate::node::hop::{self, Hop};
use crate::node::limited::parked;
use crate::node::phase::{Phase, interrupted, left_run};
use crate::node::suspicion::{Fate, Judged};
use crate::node::worker::demand::Shared;
use crate::node::worker::permits::ConcurrencyLimit;
use crate::node::{commit, executor, suspicion};
use crate::subject::Lane;

/// How long a frame waits for its turn before it is left to other nodes, by way of the retry queue. One that comes from there
/// keeps its place, or it would go round for as long as all turns are taken.
const PERMIT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a node that shall end at once tries to store what has run, before it gives the frame back as if nothing had. The
/// next queue may be full, but what is put back always has room.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// Makes the hop's consumers and the chain's line again, should they be gone. The stream may be another one then.
pub(crate) async fn mend(hop: &Hop) -> Result<(), BrokerError> {
    hop.line.check().await?;
    hop.broker.create_hop_consumers(&hop.route.chain, hop.stage(), hop.route.revision).await?;
    hop::read_key(&hop.broker, &hop.route).await
}

/// Handles a frame to its end: acknowledges it, or gives it back. If dropped meanwhile, nothing of the frame is lost.
/// `queue` is the lane by whose consumer it came.
pub async fn handle(
    hop: &Arc<Hop>,
    delivery: &Delivery,
    queue: Lane,
    limit: &Arc<ConcurrencyLimit>,
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
            return Box::pin(dead_letter_undecodable(hop, delivery, attempt, &reason)).await;
        }
    };
    inbound.reach(Point::Received);
    let judged = if inbound.is_suspect() {
        Box::pin(suspicion::judge(hop, &mut inbound, queue, delivery, &mut phase)).await
    } else {
        Ok(Judged::Known)
    };
    let inbound = Arc::from(inbound);
    let handled = match judged {
        Ok(Judged::Known) => handle_frame(hop, &inbound, limit, &mut phase).await,
        Ok(Judged::Open) => {
            Box::pin(commit::requeue(hop, &inbound, inbound.lane.requeue_lane(), inbound.attempt - 1, None)).await
        }
        Ok(Judged::Settled) => Ok(()),
        Err(refused) => Err(refused),
    };
    match handled {
        Ok(()) => {
            delivery.acker.ack().await;
            inbound.reach(Point::Acknowledged);
        }
        Err(refused) => {
            // Only what is too large for the server, at any time.
            let failure = Failure::fatal(FailureKind::Output, refused.to_string());
            Box::pin(bury(hop, &inbound, &failure, delivery)).await;
        }
    }
}

fn read(hop: &Hop, delivery: &Delivery, lane: Lane) -> Read {
    InboundFrame::read(delivery, lane, (hop.route.position == 0).then_some(hop.route.chain.input))
}

/// What becomes of a frame whose handling has panicked: each of its items has failed at this attempt. If dropped meanwhile,
/// nothing of the frame is lost. Returns `false` if it is no frame that can fail, or what it leaves behind cannot be stored.
pub(crate) async fn handle_panic(hop: &Hop, delivery: &Delivery, queue: Lane, message: &str) -> bool {
    let lane = Lane::of(delivery.subject()).unwrap_or(queue);
    let Read::Frame(inbound) = read(hop, delivery, lane) else { return false };
    let failure = Failure { fatal: false, ..Failure::fatal(FailureKind::Trap, message) };
    let failed = (0..inbound.len()).map(|position| (position, failure.clone())).collect();
    let memory = Arc::new(hop.task.budget().growing(0));
    let ran = Execution { given: Vec::new(), failed, left: Vec::new(), streamed: 0, memory };
    let is_stored = finish(hop, &inbound, ran).await.is_ok();
    if is_stored {
        delivery.acker.ack().await;
    }
    is_stored
}

/// What becomes of a frame that cannot even be put back: a letter holds it as it came.
pub(crate) async fn dead_letter_as_it_came(hop: &Hop, delivery: &Delivery, message: &str) {
    dead_letter_undecodable(hop, delivery, delivery.delivered, message).await;
}

/// Handles a frame until it may be acknowledged.
async fn handle_frame(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    limit: &Arc<ConcurrencyLimit>,
    phase: &mut watch::Receiver<Phase>,
) -> Result<(), PublishError> {
    // What is rare has its state apart, so that of the others is small.
    if let Some(failure) = &inbound.given_up {
        return Box::pin(commit::write_dead_letters(hop, inbound, failure)).await;
    }
    let allowed = u64::from(hop.stage().retry.attempts);
    let failed = inbound.attempt - 1;
    match suspicion::fate(hop, inbound) {
        Fate::Run => {}
        Fate::Quarantine => {
            return Box::pin(commit::requeue(hop, inbound, Lane::Quarantine, failed.min(allowed - 1), None)).await;
        }
        Fate::End => {
            let node = inbound.history.last().and_then(|attempt| attempt.node.as_ref());
            let node = node.map(|node| format!(" {node}")).unwrap_or_default();
            let reason = format!("the node{node} died or was cut off in the last of {allowed} attempts");
            return Box::pin(commit::give_up(hop, inbound, &Failure::fatal(FailureKind::Node, reason))).await;
        }
    }
    let quarantined = if hop.is_limited() && inbound.lane == Lane::Quarantine {
        match hop.quarantine.enter().await {
            None => return Box::pin(commit::requeue(hop, inbound, Lane::Quarantine, failed, Some(LATER))).await,
            entered => entered,
        }
    } else {
        None
    };
    if let Some(piece) = shared_first(hop, inbound) {
        return Box::pin(commit::requeue_shared(hop, inbound, piece, inbound.lane.requeue_lane(), failed, None)).await;
    }
    let permit = tokio::select! {
        biased;
        permit = limit.take_frame(inbound.len()) => permit,
        () = left_run(phase) => return Box::pin(commit::requeue(hop, inbound, inbound.lane.requeue_lane(), failed, None)).await,
        () = tokio::time::sleep(PERMIT_PATIENCE), if inbound.lane == Lane::Work && has_room_to_go_back(hop, inbound) => {
            return Box::pin(commit::requeue(hop, inbound, Lane::Retry, failed, None)).await;
        }
    };
    let ran = executor::run(hop, inbound, limit, permit, phase).await;
    drop(quarantined);
    inbound.reach(Point::Executed);
    tokio::select! {
        biased;
        finished = finish(hop, inbound, ran) => finished,
        () = interrupted(phase, STORE_PATIENCE) => {
            Box::pin(commit::requeue(hop, inbound, inbound.lane.requeue_lane(), failed, None)).await
        }
    }
}

/// Whether a frame leaves the room that it should for the headers of what is put back.
fn has_room_to_go_back(hop: &Hop, inbound: &InboundFrame) -> bool {
    inbound.sizes().iter().sum::<usize>() <= hop.broker.limits().max_item()
}

/// Into pieces of how many items a frame is cut for other nodes before any of it runs: its items take long, or nobody knows.
/// `None` if it runs as it is. One that was put back has been cut before; only what has run since can cut it further.
fn shared_first(hop: &Hop, inbound: &InboundFrame) -> Option<usize> {
    let items = inbound.len();
    if items <= FRAME_ITEMS && (hop.is_limited() || items == 1) {
        return None;
    }
    let Shared { piece, is_guess } = hop.limit.share(items, inbound.lane == Lane::Work);
    if is_guess {
        hop.limit.cut_unknown();
    } else {
        hop.limit.cut_known(items.div_ceil(piece));
    }
    (items > FRAME_ITEMS || piece < items).then_some(piece)
}

/// Stores what a frame has left behind, and counts.
async fn finish(hop: &Hop, inbound: &InboundFrame, ran: Execution) -> Result<(), PublishError> {
    let ends = |failure: &Failure| !failure.fatal && hop.route.is_last_attempt(failure, inbound.attempt);
    let reconsidered;
    let inbound = if inbound.is_suspect() && ran.failed.iter().any(|(_, failure)| ends(failure)) {
        reconsidered = Box::pin(suspicion::reconsidered(hop, inbound)).await;
        &reconsidered
    } else {
        inbound
    };
    let counted = pack::commit(hop, inbound, ran).await?;
    hop.stats.retried.fetch_add(counted.retried, Relaxed);
    hop.stats.done.fetch_add(counted.done, Relaxed);
    Ok(())
}

/// Gives up a whole frame.
async fn bury(hop: &Hop, inbound: &InboundFrame, failure: &Failure, delivery: &Delivery) {
    let letters: Vec<Vec<Outgoing>> =
        (0..inbound.len()).map(|position| dead_letter::dead_letter_of(hop, inbound, position, failure)).collect();
    dead_letter_all(hop, &letters, delivery).await;
}

/// Gives up a message that is no frame; the letter holds it as it came.
async fn dead_letter_undecodable(hop: &Hop, delivery: &Delivery, attempt: u64, reason: &str) {
    let failure = Failure::fatal(FailureKind::Undecodable, reason);
    let all = delivery.headers();
    let mut headers = all.inherited();
    headers.push(header::ID, frame_id(delivery, hop.route.position == 0).as_str());
    if let Some(text) = all.get(header::CONTENT_TYPE) {
        headers.push(header::CONTENT_TYPE, text);
    }
    let letter = dead_letter::letter(
        hop,
        DeadLetter {
            message_id: hop.route.message_id(delivery.sequence, 0),
            headers,
            payload: delivery.payload.clone(),
            attempt,
            history: &[],
            failure: &failure,
        },
    );
    dead_letter_all(hop, &[letter], delivery).await;
}

async fn dead_letter_all(hop: &Hop, letters: &[Vec<Outgoing>], delivery: &Delivery) {
    // A letter's stream is never full.
    let source = Source { sequence: delivery.sequence, held: &delivery.held, lane: Lane::Work };
    match commit::store_dead_letters(hop, source, letters).await {
        Ok(_) => {
            delivery.acker.ack().await;
            hop.count_failed(letters.len() as u64);
        }
        Err(error) => {
            tracing::error!(stage = %hop.stage().name, %error, "a dead letter cannot be stored; the item stays in its queue");
            delivery.acker.nak(hop.stage().retry.wait(u32::MAX)).await;
        }
    }
}
