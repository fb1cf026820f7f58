//! Opens the chain for results of topics, before the last hop stores the first.
//!
//! The consumer of plain pullers takes the results of topics only after that. What is stored before, they would never get.

use tokio::sync::Mutex;

use crate::broker::publish::PublishError;
use crate::broker::streams::ChainStreams;
use crate::frame::outgoing::Outgoing;
use crate::node::commit::outbox::ServerStreams;
use crate::node::commit::receipt::Receipt;
use crate::subject;

/// Whether results of topics may be stored: `true` once this node has opened the chain for them.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<bool>);

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
        self.open(streams).await?;
        let stored = streams.store(messages).await;
        if matches!(stored, Err(PublishError::NoStream(_))) {
            // The stream was made anew.
            *self.0.lock().await = false;
        }
        stored
    }

    async fn open(&self, streams: &ServerStreams<'_>) -> Result<(), PublishError> {
        let mut is_open = self.0.lock().await;
        if !*is_open {
            ChainStreams::of(streams.broker, &streams.route.chain.name).open_topics().await?;
            *is_open = true;
        }
        Ok(())
    }
}
