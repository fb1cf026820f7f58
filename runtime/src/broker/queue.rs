//! Taking messages off a durable consumer, exactly as many as are asked for.
//!
//! A node asks for what it has room to run, so that what it cannot run yet stays with the server for other nodes. That is
//! why this does not use the client library's own stream of messages, which fetches ahead.
//!
//! Messages come over a [`Line`], because one of them may break the connection that it comes over; they are acknowledged over
//! the process's first connection, which none of them can break. So what is in hand stays in hand when a line breaks, and only
//! what was on its way over that line is handed out again, after the consumer's `ack_wait`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::line::Line;
use super::link::Link;
use super::place::Place;
use super::{Broker, BrokerError, from_header_map};
use crate::frame::{Headers, header};
use crate::held::HeldSince;

/// The longest that a request for messages stands.
pub const STANDS: Duration = Duration::from_secs(30);
/// How long a request stands while messages come; while none do, each stands twice as long as the one before.
const STANDS_BUSY: Duration = Duration::from_millis(250);
/// After this long without a message, no more are expected in the next moment.
const QUIET: Duration = Duration::from_secs(1);
/// The server says a few times while a long request stands that it does.
const HEARTBEATS: u32 = 4;
/// A request is taken for lost when nothing was heard for two heartbeats and as long as an answer may be late.
const LATE: Duration = Duration::from_secs(1);

/// A durable consumer that messages are asked of.
#[derive(Debug)]
pub struct Queue {
    /// Over which messages come and are asked for.
    open: Broker,
    /// How often that was lost before.
    losses: u64,
    /// Over which they are acknowledged.
    first: Arc<Link>,
    subscriber: Subscriber,
    next_subject: String,
    inbox: String,
    requests: u64,
    demand: u64,
    /// How long the next request stands, and how long one may.
    stands: Duration,
    stands_max: Duration,
    /// When the last request ends.
    ends: Instant,
    /// When the last message came.
    delivered: Instant,
    /// When the server last said anything about the requests that stand.
    heard: Instant,
    connected: watch::Receiver<bool>,
    is_closing: bool,
    /// What was met behind messages that came together.
    behind: Option<Event>,
}

/// What a queue has to say.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Delivery(Box<Delivery>),
    /// A request has ended; [`Queue::demand`] is lower than before.
    Expired,
    /// The same, because the next message has more bytes than the request had left.
    Oversized,
    /// The consumer is not there.
    Gone,
    /// The line was lost. It may be what a message did whose headers the client library cannot read; see
    /// [`super::unread`].
    Broken,
    /// No more will come, after [`Queue::close`].
    Closed,
}

/// A message that was handed out and wants an acknowledgement.
#[derive(Debug)]
pub struct Delivery {
    /// Its payload.
    pub payload: Bytes,
    /// Its place in the stream.
    pub sequence: u64,
    /// Which of the consumer's deliveries this is, from 1.
    pub order: u64,
    /// How many more the consumer has to hand out.
    pub pending: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub stored_millis: u64,
    /// How often it was handed out, this time included.
    pub delivered: u64,
    /// Since when the server waits for an answer.
    pub held: Arc<HeldSince>,
    /// To answer for it.
    pub acker: Acker,
    subject: Subject,
    headers: Option<async_nats::HeaderMap>,
}

impl Delivery {
    /// Where it was published.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The first value of a header, whatever the case of the letters of its name. If several headers differ only in that, it
    /// is the one that is written as it is named here.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        let bytes = |(name, _): &(&async_nats::HeaderName, _)| AsRef::<[u8]>::as_ref(*name).to_vec();
        let value = headers.get(name).or_else(|| {
            let like = headers.iter().filter(|(each, _)| AsRef::<str>::as_ref(*each).eq_ignore_ascii_case(name));
            // The library's map has no order of its own.
            like.min_by_key(bytes)?.1.first()
        });
        value.map(async_nats::HeaderValue::as_str)
    }

    /// The first value of a header that the server reads too, and so only in this case.
    #[must_use]
    pub fn server_header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The headers that what descends from the message inherits.
    #[must_use]
    pub fn inherited(&self) -> Headers {
        let mut inherited = Headers::new();
        for (name, values) in self.headers.iter().flat_map(async_nats::HeaderMap::iter) {
            let name: &str = name.as_ref();
            if !header::is_own(name) {
                for value in values {
                    inherited.push(name.to_owned(), value.as_str());
                }
            }
        }
        inherited
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> Headers {
        from_header_map(self.headers.as_ref())
    }
}

