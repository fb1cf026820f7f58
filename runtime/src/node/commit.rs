//! The exactly-once protocol: what becomes of a frame is decided once.
//!
//! A frame may run more than once, because its node died, was paused or was cut off, and each run may end differently. Every run
//! stores what the frame leaves behind under the same key, made of the frame's place in the stream. The server stores a key once.
//! So the first run to store that key decides, and the others learn that from the answer.
//!
//! Of several messages the last has the key. A server with one copy of a stream stores a batch message by message, and can refuse
//! the rest halfway: its disk is full, or the limit of the stream was lowered at that moment. Whoever finds the key finds all
//! messages before it.
//!
//! Before the last hop, outputs and requeued items are in one stream, so one message or one atomic batch holds all of them. Behind
//! the last hop, results are in another stream, and the key in that stream decides. The message with the key names the
//! items that the results cover, or is a note that there are none. Only then are the other items requeued. A run that finds the key
//! taken requeues what those results do not cover, under the same key, in case the first run died in between.
//!
//! Dead letters are in a third stream. So an item that failed for good is requeued too, as given up, and only the run of that
//! message writes the dead letter.

pub(crate) mod outbox;
pub(crate) mod receipt;
pub(crate) mod references;
#[cfg(test)]
mod tests;
pub(crate) mod topics;
pub(crate) mod window;

use std::time::Duration;

use bytes::Bytes;
use ulid::Ulid;

use crate::broker::publish::{PublishError, Published};
use crate::dead::Attempt;
use crate::frame::id::Index;
use crate::frame::large::has_references;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::node::failpoint::{self, Point};
use crate::node::frame::plan::{Plan, to_u32};
use crate::node::frame::requeue::{LATER, Requeue, RequeueTerms, requeue_messages, requeues};
use crate::node::frame::source::Source;
use crate::node::frame::{FrameContext, attempts, dead_letter};
use crate::node::route::Route;
use crate::run::failure::{Failure, FailureKind};
use crate::subject::{self, Lane};
use outbox::Outbox;
use references::Before;

/// The decision about one frame.
pub(crate) struct Commit<'a, O> {
    outbox: &'a O,
    frame: FrameContext<'a>,
}

/// What became of the items of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Items handled for good.
    pub(crate) done: u64,
    /// Items that failed and get another attempt.
    pub(crate) retried: u64,
}

impl<'a, O: Outbox> Commit<'a, O> {
    /// Creates the decision about a frame.
    pub(crate) fn new(outbox: &'a O, frame: FrameContext<'a>) -> Self {
        Self { outbox, frame }
    }

    /// Returns `true` if another run has decided. Finishes what that run has left undone.
    pub(crate) async fn is_settled(&self) -> Result<bool, PublishError> {
        let Some(sequence) = self.find().await? else { return Ok(false) };
        let FrameContext { inbound, route, .. } = self.frame;
        // That run may have stopped before it recorded who refers to large items.
        references::record_stored(self.outbox, (route, inbound.sequence), &route.target, sequence).await?;
        if route.is_last {
            self.follow(sequence).await?;
        }
        Ok(true)
    }

