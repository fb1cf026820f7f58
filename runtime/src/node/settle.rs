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

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use super::fault::Point;
use super::hop::Hop;
use super::requeue::{self, Group};
use super::source::Source;
use super::taken::{Back, Taken};
use super::window::Load;
use super::{attempts, letter, store};
use crate::broker::publish::{Outgoing, PublishError, Published};
use crate::engine::failure::{Failure, FailureKind};
use crate::frame::id::Index;
use crate::frame::{Headers, header};
use crate::subject::{self, Lane};

/// Whether another run of the frame has stored what it leaves behind. Finishes what such a run has begun to store.
pub(super) async fn is_settled(hop: &Hop, taken: &Taken) -> Result<bool, PublishError> {
    let Some(sequence) = known(hop, taken).await? else { return Ok(false) };
    hop.stats.duplicates.fetch_add(1, Relaxed);
    if hop.is_last {
        follow(hop, taken, sequence).await?;
    }
    Ok(true)
}

/// Stores what a frame leaves behind: the outputs of the items `kept`, and those to be put back. Returns
/// [`Published::Duplicate`] if another run of the frame has decided: then that one counts its items.
pub(super) async fn settle(
    hop: &Hop,
    taken: &Taken,
    mut outputs: Vec<Outgoing>,
    kept: &[usize],
    back: &[Group<'_>],
) -> Result<Published, PublishError> {
    if hop.is_last {
        if !back.is_empty() {
            if outputs.is_empty() {
                outputs.push(note(hop, taken));
            }
            outputs[0].headers.push(header::COVERS, covers(kept));
        }
        if store::store(hop, taken.source(), &outputs).await? == Published::Duplicate {
            let known = known(hop, taken).await?;
            if let Some(sequence) = known {
                follow(hop, taken, sequence).await?;
            }
            return Ok(Published::Duplicate);
        }
        if !back.is_empty() {
            taken.passes(Point::Claimed);
        }
        outputs.clear();
    }
    let first = outputs.len();
    let (messages, too_large) = requeue::put_back_messages(hop, taken, back, first);
    end(hop, taken, &too_large).await?;
    outputs.extend(messages);
    let published = store::store(hop, taken.source(), &outputs).await?;
    count_put_back(hop, &outputs[first..]);
    taken.passes(Point::Stored);
    // What the last hop puts back, another may have put back already: the results have decided.
    Ok(if hop.is_last { Published::Stored } else { published })
}

/// Puts a frame back of which nothing has run, as it is. So many of its attempts have `failed`.
pub(super) async fn put_back(
    hop: &Hop,
    taken: &Taken,
    lane: Lane,
    failed: u64,
    delay: Option<Duration>,
) -> Result<(), PublishError> {
    put_back_shared(hop, taken, taken.len(), lane, failed, delay).await
}

/// The same in pieces of so many items.
pub(super) async fn put_back_shared(
    hop: &Hop,
    taken: &Taken,
    shared: usize,
    lane: Lane,
    failed: u64,
    delay: Option<Duration>,
) -> Result<(), PublishError> {
    let history = attempts::with_deaths(taken, failed);
    let back = Back { lane, failed, delay, history: &history, given_up: None };
    let groups = requeue::groups(hop, taken, &taken.positions(), shared, back);
    settle(hop, taken, Vec::new(), &[], &groups).await.map(drop)
}

/// Puts back a frame that is given up, so that whoever gets it writes its letters.
pub(super) async fn give_up(hop: &Hop, taken: &Taken, failure: &Failure) -> Result<(), PublishError> {
    let history = attempts::with_deaths(taken, taken.attempt - 1);
    let failed = taken.attempt - 1;
    let back = Back { lane: Lane::Retry, failed, delay: None, history: &history, given_up: Some(failure) };
    let groups = requeue::groups(hop, taken, &taken.positions(), taken.len(), back);
    settle(hop, taken, Vec::new(), &[], &groups).await.map(drop)
}

/// Writes the letters of a frame that was given up.
pub(super) async fn write_letters(hop: &Hop, taken: &Taken, failure: &Failure) -> Result<(), PublishError> {
    let letters: Vec<Vec<Outgoing>> =
        (0..taken.len()).map(|position| letter::letter_of(hop, taken, position, failure)).collect();
    let stored = store_letters(hop, taken.source(), &letters).await?;
    taken.passes(Point::Stored);
    // One that another run has written is counted there.
    hop.count_failed(stored);
    Ok(())
}

/// Writes the letters of items that are too large to be put back, before it is decided that this run's outcome counts: better
/// is a letter too many than an item that is lost with its node in between.
async fn end(hop: &Hop, taken: &Taken, groups: &[&Group<'_>]) -> Result<(), PublishError> {
    let mut letters = Vec::new();
    for group in groups {
        for &position in &group.positions {
            let size = taken.frame.items[position].len();
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
            letters.push(letter::letter_of(hop, taken, position, &failure));
        }
    }
    let stored = store_letters(hop, taken.source(), &letters).await?;
    hop.count_failed(stored);
    Ok(())
}

/// Stores letters side by side, each as a whole. Returns how many were not there before.
pub(super) async fn store_letters(
    hop: &Hop,
    source: Source<'_>,
    letters: &[Vec<Outgoing>],
) -> Result<u64, PublishError> {
    let stored = letters.iter().map(|letter| store::store(hop, source, letter));
    let stored = futures_util::future::try_join_all(stored).await?;
    Ok(stored.iter().filter(|published| **published == Published::Stored).count() as u64)
}

/// Where what the frame leaves behind is stored, if it is.
async fn known(hop: &Hop, taken: &Taken) -> Result<Option<u64>, PublishError> {
    let key = hop.message_id(taken.sequence, 0);
    store::insist(hop, Load::SMALL, || hop.broker.known(&hop.target, &key)).await
}

/// Puts back the items of a frame that its stored results do not cover.
async fn follow(hop: &Hop, taken: &Taken, sequence: u64) -> Result<(), PublishError> {
    let stream = subject::results_stream(&hop.chain.name);
    let ask = async || Ok(hop.broker.stored_headers(&stream, sequence).await?);
    let covered = match store::insist(hop, Load::SMALL, ask).await? {
        Some(headers) => match headers.get(header::COVERS) {
            // Results without the header are those of the whole frame.
            None => return Ok(()),
            Some(text) => Index::parse_list(text, taken.len()).ok(),
        },
        // The stream has dropped them already, as too many or too old. Nobody knows which items they were of.
        None => None,
    };
    let is_covered = |position: usize| covered.as_ref().is_some_and(|covered| covered.contains(position));
    let rest: Vec<usize> = (0..taken.len()).filter(|position| !is_covered(*position)).collect();
    let history = attempts::with_deaths(taken, taken.attempt - 1);
    let back =
        Back { lane: taken.lane.back(), failed: taken.attempt - 1, delay: None, history: &history, given_up: None };
    let groups = requeue::groups(hop, taken, &rest, taken.len(), back);
    let (messages, too_large) = requeue::put_back_messages(hop, taken, &groups, 0);
    end(hop, taken, &too_large).await?;
    store::store(hop, taken.source(), &messages).await?;
    count_put_back(hop, &messages);
    Ok(())
}

/// Counts what this node has put back.
fn count_put_back(hop: &Hop, messages: &[Outgoing]) {
    hop.backlog.put_back(messages.len());
    if hop.is_limited() {
        let in_line = messages.iter().filter(|message| Lane::of(&message.subject) != Some(Lane::Parked));
        hop.moved.add(in_line.count() as u64);
    }
}

/// The note that a frame has left no results.
fn note(hop: &Hop, taken: &Taken) -> Outgoing {
    let mut headers = Headers::new();
    headers.push(header::ID, taken.frame.id.as_str());
    // When the server has forgotten the key, nobody asks for the note either.
    headers.push(header::TTL, hop.chain.queue.duplicate_window.as_secs().max(1).to_string());
    Outgoing {
        subject: subject::notes(&hop.chain.name),
        message_id: hop.message_id(taken.sequence, 0),
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
