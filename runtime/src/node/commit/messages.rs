//! The messages of a frame's outputs, as [`crate::node::frame::plan`] cuts them.

use bytes::{Bytes, BytesMut};

use crate::engine::output::{FrameOutputs, Outputs, Slice};
use crate::frame::id::Index;
use crate::frame::outgoing::{BATCH_MAX, Outgoing};
use crate::frame::{Headers, headers_of};
use crate::node::commit::requeue;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::plan::{Bounds, FRAME_ITEMS, Plan, Share};
use crate::node::hop::Hop;
use crate::subject::Lane;

/// The most bytes of a message that holds several items.
const FRAME_BYTES: usize = 512 << 10;

/// The part of a queue that the outputs of one frame may ask for at once. A batch goes in as a whole or not at all, and must
/// find that much room between all others who wait for some.
const QUEUE_PART: u64 = 4;

/// What the messages of a frame's plan may be.
fn bounds(hop: &Hop, inbound: &InboundFrame, lane: Lane) -> Bounds {
    let queue_part = usize::try_from(hop.route.chain.queue.limit / QUEUE_PART).unwrap_or(usize::MAX);
    Bounds {
        batch: BATCH_MAX,
        outputs: if hop.route.is_last { BATCH_MAX } else { queue_part.clamp(1, BATCH_MAX) },
        items: FRAME_ITEMS,
        bytes: FRAME_BYTES.min(hop.broker.limits().max_item() / 2),
        piece: requeue::piece(hop, inbound, lane, hop.limit.share(inbound.len(), false).piece),
    }
}

/// Messages of a single item's outputs while it still runs; `first` were made before.
pub(crate) fn streamed_messages(hop: &Hop, inbound: &InboundFrame, outputs: Outputs, first: usize) -> Vec<Outgoing> {
    let Leavings { mut streamed, outputs, .. } =
        leavings(hop, inbound, vec![(0, outputs).into()], &[], Vec::new(), first);
    streamed.extend(outputs);
    for (message, number) in streamed.iter_mut().zip(first..) {
        message.message_id = hop.route.streamed_id(inbound.origin, &inbound.part, number);
    }
    streamed
}

/// Plans what a frame leaves behind, and makes the messages of its outputs. `first` messages of outputs were made before.
pub(crate) fn leavings(
    hop: &Hop,
    inbound: &InboundFrame,
    mut given: Vec<FrameOutputs>,
    failed: &[usize],
    deferred: Vec<usize>,
    first: usize,
) -> Leavings {
    let mut done: Vec<(usize, Slice<'_>)> = given.iter().flat_map(FrameOutputs::items).collect();
    done.sort_by_key(|(position, _)| *position);
    let bounds = bounds(hop, inbound, inbound.lane.requeue_lane());
    let Plan { streamed, outputs, kept, deferred, rest } =
        Plan::new(&inbound.sizes(), &done, failed, deferred, &bounds);
    hop.limit.cut_known(rest.len());
    let is_whole = given.len() == 1 && streamed.is_empty() && outputs.len() == 1 && kept.len() == done.len();
    let messages: Vec<(Index, Bytes)> = if is_whole {
        let index = index_of(inbound, &outputs[0]);
        drop(done);
        // What ran one after the other is as the message holds it.
        vec![(index, given.remove(0).into_outputs().into_payload())]
    } else {
        let payload = |shares: &Vec<Share>| (index_of(inbound, shares), payload_of(&done, shares));
        streamed.iter().chain(&outputs).map(payload).collect()
    };
    let message = |((index, payload), number)| output(hop, inbound, kept[0], number, &index, payload);
    let mut messages: Vec<Outgoing> = messages.into_iter().zip(first..).map(message).collect();
    let mut outputs = messages.split_off(streamed.len());
    for (message, number) in messages.iter_mut().zip(first..) {
        message.message_id = hop.route.streamed_id(inbound.origin, &inbound.part, number);
    }
    // The first has the frame's key.
    for (message, number) in outputs.iter_mut().zip(0..) {
        message.message_id = hop.route.message_id(inbound.sequence, number);
    }
    Leavings { streamed: messages, outputs, kept, deferred, rest }
}

/// One message of outputs of some of a frame's items, the first of which is this. Nobody else makes messages of that item,
/// so no other message has the same id.
fn output(hop: &Hop, inbound: &InboundFrame, kept: usize, number: usize, index: &Index, payload: Bytes) -> Outgoing {
    let id = inbound.frame.id.child(inbound.part.get(kept), number);
    let mut headers: Headers = headers_of(&id, index, &inbound.frame.inherited);
    if hop.route.is_last {
        hop.route.sign(&mut headers);
    }
    Outgoing {
        subject: hop.route.target.clone(),
        message_id: hop.route.message_id(inbound.sequence, number),
        headers,
        payload,
    }
}

/// A plan with the messages of its outputs.
pub(crate) struct Leavings {
    pub(crate) streamed: Vec<Outgoing>,
    pub(crate) outputs: Vec<Outgoing>,
    pub(crate) kept: Vec<usize>,
    pub(crate) deferred: Vec<usize>,
    pub(crate) rest: Vec<Vec<usize>>,
}

/// Which items of the fed frame the outputs of a message descend from.
fn index_of(inbound: &InboundFrame, shares: &[Share]) -> Index {
    let roots = |(position, range): &Share| std::iter::repeat_n(inbound.frame.index.get(*position), range.len());
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
