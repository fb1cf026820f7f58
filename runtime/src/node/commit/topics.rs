//! Opens the chain for results of topics, before the last hop stores the first.
//!
//! The consumer of plain pullers takes the results of topics only after that. What is stored before, they would never get.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::broker::publish::PublishError;
use crate::broker::streams::ChainStreams;
use crate::frame::outgoing::Outgoing;
use crate::node::commit::outbox::ServerStreams;
use crate::node::commit::receipt::Receipt;
use crate::subject;

/// How long a chain counts as open. A deploy by an older release closes it, and plain pullers miss what is stored until then.
const OPEN: Duration = Duration::from_secs(30);

/// When this node has opened the chain for results of topics. `None` before the first.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Option<Instant>>);

impl Topics {
    /// Stores messages, as [`ServerStreams::store`] does. Opens the chain first if one is a result of a topic.
    pub(crate) async fn store(
        &self,
        streams: &ServerStreams<'_>,
        messages: &[Outgoing],
    ) -> Result<Receipt, PublishError> {
        let has_topic = |message: &Outgoing| subject::parse_results_topic(&message.subject).is_some();
        if !streams.route.is_last || !messages.iter().any(has_topic) {
            return streams.store(messages).await;
        }
        // Boxed, so that the state of other messages stays small.
        Box::pin(self.store_open(streams, messages)).await
    }

    async fn store_open(&self, streams: &ServerStreams<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        self.open(streams).await?;
        let stored = streams.store(messages).await;
        if matches!(stored, Err(PublishError::NoStream(_))) {
            // The stream was made anew.
            *self.0.lock().await = None;
        }
        stored
    }

    async fn open(&self, streams: &ServerStreams<'_>) -> Result<(), PublishError> {
        let mut opened = self.0.lock().await;
        if opened.is_none_or(|opened| opened.elapsed() >= OPEN) {
            ChainStreams::of(streams.broker, &streams.route.chain.name).open_topics().await?;
            *opened = Some(Instant::now());
        }
        Ok(())
    }
}
