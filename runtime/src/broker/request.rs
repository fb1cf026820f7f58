//! Requests to the server. Each is repeated until it is answered, for a bounded time.
//!
//! Every request except those of [`Broker::api_once`] must be harmless to repeat. A server that goes away loses requests, and in a
//! cluster no server answers for a stream during an election.

use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{Broker, BrokerError, REQUEST_TIMEOUT};

/// The longest wait for an answer of a cluster. An election takes up to nine seconds from the leader's end, and two leaders in turn
/// may have to decide one request.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for an answer before the request is repeated.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest wait for an answer that takes the server long to make.
const SLOW: Duration = Duration::from_secs(30);
/// How long to wait before a request is repeated that the server could not answer yet.
pub(super) const AGAIN_EARLY: Duration = Duration::from_millis(300);

/// A request.
pub(super) struct Question {
    /// Its subject.
    pub(super) subject: String,
    /// Its headers.
    pub(super) headers: Option<HeaderMap>,
    /// Its payload.
    pub(super) payload: Bytes,
}

impl Question {
    fn request(&self, timeout: Duration) -> Request {
        let request = Request::new().payload(self.payload.clone()).timeout(Some(timeout));
        match &self.headers {
            Some(headers) => request.headers(headers.clone()),
            None => request,
        }
    }
}

/// Logs once that an action fails, and once that it works again.
#[derive(Debug, Default)]
pub struct Outage {
    is_told: bool,
}

impl Outage {
    /// Records a failure. `what` completes "cannot …". A lost connection is logged elsewhere.
    pub fn met(&mut self, broker: &Broker, what: &str, error: &BrokerError) {
        if !self.is_told && broker.is_connected() {
            self.is_told = true;
            tracing::warn!("cannot {what}, trying again until it works: {error}");
        }
    }

    /// Records a success.
    pub fn over(&mut self, what: &str) {
        if std::mem::take(&mut self.is_told) {
            tracing::warn!("can {what} again");
        }
    }
}

