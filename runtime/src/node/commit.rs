//! What a frame leaves behind, and in which order it is stored.
//!
//! Whatever becomes of a frame is stored under one key, made of its place in the stream: as one message, or as one atomic
//! batch whose first message has the key. So of several runs of the same frame, because a node died or was cut off, the first
//! that is stored counts as a whole, and no item is lost or goes on twice, even where the runs end differently.
//!
//! Results are in another stream than what is to be tried again. In the last hop the results come first and tell which items
//! they cover; whoever is handed the frame after that puts back the others.

use bytes::{Bytes, BytesMut};

use super::fault::{self, Point};
use super::letter::with_deaths;
use super::outcome::Hop;
use super::run::{Ending, Ran};
use super::taken::{Back, Taken};
use crate::broker::publish::{Outgoing, PublishError, Published};
use crate::dead::Attempt;
use crate::engine::output::Outputs;
use crate::engine::task::Failure;
use crate::frame::id::Index;
use crate::frame::{Headers, header, headers_of};
use crate::subject::Lane;

/// The most items of a message. Together with the outputs, one message for each of them fits an atomic batch.
pub(super) const FRAME_ITEMS: usize = 900;
/// The most bytes of a message that holds several items.
const FRAME_BYTES: usize = 512 << 10;
/// The most messages that are made of a frame: less than an atomic batch takes.
const MESSAGES: usize = 990;

/// Items of a frame to be put back as one message.
struct Group<'a> {
    positions: Vec<usize>,
    back: Back<'a>,
}

impl Hop {
    /// Stores what a frame leaves behind whose items have not all failed or been left.
    pub(super) async fn commit(&self, taken: &Taken, ran: Ran) -> Result<Counted, PublishError> {
        let Ran { endings, large, carried } = ran;
        let mut done = Vec::with_capacity(endings.len());
        let mut failed = Vec::new();
        for Ending { position, outputs } in endings {
            match outputs {
                Ok(outputs) => done.push((position, outputs)),
                Err(failure) => failed.push((position, self.history(taken, &failure), failure)),
            }
        }
        let (mut outputs, kept) = self.pack(taken, done, carried, failed.is_empty() && large.is_empty());
        for (number, message) in outputs.iter_mut().enumerate() {
            message.message_id = self.message_id(taken.sequence, number);
        }
        let mut open = vec![true; taken.len()];
        for position in kept.iter().chain(failed.iter().map(|(position, ..)| position)).chain(&large) {
            open[*position] = false;
        }
        let rest: Vec<usize> = (0..taken.len()).filter(|position| open[*position]).collect();
        let mut counted = Counted { done: kept.len() as u64, retried: 0 };
        let mut groups = Vec::new();
        for (position, history, failure) in &failed {
            let is_last = self.is_last_attempt(failure, taken.attempt);
            counted.retried += u64::from(!is_last);
            groups.push(Group { positions: vec![*position], back: self.back_of_failed(taken, history, failure) });
        }
        let history = with_deaths(taken, taken.attempt - 1);
        let failed_before = taken.attempt - 1;
        let alone = |position: usize| self.groups(taken, &[position], taken.lane.back(), failed_before, &history);
        groups.extend(large.into_iter().flat_map(alone));
        groups.extend(self.groups(taken, &rest, taken.lane.back(), failed_before, &history));
        self.store_parts(taken, outputs, &kept, &groups).await?;
        Ok(counted)
    }

    /// How an item goes back that has failed: to be tried again, or to be buried by whoever gets it.
    fn back_of_failed<'a>(&self, taken: &Taken, history: &'a [Attempt], failure: &'a Failure) -> Back<'a> {
        if self.is_last_attempt(failure, taken.attempt) {
            let failed = taken.attempt - 1;
            return Back { lane: Lane::Retry, failed, delay: None, history, given_up: Some(failure) };
        }
        let delay = Some(self.stage().retry.wait(to_u32(taken.attempt)));
        Back { lane: Lane::Retry, failed: taken.attempt, delay, history, given_up: None }
    }

    /// How many items a part of a frame has that is left to others: as many as a node runs at once, but no more parts than a
    /// batch can hold.
    fn piece(&self, items: usize) -> usize {
        (self.stage().concurrency as usize).min(FRAME_ITEMS).max(items.div_ceil(FRAME_ITEMS))
    }

