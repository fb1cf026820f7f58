//! The record of a frame's attempts.
//!
//! The server hands a frame out again when it hears nothing of it for `ack_wait`. Its node may have died, or be paused or cut off, or
//! may never have received it. So each earlier delivery is recorded as a lost attempt with the incarnation that held the frame,
//! and removed again once that incarnation is known to run.

use std::collections::{BTreeMap, BTreeSet};

use pcluster_abi::Level;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::FrameContext;
use super::holders::Holder;
use super::inbound::InboundFrame;
use super::reason::{cut, short};
use crate::dead::Attempt;
use crate::run::failure::{Failure, FailureKind};

/// After this many cleared deliveries, a delivery with an unknown holder is an attempt.
const UNKNOWN_MAX: u64 = 10;
/// The most lost attempts that are recorded at once.
const NOTED_MAX: u64 = 24;
/// The recorded reason of a lost attempt.
const NO_WORD: &str = "its node died or was cut off; this is when that was noticed";

/// The most bytes of a recorded reason.
const ATTEMPT_REASON_MAX: usize = 120;

/// The most attempts of a record. Of more, the first and the newest stay.
const ATTEMPTS_MAX: usize = 8;

/// Returns the record of the frame's attempts, this failed one included.
pub(crate) fn history(frame: FrameContext<'_>, failure: &Failure) -> Vec<Attempt> {
    let inbound = frame.inbound;
    let mut history = with_lost_attempts(inbound, inbound.attempt - 1);
    if inbound.given_up.is_none() && failure.kind != FailureKind::Node {
        history.push(Attempt {
            attempt: inbound.attempt,
            node: Some(frame.route.node.clone()),
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

/// Returns the entry of the log for a failed attempt of at `most` so many: the last one is an error, and one that is followed by another a warning.
pub(crate) fn log_entry(most: u32, attempt: u64, failure: &Failure) -> (Level, String) {
    let told = format!("attempt {attempt} of {most}: {}", short(failure.brief()));
    match failure.fatal {
        true if attempt < u64::from(most) => (Level::Error, format!("{told}; it is not tried again")),
        _ if failure.fatal || attempt >= u64::from(most) => (Level::Error, told),
        _ => (Level::Warn, told),
    }
}

/// Returns the record of the attempts up to `last`. Attempts without an outcome are recorded as lost.
pub(crate) fn with_lost_attempts(inbound: &InboundFrame, last: u64) -> Vec<Attempt> {
    let mut history = inbound.history.clone();
    let known = history.last().map_or(0, |attempt| attempt.attempt);
    // Of many, only the newest stay anyway.
    let first = (known + 1).max(last.saturating_sub(ATTEMPTS_MAX as u64));
    history.extend((first..=last).map(|attempt| lost_attempt(attempt, None, now())));
    history
}

/// Returns the record of a lost attempt, noticed at this time.
fn lost_attempt(attempt: u64, holder: Option<&Holder>, time: String) -> Attempt {
    Attempt {
        attempt,
        node: holder.map(|holder| holder.node.clone()),
        incarnation: holder.and_then(|holder| holder.incarnation.clone()),
        time,
        failure: FailureKind::Node.name().to_owned(),
        reason: NO_WORD.to_owned(),
    }
}

/// Returns the time as RFC 3339 in UTC.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

impl InboundFrame {
    /// Returns `true` if a node may have died with these items in hand.
    pub(crate) fn is_suspect(&self) -> bool {
        self.given_up.is_none() && self.all_lost_attempts() > 0
    }

    /// Returns the number of nodes that died or were cut off with these items in hand, as far as is known.
    pub(crate) fn all_lost_attempts(&self) -> u64 {
        self.lost_attempts.max(self.history.iter().filter(|attempt| is_lost(attempt)).count() as u64)
    }

    /// Records each earlier delivery of the frame as a lost attempt, unless it was none.
    ///
    /// A node notes what it holds before it runs it. So a delivery without a note was no attempt, if notes can be read. If they
    /// cannot, the delivery is no attempt either, up to [`UNKNOWN_MAX`]. An incarnation that got the frame again did not die of
    /// it the first time.
    pub(crate) fn note_suspicions(&mut self, now: impl Fn() -> String) {
        let time = now();
        // Of several deliveries to one incarnation, the last stays.
        let latest: BTreeMap<String, u64> = (self.attempt - self.lost_attempts..self.attempt)
            .filter_map(|attempt| Some((self.holder(attempt)?.incarnation.clone()?, attempt)))
            .collect();
        // This renumbers attempts, but not deliveries.
        let moved = self.strike_out(&latest.keys().cloned().collect());
        let has_again = |holder: &Holder, attempt: u64| {
            let number = holder.incarnation.as_ref().and_then(|incarnation| latest.get(incarnation));
            number.is_some_and(|number| *number > attempt + moved)
        };
        let first = self.attempt - self.lost_attempts;
        let (mut number, mut lost, mut unknown) = (first, 0, 0);
        let mut noted = Vec::new();
        for attempt in first..self.attempt {
            let holder = self.holder(attempt);
            if holder.is_some_and(|holder| has_again(holder, attempt)) {
                lost += 1;
                continue;
            }
            if holder.is_none() {
                if self.holders.is_complete {
                    lost += 1;
                    continue;
                }
                if self.cleared + lost + unknown < UNKNOWN_MAX {
                    unknown += 1;
                    continue;
                }
            }
            noted.push(lost_attempt(number, holder, time.clone()));
            number += 1;
        }
        let skip = noted.len().saturating_sub(usize::try_from(NOTED_MAX).unwrap_or(usize::MAX));
        self.history.extend(noted.into_iter().skip(skip));
        self.attempt -= lost + unknown;
        self.lost_attempts -= lost + unknown;
        self.cleared += lost + unknown;
        self.unknown = unknown;
    }

    /// Returns the incarnations that may have died with these items in hand.
    pub(crate) fn suspects(&self) -> BTreeSet<String> {
        self.history
            .iter()
            .filter(|attempt| is_lost(attempt))
            .filter_map(|attempt| attempt.incarnation.clone())
            .collect()
    }

    /// Removes the lost attempts of incarnations that still run. Returns their number.
    pub(crate) fn strike_out(&mut self, living: &BTreeSet<String>) -> u64 {
        let first_own = self.attempt - self.lost_attempts;
        let (mut struck, mut own) = (0, 0);
        self.history.retain_mut(|attempt| {
            let lives = attempt.incarnation.as_ref().is_some_and(|incarnation| living.contains(incarnation));
            if lives && is_lost(attempt) {
                struck += 1;
                own += u64::from(attempt.attempt >= first_own);
                return false;
            }
            attempt.attempt = attempt.attempt.saturating_sub(struck).max(1);
            true
        });
        self.attempt = self.attempt.saturating_sub(struck).max(1);
        self.lost_attempts = self.lost_attempts.saturating_sub(own);
        self.cleared += struck;
        struck
    }
}

fn is_lost(attempt: &Attempt) -> bool {
    attempt.failure == FailureKind::Node.name()
}

#[cfg(test)]
mod tests;
