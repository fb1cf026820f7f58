//! Publishes messages of tasks.

use async_nats::StatusCode;
use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

use super::super::error::code;
use super::super::line::Answers;
use super::super::request::AGAIN_EARLY;
use super::super::stream::Stream;
use super::super::{Broker, BrokerError, to_header_map};
use super::store::{Ack, Refusal, check_size, read_ack};
use super::{GrantedStores, standing};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::message::Response;
use crate::calls::names::Subject;
use crate::calls::stores::Message;

/// How long to wait for a stream's answer before the message is sent again.
const AGAIN: Duration = Duration::from_secs(2);

/// Publishes a message. `key` becomes its `Nats-Msg-Id`.
pub(super) async fn run(stores: &GrantedStores, message: Message, key: Option<String>) -> Result<Bytes, CallFailure> {
    let mut headers = to_header_map(&message.headers);
    if let Some(key) = key.or_else(|| message.waits.then(|| ulid::Ulid::generate().to_string())) {
        headers.insert(NATS_MESSAGE_ID, key);
    }
    if message.waits {
        return wait(stores, &message, headers).await.map(|ack| response(&ack));
    }
    loop {
        let open = stores.connection().await;
        check_size(&open, &headers, &message.payload)?;
        let (subject, payload) = (message.subject.to_string(), message.payload.clone());
        let sent = if headers.is_empty() {
            open.client().publish(subject, payload).await
        } else {
            open.client().publish_with_headers(subject, headers.clone(), payload).await
        };
        match sent {
            Ok(()) => return Ok(Response::new().finish()),
            Err(error) => tracing::debug!(%error, "a message was not sent"),
        }
        tokio::time::sleep(AGAIN_EARLY).await;
    }
}

fn response(ack: &Ack) -> Bytes {
    let mut response = Response::new();
    response.text("stream", &ack.stream);
    response.number("sequence", ack.seq);
    response.flag("duplicate", ack.duplicate);
    response.finish()
}

/// Publishes a message until a stream has stored it. The message id makes it harmless to send again.
async fn wait(stores: &GrantedStores, message: &Message, headers: HeaderMap) -> Result<Ack, CallFailure> {
    let subject = &message.subject;
    loop {
        let open = standing(&stores.foreign).await;
        check_size(&open, &headers, &message.payload)?;
        let sent = Answers::over(&stores.foreign, subject.to_string(), headers.clone(), message.payload.clone()).await;
        match sent {
            Ok(mut answers) => match timeout(AGAIN, first_ack(&mut answers)).await {
                Ok(Some(Ok(ack))) => return Ok(ack),
                Ok(Some(Err(refusal))) if !refusal.is_transient() => return Err(failure(subject, &refusal)),
                Ok(Some(Err(_))) => {}
                // Nobody answers, or others do who are no stream.
                Ok(None) | Err(_) => check_listeners(&stores.connection().await, subject).await?,
            },
            Err(error) => tracing::debug!(%error, "a message was not sent"),
        }
        tokio::time::sleep(AGAIN_EARLY).await;
    }
}

/// Returns the first answer of a stream. `None` if the server says that nobody listens, or the line is lost.
async fn first_ack(answers: &mut Answers) -> Option<Result<Ack, Refusal>> {
    loop {
        let answer = answers.next().await?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return None;
        }
        if let Some(ack) = read_ack(&answer.payload) {
            return Some(ack);
        }
    }
}

/// Fails if no stream takes a subject, or this user may not publish there.
async fn check_listeners(open: &Broker, subject: &Subject) -> Result<(), CallFailure> {
    let what = format!("publish to `{subject}`");
    if let error @ BrokerError::NoPermission { .. } = open.timed_out(subject.as_str(), what) {
        return Err(CallFailure::denied(error.to_string()));
    }
    match Stream::listening_on(open, subject.as_str()).await {
        Ok(streams) if streams.is_empty() => {
            let said = format!(
                "no stream takes the subject `{subject}`; `nats stream add` makes one, and without `wait` none is needed"
            );
            Err(CallFailure { is_transient: true, ..CallFailure::new(FailureKind::NotFound, said) })
        }
        Ok(_) => Ok(()),
        Err(error) if error.is_transient() => Ok(()),
        Err(error) => Err(CallFailure { is_transient: false, ..CallFailure::unavailable(error.to_string()) }),
    }
}

fn failure(subject: &Subject, refusal: &Refusal) -> CallFailure {
    let Refusal { code: status, err_code, description } = refusal;
    match *err_code {
        code::MESSAGE_TOO_LARGE => {
            let said = format!("the message exceeds the limit of the stream that takes `{subject}`");
            CallFailure::new(FailureKind::TooLarge, said)
        }
        code if code == code::STORE_FAILED || code::NO_ROOM.contains(&code) || *status == 503 => {
            CallFailure::unavailable(format!("the stream that takes `{subject}` has no room: {description}"))
        }
        code => {
            let said = format!("the stream that takes `{subject}` refuses: {description} (error {code})");
            CallFailure { is_transient: false, ..CallFailure::unavailable(said) }
        }
    }
}
