//! What a frame leaves behind: outputs packed into messages, and the items that are put back. [`super::settle`] stores it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::letter::with_deaths;
use super::outcome::Hop;
use super::run::Ran;
use super::taken::{Back, Taken};
use crate::broker::publish::{Outgoing, PublishError};
use crate::dead::Attempt;
use crate::engine::output::{Given, Outputs, Slice};
use crate::engine::task::Failure;
use crate::frame::id::Index;
use crate::frame::{Headers, headers_of};
use crate::subject::Lane;

/// The most items of a message. Together with the outputs, one message for each of them fits an atomic batch.
pub(super) const FRAME_ITEMS: usize = 900;
/// The most bytes of a message that holds several items.
const FRAME_BYTES: usize = 512 << 10;
/// The most messages that are made of a frame: less than an atomic batch takes.
const MESSAGES: usize = 990;
/// How long an item waits that has made way for others.
const LATER: Duration = Duration::from_secs(1);
/// The part of a queue that the outputs of one frame may ask for at once. A batch goes in as a whole or not at all, and must
/// find that much room between all others who wait for some.
const QUEUE_PART: u64 = 4;

/// Items of a frame to be put back as one message.
pub(super) struct Group<'a> {
    pub(super) positions: Vec<usize>,
    pub(super) back: Back<'a>,
}

/// Outputs in messages.
pub(super) struct Packed {
    messages: Vec<Outgoing>,
    /// The items whose outputs these are.
    kept: Vec<usize>,
    /// Items with more outputs than the next queue can take at once.
    large: Vec<usize>,
}

impl Hop {
    /// Stores what the items of a frame have left behind that have run, and puts back the others.
    pub(super) async fn commit(&self, taken: &Taken, ran: Ran) -> Result<Counted, PublishError> {
        let Ran { given, failed, mut left, carried } = ran;
        let history = |(position, failure): (usize, Failure)| (position, self.history(taken, &failure), failure);
        let failed: Vec<_> = failed.into_iter().map(history).collect();
        let whole = failed.is_empty() && left.is_empty();
        let Packed { messages, kept, large } = self.pack(taken, given, carried, whole);
        left.extend(large);
        let outputs = self.stream(taken, messages, carried).await?;
        let mut open = vec![true; taken.len()];
        for position in kept.iter().chain(failed.iter().map(|(position, ..)| position)).chain(&left) {
            open[*position] = false;
        }
        let rest: Vec<usize> = (0..taken.len()).filter(|position| open[*position]).collect();
        let mut counted = Counted { done: kept.len() as u64, retried: 0 };
        let mut groups = Vec::new();
        for (position, history, failure) in &failed {
            tracing::debug!(stage = %self.stage().name, taken.attempt, reason = failure.reason, "an attempt failed");
            counted.retried += u64::from(!self.is_last_attempt(failure, taken.attempt));
            groups.push(Group { positions: vec![*position], back: self.back_of_failed(taken, history, failure) });
        }
        let history = with_deaths(taken, taken.attempt - 1);
        let back =
            Back { lane: taken.lane.back(), failed: taken.attempt - 1, delay: None, history: &history, given_up: None };
        // What was by itself already has made way for others.
        let delay = (taken.len() == 1).then_some(LATER);
        let apart = |position| Group { positions: vec![position], back: Back { delay, ..back } };
        groups.extend(left.into_iter().map(apart));
        groups.extend(self.groups(taken, &rest, back));
        self.settle(taken, outputs, &kept, &groups).await?;
        Ok(counted)
    }

    /// How an item goes back that has failed: to be tried again, or to be buried by whoever gets it.
    fn back_of_failed<'a>(&self, taken: &Taken, history: &'a [Attempt], failure: &'a Failure) -> Back<'a> {
        if self.is_last_attempt(failure, taken.attempt) {
            let failed = taken.attempt - 1;
            return Back { lane: Lane::Retry, failed, delay: None, history, given_up: Some(failure) };
        }
        let delay = Some(self.stage().retry.wait(to_u32(taken.attempt)));
        Back { lane: taken.lane.back(), failed: taken.attempt, delay, history, given_up: None }
    }

    /// Stores outputs of a single item that are more than the next queue takes at once, all but the last message, and names
    /// the others by the frame's key.
    async fn stream(
        &self,
        taken: &Taken,
        mut messages: Vec<Outgoing>,
        carried: usize,
    ) -> Result<Vec<Outgoing>, PublishError> {
        if messages.len() > self.batch_max() {
            let last = messages.split_off(messages.len() - 1);
            for (message, number) in messages.iter_mut().zip(carried..) {
                message.message_id = self.carried_id(taken, number);
            }
            self.store_each(&messages).await?;
            messages = last;
        }
        for (message, number) in messages.iter_mut().zip(0..) {
            message.message_id = self.message_id(taken.sequence, number);
        }
        Ok(messages)
    }

    /// The most messages of outputs that are stored as one.
    fn batch_max(&self) -> usize {
        if self.is_last {
            return MESSAGES;
        }
        let part = usize::try_from(self.chain.queue.limit / QUEUE_PART).unwrap_or(usize::MAX);
        part.clamp(1, MESSAGES)
    }