    async fn store_parts(
        &self,
        taken: &Taken,
        mut outputs: Vec<Outgoing>,
        kept: &[usize],
        groups: &[Group<'_>],
    ) -> Result<(), PublishError> {
        if groups.is_empty() {
            self.store(&outputs).await?;
            fault::point(Point::Stored, taken);
            return Ok(());
        }
        if self.is_last && !outputs.is_empty() {
            let covers: Index = kept.iter().copied().collect();
            outputs[0].headers.push(header::COVERS, covers.to_string());
            if self.store(&outputs).await? == Published::Duplicate {
                // A run of the frame that was thought dead was quicker.
                return self.finish_claimed(taken).await;
            }
            fault::point(Point::Claimed, taken);
            outputs.clear();
        }
        let first = outputs.len();
        let back =
            |(group, number): (&Group<'_>, usize)| self.put_back_message(taken, &group.positions, &group.back, number);
        outputs.extend(groups.iter().zip(first..).map(back));
        self.store(&outputs).await?;
        fault::point(Point::Stored, taken);
        Ok(())
    }

    /// Puts back the items of a frame that its stored results do not cover.
    pub(super) async fn finish_claimed(&self, taken: &Taken) -> Result<(), PublishError> {
        let key = self.message_id(taken.sequence, 0);
        let Some(sequence) = self.insist(|| self.broker.known(&self.target, &key)).await? else { return Ok(()) };
        let stream = crate::subject::results_stream(&self.chain.name);
        let ask = async || Ok(self.broker.stored_headers(&stream, sequence).await?);
        let headers = self.insist(ask).await?;
        let covers = headers.as_ref().and_then(|headers| headers.get(header::COVERS));
        // Results without the header are those of the whole frame.
        let Some(covers) = covers.and_then(|text| Index::parse_list(text, taken.len()).ok()) else { return Ok(()) };
        let rest: Vec<usize> = (0..taken.len()).filter(|position| !covers.contains(*position)).collect();
        let messages = self.put_back_messages(taken, &rest, Lane::Retry, taken.attempt - 1, &taken.history);
        self.store(&messages).await.map(drop)
    }

    /// Items in pieces that nodes can share, or each by itself if they shall run alone.
    fn groups<'a>(
        &self,
        taken: &Taken,
        positions: &[usize],
        lane: Lane,
        failed: u64,
        history: &'a [Attempt],
    ) -> Vec<Group<'a>> {
        let alone = lane == Lane::Alone && positions.len() <= FRAME_ITEMS;
        let size = if alone { 1 } else { self.piece(taken.len()) };
        let back = || Back { lane, failed, delay: None, history, given_up: None };
        positions.chunks(size).map(|piece| Group { positions: piece.to_vec(), back: back() }).collect()
    }

    /// Messages that put back items of a frame.
    pub(super) fn put_back_messages(
        &self,
        taken: &Taken,
        positions: &[usize],
        lane: Lane,
        failed: u64,
        history: &[Attempt],
    ) -> Vec<Outgoing> {
        let groups = self.groups(taken, positions, lane, failed, history);
        let messages = groups.iter().zip(0..);
        messages.map(|(group, number)| self.put_back_message(taken, &group.positions, &group.back, number)).collect()
    }

    /// A message that puts items back.
    pub(super) fn put_back_message(
        &self,
        taken: &Taken,
        positions: &[usize],
        back: &Back<'_>,
        number: usize,
    ) -> Outgoing {
        let (headers, payload) = back.message(taken, positions);
        Outgoing {
            subject: back.lane.subject(&self.chain.name, self.revision, &self.stage().name),
            message_id: self.message_id(taken.sequence, number),
            headers,
            payload,
        }
    }

    /// Stores messages side by side, each under a key of its own.
    pub(super) async fn store_each(&self, messages: &[Outgoing]) -> Result<(), PublishError> {
        futures_util::future::try_join_all(messages.iter().map(|one| self.store(std::slice::from_ref(one)))).await?;
        Ok(())
    }

    /// Messages of a single item's outputs while it still runs; `first` were made before.
    pub(super) fn carried_messages(&self, taken: &Taken, outputs: Outputs, first: usize) -> Vec<Outgoing> {
        let mut messages = self.pack(taken, vec![(0, outputs)], first, true).0;
        for (message, number) in messages.iter_mut().zip(first..) {
            message.message_id = self.carried_id(taken, number);
        }
        messages
    }

