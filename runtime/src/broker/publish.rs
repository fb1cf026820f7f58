//! Publishes messages to streams, alone or in batches, and returns their fate.

use async_nats::RequestErrorKind;
use async_nats::header::{HeaderMap, NATS_MESSAGE_ID, NATS_ROLLUP};
use bytes::Bytes;
use serde::Deserialize;

use super::error::{MORE_ROOM, code};
use super::{Broker, BrokerError, to_header_map};
use crate::frame::outgoing::{BATCH_MAX, HEADERS_MAX, Outgoing, header_size};

/// A rollup that the server does not know, so that it never stores the message.
const NO_ROLLUP: &str = "none";

/// The server's answer to a message that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is stored.
    Stored,
    /// A message with the same key was stored before.
    Duplicate,
}

/// Why a message is not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The queue is at its limit; try again later.
    #[error("the queue is full: {0}")]
    Full(String),
    /// The server has no room; try again later.
    #[error("the server has no room: {0}; {MORE_ROOM}")]
    NoRoom(String),
    /// No stream takes this subject.
    #[error("no stream takes the subject `{0}`")]
    NoStream(String),
    /// The message is larger than the server accepts.
    #[error("{size} bytes are more than the server takes in one message ({max})")]
    TooLarge {
        /// The bytes of headers and payload.
        size: usize,
        /// The server's limit.
        max: usize,
    },
    /// No answer, because the server is away or slow; try again later. It is unknown whether the message is stored.
    #[error("no answer from the server: {0}")]
    Unanswered(String),
    /// The server cannot store it now; try again later.
    #[error("the server cannot store it now: {0}")]
    NotNow(String),
    /// Refused for another reason.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl PublishError {
    /// Returns `true` if the same publish may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::NoRoom(_) | Self::Unanswered(_) | Self::NotNow(_))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Publishes messages and waits for the server's answers.
#[derive(Debug, Clone, Copy)]
pub struct Publisher<'a>(&'a Broker);

impl<'a> Publisher<'a> {
    /// Returns the publisher of a connection.
    pub fn of(broker: &'a Broker) -> Self {
        Self(broker)
    }

    /// Publishes one message and waits for the server's answer. Returns the sequence number of the message with its key too.
    pub async fn publish_at(self, message: &Outgoing) -> Result<(Published, u64), PublishError> {
        self.publish_and_wait(&message.subject, headers_of(message), message.payload.clone()).await
    }

    /// Publishes at most [`BATCH_MAX`] messages to one stream: all are stored or none. Returns the place of the last. The others
    /// are right before it. The place is 0 if a message with one of the keys was stored before.
    ///
    /// The first message goes alone, and the server answers whether it opens the batch. The server has few batches open at once.
    /// Otherwise it would refuse all messages, and the last answer would not give the reason.
    pub async fn publish_batch(self, messages: &[Outgoing]) -> Result<(Published, u64), PublishError> {
        debug_assert!(messages.len() <= BATCH_MAX, "a batch of {} messages", messages.len());
        let batch = ulid::Ulid::generate().to_string();
        let last = messages.len();
        let of_batch = |message: &Outgoing, position: usize| {
            let mut headers = headers_of(message);
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", position.to_string());
            if position == last {
                headers.insert("Nats-Batch-Commit", "1");
            }
            headers
        };
        // Checked before any is sent: a batch that stops halfway occupies the server for ten seconds.
        for (message, position) in messages.iter().zip(1..) {
            self.check_size(&of_batch(message, position), &message.payload)?;
        }
        for (message, position) in messages.iter().zip(1..) {
            let (headers, payload) = (of_batch(message, position), message.payload.clone());
            if position == last {
                return self.publish_and_wait(&message.subject, headers, payload).await;
            }
            if position == 1 {
                let answer = self.exchange(&message.subject, headers, payload).await?;
                // No answer: the message is kept, and the next may follow.
                if !answer.is_empty() {
                    self.read_answer(&message.subject, &answer)?;
                }
                continue;
            }
            let sent = self.0.client().publish_with_headers(message.subject.clone(), headers, payload).await;
            sent.map_err(|error| BrokerError::other("publish", &error))?;
        }
        Ok((Published::Stored, 0))
    }

