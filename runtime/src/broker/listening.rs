//! Who would store what is published to a subject. The API of `JetStream` tells of one domain alone, but a leaf node carries plain
//! messages from one to another, and streams of both may store the same one.

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM};
use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Broker, BrokerError};

/// What a server is to tell of a message, and where: ADR-41.
const TRACE_DEST: &str = "Nats-Trace-Dest";
/// With it, the message itself goes nowhere.
const TRACE_ONLY: &str = "Nats-Trace-Only";
/// How long servers may take to tell.
const TRACED: Duration = Duration::from_millis(500);
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

/// What a server tells of a message.
#[derive(Deserialize)]
struct Traced {
    server: Server,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    domain: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    /// The stream that the message comes to, if it comes to one.
    #[serde(default)]
    stream: Option<String>,
}

/// Another domain than the one that this connection works with, in which a stream of this name stores what is published to
/// a subject; `None` if no server tells.
pub async fn other_domain(broker: &Broker, subject: &str, stream: &str) -> Result<Option<String>, BrokerError> {
    let own = broker.address.domain.clone().or_else(|| broker.client().server_info().domain);
    let inbox = broker.client().new_inbox();
    let mut headers = HeaderMap::new();
    headers.insert(TRACE_DEST, inbox.as_str());
    headers.insert(TRACE_ONLY, "true");
    // Should a server know nothing of traces, none stores it all the same.
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

/// Publishes an empty message, and gives what comes to the inbox.
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

/// The streams that listen to a subject, wherever they are: each that answers, at most so long after the first one, to a
/// message that no stream stores.
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
