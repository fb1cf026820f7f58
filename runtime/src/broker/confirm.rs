//! Acknowledgements that the server answers, for those who must know that they have arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::queue::Acker;
use super::{Broker, BrokerError};

/// How long to wait for the server's answer before acknowledging again.
const AGAIN: Duration = Duration::from_secs(1);

/// Acknowledges, and remembers what the server has not answered yet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Confirmer(Arc<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    client: async_nats::Client,
    inbox: String,
    /// The next number, and what has none of the server's answers by the number under which it was sent.
    ackers: Mutex<(u64, HashMap<u64, Acker>)>,
}

/// The server's answers.
#[derive(Debug)]
pub struct Confirmations {
    broker: Broker,
    confirmer: Confirmer,
    answers: Subscriber,
}

impl Broker {
    /// Begins to acknowledge with answers.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn confirmations(&self) -> Result<Confirmations, BrokerError> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| BrokerError::other("subscribe", &error))?;
        let unanswered = Unanswered { client: self.client.clone(), inbox, ackers: Mutex::default() };
        Ok(Confirmations { broker: self.clone(), confirmer: Confirmer(Arc::new(unanswered)), answers })
    }
}

impl Confirmer {
    /// Acknowledges a message. Returns before the server has answered.
    pub async fn ack(&self, acker: Acker) {
        let number = self.with(|(next, ackers)| {
            *next += 1;
            ackers.insert(*next, acker.clone());
            *next
        });
        self.send(number, &acker).await;
    }

    async fn send(&self, number: u64, acker: &Acker) {
        let answer = format!("{}.{number}", self.0.inbox);
        let sent = self.0.client.publish_with_reply(acker.reply(), answer, "+ACK".into()).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "an acknowledgement was not sent");
        }
    }

    async fn send_again(&self) {
        for (number, acker) in self.with(|(_, ackers)| ackers.clone()) {
            self.send(number, &acker).await;
        }
    }

    fn heard(&self, answer: &Message) {
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        // While the servers of a cluster elect who answers, a status says that nobody does.
        if let (Some(number), None) = (number, answer.status) {
            self.with(|(_, ackers)| ackers.remove(&number));
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut (u64, HashMap<u64, Acker>)) -> T) -> T {
        change(&mut self.0.ackers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Confirmations {
    /// To acknowledge with.
    #[must_use]
    pub fn confirmer(&self) -> Confirmer {
        self.confirmer.clone()
    }

    /// Takes note of the server's answers, until it is dropped.
    pub async fn note(&mut self) {
        while let Some(answer) = self.answers.next().await {
            self.confirmer.heard(&answer);
        }
    }

    /// Waits until the server has answered for everything, but not for ever, and acknowledges again what it does not answer for.
    /// Returns how many messages are still unanswered.
    pub async fn finish(mut self) -> usize {
        let deadline = Instant::now() + self.broker.patience();
        let mut again = Instant::now() + AGAIN;
        loop {
            let left = self.confirmer.with(|(_, ackers)| ackers.len());
            if left == 0 || Instant::now() > deadline {
                return left;
            }
            match tokio::time::timeout_at(again, self.answers.next()).await {
                Ok(Some(answer)) => self.confirmer.heard(&answer),
                Ok(None) => return left,
                Err(_) => {
                    again = Instant::now() + AGAIN;
                    if self.broker.is_connected() {
                        self.confirmer.send_again().await;
                    }
                }
            }
        }
    }
}
