//! Finds the streams that store messages of a subject, in all domains.
//!
//! The API of `JetStream` describes one domain alone. But a leaf node carries plain messages between domains, and streams of both
//! may store the same message.

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM};
use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Broker, BrokerError};

/// The header that asks servers to report a message's route: ADR-41.
const TRACE_DEST: &str = "Nats-Trace-Dest";
/// With this header, servers do not deliver the message itself.
const TRACE_ONLY: &str = "Nats-Trace-Only";
/// How long servers may take to report.
const TRACED: Duration = Duration::from_millis(500);
/// The longest wait for the first answer. None comes if the user may not publish here.
const FIRST: Duration = Duration::from_secs(1);
/// A stream name that does not exist, so that each stream refuses the message.
const NO_STREAM: &str = ".";

/// A stream that listens on a subject.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listener {
    /// Its name.
    pub stream: String,
    /// Its domain, if its answer names one.
    pub domain: Option<String>,
}

/// A server's report on a message.
#[derive(Deserialize)]
struct Traced {
    server: Server,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Server {
    domain: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    /// The stream that the message reaches, if any.
    stream: Option<String>,
}

/// Returns the domain of another stream with this name that stores messages of a subject.
///
/// It is another domain than that of this connection. `None` if no server reports one.
pub async fn other_domain(broker: &Broker, subject: &str, stream: &str) -> Result<Option<String>, BrokerError> {
    let own = broker.address.domain.clone().or_else(|| broker.client().server_info().domain);
    let inbox = broker.client().new_inbox();
    let mut headers = HeaderMap::new();
    headers.insert(TRACE_DEST, inbox.as_str());
    headers.insert(TRACE_ONLY, "true");
    // If a server does not know traces, no stream stores the message all the same.
    headers.insert(NATS_EXPECTED_STREAM, NO_STREAM);
    let mut answers = call(broker, subject, inbox, None, headers).await?;
    let until = Instant::now() + TRACED;
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        let Ok(traced) = serde_json::from_slice::<Traced>(&answer.payload) else { continue };
        let comes_to_it = traced.events.iter().any(|event| event.stream.as_deref() == Some(stream));
        if comes_to_it && traced.server.domain.is_some() && traced.server.domain != own {
            return Ok(traced.server.domain);
        }
    }
    Ok(None)
}

/// Publishes an empty message, and returns the subscription to its answers.
async fn call(
    broker: &Broker,
    subject: &str,
    inbox: String,
    reply: Option<String>,
    headers: HeaderMap,
) -> Result<Subscriber, BrokerError> {
    let what = || format!("ask who listens to `{subject}`");
    let subscribed = broker.client().subscribe(inbox).await;
    let answers = subscribed.map_err(|error| BrokerError::other(what(), &error))?;
    let subject = subject.to_owned();
    let asked = match reply {
        Some(reply) => broker.client().publish_with_reply_and_headers(subject, reply, headers, Bytes::new()).await,
        None => broker.client().publish_with_headers(subject, headers, Bytes::new()).await,
    };
    asked.map_err(|error| BrokerError::other(what(), &error))?;
    Ok(answers)
}

/// Returns the streams that listen on a subject, in all domains.
///
/// Sends a message that no stream stores, and gathers the answers up to this long after the first one.
pub async fn listening(broker: &Broker, subject: &str, more: Duration) -> Result<Vec<Listener>, BrokerError> {
    let inbox = broker.client().new_inbox();
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_STREAM, NO_STREAM);
    let mut answers = call(broker, subject, inbox.clone(), Some(inbox), headers).await?;
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
