//! Results with large items are removed once all who wait for results have taken them.
//!
//! Whom a result waits for, its subject tells: under a topic's subject for the plain pullers, which share one consumer, and for the
//! pullers of the topic, if they have one; under the subject of what pullers of a topic have put back for those alone; and under the
//! subject without a topic for the plain pullers alone, also if one of them has put it back. Other results stay until they are too old.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;

use super::super::get::Stored;
use super::super::info::Progress;
use super::super::stream::Stream;
use super::super::{Broker, BrokerError};
use super::LargeStore;
use crate::frame::header;
use crate::name::ChainName;
use crate::subject as names;

/// How far the pullers of a chain have come. Cheap to ask again and again; it is as old as the pullers it has met.
#[derive(Debug)]
pub(crate) struct TakenUpTo {
    broker: Broker,
    stream: String,
    /// By name of the consumer. `None` if there is no such consumer.
    readers: HashMap<String, Option<Reader>>,
    /// No consumer has come beyond this place. `None` until that was asked for.
    furthest: Option<u64>,
}

/// A consumer of results.
#[derive(Debug, Deserialize)]
struct Reader {
    #[serde(flatten)]
    progress: Progress,
    config: Filters,
}

/// The subjects that a consumer reads. All if there are none.
#[derive(Debug, Deserialize)]
struct Filters {
    #[serde(default)]
    filter_subject: Option<String>,
    #[serde(default)]
    filter_subjects: Vec<String>,
}

impl LargeStore {
    /// Returns how far the pullers of the chain have come by now.
    pub(crate) async fn taken(&self) -> Result<TakenUpTo, BrokerError> {
        TakenUpTo::of(&self.0.broker, &self.0.chain).await
    }
}

impl TakenUpTo {
    async fn of(broker: &Broker, chain: &ChainName) -> Result<Self, BrokerError> {
        let stream = names::results_stream(chain);
        let mut taken = Self { broker: broker.clone(), stream, readers: HashMap::new(), furthest: None };
        taken.reader(names::PULL_CONSUMER).await?;
        Ok(taken)
    }

    /// Removes the result at a place if all who wait for it have taken it. Returns `true` if it is gone.
    pub(crate) async fn remove(&mut self, place: u64) -> Result<bool, BrokerError> {
        let (broker, name) = (self.broker.clone(), self.stream.clone());
        let what = || format!("read message {place} of the stream `{name}`");
        let Some(result) = Stored::read(&broker, &name, &json!({ "seq": place }), what).await? else { return Ok(true) };
        if result.headers().get(header::LARGE).is_none() || !self.is_taken(place, &result.subject).await? {
            return Ok(false);
        }
        Stream::of(&broker, &name).remove_message(place).await?;
        Ok(true)
    }

    /// Returns `false` if no consumer has come to a place, whatever its subject.
    pub(super) async fn may_have(&mut self, place: u64) -> Result<bool, BrokerError> {
        let furthest = match self.furthest {
            Some(furthest) => furthest,
            None => Stream::of(&self.broker, &self.stream).furthest().await?,
        };
        self.furthest = Some(furthest);
        Ok(place <= furthest)
    }

    async fn is_taken(&mut self, place: u64, subject: &str) -> Result<bool, BrokerError> {
        if let Some(topic) = names::parse_results_again(subject) {
            let of_topic = self.reader(&names::topic_consumer(&topic)).await?;
            return Ok(of_topic.is_some_and(|reader| reader.has_taken(place, subject)));
        }
        let of_topic = match names::parse_results_topic(subject) {
            Some(topic) => self.reader(&names::topic_consumer(&topic)).await?,
            None => None,
        };
        let has_topic_taken = of_topic.is_none_or(|reader| reader.has_taken(place, subject));
        // Without a consumer for all pullers, or with one that skips topics, no plain puller has taken it.
        let of_all = self.reader(names::PULL_CONSUMER).await?;
        Ok(has_topic_taken && of_all.is_some_and(|reader| reader.has_taken(place, subject)))
    }

    async fn reader(&mut self, consumer: &str) -> Result<Option<&Reader>, BrokerError> {
        if !self.readers.contains_key(consumer) {
            let reader = match Stream::of(&self.broker, &self.stream).consumer(consumer).await {
                Ok(reader) => Some(reader),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            self.readers.insert(consumer.to_owned(), reader);
        }
        Ok(self.readers.get(consumer).and_then(Option::as_ref))
    }
}

impl Stream<'_> {
    /// Returns the place up to which the consumer that has come furthest has acknowledged all messages.
    async fn furthest(&self) -> Result<u64, BrokerError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            total: usize,
            #[serde(default)]
            consumers: Option<Vec<Progress>>,
            /// Those that have not answered.
            #[serde(default)]
            missing: Option<Vec<serde_json::Value>>,
        }
        let what = || format!("tell how far the readers of `{}` have come", self.name);
        let (mut furthest, mut seen) = (0, 0);
        loop {
            let api = format!("CONSUMER.LIST.{}", self.name);
            let page: Page = match self.broker.api(api, &json!({ "offset": seen }), what).await {
                Err(error) if error.is_not_found() => return Ok(0),
                page => page?,
            };
            if page.missing.is_some_and(|missing| !missing.is_empty()) {
                return Ok(u64::MAX);
            }
            let consumers = page.consumers.unwrap_or_default();
            seen += consumers.len();
            furthest = consumers.iter().map(|consumer| consumer.acknowledged).fold(furthest, u64::max);
            if consumers.is_empty() || seen >= page.total {
                return Ok(furthest);
            }
        }
    }
}

impl Reader {
    /// Returns `true` if the consumer reads this subject and has come beyond this place.
    fn has_taken(&self, place: u64, subject: &str) -> bool {
        place <= self.progress.acknowledged && self.config.reads(subject)
    }
}

impl Filters {
    fn reads(&self, subject: &str) -> bool {
        let one = self.filter_subject.iter().filter(|filter| !filter.is_empty());
        let mut filters = one.chain(&self.filter_subjects).peekable();
        filters.peek().is_none() || filters.any(|filter| matches(filter, subject))
    }
}

/// Returns `true` if a filter, which may have wildcards, takes a subject.
fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match tokens.next() {
            Some(_) if wanted == ">" => return true,
            Some(token) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_reads_what_its_filters_take() {
        let reads = |config: serde_json::Value, subject: &str| {
            serde_json::from_value::<Filters>(config).expect("filters").reads(subject)
        };
        let (plain, topic, again) = ("pcluster.a.out", "pcluster.a.out.t", "pcluster.a.out.t.again");
        for subject in [plain, topic, again] {
            assert!(reads(json!({}), subject) && reads(json!({ "filter_subject": "" }), subject), "{subject}");
            assert!(reads(json!({ "filter_subject": "pcluster.a.>" }), subject), "{subject}");
        }
        let old = json!({ "filter_subject": plain });
        assert!(reads(old.clone(), plain) && !reads(old, topic));
        let both = json!({ "filter_subjects": [plain, "pcluster.a.out.*"] });
        assert!(reads(both.clone(), plain) && reads(both.clone(), topic) && !reads(both, again));
        assert!(!matches("pcluster.a.out.>", plain) && !matches("pcluster.b.out", plain));
    }
}
