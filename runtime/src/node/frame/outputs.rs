//! The messages of a frame's outputs, as [`super::plan`] cuts them.

use bytes::{Bytes, BytesMut};

use super::FrameContext;
use super::plan::{Bounds, FRAME_ITEMS, Plan, Share};
use super::requeue::piece;
use super::steps::{self, Measured};
use crate::frame::id::Index;
use crate::frame::large::Positions;
use crate::frame::outgoing::{BATCH_MAX, Outgoing};
use crate::frame::{Headers, header, headers_of};
use crate::run::output::{FrameOutputs, NewTopic, Outputs, Slice};
use crate::subject;

/// The most bytes of a message of several items.
const FRAME_BYTES: usize = 512 << 10;

/// One part in this many of the next queue is the most that the outputs of one frame ask for at once. A batch is stored as a whole
/// or not at all, so it must find that much room while other frames wait too.
const QUEUE_PART: u64 = 4;

/// Makes the messages of outputs of a single item that still runs. `first` messages were made before.
///
/// `measured` is what the item has taken so far. `None` if the chain keeps no records.
pub(crate) fn streamed(
    frame: FrameContext<'_>,
    outputs: Outputs,
    first: usize,
    shared: usize,
    measured: Option<&Measured>,
) -> Vec<Outgoing> {
    let outputs = vec![(0, outputs).into()];
    let Plan { mut streamed, outputs, .. } = leavings(frame, outputs, &[], Vec::new(), first, shared, measured);
    streamed.extend(outputs);
    with_streamed_ids(frame, &mut streamed, first);
    streamed
}

/// Plans what the frame leaves behind, and makes the messages of its outputs.
///
/// `failed` items are requeued by the caller, `first` messages were streamed before, `shared` items are requeued together. Messages
/// that are stored together get their keys when they are stored. `measured` is what the items have taken; `None` if the chain keeps
/// no records.
pub(crate) fn leavings(
    frame: FrameContext<'_>,
    mut ended: Vec<FrameOutputs>,
    failed: &[usize],
    deferred: Vec<usize>,
    first: usize,
    shared: usize,
    measured: Option<&Measured>,
) -> Plan<Outgoing> {
    let mut done: Vec<(usize, Slice<'_>)> = ended.iter().flat_map(FrameOutputs::items).collect();
    done.sort_by_key(|(position, _)| *position);
    let sizes = frame.inbound.sizes();
    let Plan { streamed, outputs, kept, deferred, rest } =
        Plan::new(&sizes, &done, failed, deferred, &bounds(frame, shared));
    let is_whole = ended.len() == 1 && streamed.is_empty() && outputs.len() == 1 && kept.len() == done.len();
    let content = |shares: &Vec<Share>| Content {
        index: index_of(frame, shares),
        large: large_of(&done, shares),
        topic: topic_of(&done, shares).cloned(),
        payload: if is_whole { Bytes::new() } else { payload_of(&done, shares) },
    };
    let mut contents: Vec<Content> = streamed.iter().chain(&outputs).map(content).collect();
    drop(done);
    if is_whole {
        // Outputs of items that ran one after the other are already as the message holds them.
        contents[0].payload = ended.remove(0).into_outputs().into_payload();
    }
    let message = |(content, number)| output(frame, kept[0], number, content);
    let mut messages: Vec<Outgoing> = contents.into_iter().zip(first..).map(message).collect();
    steps::write(frame, measured, streamed.iter().chain(&outputs), &mut messages);
    let outputs = messages.split_off(streamed.len());
    with_streamed_ids(frame, &mut messages, first);
    Plan { streamed: messages, outputs, kept, deferred, rest }
}

fn bounds(frame: FrameContext<'_>, shared: usize) -> Bounds {
    let queue_part = usize::try_from(frame.route.chain.queue.limit / QUEUE_PART).unwrap_or(usize::MAX);
    Bounds {
        batch: BATCH_MAX,
        // Behind the last hop, a note may follow the results.
        outputs: if frame.route.is_last { BATCH_MAX - 1 } else { queue_part.clamp(1, BATCH_MAX) },
        items: FRAME_ITEMS,
        bytes: FRAME_BYTES.min(frame.limits.max_item() / 2),
        piece: piece(frame, frame.inbound.lane.requeue_lane(), shared),
    }
}

/// What one message of outputs holds.
struct Content {
    index: Index,
    large: Positions,
    /// The topic of the outputs. `None` if it is that of the frame.
    topic: Option<NewTopic>,
    payload: Bytes,
}

/// Makes one message of outputs. `kept` is the first item that they come from.
///
/// The id of the message is unique: no other message holds outputs of that item from there on.
fn output(frame: FrameContext<'_>, kept: usize, number: usize, content: Content) -> Outgoing {
    let Content { index, large, topic, payload } = content;
    let id = frame.inbound.frame.id.child(frame.inbound.part.get(kept), number);
    let mut headers: Headers = headers_of(&id, &index, &large, &frame.inbound.frame.inherited);
    if let Some(topic) = &topic {
        headers = headers.without(&[header::TOPIC]);
        headers.extend(topic.as_ref().map(|topic| (header::TOPIC, topic.to_string())));
    }
    let mut subject = frame.route.target.clone();
    if frame.route.is_last {
        if headers.get(header::FED).is_some() {
            headers = headers.without(&[header::FED]);
        }
        frame.route.sign(&mut headers);
        if let Some(topic) = topic.as_ref().unwrap_or(&frame.inbound.topic) {
            subject = subject::results_of(&frame.route.chain.name, topic);
        }
    }
    Outgoing { subject, message_id: String::new(), headers, payload }
}

fn with_streamed_ids(frame: FrameContext<'_>, messages: &mut [Outgoing], first: usize) {
    for (message, number) in messages.iter_mut().zip(first..) {
        message.message_id = frame.route.streamed_id(frame.inbound.origin, &frame.inbound.part, number);
    }
}

/// Returns which items of the fed frame the outputs of a message descend from.
fn index_of(frame: FrameContext<'_>, shares: &[Share]) -> Index {
    let index = &frame.inbound.frame.index;
    let roots = |(position, range): &Share| std::iter::repeat_n(index.get(*position), range.len());
    shares.iter().flat_map(roots).collect()
}

/// Returns the topic that all outputs of a message have. `None` if it is that of the frame.
fn topic_of<'a>(done: &[(usize, Slice<'a>)], shares: &[Share]) -> Option<&'a NewTopic> {
    let (position, range) = shares.first()?;
    let found = done.binary_search_by_key(position, |(each, _)| *each).ok()?;
    done[found].1.topic(range.start)
}

