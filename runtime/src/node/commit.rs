//! Makes the messages that a frame leaves behind, as [`super::plan`] says: outputs, and the items that are put back.
//! [`super::settle`] stores them.

use super::hop::Hop;
use super::outputs::{self, Leavings};
use super::plan::to_u32;
use super::requeue::{Group, LATER};
use super::run::Ran;
use super::taken::{Back, Taken};
use super::{attempts, settle, store};
use crate::broker::publish::{PublishError, Published};
use crate::dead::Attempt;
use crate::engine::failure::Failure;
use crate::subject::Lane;

/// Stores what the items of a frame have left behind that have run, and puts back the others.
pub(super) async fn commit(hop: &Hop, taken: &Taken, ran: Ran) -> Result<Counted, PublishError> {
    let Ran { given, failed, left, streamed, memory } = ran;
    let last = hop.inline.last().map_or(&hop.task, |stage| &stage.task);
    let _held = (memory.hold_up(last.after()), memory);
    let history = |(position, failure): (usize, Failure)| (position, attempts::history(hop, taken, &failure), failure);
    let failed: Vec<_> = failed.into_iter().map(history).collect();
    let Leavings { streamed, outputs, kept, deferred, rest } = {
        let failed: Vec<usize> = failed.iter().map(|(position, ..)| *position).collect();
        outputs::leavings(hop, taken, given, &failed, left, streamed)
    };
    store::store_each(hop, taken.source(), &streamed).await?;
    let mut counted = Counted { done: kept.len() as u64, retried: 0 };
    let mut groups = Vec::new();
    for (position, history, failure) in &failed {
        tracing::debug!(stage = %hop.stage().name, taken.attempt, reason = failure.reason, "an attempt failed");
        counted.retried += u64::from(!hop.is_last_attempt(failure, taken.attempt));
        let back = back_of_failed(hop, taken, history, failure);
        groups.push(Group { positions: vec![*position], back, failure: Some(failure) });
    }
    let history = attempts::with_deaths(taken, taken.attempt - 1);
    let back =
        Back { lane: taken.lane.back(), failed: taken.attempt - 1, delay: None, history: &history, given_up: None };
    // What was by itself already has made way for others.
    let delay = (taken.len() == 1).then_some(LATER);
    let apart = |position| Group { positions: vec![position], back: Back { delay, ..back }, failure: None };
    groups.extend(deferred.into_iter().map(apart));
    groups.extend(rest.into_iter().map(|positions| Group { positions, back, failure: None }));
    if settle::settle(hop, taken, outputs, &kept, &groups).await? == Published::Duplicate {
        counted = Counted { done: 0, retried: 0 };
    }
    Ok(counted)
}

/// How an item goes back that has failed: to be tried again, or to be buried by whoever gets it.
fn back_of_failed<'a>(hop: &Hop, taken: &Taken, history: &'a [Attempt], failure: &'a Failure) -> Back<'a> {
    if hop.is_last_attempt(failure, taken.attempt) {
        let failed = taken.attempt - 1;
        return Back { lane: Lane::Retry, failed, delay: None, history, given_up: Some(failure) };
    }
    let delay = Some(hop.stage().retry.wait(to_u32(taken.attempt)));
    Back { lane: taken.lane.back(), failed: taken.attempt, delay, history, given_up: None }
}

/// What became of a frame's items.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Handled for good.
    pub(super) done: u64,
    /// To be tried again after they failed.
    pub(super) retried: u64,
}
