//! Makes the messages that a frame leaves behind, as [`super::plan`] says: outputs, and the items that are put back.
//! [`super::settle`] stores them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::letter::with_deaths;
use super::outcome::Hop;
use super::plan::{Bounds, FRAME_ITEMS, Piece, Plan, Share};
use super::run::Ran;
use super::taken::{Back, Taken};
use crate::broker::confirm::HeldSince;
use crate::broker::publish::{BATCH_MAX, Outgoing, PublishError, Published};
use crate::dead::Attempt;
use crate::engine::output::{Given, Outputs, Slice};
use crate::engine::task::Failure;
use crate::frame::id::Index;
use crate::frame::{Headers, header, headers_of};
use crate::subject::Lane;

/// The most bytes of a message that holds several items.
const FRAME_BYTES: usize = 512 << 10;
/// How long an item waits that has made way for others.
pub(super) const LATER: Duration = Duration::from_secs(1);
/// The part of a queue that the outputs of one frame may ask for at once. A batch goes in as a whole or not at all, and must
/// find that much room between all others who wait for some.
const QUEUE_PART: u64 = 4;

/// Items of a frame to be put back as one message.
pub(super) struct Group<'a> {
    pub(super) positions: Vec<usize>,
    pub(super) back: Back<'a>,
    /// Why they are put back, if they have failed.
    pub(super) failure: Option<&'a Failure>,
}

