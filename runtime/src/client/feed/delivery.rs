//! Delivers fed messages to the server, however long that takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Fed;
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::broker::Broker;
use crate::broker::publish::Publisher;
use crate::broker::publish::{PublishError, Published};
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::client::{Client, ClientError, intake};
use crate::frame::outgoing::Outgoing;
use crate::name::ChainName;
use crate::subject;

/// The first wait before the next try. Each is twice as long as the one before.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_millis(250);
/// How long a check of an intake without listener stays valid.
const LEARNED: Duration = Duration::from_secs(1);
/// How long an open intake may have no listener.
const UNHEARD: Duration = Duration::from_secs(5);

/// How often to check for other listeners to the intake: a leaf node may connect at any time.
const LISTENERS: Duration = Duration::from_secs(10);

/// The reason why a feeder waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// When the last item was stored, or the wait began.
    pub since: Instant,
    /// The reason why the server stores no item.
    pub reason: String,
    /// `true` if the only reason is a lost connection. That is reported separately.
    pub is_lost: bool,
}

/// Reports the progress of a feeder, also while it feeds.
#[derive(Clone)]
pub struct Waits {
    broker: Broker,
    waiting: Arc<Mutex<Option<Waiting>>>,
    shared: Arc<Shared>,
    opened: Instant,
}

impl Waits {
    /// Returns the current reason to wait. `None` if the feeder does not wait.
    pub fn now(&self) -> Option<Waiting> {
        let mut waiting = self.lock().clone()?;
        if !self.broker.is_connected() {
            waiting.is_lost = true;
            "the connection to NATS is lost".clone_into(&mut waiting.reason);
        }
        Some(waiting)
    }

    /// Returns how many items the chain has stored so far.
    pub fn fed(&self) -> Fed {
        self.shared.progress().0
    }

    /// Returns the time since the last item was stored. Before the first, it is the time since the feeder was opened.
    pub fn idle(&self) -> Duration {
        self.shared.progress().1.unwrap_or(self.opened).elapsed()
    }

    /// Returns `true` if the server has not answered for a message.
    pub fn is_sending(&self) -> bool {
        self.shared.progress().2 > 0
    }

    pub(super) fn met(&self, reason: &impl ToString) {
        let mut waiting = self.lock();
        let since = waiting.as_ref().map_or_else(Instant::now, |waiting| waiting.since);
        *waiting = Some(Waiting { since, reason: reason.to_string(), is_lost: false });
    }

    fn over(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that the server has stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivered {
    /// Whether it counts as stored now.
    pub(super) published: Published,
    /// Its place in the work stream, or that of an earlier message with its id.
    pub(super) place: u64,
    /// `true` if the server has just stored it. Otherwise a message with its id was there: of an earlier try, or of another feeder.
    pub(super) is_new: bool,
}

/// The tries to deliver an item, also in several messages of which the server stores one.
pub(super) struct Tries {
    backoff: Backoff,
    /// When the intake was first found without listener.
    unheard: Option<Instant>,
    /// `true` if the server may have stored a message that it has not answered for.
    pub(super) is_unanswered: bool,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::new(AGAIN, AGAIN_MAX), unheard: None, is_unanswered: false }
    }
}

/// Delivers messages to one chain.
pub(super) struct Delivery {
    client: Client,
    chain: ChainName,
    pub(super) waits: Waits,
    /// The last check of an intake without listener. The flag is `true` if the intake should have one.
    looked: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// The last sequence of the work stream before the first item with an id.
    before: tokio::sync::OnceCell<u64>,
    /// The known listeners to the intake.
    listeners: Mutex<Listeners>,
    /// Held during a check for listeners.
    looking: tokio::sync::Mutex<()>,
}

/// The known listeners to an intake.
struct Listeners {
    /// The number of lost connections before the last check.
    losses: u64,
    /// When the last check was made.
    at: Instant,
    /// The stream of another owner, and its domain if known.
    refused: Option<(String, Option<String>)>,
}

/// When to check for listeners to an intake.
enum Due {
    /// Before the next message: on a new connection there may be other listeners.
    Now,
    /// Beside the next messages, because the last check is old.
    Beside,
    /// Not yet.
    No,
}

impl Delivery {
    pub(super) fn new(client: Client, chain: ChainName, shared: Arc<Shared>) -> Self {
        let waits = Waits { broker: client.broker.clone(), waiting: Arc::default(), shared, opened: Instant::now() };
        let (looked, before) = (tokio::sync::Mutex::default(), tokio::sync::OnceCell::new());
        let known = Listeners { losses: client.broker.losses(), at: Instant::now(), refused: None };
        let (listeners, looking) = (Mutex::new(known), tokio::sync::Mutex::default());
        Self { client, chain, waits, looked, before, listeners, looking }
    }

    /// Returns the last sequence of the work stream at the first call.
    ///
    /// It is 0 if the server does not answer. Then the feeder takes all stored messages with its ids for its own.
    pub(super) async fn before(&self) -> u64 {
        let stream = subject::work_stream(&self.chain);
        *self
            .before
            .get_or_init(|| async { Stream::of(&self.client.broker, &stream).last_place().await.unwrap_or(0) })
            .await
    }