    /// Stores what a run leaves behind. `failures` are its failed items. Counts nothing if another run has decided.
    pub(crate) async fn run(
        &self,
        plan: Plan<Outgoing>,
        failures: impl IntoIterator<Item = (usize, Failure)>,
    ) -> Result<Committed, PublishError> {
        let Plan { streamed, outputs, kept, deferred, rest } = plan;
        let FrameContext { inbound, route, .. } = self.frame;
        if !streamed.is_empty() {
            Box::pin(store_each(self.outbox, self.frame, &streamed)).await?;
        }
        let mut committed = Committed { done: kept.len() as u64, retried: 0 };
        let history = |(position, failure): (usize, Failure)| {
            let history = attempts::history(self.frame, &failure);
            (position, history, failure)
        };
        let failed: Vec<_> = failures.into_iter().map(history).collect();
        let mut back = Vec::new();
        for (position, history, failure) in &failed {
            tracing::debug!(stage = %route.stage().name, inbound.attempt, reason = failure.reason, "an attempt failed");
            committed.retried += u64::from(!route.is_last_attempt(failure, inbound.attempt));
            let terms = self.terms_of_failed(history, failure);
            back.push(Requeue { positions: vec![*position], terms, failure: Some(failure) });
        }
        let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
        let terms = self.terms(&history);
        // An item that was alone in its frame was deferred because it must wait for others.
        let delay = (inbound.len() == 1).then_some(LATER);
        let apart =
            |position| Requeue { positions: vec![position], terms: RequeueTerms { delay, ..terms }, failure: None };
        back.extend(deferred.into_iter().map(apart));
        back.extend(rest.into_iter().map(|positions| Requeue { positions, terms, failure: None }));
        let published = self.settle(outputs, &kept, &back).await?;
        Ok(if published == Published::Duplicate { Committed::default() } else { committed })
    }

    /// Requeues a frame of which nothing has run, in pieces of this many items, after this many failed attempts.
    pub(crate) async fn requeue(
        &self,
        piece: usize,
        lane: Lane,
        failed: u64,
        delay: Option<Duration>,
    ) -> Result<(), PublishError> {
        let history = attempts::with_lost_attempts(self.frame.inbound, failed);
        self.requeue_all(piece, RequeueTerms { lane, failed, delay, history: &history, given_up: None }).await
    }

    /// Requeues a frame as given up. The next node writes its dead letters.
    pub(crate) async fn give_up(&self, failure: &Failure) -> Result<(), PublishError> {
        let inbound = self.frame.inbound;
        let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
        let terms = RequeueTerms { lane: Lane::Retry, given_up: Some(failure), ..self.terms(&history) };
        self.requeue_all(inbound.len(), terms).await
    }

    /// Writes the dead letters of a frame that was given up.
    pub(crate) async fn write_dead_letters(&self, failure: &Failure) -> Result<(), PublishError> {
        let FrameContext { inbound, route, .. } = self.frame;
        let letters: Vec<Vec<Outgoing>> =
            (0..inbound.len()).map(|position| dead_letter::dead_letter_of(self.frame, position, failure)).collect();
        store_dead_letters(self.outbox, route, inbound.source(), &letters).await?;
        failpoint::reach(Point::Stored, inbound);
        Ok(())
    }

    async fn requeue_all(&self, piece: usize, terms: RequeueTerms<'_>) -> Result<(), PublishError> {
        let back = requeues(self.frame, &self.frame.inbound.positions(), piece, terms);
        self.settle(Vec::new(), &[], &back).await.map(drop)
    }

