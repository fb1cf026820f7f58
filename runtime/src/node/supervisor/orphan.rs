//! Orphans: messages that are acknowledged and still in the stream.
//!
//! A killed server can lose the removal of a message and keep its acknowledgement: it writes the two to different files, and
//! neither at once. The message is never handed out again, and the chain is never empty. nats-server 2.15.1 removes such messages
//! when it starts, but not from work queues. So a node looks for them when it begins to serve a hop, and after each loss of the
//! connection.
//!
//! A node acknowledges a frame after all that it leaves behind is stored, and the server answers for a stored message after it is
//! written. So no item is lost with an orphan. [`rescue`] sees to it that this holds in a cluster too.

mod rescue;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::broker::BrokerError;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::node::hop::Hop;
use crate::subject::{self, Lane};

/// The first wait before looking again, while earlier messages are not all acknowledged or some are orphans. Each is twice as long as
/// the one before.
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
    let (mut before, mut backoff) = (None, Backoff::new(AGAIN, AGAIN_MAX));
    loop {
        match look(hop, lane, before.as_ref()).await {
            Ok(None) => return,
            Ok(again) => before = again,
            Err(error) => tracing::debug!(%error, "orphans are not looked for yet"),
        }
        backoff.wait().await;
    }
}

/// What a look at a lane has found.
struct Look {
    /// The last message that was handed out before the first look.
    limit: u64,
    /// When the consumer was created.
    consumer: String,
    /// Messages that were acknowledged and still there.
    seen: BTreeSet<u64>,
}

/// Looks at the acknowledged messages of a lane up to a place, or up to the last that was handed out. `None` if all messages up to it
/// are acknowledged and gone.
///
/// A message is removed if an earlier look has found it acknowledged too. While a cluster elects a leader, what a server says
/// may be about to change, and the message with it.
async fn look(hop: &Hop, lane: Lane, before: Option<&Look>) -> Result<Option<Look>, BrokerError> {
    let (chain, stage) = (&hop.route.chain.name, &hop.stage().name);
    let stream = subject::work_stream(chain);
    let progress = ChainStreams::of(&hop.broker, chain).progress(hop.route.revision, stage, lane).await?;
    let limit = before.map_or(progress.delivered, |before| before.limit);
    let seen_before = before.filter(|before| before.consumer == progress.created).map(|before| &before.seen);
    // The stream lost a place that it has yet to reach, and will give it to another message. When it starts, the server winds
    // back a consumer that is ahead of its stream.
    let last = progress.acknowledged.min(limit).min(Stream::of(&hop.broker, &stream).last_place().await?);
    let (mut seen, mut removed) = (BTreeSet::new(), 0_u64);
    for filter in lane.filters(hop.is_limited(), chain, hop.route.revision, stage) {
        let mut place = 0;
        while let Some(next) = Stream::of(&hop.broker, &stream).next_place(&filter, place).await?
            && next <= last
        {
            if seen_before.is_some_and(|seen| seen.contains(&next)) {
                let runs_again = rescue::run_again(hop, lane, Stream::of(&hop.broker, &stream), next).await?;
                let is_removed = Stream::of(&hop.broker, &stream).remove_message(next).await?;
                if runs_again {
                    tracing::warn!(%chain, %stage, next, "a message that the server passed over runs again");
                } else {
                    tracing::debug!(%chain, %stage, ?lane, next, last, "an orphan is removed");
                    removed += u64::from(is_removed);
                }
            } else {
                seen.insert(next);
            }
            place = next;
        }
    }
    if removed > 0 {
        tracing::warn!(%chain, %stage, removed, "messages that were finished before the server was lost are removed");
    }
    let is_done = progress.acknowledged >= limit && seen.is_empty();
    Ok((!is_done).then_some(Look { limit, consumer: progress.created, seen }))
}
