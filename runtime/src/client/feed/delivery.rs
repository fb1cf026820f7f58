//! Bringing what is fed to the server, however long it takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Fed;
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::broker::Broker;
use crate::broker::publish::{PublishError, Published};
use crate::client::{Client, ClientError};
use crate::frame::outgoing::Outgoing;
use crate::name::ChainName;
use crate::subject;

/// The first wait before feeding again what was not taken; doubled each time.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_millis(250);
/// How long what was learned about an intake that nobody listens to holds for all items on their way.
const LEARNED: Duration = Duration::from_secs(1);
/// How long an intake that is open by its chain's state may have nobody who listens to it.
const UNHEARD: Duration = Duration::from_secs(5);

/// How often to look who else listens to the intake while a feeder feeds: a leaf node may connect at any time.
const LISTENERS: Duration = Duration::from_secs(10);

/// What a feeder waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// When an item was last taken, or the wait began.
    pub since: Instant,
    /// Why none is taken.
    pub reason: String,
    /// Whether that is only because the connection is lost, which has been said already.
    pub is_lost: bool,
}

/// Tells what a feeder waits for and how far it is, also while it feeds.
#[derive(Clone)]
pub struct Waits {
    broker: Broker,
    waiting: Arc<Mutex<Option<Waiting>>>,
    shared: Arc<Shared>,
    opened: Instant,
}

impl Waits {
    /// What it waits for at the moment.
    #[must_use]
    pub fn now(&self) -> Option<Waiting> {
        let mut waiting = self.lock().clone()?;
        if !self.broker.is_connected() {
            waiting.is_lost = true;
            "the connection to NATS is lost".clone_into(&mut waiting.reason);
        }
        Some(waiting)
    }

    /// How much has arrived so far.
    #[must_use]
    pub fn fed(&self) -> Fed {
        self.shared.progress().0
    }

    /// How long ago something was last taken, or the feeder was opened.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.shared.progress().1.unwrap_or(self.opened).elapsed()
    }

    /// Whether something is on its way that the server has not answered for.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.shared.progress().2 > 0
    }

    fn met(&self, reason: &PublishError) {
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

/// Brings messages to one chain.
pub(super) struct Delivery {
    client: Client,
    chain: ChainName,
    pub(super) waits: Waits,
    /// When it was last looked why nobody listens to the intake, and whether somebody should.
    looked: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// The place of what the work stream had stored last before the first item with an id was fed.
    before: tokio::sync::OnceCell<u64>,
    /// What is known of those who listen to the intake.
    listeners: Mutex<Listeners>,
    /// Held by the one that looks who listens.
    looking: tokio::sync::Mutex<()>,
}

/// What is known of those who listen to an intake.
struct Listeners {
    /// How often the connection was lost before they were looked for.
    losses: u64,
    /// When they were looked for.
    at: Instant,
    /// The stream of another, and its domain if it is known.
    refused: Option<(String, Option<String>)>,
}

/// Whether to look who listens to an intake.
enum Due {
    /// Nothing is fed before that: over a new connection others may listen.
    Now,
    /// Others may listen since a while ago.
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

    /// The place of what the work stream had stored last when this was first asked. If the server does not say, 0: feeding waits
    /// for it and says what is wrong, and what it finds stored is taken for its own.
    pub(super) async fn before(&self) -> u64 {
        let stream = subject::work_stream(&self.chain);
        *self.before.get_or_init(|| async { self.client.broker.last_place(&stream).await.unwrap_or(0) }).await
    }

    /// Publishes until the server has the message, or it is not wanted any more. Its id makes that safe however often it takes.
    /// What was stored by an earlier try that nobody answered counts as stored, and not as a duplicate: `before` is the place in
    /// the stream behind which it must be for that.
    pub(super) async fn deliver(
        &self,
        message: &Outgoing,
        before: u64,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Published, ClientError> {
        let mut backoff = Backoff::new(AGAIN, AGAIN_MAX);
        // Since when somebody should listen to the intake and nobody does.
        let mut unheard: Option<Instant> = None;
        let mut is_unanswered = false;
        loop {
            let error = if self.is_alone().await? {
                match self.client.broker.publish_at(message).await {
                    Ok((published, place)) => {
                        self.waits.over();
                        let is_ours = is_unanswered && place > before;
                        return Ok(if is_ours { Published::Stored } else { published });
                    }
                    Err(error) => {
                        is_unanswered |= matches!(error, PublishError::Unanswered(_) | PublishError::NotNow(_));
                        error
                    }
                }
            } else {
                PublishError::Unanswered("the connection is being looked at".to_owned())
            };
            match &error {
                PublishError::NoStream(_) => {
                    let since = self.should_be_heard().await?.then(|| unheard.unwrap_or_else(Instant::now));
                    if since.is_some_and(|since| since.elapsed() > UNHEARD) {
                        // There are queues, but the intake does not lead there: opening it mends that.
                        return Err(ClientError::Closed(self.chain.clone()));
                    }
                    unheard = since;
                }
                PublishError::TooLarge { size, max } => return Err(ClientError::TooLarge { size: *size, max: *max }),
                PublishError::Broker(error) if !error.is_transient() => return Err(error.clone().into()),
                _ => {}
            }
            self.waits.met(&error);
            if is_wanted() {
                backoff.wait().await;
            }
            // It may have become unwanted meanwhile.
            if !is_wanted() {
                return Err(ClientError::TimedOut(error.to_string()));
            }
        }
    }

    /// Looks from time to time, and after each loss of the connection before anything else is fed, whether another stream listens
    /// to the intake too, and fails if one does. `false`: that cannot be told yet.
    async fn is_alone(&self) -> Result<bool, ClientError> {
        let _looking = match self.due()? {
            Due::No => return Ok(true),
            Due::Now => self.looking.lock().await,
            Due::Beside => match self.looking.try_lock() {
                Ok(looking) => looking,
                Err(_) => return Ok(true),
            },
        };
        // Another may have looked meanwhile.
        let is_urgent = match self.due()? {
            Due::No => return Ok(true),
            due => matches!(due, Due::Now),
        };
        let (broker, losses) = (&self.client.broker, self.client.broker.losses());
        if !broker.is_connected() {
            return Ok(!is_urgent);
        }
        let checked = self.client.check_intake_to_feed(&self.chain).await;
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

    /// Whether somebody should listen to the intake: nobody does while the servers of a cluster elect who does. Fails if the
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
            self.client.broker.unfinished(&self.chain).await?;
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
