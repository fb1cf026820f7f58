//! Tells whether anything of a topic is unfinished, by the headers of the work stream.

use super::BrokerError;
use super::stream::Stream;
use super::streams::ChainStreams;
use crate::frame::{Headers, header};
use crate::name::Topic;
use crate::subject;

/// How often more messages than were read may follow in a row.
///
/// What comes of a message is stored behind it before it is removed. So a reader from front to end misses nothing, unless servers
/// with copies of the stream answer that are not equally far. Then the rest is read too. An item that is missed each time would
/// have to move to the end of the stream as often.
const ROUNDS: u32 = 64;

/// Looks for messages of a topic in the work stream.
#[derive(Debug)]
pub(crate) struct TopicWork {
    topic: Topic,
    /// Up to this place there are none.
    place: u64,
    /// The place of the message of the topic that was found last. While it is there, nothing else is read.
    found: Option<u64>,
}

impl TopicWork {
    /// Returns a search that begins at the oldest message.
    pub(crate) fn new(topic: Topic) -> Self {
        Self { topic, place: 0, found: None }
    }

    /// Returns `true` if no message of the topic is left. Reads no message twice that was not of the topic.
    pub(crate) async fn is_finished(&mut self, streams: ChainStreams<'_>) -> Result<bool, BrokerError> {
        let name = subject::work_stream(streams.chain);
        let stream = Stream::of(streams.broker, &name);
        let is_of_topic = |headers: &Headers| headers.get(header::TOPIC) == Some(self.topic.as_str());
        if let Some(found) = self.found
            && stream.headers(found).await?.as_ref().is_some_and(is_of_topic)
        {
            return Ok(false);
        }
        for _ in 0..ROUNDS {
            let mut scan = stream.scan_to_end(self.place);
            while let Some(message) = scan.next().await? {
                if is_of_topic(&message.headers) {
                    self.found = Some(message.sequence);
                    return Ok(false);
                }
                self.place = message.sequence;
            }
            if !streams.broker.is_clustered() || stream.next_place(">", self.place).await?.is_none() {
                break;
            }
        }
        Ok(true)
    }
}
