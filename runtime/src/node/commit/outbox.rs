//! Publishing until the server has answered, however long it takes.
//!
//! Messages that belong together are one message, or an atomic batch where one message cannot hold them. A batch costs more: the
//! server keeps files for each. Measured with nats-server 2.15.1 on the text chain, 1,600 frames of 8 outputs took 12.6 s in
//! batches and 1.7 s as messages.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::broker::publish::{PublishError, Published, Publisher};
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::broker::{Broker, BrokerError};
use crate::frame::Headers;
use crate::frame::outgoing::Outgoing;
use crate::node::commit::receipt::{Place, Receipt, StreamKind};
use crate::node::commit::window::Load;
use crate::node::frame::source::Source;
use crate::node::hop::Hop;
use crate::node::route::Route;
use crate::subject::{self, Lane};

/// The first wait before publishing again. Each is twice as long as the one before.
const AGAIN: Duration = Duration::from_millis(10);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// The longest wait between two tries to get into a full queue.
const FULL_AGAIN_MAX: Duration = Duration::from_millis(40);
/// The longest time in front of a full queue without a try. Only a try shows that another run has stored the messages, and that
/// the server takes more than this revision's limit.
const TRY_ANYWAY: Duration = Duration::from_secs(5);
/// After this long, the node reports what it waits for. A cluster may take ten seconds to elect a leader.
const TELL_AFTER: Duration = Duration::from_secs(12);

/// What a commit needs of the streams.
pub(crate) trait Outbox {
    /// Stores messages of one stream, all or none. The key of the last tells whether they are stored already.
    async fn store(&self, source: Source<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError>;

    /// Returns the place of the message with this key in the stream of a subject.
    async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError>;

    /// Returns the headers and the payload of a stored message. `None` if it is gone.
    async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError>;

    /// Records that the message at a place refers to an object.
    async fn hold(&self, name: &str, place: Place) -> Result<(), PublishError>;

    /// Returns the headers of the result at this place. `None` if the stream has dropped it.
    async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError>;

    /// Returns `true` if items of a limited stage may wait in a lane of their own.
    fn parks(&self) -> bool;

    /// Counts messages that were requeued.
    fn requeued(&self, messages: &[Outgoing]);

    /// Counts items that became dead letters.
    fn buried(&self, items: u64);
}

/// The streams of a hop's chain on the server. Each request is sent once.
pub(crate) struct ServerStreams<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) route: &'a Route,
}

impl ServerStreams<'_> {
    /// Stores messages, as in [`Outbox::store`].
    pub(crate) async fn store(&self, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        let streams = Publisher::of(self.broker);
        let (published, last) = match messages {
            [one] => streams.publish_at(one).await?,
            many => match Box::pin(streams.publish_batch(many)).await? {
                (Published::Duplicate, _) => return Box::pin(self.complete(many)).await,
                answer => answer,
            },
        };
        Ok(Receipt::of(published, last))
    }

    /// Stores the rest of a batch that the server refused halfway, unless all of it is stored.
    async fn complete(&self, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        let streams = Publisher::of(self.broker);
        let Some((last, before)) = messages.split_last() else { return Ok(Receipt::of_nothing()) };
        if let Some(place) = streams.known(&last.subject, &last.message_id).await? {
            return Ok(Receipt::of(Published::Duplicate, place));
        }
        tracing::debug!(key = last.message_id, "the server has stored a part of a batch; the rest follows");
        let mut places = Vec::with_capacity(messages.len());
        for message in before {
            places.push(streams.publish_at(message).await?.1);
        }
        let (published, place) = streams.publish_at(last).await?;
        if published == Published::Duplicate {
            // Another run has decided meanwhile. What this one has stored is no part of that.
            let name = self.stream_name(StreamKind::of(&last.subject));
            for place in places {
                Stream::of(self.broker, &name).remove_message(place).await?;
            }
            return Ok(Receipt::of(published, place));
        }
        places.push(place);
        Ok(Receipt::of_each(places))
    }

    fn stream_name(&self, kind: StreamKind) -> String {
        let chain = &self.route.chain.name;
        match kind {
            StreamKind::Work => subject::work_stream(chain),
            StreamKind::Results => subject::results_stream(chain),
            StreamKind::Dead => subject::dead_stream(chain),
        }
    }

    /// Finds a message, as in [`Outbox::find`].
    pub(crate) async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError> {
        Publisher::of(self.broker).known(subject, key).await
    }

    /// Reads a message, as in [`Outbox::message`].
    pub(crate) async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError> {
        let name = self.stream_name(place.kind);
        let message = Stream::of(self.broker, &name).message(place.sequence).await?;
        Ok(message.map(|message| (message.headers, message.payload)))
    }

    /// Returns the headers of a result, as in [`Outbox::result_headers`].
    pub(crate) async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError> {
        let stream = subject::results_stream(&self.route.chain.name);
        Ok(Stream::of(self.broker, &stream).headers(sequence).await?)
    }
}

