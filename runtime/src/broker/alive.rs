//! Telling a client that has died from one that is slow: as long as it lives it answers on a subject of its own, and the server
//! knows at once when nobody listens there any more.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::{Broker, BrokerError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often nobody must listen: in a cluster it takes a moment until all servers know who does.
const ROUNDS: u32 = 3;
/// How long to wait between two of them.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Answering {
    subject: String,
    task: JoinHandle<()>,
}

impl Answering {
    /// Where it answers.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    /// Answers on a subject of its own.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or the server does not answer.
    pub async fn answer(&self) -> Result<Answering, BrokerError> {
        let subject = self.client().new_inbox();
        let subscribed = self.client().subscribe(subject.clone()).await;
        let mut asked = subscribed.map_err(|error| BrokerError::other("subscribe", &error))?;
        let task = tokio::spawn({
            let (broker, subject) = (self.clone(), subject.clone());
            async move {
                loop {
                    while let Some(message) = asked.next().await {
                        if let Some(reply) = message.reply
                            && let Err(error) = broker.client().publish(reply, Bytes::new()).await
                        {
                            tracing::debug!(%error, "whoever asked is not told that this process lives");
                        }
                    }
                    asked = broker.listen_again(&subject).await;
                }
            }
        });
        let answering = Answering { subject, task };
        self.flush().await?;
        Ok(answering)
    }

    /// Returns `true` if nobody listens on a subject any more. One that listens and is silent is not gone.
    pub async fn is_gone(&self, subject: &str) -> bool {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(AGAIN).await;
            }
            let request = Request::new().timeout(Some(PATIENCE));
            match self.client().send_request(subject.to_owned(), request).await {
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {}
                _ => return false,
            }
        }
        true
    }
}
