//! The task behind a puller: it asks for messages, renews the holds on them, and tells the server what becomes of each.
//!
//! It runs by itself, so that holds are renewed however long the one who pulls is busy with something else, and a puller that
//! is dropped in the middle of something loses nothing. It lives as long as the puller and all that came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::hold::{Hold, Holds, Known, Terms};
use crate::broker::Outage;
use crate::broker::confirm::Confirmations;
use crate::broker::line::Line;
use crate::broker::queue::{Delivery, Event, Queue};
use crate::client::pulled::Answered;
use crate::client::{Client, ClientError};
use crate::frame::header;
use crate::name::ChainName;
use crate::subject;

/// How long to wait before opening the results again.
const REOPEN: Duration = Duration::from_millis(500);
/// The longest that is looked for what cannot be read, in one go.
const LOOK: Duration = Duration::from_secs(2);
/// How much later than it ends a request's last word may come.
const LATE: Duration = Duration::from_secs(1);

/// A stream that is taken from.
#[derive(Debug)]
pub(super) struct Source {
    /// Its place among the sources.
    pub(super) number: u8,
    /// What is in there, in the plural.
    what: &'static str,
    stream: String,
    line: Line,
    queue: Queue,
    /// The place up to which all that was handed out was looked at.
    looked: u64,
    terms: Terms,
    /// When the request that stands was made.
    asked: Instant,
    outage: Outage,
}

/// What a puller wants.
pub(super) enum Order {
    /// As many messages, if none are on their way.
    More(u64),
    /// To take from another stream too.
    Add(Box<Source>),
    /// No more. Whoever waits is told how many messages the server has not heard of in the end.
    Close(oneshot::Sender<usize>),
}

/// A message that has come.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) source: u8,
    pub(super) hold: Arc<Hold>,
    pub(super) delivery: Delivery,
}

/// The task.
pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) chain: ChainName,
    pub(super) sources: Vec<Source>,
    pub(super) holds: Arc<Holds>,
    pub(super) confirmations: Confirmations,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) received: mpsc::UnboundedSender<Result<Received, ClientError>>,
    pub(super) answered: mpsc::UnboundedReceiver<Answered>,
    /// Messages to ask for.
    pub(super) wanted: Option<u64>,
    /// Messages of which the server is being told.
    pub(super) telling: JoinSet<()>,
}

impl Source {
    pub(super) async fn open(
        client: &Client,
        chain: &ChainName,
        number: u8,
        what: &'static str,
        stream: String,
    ) -> Result<Self, ClientError> {
        let terms = Terms::new(client.broker.pull_ack_wait(chain, &stream).await?);
        let line = Line::new(&client.broker, &format!("pcluster-puller {chain}"));
        let queue = line.queue(&stream, subject::PULL_CONSUMER, terms.renew_every()).await?;
        let (asked, outage) = (Instant::now(), Outage::default());
        Ok(Self { number, what, stream, line, queue, looked: 0, terms, asked, outage })
    }

    async fn request(&mut self, messages: u64) -> Result<(), ClientError> {
        self.asked = Instant::now();
        Ok(self.queue.request(messages).await?)
    }

    /// Whether what an old request has brought may still come: nobody knows how long it was on its way.
    fn is_stale(&self) -> bool {
        self.asked.elapsed() > self.terms.renew_every() + LATE
    }

