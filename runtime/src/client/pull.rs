//! Taking results, and dead letters along with them, each given to one puller.
//!
//! `fetch` is the task that takes messages and keeps them from others, `hold` knows how long a message is certainly this
//! puller's, [`super::pulled`] is what the puller gives.

mod fetch;
pub(super) mod hold;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use fetch::{Fetcher, Order, Received, Source};
use hold::Holds;

use super::pulled::{Answered, PulledResult};
use super::{Client, ClientError, DeadLetter, ResultItem};
use crate::broker::BrokerError;
use crate::broker::confirm::Confirmations;
use crate::broker::queue::Delivery;
use crate::name::ChainName;
use crate::subject;

/// Messages that one request asks for.
const BATCH: u64 = 256;
/// How often to look whether the chain is drained.
const LOOK: Duration = Duration::from_millis(100);
/// How long what was handed out may be on its way to a puller that takes what is there.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
/// The place of the results among the sources.
const RESULTS: u8 = 0;
/// The place of the dead letters.
const FAILURES: u8 = 1;

/// Takes what comes out of one chain: its results, or with [`Puller::with_failures`] its dead letters too.
///
/// What was taken ahead of [`Puller::next`] is given back when the puller is dropped. [`Puller::close`] does so in order and
/// waits until the server knows of all that was confirmed.
#[derive(Debug)]
pub struct Puller<T = ResultItem> {
    client: Client,
    chain: ChainName,
    /// The streams that are taken from, by their places among the sources.
    streams: Vec<String>,
    read: fn(u8, &Delivery) -> Vec<T>,
    wanted: Wanted,
    /// Whether an order stands that has brought nothing yet.
    is_ordered: bool,
    ahead: VecDeque<PulledResult<T>>,
    holds: Arc<Holds>,
    orders: mpsc::UnboundedSender<Order>,
    received: mpsc::UnboundedReceiver<Result<Received, ClientError>>,
    answered: mpsc::UnboundedSender<Answered>,
}

/// How much a puller asks for. A request cannot be taken back: what it still brings when the puller ends would be given to
/// nobody for half a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    /// Results that are still wanted; `None`: all.
    left: Option<u64>,
    /// Results in the largest message so far.
    largest: u64,
}

impl Wanted {
    /// The messages to ask for.
    fn messages(self) -> u64 {
        match self.left {
            None => BATCH,
            Some(left) => left.checked_div(self.largest).unwrap_or(1).clamp(1, BATCH),
        }
    }
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// As a result.
    Result(ResultItem),
    /// As a dead letter.
    Failure(Box<DeadLetter>),
}

impl Client {
    /// Opens the results of a chain to take them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn puller(&self, chain: &ChainName) -> Result<Puller, ClientError> {
        self.chain(chain).await?;
        let confirmations = Confirmations::open(&self.broker).await?;
        let stream = subject::results_stream(chain);
        let source = Source::open(self, chain, RESULTS, "results", stream.clone()).await?;
        let holds = Arc::new(Holds::new(confirmations.confirmer()));
        let (orders, ordered) = mpsc::unbounded_channel();
        let (receive, received) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let fetcher = Fetcher {
            client: self.clone(),
            chain: chain.clone(),
            sources: vec![source],
            holds: Arc::clone(&holds),
            confirmations,
            orders: ordered,
            received: receive,
            answered: answers,
            wanted: None,
            telling: JoinSet::new(),
        };
        tokio::spawn(fetcher.run());
        Ok(Puller {
            client: self.clone(),
            chain: chain.clone(),
            streams: vec![stream],
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
}

fn read_results(delivery: &Delivery) -> Vec<ResultItem> {
    ResultItem::all(&delivery.headers(), &delivery.payload)
}

fn read_outcomes(source: u8, delivery: &Delivery) -> Vec<Outcome> {
    if source == FAILURES {
        return vec![Outcome::Failure(Box::new(DeadLetter::read(delivery.into())))];
    }
    read_results(delivery).into_iter().map(Outcome::Result).collect()
}

impl Puller {
    /// Takes dead letters along with results, each as it comes. What is taken is no longer given to pullers, but stays among
    /// the dead letters: [`Client::dead_letters`] still has it, and it can be retried.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn with_failures(self) -> Result<Puller<Outcome>, ClientError> {
        let Self { client, chain, mut streams, read: _, wanted, is_ordered, ahead, holds, orders, received, answered } =
            self;
        // A chain that was deployed by an older pcluster has none.
        client.broker.create_dead_consumer(&chain).await?;
        let stream = subject::dead_stream(&chain);
        let source = Source::open(&client, &chain, FAILURES, "dead letters", stream.clone()).await?;
        streams.push(stream);
        // The task ends only with the runtime, and then nothing can be taken anyway.
        let _ = orders.send(Order::Add(Box::new(source)));
        let ahead = ahead.into_iter().map(|pulled| pulled.map(Outcome::Result)).collect();
        let read = read_outcomes;
        Ok(Puller { client, chain, streams, read, wanted, is_ordered, ahead, holds, orders, received, answered })
    }
}

impl<T> Puller<T> {
    /// Takes only as many messages ahead of [`Puller::next`] as this many results may be in.
    #[must_use]
    pub fn with_limit(mut self, results: u64) -> Self {
        self.wanted.left = Some(results);
        self
    }

