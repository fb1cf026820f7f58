//! What becomes of a frame: it is read, run, what it leaves behind is stored, and only then is it acknowledged.
//!
//! [`super::taken`] reads it, `run` runs its items, `commit` packs what they leave behind, `settle`
//! stores that so that it counts once, `letter` writes the letters of what failed for good.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::demand::Shared;
use super::fault::Point;
use super::hop::Hop;
use super::letter::{self, Letter};
use super::phase::{Phase, interrupted, left_run};
use super::plan::FRAME_ITEMS;
use super::requeue::LATER;
use super::run::Ran;
use super::source::Source;
use super::suspicion::{self, Fate, Judged};
use super::taken::{Read, Taken, frame_id};
use super::turns::Turns;
use super::{commit, guests, parked, settle};
use crate::broker::BrokerError;
use crate::broker::publish::{Outgoing, PublishError};
use crate::broker::queue::Delivery;
use crate::engine::failure::{Failure, FailureKind};
use crate::frame::header;
use crate::subject::Lane;

/// How long a frame waits for its turn before it is left to other nodes, by way of the retry queue. One that comes from there
/// keeps its place, or it would go round for as long as all turns are taken.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a node that shall end at once tries to store what has run, before it gives the frame back as if nothing had. The
/// next queue may be full, but what is put back always has room.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// Makes the hop's consumers and the chain's line again, should they be gone. The stream may be another one then.
pub(super) async fn mend(hop: &Hop) -> Result<(), BrokerError> {
    hop.line.check().await?;
    hop.broker.create_hop_consumers(&hop.chain, hop.stage(), hop.revision).await?;
    hop.key.renew(&hop.broker, &hop.chain.name).await
}

/// Handles a frame to its end: acknowledges it, or gives it back. If dropped meanwhile, nothing of the frame is lost.
/// `queue` is the lane by whose consumer it came.
pub async fn handle(
    hop: &Arc<Hop>,
    delivery: &Delivery,
    queue: Lane,
    turns: &Arc<Turns>,
    mut phase: watch::Receiver<Phase>,
) {
    if queue == Lane::Parked {
        return Box::pin(parked::unpark(hop, delivery)).await;
    }
    let lane = Lane::of(delivery.subject()).unwrap_or(queue);
    let _quarantined = (hop.is_limited() && lane == Lane::Quarantine).then(|| hop.quarantine.hold());
    let mut taken = match read(hop, delivery, lane) {
        Read::Frame(taken) => taken,
        Read::Undecodable(reason, attempt) => {
            return Box::pin(bury_undecodable(hop, delivery, attempt, &reason)).await;
        }
    };
    taken.passes(Point::Taken);
    let judged = if taken.is_suspect() {
        Box::pin(suspicion::judge(hop, &mut taken, queue, delivery, &mut phase)).await
    } else {
        Ok(Judged::Known)
    };
    let taken = Arc::from(taken);
    let handled = match judged {
        Ok(Judged::Known) => handle_frame(hop, &taken, turns, &mut phase).await,
        Ok(Judged::Open) => Box::pin(settle::put_back(hop, &taken, taken.lane.back(), taken.attempt - 1, None)).await,
        Ok(Judged::Settled) => Ok(()),
        Err(refused) => Err(refused),
    };
    match handled {
        Ok(()) => {
            delivery.acker.ack().await;
            taken.passes(Point::Acknowledged);
        }
        Err(refused) => {
            // Only what is too large for the server, at any time.
            let failure = Failure::fatal(FailureKind::Output, refused.to_string());
            Box::pin(bury(hop, &taken, &failure, delivery)).await;
        }
    }
}

fn read(hop: &Hop, delivery: &Delivery, lane: Lane) -> Read {
    Taken::read(delivery, lane, (hop.position == 0).then_some(hop.chain.input))
}

/// What becomes of a frame whose handling has panicked: each of its items has failed at this attempt. If dropped meanwhile,
/// nothing of the frame is lost. Returns `false` if it is no frame that can fail, or what it leaves behind cannot be stored.
pub(super) async fn handle_panic(hop: &Hop, delivery: &Delivery, queue: Lane, message: &str) -> bool {
    let lane = Lane::of(delivery.subject()).unwrap_or(queue);
    let Read::Frame(taken) = read(hop, delivery, lane) else { return false };
    let failure = Failure { fatal: false, ..Failure::fatal(FailureKind::Trap, message) };
    let failed = (0..taken.len()).map(|position| (position, failure.clone())).collect();
    let memory = Arc::new(hop.task.budget().growing(0));
    let ran = Ran { given: Vec::new(), failed, left: Vec::new(), streamed: 0, memory };
    let is_stored = finish(hop, &taken, ran).await.is_ok();
    if is_stored {
        delivery.acker.ack().await;
    }
    is_stored
}

/// What becomes of a frame that cannot even be put back: a letter holds it as it came.
pub(super) async fn bury_as_it_came(hop: &Hop, delivery: &Delivery, message: &str) {
    bury_undecodable(hop, delivery, delivery.delivered, message).await;
}

