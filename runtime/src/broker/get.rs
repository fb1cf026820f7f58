//! Reads single messages, such as entries of the registry and parts of plugins.
//!
//! It reads from the stream's leader, because a replica may lag behind the latest writes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::error::code;
use super::{Broker, BrokerError};
use crate::frame::{Headers, block};

/// A message that a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its sequence number in the stream.
    pub(super) sequence: u64,
    /// When it was stored, as RFC 3339 in UTC.
    pub(super) time: String,
    /// Its subject. Bytes that are not UTF-8 are replaced.
    pub(super) subject: String,
    /// Its headers as they were sent.
    pub(super) block: Vec<u8>,
    /// Its payload.
    pub(super) payload: Vec<u8>,
}

impl Stored {
    /// Reads the message that a request like `{"last_by_subj": …}` names. `None` if the message or the stream does not exist.
    pub(super) async fn read(
        broker: &Broker,
        stream: &str,
        request: &Value,
        what: impl Fn() -> String,
    ) -> Result<Option<Self>, BrokerError> {
        match Self::find(broker, stream, request, what).await {
            Err(error) if error.code() == Some(code::STREAM_NOT_FOUND) => Ok(None),
            found => found,
        }
    }

    /// Reads the message that a request names. `None` if the message does not exist. A missing stream is an error.
    pub(super) async fn find(
        broker: &Broker,
        stream: &str,
        request: &Value,
        what: impl Fn() -> String,
    ) -> Result<Option<Self>, BrokerError> {
        let answer: Result<Answer, _> = broker.api(format!("STREAM.MSG.GET.{stream}"), request, &what).await;
        let raw = match answer {
            Ok(answer) => answer.message,
            Err(error) if error.code() == Some(code::NO_MESSAGE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|error| BrokerError::other(what(), &error));
        Ok(Some(Self {
            sequence: raw.seq,
            time: raw.time,
            subject: raw.subject,
            block: decode(&raw.hdrs)?,
            payload: decode(&raw.data)?,
        }))
    }

    /// Returns the headers.
    pub(super) fn headers(&self) -> Headers {
        block::decode(&self.block)
    }

    /// Returns why the client library cannot take the message off a connection. `None` if it can.
    pub(super) fn fault(&self) -> Option<String> {
        // In a message with headers, the library takes any space as the end of the subject.
        let is_cut = !self.block.is_empty() && self.subject.contains(char::is_whitespace);
        if is_cut || self.subject.contains(char::REPLACEMENT_CHARACTER) {
            return Some("its subject cannot be read".to_owned());
        }
        block::fault(&self.block).map(|fault| format!("its headers cannot be read: {fault}"))
    }
}

#[derive(Deserialize)]
struct Answer {
    message: Raw,
}

/// Reads base64. The server writes headers and payload in it, and leaves out empty ones.
#[derive(Deserialize)]
struct Raw {
    seq: u64,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}