    /// Returns the sequence number of the message with this key, if one was stored.
    ///
    /// The key must be within the duplicate window of the stream of this subject. Stores nothing.
    ///
    /// The server checks the key before the rollup, and then refuses the message, because it knows no rollup of this name. That
    /// holds in streams with and without rollups (tried with nats-server 2.15.1, alone and in a cluster of three, where an expected
    /// last message is checked too late).
    pub async fn known(self, subject: &str, message_id: &str) -> Result<Option<u64>, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        headers.insert(NATS_ROLLUP, NO_ROLLUP);
        match self.publish_and_wait(subject, headers, Bytes::new()).await {
            Ok((Published::Duplicate, sequence)) => Ok(Some(sequence)),
            Ok((Published::Stored, _))
            | Err(PublishError::Broker(BrokerError::Server { code: code::NO_ROLLUP, .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Publishes a message without an answer, which may be lost: a log line.
    pub async fn send_unconfirmed(self, subject: String, payload: Bytes) -> Result<(), BrokerError> {
        let what = || format!("publish to `{subject}`");
        self.0.client().publish(subject.clone(), payload).await.map_err(|error| BrokerError::other(what(), &error))
    }

    /// Publishes a message and returns its fate and its sequence number.
    async fn publish_and_wait(
        self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(Published, u64), PublishError> {
        let answer = self.exchange(subject, headers, payload).await?;
        self.read_answer(subject, &answer)
    }

    async fn exchange(self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<Bytes, PublishError> {
        self.check_size(&headers, &payload)?;
        match self.0.client().request_with_headers(subject.to_owned(), headers, payload).await {
            Ok(answer) => Ok(answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => PublishError::NoStream(subject.to_owned()),
                RequestErrorKind::TimedOut => match self.0.timed_out(subject, format!("publish to `{subject}`")) {
                    BrokerError::Timeout(_) => PublishError::Unanswered("the time is over".to_owned()),
                    error => error.into(),
                },
                RequestErrorKind::Other => PublishError::Unanswered(error.to_string()),
                _ => BrokerError::other(format!("publish to `{subject}`"), &error).into(),
            }),
        }
    }

    /// Reads the answer to a published message.
    pub(super) fn read_answer(self, subject: &str, answer: &[u8]) -> Result<(Published, u64), PublishError> {
        let answer: Answer = match serde_json::from_slice(answer) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, subject, "what came for an answer cannot be read");
                return Err(PublishError::Unanswered(error.to_string()));
            }
        };
        match answer.error {
            // Each stored message has a sequence number.
            None if answer.seq == 0 => Err(PublishError::Unanswered("it does not say where".to_owned())),
            None if answer.duplicate => Ok((Published::Duplicate, answer.seq)),
            None => Ok((Published::Stored, answer.seq)),
            Some(error) if error.err_code == code::BATCH_DUPLICATE => Ok((Published::Duplicate, 0)),
            Some(error) => Err(classify(subject, error, self.0.max_payload())),
        }
    }

    /// Refuses a message to which the server would answer by closing the connection.
    fn check_size(self, headers: &HeaderMap, payload: &Bytes) -> Result<(), PublishError> {
        let lines =
            headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())));
        let headers = header_size(lines);
        let (size, max) = (headers + payload.len(), self.0.max_payload());
        if headers > HEADERS_MAX {
            return Err(PublishError::TooLarge { size: headers, max: HEADERS_MAX });
        }
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }
}

fn headers_of(message: &Outgoing) -> HeaderMap {
    let mut headers = to_header_map(&message.headers);
    headers.insert(NATS_MESSAGE_ID, message.message_id.as_str());
    headers
}

fn classify(subject: &str, error: AnswerError, max: usize) -> PublishError {
    match error.err_code {
        // A limit of the stream, described in words only, or an error of the disk.
        code::STORE_FAILED if error.description.contains("maximum") => PublishError::Full(error.description),
        code if code == code::STORE_FAILED || code::NO_ROOM.contains(&code) => PublishError::NoRoom(error.description),
        code if code::BATCHES_IN_FLIGHT.contains(&code) => PublishError::Full(error.description),
        code if [code::BATCH_INCOMPLETE, code::NO_BATCHES].contains(&code) || code::PASSING.contains(&code) => {
            PublishError::NotNow(error.description)
        }
        code::MESSAGE_TOO_LARGE => PublishError::TooLarge { size: max, max },
        // 503: the stream has no leader at the moment.
        _ if error.code == 503 => PublishError::NotNow(error.description),
        code => PublishError::Broker(BrokerError::Server {
            what: format!("store a message for `{subject}`"),
            code,
            description: error.description,
        }),
    }
}
