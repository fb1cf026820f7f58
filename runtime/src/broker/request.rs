//! Asking the server: every question is asked again until it is answered, but not for ever.
//!
//! Each question that goes through here can be asked twice without harm, but for those of [`Broker::api_once`]. That is needed
//! because a server that goes away takes questions with it, and because in a cluster nobody answers for a stream while its
//! leader is being elected.

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

/// How long the servers of a cluster may take over an answer: an election takes up to nine seconds from the leader's end, and
/// what is asked may then have to be decided by two leaders, one after the other.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for an answer before asking again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long to wait before asking again after the answer that it is too early.
pub(super) const AGAIN_EARLY: Duration = Duration::from_millis(300);

/// A question.
pub(super) struct Question {
    /// Where it is asked.
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

/// Says once that something does not work, and once that it does again.
#[derive(Debug, Default)]
pub struct Outage {
    is_told: bool,
}

impl Outage {
    /// Something did not work. `what` completes "cannot …". That the connection is lost has been said already.
    pub fn met(&mut self, broker: &Broker, what: &str, error: &BrokerError) {
        if !self.is_told && broker.is_connected() {
            self.is_told = true;
            tracing::warn!("cannot {what}, trying again until it works: {error}");
        }
    }

    /// It works.
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

    /// The same for what must not arrive late: it is asked once, and not at all unless the connection stands. Without an answer
    /// nobody knows whether it was done.
    pub(super) async fn api_once<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &(impl Serialize + Sync),
        what: impl Fn() -> String,
    ) -> Result<T, BrokerError> {
        let question = self.api_question(&subject, request, &what)?;
        if !self.is_connected() {
            // The client library would send it as soon as the connection is back, whenever that is.
            return Err(BrokerError::Unreachable {
                url: self.url.to_string(),
                reason: "the connection is lost".to_owned(),
            });
        }
        match self.client().send_request(question.subject.clone(), question.request(AGAIN)).await {
            Ok(answer) => read_answer(&answer.payload, &what),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::TimedOut => self.unanswered(&question.subject, what(), None, AGAIN),
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
                        // The connection has ended, and is made anew.
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
        let read = |answer: &[u8]| match serde_json::from_slice::<Response<Value>>(answer) {
            Ok(Response::Ok(_)) => Ok(()),
            Ok(Response::Err { error }) => Err(BrokerError::server(what(), &error)),
            Err(error) => Err(BrokerError::unreadable(what(), &error)),
        };
        self.request(&question, &what, read).await
    }

    /// Nobody answers for JetStream.
    fn no_jetstream(&self) -> BrokerError {
        let url = self.url.to_string();
        match &self.address.domain {
            Some(domain) => BrokerError::NoDomain { url, domain: domain.clone() },
            None => BrokerError::NoJetStream(url),
        }
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        if self.is_clustered() { CLUSTER_TIMEOUT } else { REQUEST_TIMEOUT }
    }

    /// Whether the server has others beside it.
    pub(super) fn is_clustered(&self) -> bool {
        self.client().server_info().cluster.is_some()
    }

    /// Fails once the server has not answered for too long: since this moment, as far as whoever does `what` has seen.
    ///
    /// # Errors
    ///
    /// If it is taken for away.
    pub fn check_answers(&self, since: std::time::Instant, what: &str) -> Result<(), BrokerError> {
        let (silent, patience) = (since.elapsed(), self.patience());
        // What was asked just before the connection was lost is asked again over the new one.
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

    /// A request without an answer: the server answers none that the user may not make, but tells the connection.
    pub(super) fn timed_out(&self, subject: &str, what: String) -> BrokerError {
        match self.permissions.take_refusal(subject) {
            Some(reason) => BrokerError::NoPermission { what, reason },
            None => BrokerError::Timeout(what),
        }
    }
}

/// What JetStream's API has answered.
fn read_answer<T: DeserializeOwned>(answer: &[u8], what: &impl Fn() -> String) -> Result<T, BrokerError> {
    match serde_json::from_slice(answer).map_err(|error| BrokerError::unreadable(what(), &error))? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(BrokerError::server(what(), &error)),
    }
}