    /// Packs outputs into messages, numbered from `first`. Says which items these are the outputs of: of a frame of which
    /// something may have to be put back (not `whole`), or that gave very much, only those for which a batch has room.
    pub(super) fn pack(
        &self,
        taken: &Taken,
        mut done: Vec<(usize, Outputs)>,
        first: usize,
        whole: bool,
    ) -> (Vec<Outgoing>, Vec<usize>) {
        let bytes_max = FRAME_BYTES.min(self.broker.max_item() / 2);
        let (items, bytes) =
            done.iter().fold((0, 0), |(items, bytes), (_, outputs)| (items + outputs.len(), bytes + outputs.bytes()));
        if items == 0 {
            return (Vec::new(), done.into_iter().map(|(position, _)| position).collect());
        }
        if items == 1 || items <= FRAME_ITEMS && bytes <= bytes_max {
            let roots = done
                .iter()
                .flat_map(|(position, outputs)| std::iter::repeat_n(taken.frame.index.get(*position), outputs.len()));
            let index: Index = roots.collect();
            let kept = done.iter().map(|(position, _)| *position).collect();
            let payload = if done.len() == 1 {
                done.remove(0).1.into_payload()
            } else {
                let mut payload = BytesMut::with_capacity(bytes);
                for (_, outputs) in &done {
                    payload.extend_from_slice(outputs.payload());
                }
                payload.freeze()
            };
            return (vec![self.output(taken, first, &index, payload)], kept);
        }
        let needs = |outputs: &Outputs| {
            // Of two messages in a row, one is at least half full.
            outputs.len() / FRAME_ITEMS + 2 * outputs.bytes() / bytes_max + 1
        };
        let whole = whole && done.len() == taken.len();
        let all: usize = done.iter().map(|(_, outputs)| needs(outputs)).sum();
        let room = if taken.len() == 1 || whole && all <= MESSAGES {
            usize::MAX
        } else {
            MESSAGES - taken.len().min(MESSAGES)
        };
        let (messages, roots, payload) = (Vec::new(), Vec::new(), BytesMut::new());
        let mut packing = Packing { hop: self, taken, first, bytes_max, messages, roots, payload };
        let mut kept = Vec::with_capacity(done.len());
        for (position, outputs) in done {
            if !kept.is_empty() && packing.messages.len() + 1 + needs(&outputs) > room {
                continue;
            }
            for item in outputs.items() {
                packing.add(taken.frame.index.get(position), item);
            }
            kept.push(position);
        }
        packing.close();
        (packing.messages, kept)
    }

    /// One message of outputs.
    fn output(&self, taken: &Taken, number: usize, index: &Index, payload: Bytes) -> Outgoing {
        let id = taken.frame.id.child(taken.part.get(0), number);
        let mut headers: Headers = headers_of(&id, index, &taken.frame.inherited);
        if self.is_last {
            self.sign(&mut headers);
        }
        Outgoing { subject: self.target.clone(), message_id: self.message_id(taken.sequence, number), headers, payload }
    }
}

/// Outputs on their way into messages.
struct Packing<'a> {
    hop: &'a Hop,
    taken: &'a Taken,
    first: usize,
    bytes_max: usize,
    messages: Vec<Outgoing>,
    roots: Vec<usize>,
    payload: BytesMut,
}

impl Packing<'_> {
    fn add(&mut self, root: usize, item: &[u8]) {
        if self.roots.len() == FRAME_ITEMS || !self.roots.is_empty() && self.payload.len() + item.len() > self.bytes_max
        {
            self.close();
        }
        self.roots.push(root);
        self.payload.extend_from_slice(item);
    }

    fn close(&mut self) {
        if self.roots.is_empty() {
            return;
        }
        let index: Index = self.roots.drain(..).collect();
        let payload = self.payload.split().freeze();
        let number = self.first + self.messages.len();
        self.messages.push(self.hop.output(self.taken, number, &index, payload));
    }
}

/// What became of a frame's items.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Handled for good.
    pub(super) done: u64,
    /// To be tried again after they failed.
    pub(super) retried: u64,
}

pub(super) fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
