//! A result that a puller has returned, and its message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};

use super::ResultItem;
use super::large::references;
use super::pull::hold::{Hold, Holds};
use crate::broker::Broker;
use crate::broker::large::{Holder, LargeStore};
use crate::broker::publish::PublishError;
use crate::broker::publish::Publisher;
use crate::broker::queue::Delivery;
use crate::frame::format::Format;
use crate::frame::header;
use crate::frame::id::Index;
use crate::frame::large::Positions;
use crate::frame::outgoing::Outgoing;

/// How long to try to requeue results that the server does not store.
const REQUEUE_TIME: Duration = Duration::from_secs(10);
/// How long to wait before the next try.
const AGAIN: Duration = Duration::from_millis(250);

/// A result or dead letter that a puller has taken.
///
/// No other puller gets it while this value lives, however long that is: the puller tells the server from time to time that it is
/// still in use. If this value is dropped without [`PulledResult::ack`], the next puller gets the result.
///
/// A message may hold several results, but the server confirms messages, not results. So a message is confirmed together with its
/// last result. If some of its results are given back, they return to the stream in a new message.
#[derive(Debug)]
#[must_use = "a result that is dropped without `ack` is given to the next who asks"]
pub struct PulledResult<T = ResultItem> {
    /// The result.
    pub result: T,
    share: Share,
}

/// The part of one result in the outcome of its message. Gives the result back on drop.
#[derive(Debug)]
struct Share {
    message: Arc<Message>,
    position: usize,
    is_answered: bool,
}

/// A message of results that this puller holds.
#[derive(Debug)]
pub(super) struct Message {
    hold: Arc<Hold>,
    delivery: Delivery,
    /// The subject of results that are put back. No other pullers read it.
    again: Arc<str>,
    /// For each result `true` if confirmed, `false` if given back. `None` until then.
    said: Mutex<Vec<Option<bool>>>,
    answered: mpsc::UnboundedSender<Answered>,
}

/// A message whose results were all confirmed or given back.
#[derive(Debug)]
pub(super) struct Answered {
    message: Arc<Message>,
    /// Notified once the server was told.
    told: Option<oneshot::Sender<()>>,
}

impl<T> PulledResult<T> {
    /// Returns all results of a message. `answered` receives the message once each was confirmed or given back.
    pub(super) fn all(
        results: Vec<T>,
        hold: Arc<Hold>,
        delivery: Delivery,
        again: Arc<str>,
        answered: &mpsc::UnboundedSender<Answered>,
    ) -> impl Iterator<Item = Self> + use<T> {
        let said = Mutex::new(vec![None; results.len()]);
        let message = Arc::new(Message { hold, delivery, again, said, answered: answered.clone() });
        let pulled = move |(position, result)| {
            let share = Share { message: Arc::clone(&message), position, is_answered: false };
            Self { result, share }
        };
        results.into_iter().enumerate().map(pulled)
    }

    /// Confirms the result, so that no other puller gets it. If this is dropped, the result is confirmed nevertheless.
    pub async fn ack(mut self) {
        self.share.answer(true).await;
    }

    /// Gives the result to the next puller. Waits until the server was told.
    pub async fn give_back(mut self) {
        self.share.answer(false).await;
    }

    /// Returns `true` if no other puller can have the result. `false` after this process was paused, or cut off from the server,
    /// for longer than the server waits.
    pub fn is_held(&self) -> bool {
        self.share.message.hold.is_sure()
    }

    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> PulledResult<U> {
        PulledResult { result: convert(self.result), share: self.share }
    }
}

impl Share {
    async fn answer(&mut self, is_confirmed: bool) {
        self.is_answered = true;
        let (told, telling) = oneshot::channel();
        if self.message.say(self.position, is_confirmed, Some(told)) {
            // The answer never comes if the program is about to end.
            let _ = telling.await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.is_answered {
            self.message.say(self.position, false, None);
        }
    }
}

impl Message {
    /// Records the outcome of one result. Returns `true` if it was the last of the message.
    fn say(self: &Arc<Self>, position: usize, is_confirmed: bool, told: Option<oneshot::Sender<()>>) -> bool {
        let is_last = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said[position] = Some(is_confirmed);
            said.iter().all(Option::is_some)
        };
        is_last && self.answered.send(Answered { message: Arc::clone(self), told }).is_ok()
    }
}

