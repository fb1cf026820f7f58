//! Runs an orphan again, unless it is known to be handled.
//!
//! A server in a cluster may pass over a message: its consumer counts as acknowledged what no node was ever handed. Removed as an
//! orphan, the item would be lost. So the message is requeued under the key that decides about it. If a node has handled it, the
//! servers know that key and drop the copy.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::broker::BrokerError;
use crate::broker::message::StreamMessage;
use crate::broker::stream::Stream;
use crate::frame::{Headers, header};
use crate::held::HeldSince;
use crate::node::commit::Commit;
use crate::node::commit::outbox::ServerOutbox;
use crate::node::frame::inbound::{QueuedMessage, Read};
use crate::node::hop::Hop;
use crate::node::pipeline;
use crate::subject::Lane;

/// Requeues an orphan that no node may have handled. Returns `true` if it runs again.
///
/// The servers know the key only within the duplicate window. An older message counts as handled, as it does with a single server,
/// which forgets keys when it is killed and passes over nothing.
pub(super) async fn run_again(hop: &Hop, lane: Lane, stream: Stream<'_>, place: u64) -> Result<bool, BrokerError> {
    if lane == Lane::Parked || !hop.broker.is_clustered() {
        return Ok(false);
    }
    let Some(message) = stream.message(place).await? else { return Ok(false) };
    let stored_millis = message.stored_millis();
    let age = Duration::from_millis(now_millis().saturating_sub(stored_millis));
    if age >= hop.route.chain.queue.duplicate_window {
        return Ok(false);
    }
    let orphan = Orphan { message, stored_millis, held: Arc::new(HeldSince::new(Instant::now())) };
    // What cannot be read is removed as it was before.
    let Read::Frame(inbound) = pipeline::read(hop, &orphan, lane) else { return Ok(false) };
    let outbox = ServerOutbox(hop);
    let commit = Commit::new(&outbox, hop.frame(&inbound));
    let is_handled = commit.is_settled().await.map_err(|error| not_stored(place, &error))?;
    if is_handled {
        return Ok(false);
    }
    let (items, back, failed) = (inbound.len(), lane.requeue_lane(), inbound.attempt - 1);
    commit.requeue(items, back, failed, None).await.map_err(|error| not_stored(place, &error))?;
    Ok(true)
}

fn not_stored(place: u64, error: &dyn std::error::Error) -> BrokerError {
    BrokerError::other(format!("requeue message {place}, which is acknowledged and was not handled"), error)
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A message that the server no longer hands out.
struct Orphan {
    message: StreamMessage,
    stored_millis: u64,
    held: Arc<HeldSince>,
}

impl QueuedMessage for Orphan {
    fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name)
    }

    fn message_id(&self) -> Option<&str> {
        self.message.headers.get_exact(header::MESSAGE_ID)
    }

    fn inherited(&self) -> Headers {
        self.message.headers.inherited()
    }

    fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// It was never handed out, or to a node that lives on.
    fn delivered(&self) -> u64 {
        1
    }

    fn stored_millis(&self) -> u64 {
        self.stored_millis
    }

    fn held(&self) -> &Arc<HeldSince> {
        &self.held
    }
}
