//! Taking results, each given to one puller, and watching them without taking any.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ResultItem, Root, RootError};
use crate::broker::follow::{Follower, From};
use crate::broker::queue::{Acker, Event, Queue, STANDS};
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
}

/// A result that was taken. Unless it is confirmed, another puller gets it, in half a minute or when [`Taken::give_back`]
/// is called.
#[derive(Debug)]
pub struct Taken {
    /// The result.
    pub result: ResultItem,
    acker: Option<Acker>,
}

impl Taken {
    /// Confirms the result: no other puller gets it.
    pub async fn ack(self) {
        if let Some(acker) = self.acker {
            acker.ack().await;
        }
    }

    /// Gives the result to the next who asks.
    pub async fn give_back(self) {
        if let Some(acker) = self.acker {
            acker.nak(Duration::ZERO).await;
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
        let queue = self.broker.queue(&subject::results_stream(chain), subject::PULL_CONSUMER, STANDS).await?;
        Ok(Puller { root: self.clone(), chain: chain.clone(), queue, batch: BATCH, taken: VecDeque::new() })
    }

    /// Opens the results of a chain to see them without taking them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn watcher(&self, chain: &ChainName, from: From) -> Result<Watcher, RootError> {
        self.chain(chain).await?;
        let follower = self.broker.follow(&subject::results_stream(chain), vec![subject::results(chain)], from).await?;
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

    /// The next result, however long it takes. Can be dropped and called again without losing anything.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or the chain is gone.
    pub async fn next(&mut self) -> Result<Taken, RootError> {
        loop {
            if let Some(taken) = self.taken.pop_front() {
                return Ok(taken);
            }
            if self.queue.demand() == 0 {
                self.queue.request(self.batch).await?;
            }
            match self.queue.next().await {
                Event::Delivery(delivery) => {
                    let results = ResultItem::all(&delivery.headers(), &delivery.payload);
                    let last = results.len();
                    for (result, position) in results.into_iter().zip(1..) {
                        // A message is confirmed with its last result.
                        let acker = (position == last).then(|| delivery.acker.clone());
                        self.taken.push_back(Taken { result, acker });
                    }
                }
                Event::Expired => {}
                Event::Gone | Event::Closed => {
                    self.root.chain(&self.chain).await?;
                    tokio::time::sleep(REOPEN).await;
                    let stream = subject::results_stream(&self.chain);
                    self.queue = self.root.broker.queue(&stream, subject::PULL_CONSUMER, STANDS).await?;
                }
            }
        }
    }

    /// Gives back what was taken ahead and not asked for.
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
    /// If the connection is closed.
    pub async fn next(&mut self) -> Result<ResultItem, RootError> {
        loop {
            if let Some(result) = self.seen.pop_front() {
                return Ok(result);
            }
            let Some(message) = self.follower.next().await? else {
                return Err(RootError::TimedOut("the connection was closed".to_owned()));
            };
            self.seen.extend(ResultItem::all(&message.headers, &message.payload));
        }
    }
}
