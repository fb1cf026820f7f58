//! Stores a message of a bucket or object store once, and reads one.

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

use super::super::error::code;
use super::super::get::Stored;
use super::super::request::AGAIN_EARLY;
use super::super::stream::Stream;
use super::super::{Broker, BrokerError};
use super::GrantedStores;
use super::failure::Place;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::frame::outgoing::header_size;

/// How long to wait for an answer before the message is sent again.
const AGAIN: Duration = Duration::from_secs(2);

/// Where a message is stored.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ack {
    /// The stream.
    #[serde(default)]
    pub(super) stream: String,
    /// The sequence number.
    #[serde(default)]
    pub(super) seq: u64,
    /// `true` if a message with the same id was stored before.
    #[serde(default)]
    pub(super) duplicate: bool,
    error: Option<Refusal>,
}

/// The server's reason not to store a message.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refusal {
    /// The code of HTTP.
    #[serde(default)]
    pub(super) code: u64,
    /// JetStream's code.
    #[serde(default)]
    pub(super) err_code: u64,
    /// The description.
    #[serde(default)]
    pub(super) description: String,
}

impl Refusal {
    /// Returns `true` if the same message may be stored at once.
    pub(super) fn is_transient(&self) -> bool {
        code::PASSING.contains(&self.err_code)
    }
}

/// A message to store.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// The subject.
    pub(super) subject: String,
    /// The headers. `Nats-Msg-Id` makes the message harmless to send again.
    pub(super) headers: HeaderMap,
    /// The payload.
    pub(super) payload: Bytes,
}

/// Why a message is not stored.
#[derive(Debug)]
pub(super) enum NotStored {
    /// The newest message of the subject is not the expected one.
    Overtaken,
    /// Another reason. If it is ambiguous, the message may be stored all the same.
    Failed(CallFailure),
}

/// Reads an answer to a published message. `None` if no stream has written it.
pub(super) fn read_ack(answer: &[u8]) -> Option<Result<Ack, Refusal>> {
    let mut ack: Ack = serde_json::from_slice(answer).ok()?;
    match ack.error.take() {
        Some(refusal) => Some(Err(refusal)),
        // Each stored message has a sequence number.
        None => (ack.seq > 0).then_some(Ok(ack)),
    }
}

/// Refuses a message to which the server would answer by closing the connection.
pub(super) fn check_size(open: &Broker, headers: &HeaderMap, payload: &Bytes) -> Result<(), CallFailure> {
    let lines =
        headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())));
    let (size, max) = (header_size(lines) + payload.len(), open.max_payload());
    if size <= max {
        return Ok(());
    }
    let said = format!("{size} bytes are more than the server takes in one message, {max}");
    Err(CallFailure::new(FailureKind::TooLarge, said))
}

impl GrantedStores {
    /// Stores a message. It is sent until the server has answered.
    pub(super) async fn store(&self, place: Place<'_>, write: &Write) -> Result<Ack, NotStored> {
        let stream = place.stream();
        let what = || format!("write to the {place}");
        loop {
            let open = self.connection().await;
            check_size(&open, &write.headers, &write.payload).map_err(NotStored::Failed)?;
            let request = Request::new().payload(write.payload.clone()).headers(write.headers.clone());
            let sent = open.client().send_request(write.subject.clone(), request.timeout(Some(AGAIN))).await;
            match sent.as_ref().map(|answer| read_ack(&answer.payload)) {
                Ok(Some(Ok(ack))) => return Ok(ack),
                Ok(Some(Err(refusal))) if code::WRONG_LAST_SEQUENCE.contains(&refusal.err_code) => {
                    return Err(NotStored::Overtaken);
                }
                Ok(Some(Err(refusal))) if !refusal.is_transient() => {
                    let failure = place.refusal(refusal.err_code, refusal.code, &refusal.description);
                    return Err(NotStored::Failed(failure));
                }
                Ok(_) => {}
                Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                    if let error @ BrokerError::NoPermission { .. } = open.timed_out(&write.subject, what()) {
                        return Err(NotStored::Failed(place.failure(&error)));
                    }
                    continue;
                }
                // During an election no server answers for the stream.
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    let exists = Stream::of(&open, &stream).exists().await;
                    if !exists.map_err(|error| NotStored::Failed(place.failure(&error)))? {
                        return Err(NotStored::Failed(place.missing()));
                    }
                }
                Err(error) => tracing::debug!(%error, "a write was not answered"),
            }
            tokio::time::sleep(AGAIN_EARLY).await;
        }
    }

    /// Reads the message that a request like `{"last_by_subj": …}` names. `None` if it does not exist.
    pub(super) async fn read(&self, place: Place<'_>, request: &Value) -> Result<Option<Stored>, CallFailure> {
        let stream = place.stream();
        let _permit = self.reads.acquire().await.map_err(|error| CallFailure::unavailable(error.to_string()))?;
        loop {
            let open = self.connection().await;
            match Stored::find(&open, &stream, request, || format!("read the {place}")).await {
                Err(BrokerError::Unreachable { .. }) => {}
                found => return found.map_err(|error| place.failure(&error)),
            }
        }
    }
}

/// Returns headers with an id by which the server drops the message when it is sent again.
pub(super) fn once(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id);
    headers
}
