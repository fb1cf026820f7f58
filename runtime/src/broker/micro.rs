//! A NATS micro service with one endpoint, as NATS ADR-32 describes it.
//!
//! Any client may send it requests, with any headers and reply subject. So it has a line of its own, which is opened anew when it
//! ends, and a request that cannot be answered ends nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::line::Line;
use super::{Broker, BrokerError};

/// How long to wait before the line is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// The queue group of endpoints, as all clients name it.
const GROUP: &str = "q";
const ENDPOINT: &str = "status";

/// The description of a service.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) name: &'static str,
    pub(super) purpose: &'static str,
    /// What the server shows of its connection.
    pub(super) connection: String,
    pub(super) metadata: HashMap<String, String>,
}

/// The kind of a request.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
    /// The endpoint.
    Status,
}

struct Service<R> {
    line: Line,
    description: Description,
    id: String,
    started: String,
    report: R,
    requests: AtomicU64,
}

/// Keeps a service running until it is dropped.
#[derive(Debug)]
pub(super) struct Running(tokio::task::JoinHandle<()>);

impl Running {
    /// Starts a service. Its endpoint answers with `report`, which is also the endpoint's `data` in the statistics.
    pub(super) async fn start<R: Fn() -> Value + Send + Sync + 'static>(
        broker: &Broker,
        description: Description,
        report: R,
    ) -> Result<Self, BrokerError> {
        let service = Service {
            line: Line::new(broker, &description.connection),
            description,
            id: ulid::Ulid::generate().to_string(),
            started: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            report,
            requests: AtomicU64::new(0),
        };
        let mut listening = service.listen().await?;
        let service = Arc::new(service);
        Ok(Self(tokio::spawn(async move {
            loop {
                service.answer(listening).await;
                tracing::debug!("the service's connection has ended");
                listening = loop {
                    tokio::time::sleep(AGAIN).await;
                    match service.listen().await {
                        Ok(listening) => break listening,
                        Err(error) => tracing::debug!(%error, "the service cannot be offered"),
                    }
                };
            }
        })))
    }

    /// Waits until the service has ended by itself, as by a panic.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

/// The incoming requests, and the connection for answers.
type Listening = (Broker, SelectAll<futures_util::stream::BoxStream<'static, (Verb, Message)>>);

impl<R: Fn() -> Value + Send + Sync> Service<R> {
    async fn listen(&self) -> Result<Listening, BrokerError> {
        let (name, id) = (self.description.name, &self.id);
        let mut questions = Vec::new();
        let (open, endpoint) = self.line.subscribe_in(self.subject(), Some(GROUP)).await?;
        questions.push(named(Verb::Status, endpoint));
        for (verb, token) in [(Verb::Ping, "PING"), (Verb::Info, "INFO"), (Verb::Stats, "STATS")] {
            for subject in
                [format!("$SRV.{token}"), format!("$SRV.{token}.{name}"), format!("$SRV.{token}.{name}.{id}")]
            {
                questions.push(named(verb, self.line.subscribe(subject).await?.1));
            }
        }
        Ok((open, select_all(questions)))
    }

    /// Answers until the connection ends.
    async fn answer(&self, (open, mut questions): Listening) {
        while let Some((verb, question)) = questions.next().await {
            let Some(reply) = question.reply else { continue };
            let answer = serde_json::to_vec(&self.answer_to(verb)).unwrap_or_default();
            if let Err(error) = open.client().publish(reply, Bytes::from(answer)).await {
                tracing::debug!(%error, "a question was not answered");
                if open.has_ended() {
                    return;
                }
            }
        }
    }

    fn answer_to(&self, verb: Verb) -> Value {
        let Description { name, purpose, metadata, connection: _ } = &self.description;
        let answer = |kind: &str| {
            json!({
                "type": format!("io.nats.micro.v1.{kind}_response"),
                "name": name,
                "id": self.id,
                "version": env!("CARGO_PKG_VERSION"),
                "metadata": metadata,
            })
        };
        match verb {
            Verb::Ping => answer("ping"),
            Verb::Info => {
                let mut info = answer("info");
                info["description"] = json!(purpose);
                info["endpoints"] =
                    json!([{ "name": ENDPOINT, "subject": self.subject(), "queue_group": GROUP, "metadata": {} }]);
                info
            }
            Verb::Stats => {
                let mut stats = answer("stats");
                stats["started"] = json!(self.started);
                stats["endpoints"] = json!([{
                    "name": ENDPOINT,
                    "subject": self.subject(),
                    "queue_group": GROUP,
                    "num_requests": self.requests.load(Ordering::Relaxed),
                    "num_errors": 0,
                    "last_error": "",
                    "processing_time": 0,
                    "average_processing_time": 0,
                    "data": (self.report)(),
                }]);
                stats
            }
            Verb::Status => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                (self.report)()
            }
        }
    }

    fn subject(&self) -> String {
        format!("pcluster.node.{}", self.id)
    }
}

fn named(verb: Verb, subscriber: Subscriber) -> futures_util::stream::BoxStream<'static, (Verb, Message)> {
    subscriber.map(move |message| (verb, message)).boxed()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