impl Hop {
    /// Stores what the items of a frame have left behind that have run, and puts back the others.
    pub(super) async fn commit(&self, taken: &Taken, ran: Ran) -> Result<Counted, PublishError> {
        let Ran { given, failed, left, carried, memory } = ran;
        let last = self.inline.last().map_or(&self.task, |stage| &stage.task);
        let _held = (memory.hold_up(last.after()), memory);
        let history = |(position, failure): (usize, Failure)| (position, self.history(taken, &failure), failure);
        let failed: Vec<_> = failed.into_iter().map(history).collect();
        let Leavings { streamed, outputs, kept, deferred, rest } = {
            let failed: Vec<usize> = failed.iter().map(|(position, ..)| *position).collect();
            self.leavings(taken, given, &failed, left, carried)
        };
        self.store_each(taken.sequence, &taken.held, &streamed).await?;
        let mut counted = Counted { done: kept.len() as u64, retried: 0 };
        let mut groups = Vec::new();
        for (position, history, failure) in &failed {
            tracing::debug!(stage = %self.stage().name, taken.attempt, reason = failure.reason, "an attempt failed");
            counted.retried += u64::from(!self.is_last_attempt(failure, taken.attempt));
            let back = self.back_of_failed(taken, history, failure);
            groups.push(Group { positions: vec![*position], back, failure: Some(failure) });
        }
        let history = with_deaths(taken, taken.attempt - 1);
        let back =
            Back { lane: taken.lane.back(), failed: taken.attempt - 1, delay: None, history: &history, given_up: None };
        // What was by itself already has made way for others.
        let delay = (taken.len() == 1).then_some(LATER);
        let apart = |position| Group { positions: vec![position], back: Back { delay, ..back }, failure: None };
        groups.extend(deferred.into_iter().map(apart));
        groups.extend(rest.into_iter().map(|positions| Group { positions, back, failure: None }));
        if self.settle(taken, outputs, &kept, &groups).await? == Published::Duplicate {
            counted = Counted { done: 0, retried: 0 };
        }
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

    /// What the messages of a frame's plan may be.
    fn bounds(&self, taken: &Taken, lane: Lane) -> Bounds {
        let queue_part = usize::try_from(self.chain.queue.limit / QUEUE_PART).unwrap_or(usize::MAX);
        Bounds {
            batch: BATCH_MAX,
            outputs: if self.is_last { BATCH_MAX } else { queue_part.clamp(1, BATCH_MAX) },
            items: FRAME_ITEMS,
            bytes: FRAME_BYTES.min(self.broker.max_item() / 2),
            piece: self.piece(taken, lane, self.turns.share(taken.len(), false).piece),
        }
    }

    /// What of a frame is left to others in one message: so many items as `shared`, or one item if each shall run alone. Where
    /// messages are counted, it is as many items as a node runs at once.
    fn piece(&self, taken: &Taken, lane: Lane, shared: usize) -> Piece {
        let items = match lane {
            Lane::Alone => 1,
            _ if self.is_limited() => self.stage().concurrency as usize,
            _ => shared,
        };
        // What a feeder has put into the headers takes room too.
        let headers: usize = taken.frame.inherited.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        Piece::new(items, taken.len(), self.broker.max_item().saturating_sub(headers))
    }

    /// Items in messages of so many, or each by itself if they shall run alone.
    pub(super) fn groups<'a>(
        &self,
        taken: &Taken,
        positions: &[usize],
        shared: usize,
        back: Back<'a>,
    ) -> Vec<Group<'a>> {
        let pieces = self.piece(taken, back.lane, shared).cut(positions, &taken.sizes());
        pieces.into_iter().map(|positions| Group { positions, back, failure: back.given_up }).collect()
    }

    /// The messages that put items back, numbered from the first; and those groups of which no message can be that the server
    /// takes, so large is an item.
    pub(super) fn put_back_messages<'a, 'b>(
        &self,
        taken: &Taken,
        groups: &'a [Group<'b>],
        first: usize,
    ) -> (Vec<Outgoing>, Vec<&'a Group<'b>>) {
        let (mut messages, mut too_large) = (Vec::with_capacity(groups.len()), Vec::new());
        for group in groups {
            let mut message = self.put_back_message(taken, group, first + messages.len());
            if !self.broker.fits_a_batch(&message) {
                // The item comes first, then the reason of its last failure.
                message.headers = message.headers.without(&[header::HISTORY, header::BACKTRACE]);
            }
            if self.broker.fits_a_batch(&message) {
                messages.push(message);
            } else {
                too_large.push(group);
            }
        }
        (messages, too_large)
    }

    /// A message that puts items back.
    fn put_back_message(&self, taken: &Taken, group: &Group<'_>, number: usize) -> Outgoing {
        let (headers, payload) = group.back.message(taken, &group.positions, self.broker.max_item());
        let (chain, stage) = (&self.chain.name, &self.stage().name);
        Outgoing {
            subject: if self.is_parked(&group.back) {
                group.back.lane.park(chain, self.revision, stage, taken.sequence, number)
            } else {
                group.back.lane.put_back(chain, self.revision, stage, taken.sequence, number)
            },
            message_id: self.message_id(taken.sequence, number),
            headers,
            payload,
        }
    }

    /// Whether what is put back waits where it holds none of the stage's places. It does not while very much waits there: then
    /// it is better that no more is taken.
    fn is_parked(&self, back: &Back<'_>) -> bool {
        self.is_limited() && back.delay.is_some() && self.backlog.room() > 0
    }

    /// Stores messages side by side, each under a key of its own. See [`Hop::store`].
    pub(super) async fn store_each(
        &self,
        sequence: u64,
        held: &HeldSince,
        messages: &[Outgoing],
    ) -> Result<(), PublishError> {
        let stored = messages.iter().map(|one| self.store(sequence, held, std::slice::from_ref(one)));
        futures_util::future::try_join_all(stored).await?;
        Ok(())
    }

    /// Messages of a single item's outputs while it still runs; `first` were made before.
    pub(super) fn carried_messages(&self, taken: &Taken, outputs: Outputs, first: usize) -> Vec<Outgoing> {
        let Leavings { mut streamed, outputs, .. } =
            self.leavings(taken, vec![(0, outputs).into()], &[], Vec::new(), first);
        streamed.extend(outputs);
        for (message, number) in streamed.iter_mut().zip(first..) {
            message.message_id = self.carried_id(taken, number);
        }
        streamed
    }

    /// Plans what a frame leaves behind, and makes the messages of its outputs. `first` messages of outputs were made before.
    fn leavings(
        &self,
        taken: &Taken,
        mut given: Vec<Given>,
        failed: &[usize],
        deferred: Vec<usize>,
        first: usize,
    ) -> Leavings {
        let mut done: Vec<(usize, Slice<'_>)> = given.iter().flat_map(Given::items).collect();
        done.sort_by_key(|(position, _)| *position);
        let bounds = self.bounds(taken, taken.lane.back());
        let Plan { streamed, outputs, kept, deferred, rest } =
            Plan::new(&taken.sizes(), &done, failed, deferred, &bounds);
        self.turns.cut_known(rest.len());
        let is_whole = given.len() == 1 && streamed.is_empty() && outputs.len() == 1 && kept.len() == done.len();
        let messages: Vec<(Index, Bytes)> = if is_whole {
            let index = index_of(taken, &outputs[0]);
            drop(done);
            // What ran one after the other is as the message holds it.
            vec![(index, given.remove(0).into_outputs().into_payload())]
        } else {
            let payload = |shares: &Vec<Share>| (index_of(taken, shares), payload_of(&done, shares));
            streamed.iter().chain(&outputs).map(payload).collect()
        };
        let message = |((index, payload), number)| self.output(taken, kept[0], number, &index, payload);
        let mut messages: Vec<Outgoing> = messages.into_iter().zip(first..).map(message).collect();
        let mut outputs = messages.split_off(streamed.len());
        for (message, number) in messages.iter_mut().zip(first..) {
            message.message_id = self.carried_id(taken, number);
        }
        // The first has the frame's key.
        for (message, number) in outputs.iter_mut().zip(0..) {
            message.message_id = self.message_id(taken.sequence, number);
        }
        Leavings { streamed: messages, outputs, kept, deferred, rest }
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

/// A plan with the messages of its outputs.
struct Leavings {
    streamed: Vec<Outgoing>,
    outputs: Vec<Outgoing>,
    kept: Vec<usize>,
    deferred: Vec<usize>,
    rest: Vec<Vec<usize>>,
}

/// Which items of the fed frame the outputs of a message descend from.
fn index_of(taken: &Taken, shares: &[Share]) -> Index {
    let roots = |(position, range): &Share| std::iter::repeat_n(taken.frame.index.get(*position), range.len());
    shares.iter().flat_map(roots).collect()
}

/// The outputs of a message back to back.
fn payload_of(done: &[(usize, Slice<'_>)], shares: &[Share]) -> Bytes {
    let mut payload = BytesMut::new();
    for (position, range) in shares {
        if let Ok(found) = done.binary_search_by_key(position, |(each, _)| *each) {
            payload.extend_from_slice(done[found].1.part(range.clone()));
        }
    }
    payload.freeze()
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
