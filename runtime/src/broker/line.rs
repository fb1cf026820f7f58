//! Connections of their own for what foreign clients have written.
//!
//! The client library reads headers in the task of its connection. Over a message whose headers it cannot read it drops the
//! connection, or ends it for good by a panic, and whatever else was on its way over that connection is lost. So such messages
//! come over a [`Line`], apart from what is published, acknowledged and asked, and apart from the messages of other chains. A
//! connection that has ended is opened anew.
//!
//! What connections cost: a node that serves 300 idle chains takes 6 % of a core with a connection for each of them, and 3.6 % with a
//! single one; its server takes 6.6 % and 5 %. Busy, with 400 items of each chain at once, the node and its server together took
//! 16.3 s of processor time, and 12.7 s with a single one (async-nats 0.51, nats-server 2.15.1, two cores).

use std::sync::{Arc, Weak};

use async_nats::Subscriber;
use tokio::sync::Mutex;

use super::{Broker, BrokerError};

/// A connection that is opened when it is first used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Line {
    /// Over which everything else goes.
    first: Broker,
    name: Arc<str>,
    slot: Slot,
}

/// Where the connection is once it is open.
pub(super) type Slot = Arc<Mutex<Option<Broker>>>;

/// A line that is closed once nobody else has it.
#[derive(Debug)]
pub struct WeakLine {
    name: Arc<str>,
    slot: Weak<Mutex<Option<Broker>>>,
}

impl WeakLine {
    /// Returns `true` if nobody has the line.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.slot.strong_count() == 0
    }

    /// The line; `None` if nobody has it.
    #[must_use]
    pub fn upgrade(&self, first: &Broker) -> Option<Line> {
        Some(Line { first: first.clone(), name: Arc::clone(&self.name), slot: self.slot.upgrade()? })
    }
}

impl Line {
    /// Returns a line that is not open yet. The server shows `name` as the name of its connection.
    #[must_use]
    pub fn new(first: &Broker, name: &str) -> Self {
        Self { first: first.clone(), name: name.into(), slot: Slot::default() }
    }

    /// Returns the line over which this process reads streams.
    pub(super) fn reading(first: &Broker) -> Self {
        Self { first: first.clone(), name: "pcluster-reader".into(), slot: Arc::clone(&first.reading) }
    }

    /// The line, to be found again as long as somebody has it.
    #[must_use]
    pub fn downgrade(&self) -> WeakLine {
        WeakLine { name: Arc::clone(&self.name), slot: Arc::downgrade(&self.slot) }
    }

    /// Opens the line, should it not be open.
    pub async fn check(&self) -> Result<(), BrokerError> {
        self.open().await.map(drop)
    }

    /// The connection over which everything else goes.
    pub(super) fn first(&self) -> &Broker {
        &self.first
    }

    /// The line's connection, opened if there is none or the one before has ended.
    pub(super) async fn open(&self) -> Result<Broker, BrokerError> {
        let mut slot = self.slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.has_ended()) {
            return Ok(open.clone());
        }
        let opened = self.first.connect_again(&self.name).await?;
        *slot = Some(opened.clone());
        Ok(opened)
    }

    /// Listens on a subject over the line.
    pub(super) async fn subscribe(&self, subject: String) -> Result<(Broker, Subscriber), BrokerError> {
        self.subscribe_in(subject, None).await
    }

    /// Listens on a subject over the line, as one of a group or alone.
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
        // It has ended a moment ago.
        self.slot.lock().await.take();
        let open = self.open().await?;
        let subscriber = subscribe(&open).await.map_err(|error| BrokerError::other("subscribe", &error))?;
        Ok((open, subscriber))
    }
}
