//! The task behind a puller. It requests messages, renews the holds on them, and tells the server the outcome of each.
//!
//! The task is separate from the caller. So holds are renewed while the caller is busy, and a call that is dropped loses nothing.
//! The task ends once the puller and all results that it returned are gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::hold::{Hold, Holds, Known, Terms};
use super::taken::Removals;
use crate::broker::Outage;
use crate::broker::confirm::Confirmations;
use crate::broker::letters::Letters;
use crate::broker::line::Line;
use crate::broker::queue::{Delivery, Event, Queue};
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::broker::unread;
use crate::client::pulled::Answered;
use crate::client::{Client, ClientError};
use crate::frame::header;
use crate::name::ChainName;

/// After this long without a message, a stopping puller expects no more of those that it has requested.
const ARRIVE: Duration = Duration::from_millis(50);
/// How long to wait before opening a source again.
const REOPEN: Duration = Duration::from_millis(500);
/// The most time for one search for unreadable messages.
const LOOK: Duration = Duration::from_secs(2);
/// How long after its end a request may still be answered.
const LATE: Duration = Duration::from_secs(1);

/// A stream to take messages from.
#[derive(Debug)]
pub(super) struct Source {
    /// The index of this source among the sources.
    pub(super) number: u8,
    /// The kind of messages in the stream, in the plural.
    what: &'static str,
    stream: String,
    /// The consumer that all pullers of the same results share.
    consumer: String,
    line: Line,
    queue: Queue,
    /// The place in the stream up to which unreadable messages were searched.
    looked: u64,
    terms: Terms,
    /// When the current request was made.
    asked: Instant,
    outage: Outage,
}

/// An order of the puller to this task.
pub(super) enum Order {
    /// Request this many messages, unless some are on their way.
    More(u64),
    /// Take from another stream too.
    Add(Box<Source>),
    /// Stop taking. The sender receives the number of messages whose confirmation did not reach the server.
    Close(oneshot::Sender<usize>),
}

/// A message that has arrived.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) source: u8,
    pub(super) hold: Arc<Hold>,
    pub(super) delivery: Delivery,
}

/// The task behind a puller.
pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) chain: ChainName,
    pub(super) sources: Vec<Source>,
    pub(super) holds: Arc<Holds>,
    pub(super) confirmations: Confirmations,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) received: mpsc::UnboundedSender<Result<Received, ClientError>>,
    pub(super) answered: mpsc::UnboundedReceiver<Answered>,
    /// Messages to request. `None` if the puller wants none.
    pub(super) wanted: Option<u64>,
    /// Large results that were taken and not yet removed.
    pub(super) taken: Arc<Removals>,
    /// Tasks that requeue or remove results.
    pub(super) telling: JoinSet<()>,
}

impl Source {
    pub(super) async fn open(
        client: &Client,
        chain: &ChainName,
        number: u8,
        what: &'static str,
        (stream, consumer): (String, String),
    ) -> Result<Self, ClientError> {
        let terms = Terms::new(ChainStreams::of(&client.broker, chain).pull_ack_wait(&stream, &consumer).await?);
        let line = Line::new(&client.broker, &format!("pcluster-puller {chain}"));
        let queue = line.queue(&stream, &consumer, terms.renew_every()).await?;
        let (asked, outage) = (Instant::now(), Outage::default());
        Ok(Self { number, what, stream, consumer, line, queue, looked: 0, terms, asked, outage })
    }

    async fn request(&mut self, messages: u64) -> Result<(), ClientError> {
        self.asked = Instant::now();
        Ok(self.queue.request(messages).await?)
    }

    /// Returns `true` if messages of an old request may still arrive: the time that they took is unknown.
    fn is_stale(&self) -> bool {
        self.asked.elapsed() > self.terms.renew_every() + LATE
    }

