//! Taking results, and dead letters along with them, each given to one puller; watching them without taking any.

pub(super) mod confirmed;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;

use confirmed::{Confirmed, Handed};

use super::taken::Taken;
use super::{DeadLetter, ResultItem, Root, RootError};
use crate::broker::Complaint;
use crate::broker::confirm::Confirmations;
use crate::broker::follow::{Follower, From};
use crate::broker::queue::{Delivery, Event, Queue, STANDS};
use crate::frame::header;
use crate::name::ChainName;
use crate::subject;

/// Results that one request asks for.
const BATCH: u64 = 256;
/// How long to wait before opening the results again.
const REOPEN: Duration = Duration::from_millis(500);
/// How often to look whether the chain is drained.
const LOOK: Duration = Duration::from_millis(100);
/// How often to tell the server that what was taken ahead is wanted: well within the half minute after which it is given to
/// others.
const KEEP: Duration = Duration::from_secs(8);

/// Takes what comes out of one chain: its results, or with [`Puller::with_failures`] its dead letters too.
pub struct Puller<T = ResultItem> {
    root: Root,
    chain: ChainName,
    sources: Vec<Source<T>>,
    wanted: Wanted,
    taken: VecDeque<Taken<T>>,
    confirmations: Confirmations,
    /// When the server was last told that what was taken ahead is wanted.
    kept: Instant,
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

/// A stream that is taken from.
struct Source<T> {
    /// What is in there, in the plural.
    what: &'static str,
    stream: String,
    queue: Queue,
    confirmed: Arc<Confirmed>,
    complaint: Complaint,
    read: fn(&Delivery) -> Vec<T>,
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// As a result.
    Result(ResultItem),
    /// As a dead letter.
    Failure(Box<DeadLetter>),
}

impl Root {
    /// Opens the results of a chain to take them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn puller(&self, chain: &ChainName) -> Result<Puller, RootError> {
        self.chain(chain).await?;
        let confirmations = self.broker.confirmations().await?;
        let (stream, confirmed) = (subject::results_stream(chain), Confirmed::new(confirmations.confirmer()));
        let results = Source::open(self, "results", stream, confirmed, read_results).await?;
        Ok(Puller {
            root: self.clone(),
            chain: chain.clone(),
            sources: vec![results],
            wanted: Wanted::default(),
            taken: VecDeque::new(),
            confirmations,
            kept: Instant::now(),
        })
    }

    /// Opens the results of a chain to see them without taking them.
    ///
    /// # Errors
    ///
    /// If there is no such chain.
    pub async fn watcher(&self, chain: &ChainName, from: From) -> Result<Watcher, RootError> {
        self.chain(chain).await?;
        let follower = self.broker.follow(&subject::results_stream(chain), vec![subject::results(chain)], from).await?;
        Ok(Watcher { follower, seen: VecDeque::new(), messages: 0 })
    }
}

impl<T> Source<T> {
    async fn open(
        root: &Root,
        what: &'static str,
        stream: String,
        confirmed: Confirmed,
        read: fn(&Delivery) -> Vec<T>,
    ) -> Result<Self, RootError> {
        let queue = root.broker.queue(&stream, subject::PULL_CONSUMER, STANDS).await?;
        Ok(Self { what, stream, queue, confirmed: Arc::new(confirmed), complaint: Complaint::default(), read })
    }

