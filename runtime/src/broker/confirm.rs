//! Acknowledgements that the server confirms, and renewals of messages that are not acknowledged yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;

use super::queue::Acker;
use super::{Broker, BrokerError};
use crate::held::HeldSince;
use crate::lock::lock;

/// How long to wait for the server's answer before acknowledging again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for the answer to a renewal.
const FORGET: Duration = Duration::from_mins(1);

/// Acknowledges messages, and remembers those that the server has not confirmed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Confirmer(Arc<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    broker: Broker,
    inbox: String,
    sent: Mutex<Sent>,
}

/// The unconfirmed messages, by the numbers of their requests.
#[derive(Debug, Default)]
struct Sent {
    last: u64,
    acks: HashMap<u64, Acker>,
    renewals: HashMap<u64, (Instant, Arc<HeldSince>)>,
}

/// The server's answers.
#[derive(Debug)]
pub struct Confirmations {
    broker: Broker,
    confirmer: Confirmer,
    answers: Subscriber,
}

impl Confirmer {
    /// Acknowledges a message. Returns before the server has answered.
    pub async fn ack(&self, acker: Acker) {
        let number = self.with(|sent| {
            sent.last += 1;
            sent.acks.insert(sent.last, acker.clone());
            sent.last
        });
        self.send(number, &acker, "+ACK".into()).await;
    }

    /// Lets the message's `ack_wait` begin anew. Updates `held` once the server has answered.
    pub async fn renew(&self, acker: &Acker, held: &Arc<HeldSince>) {
        let number = self.with(|sent| {
            sent.last += 1;
            sent.renewals.insert(sent.last, (Instant::now(), Arc::clone(held)));
            sent.last
        });
        self.send(number, acker, "+WPI".into()).await;
    }

    async fn send(&self, number: u64, acker: &Acker, payload: Bytes) {
        let answer = format!("{}.{number}", self.0.inbox);
        let sent = self.0.broker.client().publish_with_reply(acker.reply(), answer, payload).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "an acknowledgement was not sent");
        }
    }

    async fn send_again(&self) {
        for (number, acker) in self.with(|sent| sent.acks.clone()) {
            self.send(number, &acker, "+ACK".into()).await;
        }
    }

    /// Forgets renewals that the server will not answer any more.
    pub fn forget_old(&self) {
        self.with(|sent| sent.renewals.retain(|_, (at, _)| at.elapsed() < FORGET));
    }

    fn heard(&self, answer: &Message) {
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        // During an election in a cluster, a status says that no server answers. A real answer is empty.
        if let (Some(number), None, true) = (number, answer.status, answer.payload.is_empty()) {
            self.with(|sent| {
                sent.acks.remove(&number);
                if let Some((at, held)) = sent.renewals.remove(&number) {
                    held.renew(at);
                }
            });
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Sent) -> T) -> T {
        change(&mut lock(&self.0.sent))
    }
}

impl Confirmations {
    /// Begins to confirm acknowledgements.
    pub async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let inbox = broker.client().new_inbox();
        let answers = broker.client().subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| BrokerError::other("subscribe", &error))?;
        let unanswered = Unanswered { broker: broker.clone(), inbox, sent: Mutex::default() };
        Ok(Self { broker: broker.clone(), confirmer: Confirmer(Arc::new(unanswered)), answers })
    }

    /// Returns the handle to acknowledge with.
    pub fn confirmer(&self) -> Confirmer {
        self.confirmer.clone()
    }

    /// Records the server's answers, until it is dropped.
    pub async fn note(&mut self) {
        loop {
            match self.answers.next().await {
                Some(answer) => self.confirmer.heard(&answer),
                None => self.answers = self.listen_again().await,
            }
        }
    }

    /// Subscribes over the connection that has replaced an ended one.
    async fn listen_again(&self) -> Subscriber {
        let subject = format!("{}.*", self.confirmer.0.inbox);
        self.broker.listen_again(&subject).await
    }

    /// Waits for a bounded time until the server has confirmed all acknowledgements, and repeats those without an answer.
    ///
    /// Returns how many are still unconfirmed.
    pub async fn finish(&mut self) -> usize {
        let deadline = Instant::now() + self.broker.patience();
        let mut again = Instant::now() + AGAIN;
        loop {
            let left = self.confirmer.with(|sent| sent.acks.len());
            if left == 0 || Instant::now() > deadline {
                return left;
            }
            match tokio::time::timeout_at(again.into(), self.answers.next()).await {
                Ok(Some(answer)) => self.confirmer.heard(&answer),
                Ok(None) => match tokio::time::timeout_at(deadline.into(), self.listen_again()).await {
                    Ok(answers) => {
                        self.answers = answers;
                        self.confirmer.send_again().await;
                    }
                    Err(_) => return left,
                },
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
