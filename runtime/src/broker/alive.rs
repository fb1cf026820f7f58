//! Tells dead clients from slow ones.
//!
//! A living client listens on a subject of its own. The server knows at once when the client stops.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::{Broker, BrokerError};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a client must be found absent. In a cluster it takes a moment until all servers know a listener.
const ROUNDS: u32 = 3;
/// How long to wait between two of these checks.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers requests until it is dropped.
#[derive(Debug)]
pub struct Answering {
    subject: String,
    task: JoinHandle<()>,
}

impl Answering {
    /// Starts to answer on a subject of its own.
    pub async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let subject = broker.client().new_inbox();
        let subscribed = broker.client().subscribe(subject.clone()).await;
        let mut asked = subscribed.map_err(|error| BrokerError::other("subscribe", &error))?;
        let task = tokio::spawn({
            let (broker, subject) = (broker.clone(), subject.clone());
            async move {
                loop {
                    while let Some(message) = asked.next().await {
                        if let Some(reply) = message.reply
                            && let Err(error) = broker.client().publish(reply, Bytes::new()).await
                        {
                            tracing::debug!(%error, "a client is not told that this process lives");
                        }
                    }
                    asked = broker.listen_again(&subject).await;
                }
            }
        });
        let answering = Self { subject, task };
        broker.flush().await?;
        Ok(answering)
    }

    /// Returns the subject on which it answers.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns `true` if a subject has no listener any more. A silent listener still counts.
pub async fn is_gone(broker: &Broker, subject: &str) -> bool {
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(AGAIN).await;
        }
        let request = Request::new().timeout(Some(PATIENCE));
        match broker.client().send_request(subject.to_owned(), request).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {}
            _ => return false,
        }
    }
    true
}