    /// How many items a part of a frame has that is left to others: as many as a node runs at once, but no more parts than a
    /// batch can hold.
    fn piece(&self, items: usize) -> usize {
        (self.stage().concurrency as usize).min(FRAME_ITEMS).max(items.div_ceil(FRAME_ITEMS))
    }

    /// Items in pieces that nodes can share, or each by itself if they shall run alone.
    pub(super) fn groups<'a>(&self, taken: &Taken, positions: &[usize], back: Back<'a>) -> Vec<Group<'a>> {
        let alone = back.lane == Lane::Alone && positions.len() <= FRAME_ITEMS;
        let size = if alone { 1 } else { self.piece(taken.len()) };
        positions.chunks(size).map(|piece| Group { positions: piece.to_vec(), back }).collect()
    }

    /// A message that puts items back.
    pub(super) fn put_back_message(&self, taken: &Taken, group: &Group<'_>, number: usize) -> Outgoing {
        let (headers, payload) = group.back.message(taken, &group.positions);
        let (chain, stage) = (&self.chain.name, &self.stage().name);
        Outgoing {
            subject: group.back.lane.put_back(chain, self.revision, stage, taken.sequence, number),
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
        let mut messages = self.pack(taken, vec![(0, outputs).into()], first, true).messages;
        for (message, number) in messages.iter_mut().zip(first..) {
            message.message_id = self.carried_id(taken, number);
        }
        messages
    }

    /// Packs outputs into messages, numbered from `first`. Of a frame of which something may have to be put back (not
    /// `whole`), or that gave very much, only those are packed for which a batch has room.
    fn pack(&self, taken: &Taken, mut given: Vec<Given>, first: usize, whole: bool) -> Packed {
        let bytes_max = FRAME_BYTES.min(self.broker.max_item() / 2);
        let mut done: Vec<(usize, Slice<'_>)> = given.iter().flat_map(Given::items).collect();
        done.sort_by_key(|(position, _)| *position);
        let (items, bytes) = done
            .iter()
            .fold((0, 0), |(items, bytes), (_, outputs)| (items + outputs.len(), bytes + outputs.payload().len()));
        let positions = || done.iter().map(|(position, _)| *position).collect();
        if items == 0 {
            return Packed { messages: Vec::new(), kept: positions(), large: Vec::new() };
        }
        if items == 1 || items <= FRAME_ITEMS && bytes <= bytes_max {
            let roots = done
                .iter()
                .flat_map(|(position, outputs)| std::iter::repeat_n(taken.frame.index.get(*position), outputs.len()));
            let index: Index = roots.collect();
            let kept = positions();
            let payload = if given.len() == 1 {
                // What ran one after the other is as the message holds it.
                given.remove(0).into_outputs().into_payload()
            } else {
                let mut payload = BytesMut::with_capacity(bytes);
                for (_, outputs) in &done {
                    payload.extend_from_slice(outputs.payload());
                }
                payload.freeze()
            };
            let message = self.output(taken, kept[0], first, &index, payload);
            return Packed { messages: vec![message], kept, large: Vec::new() };
        }
        let whole = whole && done.len() == taken.len();
        let room = match taken.len() {
            1 => usize::MAX,
            _ if whole => self.batch_max(),
            items => self.batch_max().min(MESSAGES - items.min(MESSAGES - 1)),
        };
        let (messages, roots, payload) = (Vec::new(), Vec::new(), BytesMut::new());
        let mut packing = Packing { hop: self, taken, kept: 0, first, bytes_max, messages, roots, payload };
        let (mut kept, mut large) = (Vec::with_capacity(done.len()), Vec::new());
        for (position, outputs) in done {
            if packing.len() + packing.needs(outputs) <= room {
                kept.push(position);
                packing.kept = kept[0];
                for item in outputs.items() {
                    packing.add(taken.frame.index.get(position), item);
                }
            } else if kept.is_empty() {
                large.push(position);
            }
        }
        packing.close();
        Packed { messages: packing.messages, kept, large }
    }

    /// One message of outputs of some of a frame's items, the first of which is this. Nobody else makes messages of that item,
    /// so no other message has the same id.
    fn output(&self, taken: &Taken, kept: usize, number: usize, index: &Index, payload: Bytes) -> Outgoing {
        let id = taken.frame.id.child(taken.part.get(kept), number);
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
    /// The first of the items whose outputs these are.
    kept: usize,
    first: usize,
    bytes_max: usize,
    messages: Vec<Outgoing>,
    roots: Vec<usize>,
    payload: BytesMut,
}

impl Packing<'_> {
    /// Messages so far, the open one included.
    fn len(&self) -> usize {
        self.messages.len() + usize::from(!self.roots.is_empty())
    }

    /// The most messages that these outputs add.
    fn needs(&self, outputs: Slice<'_>) -> usize {
        if self.roots.len() + outputs.len() <= FRAME_ITEMS
            && self.payload.len() + outputs.payload().len() <= self.bytes_max
        {
            return usize::from(self.roots.is_empty());
        }
        // Of two messages in a row, one is at least half full.
        outputs.len() / FRAME_ITEMS + 2 * outputs.payload().len() / self.bytes_max + 1
    }

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
        self.messages.push(self.hop.output(self.taken, self.kept, number, &index, payload));
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