/// Returns which outputs of a message are references to large items.
fn large_of(done: &[(usize, Slice<'_>)], shares: &[Share]) -> Positions {
    let (mut large, mut first) = (Positions::NONE, 0);
    for (position, range) in shares {
        if let Ok(found) = done.binary_search_by_key(position, |(each, _)| *each) {
            for number in done[found].1.large().filter(|number| range.contains(number)) {
                large.push(first + number - range.start);
            }
        }
        first += range.len();
    }
    large
}

/// Returns the outputs of a message back to back.
fn payload_of(done: &[(usize, Slice<'_>)], shares: &[Share]) -> Bytes {
    let mut payload = BytesMut::new();
    for (position, range) in shares {
        if let Ok(found) = done.binary_search_by_key(position, |(each, _)| *each) {
            payload.extend_from_slice(done[found].1.part(range.clone()));
        }
    }
    payload.freeze()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::holders::Holders;
    use super::super::testing;
    use super::*;
    use crate::frame::outgoing::MessageLimits;

    /// The ids of all messages of a frame whose items give so many outputs, and the keys of those that are streamed.
    fn names(given: &[usize], is_last: bool, max_payload: usize) -> Vec<(String, Option<String>)> {
        let route = testing::route("ids", is_last);
        let mut inbound = testing::inbound(0, 0, Holders::default());
        inbound.frame.items = vec![Bytes::from_static(&[1]); given.len()];
        inbound.frame.index = Index::in_order(given.len());
        inbound.part = Index::in_order(given.len());
        let mut ended = FrameOutputs::default();
        for (position, &number) in given.iter().enumerate() {
            let mut outputs = Outputs::default();
            (0..number).for_each(|_| outputs.push(&[0x18, 0x18]));
            ended.append(outputs.all());
            ended.end(position);
        }
        let frame = FrameContext { inbound: &inbound, route: &route, limits: MessageLimits { max_payload } };
        let plan = leavings(frame, vec![ended], &[], Vec::new(), 0, 1, None);
        let id = |message: &Outgoing| message.headers.get(header::ID).unwrap_or_default().to_owned();
        let streamed = plan.streamed.iter().map(|each| (id(each), Some(each.message_id.clone())));
        streamed.chain(plan.outputs.iter().map(|each| (id(each), None))).collect()
    }

    #[test]
    fn ids_and_keys_are_unique_and_the_same_at_each_run() {
        let mut messages = 0;
        for is_last in [false, true] {
            for given in [&[1][..], &[0, 3], &[2_000], &[900, 1, 0, 901], &[70; 40], &[20_000]] {
                for max_payload in [10_000, 1 << 20] {
                    let names = names(given, is_last, max_payload);
                    assert_eq!(names, self::names(given, is_last, max_payload));
                    let ids: BTreeSet<&String> = names.iter().map(|(id, _)| id).collect();
                    let keys: Vec<&String> = names.iter().filter_map(|(_, key)| key.as_ref()).collect();
                    let different: BTreeSet<&&String> = keys.iter().collect();
                    assert_eq!((ids.len(), different.len()), (names.len(), keys.len()), "{given:?}");
                    messages += names.len();
                }
            }
        }
        assert!(messages > 100, "{messages} messages are too few to tell");
    }
}
