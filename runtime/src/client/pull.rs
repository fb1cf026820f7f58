//! Takes results, and on request dead letters. Each goes to one puller.
//!
//! The task in `fetch` takes messages from the server, `hold` keeps them from other pullers, and [`super::pulled`] hands their
//! results to the caller.

mod drained;
mod fetch;
pub(super) mod hold;
mod taken;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use drained::Drained;
use fetch::{Fetcher, Order, Received, Source};
use hold::Holds;
use taken::Removals;

use super::large::LargeItems;
use super::pulled::{Answered, PulledResult};
use super::{Client, ClientError, DeadLetter, ResultItem};
use crate::broker::BrokerError;
use crate::broker::confirm::Confirmations;
use crate::broker::queue::Delivery;
use crate::broker::streams::ChainStreams;
use crate::broker::topic::TopicWork;
use crate::name::{ChainName, Topic};
use crate::subject;

/// Messages in one request.
const BATCH: u64 = 256;
/// How often to check whether the chain is drained.
const LOOK: Duration = Duration::from_millis(100);
/// The index of the stream of results among the sources.
const RESULTS: u8 = 0;
/// The index of the stream of dead letters among the sources.
const FAILURES: u8 = 1;

/// Takes the results of one chain or of one of its topics, and with [`Puller::with_failures`] its dead letters.
///
/// A puller takes results ahead of [`Puller::next`]. When it is dropped, it gives back those that [`Puller::next`] has not
/// returned. [`Puller::close`] does the same, and waits until the server knows all confirmations.
///
/// A large result holds a reference, [`ResultItem::large`], whose bytes [`Client::fetch_large`] fetches. Fetch them before
/// [`PulledResult::ack`]: once all of a message is taken, its bytes go.
#[derive(Debug)]
pub struct Puller<T = ResultItem> {
    client: Client,
    chain: ChainName,
    /// The streams to take from and their consumers, by their index among the sources.
    streams: Vec<(String, String)>,
    /// What is unfinished of the topic. `None` if the puller takes all topics.
    topic: Option<Arc<Mutex<TopicWork>>>,
    /// The subject of results that are put back.
    again: Arc<str>,
    read: fn(u8, &Delivery) -> Vec<T>,
    wanted: Wanted,
    /// `true` while an order to the fetcher has brought nothing yet.
    is_ordered: bool,
    ahead: VecDeque<PulledResult<T>>,
    holds: Arc<Holds>,
    orders: mpsc::UnboundedSender<Order>,
    received: mpsc::UnboundedReceiver<Result<Received, ClientError>>,
    answered: mpsc::UnboundedSender<Answered>,
}

/// How much a puller asks for.
///
/// A request cannot be canceled. If it brings messages after the puller has ended, no other puller gets them for half a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    /// Results that are still wanted. `None` if all are.
    left: Option<u64>,
    /// The number of results in the largest message so far.
    largest: u64,
}

impl Wanted {
    /// Returns how many messages to ask for.
    fn messages(self) -> u64 {
        match self.left {
            None => BATCH,
            Some(left) => left.checked_div(self.largest).unwrap_or(1).clamp(1, BATCH),
        }
    }
}

/// The outcome of an item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The chain gave a result.
    Result(Box<ResultItem>),
    /// The item failed for good and became a dead letter.
    Failure(Box<DeadLetter>),
}

