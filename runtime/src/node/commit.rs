//! Settling a frame: whatever becomes of it is decided once.
//!
//! A frame may be run more than once, because its node died, was paused or cut off, and each run may end in its own way. All
//! of them store what the frame leaves behind under one key, made of its place in the stream, and the server takes a key only
//! once. So the first run to store anything has decided, and the others find out by that.
//!
//! Before the last hop, what a frame leaves behind is in one stream: outputs and what is put back go there in one message or
//! one atomic batch. In the last hop results are in another stream. There, the key in the stream of the results decides: what
//! is stored first under it is the results with word of which items they are of, or a note that there are none, and only then
//! is the rest put back. Whoever finds the key taken puts back what those results do not cover, again under the same key, in
//! case that the one who was first died in between.
//!
//! Dead letters are in a third stream. So an item that failed for good is put back first as well, given up, and a letter is
//! written only for what comes from there.

pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod pack;
pub(crate) mod requeue;

pub(crate) mod window;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::publish::{PublishError, Published};
use crate::engine::failure::{Failure, FailureKind};
use crate::frame::id::Index;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::node::commit::requeue::Requeue;
use crate::node::commit::window::Load;
use crate::node::failpoint::Point;
use crate::node::frame::inbound::{InboundFrame, RequeueTerms};
use crate::node::frame::source::Source;
use crate::node::frame::{attempts, dead_letter};
use crate::node::hop::Hop;
use crate::subject;
use crate::subject::Lane;

/// Whether another run of the frame has stored what it leaves behind. Finishes what such a run has begun to store.
pub(crate) async fn is_settled(hop: &Hop, inbound: &InboundFrame) -> Result<bool, PublishError> {
    let Some(sequence) = known(hop, inbound).await? else { return Ok(false) };
    hop.stats.duplicates.fetch_add(1, Relaxed);
    if hop.route.is_last {
        follow(hop, inbound, sequence).await?;
    }
    Ok(true)
}

