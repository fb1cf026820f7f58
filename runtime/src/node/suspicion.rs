//! What to make of a frame that was handed out before.
//!
//! The server hands a frame out again when it hears nothing of it for `ack_wait`: its node may have died, but it may as well be
//! paused or cut off, or the frame never have reached it. So each such time is a suspicion only. It is noted as an attempt, with
//! the incarnation of the node that had the frame, and that costs nothing as long as attempts are left. Before a frame is given
//! up or put into quarantine for its attempts, the nodes in question are called: the attempts of those that answer are struck
//! out. One that does not answer may be cut off still, so a frame is given up only after a while of silence.
//!
//! Who had a frame may not be known at all: the notes cannot be read for a while, or are gone. Nobody can be called then, and what
//! cannot be known is not held against the items: such a time is no attempt. So that an item which nodes do die of cannot go on
//! for ever, it soon runs in quarantine, and of very many such times the later ones count.

pub(crate) mod holder_notes;
pub(crate) mod quarantine;
pub(crate) mod roll_call;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::broker::publish::PublishError;
use crate::broker::queue::Delivery;
use crate::dead::Attempt;
use crate::engine::failure::FailureKind;
use crate::node::commit;
use crate::node::frame::attempts::now;
use crate::node::frame::holders::Holder;
use crate::node::frame::inbound::InboundFrame;
use crate::node::hop::Hop;
use crate::node::phase::{Phase, left_run};
use crate::subject::Lane;

/// After this many suspicions an item runs in quarantine, even if its nodes live: something is wrong around it.
const SUSPICIONS_MAX: u64 = 20;
/// After this many suspicions, a time of which nobody can know who had the frame is an attempt after all.
const UNKNOWN_MAX: u64 = 10;
/// After this many such times at once an item runs in quarantine, whatever its attempts: it may be what its nodes died of.
const UNKNOWN_IN_COMPANY: u64 = 2;
/// The most suspicions that are noted by name.
const NOTED_MAX: u64 = 24;
/// How long a node may be silent before a frame is given up for its death: this many times `ack_wait`, but no less than
/// [`SILENCE_MIN`]. A connection that is lost without a word is noticed after fifteen seconds and made anew within one.
const SILENCE_PART: u32 = 3;
/// The least time of silence.
const SILENCE_MIN: Duration = Duration::from_secs(15);
/// How often a silent node is called again.
const CALL_AGAIN: Duration = Duration::from_secs(1);
/// How often to look for those who had a frame that may have to be given up.
const LOOKS: usize = 4;
/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What is said of an attempt that ended without a word.
const NO_WORD: &str = "its node died or was cut off; this is when that was noticed";

/// What a frame that was handed out before is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Run,
    /// It runs in quarantine.
    Quarantine,
    /// It has no attempt left.
    End,
}

/// What came of looking into a frame that was handed out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Another run of it has stored what it leaves behind.
    Settled,
    /// Its attempts are what they are.
    Known,
    /// The node stops before a silent one was silent for long enough.
    Open,
}

/// Looks into the times that a frame was handed out before. `queue` is the lane by whose consumer it came.
pub(crate) async fn judge(
    hop: &Hop,
    inbound: &mut InboundFrame,
    queue: Lane,
    delivery: &Delivery,
    phase: &mut watch::Receiver<Phase>,
) -> Result<Judged, PublishError> {
    if inbound.lost_attempts > 0 {
        if commit::is_settled(hop, inbound).await? {
            return Ok(Judged::Settled);
        }
        look_for_holders(hop, inbound, queue, delivery).await;
        inbound.note_suspicions(now);
    }
    let patience = SILENCE_MIN.max(hop.route.chain.queue.ack_wait * SILENCE_PART);
    // Others run meanwhile, however long a node is silent.
    let _aside = (fate(hop, inbound) != Fate::Run).then(|| hop.limit.set_aside());
    while fate(hop, inbound) != Fate::Run {
        let silence = call(hop, inbound).await;
        if fate(hop, inbound) != Fate::End || silence.is_some_and(|silence| silence >= patience) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(CALL_AGAIN) => {}
            () = left_run(phase) => return Ok(Judged::Open),
        }
        if inbound.lost_attempts > 0 && commit::is_settled(hop, inbound).await? {
            return Ok(Judged::Settled);
        }
    }
    Ok(Judged::Known)
}

/// The same frame without the attempts of nodes that live, for an item that would end by its attempts now.
pub(crate) async fn reconsidered(hop: &Hop, inbound: &InboundFrame) -> InboundFrame {
    let mut inbound = inbound.clone();
    call(hop, &mut inbound).await;
    inbound
}

/// What a frame is up to by its attempts.
pub(crate) fn fate(hop: &Hop, inbound: &InboundFrame) -> Fate {
    let allowed = u64::from(hop.stage().retry.attempts);
    if wants_quarantine(inbound, allowed) {
        Fate::Quarantine
    } else if inbound.attempt > allowed {
        Fate::End
    } else {
        Fate::Run
    }
}

