//! Orphans: messages that are acknowledged and still in the stream.
//!
//! A killed server can lose the removal of a message and keep its acknowledgement: it writes the two to different files, and
//! neither at once. The message is never handed out again, and the chain is never empty. nats-server 2.15.1 removes such messages
//! when it starts, but not from work queues. So a node looks for them when it begins to serve a hop, and after each loss of the
//! connection.
//!
//! A node acknowledges a frame after all that it leaves behind is stored, and the server answers for a stored message after it is
//! written. So no item is lost with an orphan.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::broker::BrokerError;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::node::hop::Hop;
use crate::subject::{self, Lane};

/// The first wait before looking again, while earlier messages are not all acknowledged. Each is twice as long as the one before.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest wait between two looks. A message that waits for its back-off may not be acknowledged for hours.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Removes the orphans of a hop, forever.
pub async fn watch(hop: Arc<Hop>) {
    let mut connected = hop.broker.connected();
    loop {
        let is_connected = *connected.borrow_and_update();
        let looking = async {
            if is_connected {
                remove_all(&hop).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = looking => {}
            changed = connected.changed() => if changed.is_err() { return std::future::pending().await },
        }
    }
}

/// Looks at each lane until all that was handed out by now is acknowledged.
async fn remove_all(hop: &Hop) {
    let lanes = Lane::served(hop.is_limited());
    futures_util::future::join_all(lanes.iter().map(|&lane| remove_from(hop, lane))).await;
}

async fn remove_from(hop: &Hop, lane: Lane) {
    let (mut limit, mut backoff) = (None, Backoff::new(AGAIN, AGAIN_MAX));
    loop {
        match remove(hop, lane, limit).await {
            Ok(None) => return,
            Ok(again) => limit = again,
            Err(error) => tracing::debug!(%error, "orphans are not looked for yet"),
        }
        backoff.wait().await;
    }
}

/// Removes the acknowledged messages of a lane up to a place, or up to the last that was handed out. Returns the place again if
/// not all messages up to it are acknowledged.
async fn remove(hop: &Hop, lane: Lane, limit: Option<u64>) -> Result<Option<u64>, BrokerError> {
    let (chain, stage) = (&hop.route.chain.name, &hop.stage().name);
    let stream = subject::work_stream(chain);
    let progress = ChainStreams::of(&hop.broker, chain).progress(hop.route.revision, stage, lane).await?;
    let limit = limit.unwrap_or(progress.delivered);
    // The stream lost a place that it has yet to reach, and will give it to another message. When it starts, the server winds
    // back a consumer that is ahead of its stream.
    let last = progress.acknowledged.min(limit).min(Stream::of(&hop.broker, &stream).last_place().await?);
    let mut removed = 0_u64;
    for filter in lane.filters(hop.is_limited(), chain, hop.route.revision, stage) {
        let mut place = 0;
        while let Some(next) = Stream::of(&hop.broker, &stream).next_place(&filter, place).await?
            && next <= last
        {
            tracing::debug!(%chain, %stage, ?lane, next, last, "an orphan is removed");
            removed += u64::from(Stream::of(&hop.broker, &stream).remove_message(next).await?);
            place = next;
        }
    }
    if removed > 0 {
        tracing::warn!(%chain, %stage, removed, "messages that were finished before the server was lost are removed");
    }
    Ok((progress.acknowledged < limit).then_some(limit))
}