/// The streams of a hop's chain on the server. Each request is repeated until the server answers.
pub(crate) struct ServerOutbox<'a>(pub(crate) &'a Hop);

impl<'a> ServerOutbox<'a> {
    fn streams(&self) -> ServerStreams<'a> {
        ServerStreams { broker: &self.0.broker, route: &self.0.route }
    }

    /// Repeats requests of which the server can always take another.
    async fn retry<P, T>(&self, request: impl FnMut() -> P) -> Result<T, PublishError>
    where
        P: Future<Output = Result<T, PublishError>>,
    {
        retry_in_line(self.0, Line::None, Load::SMALL, request).await
    }
}

impl Outbox for ServerOutbox<'_> {
    /// Where the next queue is full, frames of the work lane wait in line. Requeued frames are older and go first.
    ///
    /// The server knows a key only within the duplicate window, and a killed server forgets keys of messages that have left its
    /// streams. So a node that was paused or cut off for long first looks whether the message is still queued. If it is not,
    /// another node has handled it.
    async fn store(&self, source: Source<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        let hop = self.0;
        if messages.is_empty() {
            return Ok(Receipt::of_nothing());
        }
        let store = async || {
            if source.held.age() >= hop.route.chain.queue.ack_wait && !Box::pin(is_queued(hop, source)).await? {
                let (stage, sequence) = (&hop.stage().name, source.sequence);
                tracing::debug!(%stage, sequence, "another node has handled the message: it is not in the queue any more");
                return Ok(Receipt::of(Published::Duplicate, 0));
            }
            hop.topics.store(&self.streams(), messages).await
        };
        // The lanes of requeued frames always have room.
        let can_be_full = !hop.route.is_last && messages[0].subject == hop.route.target;
        let line = match (can_be_full, source.lane) {
            (false, _) => Line::None,
            (true, Lane::Work) => Line::Last,
            (true, _) => Line::First,
        };
        let receipt = retry_in_line(hop, line, Load::of(messages), store).await?;
        if receipt.published == Published::Duplicate {
            let key = messages.last().map(|message| &message.message_id);
            tracing::debug!(key, sequence = source.sequence, "another run has decided");
            hop.counters.duplicates.fetch_add(messages.len() as u64, Relaxed);
        }
        Ok(receipt)
    }

    async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError> {
        let streams = self.streams();
        self.retry(|| streams.find(subject, key)).await
    }

    async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError> {
        let streams = self.streams();
        self.retry(|| streams.message(place)).await
    }

    async fn hold(&self, name: &str, place: Place) -> Result<(), PublishError> {
        let Self(hop) = self;
        let (mut backoff, mut told) = (Backoff::new(AGAIN, AGAIN_MAX), None);
        while let Err(error) = hop.large.hold(name, place).await {
            // Without the record, the object would go before the message that is stored by now.
            let error = BrokerError::other(format!("record what refers to {name}"), &error).into();
            told = told.or_else(|| hop.conditions.outputs_wait(&hop.stage().name, &error));
            if !hop.identity.holds().await {
                std::future::pending::<()>().await;
            }
            backoff.wait().await;
        }
        Ok(())
    }

    async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError> {
        let streams = self.streams();
        self.retry(|| streams.result_headers(sequence)).await
    }

    fn parks(&self) -> bool {
        self.0.backlog.room() > 0
    }

    fn requeued(&self, messages: &[Outgoing]) {
        let Self(hop) = self;
        hop.backlog.requeue(messages.len());
        if hop.is_limited() {
            let in_line = messages.iter().filter(|message| Lane::of(&message.subject) != Some(Lane::Parked));
            hop.moved.add(in_line.count() as u64);
        }
    }

    fn buried(&self, items: u64) {
        self.0.count_failed(items);
    }
}

