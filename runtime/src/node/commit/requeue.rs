//! Items of a frame that go back to a queue, and the messages that hold them.

use std::time::Duration;

use crate::engine::failure::Failure;
use crate::frame::header;
use crate::frame::outgoing::Outgoing;
use crate::node::frame::inbound::{InboundFrame, RequeueTerms};
use crate::node::frame::plan::Piece;
use crate::node::hop::Hop;
use crate::subject::Lane;

/// How long an item waits that has made way for others.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// Items of a frame to be put back as one message.
pub(crate) struct Requeue<'a> {
    pub(crate) positions: Vec<usize>,
    pub(crate) back: RequeueTerms<'a>,
    /// Why they are put back, if they have failed.
    pub(crate) failure: Option<&'a Failure>,
}

/// What of a frame is left to others in one message: so many items as `shared`, or one item if each shall run alone. Where
/// messages are counted, it is as many items as a node runs at once.
pub(crate) fn piece(hop: &Hop, inbound: &InboundFrame, lane: Lane, shared: usize) -> Piece {
    let items = match lane {
        Lane::Quarantine => 1,
        _ if hop.is_limited() => hop.stage().concurrency as usize,
        _ => shared,
    };
    // What a feeder has put into the headers takes room too.
    let headers: usize = inbound.frame.inherited.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    Piece::new(items, inbound.len(), hop.broker.limits().max_item().saturating_sub(headers))
}

/// Items in messages of so many, or each by itself if they shall run alone.
pub(crate) fn groups<'a>(
    hop: &Hop,
    inbound: &InboundFrame,
    positions: &[usize],
    shared: usize,
    back: RequeueTerms<'a>,
) -> Vec<Requeue<'a>> {
    let pieces = piece(hop, inbound, back.lane, shared).cut(positions, &inbound.sizes());
    pieces.into_iter().map(|positions| Requeue { positions, back, failure: back.given_up }).collect()
}

/// The messages that put items back, numbered from the first; and those groups of which no message can be that the server
/// takes, so large is an item.
pub(crate) fn requeue_messages<'a, 'b>(
    hop: &Hop,
    inbound: &InboundFrame,
    groups: &'a [Requeue<'b>],
    first: usize,
) -> (Vec<Outgoing>, Vec<&'a Requeue<'b>>) {
    let (mut messages, mut too_large) = (Vec::with_capacity(groups.len()), Vec::new());
    for group in groups {
        let mut message = requeue_message(hop, inbound, group, first + messages.len());
        if !hop.broker.limits().fits_a_batch(&message) {
            // The item comes first, then the reason of its last failure.
            message.headers = message.headers.without(&[header::HISTORY, header::BACKTRACE]);
        }
        if hop.broker.limits().fits_a_batch(&message) {
            messages.push(message);
        } else {
            too_large.push(group);
        }
    }
    (messages, too_large)
}

/// A message that puts items back.
fn requeue_message(hop: &Hop, inbound: &InboundFrame, group: &Requeue<'_>, number: usize) -> Outgoing {
    let (headers, payload) = group.back.message(inbound, &group.positions, hop.broker.limits().max_item());
    let (chain, stage) = (&hop.route.chain.name, &hop.stage().name);
    Outgoing {
        subject: if is_parked(hop, &group.back) {
            group.back.lane.park(chain, hop.route.revision, stage, inbound.sequence, number)
        } else {
            group.back.lane.requeue(chain, hop.route.revision, stage, inbound.sequence, number)
        },
        message_id: hop.route.message_id(inbound.sequence, number),
        headers,
        payload,
    }
}

/// Whether what is put back waits where it holds none of the stage's places. It does not while very much waits there: then
/// it is better that no more is taken.
fn is_parked(hop: &Hop, back: &RequeueTerms<'_>) -> bool {
    hop.is_limited() && back.delay.is_some() && hop.backlog.room() > 0
}
