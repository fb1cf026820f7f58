//! Connections that carry the messages of foreign clients alone.
//!
//! The client library reads headers in the task of its connection. A message with unreadable headers makes it drop the connection,
//! or ends it for good by a panic. All other messages on their way over that connection are lost. So such messages arrive over a
//! [`Line`], apart from publishes, acknowledgements and requests, and apart from the messages of other chains. An ended connection
//! is opened anew.
//!
//! What connections cost: a node that serves 300 idle chains takes 6 % of a core with a connection for each of them, and 3.6 % with a
//! single one; its server takes 6.6 % and 5 %. Busy, with 400 items of each chain at once, the node and its server together took
//! 16.3 s of processor time, and 12.7 s with a single one (async-nats 0.51, nats-server 2.15.1, two cores).

use std::sync::{Arc, Weak};

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Mutex, watch};

use super::{Broker, BrokerError};

/// A connection that is opened when it is first used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Line {
    /// The connection for all other traffic.
    first: Broker,
    name: Arc<str>,
    slot: Slot,
}

/// The connection, once it is open.
pub(super) type Slot = Arc<Mutex<Option<Broker>>>;

/// The answers to a request that any client may answer, with anything. They arrive over the line for reading.
pub(super) struct Answers {
    subscriber: Subscriber,
    connected: watch::Receiver<bool>,
}

impl Answers {
    /// Sends a request. `what` completes "cannot …".
    pub(super) async fn to(broker: &Broker, subject: String, payload: Bytes, what: &str) -> Result<Self, BrokerError> {
        Self::on(&Line::reading(broker), subject, payload, what).await
    }

    /// Sends a request, and takes the answers over a line of its own. `what` completes "cannot …".
    pub(super) async fn on(line: &Line, subject: String, payload: Bytes, what: &str) -> Result<Self, BrokerError> {
        let inbox = line.first.client().new_inbox();
        let (open, subscriber) = line.subscribe(inbox.clone()).await?;
        let connected = open.connected();
        let sent = open.client().publish_with_reply(subject, inbox, payload).await;
        sent.map_err(|error| BrokerError::other(what, &error))?;
        Ok(Self { subscriber, connected })
    }

    /// Sends a message with headers over a line, and takes the answers over it.
    pub(super) async fn over(
        line: &Line,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Self, BrokerError> {
        let inbox = line.first.client().new_inbox();
        let (open, subscriber) = line.subscribe(inbox.clone()).await?;
        let connected = open.connected();
        let sent = open.client().publish_with_reply_and_headers(subject, inbox, headers, payload).await;
        sent.map_err(|error| BrokerError::other("publish", &error))?;
        Ok(Self { subscriber, connected })
    }

    /// Waits for the next answer. `None` once the line is lost, perhaps to an answer that the client library cannot read.
    pub(super) async fn next(&mut self) -> Option<Message> {
        tokio::select! {
            biased;
            answer = self.subscriber.next() => answer,
            _ = self.connected.changed() => None,
        }
    }
}

/// A line that is closed once its last [`Line`] is dropped.
#[derive(Debug)]
pub struct WeakLine {
    name: Arc<str>,
    slot: Weak<Mutex<Option<Broker>>>,
}

impl WeakLine {
    /// Returns `true` if no [`Line`] is left.
    pub fn is_closed(&self) -> bool {
        self.slot.strong_count() == 0
    }

    /// Returns the line. `None` if no [`Line`] is left.
    pub fn upgrade(&self, first: &Broker) -> Option<Line> {
        Some(Line { first: first.clone(), name: Arc::clone(&self.name), slot: self.slot.upgrade()? })
    }
}

impl Line {
    /// Returns a line that is not open yet. The server shows `name` as the name of its connection.
    pub fn new(first: &Broker, name: &str) -> Self {
        Self { first: first.clone(), name: name.into(), slot: Slot::default() }
    }

    /// Returns the line over which this process reads streams.
    pub(super) fn reading(first: &Broker) -> Self {
        Self { first: first.clone(), name: "pcluster-reader".into(), slot: Arc::clone(&first.reading) }
    }

    /// Returns a weak handle to the line.
    pub fn downgrade(&self) -> WeakLine {
        WeakLine { name: Arc::clone(&self.name), slot: Arc::downgrade(&self.slot) }
    }

    /// Opens the line, unless it is open.
    pub async fn check(&self) -> Result<(), BrokerError> {
        self.open().await.map(drop)
    }

    /// Returns the connection for all other traffic.
    pub(super) fn first(&self) -> &Broker {
        &self.first
    }

    /// Returns the line's connection. Opens one if there is none or it has ended.
    pub(super) async fn open(&self) -> Result<Broker, BrokerError> {
        let mut slot = self.slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.has_ended()) {
            return Ok(open.clone());
        }
        let opened = self.first.connect_again(&self.name).await?;
        *slot = Some(opened.clone());
        Ok(opened)
    }

    /// Subscribes to a subject over the line.
    pub(super) async fn subscribe(&self, subject: String) -> Result<(Broker, Subscriber), BrokerError> {
        self.subscribe_in(subject, None).await
    }

    /// Subscribes to a subject over the line, alone or as a member of a group.
    pub(super) async fn subscribe_in(
        &self,
        subject: String,
        group: Option<&str>,
    ) -> Result<(Broker, Subscriber), BrokerError> {
        let subscribe = async |open: &Broker| match group {
            Some(group) => open.client().queue_subscribe(subject.clone(), group.to_owned()).await,
            None => open.client().subscribe(subject.clone()).await,
        };
        let open = self.open().await?;
        if let Ok(subscriber) = subscribe(&open).await {
            return Ok((open, subscriber));
        }
        // The connection has ended a moment ago.
        self.slot.lock().await.take();
        let open = self.open().await?;
        let subscriber = subscribe(&open).await.map_err(|error| BrokerError::other("subscribe", &error))?;
        Ok((open, subscriber))
    }
}
