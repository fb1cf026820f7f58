//! Items of a frame that go back to a queue, and the messages that hold them.

use std::time::Duration;

use bytes::Bytes;

use super::FrameContext;
use super::plan::Piece;
use super::reason::reason_line;
use super::sent::Sent;
use super::steps::of_requeued;
use crate::dead::{self, Attempt};
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header, to_header_line};
use crate::run::failure::Failure;
use crate::subject::Lane;

/// The headers that a requeued message can do without.
const LEAST: [&str; 5] = [header::STEPS, header::HISTORY, header::BACKTRACE, header::CALLS, header::SENT];

/// The delay of an item that was deferred in a frame of its own.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// How items go back to a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequeueTerms<'a> {
    /// The lane.
    pub(crate) lane: Lane,
    /// Failed attempts so far.
    pub(crate) failed: u64,
    /// How long the items wait before the next attempt.
    pub(crate) delay: Option<Duration>,
    /// The record of earlier attempts.
    pub(crate) history: &'a [Attempt],
    /// The failure for which the items are given up. The next node only writes their dead letters.
    pub(crate) given_up: Option<&'a Failure>,
}

/// Items of a frame that go back to a queue as one message.
#[derive(Debug)]
pub(crate) struct Requeue<'a> {
    /// The items.
    pub(crate) positions: Vec<usize>,
    /// How they go back.
    pub(crate) terms: RequeueTerms<'a>,
    /// Why they go back, if they failed.
    pub(crate) failure: Option<&'a Failure>,
}

/// Returns the most that goes back as one message: `shared` items, or one item in quarantine.
///
/// A limited stage counts messages in flight, so there it is as many items as a node runs at once.
pub(crate) fn piece(frame: FrameContext<'_>, lane: Lane, shared: usize) -> Piece {
    let items = match lane {
        Lane::Quarantine => 1,
        _ if frame.route.is_limited() => frame.route.stage().concurrency as usize,
        _ => shared,
    };
    // Inherited headers take room too.
    let inherited = frame.inbound.frame.inherited.iter();
    let headers: usize = inherited.map(|(name, value)| name.len() + value.len() + 4).sum();
    Piece::new(items, frame.inbound.len(), frame.limits.max_item().saturating_sub(headers))
}

/// Cuts items into requeued messages of at most `shared` items.
pub(crate) fn requeues<'b>(
    frame: FrameContext<'_>,
    positions: &[usize],
    shared: usize,
    terms: RequeueTerms<'b>,
) -> Vec<Requeue<'b>> {
    let pieces = piece(frame, terms.lane, shared).cut(positions, &frame.inbound.sizes());
    pieces.into_iter().map(|positions| Requeue { positions, terms, failure: terms.given_up }).collect()
}

/// Makes the messages of requeued items, numbered from `first`, without their keys. Returns beside them the items that leave too little room in a
/// message. `parks`: items of a limited stage wait in a lane of their own.
pub(crate) fn requeue_messages<'a, 'b>(
    frame: FrameContext<'_>,
    requeues: &'a [Requeue<'b>],
    first: usize,
    parks: bool,
) -> (Vec<Outgoing>, Vec<&'a Requeue<'b>>) {
    let (mut messages, mut too_large) = (Vec::with_capacity(requeues.len()), Vec::new());
    for requeue in requeues {
        let mut message = requeue_message(frame, requeue, first + messages.len(), parks);
        if !frame.limits.fits_a_batch(&message) {
            // The item matters more, and the reason of its last failure.
            message.headers = message.headers.without(&LEAST);
        }
        if frame.limits.fits_a_batch(&message) {
            messages.push(message);
        } else {
            too_large.push(requeue);
        }
    }
    (messages, too_large)
}

fn requeue_message(frame: FrameContext<'_>, requeue: &Requeue<'_>, number: usize, parks: bool) -> Outgoing {
    let (route, sequence) = (frame.route, frame.inbound.sequence);
    let (chain, stage, lane) = (&route.chain.name, &route.stage().name, requeue.terms.lane);
    let (mut headers, payload) = requeued(frame, &requeue.positions, &requeue.terms);
    let sent = match (requeue.failure, requeue.terms.given_up) {
        (_, Some(_)) => None,
        (Some(failure), None) => failure.calls.as_deref().map(Sent::of).and_then(|sent| sent.to_header()),
        // Nothing has run since.
        (None, None) => frame.inbound.sent.to_header().filter(|_| frame.inbound.len() == 1),
    };
    headers.extend(sent.map(|sent| (header::SENT, sent)));
    headers.extend(of_requeued(frame.inbound, &requeue.positions, requeue.failure).map(|steps| (header::STEPS, steps)));
    let subject = if parks && route.is_limited() && requeue.terms.delay.is_some() {
        lane.park(chain, route.revision, stage, sequence, number)
    } else {
        lane.requeue(chain, route.revision, stage, sequence, number)
    };
    Outgoing { subject, message_id: String::new(), headers, payload }
}

/// Returns the headers and the payload of requeued items. The next node reads the terms from the headers.
fn requeued(frame: FrameContext<'_>, positions: &[usize], terms: &RequeueTerms<'_>) -> (Headers, Bytes) {
    let inbound = frame.inbound;
    let (payload, content_type) = inbound.payload(positions, frame.limits.max_item());
    let mut headers = inbound.frame.part(positions).headers();
    headers.extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type.to_owned())));
    headers.extend(inbound.part_header(positions));
    headers.push(header::ORIGIN, inbound.origin.to_string());
    if terms.failed > 0 {
        headers.push(header::ATTEMPT, terms.failed.to_string());
    }
    if inbound.cleared > 0 {
        headers.push(header::SUSPICIONS, inbound.cleared.to_string());
    }
    if let Some(delay) = terms.delay {
        headers.push(header::DELAY, delay.as_millis().to_string());
    }
    if !terms.history.is_empty() {
        headers.push(header::HISTORY, dead::to_header(terms.history));
    }
    if let Some(failure) = terms.given_up {
        headers.push(header::FAILURE, failure.kind.name());
        headers.push(header::REASON, reason_line(&failure.reason));
        if let Some(backtrace) = &failure.backtrace {
            headers.push(header::BACKTRACE, to_header_line(backtrace));
        }
        if let Some(calls) = &failure.calls {
            headers.push(header::CALLS, calls.to_header());
        }
    }
    (headers, payload)
}