/// Finds out who had a frame in hand before; of one that may have to be given up, it takes more trouble.
async fn look_for_holders(hop: &Hop, inbound: &mut InboundFrame, queue: Lane, delivery: &Delivery) {
    let looks = if inbound.attempt > u64::from(hop.stage().retry.attempts) { LOOKS } else { 1 };
    for look in 0..looks {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        inbound.holders = holder_notes::holders(hop, queue, delivery).await;
        if inbound.holders.is_complete() {
            return;
        }
    }
}

/// Calls the nodes that had a frame in hand and strikes out the attempts of those that answer. Returns how long the others
/// have been silent, the newest silence; `None` if this node cannot tell, because nobody hears it.
async fn call(hop: &Hop, inbound: &mut InboundFrame) -> Option<Duration> {
    let suspects = inbound.suspects();
    if suspects.is_empty() {
        return Some(Duration::MAX);
    }
    let roll = hop.roll_call.call(&hop.broker, &suspects, Instant::now()).await?;
    let struck = inbound.strike_out(&roll.living);
    if struck > 0 {
        tracing::debug!(stage = %hop.stage().name, struck, "nodes that had an item in hand live");
    }
    Some(roll.silent_since.map_or(Duration::MAX, |since| since.elapsed()))
}

impl InboundFrame {
    /// Whether a node may have died with these items in hand.
    pub(crate) fn is_suspect(&self) -> bool {
        self.given_up.is_none() && self.all_lost_attempts() > 0
    }

    /// How many nodes died or were cut off with these items in hand, as far as is known.
    pub(crate) fn all_lost_attempts(&self) -> u64 {
        self.lost_attempts.max(self.history.iter().filter(|attempt| is_lost(attempt)).count() as u64)
    }

    /// Notes each time that the frame was handed out before as an attempt. Whoever has a frame says so before it runs; a time
    /// of which nobody says so, though nodes can, was no attempt. Nor is one of which that cannot be known, as long as there were
    /// few suspicions, nor one after which the same run of a node has had the frame again: it did not die of it.
    pub(crate) fn note_suspicions(&mut self, now: impl Fn() -> String) {
        let time = now();
        // The later of the same keys stays.
        let latest: BTreeMap<String, u64> = (self.attempt - self.lost_attempts..self.attempt)
            .filter_map(|attempt| Some((self.holder(attempt)?.incarnation.clone()?, attempt)))
            .collect();
        // The attempts get other numbers by this, the times that the frame was handed out do not.
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
                if self.holders.is_complete() {
                    lost += 1;
                    continue;
                }
                if self.cleared + lost + unknown < UNKNOWN_MAX {
                    unknown += 1;
                    continue;
                }
            }
            noted.push(Attempt {
                attempt: number,
                node: holder.map(|holder| holder.node.clone()),
                incarnation: holder.and_then(|holder| holder.incarnation.clone()),
                time: time.clone(),
                failure: FailureKind::Node.name().to_owned(),
                reason: NO_WORD.to_owned(),
            });
            number += 1;
        }
        let skip = noted.len().saturating_sub(usize::try_from(NOTED_MAX).unwrap_or(usize::MAX));
        self.history.extend(noted.into_iter().skip(skip));
        self.attempt -= lost + unknown;
        self.lost_attempts -= lost + unknown;
        self.cleared += lost + unknown;
        self.unknown = unknown;
    }

    /// The incarnations of nodes that may have died with these items in hand.
    pub(crate) fn suspects(&self) -> BTreeSet<String> {
        self.history
            .iter()
            .filter(|attempt| is_lost(attempt))
            .filter_map(|attempt| attempt.incarnation.clone())
            .collect()
    }

    /// Strikes out the attempts of these incarnations, which live. Returns how many there were.
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

/// After this many deaths of its nodes, an item runs with no other of its kind beside it, so that the next death is its own and
/// not counted against its neighbours.
const fn lost_attempts_in_company(attempts: u64) -> u64 {
    if attempts > 3 { 2 } else { 1 }
}

/// Whether a frame shall run apart, because it may be what its nodes died of. As long as that is not known, it is not given up
/// for their deaths either: it may have been in hand each time that another item killed its node. Only where each item has a
/// single attempt there is none left to find out.
fn wants_quarantine(inbound: &InboundFrame, attempts: u64) -> bool {
    if inbound.lane == Lane::Quarantine {
        // Only of very many items are there some in one message here.
        return inbound.len() > 1 && inbound.attempt <= attempts;
    }
    let lost_attempts = inbound.all_lost_attempts();
    let is_odd = inbound.cleared + lost_attempts >= SUSPICIONS_MAX || inbound.unknown >= UNKNOWN_IN_COMPANY;
    is_odd && inbound.attempt <= attempts
        || attempts > 1
            && (lost_attempts >= lost_attempts_in_company(attempts) || lost_attempts > 0 && inbound.attempt > attempts)
}

#[cfg(test)]
mod tests;