/// Handles a frame until it may be acknowledged.
async fn handle_frame(
    hop: &Arc<Hop>,
    taken: &Arc<Taken>,
    turns: &Arc<Turns>,
    phase: &mut watch::Receiver<Phase>,
) -> Result<(), PublishError> {
    // What is rare has its state apart, so that of the others is small.
    if let Some(failure) = &taken.given_up {
        return Box::pin(settle::write_letters(hop, taken, failure)).await;
    }
    let allowed = u64::from(hop.stage().retry.attempts);
    let failed = taken.attempt - 1;
    match suspicion::fate(hop, taken) {
        Fate::Run => {}
        Fate::Quarantine => {
            return Box::pin(settle::put_back(hop, taken, Lane::Quarantine, failed.min(allowed - 1), None)).await;
        }
        Fate::End => {
            let node = taken.history.last().and_then(|attempt| attempt.node.as_ref());
            let node = node.map(|node| format!(" {node}")).unwrap_or_default();
            let reason = format!("the node{node} died or was cut off in the last of {allowed} attempts");
            return Box::pin(settle::give_up(hop, taken, &Failure::fatal(FailureKind::Node, reason))).await;
        }
    }
    let quarantined = if hop.is_limited() && taken.lane == Lane::Quarantine {
        match hop.quarantine.enter().await {
            None => return Box::pin(settle::put_back(hop, taken, Lane::Quarantine, failed, Some(LATER))).await,
            entered => entered,
        }
    } else {
        None
    };
    if let Some(piece) = shared_first(hop, taken) {
        return Box::pin(settle::put_back_shared(hop, taken, piece, taken.lane.back(), failed, None)).await;
    }
    let turn = tokio::select! {
        biased;
        turn = turns.take_frame(taken.len()) => turn,
        () = left_run(phase) => return Box::pin(settle::put_back(hop, taken, taken.lane.back(), failed, None)).await,
        () = tokio::time::sleep(TURN_PATIENCE), if taken.lane == Lane::Work && has_room_to_go_back(hop, taken) => {
            return Box::pin(settle::put_back(hop, taken, Lane::Retry, failed, None)).await;
        }
    };
    let ran = guests::run(hop, taken, turns, turn, phase).await;
    drop(quarantined);
    taken.passes(Point::Ran);
    tokio::select! {
        biased;
        finished = finish(hop, taken, ran) => finished,
        () = interrupted(phase, STORE_PATIENCE) => {
            Box::pin(settle::put_back(hop, taken, taken.lane.back(), failed, None)).await
        }
    }
}

/// Whether a frame leaves the room that it should for the headers of what is put back.
fn has_room_to_go_back(hop: &Hop, taken: &Taken) -> bool {
    taken.sizes().iter().sum::<usize>() <= hop.broker.max_item()
}

/// Into pieces of how many items a frame is cut for other nodes before any of it runs: its items take long, or nobody knows.
/// `None` if it runs as it is. One that was put back has been cut before; only what has run since can cut it further.
fn shared_first(hop: &Hop, taken: &Taken) -> Option<usize> {
    let items = taken.len();
    if items <= FRAME_ITEMS && (hop.is_limited() || items == 1) {
        return None;
    }
    let Shared { piece, is_guess } = hop.turns.share(items, taken.lane == Lane::Work);
    if is_guess {
        hop.turns.cut_unknown();
    } else {
        hop.turns.cut_known(items.div_ceil(piece));
    }
    (items > FRAME_ITEMS || piece < items).then_some(piece)
}

/// Stores what a frame has left behind, and counts.
async fn finish(hop: &Hop, taken: &Taken, ran: Ran) -> Result<(), PublishError> {
    let ends = |failure: &Failure| !failure.fatal && hop.is_last_attempt(failure, taken.attempt);
    let reconsidered;
    let taken = if taken.is_suspect() && ran.failed.iter().any(|(_, failure)| ends(failure)) {
        reconsidered = Box::pin(suspicion::reconsidered(hop, taken)).await;
        &reconsidered
    } else {
        taken
    };
    let counted = commit::commit(hop, taken, ran).await?;
    hop.stats.retried.fetch_add(counted.retried, Relaxed);
    hop.stats.done.fetch_add(counted.done, Relaxed);
    Ok(())
}

/// Gives up a whole frame.
async fn bury(hop: &Hop, taken: &Taken, failure: &Failure, delivery: &Delivery) {
    let letters: Vec<Vec<Outgoing>> =
        (0..taken.len()).map(|position| letter::letter_of(hop, taken, position, failure)).collect();
    bury_letters(hop, &letters, delivery).await;
}

/// Gives up a message that is no frame; the letter holds it as it came.
async fn bury_undecodable(hop: &Hop, delivery: &Delivery, attempt: u64, reason: &str) {
    let failure = Failure::fatal(FailureKind::Undecodable, reason);
    let all = delivery.headers();
    let mut headers = all.inherited();
    headers.push(header::ID, frame_id(delivery, hop.position == 0).as_str());
    if let Some(text) = all.get(header::CONTENT_TYPE) {
        headers.push(header::CONTENT_TYPE, text);
    }
    let letter = letter::letter(
        hop,
        Letter {
            message_id: hop.message_id(delivery.sequence, 0),
            headers,
            payload: delivery.payload.clone(),
            attempt,
            history: &[],
            failure: &failure,
        },
    );
    bury_letters(hop, &[letter], delivery).await;
}

async fn bury_letters(hop: &Hop, letters: &[Vec<Outgoing>], delivery: &Delivery) {
    // A letter's stream is never full.
    let source = Source { sequence: delivery.sequence, held: &delivery.held, lane: Lane::Work };
    match settle::store_letters(hop, source, letters).await {
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
