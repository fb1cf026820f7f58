//! The record of a frame's attempts.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::dead::Attempt;
use crate::engine::failure::{Failure, FailureKind};
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::reason::cut;
use crate::node::hop::Hop;

/// The most bytes of the reason of an attempt before the last.
const ATTEMPT_REASON_MAX: usize = 120;

/// The most attempts that are told of; of more, the first and the newest.
const ATTEMPTS_MAX: usize = 8;

/// The attempts of a frame's items, this one included.
pub(crate) fn history(hop: &Hop, inbound: &InboundFrame, failure: &Failure) -> Vec<Attempt> {
    let mut history = with_lost_attempts(inbound, inbound.attempt - 1);
    if inbound.given_up.is_none() && failure.kind != FailureKind::Node {
        history.push(Attempt {
            attempt: inbound.attempt,
            node: Some(hop.route.node.clone()),
            incarnation: None,
            time: now(),
            failure: failure.kind.name().to_owned(),
            reason: cut(&failure.reason, ATTEMPT_REASON_MAX),
        });
    }
    if history.len() > ATTEMPTS_MAX {
        history.drain(1..=history.len() - ATTEMPTS_MAX);
    }
    history
}

/// The attempts up to this one; those that ended without a word are told of as deaths.
pub(crate) fn with_lost_attempts(inbound: &InboundFrame, last: u64) -> Vec<Attempt> {
    let mut history = inbound.history.clone();
    let known = history.last().map_or(0, |attempt| attempt.attempt);
    // Of many, only the newest are kept anyway.
    let first = (known + 1).max(last.saturating_sub(ATTEMPTS_MAX as u64));
    history.extend((first..=last).map(|attempt| Attempt {
        attempt,
        node: None,
        incarnation: None,
        time: now(),
        failure: FailureKind::Node.name().to_owned(),
        reason: "its node died or was cut off; this is when that was noticed".to_owned(),
    }));
    history
}

pub(crate) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