/// Stores what a frame leaves behind: the outputs of the items `kept`, and those to be put back. Returns
/// [`Published::Duplicate`] if another run of the frame has decided: then that one counts its items.
pub(crate) async fn settle(
    hop: &Hop,
    inbound: &InboundFrame,
    mut outputs: Vec<Outgoing>,
    kept: &[usize],
    back: &[Requeue<'_>],
) -> Result<Published, PublishError> {
    if hop.route.is_last {
        if !back.is_empty() {
            if outputs.is_empty() {
                outputs.push(note(hop, inbound));
            }
            outputs[0].headers.push(header::COVERS, covers(kept));
        }
        if outbox::store(hop, inbound.source(), &outputs).await? == Published::Duplicate {
            let known = known(hop, inbound).await?;
            if let Some(sequence) = known {
                follow(hop, inbound, sequence).await?;
            }
            return Ok(Published::Duplicate);
        }
        if !back.is_empty() {
            inbound.reach(Point::Claimed);
        }
        outputs.clear();
    }
    let first = outputs.len();
    let (messages, too_large) = requeue::requeue_messages(hop, inbound, back, first);
    end(hop, inbound, &too_large).await?;
    outputs.extend(messages);
    let published = outbox::store(hop, inbound.source(), &outputs).await?;
    count_requeued(hop, &outputs[first..]);
    inbound.reach(Point::Stored);
    // What the last hop puts back, another may have put back already: the results have decided.
    Ok(if hop.route.is_last { Published::Stored } else { published })
}

/// Puts a frame back of which nothing has run, as it is. So many of its attempts have `failed`.
pub(crate) async fn requeue(
    hop: &Hop,
    inbound: &InboundFrame,
    lane: Lane,
    failed: u64,
    delay: Option<Duration>,
) -> Result<(), PublishError> {
    requeue_shared(hop, inbound, inbound.len(), lane, failed, delay).await
}

/// The same in pieces of so many items.
pub(crate) async fn requeue_shared(
    hop: &Hop,
    inbound: &InboundFrame,
    shared: usize,
    lane: Lane,
    failed: u64,
    delay: Option<Duration>,
) -> Result<(), PublishError> {
    let history = attempts::with_lost_attempts(inbound, failed);
    let back = RequeueTerms { lane, failed, delay, history: &history, given_up: None };
    let groups = requeue::groups(hop, inbound, &inbound.positions(), shared, back);
    settle(hop, inbound, Vec::new(), &[], &groups).await.map(drop)
}

/// Puts back a frame that is given up, so that whoever gets it writes its letters.
pub(crate) async fn give_up(hop: &Hop, inbound: &InboundFrame, failure: &Failure) -> Result<(), PublishError> {
    let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
    let failed = inbound.attempt - 1;
    let back = RequeueTerms { lane: Lane::Retry, failed, delay: None, history: &history, given_up: Some(failure) };
    let groups = requeue::groups(hop, inbound, &inbound.positions(), inbound.len(), back);
    settle(hop, inbound, Vec::new(), &[], &groups).await.map(drop)
}

/// Writes the letters of a frame that was given up.
pub(crate) async fn write_dead_letters(
    hop: &Hop,
    inbound: &InboundFrame,
    failure: &Failure,
) -> Result<(), PublishError> {
    let letters: Vec<Vec<Outgoing>> =
        (0..inbound.len()).map(|position| dead_letter::dead_letter_of(hop, inbound, position, failure)).collect();
    let stored = store_dead_letters(hop, inbound.source(), &letters).await?;
    inbound.reach(Point::Stored);
    // One that another run has written is counted there.
    hop.count_failed(stored);
    Ok(())
}

/// Writes the letters of items that are too large to be put back, before it is decided that this run's outcome counts: better
/// is a letter too many than an item that is lost with its node in between.
async fn end(hop: &Hop, inbound: &InboundFrame, groups: &[&Requeue<'_>]) -> Result<(), PublishError> {
    let mut letters = Vec::new();
    for group in groups {
        for &position in &group.positions {
            let size = inbound.frame.items[position].len();
            let no_room = format!(
                "the item of {size} bytes leaves too little of the server's {} to be put back",
                hop.broker.max_payload()
            );
            let failure = match (group.failure, group.back.given_up) {
                (Some(failure), Some(_)) => failure.clone(),
                (Some(failure), None) => {
                    let reason = format!("{}; not tried again: {no_room}", failure.reason);
                    Failure { reason, ..failure.clone() }
                }
                (None, _) => Failure::fatal(FailureKind::Output, no_room),
            };
            letters.push(dead_letter::dead_letter_of(hop, inbound, position, &failure));
        }
    }
    let stored = store_dead_letters(hop, inbound.source(), &letters).await?;
    hop.count_failed(stored);
    Ok(())
}

/// Stores letters side by side, each as a whole. Returns how many were not there before.
pub(crate) async fn store_dead_letters(
    hop: &Hop,
    source: Source<'_>,
    letters: &[Vec<Outgoing>],
) -> Result<u64, PublishError> {
    let stored = letters.iter().map(|letter| outbox::store(hop, source, letter));
    let stored = futures_util::future::try_join_all(stored).await?;
    Ok(stored.iter().filter(|published| **published == Published::Stored).count() as u64)
}

/// Where what the frame leaves behind is stored, if it is.
async fn known(hop: &Hop, inbound: &InboundFrame) -> Result<Option<u64>, PublishError> {
    let key = hop.route.message_id(inbound.sequence, 0);
    outbox::retry_forever(hop, Load::SMALL, || hop.broker.known(&hop.route.target, &key)).await
}

/// Puts back the items of a frame that its stored results do not cover.
async fn follow(hop: &Hop, inbound: &InboundFrame, sequence: u64) -> Result<(), PublishError> {
    let stream = subject::results_stream(&hop.route.chain.name);
    let ask = async || Ok(hop.broker.stored_headers(&stream, sequence).await?);
    let covered = match outbox::retry_forever(hop, Load::SMALL, ask).await? {
        Some(headers) => match headers.get(header::COVERS) {
            // Results without the header are those of the whole frame.
            None => return Ok(()),
            Some(text) => Index::parse_list(text, inbound.len()).ok(),
        },
        // The stream has dropped them already, as too many or too old. Nobody knows which items they were of.
        None => None,
    };
    let is_covered = |position: usize| covered.as_ref().is_some_and(|covered| covered.contains(position));
    let rest: Vec<usize> = (0..inbound.len()).filter(|position| !is_covered(*position)).collect();
    let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
    let back = RequeueTerms {
        lane: inbound.lane.requeue_lane(),
        failed: inbound.attempt - 1,
        delay: None,
        history: &history,
        given_up: None,
    };
    let groups = requeue::groups(hop, inbound, &rest, inbound.len(), back);
    let (messages, too_large) = requeue::requeue_messages(hop, inbound, &groups, 0);
    end(hop, inbound, &too_large).await?;
    outbox::store(hop, inbound.source(), &messages).await?;
    count_requeued(hop, &messages);
    Ok(())
}

/// Counts what this node has put back.
fn count_requeued(hop: &Hop, messages: &[Outgoing]) {
    hop.backlog.requeue(messages.len());
    if hop.is_limited() {
        let in_line = messages.iter().filter(|message| Lane::of(&message.subject) != Some(Lane::Parked));
        hop.moved.add(in_line.count() as u64);
    }
}

/// The note that a frame has left no results.
fn note(hop: &Hop, inbound: &InboundFrame) -> Outgoing {
    let mut headers = Headers::new();
    headers.push(header::ID, inbound.frame.id.as_str());
    // When the server has forgotten the key, nobody asks for the note either.
    headers.push(header::TTL, hop.route.chain.queue.duplicate_window.as_secs().max(1).to_string());
    Outgoing {
        subject: subject::notes(&hop.route.chain.name),
        message_id: hop.route.message_id(inbound.sequence, 0),
        headers,
        payload: Bytes::new(),
    }
}

fn covers(kept: &[usize]) -> String {
    if kept.is_empty() {
        return header::COVERS_NONE.to_owned();
    }
    kept.iter().copied().collect::<Index>().to_string()
}
