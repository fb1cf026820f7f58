//! Takes messages off a durable consumer, exactly as many as are requested.
//!
//! A node requests what it has room to run, so that the rest stays on the server for other nodes. The client library's own stream
//! of messages fetches ahead and does not serve here.
//!
//! Messages arrive over a [`Line`], because a message may break the connection that it arrives over. They are acknowledged over
//! the process's first connection, which no message can break. So messages in hand stay in hand when a line breaks. Only the
//! messages that were on their way over that line are delivered again, after the consumer's `ack_wait`.

mod delivery;
mod place;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::line::Line;
use super::link::Link;
use super::{Broker, BrokerError};
use place::Place;

pub use delivery::{Acker, Delivery};

/// The longest time that a request for messages stands.
pub const STANDS: Duration = Duration::from_secs(30);
/// How long a request stands while messages arrive. While none do, each request stands twice as long as the one before.
const STANDS_BUSY: Duration = Duration::from_millis(250);
/// After this long without a message, a queue counts as quiet.
const QUIET: Duration = Duration::from_secs(1);
/// Heartbeats that the server sends while a long request stands.
const HEARTBEATS: u32 = 4;
/// How late an answer may be. After two heartbeats and this long of silence a request counts as lost.
const LATE: Duration = Duration::from_secs(1);

/// A durable consumer that messages are requested from.
#[derive(Debug)]
pub struct Queue {
    /// The connection for requests and messages.
    open: Broker,
    /// How often that connection was lost before.
    losses: u64,
    /// The connection for acknowledgements.
    first: Arc<Link>,
    subscriber: Subscriber,
    next_subject: String,
    inbox: String,
    requests: u64,
    demand: u64,
    /// How long the next request stands, and the longest that a request may.
    stands: Duration,
    stands_max: Duration,
    /// When the last request ends.
    ends: Instant,
    /// When the last message arrived.
    delivered: Instant,
    /// When the server was last heard about the requests that stand.
    heard: Instant,
    connected: watch::Receiver<bool>,
    is_closing: bool,
    /// Event seen while draining ready messages.
    behind: Option<Event>,
}

/// An event of a queue.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Delivery(Box<Delivery>),
    /// A request has ended; [`Queue::demand`] is lower than before.
    Expired,
    /// A request has ended because the next message has more bytes than the request had left.
    Oversized,
    /// The consumer does not exist.
    Gone,
    /// The line was lost, perhaps to a message whose headers the client library cannot read; see [`super::unread`].
    Broken,
    /// No more messages arrive, after [`Queue::close`].
    Closed,
}

impl Line {
    /// Opens a durable consumer. Nothing is delivered before [`Queue::request`].
    ///
    /// A request stands no longer than `stands_max`: the server delivers what is requested even while this process is paused or cut
    /// off.
    pub async fn queue(&self, stream: &str, consumer: &str, stands_max: Duration) -> Result<Queue, BrokerError> {
        let inbox = self.first().client().new_inbox();
        let (open, subscriber) = self.subscribe(format!("{inbox}.*")).await?;
        Ok(Queue {
            connected: open.connected(),
            losses: open.losses(),
            open,
            first: Arc::clone(&self.first().link),
            subscriber,
            next_subject: format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", self.first().api_prefix),
            inbox,
            requests: 0,
            demand: 0,
            stands: STANDS_BUSY.min(stands_max),
            stands_max,
            ends: Instant::now(),
            delivered: Instant::now(),
            heard: Instant::now(),
            is_closing: false,
            behind: None,
        })
    }
}

impl Queue {
    /// Returns how many messages were requested and have not arrived.
    pub fn demand(&self) -> u64 {
        self.demand
    }

    /// Requests this many more messages.
    pub async fn request(&mut self, more: u64) -> Result<(), BrokerError> {
        self.request_within(more, None, None).await
    }

    /// Requests this many more messages, of at most so many `bytes` together.
    ///
    /// Subjects and headers count as bytes too. The request stands no longer than `patience`. A `patience` of zero requests only
    /// what is stored already.
    pub async fn request_within(
        &mut self,
        more: u64,
        bytes: Option<u64>,
        patience: Option<Duration>,
    ) -> Result<(), BrokerError> {
        if more == 0 {
            return Ok(());
        }
        if self.demand == 0 {
            self.heard = Instant::now();
        }
        self.requests += 1;
        self.demand += more;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let stands = patience.unwrap_or(Duration::MAX).min(self.stands);
        self.ends = self.ends.max(Instant::now() + stands);
        let mut request = match stands {
            Duration::ZERO => json!({ "batch": more, "no_wait": true }),
            stands => json!({ "batch": more, "expires": nanos(stands) }),
        };
        if let Some(bytes) = bytes {
            // The server counts in signed numbers.
            request["max_bytes"] = bytes.min(i64::MAX as u64).into();
        }
        let heartbeat = self.stands_max / HEARTBEATS;
        if heartbeat * 2 <= stands {
            request["idle_heartbeat"] = nanos(heartbeat).into();
        }
        // The last token names the request that a status belongs to, and its number of messages.
        let reply = format!("{}.{}-{more}", self.inbox, self.requests);
        let sent =
            self.open.client().publish_with_reply(self.next_subject.clone(), reply, request.to_string().into()).await;
        sent.map_err(|error| BrokerError::other("ask for messages", &error))
    }

