//! What to make of a frame that was handed out before.
//!
//! Each earlier delivery is a suspicion: its node may have died of the frame, or run still. [`attempts`](super::frame::attempts)
//! records it as a lost attempt, which costs nothing while attempts are left. Before a frame is given up or goes to quarantine for
//! its lost attempts, the nodes in question are called, and the attempts of those that answer are removed. A node that does not
//! answer may be cut off, so a frame is given up only after a while of silence.
//!
//! The holder of a delivery may be unknown, because the notes are gone or cannot be read. Such a delivery is no attempt, as nobody
//! can be called. An item that kills its nodes must not go on like that forever: it soon runs in quarantine, and of very many such
//! deliveries the later ones count.

pub(crate) mod holder_notes;
pub(crate) mod quarantine;
pub(crate) mod roll_call;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::broker::publish::PublishError;
use crate::broker::queue::Delivery;
use crate::node::commit::Commit;
use crate::node::commit::outbox::ServerOutbox;
use crate::node::frame::admit::{Admission, admit};
use crate::node::frame::attempts::now;
use crate::node::frame::inbound::InboundFrame;
use crate::node::hop::Hop;
use crate::node::phase::{Phase, left_run};
use crate::subject::Lane;

/// A frame is given up for a silent node after this many times `ack_wait`, and no sooner than [`SILENCE_MIN`]. A lost connection is
/// noticed after fifteen seconds and made anew within one.
const SILENCE_PART: u32 = 3;
/// The least silence before a frame is given up.
const SILENCE_MIN: Duration = Duration::from_secs(15);
/// The time between two calls of a silent node.
const CALL_AGAIN: Duration = Duration::from_secs(1);
/// How often to look for the holders of a frame that may have to be given up.
const LOOKS: usize = 4;
/// The time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The result of [`judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Another run of the frame has decided.
    Settled,
    /// The attempts of the frame are known as well as they can be.
    Known,
    /// This node stops before another was silent for long enough.
    Open,
}

/// Looks into earlier deliveries of a frame. `queue` is the lane of the consumer that handed it out.
pub(crate) async fn judge(
    hop: &Hop,
    inbound: &mut InboundFrame,
    queue: Lane,
    delivery: &Delivery,
    phase: &mut watch::Receiver<Phase>,
) -> Result<Judged, PublishError> {
    if inbound.lost_attempts > 0 {
        if is_settled(hop, inbound).await? {
            return Ok(Judged::Settled);
        }
        look_for_holders(hop, inbound, queue, delivery).await;
        inbound.note_suspicions(now);
    }
    let attempts = u64::from(hop.stage().retry.attempts);
    let patience = SILENCE_MIN.max(hop.route.chain.queue.ack_wait * SILENCE_PART);
    // Other frames run meanwhile, however long a node is silent.
    let _aside = (admit(inbound, attempts) != Admission::Run).then(|| hop.limit.set_aside());
    while admit(inbound, attempts) != Admission::Run {
        let silence = call(hop, inbound).await;
        if admit(inbound, attempts) != Admission::GiveUp || silence.is_some_and(|silence| silence >= patience) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(CALL_AGAIN) => {}
            () = left_run(phase) => return Ok(Judged::Open),
        }
        if inbound.lost_attempts > 0 && is_settled(hop, inbound).await? {
            return Ok(Judged::Settled);
        }
    }
    Ok(Judged::Known)
}

/// Returns the frame without the attempts of nodes that run, for an item that would be given up now.
pub(crate) async fn reconsidered(hop: &Hop, inbound: &InboundFrame) -> InboundFrame {
    let mut inbound = inbound.clone();
    call(hop, &mut inbound).await;
    inbound
}

/// Finds the holders of earlier deliveries. Looks more than once if the frame may have to be given up.
async fn look_for_holders(hop: &Hop, inbound: &mut InboundFrame, queue: Lane, delivery: &Delivery) {
    let looks = if inbound.attempt > u64::from(hop.stage().retry.attempts) { LOOKS } else { 1 };
    for look in 0..looks {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        inbound.holders = holder_notes::holders(hop, queue, delivery).await;
        if inbound.holders.is_complete {
            return;
        }
    }
}

/// Calls the holders of a frame and removes the attempts of those that answer. Returns the newest silence of the others.
///
/// `None` if this node cannot tell, because it does not even hear itself.
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

/// Returns `true` if another run of the frame has decided.
async fn is_settled(hop: &Hop, inbound: &InboundFrame) -> Result<bool, PublishError> {
    let is_settled = Commit::new(&ServerOutbox(hop), hop.frame(inbound)).is_settled().await?;
    hop.counters.duplicates.fetch_add(is_settled.into(), Relaxed);
    Ok(is_settled)
}