    /// Publishes until the server has stored the message, or `is_wanted` returns `false`.
    ///
    /// The id of the message makes repetition safe. A message that an earlier, unanswered try has stored counts as stored and not
    /// as a duplicate. For that its sequence must be higher than `before`.
    pub(super) async fn deliver(
        &self,
        message: &Outgoing,
        before: u64,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Delivered, ClientError> {
        let mut tries = Tries::new();
        loop {
            if let Some(delivered) = self.deliver_while(message, before, &mut tries, &is_wanted, || true).await? {
                return Ok(delivered);
            }
        }
    }

    /// Publishes as [`Delivery::deliver`] does, but only while the message `is_valid`. `None` once it is not.
    pub(super) async fn deliver_while(
        &self,
        message: &Outgoing,
        before: u64,
        tries: &mut Tries,
        is_wanted: impl Fn() -> bool,
        is_valid: impl Fn() -> bool,
    ) -> Result<Option<Delivered>, ClientError> {
        let Tries { backoff, unheard, is_unanswered } = tries;
        loop {
            let error = if self.is_alone().await? {
                if !is_valid() {
                    return Ok(None);
                }
                match Publisher::of(&self.client.broker).publish_at(message).await {
                    Ok((published, place)) => {
                        self.waits.over();
                        let (is_new, is_ours) = (published == Published::Stored, *is_unanswered && place > before);
                        let published = if is_ours { Published::Stored } else { published };
                        return Ok(Some(Delivered { published, place, is_new }));
                    }
                    Err(error) => {
                        *is_unanswered |= matches!(error, PublishError::Unanswered(_) | PublishError::NotNow(_));
                        error
                    }
                }
            } else {
                PublishError::Unanswered("the connection is being checked".to_owned())
            };
            match &error {
                PublishError::NoStream(_) => {
                    let since = self.should_be_heard().await?.then(|| unheard.unwrap_or_else(Instant::now));
                    if since.is_some_and(|since| since.elapsed() > UNHEARD) {
                        // The queues exist, but the intake does not lead to them. Opening it repairs that.
                        return Err(ClientError::Closed(self.chain.clone()));
                    }
                    *unheard = since;
                }
                PublishError::TooLarge { size, max } => return Err(ClientError::TooLarge { size: *size, max: *max }),
                PublishError::Broker(error) if !error.is_transient() => return Err(error.clone().into()),
                _ => {}
            }
            self.waits.met(&error);
            if is_wanted() {
                backoff.wait().await;
            }
            // The message may have become unwanted meanwhile.
            if !is_wanted() {
                return Err(ClientError::TimedOut(error.to_string()));
            }
        }
    }

    /// Checks for other streams that listen to the intake. Fails if there is one.
    ///
    /// The check is made from time to time, and after each loss of the connection before anything else is fed. Returns `false` if
    /// the result is unknown.
    async fn is_alone(&self) -> Result<bool, ClientError> {
        let _looking = match self.due()? {
            Due::No => return Ok(true),
            Due::Now => self.looking.lock().await,
            Due::Beside => match self.looking.try_lock() {
                Ok(looking) => looking,
                Err(_) => return Ok(true),
            },
        };
        // Another message may have made the check meanwhile.
        let is_urgent = match self.due()? {
            Due::No => return Ok(true),
            due => matches!(due, Due::Now),
        };
        let (broker, losses) = (&self.client.broker, self.client.broker.losses());
        if !broker.is_connected() {
            return Ok(!is_urgent);
        }
        let checked = intake::check_intake_to_feed(&self.client, &self.chain).await;
        if broker.losses() != losses || checked.as_ref().is_err_and(ClientError::is_transient) {
            return Ok(!is_urgent);
        }
        let refused = match &checked {
            Err(ClientError::IntakeShared { stream, domain, .. }) => Some((stream.clone(), domain.clone())),
            _ => None,
        };
        *self.listeners() = Listeners { losses, at: Instant::now(), refused };
        checked.map(|()| true)
    }

    fn due(&self) -> Result<Due, ClientError> {
        let (known, losses) = (self.listeners(), self.client.broker.losses());
        Ok(match &known.refused {
            Some(other) if known.at.elapsed() < LEARNED => {
                let (chain, (stream, domain)) = (self.chain.clone(), other.clone());
                return Err(ClientError::IntakeShared { chain, stream, domain });
            }
            Some(_) => Due::Now,
            None if known.losses != losses => Due::Now,
            None if known.at.elapsed() >= LISTENERS => Due::Beside,
            None => Due::No,
        })
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if the intake should have a listener. `false` while a cluster elects a leader for the stream. Fails if the
    /// intake is closed, or the chain or its queues are gone.
    async fn should_be_heard(&self) -> Result<bool, ClientError> {
        let mut looked = self.looked.lock().await;
        if let Some((_, should)) = looked.filter(|(at, _)| at.elapsed() < LEARNED) {
            return Ok(should);
        }
        let look = async {
            let (_, marked) = self.client.chain(&self.chain).await?;
            if !marked.state.open {
                return Err(ClientError::Closed(self.chain.clone()));
            }
            ChainStreams::of(&self.client.broker, &self.chain).unfinished().await?;
            Ok(true)
        };
        let should = match look.await {
            Err(error) if error.is_transient() => false,
            looked => looked?,
        };
        *looked = Some((Instant::now(), should));
        Ok(should)
    }
}