    /// Waits for the next event. It may be dropped and called again without loss.
    pub async fn next(&mut self) -> Event {
        if let Some(event) = self.behind.take() {
            return event;
        }
        loop {
            let silence = tokio::time::sleep_until(self.heard + self.stands_max / HEARTBEATS * 2 + LATE);
            let message = tokio::select! {
                biased;
                message = self.subscriber.next() => message,
                changed = self.connected.changed() => {
                    // A server that was away remembers no request.
                    self.demand = 0;
                    // The connection may be back by now.
                    let before = std::mem::replace(&mut self.losses, self.open.losses());
                    let is_lost = changed.is_err() || !*self.connected.borrow() || self.losses > before;
                    return match (is_lost, self.is_closing) {
                        (false, _) => Event::Expired,
                        (true, false) => Event::Broken,
                        // A closing queue gets no more messages over a lost connection.
                        (true, true) => Event::Closed,
                    };
                }
                () = silence, if self.demand > 0 => {
                    self.demand = 0;
                    return Event::Expired;
                }
            };
            self.heard = Instant::now();
            let Some(message) = message else {
                return if self.is_closing { Event::Closed } else { Event::Broken };
            };
            if let Some(event) = self.read(message) {
                return event;
            }
        }
    }

    /// Returns the messages that have arrived already, up to the next other event.
    pub fn come(&mut self) -> Vec<Delivery> {
        let mut come = Vec::new();
        while self.behind.is_none()
            && let Some(event) = self.next().now_or_never()
        {
            match event {
                Event::Delivery(delivery) => come.push(*delivery),
                event => self.behind = Some(event),
            }
        }
        come
    }

    /// Returns `true` if closing is safe: no request stands, or no message arrived for a while.
    ///
    /// A message that the server delivers at the moment of closing is lost until the consumer's `ack_wait` has passed.
    pub fn is_quiet(&self) -> bool {
        self.demand == 0 || self.ends + LATE < Instant::now() || self.delivered.elapsed() > QUIET
    }

    /// Ends all requests. Messages that have arrived still follow, then [`Event::Closed`].
    pub async fn close(&mut self) -> Result<(), BrokerError> {
        self.demand = 0;
        self.is_closing = true;
        if !*self.connected.borrow() {
            // No server can be told. The next event must be the lost connection.
            self.connected.mark_changed();
            return Ok(());
        }
        self.subscriber.drain().await.map_err(|error| BrokerError::other("unsubscribe", &error))
    }

    fn read(&mut self, message: Message) -> Option<Event> {
        // A delivered message has a place, even if its headers begin like a status.
        if let Some(place) = message.reply.as_deref().and_then(Place::parse) {
            return self.deliver(message, &place).map(Event::Delivery);
        }
        let status = message.status?;
        if status == StatusCode::IDLE_HEARTBEAT {
            return None;
        }
        let asked = message.subject.rsplit('-').next().and_then(|asked| asked.parse::<u64>().ok());
        let open = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let open = open.and_then(|open| open.as_str().parse::<u64>().ok()).or(asked).unwrap_or(self.demand);
        self.demand = self.demand.saturating_sub(open);
        if self.delivered.elapsed() > self.stands {
            self.stands = (self.stands * 2).min(self.stands_max);
        }
        let description = message.description.as_deref().unwrap_or_default();
        let terminated =
            |why: &str| status == StatusCode::REQUEST_TERMINATED && description.to_lowercase().contains(why);
        Some(match status {
            StatusCode::NO_RESPONDERS => Event::Gone,
            _ if terminated("consumer deleted") => Event::Gone,
            _ if terminated("exceeds maxbytes") => Event::Oversized,
            _ => Event::Expired,
        })
    }

    fn deliver(&mut self, message: Message, place: &Place) -> Option<Box<Delivery>> {
        self.demand = self.demand.saturating_sub(1);
        self.delivered = Instant::now();
        self.stands = STANDS_BUSY.min(self.stands_max);
        Delivery::new(message, place, self.delivered.into_std(), &self.first).map(Box::new)
    }
}