/// Returns `true` if a message that was handed out is still in its queue. Then no other node has handled it before now.
async fn is_queued(hop: &Hop, source: Source<'_>) -> Result<bool, PublishError> {
    let now = Instant::now();
    let is_queued =
        Stream::of(&hop.broker, &subject::work_stream(&hop.route.chain.name)).has_message(source.sequence).await?;
    if is_queued {
        source.held.renew(now);
    }
    Ok(is_queued)
}

/// Where messages wait when their queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nowhere: it cannot be full.
    None,
    /// Before the line.
    First,
    /// At the end of the line.
    Last,
}

/// Repeats a request until the server answers. Gives up only on what can never succeed.
async fn retry_in_line<P, T>(
    hop: &Hop,
    line: Line,
    load: Load,
    mut request: impl FnMut() -> P,
) -> Result<T, PublishError>
where
    P: Future<Output = Result<T, PublishError>>,
{
    let (mut backoff, mut started) = (Backoff::new(AGAIN, AGAIN_MAX), Instant::now());
    let mut told = None;
    let (mut is_again, mut is_full, mut tried) = (false, false, Instant::now());
    let mut place = None;
    if line == Line::Last && hop.window.is_lined_up() {
        place = Some(Box::pin(hop.window.line_up(load)).await);
    }
    loop {
        if !hop.identity.holds().await {
            // The revision is gone. Its supervisor is about to end this task.
            std::future::pending::<()>().await;
        }
        let has_room = || Box::pin(hop.window.has_room(load, Instant::now(), room(hop, load)));
        if !is_full || tried.elapsed() >= TRY_ANYWAY || has_room().await {
            tried = Instant::now();
            let leave = hop.window.enter(load, is_again).await;
            let answer = request().await;
            drop(leave);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error @ PublishError::TooLarge { .. }) => return Err(error),
                Err(error) => error,
            };
            is_again = matches!(error, PublishError::Unanswered(_) | PublishError::Broker(BrokerError::Timeout(_)));
            if !hop.broker.is_connected() {
                // The connection reports that by itself.
                started = Instant::now();
            }
            if told.is_none() && started.elapsed() >= TELL_AFTER {
                told = hop.conditions.outputs_wait(&hop.stage().name, &error);
            }
            is_full = line != Line::None && matches!(error, PublishError::Full(_));
            backoff.bound(if is_full { FULL_AGAIN_MAX } else { AGAIN_MAX });
        }
        if is_full && line == Line::Last && place.is_none() {
            place = Some(hop.window.line_up(load).await);
        }
        backoff.wait().await;
    }
}

/// Returns for how many messages the next queue has room if this load comes next. `None` if the server does not say.
async fn room(hop: &Hop, load: Load) -> Option<u64> {
    let Route { chain, target, .. } = &hop.route;
    let queued = ChainStreams::of(&hop.broker, &chain.name).queued(target).await.ok()?;
    // An empty queue takes a batch of more messages than the limit.
    let most = if queued == 0 { chain.queue.limit.max(load.messages as u64) } else { chain.queue.limit };
    Some(most.saturating_sub(queued))
}