    /// Opens the stream again. While a cluster elects a leader for the stream, no server hands out its messages.
    async fn reopen(&mut self, client: &Client, chain: &ChainName) -> Result<(), ClientError> {
        let what = format!("take {} of chain `{chain}`", self.what);
        match ChainStreams::of(&client.broker, chain).pull_ack_wait(&self.stream, &self.consumer).await {
            Ok(ack_wait) => {
                self.terms = Terms::new(ack_wait);
                self.outage.over(&what);
            }
            Err(error) if error.is_transient() => self.outage.met(&client.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        match self.line.queue(&self.stream, &self.consumer, self.terms.renew_every()).await {
            Ok(queue) => self.queue = queue,
            Err(error) if error.is_transient() => self.outage.met(&client.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Passes over messages that were handed out and cannot be read. Called after an error on the connection.
    async fn pass_over_unread(&mut self, client: &Client, chain: &ChainName) -> Result<(), ClientError> {
        let what = self.what;
        let looking =
            unread::pass_over(Stream::of(&client.broker, &self.stream), &self.consumer, &mut self.looked, |unread| {
                let (number, fault) = (unread.sequence, unread.fault);
                tracing::warn!(%chain, number, fault, "one of the {what} is passed over; it stays in the stream");
            });
        // The next error on the connection continues where this search stops.
        match tokio::time::timeout(LOOK, looking).await {
            Ok(Err(error)) if !error.is_transient() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// An event for the task.
enum Happened {
    Order(Option<Order>),
    Event(usize, Event),
    Answered(Answered),
    Told,
    Tick,
}

impl Fetcher {
    /// Runs until the puller and all results that it returned are gone.
    pub(super) async fn run(mut self) {
        let mut renewal = tokio::time::interval(self.renew_every());
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_closed = false;
        loop {
            if let Err(error) = self.request().await {
                self.fail(error);
            }
            let happened = {
                let Self { sources, orders, answered, telling, confirmations, .. } = &mut self;
                let events: Vec<_> = sources.iter_mut().map(|source| Box::pin(source.queue.next())).collect();
                let event = async {
                    if events.is_empty() {
                        return std::future::pending().await;
                    }
                    let (event, position, _) = select_all(events).await;
                    (event, position)
                };
                tokio::select! {
                    biased;
                    _ = renewal.tick() => Happened::Tick,
                    Some(answered) = answered.recv() => Happened::Answered(answered),
                    Some(_) = telling.join_next() => Happened::Told,
                    (event, position) = event => Happened::Event(position, event),
                    order = orders.recv(), if !is_closed => Happened::Order(order),
                    () = confirmations.note() => return,
                }
            };
            match happened {
                Happened::Tick => {
                    let holds_any = self.holds.renew().await;
                    if is_closed && !holds_any && self.telling.is_empty() {
                        self.taken.finish().await;
                        return;
                    }
                    if !self.taken.is_empty() && self.telling.is_empty() {
                        let taken = Arc::clone(&self.taken);
                        self.telling.spawn(async move { taken.remove().await });
                    }
                }
                Happened::Answered(answered) => self.tell(answered).await,
                Happened::Told => {}
                Happened::Event(position, event) => self.event(position, event).await,
                Happened::Order(Some(Order::More(messages))) => self.wanted = Some(messages),
                Happened::Order(Some(Order::Add(source))) => {
                    self.sources.push(*source);
                    renewal = tokio::time::interval(self.renew_every());
                }
                Happened::Order(Some(Order::Close(closed))) => {
                    is_closed = true;
                    let left = self.close().await;
                    // The caller may have stopped waiting.
                    let _ = closed.send(left);
                }
                Happened::Order(None) => {
                    is_closed = true;
                    self.stop_taking().await;
                }
            }
        }
    }

    fn renew_every(&self) -> Duration {
        let each = self.sources.iter().map(|source| source.terms.renew_every());
        each.min().unwrap_or(LATE).max(Duration::from_millis(10))
    }

    async fn request(&mut self) -> Result<(), ClientError> {
        let Some(messages) = self.wanted else { return Ok(()) };
        if self.holds.is_ahead() {
            // These messages arrived after the puller had found none.
            self.wanted = None;
            return Ok(());
        }
        for source in &mut self.sources {
            if source.queue.demand() == 0 {
                source.request(messages).await?;
            }
        }
        Ok(())
    }

    /// Reports an error to the puller. Takes no more until the puller orders more.
    fn fail(&mut self, error: ClientError) {
        self.wanted = None;
        // The send fails only if the puller is gone.
        let _ = self.received.send(Err(error));
    }

    async fn event(&mut self, position: usize, event: Event) {
        let reopened = match event {
            Event::Delivery(delivery) => {
                self.take(position, *delivery).await;
                Ok(())
            }
            // A reopened queue has a new inbox, which messages of old requests do not reach.
            Event::Expired if self.sources[position].is_stale() => {
                self.sources[position].reopen(&self.client, &self.chain).await
            }
            Event::Expired | Event::Oversized => Ok(()),
            Event::Broken => {
                tokio::time::sleep(REOPEN).await;
                // While disconnected, the queue is opened again once the server is back.
                if self.client.broker.is_connected() { self.mend(position).await } else { Ok(()) }
            }
            Event::Gone | Event::Closed => {
                tokio::time::sleep(REOPEN).await;
                self.sources[position].reopen(&self.client, &self.chain).await
            }
        };
        if let Err(error) = reopened {
            self.fail(error);
        }
        // The select prefers the first source. Rotate, so that a busy source does not starve the others.
        self.sources.rotate_left(1);
    }

    async fn mend(&mut self, position: usize) -> Result<(), ClientError> {
        let source = &mut self.sources[position];
        source.pass_over_unread(&self.client, &self.chain).await?;
        source.reopen(&self.client, &self.chain).await
    }

    async fn take(&mut self, position: usize, mut delivery: Delivery) {
        if delivery.header(header::ITEM_PART).is_some() {
            // The dead letter brings this part of its item along.
            return delivery.acker.ack().await;
        }
        if let Err(error) =
            Letters::of(&self.client.broker, &self.sources[position].stream).add_item(&mut delivery).await
        {
            // The server hands out the dead letter again.
            tracing::debug!(%error, "the item of a dead letter cannot be read");
            return;
        }
        let source = &mut self.sources[position];
        if source.asked.elapsed() >= source.terms.sure_for() {
            // The message was on its way for too long: another puller may have it.
            return;
        }
        let place = (source.number, delivery.sequence, delivery.stored_millis);
        match self.holds.take(place, delivery.acker.clone(), source.asked, source.terms) {
            Known::Confirmed => self.holds.confirm_again(delivery.acker).await,
            Known::Held => {}
            Known::New(hold) => {
                self.wanted = None;
                let received = Received { source: source.number, hold, delivery };
                if let Err(unsent) = self.received.send(Ok(received))
                    && let Ok(received) = unsent.0
                {
                    self.holds.give_back(&received.hold).await;
                }
            }
        }
    }

    async fn tell(&mut self, answered: Answered) {
        if answered.is_confirmed() {
            self.taken.note(answered.delivery());
        }
        if answered.is_mixed() {
            let (broker, holds, taken) = (self.client.broker.clone(), Arc::clone(&self.holds), Arc::clone(&self.taken));
            self.telling.spawn(async move { answered.tell(&broker, &holds, taken.store()).await });
        } else {
            answered.tell(&self.client.broker, &self.holds, self.taken.store()).await;
        }
    }

    /// Stops taking. Gives back all messages that the puller has not returned, also those on their way.
    async fn stop_taking(&mut self) {
        self.wanted = None;
        for source in &mut self.sources {
            let mut late = Vec::new();
            // First those that are about to come. A message that the server sends while the subscription ends reaches no one, and
            // is handed out again only after `ack_wait`.
            while source.queue.demand() > 0
                && let Ok(event) = tokio::time::timeout(ARRIVE, source.queue.next()).await
            {
                match event {
                    Event::Delivery(delivery) => late.push(delivery.acker),
                    Event::Expired | Event::Oversized => {}
                    Event::Closed | Event::Gone | Event::Broken => break,
                }
            }
            let _ = source.queue.close().await;
            loop {
                match source.queue.next().await {
                    Event::Delivery(delivery) => late.push(delivery.acker),
                    Event::Closed | Event::Gone | Event::Broken => break,
                    Event::Expired | Event::Oversized => {}
                }
            }
            // Given back at last: the server would hand them out to the request that still stands.
            for acker in late {
                acker.nak(Duration::ZERO).await;
            }
        }
        self.sources.clear();
        self.holds.give_back_ahead().await;
    }

    /// Stops taking, and waits until the server knows all confirmations. Returns how many it does not know.
    async fn close(&mut self) -> usize {
        self.stop_taking().await;
        while let Ok(answered) = self.answered.try_recv() {
            self.tell(answered).await;
        }
        while self.telling.join_next().await.is_some() {}
        let _ = self.client.broker.flush().await;
        let left = self.confirmations.finish().await;
        self.taken.finish().await;
        left
    }
}