    /// Returns the next result, however long it takes, also while the server is away.
    ///
    /// Can be dropped in the middle and called again without losing anything. A puller is a [`Stream`] of the same results.
    ///
    /// # Errors
    ///
    /// If what the chain keeps its results in is gone.
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
                // Once: what a second order brings may be wanted by nobody.
                if !std::mem::replace(&mut self.is_ordered, true) {
                    // The task ends only with the runtime, and that ends this too.
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

    /// The next result; `None` once every item was handled and everything that this puller gives was taken, by others or by
    /// this one: what it has given is taken, even if it was not confirmed yet. Can be dropped and called again without losing
    /// anything.
    ///
    /// # Errors
    ///
    /// If what the chain keeps its items or results in is gone.
    pub async fn next_until_drained(&mut self) -> Result<Option<PulledResult<T>>, ClientError> {
        let drained = Drained::of(self);
        self.next_unless(LOOK, async || drained.is_drained().await).await
    }

    /// The next result of those that are there at the moment; `None` if there is none for this puller. Can be dropped and
    /// called again without losing anything.
    ///
    /// # Errors
    ///
    /// If what the chain keeps its results in is gone.
    pub async fn next_at_once(&mut self) -> Result<Option<PulledResult<T>>, ClientError> {
        let drained = Drained::of(self);
        self.next_unless(Duration::ZERO, async || drained.is_empty().await).await
    }

    /// The next result, unless it is found that there is none.
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

    /// The next of what was taken ahead, and is still this puller's.
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
        self.ahead.extend(PulledResult::all(results, hold, delivery, &self.answered));
    }

    /// Whether every item was handled and everything that this puller gives was taken, by others or by this one.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_drained(&self) -> Result<bool, ClientError> {
        Ok(self.ahead.is_empty() && Drained::of(self).is_drained().await?)
    }

    /// Gives back what was taken ahead and not asked for, and waits until the server knows what was confirmed.
    pub async fn close(self) {
        let Self { ahead, orders, .. } = self;
        drop(ahead);
        let (closed, closing) = oneshot::channel();
        if orders.send(Order::Close(closed)).is_err() {
            return;
        }
        if let Ok(left @ 1..) = closing.await {
            tracing::warn!("the server has not heard of {left} messages that were taken; it will hand them out again");
        }
    }
}

/// Gives the same results as [`Puller::next`]. It never ends.
impl<T> Stream for Puller<T> {
    type Item = Result<PulledResult<T>, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_pulled(context).map(Some)
    }
}

impl<T> Unpin for Puller<T> {}

/// Looks whether there is nothing more to take.
struct Drained {
    client: Client,
    chain: ChainName,
    streams: Vec<String>,
    holds: Arc<Holds>,
}

impl Drained {
    fn of<T>(puller: &Puller<T>) -> Self {
        let Puller { client, chain, streams, holds, .. } = puller;
        Self { client: client.clone(), chain: chain.clone(), streams: streams.clone(), holds: Arc::clone(holds) }
    }

    async fn is_drained(&self) -> Result<bool, ClientError> {
        // Results are stored before their items are done with: asked in this order, none can slip through.
        if self.client.broker.unfinished(&self.chain).await? > 0 {
            return Ok(false);
        }
        for (stream, number) in self.streams.iter().zip(RESULTS..) {
            let untaken = self.client.broker.untaken(&self.chain, stream).await?;
            // What others hold is not taken before it is confirmed; some of it may be on its way to this puller.
            if untaken.queued > 0 || untaken.running > self.holds.given(number) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing waits for a puller. What was handed out and not given yet may be on its way to this one, or another has
    /// it; nobody knows, so it has a moment to come.
    async fn is_empty(&self) -> Result<bool, ClientError> {
        let mut is_known = true;
        for (stream, number) in self.streams.iter().zip(RESULTS..) {
            let untaken = self.client.broker.untaken(&self.chain, stream).await?;
            if untaken.queued > 0 {
                return Ok(false);
            }
            is_known &= untaken.running <= self.holds.given(number);
        }
        if !is_known {
            tokio::time::sleep(ON_ITS_WAY).await;
        }
        Ok(true)
    }
}
