//! Taking results, each given to one puller, and watching them without taking any.

mod confirmed;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use confirmed::{Confirmed, Message};

use super::{ResultItem, Root, RootError};
use crate::broker::Complaint;
use crate::broker::confirm::Confirmations;
use crate::broker::follow::{Follower, From};
use crate::broker::queue::{Delivery, Event, Queue};
use crate::name::ChainName;
use crate::subject;

/// Results that one request asks for.
const BATCH: u64 = 256;
/// How long to wait before opening the results again.
const REOPEN: Duration = Duration::from_millis(500);

/// Takes the results of one chain.
pub struct Puller {
    root: Root,
    chain: ChainName,
    queue: Queue,
    batch: u64,
    taken: VecDeque<Taken>,
    confirmed: Arc<Confirmed>,
    confirmations: Confirmations,
    complaint: Complaint,
}

/// A result that was taken. Unless it is confirmed, another puller gets it, in half a minute or when [`Taken::give_back`]
/// is called.
#[derive(Debug)]
pub struct Taken {
    /// The result.
    pub result: ResultItem,
    /// Of the message that held it, if it is the last result in there.
    message: Option<Message>,
}

impl Taken {
    /// Confirms the result: no other puller gets it.
    pub async fn ack(self) {
        if let Some(message) = self.message {
            message.confirm().await;
        }
    }

    /// Gives the result to the next who asks.
    pub async fn give_back(self) {
        if let Some(message) = self.message {
            message.give_back().await;
        }
    }
}

impl Root {
    /// Opens the results of a chain to take them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn puller(&self, chain: &ChainName) -> Result<Puller, RootError> {
        self.chain(chain).await?;
        let queue = self.broker.queue(&subject::results_stream(chain), subject::PULL_CONSUMER).await?;
        let (root, chain, taken) = (self.clone(), chain.clone(), VecDeque::new());
        let confirmations = self.broker.confirmations().await?;
        let confirmed = Arc::new(Confirmed::new(confirmations.confirmer()));
        let complaint = Complaint::default();
        Ok(Puller { root, chain, queue, batch: BATCH, taken, confirmed, confirmations, complaint })
    }

    /// Opens the results of a chain to see them without taking them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn watcher(&self, chain: &ChainName, from: From) -> Result<Watcher, RootError> {
        self.chain(chain).await?;
        let follower = self.broker.follow(&subject::results_stream(chain), Vec::new(), from).await?;
        Ok(Watcher { follower, seen: VecDeque::new() })
    }

    /// Whether every item was handled and every result was taken.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_drained(&self, chain: &ChainName) -> Result<bool, RootError> {
        // Results are stored before their items are done with: asked in this order, none can slip through.
        if self.broker.unfinished(chain).await? > 0 {
            return Ok(false);
        }
        let untaken = self.broker.untaken(chain).await?;
        // What was handed out is not taken before it is confirmed; some of it may be on its way to the one who asks.
        Ok(untaken.queued == 0 && untaken.running == 0)
    }
}

impl Puller {
    /// Takes at most this many results ahead of [`Puller::next`], so that none is held that is not wanted.
    #[must_use]
    pub fn with_batch(mut self, batch: u64) -> Self {
        self.batch = batch.clamp(1, BATCH);
        self
    }

    /// The next result, however long it takes, also while the server is away. Can be dropped and called again without losing
    /// anything.
    ///
    /// # Errors
    ///
    /// If the chain or what it keeps its results in is gone.
    pub async fn next(&mut self) -> Result<Taken, RootError> {
        loop {
            if let Some(taken) = self.taken.pop_front() {
                return Ok(taken);
            }
            if self.queue.demand() == 0 {
                self.queue.request(self.batch).await?;
            }
            let event = tokio::select! {
                biased;
                event = self.queue.next() => event,
                () = self.confirmations.note() => Event::Closed,
            };
            match event {
                Event::Delivery(delivery) => self.take(*delivery).await,
                Event::Expired => {}
                Event::Gone | Event::Closed => self.reopen().await?,
            }
        }
    }

    async fn take(&mut self, delivery: Delivery) {
        let message = Message::new(&self.confirmed, &delivery);
        if message.is_confirmed() {
            return message.confirm().await;
        }
        let results = ResultItem::all(&delivery.headers(), &delivery.payload);
        let last = results.len();
        for (result, position) in results.into_iter().zip(1..) {
            // A message is confirmed with its last result.
            let message = (position == last).then(|| message.clone());
            self.taken.push_back(Taken { result, message });
        }
    }

    /// Opens the results again. Nobody hands them out while the servers of a cluster elect who does.
    async fn reopen(&mut self) -> Result<(), RootError> {
        let what = format!("take results of chain `{}`", self.chain);
        tokio::time::sleep(REOPEN).await;
        match self.root.broker.untaken(&self.chain).await {
            Ok(_) => self.complaint.over(&what),
            Err(error) if error.is_passing() => self.complaint.met(&self.root.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        self.queue = self.root.broker.queue(&subject::results_stream(&self.chain), subject::PULL_CONSUMER).await?;
        Ok(())
    }

    /// Gives back what was taken ahead and not asked for, and waits until the server knows what was confirmed.
    pub async fn close(mut self) {
        let _ = self.queue.close().await;
        loop {
            match self.queue.next().await {
                Event::Delivery(delivery) => delivery.acker.nak(Duration::ZERO).await,
                Event::Closed | Event::Gone => break,
                Event::Expired => {}
            }
        }
        for taken in self.taken.drain(..) {
            taken.give_back().await;
        }
        let _ = self.root.broker.flush().await;
        let left = self.confirmations.finish().await;
        if left > 0 {
            tracing::warn!("the server has not heard of {left} results that were taken; it will hand them out again");
        }
    }
}

/// Sees the results of one chain.
pub struct Watcher {
    follower: Follower,
    seen: VecDeque<ResultItem>,
}

impl Watcher {
    /// The next result, however long it takes.
    ///
    /// # Errors
    ///
    /// If the results cannot be read any more.
    pub async fn next(&mut self) -> Result<ResultItem, RootError> {
        loop {
            if let Some(result) = self.seen.pop_front() {
                return Ok(result);
            }
            let message = self.follower.next().await?;
            self.seen.extend(ResultItem::all(&message.headers, &message.payload));
        }
    }
}
