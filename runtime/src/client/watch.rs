//! Watches the results of a chain without taking any.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};

use super::{Client, ClientError, Items, ResultItem};
use crate::broker::follow::{Follower, StartAt};
use crate::frame::header;
use crate::name::{ChainName, Topic};
use crate::subject;

pub(super) async fn watcher(
    client: &Client,
    chain: &ChainName,
    topic: Option<&Topic>,
    from: StartAt,
) -> Result<Watcher, ClientError> {
    client.chain(chain).await?;
    let stream = subject::results_stream(chain);
    let subjects = match topic {
        None => subject::results_all(chain),
        Some(topic) => vec![subject::results_of(chain, topic)],
    };
    let follower = Follower::open(&client.broker, &stream, subjects, from).await?;
    Ok(Watcher::new(follower))
}

/// A stream of the results of one chain. It takes none of them.
///
/// Waiting for the next result can be dropped at any time without losing a result. The stream ends after an error.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Watcher {
    results: Items<(ResultItem, u64)>,
    /// Messages whose results were all returned.
    pub(crate) messages: u64,
}

impl Watcher {
    fn new(follower: Follower) -> Self {
        let state = (follower, VecDeque::new(), 0);
        let results = Items::of(state, |(mut follower, mut seen, mut messages): (_, VecDeque<_>, _)| async move {
            loop {
                if let Some(result) = seen.pop_front() {
                    messages += u64::from(seen.is_empty());
                    return Ok(Some(((result, messages), (follower, seen, messages))));
                }
                let message = Follower::next(&mut follower).await?;
                // A message that a puller has requeued was seen before.
                if message.headers.get(header::AGAIN).is_none() {
                    seen.extend(ResultItem::all(&message.headers, &message.payload, || Some(message.stored_millis)));
                }
            }
        });
        Self { results, messages: 0 }
    }
}

impl Stream for Watcher {
    type Item = Result<ResultItem, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.results.poll_next_unpin(context)).transpose()?;
        Poll::Ready(next.map(|(result, messages)| {
            self.messages = messages;
            Ok(result)
        }))
    }
}