impl Answered {
    /// Returns `true` if only some results were confirmed. The others must be requeued, which may take a while.
    pub(super) fn is_mixed(&self) -> bool {
        let said = self.message.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.contains(&Some(true)) && said.contains(&Some(false))
    }

    /// Returns `true` if some results were confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.message.said.lock().unwrap_or_else(PoisonError::into_inner).contains(&Some(true))
    }

    /// Returns the message.
    pub(super) fn delivery(&self) -> &Delivery {
        &self.message.delivery
    }

    /// Tells the server the outcome of the message. `store` has the bytes of its large results.
    pub(super) async fn tell(self, broker: &Broker, holds: &Holds, store: &LargeStore) {
        let Self { message, told } = self;
        let said: Vec<bool> = {
            let said = message.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.iter().map(|said| *said == Some(true)).collect()
        };
        if said.iter().all(|is_confirmed| *is_confirmed) {
            holds.confirm(&message.hold).await;
        } else if said.contains(&true) && message.hold.is_sure() {
            message.requeue(&said, broker, holds, store).await;
        } else {
            holds.give_back(&message.hold).await;
        }
        if let Some(told) = told {
            // The caller may have stopped waiting.
            let _ = told.send(());
        }
    }
}

impl Message {
    /// Requeues the results that were not confirmed.
    async fn requeue(&self, said: &[bool], broker: &Broker, holds: &Holds, store: &LargeStore) {
        let items = Format::Cbor.items(&self.delivery.payload).unwrap_or_default();
        let rest: Vec<usize> = (0..items.len()).filter(|position| said.get(*position) != Some(&true)).collect();
        let mut payload = BytesMut::new();
        for position in &rest {
            payload.extend_from_slice(&items[*position]);
        }
        let headers = self.delivery.headers();
        let index = headers.get(header::INDEX).and_then(|text| Index::parse(text, items.len()).ok());
        let index = index.unwrap_or_else(|| Index::in_order(items.len())).pick(&rest);
        let large = headers.get(header::LARGE).and_then(|text| Positions::parse(text, items.len())).unwrap_or_default();
        let own = [header::INDEX, header::COVERS, header::AGAIN, header::MESSAGE_ID, header::LARGE];
        let mut headers = headers.without(&own);
        headers.extend(large.pick(&rest).to_header().map(|large| (header::LARGE, large)));
        headers.push(header::INDEX, index.to_string());
        headers.push(header::AGAIN, "1");
        let message_id = format!("pcluster.again.{}", ulid::Ulid::generate());
        let subject = self.again.to_string();
        let message = Outgoing { subject, message_id, headers, payload: payload.freeze() };
        match publish(broker, &message).await {
            Ok(place) => {
                hold_large(&message, place, store).await;
                holds.confirm(&self.hold).await;
            }
            Err(error) => {
                tracing::warn!(%error, "unconfirmed results cannot be requeued, so the whole message is given back");
                holds.give_back(&self.hold).await;
            }
        }
    }
}

/// Records that the message at this place refers to large results, while the message that it replaces still does.
async fn hold_large(message: &Outgoing, place: u64, store: &LargeStore) {
    for (_, reference) in references(&message.headers, &message.payload) {
        let held = tokio::time::timeout(REQUEUE_TIME, store.hold(&reference.name, Holder::Result(place))).await;
        if !matches!(held, Ok(Ok(()))) {
            // Before the sweep removes anything, it finds the message.
            tracing::debug!(name = reference.name, "a requeued large result is not recorded");
        }
    }
}

/// Publishes until the server has stored the message, and returns its place. Gives up after a while.
async fn publish(broker: &Broker, message: &Outgoing) -> Result<u64, PublishError> {
    let deadline = Instant::now() + REQUEUE_TIME;
    loop {
        match Publisher::of(broker).publish_at(message).await {
            Err(PublishError::Unanswered(_) | PublishError::NotNow(_) | PublishError::NoStream(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            published => return published.map(|(_, place)| place),
        }
    }
}