    /// Opens the stream again. Nobody hands out what is in there while the servers of a cluster elect who does.
    async fn reopen(&mut self, client: &Client, chain: &ChainName) -> Result<(), ClientError> {
        let what = format!("take {} of chain `{chain}`", self.what);
        match client.broker.pull_ack_wait(chain, &self.stream).await {
            Ok(ack_wait) => {
                self.terms = Terms::new(ack_wait);
                self.outage.over(&what);
            }
            Err(error) if error.is_transient() => self.outage.met(&client.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        match self.line.queue(&self.stream, subject::PULL_CONSUMER, self.terms.renew_every()).await {
            Ok(queue) => self.queue = queue,
            Err(error) if error.is_transient() => self.outage.met(&client.broker, &what, &error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// After the line was lost: passes over what cannot be read of what was handed out.
    async fn pass_over_unread(&mut self, client: &Client, chain: &ChainName) -> Result<(), ClientError> {
        let what = self.what;
        let looking =
            client.broker.pass_over_unread(&self.stream, subject::PULL_CONSUMER, &mut self.looked, |unread| {
                let (number, fault) = (unread.sequence, unread.fault);
                tracing::warn!(%chain, number, fault, "one of the {what} is passed over; it stays in the stream");
            });
        // What was not looked at by then is when the line is lost the next time.
        match tokio::time::timeout(LOOK, looking).await {
            Ok(Err(error)) if !error.is_transient() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// What has happened.
enum Happened {
    Order(Option<Order>),
    Event(usize, Event),
    Answered(Answered),
    Told,
    Tick,
}

impl Fetcher {
    /// Runs until the puller and all that came of it are gone.
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
                        return;
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
                    // Who asked may have stopped waiting.
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
            // They came after the puller had found none.
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

    /// Says that no more can be taken, until more is asked for again.
    fn fail(&mut self, error: ClientError) {
        self.wanted = None;
        // Nobody is there to hear it when the puller is gone.
        let _ = self.received.send(Err(error));
    }

    async fn event(&mut self, position: usize, event: Event) {
        let reopened = match event {
            Event::Delivery(delivery) => {
                self.take(position, *delivery).await;
                Ok(())
            }
            // Under the new name nothing comes that was asked for under the old one.
            Event::Expired if self.sources[position].is_stale() => {
                self.sources[position].reopen(&self.client, &self.chain).await
            }
            Event::Expired | Event::Oversized => Ok(()),
            Event::Broken => {
                tokio::time::sleep(REOPEN).await;
                // Otherwise the line is opened again when the server is back.
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
        // The first is looked at first: each is so in turn, or the other would wait for as long as one has more.
        self.sources.rotate_left(1);
    }

    async fn mend(&mut self, position: usize) -> Result<(), ClientError> {
        let source = &mut self.sources[position];
        source.pass_over_unread(&self.client, &self.chain).await?;
        source.reopen(&self.client, &self.chain).await
    }

    async fn take(&mut self, position: usize, mut delivery: Delivery) {
        if delivery.header(header::ITEM_PART).is_some() {
            // It comes with its letter.
            return delivery.acker.ack().await;
        }
        if let Err(error) = self.client.broker.add_item(&self.sources[position].stream, &mut delivery).await {
            // The letter is handed out again.
            tracing::debug!(%error, "the item of a dead letter cannot be read");
            return;
        }
        let source = &mut self.sources[position];
        if source.asked.elapsed() >= source.terms.sure_for() {
            // It was on its way for too long: another puller may have it.
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
        if answered.is_mixed() {
            let (broker, holds) = (self.client.broker.clone(), Arc::clone(&self.holds));
            self.telling.spawn(async move { answered.tell(&broker, &holds).await });
        } else {
            answered.tell(&self.client.broker, &self.holds).await;
        }
    }

    /// Ends taking, and gives back what nobody has asked for, also what is still on its way.
    async fn stop_taking(&mut self) {
        self.wanted = None;
        for source in &mut self.sources {
            let _ = source.queue.close().await;
            loop {
                match source.queue.next().await {
                    Event::Delivery(delivery) => delivery.acker.nak(Duration::ZERO).await,
                    Event::Closed | Event::Gone | Event::Broken => break,
                    Event::Expired | Event::Oversized => {}
                }
            }
        }
        self.sources.clear();
        self.holds.give_back_ahead().await;
    }

    /// Does the same, and waits until the server knows what was confirmed.
    async fn close(&mut self) -> usize {
        self.stop_taking().await;
        while let Ok(answered) = self.answered.try_recv() {
            self.tell(answered).await;
        }
        while self.telling.join_next().await.is_some() {}
        let _ = self.client.broker.flush().await;
        self.confirmations.finish().await
    }
}
