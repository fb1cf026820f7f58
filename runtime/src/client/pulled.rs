//! A result that a puller has taken, and the message that it shares with others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};

use super::ResultItem;
use super::pull::hold::{Hold, Holds};
use crate::broker::Broker;
use crate::broker::publish::PublishError;
use crate::broker::queue::Delivery;
use crate::frame::format::Format;
use crate::frame::header;
use crate::frame::id::Index;
use crate::frame::outgoing::Outgoing;

/// How long to try to put results back while the server does not take them.
const PUT_BACK: Duration = Duration::from_secs(10);
/// How long to wait before the next try.
const AGAIN: Duration = Duration::from_millis(250);

/// A result that was taken, or what else the puller gives.
///
/// No other puller gets it while it lives, however long that is: the server is told from time to time that it is still wanted.
/// Dropped without [`PulledResult::ack`], it is given to the next who asks.
///
/// A message may hold several results. The server knows whether a message was taken, not a result: it is confirmed with the
/// last of them, and where some of them are given back these are put into the stream again as a message of their own.
#[derive(Debug)]
#[must_use = "a result that is dropped without `ack` is given to the next who asks"]
pub struct PulledResult<T = ResultItem> {
    /// The result.
    pub result: T,
    share: Share,
}

/// A result's part in the fate of its message. Dropped, the result is given back.
#[derive(Debug)]
struct Share {
    message: Arc<Message>,
    position: usize,
    is_answered: bool,
}

/// A message of results that was handed out.
#[derive(Debug)]
pub(super) struct Message {
    hold: Arc<Hold>,
    delivery: Delivery,
    /// For each result whether it was confirmed; `None` if nothing was said of it yet.
    said: Mutex<Vec<Option<bool>>>,
    answered: mpsc::UnboundedSender<Answered>,
}

/// A message of which something was said of each result.
#[derive(Debug)]
pub(super) struct Answered {
    message: Arc<Message>,
    /// To whom to say that the server was told.
    told: Option<oneshot::Sender<()>>,
}

impl<T> PulledResult<T> {
    /// All that came in a message. `answered` is told when something was said of each.
    pub(super) fn all(
        results: Vec<T>,
        hold: Arc<Hold>,
        delivery: Delivery,
        answered: &mpsc::UnboundedSender<Answered>,
    ) -> impl Iterator<Item = Self> + use<T> {
        let said = Mutex::new(vec![None; results.len()]);
        let message = Arc::new(Message { hold, delivery, said, answered: answered.clone() });
        let pulled = move |(position, result)| {
            let share = Share { message: Arc::clone(&message), position, is_answered: false };
            Self { result, share }
        };
        results.into_iter().enumerate().map(pulled)
    }

    /// Confirms the result: no other puller gets it. May be dropped in the middle; the result is confirmed nevertheless.
    pub async fn ack(mut self) {
        self.share.answer(true).await;
    }

    /// Gives the result to the next who asks, as dropping it does, and waits until the server was told.
    pub async fn give_back(mut self) {
        self.share.answer(false).await;
    }

    /// Returns `true` if no other puller can have got the result meanwhile. It is `false` after this process was paused, or cut
    /// off from the server, for longer than the server waits.
    #[must_use]
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
            // Nobody tells when the program is about to end.
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
    /// Returns `true` if that was the last to say of the message.
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
    /// Whether the server has to be told of some results only, which may take a while.
    pub(super) fn is_mixed(&self) -> bool {
        let said = self.message.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.contains(&Some(true)) && said.contains(&Some(false))
    }

    /// Tells the server what becomes of the message.
    pub(super) async fn tell(self, broker: &Broker, holds: &Holds) {
        let Self { message, told } = self;
        let said: Vec<bool> = {
            let said = message.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.iter().map(|said| *said == Some(true)).collect()
        };
        if said.iter().all(|is_confirmed| *is_confirmed) {
            holds.confirm(&message.hold).await;
        } else if said.contains(&true) && message.hold.is_sure() {
            message.requeue(&said, broker, holds).await;
        } else {
            holds.give_back(&message.hold).await;
        }
        if let Some(told) = told {
            // Who asked may have stopped waiting.
            let _ = told.send(());
        }
    }
}

impl Message {
    /// Puts the results that were not confirmed into the stream again.
    async fn requeue(&self, said: &[bool], broker: &Broker, holds: &Holds) {
        let items = Format::Cbor.items(&self.delivery.payload).unwrap_or_default();
        let rest: Vec<usize> = (0..items.len()).filter(|position| said.get(*position) != Some(&true)).collect();
        let mut payload = BytesMut::new();
        for position in &rest {
            payload.extend_from_slice(&items[*position]);
        }
        let headers = self.delivery.headers();
        let index = headers.get(header::INDEX).and_then(|text| Index::parse(text, items.len()).ok());
        let index = index.unwrap_or_else(|| Index::in_order(items.len())).pick(&rest);
        let mut headers = headers.without(&[header::INDEX, header::COVERS, header::AGAIN, header::MESSAGE_ID]);
        headers.push(header::INDEX, index.to_string());
        headers.push(header::AGAIN, "1");
        let message_id = format!("pcluster.again.{}", ulid::Ulid::generate());
        let subject = self.delivery.subject().to_owned();
        let message = Outgoing { subject, message_id, headers, payload: payload.freeze() };
        match publish(broker, &message).await {
            Ok(()) => holds.confirm(&self.hold).await,
            Err(error) => {
                tracing::warn!(%error, "results that were not confirmed cannot be put back; the whole message is");
                holds.give_back(&self.hold).await;
            }
        }
    }
}

/// Publishes until the server has the message, but not for ever.
async fn publish(broker: &Broker, message: &Outgoing) -> Result<(), PublishError> {
    let deadline = Instant::now() + PUT_BACK;
    loop {
        match broker.publish(message).await {
            Err(PublishError::Unanswered(_) | PublishError::NotNow(_) | PublishError::NoStream(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            published => return published.map(drop),
        }
    }
}
