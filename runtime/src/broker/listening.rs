//! Who would store what is published to a subject. The API of `JetStream` tells of one domain alone, but a leaf node carries plain
//! messages from one to another, and streams of both may store the same one.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Broker, BrokerError};

/// How long the first answer may take. None comes if the user may not publish here.
const FIRST: Duration = Duration::from_secs(1);
/// No stream has this name, so that each refuses the message.
const NO_STREAM: &str = ".";

/// A stream that listens to a subject.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listener {
    /// Its name.
    pub stream: String,
    /// Its domain, if its answer says so.
    #[serde(default)]
    pub domain: Option<String>,
}

impl Broker {
    /// The streams that listen to a subject, wherever they are: each that answers, at most so long after the first one, to a
    /// message that no stream stores.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub async fn listening(&self, subject: &str, more: Duration) -> Result<Vec<Listener>, BrokerError> {
        let what = || format!("ask who listens to `{subject}`");
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|error| BrokerError::other(what(), &error))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, NO_STREAM);
        let asked = self.client.publish_with_reply_and_headers(subject.to_owned(), inbox, headers, Bytes::new()).await;
        asked.map_err(|error| BrokerError::other(what(), &error))?;
        let mut found = Vec::new();
        let mut until = Instant::now() + FIRST;
        while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            if let Ok(listener) = serde_json::from_slice(&answer.payload) {
                if found.is_empty() {
                    until = Instant::now() + more;
                }
                found.push(listener);
            }
        }
        Ok(found)
    }
}