impl Broker {
    /// Calls JetStream's API. `what` completes "the server cannot …".
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        let question = self.api_question(&subject, request, &what)?;
        self.request(&question, &what, |answer| read_answer(answer, &what)).await
    }

    /// Calls JetStream's API once, and only while the connection stands.
    ///
    /// For requests that must not arrive late. Without an answer it is unknown whether the request was done.
    pub(super) async fn api_once<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        self.api_within(AGAIN, subject, request, what).await
    }

    /// Calls JetStream's API once, for a request that is work for the server. Waits long for the answer.
    pub(super) async fn api_slow<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        self.api_within(SLOW, subject, request, what).await
    }

    async fn api_within<T: DeserializeOwned>(
        &self,
        most: Duration,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        let question = self.api_question(&subject, request, &what)?;
        if !self.is_connected() {
            // The client library would send it whenever the connection is back.
            return Err(BrokerError::Unreachable {
                url: self.url.to_string(),
                reason: "the connection is lost".to_owned(),
            });
        }
        match self.client().send_request(question.subject.clone(), question.request(most)).await {
            Ok(answer) => read_answer(&answer.payload, &what),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::TimedOut => self.unanswered(&question.subject, what(), None, most),
                RequestErrorKind::NoResponders => self.no_jetstream(),
                _ => BrokerError::other(what(), &error),
            }),
        }
    }

    fn api_question(
        &self,
        subject: &str,
        request: &(impl Serialize + Sync),
        what: &impl Fn() -> String,
    ) -> Result<Question, BrokerError> {
        let json = serde_json::to_vec(request).map_err(|error| BrokerError::other(what(), &error))?;
        // A request without parameters must be empty, not `null`.
        let payload = if json == b"null" { Bytes::new() } else { json.into() };
        Ok(Question { subject: format!("{}.{subject}", self.api_prefix), headers: None, payload })
    }

    /// Asks until there is an answer that does not only say to come again, and gives what `read` makes of it.
    pub(super) async fn request<T>(
        &self,
        question: &Question,
        what: impl Fn() -> String,
        read: impl Fn(&[u8]) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let patience = self.patience();
        let deadline = Instant::now() + patience;
        let mut met = None;
        let mut asked = FuturesUnordered::new();
        while Instant::now() < deadline {
            let (client, subject) = (self.client(), question.subject.clone());
            let request = async move { client.send_request(subject, question.request(patience)).await };
            asked.push(tokio::time::timeout_at(deadline, request));
            let again = deadline.min(Instant::now() + AGAIN);
            while let Ok(Some(answered)) = tokio::time::timeout_at(again, asked.next()).await {
                let answer = match answered {
                    Err(_) => continue,
                    Ok(Ok(answer)) => read(&answer.payload),
                    Ok(Err(error)) => match error.kind() {
                        RequestErrorKind::TimedOut => continue,
                        RequestErrorKind::NoResponders => Err(self.no_jetstream()),
                        // The connection has ended, and is replaced.
                        RequestErrorKind::Other => {
                            Err(BrokerError::Unreachable { url: self.url.to_string(), reason: error.to_string() })
                        }
                        _ => Err(BrokerError::other(what(), &error)),
                    },
                };
                match answer {
                    Err(error) if error.is_transient() => met = Some(error),
                    answer => return answer,
                }
            }
            if asked.is_empty() {
                tokio::time::sleep_until(deadline.min(Instant::now() + AGAIN_EARLY)).await;
            }
        }
        Err(self.unanswered(&question.subject, what(), met, patience))
    }

    /// Stores a message, which must be harmless to send twice, and waits for the server's word.
    pub(super) async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        what: impl Fn() -> String,
    ) -> Result<(), BrokerError> {
        let question = Question { subject, headers: Some(headers), payload };
        self.request(&question, &what, |answer| read_answer::<Value>(answer, &what).map(drop)).await
    }

    /// Returns the error for a JetStream that does not answer.
    fn no_jetstream(&self) -> BrokerError {
        let url = self.url.to_string();
        match &self.address.domain {
            Some(domain) => BrokerError::NoDomain { url, domain: domain.clone() },
            None => BrokerError::NoJetStream(url),
        }
    }

    /// Returns the longest wait for an answer.
    pub(super) fn patience(&self) -> Duration {
        if self.is_clustered() { CLUSTER_TIMEOUT } else { REQUEST_TIMEOUT }
    }

    /// Returns `true` if the server belongs to a cluster.
    pub(crate) fn is_clustered(&self) -> bool {
        self.client().server_info().cluster.is_some()
    }

    /// Fails if the server has not answered for too long since this moment. `what` names the work that waits.
    pub fn check_answers(&self, since: std::time::Instant, what: &str) -> Result<(), BrokerError> {
        let (silent, patience) = (since.elapsed(), self.patience());
        // A request that was sent just before the connection was lost is repeated over the new one.
        if silent < patience || self.is_connected() && silent < patience * 2 {
            return Ok(());
        }
        Err(self.unanswered("", what.to_owned(), None, patience))
    }

    fn unanswered(&self, subject: &str, what: String, met: Option<BrokerError>, patience: Duration) -> BrokerError {
        if !self.is_connected() {
            let reason = format!("the connection was lost and has not come back within {} s", patience.as_secs());
            return BrokerError::Unreachable { url: self.url.to_string(), reason };
        }
        met.unwrap_or_else(|| self.timed_out(subject, what))
    }

    /// Returns the error for a request without an answer. The server reports a missing permission to the connection, not as an
    /// answer.
    pub(super) fn timed_out(&self, subject: &str, what: String) -> BrokerError {
        match self.permissions.take_refusal(subject) {
            Some(reason) => BrokerError::NoPermission { what, reason },
            None => BrokerError::Timeout(what),
        }
    }
}

/// Reads an answer of JetStream's API.
fn read_answer<T: DeserializeOwned>(answer: &[u8], what: &impl Fn() -> String) -> Result<T, BrokerError> {
    match serde_json::from_slice(answer).map_err(|error| BrokerError::unreadable(what(), &error))? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(BrokerError::server(what(), &error)),
    }
}