/// Answers for a message. Answers are sent without waiting; one that is lost only makes the server hand the message out again.
#[derive(Debug, Clone)]
pub struct Acker {
    link: Arc<Link>,
    reply: Subject,
}

impl Acker {
    /// The message is handled.
    pub async fn ack(&self) {
        self.answer("+ACK".into()).await;
    }

    /// The message shall be handed out again, not before this long.
    pub async fn nak(&self, delay: Duration) {
        let payload = if delay.is_zero() {
            "-NAK".to_owned()
        } else {
            format!("-NAK {}", json!({ "delay": u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX) }))
        };
        self.answer(payload.into()).await;
    }

    /// The message is being worked on: the server's patience starts anew.
    pub async fn progress(&self) {
        self.answer("+WPI".into()).await;
    }

    /// Where answers for the message go.
    pub(super) fn reply(&self) -> Subject {
        self.reply.clone()
    }

    async fn answer(&self, payload: Bytes) {
        if let Err(error) = self.link.client().publish(self.reply.clone(), payload).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

impl Line {
    /// Opens a durable consumer. Nothing is handed out until [`Queue::request`] is called. A request stands no longer than
    /// this: what it asks for is handed out even if this process cannot take it, because it was paused or cut off meanwhile.
    ///
    /// # Errors
    ///
    /// If the line cannot be opened.
    pub async fn queue(&self, stream: &str, consumer: &str, stands_max: Duration) -> Result<Queue, BrokerError> {
        let inbox = self.first().client().new_inbox();
        let (open, subscriber) = self.subscribe(format!("{inbox}.*")).await?;
        let mut connected = open.connected();
        // What happened to the connection before is no news.
        connected.mark_unchanged();
        Ok(Queue {
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
            connected,
            is_closing: false,
            behind: None,
        })
    }
}

impl Queue {
    /// How many messages were asked for and have not come.
    #[must_use]
    pub fn demand(&self) -> u64 {
        self.demand
    }

    /// Asks for this many more.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn request(&mut self, more: u64) -> Result<(), BrokerError> {
        self.request_within(more, None, None).await
    }

    /// Asks for this many more, of so many `bytes` together, with subjects and headers. The request stands no longer than `patience`;
    /// with none at all, it is for what is there already.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
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
        // The last token tells which request a status is about, and how much it asked for.
        let reply = format!("{}.{}-{more}", self.inbox, self.requests);
        let sent =
            self.open.client().publish_with_reply(self.next_subject.clone(), reply, request.to_string().into()).await;
        sent.map_err(|error| BrokerError::other("ask for messages", &error))
    }

    /// The next thing that happens. Can be dropped and called again without losing anything.
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
                    // It may be there again by now.
                    let before = std::mem::replace(&mut self.losses, self.open.losses());
                    let is_lost = changed.is_err() || !*self.connected.borrow() || self.losses > before;
                    return match (is_lost, self.is_closing) {
                        (false, _) => Event::Expired,
                        (true, false) => Event::Broken,
                        // What is on its way to a queue that is closing does not come over a lost connection.
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

    /// The messages that have come already, before anything else that happens.
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

    /// Whether it is safe to close: no request stands, or it is long since a message came. One that the server hands out at
    /// the moment of closing is lost, and comes again only after the consumer's `ack_wait`.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.demand == 0 || self.ends + LATE < Instant::now() || self.delivered.elapsed() > QUIET
    }

    /// Asks for no more. What has come is still given out, then [`Event::Closed`].
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn close(&mut self) -> Result<(), BrokerError> {
        self.demand = 0;
        self.is_closing = true;
        if !*self.connected.borrow() {
            // There is nobody to tell, and that has to be noticed as if it happened now.
            self.connected.mark_changed();
            return Ok(());
        }
        self.subscriber.drain().await.map_err(|error| BrokerError::other("unsubscribe", &error))
    }

    fn read(&mut self, message: Message) -> Option<Event> {
        // What was handed out has a place, and may begin like a status all the same.
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
        let reply = message.reply?;
        Some(Box::new(Delivery {
            subject: message.subject,
            payload: message.payload,
            sequence: place.sequence,
            order: place.order,
            pending: place.pending,
            stored_millis: place.stored_nanos / 1_000_000,
            delivered: place.delivered,
            held: Arc::new(HeldSince::new(self.delivered.into_std())),
            acker: Acker { link: Arc::clone(&self.first), reply },
            headers: message.headers,
        }))
    }
}
