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

use super::commit::Group;
use super::fault::{self, Point};
use super::letter::with_deaths;
use super::outcome::Hop;
use super::taken::{Back, Taken};
use super::window::Load;
use crate::broker::confirm::HeldSince;
use crate::broker::publish::{Outgoing, PublishError, Published};
use crate::engine::task::{Failure, FailureKind};
use crate::frame::id::Index;
use crate::frame::{Headers, header};
use crate::subject::{self, Lane};

impl Hop {
    /// Whether another run of the frame has stored what it leaves behind. Finishes what such a run has begun to store.
    pub(super) async fn is_settled(&self, taken: &Taken) -> Result<bool, PublishError> {
        let Some(sequence) = self.known(taken).await? else { return Ok(false) };
        self.stats.duplicates.fetch_add(1, Relaxed);
        if self.is_last {
            self.follow(taken, sequence).await?;
        }
        Ok(true)
    }

    /// Stores what a frame leaves behind: the outputs of the items `kept`, and those to be put back. Returns
    /// [`Published::Duplicate`] if another run of the frame has decided: then that one counts its items.
    pub(super) async fn settle(
        &self,
        taken: &Taken,
        mut outputs: Vec<Outgoing>,
        kept: &[usize],
        back: &[Group<'_>],
    ) -> Result<Published, PublishError> {
        if self.is_last {
            if !back.is_empty() {
                if outputs.is_empty() {
                    outputs.push(self.note(taken));
                }
                outputs[0].headers.push(header::COVERS, covers(kept));
            }
            if self.store(taken.sequence, &taken.held, &outputs).await? == Published::Duplicate {
                let known = self.known(taken).await?;
                if let Some(sequence) = known {
                    self.follow(taken, sequence).await?;
                }
                return Ok(Published::Duplicate);
            }
            if !back.is_empty() {
                fault::point(Point::Claimed, taken);
            }
            outputs.clear();
        }
        let first = outputs.len();
        let (messages, too_large) = self.put_back_messages(taken, back, first);
        self.end(taken, &too_large).await?;
        outputs.extend(messages);
        let published = self.store(taken.sequence, &taken.held, &outputs).await?;
        self.count_put_back(&outputs[first..]);
        fault::point(Point::Stored, taken);
        // What the last hop puts back, another may have put back already: the results have decided.
        Ok(if self.is_last { Published::Stored } else { published })
    }

    /// Puts a frame back of which nothing has run, as it is. So many of its attempts have `failed`.
    pub(super) async fn put_back(
        &self,
        taken: &Taken,
        lane: Lane,
        failed: u64,
        delay: Option<Duration>,
    ) -> Result<(), PublishError> {
        self.put_back_shared(taken, taken.len(), lane, failed, delay).await
    }

    /// The same in pieces of so many items.
    pub(super) async fn put_back_shared(
        &self,
        taken: &Taken,
        shared: usize,
        lane: Lane,
        failed: u64,
        delay: Option<Duration>,
    ) -> Result<(), PublishError> {
        let history = with_deaths(taken, failed);
        let back = Back { lane, failed, delay, history: &history, given_up: None };
        let groups = self.groups(taken, &taken.positions(), shared, back);
        self.settle(taken, Vec::new(), &[], &groups).await.map(drop)
    }

    /// Puts back a frame that is given up, so that whoever gets it writes its letters.
    pub(super) async fn give_up(&self, taken: &Taken, failure: &Failure) -> Result<(), PublishError> {
        let history = with_deaths(taken, taken.attempt - 1);
        let failed = taken.attempt - 1;
        let back = Back { lane: Lane::Retry, failed, delay: None, history: &history, given_up: Some(failure) };
        let groups = self.groups(taken, &taken.positions(), taken.len(), back);
        self.settle(taken, Vec::new(), &[], &groups).await.map(drop)
    }

    /// Writes the letters of a frame that was given up.
    pub(super) async fn write_letters(&self, taken: &Taken, failure: &Failure) -> Result<(), PublishError> {
        let letters: Vec<Vec<Outgoing>> =
            (0..taken.len()).map(|position| self.letter_of(taken, position, failure)).collect();
        let stored = self.store_letters(taken.sequence, &taken.held, &letters).await?;
        fault::point(Point::Stored, taken);
        // One that another run has written is counted there.
        self.count_failed(stored);
        Ok(())
    }

    /// Writes the letters of items that are too large to be put back, before it is decided that this run's outcome counts: better
    /// is a letter too many than an item that is lost with its node in between.
    async fn end(&self, taken: &Taken, groups: &[&Group<'_>]) -> Result<(), PublishError> {
        let mut letters = Vec::new();
        for group in groups {
            for &position in &group.positions {
                let size = taken.frame.items[position].len();
                let no_room = format!(
                    "the item of {size} bytes leaves too little of the server's {} to be put back",
                    self.broker.max_payload()
                );
                let failure = match (group.failure, group.back.given_up) {
                    (Some(failure), Some(_)) => failure.clone(),
                    (Some(failure), None) => {
                        let reason = format!("{}; not tried again: {no_room}", failure.reason);
                        Failure { reason, ..failure.clone() }
                    }
                    (None, _) => Failure::fatal(FailureKind::Output, no_room),
                };
                letters.push(self.letter_of(taken, position, &failure));
            }
        }
        let stored = self.store_letters(taken.sequence, &taken.held, &letters).await?;
        self.count_failed(stored);
        Ok(())
    }

    /// Stores letters side by side, each as a whole. Returns how many were not there before.
    pub(super) async fn store_letters(
        &self,
        sequence: u64,
        held: &HeldSince,
        letters: &[Vec<Outgoing>],
    ) -> Result<u64, PublishError> {
        let stored = letters.iter().map(|letter| self.store(sequence, held, letter));
        let stored = futures_util::future::try_join_all(stored).await?;
        Ok(stored.iter().filter(|published| **published == Published::Stored).count() as u64)
    }

    /// Where what the frame leaves behind is stored, if it is.
    async fn known(&self, taken: &Taken) -> Result<Option<u64>, PublishError> {
        let key = self.message_id(taken.sequence, 0);
        self.insist(Load::SMALL, || self.broker.known(&self.target, &key)).await
    }

    /// Puts back the items of a frame that its stored results do not cover.
    async fn follow(&self, taken: &Taken, sequence: u64) -> Result<(), PublishError> {
        let stream = subject::results_stream(&self.chain.name);
        let ask = async || Ok(self.broker.stored_headers(&stream, sequence).await?);
        let covered = match self.insist(Load::SMALL, ask).await? {
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
        let history = with_deaths(taken, taken.attempt - 1);
        let back =
            Back { lane: taken.lane.back(), failed: taken.attempt - 1, delay: None, history: &history, given_up: None };
        let groups = self.groups(taken, &rest, taken.len(), back);
        let (messages, too_large) = self.put_back_messages(taken, &groups, 0);
        self.end(taken, &too_large).await?;
        self.store(taken.sequence, &taken.held, &messages).await?;
        self.count_put_back(&messages);
        Ok(())
    }

    /// Counts what this node has put back.
    fn count_put_back(&self, messages: &[Outgoing]) {
        self.backlog.put_back(messages.len());
        if self.is_limited() {
            let in_line = messages.iter().filter(|message| Lane::of(&message.subject) != Some(Lane::Parked));
            self.moved.add(in_line.count() as u64);
        }
    }

    /// The note that a frame has left no results.
    fn note(&self, taken: &Taken) -> Outgoing {
        let mut headers = Headers::new();
        headers.push(header::ID, taken.frame.id.as_str());
        // When the server has forgotten the key, nobody asks for the note either.
        headers.push(header::TTL, self.chain.queue.duplicate_window.as_secs().max(1).to_string());
        Outgoing {
            subject: subject::notes(&self.chain.name),
            message_id: self.message_id(taken.sequence, 0),
            headers,
            payload: Bytes::new(),
        }
    }
}

fn covers(kept: &[usize]) -> String {
    if kept.is_empty() {
        return header::COVERS_NONE.to_owned();
    }
    kept.iter().copied().collect::<Index>().to_string()
}