pub(super) async fn puller(client: &Client, chain: &ChainName, topic: Option<&Topic>) -> Result<Puller, ClientError> {
    let LargeItems { store, .. } = LargeItems::of(client, chain).await?;
    let confirmations = Confirmations::open(&client.broker).await?;
    let (consumer, again) = match topic {
        None => (subject::PULL_CONSUMER.to_owned(), subject::results(chain)),
        Some(topic) => {
            ChainStreams::of(&client.broker, chain).create_topic_consumer(topic).await?;
            (subject::topic_consumer(topic), subject::results_again(chain, topic.as_str()))
        }
    };
    let stream = (subject::results_stream(chain), consumer);
    let source = Source::open(client, chain, RESULTS, "results", stream.clone()).await?;
    let holds = Arc::new(Holds::new(confirmations.confirmer()));
    let (orders, ordered) = mpsc::unbounded_channel();
    let (receive, received) = mpsc::unbounded_channel();
    let (answered, answers) = mpsc::unbounded_channel();
    let fetcher = Fetcher {
        client: client.clone(),
        chain: chain.clone(),
        sources: vec![source],
        holds: Arc::clone(&holds),
        confirmations,
        orders: ordered,
        received: receive,
        answered: answers,
        wanted: None,
        taken: Arc::new(Removals::new(store)),
        telling: JoinSet::new(),
    };
    tokio::spawn(fetcher.run());
    Ok(Puller {
        client: client.clone(),
        chain: chain.clone(),
        streams: vec![stream],
        topic: topic.map(|topic| Arc::new(Mutex::new(TopicWork::new(topic.clone())))),
        again: again.into(),
        read: |_, delivery| read_results(delivery),
        wanted: Wanted::default(),
        is_ordered: false,
        ahead: VecDeque::new(),
        holds,
        orders,
        received,
        answered,
    })
}

fn read_results(delivery: &Delivery) -> Vec<ResultItem> {
    ResultItem::all(&delivery.headers(), &delivery.payload, || Some(delivery.stored_millis))
}

fn read_outcomes(source: u8, delivery: &Delivery) -> Vec<Outcome> {
    if source == FAILURES {
        return vec![Outcome::Failure(Box::new(DeadLetter::read(delivery.into())))];
    }
    read_results(delivery).into_iter().map(Box::new).map(Outcome::Result).collect()
}

impl Puller {
    /// Takes dead letters along with results, as they arrive.
    ///
    /// These are the dead letters of all topics. A dead letter that was taken goes to no other puller, but stays in the stream: [`Client::dead_letters`] still lists it,
    /// and it can be retried.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn with_failures(self) -> Result<Puller<Outcome>, ClientError> {
        // A chain that an older pcluster deployed has no such consumer.
        ChainStreams::of(&self.client.broker, &self.chain).create_dead_consumer().await?;
        let stream = (subject::dead_stream(&self.chain), subject::PULL_CONSUMER.to_owned());
        let source = Source::open(&self.client, &self.chain, FAILURES, "dead letters", stream.clone()).await?;
        let Self { client, chain, mut streams, topic, again, wanted, is_ordered, ahead, .. } = self;
        let (holds, orders, received, answered) = (self.holds, self.orders, self.received, self.answered);
        streams.push(stream);
        // The fetcher ends only with the runtime, and then nothing can be taken anyway.
        let _ = orders.send(Order::Add(Box::new(source)));
        let ahead = ahead.into_iter().map(|pulled| pulled.map(|result| Outcome::Result(Box::new(result)))).collect();
        let read = read_outcomes;
        Ok(Puller {
            client,
            chain,
            streams,
            topic,
            again,
            read,
            wanted,
            is_ordered,
            ahead,
            holds,
            orders,
            received,
            answered,
        })
    }
}

impl<T> Puller<T> {
    /// Limits how far the puller takes ahead: to the messages that hold this many results.
    pub fn with_limit(mut self, results: u64) -> Self {
        self.wanted.left = Some(results);
        self
    }

    /// Returns the next result, however long it takes. Keeps waiting while the server is away.
    ///
    /// This can be dropped at any time and called again without losing a result. A puller is also a [`Stream`] of the same
    /// results.
    ///
    /// # Errors
    ///
    /// If the chain's stream of results is gone.
    pub async fn next(&mut self) -> Result<PulledResult<T>, ClientError> {
        poll_fn(|context| self.poll_pulled(context)).await
    }

