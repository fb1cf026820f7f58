//! Makes the messages that a frame leaves behind, as [`crate::node::frame::plan`] says: outputs, and the items that are put back.
//! [`crate::node::commit`] stores them.

use crate::broker::publish::{PublishError, Published};
use crate::dead::Attempt;
use crate::engine::failure::Failure;
use crate::node::commit;
use crate::node::commit::messages::Leavings;
use crate::node::commit::requeue::{LATER, Requeue};
use crate::node::commit::{messages, outbox};
use crate::node::execute::Execution;
use crate::node::frame::attempts;
use crate::node::frame::inbound::{InboundFrame, RequeueTerms};
use crate::node::frame::plan::to_u32;
use crate::node::hop::Hop;
use crate::subject::Lane;

/// Stores what the items of a frame have left behind that have run, and puts back the others.
pub(crate) async fn commit(hop: &Hop, inbound: &InboundFrame, ran: Execution) -> Result<Counted, PublishError> {
    let Execution { given, failed, left, streamed, memory } = ran;
    let last = hop.inline.last().map_or(&hop.task, |stage| &stage.task);
    let _held = (memory.hold_up(last.after()), memory);
    let history =
        |(position, failure): (usize, Failure)| (position, attempts::history(hop, inbound, &failure), failure);
    let failed: Vec<_> = failed.into_iter().map(history).collect();
    let Leavings { streamed, outputs, kept, deferred, rest } = {
        let failed: Vec<usize> = failed.iter().map(|(position, ..)| *position).collect();
        messages::leavings(hop, inbound, given, &failed, left, streamed)
    };
    outbox::store_each(hop, inbound.source(), &streamed).await?;
    let mut counted = Counted { done: kept.len() as u64, retried: 0 };
    let mut groups = Vec::new();
    for (position, history, failure) in &failed {
        tracing::debug!(stage = %hop.stage().name, inbound.attempt, reason = failure.reason, "an attempt failed");
        counted.retried += u64::from(!hop.route.is_last_attempt(failure, inbound.attempt));
        let back = terms_of_failed(hop, inbound, history, failure);
        groups.push(Requeue { positions: vec![*position], back, failure: Some(failure) });
    }
    let history = attempts::with_lost_attempts(inbound, inbound.attempt - 1);
    let back = RequeueTerms {
        lane: inbound.lane.requeue_lane(),
        failed: inbound.attempt - 1,
        delay: None,
        history: &history,
        given_up: None,
    };
    // What was by itself already has made way for others.
    let delay = (inbound.len() == 1).then_some(LATER);
    let apart = |position| Requeue { positions: vec![position], back: RequeueTerms { delay, ..back }, failure: None };
    groups.extend(deferred.into_iter().map(apart));
    groups.extend(rest.into_iter().map(|positions| Requeue { positions, back, failure: None }));
    if commit::settle(hop, inbound, outputs, &kept, &groups).await? == Published::Duplicate {
        counted = Counted { done: 0, retried: 0 };
    }
    Ok(counted)
}

/// How an item goes back that has failed: to be tried again, or to be buried by whoever gets it.
fn terms_of_failed<'a>(
    hop: &Hop,
    inbound: &InboundFrame,
    history: &'a [Attempt],
    failure: &'a Failure,
) -> RequeueTerms<'a> {
    if hop.route.is_last_attempt(failure, inbound.attempt) {
        let failed = inbound.attempt - 1;
        return RequeueTerms { lane: Lane::Retry, failed, delay: None, history, given_up: Some(failure) };
    }
    let delay = Some(hop.stage().retry.wait(to_u32(inbound.attempt)));
    RequeueTerms { lane: inbound.lane.requeue_lane(), failed: inbound.attempt, delay, history, given_up: None }
}

/// What became of a frame's items.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Handled for good.
    pub(crate) done: u64,
    /// To be tried again after they failed.
    pub(crate) retried: u64,
}