    /// Stores the outputs of the items `kept`, and requeues those of `back`. Returns [`Published::Duplicate`] if another run has
    /// decided: that run counts its items.
    async fn settle(
        &self,
        mut outputs: Vec<Outgoing>,
        kept: &[usize],
        back: &[Requeue<'_>],
    ) -> Result<Published, PublishError> {
        let FrameContext { inbound, route, .. } = self.frame;
        if route.is_last {
            if outputs.is_empty() && !back.is_empty() {
                outputs.push(self.note());
            }
            if outputs.iter().any(|message| has_references(&message.headers)) {
                // Pullers remove such results once all have them. What decides must stay for other runs of the frame.
                outputs.push(self.note());
            }
            if let (Some(last), false) = (outputs.last_mut(), back.is_empty()) {
                last.headers.push(header::COVERS, covers(kept));
            }
            self.set_keys(&mut outputs);
            if self.store(&outputs).await? == Published::Duplicate {
                return Box::pin(self.follow_stored()).await;
            }
            if !back.is_empty() {
                failpoint::reach(Point::Claimed, inbound);
            }
            outputs.clear();
        }
        let published = self.store_with_requeued(outputs, back).await?;
        failpoint::reach(Point::Stored, inbound);
        // Another run may have requeued the same items behind the last hop. The results have decided.
        Ok(if route.is_last { Published::Stored } else { published })
    }

    /// Stores outputs and requeued items together.
    async fn store_with_requeued(
        &self,
        mut outputs: Vec<Outgoing>,
        back: &[Requeue<'_>],
    ) -> Result<Published, PublishError> {
        let first = outputs.len();
        let (messages, too_large) = requeue_messages(self.frame, back, first, self.outbox.parks());
        if !too_large.is_empty() {
            Box::pin(self.dead_letter_too_large(&too_large)).await?;
        }
        outputs.extend(messages);
        self.set_keys(&mut outputs);
        let published = self.store(&outputs).await?;
        self.outbox.requeued(&outputs[first..]);
        Ok(published)
    }

    /// Stores messages whose last has the key of the frame, and records who refers to large items.
    async fn store(&self, messages: &[Outgoing]) -> Result<Published, PublishError> {
        let FrameContext { inbound, route, .. } = self.frame;
        let receipt = self.outbox.store(inbound.source(), messages).await?;
        failpoint::reach(Point::Unrecorded, inbound);
        references::record(self.outbox, (route, inbound.sequence), messages, &receipt, true).await?;
        Ok(receipt.published)
    }

    /// Writes the dead letters of items that are too large to be requeued.
    ///
    /// That comes before the decision, so that no item is lost with its node in between. The price is a letter too many if another
    /// run decides.
    async fn dead_letter_too_large(&self, too_large: &[&Requeue<'_>]) -> Result<(), PublishError> {
        let FrameContext { inbound, route, limits } = self.frame;
        let mut letters = Vec::new();
        for requeue in too_large {
            for &position in &requeue.positions {
                let size = inbound.frame.items[position].len();
                let max = limits.max_payload;
                let no_room =
                    format!("the item of {size} bytes leaves too little of the server's {max} to be requeued");
                let failure = match (requeue.failure, requeue.terms.given_up) {
                    (Some(failure), Some(_)) => failure.clone(),
                    (Some(failure), None) => {
                        let reason = format!("{}; not tried again: {no_room}", failure.reason);
                        Failure { reason, ..failure.clone() }
                    }
                    (None, _) => Failure::fatal(FailureKind::Output, no_room),
                };
                letters.push(dead_letter::dead_letter_of(self.frame, position, &failure));
            }
        }
        store_dead_letters(self.outbox, route, inbound.source(), &letters).await
    }

    /// Gives messages that are stored together their keys. The last has the key that decides about the frame. No other commit has
    /// the keys of the others: what this one has stored without its decision is never taken for a part of another.
    fn set_keys(&self, messages: &mut [Outgoing]) {
        let FrameContext { inbound, route, .. } = self.frame;
        let Some((last, before)) = messages.split_last_mut() else { return };
        last.message_id = self.frame.key();
        if before.is_empty() {
            return;
        }
        let commit = Ulid::generate();
        if has_references(&last.headers) || before.iter().any(|message| has_references(&message.headers)) {
            last.headers.push(header::COMMIT, Before::new(commit, before.len()).to_header());
        }
        for (message, number) in before.iter_mut().zip(0..) {
            message.message_id = route.part_id(inbound.sequence, commit, number);
        }
    }

    /// Returns where the run that has decided stored the message with the key.
    async fn find(&self) -> Result<Option<u64>, PublishError> {
        self.outbox.find(&self.frame.route.target, &self.frame.key()).await
    }

    /// Follows another run that has decided.
    async fn follow_stored(&self) -> Result<Published, PublishError> {
        if let Some(sequence) = self.find().await? {
            self.follow(sequence).await?;
        }
        Ok(Published::Duplicate)
    }

    /// Requeues the items that the stored results of another run do not cover.
    async fn follow(&self, sequence: u64) -> Result<(), PublishError> {
        let inbound = self.frame.inbound;
        let covered = match self.outbox.result_headers(sequence).await? {
            Some(headers) => match headers.get(header::COVERS) {
                // Without the header, results cover the whole frame.
                None => return Ok(()),
                Some(text) => Index::parse_list(text, inbound.len()).ok(),
            },
            // The stream has dropped them as too many or too old. What they covered is unknown.
            None => None,
        };
        let is_covered = |position: usize| covered.as_ref().is_some_and(|covered| covered.contains(position));
        let rest: Vec<usize> = (0..inbound.len()).filter(|position| !is_covered(*position)).collect();
        let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
        let back = requeues(self.frame, &rest, inbound.len(), self.terms(&history));
        self.store_with_requeued(Vec::new(), &back).await.map(drop)
    }

    /// Returns the terms of items that have not run in this attempt.
    fn terms<'b>(&self, history: &'b [Attempt]) -> RequeueTerms<'b> {
        let inbound = self.frame.inbound;
        let (lane, failed) = (inbound.lane.requeue_lane(), inbound.attempt - 1);
        RequeueTerms { lane, failed, delay: None, history, given_up: None }
    }

    /// Returns the terms of an item that failed: another attempt, or none.
    fn terms_of_failed<'b>(&self, history: &'b [Attempt], failure: &'b Failure) -> RequeueTerms<'b> {
        let FrameContext { inbound, route, .. } = self.frame;
        if route.is_last_attempt(failure, inbound.attempt) {
            return RequeueTerms { lane: Lane::Retry, given_up: Some(failure), ..self.terms(history) };
        }
        let delay = failure.retry_after.or_else(|| Some(route.stage().retry.wait(to_u32(inbound.attempt))));
        RequeueTerms { failed: inbound.attempt, delay, ..self.terms(history) }
    }

    /// Makes the note that a frame has no results, or that they may be removed.
    fn note(&self) -> Outgoing {
        let FrameContext { inbound, route, .. } = self.frame;
        let mut headers = Headers::new();
        headers.push(header::ID, inbound.frame.id.as_str());
        // Once the server has forgotten the key, no run asks for the note.
        headers.push(header::TTL, route.chain.queue.duplicate_window.as_secs().max(1).to_string());
        Outgoing {
            subject: subject::notes(&route.chain.name),
            message_id: String::new(),
            headers,
            payload: Bytes::new(),
        }
    }
}

/// Stores messages side by side, each under a key of its own.
pub(crate) async fn store_each(
    outbox: &impl Outbox,
    frame: FrameContext<'_>,
    messages: &[Outgoing],
) -> Result<(), PublishError> {
    let FrameContext { inbound, route, .. } = frame;
    let storing = messages.iter().map(|one| store_recorded(outbox, route, inbound.source(), std::slice::from_ref(one)));
    futures_util::future::try_join_all(storing).await.map(drop)
}

/// Stores dead letters side by side, each as a whole. Letters that another run has stored count there.
pub(crate) async fn store_dead_letters(
    outbox: &impl Outbox,
    route: &Route,
    source: Source<'_>,
    letters: &[Vec<Outgoing>],
) -> Result<(), PublishError> {
    let storing = letters.iter().map(|letter| store_recorded(outbox, route, source, letter));
    let stored = futures_util::future::try_join_all(storing).await?;
    outbox.buried(stored.iter().filter(|published| **published == Published::Stored).count() as u64);
    Ok(())
}

/// Stores messages that do not decide about their frame, and records who refers to large items.
pub(crate) async fn store_recorded(
    outbox: &impl Outbox,
    route: &Route,
    source: Source<'_>,
    messages: &[Outgoing],
) -> Result<Published, PublishError> {
    let receipt = outbox.store(source, messages).await?;
    references::record(outbox, (route, source.sequence), messages, &receipt, false).await?;
    Ok(receipt.published)
}

/// Returns the header that names the items that results cover.
fn covers(kept: &[usize]) -> String {
    if kept.is_empty() {
        return header::COVERS_NONE.to_owned();
    }
    kept.iter().copied().collect::<Index>().to_string()
}