    fn poll_pulled(&mut self, context: &mut Context<'_>) -> Poll<Result<PulledResult<T>, ClientError>> {
        loop {
            if let Some(pulled) = self.next_ahead() {
                return Poll::Ready(Ok(pulled));
            }
            let received = if let Ok(received) = self.received.try_recv() {
                Some(received)
            } else {
                // Order only once: a second order may bring messages that the caller does not want.
                if !std::mem::replace(&mut self.is_ordered, true) {
                    // The fetcher ends only with the runtime, and that ends this too.
                    let _ = self.orders.send(Order::More(self.wanted.messages()));
                }
                ready!(self.received.poll_recv(context))
            };
            self.is_ordered = false;
            let Some(received) = received else {
                let (what, reason) = ("take results".to_owned(), "the program is about to end".to_owned());
                return Poll::Ready(Err(BrokerError::Other { what, reason }.into()));
            };
            self.take(received?);
        }
    }

    /// Returns the next result. `None` once the chain is drained.
    ///
    /// A chain is drained once every item is handled and pullers have taken all results. A result counts as taken once this
    /// puller has returned it, even before it is confirmed. This can be dropped at any time and called again without losing a
    /// result.
    ///
    /// # Errors
    ///
    /// If the chain's work stream or its stream of results is gone.
    pub async fn next_until_drained(&mut self) -> Result<Option<PulledResult<T>>, ClientError> {
        let drained = Drained::of(self);
        self.next_unless(LOOK, async || drained.is_drained().await).await
    }

    /// Returns a result that is available now. `None` if there is none for this puller.
    ///
    /// This can be dropped at any time and called again without losing a result.
    ///
    /// # Errors
    ///
    /// If the chain's stream of results is gone.
    pub async fn next_at_once(&mut self) -> Result<Option<PulledResult<T>>, ClientError> {
        let drained = Drained::of(self);
        self.next_unless(Duration::ZERO, async || drained.is_empty().await).await
    }

    /// Returns the next result. `None` if `is_over` returns `true` first.
    async fn next_unless(
        &mut self,
        mut after: Duration,
        is_over: impl AsyncFn() -> Result<bool, ClientError>,
    ) -> Result<Option<PulledResult<T>>, ClientError> {
        let look = async |after| {
            tokio::time::sleep(after).await;
            is_over().await
        };
        let mut next = std::pin::pin!(self.next());
        loop {
            tokio::select! {
                biased;
                pulled = &mut next => return pulled.map(Some),
                is_over = look(after) => match is_over {
                    Ok(true) => return Ok(None),
                    Err(error) if !error.is_transient() => return Err(error),
                    _ => after = LOOK,
                },
            }
        }
    }

    /// Returns the next result that was taken ahead and is still held.
    fn next_ahead(&mut self) -> Option<PulledResult<T>> {
        let pulled = loop {
            let pulled = self.ahead.pop_front()?;
            if pulled.is_held() {
                break pulled;
            }
        };
        self.wanted.left = self.wanted.left.map(|left| left.saturating_sub(1));
        Some(pulled)
    }

    fn take(&mut self, Received { source, hold, delivery }: Received) {
        let results = (self.read)(source, &delivery);
        self.holds.give(&hold);
        self.wanted.largest = self.wanted.largest.max(results.len() as u64);
        self.ahead.extend(PulledResult::all(results, hold, delivery, Arc::clone(&self.again), &self.answered));
    }

    /// Returns `true` if every item is handled and all results are taken.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_drained(&self) -> Result<bool, ClientError> {
        Ok(self.ahead.is_empty() && Drained::of(self).is_drained().await?)
    }

    /// Gives back the results taken ahead. Waits until the server knows all confirmations.
    pub async fn close(self) {
        let Self { ahead, orders, .. } = self;
        drop(ahead);
        let (closed, closing) = oneshot::channel();
        if orders.send(Order::Close(closed)).is_err() {
            return;
        }
        if let Ok(left @ 1..) = closing.await {
            tracing::warn!(
                "the server does not know that {left} messages were confirmed, and will hand them out again"
            );
        }
    }
}

/// The same results as [`Puller::next`] returns. The stream never ends.
impl<T> Stream for Puller<T> {
    type Item = Result<PulledResult<T>, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_pulled(context).map(Some)
    }
}

impl<T> Unpin for Puller<T> {}