    /// Opens the stream again. Nobody hands out what is in there while the servers of a cluster elect who does.
    async fn reopen(&mut self, root: &Root, chain: &ChainName) -> Result<(), RootError> {
        let what = format!("take {} of chain `{chain}`", self.what);
        tokio::time::sleep(REOPEN).await;
        match root.broker.untaken(chain, &self.stream).await {
            Ok(_) => self.complaint.over(&what),
            Err(error) if error.is_passing() => self.complaint.met(&root.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        self.queue = root.broker.queue(&self.stream, subject::PULL_CONSUMER, STANDS).await?;
        Ok(())
    }
}

fn read_results(delivery: &Delivery) -> Vec<ResultItem> {
    ResultItem::all(&delivery.headers(), &delivery.payload)
}

impl Puller {
    /// Takes dead letters along with results, each as it comes. What is taken is no longer given to pullers, but stays among
    /// the dead letters: [`Root::dead_letters`] still has it, and it can be retried.
    ///
    /// # Errors
    ///
    /// If the server does not allow it.
    pub async fn with_failures(self) -> Result<Puller<Outcome>, RootError> {
        let Self { root, chain, sources, wanted, taken, confirmations, kept } = self;
        // A chain that was deployed by an older pcluster has none.
        root.broker.create_dead_consumer(&chain).await?;
        let mut both: Vec<Source<Outcome>> = Vec::with_capacity(2);
        for Source { what, stream, queue, confirmed, complaint, .. } in sources {
            let read = |delivery: &Delivery| read_results(delivery).into_iter().map(Outcome::Result).collect();
            both.push(Source { what, stream, queue, confirmed, complaint, read });
        }
        let read = |delivery: &Delivery| vec![Outcome::Failure(Box::new(DeadLetter::read(delivery.into())))];
        let (stream, confirmed) = (subject::dead_stream(&chain), Confirmed::new(confirmations.confirmer()));
        both.push(Source::open(&root, "dead letters", stream, confirmed, read).await?);
        let taken = taken.into_iter().map(|taken| taken.map(Outcome::Result)).collect();
        Ok(Puller { root, chain, sources: both, wanted, taken, confirmations, kept })
    }
}

impl<T> Puller<T> {
    /// Takes only as many messages ahead of [`Puller::next`] as this many results may be in.
    #[must_use]
    pub fn with_limit(mut self, results: u64) -> Self {
        self.wanted.left = Some(results);
        self
    }

    /// The next result, however long it takes, also while the server is away. Can be dropped and called again without losing
    /// anything.
    ///
    /// # Errors
    ///
    /// If what the chain keeps its results in is gone.
    pub async fn next(&mut self) -> Result<Taken<T>, RootError> {
        self.keep_held().await;
        loop {
            if let Some(taken) = self.next_held() {
                return Ok(taken);
            }
            for source in &mut self.sources {
                if source.queue.demand() == 0 {
                    source.queue.request(self.wanted.messages()).await?;
                }
            }
            let events = self.sources.iter_mut().map(|source| Box::pin(source.queue.next()));
            let (event, position) = tokio::select! {
                biased;
                (event, position, _) = select_all(events) => (event, position),
                () = self.confirmations.note() => (Event::Closed, 0),
            };
            match event {
                Event::Delivery(delivery) => self.take(position, *delivery).await,
                Event::Expired => {}
                Event::Gone | Event::Closed => self.sources[position].reopen(&self.root, &self.chain).await?,
            }
            // The first is looked at first: each is so in turn, or the other would wait for as long as one has more.
            self.sources.rotate_left(1);
        }
    }

    /// The next result; `None` once every item was handled and everything that this puller gives was taken. Can be dropped and
    /// called again without losing anything.
    ///
    /// # Errors
    ///
    /// If what the chain keeps its items or results in is gone.
    pub async fn next_until_drained(&mut self) -> Result<Option<Taken<T>>, RootError> {
        if let Some(taken) = self.next_held() {
            self.keep_held().await;
            return Ok(Some(taken));
        }
        let streams: Vec<String> = self.sources.iter().map(|source| source.stream.clone()).collect();
        let (root, chain) = (self.root.clone(), self.chain.clone());
        let look = async || {
            tokio::time::sleep(LOOK).await;
            is_drained(&root, &chain, &streams).await
        };
        let mut looking = Box::pin(look());
        let mut next = std::pin::pin!(self.next());
        loop {
            tokio::select! {
                biased;
                taken = &mut next => return taken.map(Some),
                drained = &mut looking => match drained {
                    Ok(true) => return Ok(None),
                    Err(error) if !error.is_passing() => return Err(error),
                    _ => looking = Box::pin(look()),
                },
            }
        }
    }

    /// The next of what was taken ahead.
    fn next_held(&mut self) -> Option<Taken<T>> {
        let taken = self.taken.pop_front()?;
        self.wanted.left = self.wanted.left.map(|left| left.saturating_sub(1));
        Some(taken)
    }

    async fn take(&mut self, position: usize, delivery: Delivery) {
        let source = &self.sources[position];
        let handed = Handed::new(&source.confirmed, &delivery);
        if handed.is_confirmed() {
            return handed.confirm().await;
        }
        let results = (source.read)(&delivery);
        self.wanted.largest = self.wanted.largest.max(results.len() as u64);
        self.taken.extend(Taken::all(results, &self.root.broker, handed, delivery));
    }

    /// Tells the server from time to time that what was taken ahead is still wanted.
    async fn keep_held(&mut self) {
        if self.kept.elapsed() < KEEP {
            return;
        }
        self.kept = Instant::now();
        for taken in &self.taken {
            if taken.is_last() {
                taken.keep().await;
            }
        }
    }

    /// Whether every item was handled and everything that this puller gives was taken.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_drained(&self) -> Result<bool, RootError> {
        let streams: Vec<String> = self.sources.iter().map(|source| source.stream.clone()).collect();
        is_drained(&self.root, &self.chain, &streams).await
    }

    /// Gives back what was taken ahead and not asked for, and waits until the server knows what was confirmed.
    pub async fn close(mut self) {
        for source in &mut self.sources {
            let _ = source.queue.close().await;
            loop {
                match source.queue.next().await {
                    Event::Delivery(delivery) => delivery.acker.nak(Duration::ZERO).await,
                    Event::Closed | Event::Gone => break,
                    Event::Expired => {}
                }
            }
        }
        for taken in self.taken.drain(..) {
            taken.give_back().await;
        }
        let _ = self.root.broker.flush().await;
        let left = self.confirmations.finish().await;
        if left > 0 {
            tracing::warn!("the server has not heard of {left} messages that were taken; it will hand them out again");
        }
    }
}

/// Whether every item of a chain was handled and everything was taken of these streams.
async fn is_drained(root: &Root, chain: &ChainName, streams: &[String]) -> Result<bool, RootError> {
    // Results are stored before their items are done with: asked in this order, none can slip through.
    if root.broker.unfinished(chain).await? > 0 {
        return Ok(false);
    }
    for stream in streams {
        let untaken = root.broker.untaken(chain, stream).await?;
        // What was handed out is not taken before it is confirmed; some of it may be on its way to the one who asks.
        if untaken.queued > 0 || untaken.running > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sees the results of one chain.
pub struct Watcher {
    follower: Follower,
    seen: VecDeque<ResultItem>,
    messages: u64,
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
                self.messages += u64::from(self.seen.is_empty());
                return Ok(result);
            }
            let message = self.follower.next().await?;
            // What a puller has put back was seen before.
            if message.headers.get(header::AGAIN).is_none() {
                self.seen.extend(ResultItem::all(&message.headers, &message.payload));
            }
        }
    }

    /// How many messages all results were seen of.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }
}
